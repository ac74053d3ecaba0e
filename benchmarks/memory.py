"""Peak memory of a policy-gradient step on one completion, ours against TRL's GRPOTrainer, by its length.

    python benchmarks/memory.py [--lengths 512,1024,2048] [--layers 24] [--cap 10] [--only ours] [--threads 1]
                                [--json] [--out FILE]

Qwen2.5-0.5B's shape with random weights in float32, or as many of its layers as are asked for, so that longer ones fit;
a prompt of 64 tokens, made-up completions (nothing is sampled). Each point is a process of its own, whose peak is
Linux's own count of resident memory from the forward to the end of the backward, weights and gradients already there as
in any later micro-batch; a process past `--cap` GB is stopped, and its side is asked for nothing longer.
The optimiser does not run: its two moments, 8 bytes a weight on both sides, are added by arithmetic. Both compute
layers again in the backward: TRL by its default, ours as `recompute = "auto"` would where memory ends.
Rows named `foretold` have what `aftershock plan`'s arithmetic says in place of theirs. Where a side wasn't measured at
32,768 tokens, the line through its last `LAST` points is carried on: that figure is extrapolated, not measured, and its
ends are those of the lines that leave one point out.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paired
from rl_step import QWEN_05B, model_folder

SECONDS = 7200  # of one point: attention's time grows with the square of the length
PROMPT, LAST, FAR = 64, 3, 32_768
MOMENTS = 8


def resident(key: str) -> int:
    """Return a figure of this process's memory in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def begin(weights: Iterable[Any]) -> None:
    """Give every weight a gradient, and start the peak anew: what loading took is not a step's."""
    for weight in weights:
        weight.grad = weight.detach().clone().zero_()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def ours(folder: Path, length: int) -> int:
    """Return the peak of our learner's backward."""
    import torch

    from aftershock.learn import Learner, Sample, pack
    from aftershock.models import load
    from aftershock.recipe import LossTable, OptimTable

    class Stopped(Learner):
        def _clip(self, loss: float) -> float:
            raise StopIteration

    learner = Stopped(load(folder, dtype=torch.float32), OptimTable(recompute="always"), LossTable())
    begin(learner.model.parameters())
    learner.optimiser.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
    sample = Sample(tuple(range(10, 10 + PROMPT)), tuple(range(100, 100 + length)), (-11.0,) * length, 1.0)
    try:
        learner.step(pack([sample], 64))
    except StopIteration:
        return resident("VmHWM")
    raise AssertionError("the step went on")


def theirs(folder: Path, length: int) -> int:
    """Return the peak of TRL's first micro-batch of two."""
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    peaks: list[int] = []

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            begin(given["model"].parameters())

        def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            peaks.append(resident("VmHWM"))
            raise StopIteration

    def made(prompts: list[str], trainer: Any) -> dict[str, Any]:
        rows = len(prompts)
        completion = list(range(100, 100 + length))
        return {
            "prompt_ids": [list(range(10, 10 + PROMPT))] * rows,
            "completion_ids": [completion] * rows,
            "logprobs": [[-11.0] * length] * rows,
        }

    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            model_init_kwargs={"dtype": "float32"},
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            num_generations=2,
            max_completion_length=length,
            loss_type="dapo",
            beta=0.0,
            max_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        assert config.gradient_checkpointing
        trainer = GRPOTrainer(
            str(folder),
            lambda completions, **_: [float(number % 2) for number in range(len(completions))],
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "a"}] * 2),
            rollout_func=made,
            callbacks=[Watch()],
        )
        try:
            trainer.train()
        except StopIteration:
            return peaks[0]
    raise AssertionError("the step went on")


