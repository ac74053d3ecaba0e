"""A recipe over several seeds: each an ordinary run in OUT/seed-N by a process of its own, some side by side."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from aftershock import disk
from aftershock.cost import hardware
from aftershock.errors import RunError
from aftershock.recipe import Recipe, fingerprint
from aftershock.run import FACTS, SUMMARY

PAUSE = 0.1  # seconds between looks at who has ended
GRACE = 10.0  # seconds that an interrupted run has to say so and end
_STDERR = 2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Child = subprocess.Popen[bytes]


def seed_folder(out: Path, seed: int) -> Path:
    """Return where the run of one seed lies."""
    return out / f"seed-{seed}"


def run(
    recipe: Recipe, out: Path, words: Sequence[str], jobs: int, going_on: bool, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run the recipe's seeds that aren't finished yet, `jobs` at a time; return all their summaries in its order.

    `words` are a whole command `run RECIPE ...`: each seed's process gets them with a folder and a seed of its own.
    Alone it writes where we do; side by side, each adds to OUT/seed-N.log, and they share this machine's cores. After
    a failure no other seed is begun, and those at work go on to their end. RunError tells who failed; or that the
    folder holds something else, or these seeds and not `going_on`.
    """
    _refuse(out, recipe, going_on)
    waiting = [seed for seed in recipe.run.seeds if not _finished(recipe, out, seed)]
    for seed in recipe.run.seeds:
        if seed not in waiting:
            say(f"seed {seed} is finished already")
    jobs = min(jobs, max(1, len(waiting)))
    with disk.writing(out, 0):
        out.mkdir(parents=True, exist_ok=True)
    failed = _work_off(waiting, jobs, lambda seed: _begin(out, seed, words, jobs), say)
    if failed:
        raise RunError(
            f"{'; '.join(_failure(out, seed, code, jobs > 1) for seed, code in failed.items())}. What is done stays; "
            "mend that, then run the same command with --resume"
        )
    return [disk.read_json(seed_folder(out, seed) / SUMMARY) for seed in recipe.run.seeds]


def _refuse(out: Path, recipe: Recipe, going_on: bool) -> None:
    if (out / FACTS).exists():
        raise RunError(f"{out} holds a run of one seed; give another folder with --out, or add --set 'run.seeds=[]'")
    there = [path.name for path in out.glob("*")] if out.is_dir() else []
    if there and not any(name.startswith("seed-") for name in there):
        raise RunError(f"{out} is not empty and holds no seeds (there is {there[0]!r}); give another folder with --out")
    begun = [str(seed) for seed in recipe.run.seeds if (seed_folder(out, seed) / FACTS).exists()]
    if begun and not going_on:
        raise RunError(
            f"{out} already holds seed {', '.join(begun)} of {recipe.run.name!r}; add --resume to go on, "
            "or give another folder with --out"
        )


def _finished(recipe: Recipe, out: Path, seed: int) -> bool:
    """Whether the seed's run has come to its end under this very recipe."""
    alone = recipe.model_copy(update={"run": recipe.run.model_copy(update={"seed": seed, "seeds": ()})})
    facts, summary = (disk.read_json(seed_folder(out, seed) / name) or {} for name in (FACTS, SUMMARY))
    return bool(summary.get("finished")) and facts.get("fingerprint") == fingerprint(alone)


def _work_off(
    seeds: Collection[int], jobs: int, begin: Callable[[int], Child], say: Callable[[str], None]
) -> dict[int, int]:
    """Run one process a seed, `jobs` at a time; return the exit codes of those that failed. None outlives the call."""
    waiting, at_work, failed = list(seeds), dict[int, Child](), dict[int, int]()
    try:
        while at_work or (waiting and not failed):
            while waiting and not failed and len(at_work) < jobs:
                say(f"seed {waiting[0]} begins")
                at_work[waiting[0]] = begin(waiting[0])
                del waiting[0]
            time.sleep(PAUSE)
            for seed in [seed for seed, child in at_work.items() if child.poll() is not None]:
                code = at_work.pop(seed).returncode
                failed |= {seed: code} if code else {}
                say(f"seed {seed} {'failed' if code else 'is done'}")
    finally:
        _end(at_work.values())
    return failed


def _begin(out: Path, seed: int, words: Sequence[str], jobs: int) -> Child:
    own = ["--out", str(seed_folder(out, seed)), "--set", f"run.seed={seed}", "--set", "run.seeds=[]"]
    command = [sys.executable, "-m", "aftershock", *words, *own]  # of an option given twice, the last one counts
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(open(out / f"seed-{seed}.log", "ab")) if jobs > 1 else _STDERR
        # A group of its own: Ctrl-C reaches us alone, and we interrupt each once.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            env=_environment(jobs),
            process_group=0,
            preexec_fn=_dies_with_us(),
        )


def _environment(jobs: int) -> dict[str, str]:
    """Return our environment, with our threads shared out among the processes."""
    if jobs == 1:
        return {**os.environ}
    said = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(said) if said.isdecimal() else hardware.cores()
    return {**os.environ, "OMP_NUM_THREADS": str(max(1, threads // jobs))}


def _dies_with_us() -> Callable[[], None] | None:
    """Return what makes a child die at once when this process does, even by SIGKILL: the kernel does it, on Linux."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def settle() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died before it was set
            os._exit(1)

    return settle


def _end(children: Collection[Child]) -> None:
    """Interrupt every child as Ctrl-C does, and kill those that don't end soon."""
    for child in children:
        _signal(child, signal.SIGINT)
    deadline = time.monotonic() + GRACE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        if child.returncode is None:
            _signal(child, signal.SIGKILL)
            child.wait()


def _signal(child: Child, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, which)


def _failure(out: Path, seed: int, code: int, logged: bool) -> str:
    ended = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    if not logged:
        return f"seed {seed} {ended}"
    log = out / f"seed-{seed}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines or ["nothing"]
    return f"seed {seed} {ended}; {log} ends with: {said[-1]}"
