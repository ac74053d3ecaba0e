"""Tokens a second of our engine against transformers' generate, in turn, and against this machine's memory bandwidth.

    python benchmarks/decode.py [--small] [--only 0.5b] [--against dynamic,static] [--llama-python PATH] [--rounds 7]
                                [--threads 2] [--json] [--out FILE]

The same weights in the same precision, the same prompts, temperature 1 and nothing cut off; every completion goes to
its full length (the end token is held back on both sides). Ours also gives each token's log-probability, theirs does
not. A call counts whole, prefill included, by the clock and in `processor` time over all threads, which a busy machine
changes less. transformers runs with its dynamic and its static cache; compiled, where the first compiled call is done
within `--compile-seconds` (else `failed` says so); `paged` is its continuous batching in a cache of just the pages
wanted, which a CPU runs without CUDA graphs, flash attention and asynchronous batches. llama.cpp runs where
`--llama-python` names an interpreter that has it (llama_side.py says how to build one): on the same weights as GGUF,
in a process of its own, in float32 alone. Both sides are greedy there, and `alike` tells how many rows have the same
tokens.

The limit: a step of decoding reads every weight once (the tied embedding as the output head) and each row's keys and
values; at the measured bandwidth no more steps can be done. It is told for whole calls and for steps alone, a call's
time less that of one which ends with its first token, its prefill. The bandwidth is the larger of STREAM's triad
(a = b + s * c, 12 bytes an element of float32) and a sum, which only reads, each the best of some passes over arrays of
256 MiB, at the same threads. The nano model lies in the caches, so the limit is told for the 0.5B shape alone.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paired
import torch
from rl_step import model_folder

from aftershock.generate import Engine, SamplingParams
from aftershock.models import CausalLM, load
from aftershock.text import Tokenizer

PROMPT, PAGE = 16, 32  # tokens
ELEMENTS = 1 << 26  # of an array of the bandwidth's measurement: 256 MiB
THEIRS = ("dynamic", "static", "paged", "compiled")
HERE = Path(__file__).parent
# model, precision, rows, new tokens, rounds
CASES = [("small-qwen", "float32", rows, 64, 7) for rows in (1, 8, 64)]
CASES += [("0.5b", precision, rows, 32, 3) for precision in ("float32", "bfloat16") for rows in (1, 8, 64)]
SMALL = [("small-qwen", "float32", 8, 64, 7), ("small-qwen", "float32", 64, 64, 7)]


def prompts(rows: int) -> list[list[int]]:
    """Return one prompt a row, all of one length and all different."""
    drawn = torch.randint(300, 700, (rows, PROMPT), generator=torch.Generator().manual_seed(0))
    return drawn.tolist()


def pace(generate: Callable[[], int]) -> tuple[float, float]:
    """Return what one call makes a second, by the clock and by processor time over all threads."""
    began, used = time.perf_counter(), time.process_time()
    made = generate()
    return made / (time.perf_counter() - began), made / (time.process_time() - used)


def completed(model: CausalLM, tokenizer: Tokenizer, rows: int, length: int, heat: float) -> list[tuple[int, ...]]:
    """Return every row's tokens, as many as asked for; at `heat` 0 the likeliest."""
    params = SamplingParams(max_tokens=length, temperature=heat, logit_bias={tokenizer.eos: -1e4})
    groups = Engine(model, tokenizer, max_rows=rows).generate(prompts(rows), params)
    made = [tuple(completion.tokens) for group in groups for completion in group]
    assert {len(tokens) for tokens in made} == {length}, f"{sum(map(len, made))} tokens, wanted {rows * length}"
    return made


def ours(model: CausalLM, tokenizer: Tokenizer, rows: int, length: int, heat: float = 1.0) -> Callable[[], int]:
    """Return a call of the engine."""
    return lambda: sum(map(len, completed(model, tokenizer, rows, length, heat)))


