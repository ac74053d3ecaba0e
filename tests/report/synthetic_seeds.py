"""Build folders of seed runs as a road with a bench stage leaves them, every answer chosen by hand."""

import json
from pathlib import Path

from synthetic_run import write_lines

RECIPE = """\
[run]
name = "road"
seed = {seed}

[stage.zero]
kind = "rl"
from = "road-base"
tasks = [{{name = "countdown"}}, {{name = "programs"}}]

[stage.reasoning]
kind = "rl"
from = "road-base"
tasks = [{{name = "countdown"}}, {{name = "programs"}}]

[stage.plain]
kind = "rl"
from = "road-base"
tasks = [{{name = "countdown"}}, {{name = "programs"}}]

[stage.student-qwen]
kind = "sft"
from = "qwen-base"

[stage.student-llama]
kind = "sft"
from = "llama-base"

[stage.control]
kind = "rl"
from = "qwen-base"
tasks = [{{name = "countdown"}}]

[stage.hacked]
kind = "rl"
from = "reasoning"

[stage.table]
kind = "bench"

[findings]
table = "table"
base = "road-base"
zero = "zero"
consistent = "reasoning"
inconsistent = "plain"
road = ["zero", "cold", "reasoning", "tuned", "final"]
teacher = "final"
students = ["student-qwen", "student-llama"]
control = "control"
hacked = "hacked"
"""
TASKS = ("countdown", "programs", "instructions", "facts", "help", "harm")
STAGES = ("zero", "reasoning", "plain", "student-qwen", "student-llama", "control", "hacked", "table")


def answers(
    right: float, english: float = 1.0, quality: float = 0.5, tokens: int = 4, word: str = "wait "
) -> list[dict]:
    """Two answers to each of 20 problems of every task; the first `right` share of a task's is solved both times.

    `english` is the share of the reasoning's ten words that are in the question's language: each is `word`.
    """
    return [
        row(task, index, sample, index < right * 20, english, quality, tokens, word)
        for task in TASKS
        for index in range(20)
        for sample in range(2)
    ]


def row(
    task: str, index: int, sample: int, right: bool, english: float, quality: float, tokens: int, word: str = "wait "
) -> dict:
    """One answer as `pipeline.evaluate.rows` keeps it."""
    reasoning = word * round(10 * english) + "好" * round(10 * (1 - english))
    told = {"outcome": "right" if right else "wrong", "reason": "", "extracted": "1" if right else "2"}
    open_task = task in ("help", "harm")
    return {
        "step": 1, "problem": f"{task}-{index}", "task": task, "language": "en", "sample": sample, "prompt": "?",
        "gold": "1", "text": f"{reasoning}</think>so <answer>1</answer>", "reasoning": reasoning, "answer": "1",
        "reward": {"total": 1.0}, "verdict": {**told, "outcome": "unverifiable"} if open_task else told,
        "tokens": tokens, "finish_reason": "stop", **({"quality": quality} if open_task else {}),
    }  # fmt: skip


def steps(stage: str, **ends: tuple[float, float]) -> list[dict]:
    """Forty steps of metrics that go straight from one value to the other."""
    return [
        {"stage": stage, "step": step, **{name: a + (b - a) * (step - 1) / 39 for name, (a, b) in ends.items()}}
        for step in range(1, 41)
    ]


def hacked(begins: int = 20) -> list[dict]:
    """Sixty steps in which the score rises all the way, and the true quality falls from step `begins` on."""
    rows = []
    for step in range(1, 61):
        quality = 0.6 + 0.005 * min(step, begins) - 0.01 * max(0, step - begins) + 0.002 * (step % 2)
        score = 0.5 + 0.006 * step + 0.002 * (step % 3)
        rows.append({"stage": "hacked", "step": step, "quality/help": quality, "preference/help": score})
    return rows


def build(folder: Path, models: dict[str, list[dict]], metrics: list[dict], seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Write a folder of finished seed runs; `models` are the bench's answers by model, the same in each seed."""
    for seed in seeds:
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text(RECIPE.format(seed=seed))
        (run / "summary.json").write_text(json.dumps({"run": "road", "seed": seed, "finished": True, "stages": []}))
        write_lines(run / "metrics.jsonl", metrics)
        for stage in STAGES:
            (run / "stages" / stage).mkdir(parents=True)
            (run / "stages" / stage / "done.json").write_text("{}")
        for model, rows in models.items():
            write_lines(run / "stages" / "table" / f"eval-{model}.jsonl.gz", rows)
    return folder
