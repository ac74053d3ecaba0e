"""Peak memory of a policy-gradient step on one completion, ours against TRL's GRPOTrainer, by its length.

    python benchmarks/memory.py [--lengths 256,512,1024] [--threads 1] [--json] [--out FILE]

Qwen2.5-0.5B's shape with random weights in float32, a prompt of 64 tokens, made-up completions (nothing is sampled).
Each point is a process of its own, whose peak is Linux's own count of resident memory from the forward to the end of
the backward, weights and gradients already there as in any later micro-batch; a process past `CAP` is stopped and its
point missing.
The optimiser does not run: its two moments, 8 bytes a weight on both sides, are added by arithmetic. Both compute
layers again in the backward: TRL by its default, ours as `recompute = "auto"` would where memory ends.
The line through the points from `FROM` tokens on (below, the gradient of the embedding is the peak) is carried on to
32,768: that figure is extrapolated, not measured, and its ends are those of the lines that leave one point out.
"""

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
from rl_step import model_folder

CAP = 10 << 30  # bytes of data a process may have
SECONDS = 1200
PROMPT, FROM, FAR = 64, 512, 32_768
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


def in_its_own_process(side: str, folder: Path, length: int, threads: int) -> int | None:
    """Return the bytes of one point, None where the process needed more than `CAP` or ended otherwise."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    asked = [sys.executable, __file__, "--serve", json.dumps([side, str(folder), length])]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(f"{side} at {length}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return int(done.stdout.split()[-1])


def line(points: dict[int, float], where: int) -> tuple[float, float, float]:
    """Return the fitted line's value at a length, and the least and greatest of the lines that leave a point out."""
    lengths, values = np.array([*points]), np.array([*points.values()])
    kept = [np.ones(len(lengths), bool), *(np.arange(len(lengths)) != out for out in range(len(lengths)))]
    found = [float(np.polyval(np.polyfit(lengths[keep], values[keep], 1), where)) for keep in kept]
    return found[0], min(found[1:]), max(found[1:])


def rows(told: dict[str, dict[int, float]]) -> list[paired.Row]:
    """Return a row a length that both sides were measured at, in GB, and the extrapolated one."""
    made = []
    for length in sorted(told["ours"].keys() & told["theirs"].keys()):
        one, other = told["ours"][length], told["theirs"][length]
        ratio = round(other / one, 3)
        made.append(paired.Row(f"memory {length}", round(one, 3), round(other, 3), ratio, ratio, ratio, "GB", 1))
    long = {side: {at: value for at, value in points.items() if at >= FROM} for side, points in told.items()}
    if (count := min(map(len, long.values()))) >= 3:
        one, other = (line(long[side], FAR) for side in ("ours", "theirs"))
        ratio, low, high = (round(value, 2) for value in (other[0] / one[0], other[1] / one[2], other[2] / one[1]))
        made.append(
            paired.Row(
                f"memory {FAR} extrapolated", round(one[0], 1), round(other[0], 1), ratio, low, high, "GB", count
            )
        )
    return made


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--lengths", default="256,512,1024")
    parser.add_argument("--serve", help=paired.argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        resource.setrlimit(resource.RLIMIT_DATA, (CAP, CAP))
        side, folder, length = json.loads(given.serve)
        print({"ours": ours, "theirs": theirs}[side](Path(folder), length))
        return
    before = paired.machine(given.threads)
    told: dict[str, dict[int, float]] = {"ours": {}, "theirs": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder("0.5b", Path(scratch))
        moments = MOMENTS * (folder / "model.safetensors").stat().st_size / 4
        for length in map(int, given.lengths.split(",")):
            for side in told:
                if peak := in_its_own_process(side, folder, length, given.threads):
                    told[side][length] = (peak + moments) / 1e9
                print(f"{side} {length} {told[side].get(length)}", file=sys.stderr, flush=True)
            paired.report(rows(told), given, before, done=False, points=told)
    for row in rows(told):
        paired.tell(row)
    paired.report(rows(told), given, before, points=told)


if __name__ == "__main__":
    main()
