"""How far the sampler's and the learner's log-probabilities differ, exact mode on or off, why, and what it costs.

    python benchmarks/exact.py [--only difference|operation|cause|cost] [--tokens N] [--rounds N] [--threads 1] [--json]

- `difference`: the largest |sampler - learner| over all tokens of rollouts by each kind of model, in rounds that change
  prompts, rows decoded together and tokens packed together; `theirs` is the same model without exact mode. `n` counts
  tokens. The learner's forward is the one that has a gradient.
- `operation`: the largest difference of a value alone and among others, in an operation as it comes (`theirs`) and in
  its exact form.
- `cause`: as `difference`, by PyTorch's forms and not C's, one cure of exact mode taken away after the other, in small
  random models whose sizes are no multiples of a vector's.
- `cost`: one RL step (sample, judge, learn) of the pipeline's own functions with and without, in turn, in seconds of
  processor time; a ratio below 1 says how much slower exact mode is. Rates are so small that both sides go on sampling
  alike.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import paired
import rl_step

QWEN3 = {  # as much of Qwen3 as differs from Qwen2: norms of queries and keys, no biases
    "model_type": "qwen3",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "initializer_range": 0.08,
    "tie_word_embeddings": True,
}
ODD = {
    "vocab_size": 1021,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
ODD_KINDS = {
    "qwen2": ODD | {"model_type": "qwen2", "num_key_value_heads": 1, "head_dim": 12},
    "deepseek_v3": ODD
    | {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 3,
        "moe_intermediate_size": 20,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 20,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
    },
}
KINDS = {"qwen2": "small-qwen", "llama": "small-llama", "qwen3": "", "deepseek_v3": "base"}
SHAPES = (  # samples a prompt, rows decoded, tokens packed, longest prompt, longest completion
    (24, 256, 16384, 60, 200),
    (1, 8, 64, 60, 100),
    (16, 96, 700, 60, 160),
    (24, 100, 4096, 200, 100),
)
CAUSE_SHAPES = ((1, 64, 16384, 60, 300), (1, 8, 40, 20, 20))


@dataclass
class Gap:
    """What was seen of |sampler - learner|."""

    largest: float = 0.0
    differing: int = 0
    tokens: int = 0

    def add(self, gaps: Any) -> None:
        self.largest = max(self.largest, gaps.max().item())
        self.differing += int(gaps.count_nonzero())
        self.tokens += len(gaps)


def model_of(kind: str, exact: bool) -> Any:
    """Return a shipped model of this kind, or one with random weights, in float32."""
    import torch

    from aftershock.models import build, load, make_exact
    from aftershock.sources import shipped_base

    name = KINDS[kind]
    model = load(shipped_base(name), dtype=torch.float32) if name else build(QWEN3, seed=0)
    if exact:
        make_exact(model)
    return model


def gap_of(model: Any, tokens: int, shapes: Any = SHAPES) -> Gap:
    """Sample until `tokens` are seen, in ever other shapes, and return how far the learner's forward is from them."""
    from aftershock.generate import Engine, SamplingParams
    from aftershock.learn import Sample, pack, token_logprobs
    from aftershock.sources import shipped_base
    from aftershock.text import Tokenizer

    tokenizer, found, round = Tokenizer.load(shipped_base()), Gap(), 0
    draw = random.Random(0)
    while found.tokens < tokens:
        n, rows, micro, prompt, longest = shapes[round % len(shapes)]
        asked = [[draw.randrange(8, 256) for _ in range(draw.randint(1, prompt))] for _ in range(10)]
        params = SamplingParams(n=n, max_tokens=longest, seed=round)
        groups = Engine(model, tokenizer, max_rows=rows).generate(asked, params)
        samples = [
            Sample(one.prompt_tokens, one.tokens, one.logprobs, 1.0, number)
            for number, group in enumerate(groups)
            for one in group
        ]
        for batch in pack(samples, micro, deep=model.learns_natively):
            logprobs, _ = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
            found.add((batch.counted(logprobs.detach()) - batch.sampler_logprobs).abs())
        round += 1
    return found


