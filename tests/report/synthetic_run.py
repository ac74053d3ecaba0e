"""Build a run folder as the pipeline leaves it, with numbers of a plausible R1-Zero run, to make reports of."""

import gzip
import json
import math
import random
from pathlib import Path

RECIPE = """\
[run]
name = "zero-nano"
seed = 0
description = "R1-Zero on a laptop: reinforcement learning alone, from the shipped nano base."
usd_per_hour = 0.04
watts = 65

[stage.zero]
kind = "rl"
from = "base"
steps = {steps}
problems_per_step = 8
samples_per_problem = 4
max_tokens = 256

[[stage.zero.tasks]]
name = "countdown"
languages = ["en", "zh"]

[[stage.zero.tasks]]
name = "arithmetic"
difficulty = 2

[stage.zero.eval]
problems = 40
every = 10
"""
TASKS = ("countdown", "arithmetic")
TRIES = (
    "3*7+5=26, too big;",
    "7*5-3=32, too big;",
    "3+7+5=15, too small;",
    "验算 7*3=21, ",
    "wait, ",
    "check 3*7=21 yes; ",
)


def progress(step: int) -> float:
    """How far training has come, 0 to 1."""
    return 1 - math.exp(-step / 30)


def metrics_row(step: int, rng: random.Random, heldout: bool) -> dict:
    accuracy = 0.18 + 0.7 * progress(step) + rng.gauss(0, 0.02)
    row = {
        "stage": "zero", "step": step, "reward": accuracy + 0.095, "reward_std": 0.3,
        "reward/accuracy": accuracy, "reward/format": 0.9 + 0.1 * progress(step),
        "mean_tokens": 34 + 40 * progress(step) + rng.gauss(0, 1.5), "truncated": 0.02 * progress(step),
        "entropy": 0.32 * math.exp(-step / 90) + rng.gauss(0, 0.004), "kl": 0.0004 * step + 1e-5,
        "clip_fraction": 0.004, "no_signal": 0.3 + 0.2 * progress(step), "mismatch": 3e-4 + rng.random() * 1e-4,
        "mismatch_max": 0.02, "grad_norm": 0.3, "lr": 1e-4, "check_or_retry_rate": 0.3 + 0.5 * progress(step),
        "switch_rate": 0.12 - 0.05 * progress(step), "unverifiable": 0.0, "load_max_over_mean/1": 1.4,
        "train/countdown": accuracy - 0.04, "train/arithmetic": accuracy + 0.04,
    }  # fmt: skip
    if heldout:
        for suite, shift in (("all", 0.0), ("countdown", -0.04), ("arithmetic", 0.04)):
            value = 0.18 + 0.7 * progress(step) + shift
            row |= {
                f"heldout/{suite}": value,
                f"heldout/{suite}_low": value - 0.06,
                f"heldout/{suite}_high": value + 0.05,
            }
    return row


def rollout(step: int, problem: int, task: str, sample: int, p: float, rng: random.Random) -> dict:
    right = rng.random() < p
    tries = rng.randint(0, 1 + round(6 * p))
    reasoning = "".join(rng.choice(TRIES) for _ in range(tries))
    language = "zh" if task == "countdown" and problem % 2 else "en"
    prompt = "用3,7,5算出26。" if language == "zh" else "Use 3,7,5 to make 26."
    return {
        "step": step, "problem": f"{task}-{problem}", "task": task, "language": language, "sample": sample,
        "prompt": prompt, "gold": "3*7+5", "text": f"{reasoning}</think>3*7+5", "reasoning": reasoning,
        "answer": "3*7+5" if right else "3+7*5",
        "reward": {"total": right + 0.1, "accuracy": float(right), "format": 1.0},
        "verdict": {"outcome": "right" if right else "wrong", "reason": "" if right else "equals 38, not 26"},
        "tokens": 8 + 14 * tries, "finish_reason": "stop",
    }  # fmt: skip


def evals(seed: int = 0, n: int = 400) -> list[dict]:
    numbers = {
        "pass@1": (0.187, 0.893), "pass@k": (0.93, 0.99), "majority@k": (0.34, 0.97), "mean_tokens": (34.2, 71.9),
        "check_or_retry_rate": (0.41, 0.83), "switch_rate": (0.12, 0.06),
    }  # fmt: skip
    rows = []
    for suite, shift in (("countdown", -0.02), ("arithmetic", 0.02), ("all", 0.0)):
        for metric, pair in numbers.items():
            for when, value in zip(("before", "after"), pair, strict=True):
                half = 1.4 if metric == "mean_tokens" else 0.02
                value = value if metric == "mean_tokens" else min(0.99, value + shift)
                of = n * 2 if suite == "all" else n
                rows.append({"suite": suite, "metric": metric, "when": when, "value": value, "low": value - half,
                             "high": value + half, "n": of, "k": 16, "seed": seed})  # fmt: skip
    return rows


