"""Tokens a second of our engine against transformers' generate, in turn, and against this machine's memory bandwidth.

    python benchmarks/decode.py [--small] [--only 0.5b] [--rounds 7] [--threads 2] [--json] [--out FILE]

The same weights in the same precision, the same prompts, temperature 1 and nothing cut off; every completion goes to
its full length (the end token is held back on both sides). Ours also gives each token's log-probability, theirs does
not. A call counts whole, prefill included, by the clock and in `processor` time over all threads, which a busy machine
changes less. transformers runs with its dynamic and its static cache; compiled, where the first compiled call is done
within `--compile-seconds` (else `failed` says so).

The limit: a step of decoding reads every weight once (the tied embedding as the output head) and each row's keys and
values; at the measured bandwidth no more steps can be done. The bandwidth is the larger of STREAM's triad
(a = b + s * c, 12 bytes an element of float32) and a sum, which only reads, each the best of some passes over arrays of
256 MiB, at the same threads. The nano model lies in the caches, so the limit is told for the 0.5B shape alone.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paired
import torch
from rl_step import model_folder

from aftershock.generate import Engine, SamplingParams
from aftershock.models import CausalLM, load
from aftershock.text import Tokenizer

PROMPT = 16  # tokens
ELEMENTS = 1 << 26  # of an array of the bandwidth's measurement: 256 MiB
THEIRS = ("dynamic", "static", "compiled")
# model, precision, rows, new tokens, rounds
CASES = [("small-qwen", "float32", rows, 64, 7) for rows in (1, 8, 64)]
CASES += [("0.5b", precision, rows, 32, 3) for precision in ("float32", "bfloat16") for rows in (1, 8, 64)]
SMALL = [("small-qwen", "float32", 8, 64, 7), ("small-qwen", "float32", 64, 64, 7)]
TO_COME = {"llama.cpp": "llama-cpp-python comes as source only and was not built; it wants the same weights as GGUF"}


def prompts(rows: int) -> list[list[int]]:
    """Return one prompt a row, all of one length and all different."""
    drawn = torch.randint(300, 700, (rows, PROMPT), generator=torch.Generator().manual_seed(0))
    return drawn.tolist()


def pace(generate: Callable[[], int]) -> tuple[float, float]:
    """Return what one call makes a second, by the clock and by processor time over all threads."""
    began, used = time.perf_counter(), time.process_time()
    made = generate()
    return made / (time.perf_counter() - began), made / (time.process_time() - used)


def ours(model: CausalLM, tokenizer: Tokenizer, rows: int, length: int) -> Callable[[], int]:
    """Return a call of the engine."""
    engine, asked = Engine(model, tokenizer, max_rows=rows), prompts(rows)
    params = SamplingParams(max_tokens=length, logit_bias={tokenizer.eos: -1e4})

    def run() -> int:
        made = sum(len(completion.tokens) for group in engine.generate(asked, params) for completion in group)
        assert made == rows * length, f"{made} tokens, wanted {rows * length}"
        return made

    return run


def theirs(model: Any, kind: str, rows: int, length: int) -> Callable[[], int]:
    """Return a call of transformers' generate with one kind of cache."""
    from transformers import CompileConfig

    asked = torch.tensor(prompts(rows))
    more: dict[str, Any] = {"disable_compile": kind != "compiled"}
    if kind != "dynamic":
        more["cache_implementation"] = "static"
    if kind == "compiled":
        more["compile_config"] = CompileConfig(mode="default", fullgraph=False)
        more["compile_config"]._compile_all_devices = True  # on a CPU it is off unless asked for like this

    @torch.inference_mode()
    def run() -> int:
        made = model.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            min_new_tokens=length,
            max_new_tokens=length,
            pad_token_id=1,
            **more,
        )
        return (made.shape[1] - PROMPT) * rows

    return run


def bandwidth(passes: int = 7) -> dict[str, float]:
    """Return bytes a second of a triad and of a sum, the best pass of each."""
    a, b, c = (torch.ones(ELEMENTS) for _ in range(3))

    def triad() -> int:
        torch.add(b, c, alpha=2.0, out=a)
        return 12 * ELEMENTS

    def total() -> int:
        a.sum()
        return 4 * ELEMENTS

    return {name: max(pace(work)[0] for _ in range(passes)) for name, work in (("triad", triad), ("sum", total))}


def bytes_a_step(model: CausalLM, rows: int, length: int) -> int:
    """Return the bytes that one step of decoding must read: all weights, and keys and values of the mean context."""
    weights = sum(weight.nbytes for weight in model.parameters())
    if model.lm_head is not None:  # an embedding of its own is looked up, not read
        weights -= model.model.embed_tokens.weight.nbytes
    return weights + model.cache_bytes(rows, PROMPT + length // 2)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError where the block takes longer."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--compile-seconds", type=int, default=300)
    given = parser.parse_args()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    before, found, failed = paired.machine(given.threads), [], {}
    limits = {} if given.small else bandwidth()

    def keep(row: paired.Row) -> None:
        paired.tell(row)
        found.append(row)

    loaded: tuple[Any, ...] = (None, None, None)
    with tempfile.TemporaryDirectory() as scratch:
        for name, precision, rows, length, rounds in SMALL if given.small else CASES:
            title = f"decode {name} {precision} batch {rows}"
            if given.only not in title:
                continue
            if loaded[0] != (name, precision):
                loaded = (None, None, None)  # before the next are read
                folder, dtype = model_folder(name, Path(scratch)), getattr(torch, precision)
                other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
                loaded = ((name, precision), load(folder, dtype=dtype), other)
            _, model, other = loaded
            sides = {"ours": ours(model, Tokenizer.load(folder), rows, length)}
            sides["ours"]()
            for kind in THEIRS[: 2 if given.small else 3]:
                run = theirs(other, kind, rows, length)
                try:
                    with within(given.compile_seconds if kind == "compiled" else 3600):
                        run()  # a warm-up, and the compiling
                    sides[kind] = run
                except Exception as error:  # whatever the compiler throws is a finding, not an end
                    failed[f"{title} {kind}"] = f"{type(error).__name__}: {error}"[:300]
            calls = {side: lambda run=run: pace(run) for side, run in sides.items()}
            told = paired.alternate(calls, given.rounds or rounds)
            clock, processor = ({side: [p[i] for p in paces] for side, paces in told.items()} for i in (0, 1))
            for kind in [kind for kind in THEIRS if kind in sides]:
                keep(paired.compare(f"{title} {kind}", clock["ours"], clock[kind], "tokens/s"))
                keep(paired.compare(f"{title} {kind}: processor", processor["ours"], processor[kind], "tokens/s"))
            if limits and name == "0.5b":
                most = max(limits.values()) * rows / bytes_a_step(model, rows, length)
                keep(paired.compare(f"{title} limit", clock["ours"], [most] * len(clock["ours"]), "tokens/s"))
    print("\n".join(f"{name}: {why}" for name, why in failed.items()), file=sys.stderr)
    paired.report(found, given, before, bytes_a_second=limits, failed=failed, to_come=TO_COME)


if __name__ == "__main__":
    main()
