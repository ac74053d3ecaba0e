"""Seconds and dollars from one base to one held-out accuracy: our RL stage against TRL's GRPOTrainer.

    python benchmarks/time_to_accuracy.py --search [--rounds 3] [--threads 1] [--only ours]
    python benchmarks/time_to_accuracy.py [--rounds 3] [--threads 1] [--only ours] [--json] [--out FILE]

Both start from the shipped small-qwen, are asked the same questions of fact (difficulty 2) in one order, 24 problems of
16 samples a step, and get the task's own check as their reward. After every `EVERY` steps pass@1 is measured on the
same held-out problems by the same code (our engine on the weights that the side holds); that time is not counted. The
accuracy is reached when two measurements in a row are at TARGET or above, at the first of them: one alone may be luck.
Each side has its best settings of SETTINGS: a learning rate, and of ours how many of a problem's samples are learnt
from (`down_sample` and `down_sample_spread`, which TRL's trainer doesn't have). `--search` runs them all with
SEARCHED's seeds and keeps what they gave in GRID; a comparison takes the ones that always got there, in the least
processor time (the median over seeds), which neighbours disturb less than the clock, and runs seeds 1, 2, ... A side
that does not reach the accuracy within STEPS steps has no time. Dollars are the seconds at the stated price of this
machine.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import paired
import rl_step

from aftershock import process

Setting = tuple[float, int, float]  # learning rate; samples of a problem that are learnt from, 0: all; their spread

RATES = (3e-4, 5e-4, 1e-3)
SETTINGS: dict[str, list[Setting]] = {
    "ours": [(rate, *some) for some in ((0, 0.0), (8, 0.0), (8, 0.88), (12, 0.88), (0, 0.74)) for rate in RATES],
    "theirs": [(rate, 0, 0.0) for rate in RATES],
}
TARGET, EVERY, STEPS = 0.90, 4, 60
SEARCHED = (0, 1000, 1001)  # seeds that no comparison has
GRID = Path(__file__).parent / "results" / "time_to_accuracy_grid.json"
HELDOUT, SAMPLES = 100, 4
SECONDS = 3600  # of one side with one rate
CASE = rl_step.Case("nano facts", "small-qwen", "check", "float32", "trl", warm=0, rounds=STEPS)


Step = dict[str, float]
Record = Callable[[Step], bool]
Run = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A completion as a judge reads it."""

    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: str = "stop"


@cache
def asked() -> Any:
    """Return the task."""
    from aftershock.tasks import task

    return task("facts", 2)


class Exam:
    """Measures a folder of weights on the held-out problems."""

    def __init__(self, judge: Any, folder: Path) -> None:
        from aftershock.pipeline.evaluate import heldout
        from aftershock.text import Tokenizer

        self.judge, self.tokenizer = judge, Tokenizer.load(folder)
        self.problems = heldout([asked()], HELDOUT)

    def of(self, policy: Any) -> float:
        """Return pass@1, each sample at temperature 1."""
        from aftershock.generate import Engine, SamplingParams
        from aftershock.pipeline.evaluate import sample

        engine = Engine(policy, self.tokenizer, max_rows=256)
        params = SamplingParams(n=SAMPLES, max_tokens=CASE.max_tokens)
        judged = sample(engine, self.judge, self.problems, params, ("exam",))
        return statistics.mean(statistics.mean(one.right) for one in judged)


def drawn(step: int, seed: int) -> list[Any]:
    """Return the problems of a step."""
    first = (seed * STEPS + step) * CASE.problems
    return [asked().draw("train", first + number) for number in range(CASE.problems)]


def due(step: int) -> bool:
    """Whether accuracy is measured after this step, which counts from 1."""
    return step % EVERY == 0


def ours(setting: Setting, seed: int, folder: Path, judge: Any, exam: Exam, record: Record) -> None:
    """Take steps until `record`, which is told what each took, says that it is enough."""
    from aftershock.generate import SamplingParams
    from aftershock.pipeline import rl
    from aftershock.pipeline.evaluate import sample

    loop = rl_step.our_loop(CASE, folder, judge, asked(), setting[0])
    some = {"down_sample": setting[1], "down_sample_spread": setting[2]}
    loop = replace(loop, stage=loop.stage.model_copy(update=some))
    params = SamplingParams(n=CASE.samples, max_tokens=CASE.max_tokens)
    for step in range(STEPS):
        began, processor = time.perf_counter(), time.process_time()
        judged = sample(loop.engine, judge, drawn(step, seed), params, ("bench", seed, step))
        rl._learn(loop, judged, {})
        told = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor}
        if record(told | ({"accuracy": exam.of(loop.engine.model)} if due(step + 1) else {})):
            return


