"""Loss of a nano pretraining under FP8 products and under 8-bit moments, beside bfloat16's and float32's.

    python benchmarks/low_precision.py --seeds 0 1 2 --steps 80 --out benchmarks/results/low_precision.json

A deepseek_v3 of the nano base's widths, with two of its four layers, learns the nano corpus; a seed's runs share
weights and documents. Held-out loss is taken in float32. A finished run in --out is not run again. FP8 is emulated on
what isn't a Hopper GPU, so times say nothing of it.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from aftershock.learn import Learner
from aftershock.models import build
from aftershock.pipeline.corpus import Corpus, documents, pack_traces
from aftershock.pipeline.exam import validation_loss
from aftershock.recipe import load_recipe
from aftershock.stats import level_interval
from aftershock.tasks import task
from aftershock.text import Tokenizer

ROOT = Path(__file__).parents[1]
ARMS = {
    "bfloat16": {"precision": "bfloat16"},
    "fp8": {"precision": "fp8"},
    "float32": {"precision": "float32"},
    "float32, 8-bit moments": {"precision": "float32", "moments": "8bit"},
}
PAIRS = (("fp8", "bfloat16"), ("fp8", "float32"), ("bfloat16", "float32"), ("float32, 8-bit moments", "float32"))
TOKENS, HELDOUT = 2048, 16_384


def trained(arm: str, seed: int, steps: int) -> dict:
    """Return a run's losses by step, its held-out loss and its processor time."""
    stage = load_recipe(ROOT / "recipes" / "nano" / "pretrain.toml").stage["skills"]
    tasks = [task(table.name, table.difficulty, table.languages) for table in stage.tasks]
    corpus = Corpus(tasks, [table.weight for table in stage.tasks], stage.thorough)
    tokenizer = Tokenizer.load(ROOT / "src" / "aftershock" / "assets" / "nano")
    fields = {**stage.model.model_dump(), "num_hidden_layers": 2, "vocab_size": tokenizer.vocab_size}
    optim = stage.optim.model_copy(update={"warmup": steps // 10, **ARMS[arm]})
    learner, losses, start = Learner(build(fields, seed=seed), optim, None, steps), [], time.process_time()
    for step in range(steps):
        found = documents(corpus, tokenizer, TOKENS, seed, "low_precision", step)
        losses.append(learner.step(pack_traces(found, optim.micro_tokens))["loss"])
    seconds = time.process_time() - start
    kept = pack_traces(documents(corpus, tokenizer, HELDOUT, seed, "heldout", split="heldout"), optim.micro_tokens)
    heldout = validation_loss(learner.model, kept)
    return {"arm": arm, "seed": seed, "steps": steps, "heldout": heldout, "cpu_seconds": seconds, "losses": losses}


def compared(runs: list[dict], one: str, other: str) -> str:
    """Return how far one's held-out loss lies from the other's, in percent with a 95% interval over seeds (t)."""
    by = {(run["arm"], run["seed"]): run for run in runs}
    seeds = [seed for arm, seed in by if arm == one and (other, seed) in by]
    off = [100 * (by[one, seed]["heldout"] / by[other, seed]["heldout"] - 1) for seed in seeds]
    apart = [_apart(by[one, seed]["losses"], by[other, seed]["losses"]) for seed in seeds]
    if len(off) < 2:
        return f"{one} against {other}: {len(off)} seeds, at least 2 wanted"
    found = level_interval(off)
    return (
        f"{one} against {other}: held-out loss {found.value:+.2f}% [{found.low:+.2f}, {found.high:+.2f}], "
        f"n = {len(off)} seeds; "
        f"training loss apart by {sum(apart) / len(apart):.2f}% a step over the last half"
    )


def _apart(one: list[float], other: list[float]) -> float:
    half = len(one) // 2
    return sum(100 * abs(a / b - 1) for a, b in zip(one[half:], other[half:])) / (len(one) - half)


def main() -> None:
    """Run what isn't there yet and print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(given.out.read_text()) if given.out.exists() else []
    for seed in given.seeds:
        for arm in ARMS:
            if not any((run["arm"], run["seed"], run["steps"]) == (arm, seed, given.steps) for run in runs):
                runs.append(trained(arm, seed, given.steps))
                given.out.write_text(json.dumps(runs) + "\n")
                print(f"{arm}, seed {seed}: {runs[-1]['heldout']:.4f}, {runs[-1]['cpu_seconds']:.0f} s", flush=True)
    for pair in PAIRS:
        print(compared(runs, *pair))


if __name__ == "__main__":
    main()