def summary(stages: list[dict], finished: bool = True) -> dict:
    return {
        "run": "zero-nano", "finished": finished, "seed": 0,
        "versions": {"aftershock": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "hardware": {"name": "2-core laptop CPU", "device": "cpu", "cores": 2, "memory_gb": 8,
                     "usd_per_hour": 0.04, "watts": 65.0, "source": "given in the recipe"}, "stages": stages,
    }  # fmt: skip


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def eval_rows(p: float, problems: int, rng: random.Random) -> list[dict]:
    return [rollout(0, i, task, s, p, rng) for task in TASKS for i in range(problems) for s in range(2)]


def write_model(folder: Path) -> None:
    """Write a model folder whose one tensor has 12 numbers, by hand: safetensors is 8 bytes of length, JSON, data."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    config = {"model_type": "deepseek_v3", "num_hidden_layers": 4, "hidden_size": 128, "vocab_size": 512}
    (folder / "config.json").write_text(json.dumps(config))


PRETRAIN_RECIPE = """\
[run]
name = "nano-base"
seed = 3

[stage.base]
kind = "pretrain"
steps = 60
tokens_per_step = 16384

[stage.base.model]
model_type = "deepseek_v3"

[[stage.base.tasks]]
name = "countdown"
"""


def build_pretrain(folder: Path, recipe: str = PRETRAIN_RECIPE) -> Path:
    """Write a finished run whose one stage made a base model, on one task, so that no suite is called "all"."""
    rng = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    rows = [
        {"stage": "base", "step": step, "loss": 0.4 + 3 * math.exp(-step / 8) + rng.gauss(0, 0.01), "lr": 1e-3,
         "grad_norm": 0.4, "tokens": 16384.0, "load_max_over_mean/1": 1.3, "load_max_over_mean/2": 1.5,
         **({"validation_loss": 0.41 + 3 * math.exp(-step / 8)} if step % 20 == 0 else {})}
        for step in range(1, 61)
    ]  # fmt: skip
    write_lines(folder / "metrics.jsonl", rows)
    stage = folder / "stages" / "base"
    write_lines(stage / "eval-after.jsonl.gz", [r for r in eval_rows(0.2, 12, rng) if r["task"] == "countdown"])
    (stage / "done.json").write_text("{}")
    write_model(stage / "model")
    after = [row for row in evals(3) if row["suite"] == "countdown" and row["when"] == "after"]
    record = {"name": "base", "kind": "pretrain", "seconds": 1500.0, "tokens": 9.8e5, "flops": 2e13, "usd": 0.02,
              "kwh": 0.03, "evals": after}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary([record])))
    return folder


def build(folder: Path, steps: int = 120, finished: bool = True, problems: int = 40) -> Path:
    """Write a run with one RL stage; unfinished, it stops half-way as a killed run would."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    facts = summary([])
    begun = {"name": facts["run"], "versions": facts["versions"], "hardware": facts["hardware"]}
    (folder / "run.json").write_text(json.dumps(begun))
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps), encoding="utf-8")
    done = steps if finished else steps // 2
    rows = [metrics_row(step, rng, step % 10 == 0) for step in range(1, done + 1)]
    write_lines(folder / "metrics.jsonl", rows)
    timing = {
        "seconds": 3.1,
        "sample_seconds": 2.0,
        "learn_seconds": 1.1,
        "tokens_per_second": 15200,
        "usd": 4e-5,
        "kwh": 6e-5,
        "trained_tokens": 20000,
        "sampled_tokens": 20000,
        "flops": 5e11,
    }
    write_lines(folder / "timings.jsonl", [{"stage": "zero", "step": r["step"], **timing} for r in rows])
    stage = folder / "stages" / "zero"
    for row in rows:
        p = row["reward/accuracy"]
        rolled = [rollout(row["step"], i, TASKS[i % 2], s, p, rng) for i in range(8) for s in range(4)]
        write_lines(stage / "rollouts" / f"step-{row['step']:06}.jsonl.gz", rolled)
    write_lines(stage / "eval-before.jsonl.gz", eval_rows(0.2, problems, rng))
    if finished:
        (stage / "done.json").write_text("{}")
        write_lines(stage / "eval-after.jsonl.gz", eval_rows(0.9, problems, rng))
        write_model(stage / "model")
        record = {"name": "zero", "kind": "rl", "seconds": 412.0, "tokens": 5.1e6, "flops": 6.1e13, "usd": 0.0046,
                  "kwh": 0.0074, "evals": evals()}  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary([record])))
    return folder