def theirs(setting: Setting, seed: int, folder: Path, judge: Any, exam: Exam, record: Record) -> None:
    """Do the same with TRL's trainer."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from aftershock.models import load
    from aftershock.text import zero_prompt

    transformers.utils.logging.set_verbosity_error()
    problems = [problem for step in range(STEPS) for problem in drawn(step, seed)]
    prompts = [{"prompt": zero_prompt(problem.prompt), "number": n} for n, problem in enumerate(problems)]

    def reward(completions: list[str], number: list[int], **_: Any) -> list[float]:
        return [one.total for one in judge.judge([(problems[n], Text(text)) for n, text in zip(number, completions)])]

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began, self.processor = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            told = {"seconds": time.perf_counter() - self.began, "processor": time.process_time() - self.processor}
            if due(state.global_step):
                with tempfile.TemporaryDirectory() as kept:
                    model.save_pretrained(kept)
                    told["accuracy"] = exam.of(load(Path(kept), dtype=torch.float32))
            control.should_training_stop = record(told)

    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(output_dir=scratch, **rl_step.settings(CASE) | {"learning_rate": setting[0], "seed": seed})
        trainer = GRPOTrainer(str(folder), reward, args=config, train_dataset=Dataset.from_list(prompts))
        trainer.add_callback(Watch())
        trainer.train()


def reached(told: Sequence[Step], key: str = "seconds") -> float | None:
    """Return after how many seconds the first of two measurements in a row at TARGET was made, None where none was."""
    spent, before = 0.0, None
    for one in told:
        spent += one[key]
        if "accuracy" not in one:
            continue
        if one["accuracy"] < TARGET:
            before = None
        elif before is not None:
            return before
        else:
            before = spent
    return None


def serve(side: str, setting: Setting, seed: int, threads: int) -> None:
    """Run one side with one setting to its end, a line a step."""
    os.dup2(2, 1), sys.stdout.flush()  # what the libraries print goes to stderr
    if side == "ours":
        process.prepare()
    import torch

    from aftershock.recipe import RewardTable
    from aftershock.sources import shipped_base
    from aftershock.verify.judge import Judge

    torch.set_num_threads(threads)
    folder, told = shipped_base(CASE.model), []

    def record(one: Step) -> bool:
        told.append(one)
        print(json.dumps(one), file=ANSWERS, flush=True)
        return reached(told) is not None

    with Judge([asked()], RewardTable(format=0.0), CASE.max_tokens) as judge:
        {"ours": ours, "theirs": theirs}[side](setting, seed, folder, judge, Exam(judge, folder), record)


def measure(side: str, setting: Setting, seed: int, threads: int) -> list[Step]:
    """Return what each step of a side took, from a process of its own."""
    command = [sys.executable, __file__, "--serve", json.dumps([side, setting, seed, threads])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS, env=environment)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    seconds = reached(told)
    found = f"{seconds:.0f} s" if seconds else f"not reached, {max(one.get('accuracy', 0) for one in told):.0%} at most"
    named = f"{side} rate {setting[0]:g} from {setting[1] or CASE.samples} samples, spread {setting[2]:g}, seed {seed}"
    print(f"{named}: {found}, {len(told)} steps", file=sys.stderr, flush=True)
    return told


def set_to(run: Run) -> tuple[str, Setting]:
    """Return a run's side and setting."""
    return run["side"], (run["rate"], run["down_sample"], run["spread"])


def best(runs: Sequence[Run], side: str) -> Setting | None:
    """Return a side's setting of the least processor time, by the median over seeds; None where none always did."""
    times = {
        one: [reached(r["steps"], "processor") for r in runs if set_to(r) == (side, one)] for one in SETTINGS[side]
    }
    there = {one: statistics.median(found) for one, found in times.items() if found and None not in found}
    return min(there, key=there.__getitem__) if there else None


def chosen(sides: Sequence[str]) -> dict[str, Setting]:
    """Return each side's best setting of the kept search; SystemExit where it has none."""
    searched = json.loads(GRID.read_text(encoding="utf-8"))["runs"] if GRID.is_file() else []
    settings = {side: best(searched, side) for side in sides}
    if lacking := [side for side, one in settings.items() if one is None]:
        sys.exit(f"{GRID} has no setting with which {' and '.join(lacking)} got there; run this with --search first")
    return {side: one for side, one in settings.items() if one is not None}


def rows(runs: Sequence[Run]) -> list[paired.Row]:
    """Return each side's best setting compared, by the clock and in processor time; [] where a side never got there.

    A seed that only one side has had its turn with doesn't count as yet.
    """
    settings = {side: best(runs, side) for side in ("ours", "theirs")}
    if None in settings.values():
        return []
    chosen = {side: [r["steps"] for r in runs if set_to(r) == (side, one)] for side, one in settings.items()}
    parts = {"": "seconds", ": processor": "processor"}
    name, both = f"time_to_accuracy {TARGET:.0%} {CASE.name}", min(map(len, chosen.values()))
    found = []
    for part, key in parts.items():
        times = ([reached(told, key) for told in chosen[side][:both]] for side in settings)
        found.append(paired.compare(name + part, *times, "s"))
    return found


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--search", action="store_true", help="run every setting, and keep what came out")
    parser.add_argument("--serve", help=paired.argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*json.loads(given.serve))
        return
    from aftershock.cost import hardware, price

    before, machine, runs = paired.machine(given.threads), hardware.detect(), []
    sides = [side for side in ("ours", "theirs") if given.only in side]
    if given.search:
        given.out = given.out or GRID
        seeds = SEARCHED[: given.rounds or len(SEARCHED)]
        turns = [(seed, one, side) for seed in seeds for side in sides for one in SETTINGS[side]]
    else:
        settings = chosen(sides)
        turns = [(seed, settings[side], side) for seed in range(1, (given.rounds or 3) + 1) for side in sides]
    more = {"runs": runs, "grid": SETTINGS, "case": asdict(CASE), "usd_per_hour": machine.usd_per_hour}
    for seed, setting, side in turns:
        told = measure(side, setting, seed, given.threads)
        seconds = reached(told)
        usd = None if seconds is None else price(seconds, machine.usd_per_hour, machine.watts)[0]
        dials = {"side": side, "rate": setting[0], "down_sample": setting[1], "spread": setting[2], "seed": seed}
        runs.append({**dials, "reached": seconds, "usd": usd, "steps": told})
        paired.report(rows(runs), given, before, done=False, **more)
    for row in rows(runs):
        paired.tell(row)
    paired.report(rows(runs), given, before, **more)


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    with contextlib.suppress(KeyboardInterrupt):
        main()