def steps_alone(model: CausalLM, tokenizer: Tokenizer, rows: int, length: int) -> float:
    """Return the tokens a second, by the clock, of all steps but each call's first."""
    one, all_ = (ours(model, tokenizer, rows, tokens) for tokens in (1, length))
    return rows * (length - 1) / (length * rows / pace(all_)[0] - rows / pace(one)[0])


def theirs(model: Any, kind: str, rows: int, length: int) -> Callable[[], int]:
    """Return a call of transformers' generate with one kind of cache."""
    from transformers import CompileConfig

    if kind == "paged":
        return paged(model, rows, length)
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


def paged(model: Any, rows: int, length: int) -> Callable[[], int]:
    """Return a call of transformers' continuous batching; what it doesn't say about itself is as small as it can be."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    cache = {"page_size": PAGE, "num_blocks": rows * (-(-(PROMPT + length) // PAGE) + 1), "max_batch_tokens": 512}
    batching = ContinuousBatchingConfig(**cache, use_cuda_graph=False)
    drawing = GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=length, eos_token_id=-1, pad_token_id=1
    )

    def run() -> int:
        told = model.generate_batch(prompts(rows), generation_config=drawing, continuous_batching_config=batching)
        return sum(len(one.generated_tokens) for one in told.values())

    return run


class Llama:
    """llama.cpp in an interpreter of its own, which answers one call at a time."""

    def __init__(self, python: str, folder: Path, gguf: Path, rows: int, length: int, withheld: int, threads: int):
        asked = {"folder": str(folder), "gguf": str(gguf), "prompts": prompts(rows), "length": length}
        told = json.dumps(asked | {"withheld": withheld, "threads": threads})
        self.log = gguf.with_suffix(".log").open("w")
        self.process = subprocess.Popen(
            [python, str(HERE / "llama_side.py"), told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def call(self) -> tuple[list[list[int]], tuple[float, float]]:
        """Return every row's tokens, and what was made a second by the clock and in processor time."""
        try:
            print(file=self.process.stdin, flush=True)
            told = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            said = Path(self.log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"llama.cpp's side has ended: {said}") from None
        made = sum(map(len, told["tokens"]))
        return told["tokens"], tuple(made / seconds for seconds in told["seconds"])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.log.close()


