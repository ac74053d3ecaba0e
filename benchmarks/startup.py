"""Seconds until a command has answered: help, a plan, and the first token of a chat.

    python benchmarks/startup.py [--only chat] [--rounds 7] [--threads 1] [--json] [--out FILE]

Every round starts each command anew, as a user does, and reads its standard output; `help` and the plans count until
they end, a chat until the first piece of its answer comes through the pipe after one question was written to it. Rows
named `: processor` have the processor time of the process and what it started until then. The files are in the page
cache (the first round isn't counted): what a disk adds at the first start after boot is not measured.

In the place of theirs stands another's command where there is one (TRL's help; transformers loading the same folder and
streaming its first token), and else what was wanted (`WANTED`, seconds). `chat small-qwen` finds the native decoding
step compiled; `not compiled` has an empty cache folder, so that the C compiler runs first; `without` has the step
switched off. `chat base` is the mixture.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import paired

ROOT = Path(__file__).parents[1]
SECONDS = 600
QUESTION = b"What is 3 + 4?\n"
STREAMED = """
import sys, threading
import torch, transformers
folder = sys.argv[1]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
streamer = transformers.TextStreamer(tokenizer, skip_prompt=True)
asked = tokenizer(sys.stdin.readline(), return_tensors="pt")
streamer.on_finalized_text = lambda text, **_: text and print(text, flush=True)
model.generate(**asked, streamer=streamer, do_sample=True, min_new_tokens=32, max_new_tokens=64, pad_token_id=1)
"""
AFTERSHOCK = [sys.executable, "-m", "aftershock"]
PLANS = {
    "plan": ["recipes/nano/r1.toml"],
    "plan simulated": ["recipes/qwen/zero-math-7b.toml", "--on", "16xH100", "--simulate"],
    "plan simulated road": ["recipes/qwen/r1-7b.toml", "--on", "64xH100", "--simulate"],
    "plan bill": ["deepseek-r1"],
}
WANTED = {"help": 0.3, "chat small-qwen": 3.0, "chat base": 3.0, "chat small-qwen not compiled": 6.0}
WANTED |= dict.fromkeys(PLANS, 2.0)


def until(command: list[str], first: bool, more: Mapping[str, str]) -> tuple[float, float]:
    """Return the seconds by the clock and of the processor until a command ends, or only until its first output."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **more},
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if first:
        process.stdin.write(QUESTION)
        process.stdin.flush()
    answered = bool(os.read(process.stdout.fileno(), 1) if first else process.stdout.read())
    seconds = time.perf_counter() - began
    if first and answered:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if not answered or (not first and process.returncode):
        raise RuntimeError(f"{' '.join(command)} gave no answer; exit code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def commands(threads: int, empty: Path) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return what is measured; a `theirs` has its name after a slash."""
    from aftershock.sources import shipped_base

    shared = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}

    def call(command: list[str], first: bool = False, **more: str) -> Callable[[], tuple[float, float]]:
        return lambda: until(command, first, shared | more)

    def uncompiled() -> tuple[float, float]:
        with tempfile.TemporaryDirectory(dir=empty) as cache:
            return until(chat("small-qwen"), True, shared | {"XDG_CACHE_HOME": cache})

    def chat(model: str) -> list[str]:
        return [*AFTERSHOCK, "chat", model]

    return {
        "help": call([*AFTERSHOCK, "--help"]),
        "help/trl": call([str(Path(sys.executable).with_name("trl")), "--help"]),
        **{name: call([*AFTERSHOCK, "plan", *given]) for name, given in PLANS.items()},
        "chat small-qwen": call(chat("small-qwen"), True),
        "chat small-qwen/transformers": call([sys.executable, "-c", STREAMED, str(shipped_base("small-qwen"))], True),
        "chat small-qwen without": call(chat("small-qwen"), True, AFTERSHOCK_NATIVE="0"),
        "chat small-qwen not compiled": uncompiled,
        "chat base": call(chat("base"), True),
    }


def rows(told: Mapping[str, list[tuple[float, float]]]) -> list[paired.Row]:
    """Return each command against another's, against what was wanted, and without the native step against with it."""
    made = []
    for number, part in enumerate(("", ": processor")):
        taken = {name: [pair[number] for pair in pairs] for name, pairs in told.items()}
        for name, seconds in taken.items():
            mine, _, other = name.partition("/")
            if other:
                made.append(paired.compare(f"startup {mine} {other}{part}", taken[mine], seconds, "s"))
            elif name in WANTED:
                made.append(paired.compare(f"startup {name} wanted{part}", seconds, [WANTED[name]] * len(seconds), "s"))
            elif name.endswith(" without"):
                mine = name.removesuffix(" without")
                made.append(paired.compare(f"startup {name} native step{part}", taken[mine], seconds, "s"))
    return made


def main() -> None:
    given = paired.parser(__doc__).parse_args()
    before = paired.machine(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        sides = {name: call for name, call in commands(given.threads, Path(scratch)).items() if given.only in name}
        for call in sides.values():
            call()
        told = paired.alternate(sides, given.rounds or 7)
    found = rows(told)
    for row in found:
        paired.tell(row)
    paired.report(found, given, before, seconds=told)


if __name__ == "__main__":
    main()