def in_its_own_process(side: str, folder: Path, length: int, given: Any) -> int | None:
    """Return the bytes of one point, None where the process needed more than the cap or ended otherwise."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "TOKENIZERS_PARALLELISM": "false"}
    asked = [sys.executable, __file__, "--cap", str(given.cap), "--serve", json.dumps([side, str(folder), length])]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(f"{side} at {length}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return int(done.stdout.split()[-1])


def foretold(layers: int, length: int) -> float:
    """Return the GB that a plan would state for such a step."""
    from aftershock.cost import memory
    from aftershock.models.native.build import library

    config = QWEN_05B | {"num_hidden_layers": layers}
    shape = memory.Shape.of([PROMPT + length], length, native=library("train") is not None)
    return memory.training(config, shape, recompute=True) / 1e9


def line(points: dict[int, float], where: int) -> tuple[float, float, float]:
    """Return the fitted line's value at a length, and the least and greatest of the lines that leave a point out."""
    lengths, values = np.array([*points]), np.array([*points.values()])
    kept = [np.ones(len(lengths), bool), *(np.arange(len(lengths)) != out for out in range(len(lengths)))]
    found = [float(np.polyval(np.polyfit(lengths[keep], values[keep], 1), where)) for keep in kept]
    return found[0], min(found[1:]), max(found[1:])


def far(points: dict[int, float]) -> tuple[float, float, float] | None:
    """Return the GB at FAR tokens with its ends: measured, or extrapolated, or None where neither can be."""
    if FAR in points:
        return (points[FAR],) * 3
    return line(dict(sorted(points.items())[-LAST:]), FAR) if len(points) >= LAST else None


def rows(told: dict[str, dict[int, float]], layers: int) -> list[paired.Row]:
    """Return in GB a row a length that both sides were measured at, the foretold ones, and FAR's where extrapolated."""

    def row(what: str, one: float, other: float) -> paired.Row:
        ratio = round(other / one, 3)
        return paired.Row(f"{name} {what}", round(one, 3), round(other, 3), ratio, ratio, ratio, "GB", 1)

    name, mine, others = f"memory {layers} layers", told["ours"], told["theirs"]
    made = [row(f"{length}", mine[length], others[length]) for length in sorted(mine.keys() & others.keys())]
    made += [row(f"{length} foretold", mine[length], foretold(layers, length)) for length in sorted(mine)]
    one, other = far(mine), far(others)
    if one and other and FAR not in mine.keys() & others.keys():
        title = f"{name} {FAR} extrapolated" if FAR not in mine else f"{name} {FAR} theirs extrapolated"
        ratio, low, high = (round(value, 2) for value in (other[0] / one[0], other[1] / one[2], other[2] / one[1]))
        made.append(paired.Row(title, round(one[0], 1), round(other[0], 1), ratio, low, high, "GB", 1))
    return made


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--lengths", default="512,1024,2048")
    parser.add_argument("--layers", type=int, default=QWEN_05B["num_hidden_layers"])
    parser.add_argument("--cap", type=float, default=10.0, help="GB of data that a process may have")
    parser.add_argument("--serve", help=paired.argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        resource.setrlimit(resource.RLIMIT_DATA, (int(given.cap * 1e9),) * 2)
        side, folder, length = json.loads(given.serve)
        print({"ours": ours, "theirs": theirs}[side](Path(folder), length))
        return
    before = paired.machine(given.threads)
    told: dict[str, dict[int, float]] = {"ours": {}, "theirs": {}}
    asked = {side for side in told if given.only in side}
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder("0.5b", Path(scratch), given.layers)
        moments = MOMENTS * (folder / "model.safetensors").stat().st_size / 4
        for length, side in itertools.product(map(int, given.lengths.split(",")), told):
            if side not in asked:
                continue
            if peak := in_its_own_process(side, folder, length, given):
                told[side][length] = (peak + moments) / 1e9
            else:
                asked.remove(side)
            print(f"{side} {length} {told[side].get(length)}", file=sys.stderr, flush=True)
            paired.report(rows(told, given.layers), given, before, done=False, points=told)
    for row in rows(told, given.layers):
        paired.tell(row)
    paired.report(rows(told, given.layers), given, before, points=told)


if __name__ == "__main__":
    main()