def alike(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> str:
    """Return in words how many rows are the same, and where the first one parts: a near tie may, for rounding."""
    same = [[*(a == b for a, b in zip(one, other)), False].index(False) for one, other in zip(ours, theirs)]
    length = len(ours[0])
    parted = "" if min(same) == length else f"; the first parts after {min(same)}"
    return f"{same.count(length)} of {len(same)} rows alike over {length} tokens{parted}"


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


def rivals(given: Any, other: Any, title: str, rows: int, length: int, failed: dict[str, str]) -> dict[str, Any]:
    """Return transformers' sides that can run, each warm; `failed` is told of the others."""
    sides = {}
    for kind in given.against.split(",") if other else []:
        if given.small and kind in ("paged", "compiled"):
            continue
        run = theirs(other, kind, rows, length)
        try:
            with within(given.compile_seconds if kind == "compiled" else 3600):
                run()  # a warm-up, and the compiling
            sides[kind] = run
        except Exception as error:  # whatever the compiler throws is a finding, not an end
            failed[f"{title} {kind}"] = f"{type(error).__name__}: {error}"[:300]
    return {kind: lambda run=run: pace(run) for kind, run in sides.items()}


def measured(
    title: str, sides: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> tuple[list[paired.Row], list[float]]:
    """Return two rows a rival, by the clock and in processor time, and our pace by the clock in every round.

    llama.cpp is compared with our greedy side, the others with the one that samples.
    """
    told, made = paired.alternate(sides, rounds), []
    for kind in [kind for kind in sides if not kind.startswith("ours")]:
        mine = told["ours greedy" if kind == "llama.cpp" else "ours"]
        for number, part in enumerate(("", ": processor")):
            one, other = ([pace[number] for pace in paces] for paces in (mine, told[kind]))
            made.append(paired.compare(f"{title} {kind}{part}", one, other, "tokens/s"))
    return made, [pace[0] for pace in told["ours"]]


def parser() -> Any:
    """Return what the command line takes."""
    made = paired.parser(__doc__)
    made.add_argument("--compile-seconds", type=int, default=300)
    made.add_argument("--against", default=",".join(THEIRS), help="transformers' caches to run; '' for none")
    made.add_argument("--llama-python", help="an interpreter with llama-cpp-python, gguf and safetensors")
    return made


class Case:
    """A shape's weights, ours and transformers', and the cases of it that are measured."""

    def __init__(self, name: str, precision: str, scratch: Path, given: Any) -> None:
        import transformers

        self.folder, dtype = model_folder(name, scratch), getattr(torch, precision)
        self.name, self.precision, self.given = name, precision, given
        self.model, self.tokenizer = load(self.folder, dtype=dtype), Tokenizer.load(self.folder)
        self.other = None
        if given.against:
            self.other = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype).eval()
        self.gguf = scratch / f"{name}.gguf"

    def llama(self, rows: int, length: int) -> Llama | None:
        """Return llama.cpp's side where it is wanted."""
        python, given = self.given.llama_python, self.given
        if not python or self.precision != "float32" or given.small:
            return None
        return Llama(python, self.folder, self.gguf, rows, length, self.tokenizer.eos, given.threads)


def measure(case: Case, rows: int, length: int, rounds: int, found: dict[str, Any]) -> Iterator[paired.Row]:
    """Yield a case's rows; `found` is told what failed, how alike greedy tokens are, and the bandwidth."""
    title, given = f"decode {case.name} {case.precision} batch {rows}", case.given
    mine = {"ours": ours(case.model, case.tokenizer, rows, length)}
    llama = case.llama(rows, length)
    more: dict[str, Callable[[], tuple[float, float]]] = {}
    if llama:
        greedy = completed(case.model, case.tokenizer, rows, length, 0.0)
        found["alike"][title] = alike(greedy, llama.call()[0])
        mine["ours greedy"] = ours(case.model, case.tokenizer, rows, length, 0.0)
        more["llama.cpp"] = lambda: llama.call()[1]
    mine["ours"]()
    sides = {name: lambda run=run: pace(run) for name, run in mine.items()}
    told, paces = measured(
        title, sides | rivals(given, case.other, title, rows, length, found["failed"]) | more, given.rounds or rounds
    )
    yield from told
    if found["bytes_a_second"] and case.name == "0.5b":
        most = max(found["bytes_a_second"].values()) * rows / bytes_a_step(case.model, rows, length)
        yield paired.compare(f"{title} limit", paces, [most] * len(paces), "tokens/s")
        alone = [steps_alone(case.model, case.tokenizer, rows, length) for _ in paces]
        yield paired.compare(f"{title} limit: steps alone", alone, [most] * len(alone), "tokens/s")
    if llama:
        llama.close()


def main() -> None:
    given = parser().parse_args()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    wanted = [one for one in (SMALL if given.small else CASES) if given.only in "decode {} {} batch {}".format(*one)]
    before, rows, case = paired.machine(given.threads), [], None
    found: dict[str, Any] = {"bytes_a_second": {}, "failed": {}, "alike": {}}
    if any(name == "0.5b" for name, *_ in wanted):
        found["bytes_a_second"] = bandwidth()
    with tempfile.TemporaryDirectory() as scratch:
        for name, precision, count, length, rounds in wanted:
            if case is None or (case.name, case.precision) != (name, precision):
                case = None  # freed before the next are read
                case = Case(name, precision, Path(scratch), given)
            for row in measure(case, count, length, rounds, found):
                paired.tell(row)
                rows.append(row)
            paired.report(rows, given, before, done=False, **found)
    print(
        "\n".join(f"{name}: {why}" for part in ("failed", "alike") for name, why in found[part].items()),
        file=sys.stderr,
    )
    paired.report(rows, given, before, **found)


if __name__ == "__main__":
    main()
