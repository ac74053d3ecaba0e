"""Ways to teach one small dense student, on about as many tokens each, by held-out pass@1.

    python benchmarks/distill_nano.py --seeds 0 --out runs/distill

The teacher is the shipped base after a short course of thorough traces; the student a qwen2 of a fifth of its size,
pretrained shortly on the base's own mix. Then, from that one student: R1's distillation (fine-tuning on the teacher's
right samples), and forward and reverse KL on those samples and on the student's own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aftershock import toml

TASKS = [{"name": "remainders", "difficulty": 2}]  # arithmetic and countdown are beyond so small a student
STEPS, PROBLEMS, SAMPLES = 100, 16, 4
LEARNING = {"lr": 2e-3, "warmup": 3, "schedule": "cosine", "precision": "bfloat16", "micro_tokens": 4352}
EVAL = {"problems": 200, "samples": 4}
STUDENT = {
    "model_type": "qwen2",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}
ARMS = {
    "sft": "fine-tuning on the teacher's right samples (R1)",
    "forward-off": "forward KL on those samples",
    "reverse-off": "reverse KL on those samples",
    "forward-on": "forward KL on the student's own",
    "reverse-on": "reverse KL on the student's own",
    "reverse-after": "reverse KL on its own, after the fine-tuning",
}


def recipe(seed: int) -> dict[str, Any]:
    """Return the recipe's tables."""
    shared = {"max_tokens": 112, "tasks": TASKS, "eval": EVAL}
    small = {"optim": {**LEARNING, "lr": 4e-4}, "tokens_per_step": 4096}
    stages: dict[str, Any] = {
        "student": {
            "kind": "pretrain",
            "tokenizer": "base",
            "model": STUDENT,
            "steps": 400,
            "tokens_per_step": 2048,
            **shared,
            "thorough": 0.3,
            "optim": {**LEARNING, "lr": 4e-3, "warmup": 20},
        },
        "teacher": {"kind": "pretrain", "from": "base", "steps": 50, "thorough": 1.0, **shared, **small},
        "samples": {
            "kind": "sample",
            "from": "teacher",
            "problems": 900,
            "samples_per_problem": 1,
            "max_tokens": 112,
            "tasks": TASKS,
        },
        "sft": {
            "kind": "sft",
            "from": "student",
            "data": ["samples"],
            "epochs": 14,
            "tokens_per_step": 3600,
            "validation": 0.0,
            "optim": LEARNING,
            **shared,
        },
    }
    step = {"steps": STEPS, "problems_per_step": PROBLEMS, "samples_per_problem": SAMPLES, "optim": LEARNING}
    for name in list(ARMS)[1:]:
        kind, _, where = name.partition("-")
        taught = {"kind": "distill", "teacher": "teacher", "divergence": f"{kind}_kl"}
        taught["from"] = "sft" if where == "after" else "student"
        source = {"on_policy": False, "data": ["samples"]} if where == "off" else {"on_policy": True}
        stages[name] = {**taught, **source, **step, **shared}
    return {"run": {"name": "distill-nano", "seed": seed}, "stage": stages}


def run(seed: int, out: Path) -> dict[str, Any]:
    """Return the summary of one seed's run; a finished one is read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distill-nano.toml"
        path.write_text(toml.write(recipe(seed)))
        command = [sys.executable, "-m", "aftershock", "run", str(path), "--out", str(out / f"seed-{seed}")]
        done = subprocess.run([*command, "--resume", "--json", "--no-report"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def table(summary: dict[str, Any], folder: Path) -> str:
    """Return a row a model: pass@1 with its interval, tokens trained and sampled, FLOPs, seconds."""
    lines = ["| stage | pass@1, % | tokens an answer | n, k | trained | sampled | TFLOPs | s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for stage in summary["stages"]:
        if stage["name"] == "samples":
            continue
        trained, sampled = (spent(folder, stage["name"], key) for key in ("trained_tokens", "sampled_tokens"))
        found = {m["metric"]: m for m in stage["evals"] if m["when"] == "after"}
        m, length = found["pass@1"], found["mean_tokens"]
        told = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * m[name] for name in ("value", "low", "high")))
        cost = f"{trained:,} | {sampled:,} | {stage['flops'] / 1e12:.2f} | {stage['seconds']:.0f}"
        what = f"{stage['name']}: {ARMS[stage['name']]}" if stage["name"] in ARMS else stage["name"]
        lines.append(f"| {what} | {told} | {length['value']:.0f} | {m['n']}, {m['k']} | {cost} |")
    return "\n".join(lines)


def spent(folder: Path, stage: str, key: str) -> int:
    """Return how many tokens a stage's steps trained on or sampled, its evaluations left out."""
    lines = map(json.loads, (folder / "timings.jsonl").read_text().splitlines())
    return sum(line.get(key, 0) for line in lines if line["stage"] == stage and "eval" not in line)


def main() -> None:
    """Run every seed and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/distill"))
    given = parser.parse_args()
    for seed in given.seeds:
        summary = run(seed, given.out)
        print(f"seed {seed}: {sum(stage['seconds'] for stage in summary['stages']):.0f} s\n")
        print(table(summary, given.out / f"seed-{seed}") + "\n")


if __name__ == "__main__":
    main()