def difference(kind: str, tokens: int) -> tuple[paired.Row, dict[str, Any]]:
    """Return the largest difference with exact mode and, over a tenth of the tokens, without."""
    ours, theirs = gap_of(model_of(kind, True), tokens), gap_of(model_of(kind, False), tokens // 10)
    share = ours.largest / theirs.largest
    row = paired.Row(f"difference {kind}", ours.largest, theirs.largest, share, share, share, "nats", ours.tokens)
    return row, {"exact": vars(ours), "plain": vars(theirs)}


def operations() -> Iterator[paired.Row]:
    """Yield how far a value alone is from the same one among others, at most, over numbers of rows, keys and places."""
    import torch
    import torch.nn.functional as F

    from aftershock.models import invariant

    draw = torch.Generator().manual_seed(0)
    x, weight, keys = (torch.randn(*shape, generator=draw) for shape in ((640, 96), (288, 96), (8, 320, 24)))
    queries = torch.randn(8, 64, 24, generator=draw)
    bias = torch.zeros(1, 1, 320)

    def first(form: Callable[[Any], Any], whole: Any, sizes: Any) -> float:
        """The largest difference that the first of `whole` has alone."""
        return max((form(whole[:n]) - form(whole)[:n]).abs().max().item() for n in sizes)

    def seen(form: Callable[[Any, Any, Any], Any], lengths: Any) -> float:
        """The largest difference that padding makes after a number of keys."""
        masks = [bias.masked_fill(torch.arange(320) >= n, float("-inf")) for n in lengths]
        pairs = [(form(keys[:, :n], bias[..., :n], n), form(keys, mask, 320)) for n, mask in zip(lengths, masks)]
        return max((one - two).abs().max().item() for one, two in pairs)

    def plain(k: Any, mask: Any, n: int) -> Any:
        return (torch.bmm(queries[:, :8], k.transpose(1, 2)) + mask).softmax(-1) @ k

    def exact(k: Any, mask: Any, n: int) -> Any:
        return invariant.attention(queries[:, None, :1, None], k[:, None], k[:, None], 1.0, mask)

    few, many, flat = range(1, 4), range(8, 200, 8), (1, 5, 8, 16, 24, 31, 48, 100, 1000)
    sides = {
        "linear, 1 to 3 rows": (first, lambda a: F.linear(a, weight), lambda a: invariant.linear(a, weight), x, few),
        "linear, 8 to 192 rows": (first, lambda a: F.linear(a, weight), lambda a: invariant.linear(a, weight), x, many),
        "silu, 1 to 1,000 values": (first, F.silu, invariant.silu, x.flatten(), flat),
        "sigmoid, 1 to 1,000 values": (first, torch.sigmoid, invariant.sigmoid, x.flatten(), flat),
        "exp, 1 to 1,000 values": (first, torch.exp, torch.exp, x.flatten(), flat),
        "root-mean-square norm, 1 to 192 rows": (first, *[lambda a: F.rms_norm(a, (96,))] * 2, x, (*few, *many)),
        "log-softmax, 1 to 192 rows": (first, *[lambda a: a.log_softmax(-1)] * 2, x, (*few, *many)),
    }
    for name, (measure, one, other, *given) in sides.items():
        yield operation(name, measure(one, *given), measure(other, *given))
    product = [(lambda n, f=f: f(queries[:, :n], keys.transpose(1, 2))) for f in (torch.bmm, invariant.product)]
    gaps = [max((f(n) - f(64)[:, :n]).abs().max().item() for n in few) for f in product]
    yield operation("products of queries and keys, 1 to 3 queries", *gaps)
    for name, lengths in (("under 16 keys", (1, 5, 11, 15)), ("16 to 192", (17, 100, 190)), ("over 192", (250, 300))):
        yield operation(f"attention, {name}, then padding", seen(plain, lengths), seen(exact, lengths))


def operation(name: str, plain: float, exact: float) -> paired.Row:
    """Return the row of an operation's largest differences."""
    return paired.Row(f"operation {name}", exact, plain, 0, 0, 0, "absolute", 1)


@contextmanager
def without(cure: str) -> Iterator[None]:
    """Take one cure of exact mode away."""
    from aftershock.learn import logprobs
    from aftershock.models import exact, invariant
    from aftershock.models.attention import GroupedAttention, LatentAttention

    removed: Mapping[str, tuple[Any, str, Any]] = {
        "nothing": (invariant, "ROWS", invariant.ROWS),
        "log-softmax as the sampler has it": (logprobs, "_SelectExactly", logprobs._Select),
        "one attention for all forms": (exact._GroupedAttention, "attend", GroupedAttention.attend),
        "latents absorbed in all forms": (exact._LatentAttention, "attend", LatentAttention.attend),
        "queries in fours": (invariant, "FEW", (1, 1, 1)),
        "sums over 192 keys": (invariant, "SPAN", 1 << 30),
    }
    with mock.patch.object(*removed[cure]):
        yield


DENSE, MIXTURE = ("qwen2", "deepseek_v3"), ("deepseek_v3",)
CAUSES = {
    "nothing": DENSE,
    "log-softmax as the sampler has it": DENSE,
    "one attention for all forms": ("qwen2",),
    "latents absorbed in all forms": MIXTURE,
    "queries in fours": DENSE,
    "sums over 192 keys": DENSE,
}


def causes(tokens: int) -> Iterator[tuple[paired.Row, dict[str, Any]]]:
    """Yield what each cure taken away leaves, against all cures."""
    from aftershock.models import build, make_exact
    from aftershock.models.native.build import SWITCH

    for cure, kinds in CAUSES.items():
        for kind in kinds:
            model = build(ODD_KINDS[kind], seed=0)
            make_exact(model)
            with mock.patch.dict(os.environ, {SWITCH: "0"}), without(cure):
                found = gap_of(model, tokens, CAUSE_SHAPES)
            row = paired.Row(f"cause {kind}: without {cure}", found.largest, 0.0, 0, 0, 0, "nats", found.tokens)
            yield row, vars(found)


COSTS = (("qwen2", "check"), ("qwen2", "coin"), ("deepseek_v3", "coin"))


def cost(kind: str, verdict: str, rounds: int, threads: int) -> list[paired.Row]:
    """Return what a whole step takes without exact mode against with it, and the two parts of it."""
    from contextlib import ExitStack

    from aftershock.models import make_exact
    from aftershock.recipe import RewardTable
    from aftershock.sources import shipped_base
    from aftershock.verify.judge import Judge

    case, task = rl_step.Case(kind, kind, verdict, "float32", "", threads=threads), rl_step.sums()
    with ExitStack() as stack:
        judge: Any = rl_step.Coin()
        if verdict == "check":
            judge = stack.enter_context(Judge([task], RewardTable(format=0.0), case.max_tokens))
        loops = [rl_step.our_loop(case, shipped_base(KINDS[kind]), judge, task, 1e-12) for _ in range(2)]
        make_exact(loops[0].learner.model)
        sides = {name: stepper(case, loop, judge, task) for name, loop in zip(("ours", "theirs"), loops)}
        for side in sides.values():
            side()
        told = paired.alternate(sides, rounds)

    def row(part: str) -> paired.Row:
        one, other = ([step[part] for step in told[side]] for side in ("ours", "theirs"))
        return paired.compare(f"cost {kind} {verdict}: {part}", one, other, "s")

    return [row("step"), row("sampling"), row("judging and learning")]


def stepper(case: rl_step.Case, loop: Any, judge: Any, task: Any) -> Callable[[], dict[str, float]]:
    """Return what takes one more RL step and tells its seconds of processor time."""
    import itertools
    import time

    from aftershock.generate import SamplingParams
    from aftershock.pipeline import rl
    from aftershock.pipeline.evaluate import sample

    params, numbers, clock = SamplingParams(n=case.samples, max_tokens=case.max_tokens), itertools.count(), {"s": 0.0}
    generate = loop.engine.generate

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        done = generate(*args, **kwargs)
        clock["s"] = time.process_time() - began
        return done

    loop.engine.generate = timed

    def step() -> dict[str, float]:
        number = next(numbers)
        problems = [task.draw("train", number * case.problems + one) for one in range(case.problems)]
        began = time.process_time()
        judged = sample(loop.engine, judge, problems, params, ("bench", number))
        rl._learn(loop, judged, {})
        whole = time.process_time() - began
        return {"step": whole, "sampling": clock["s"], "judging and learning": whole - clock["s"]}

    return step


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    before, rows, seen = paired.machine(given.threads), [], {}

    def keep(found: list[paired.Row], **more: Any) -> None:
        for row in found:
            paired.tell(row)
        rows.extend(found)
        seen.update(more)
        paired.report(rows, given, before, done=False, seen=seen)

    for kind in KINDS if given.only in "difference" else ():
        row, gaps = difference(kind, given.tokens)
        keep([row], **{row.name: gaps})
    if given.only in "operation":
        keep(list(operations()))
    for row, gap in causes(given.tokens // 10) if given.only in "cause" else ():
        keep([row], **{row.name: gap})
    for kind, verdict in COSTS if given.only in "cost" else ():
        keep(cost(kind, verdict, given.rounds or 12, given.threads))
    paired.report(rows, given, before, seen=seen)


if __name__ == "__main__":
    main()
