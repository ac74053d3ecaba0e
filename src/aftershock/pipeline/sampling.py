"""Make data: sample completions of train problems, keep the right ones that are clean, none twice [R1 2.3.3]."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from aftershock.cost import flops
from aftershock.generate import Engine, SamplingParams, need_module
from aftershock.models import load
from aftershock.pipeline.clean import clean, cleaners
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import draw_problems
from aftershock.pipeline.data import DATA
from aftershock.pipeline.evaluate import Judged, pace, rows, sample
from aftershock.pipeline.exam import config_of
from aftershock.recipe import SampleStage
from aftershock.tasks import Problem
from aftershock.text import Tokenizer
from aftershock.verify.judge import Judge

CHUNK = 64  # problems sampled together and kept before the next


def run(stage: SampleStage, context: Context) -> list[dict]:
    """Sample chunk by chunk from where a kill left it, then write the data; nothing is measured."""
    source = model_folder(stage.source, context)
    engine = Engine(load(source, device=context.device), Tokenizer.load(source), max_rows=stage.max_rows)
    if stage.draft:
        need_module(engine.model, stage.draft)
    chunks = _problems(stage, context)
    context.begin(len(chunks))
    chosen = cleaners(stage.clean, context.recipe.folder)
    checkpoint = context.folder.resume()
    with Judge(build_tasks(stage.tasks, context), stage.reward, stage.max_tokens) as judge:
        for number, problems in enumerate(chunks, 1):
            if checkpoint is None or number > checkpoint.step:
                _take(stage, context, engine, judge, problems, number)
    counts: Counter[str] = Counter()
    kept = list(_kept(stage, context, chosen, counts))
    context.folder.save_lines(DATA, kept)
    context.folder.save_json("data", {"kept": len(kept), **counts})
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    context.reporter.note(f"{len(kept):,} completions kept as data; {told}")
    return []


def _problems(stage: SampleStage, context: Context) -> list[list[Problem]]:
    """Draw the stage's train problems, no two alike, in chunks."""
    tasks, weights = build_tasks(stage.tasks, context), [table.weight for table in stage.tasks]
    drawn = draw_problems(tasks, weights, stage.problems, context.seed, context.name, "draw")
    unlike = list({task.content(problem): problem for task, problem in drawn}.values())
    return [unlike[start : start + CHUNK] for start in range(0, len(unlike), CHUNK)]


def _take(
    stage: SampleStage, context: Context, engine: Engine, judge: Judge, problems: list[Problem], number: int
) -> None:
    """Sample and judge one chunk, and keep its rollouts."""
    dials = stage.samples_per_problem, stage.max_tokens, stage.temperature
    params = SamplingParams(*dials, seed=context.seed, draft=stage.draft)
    judged = sample(engine, judge, problems, params, (context.seed, context.name, number))
    context.folder.rollouts(number, rows(judged, number))
    metrics = _metrics(judged) | pace(judged, stage.draft)
    work = flops.work(config_of(engine.model), metrics["mean_tokens"], 0, int(metrics.pop("sampled_tokens")))
    context.reporter.step(number, metrics, context.folder.record(number, metrics, {}, work))
    context.folder.checkpoint(number, {}, {})


def _metrics(judged: list[Judged]) -> dict[str, float]:
    lengths = [len(completion.tokens) for one in judged for completion in one.completions]
    rights = [right for one in judged for right in one.right]
    return {
        "right": sum(rights) / max(1, len(rights)),
        "mean_tokens": sum(lengths) / len(lengths),
        "sampled_tokens": float(sum(lengths)),
    }


def _kept(stage: SampleStage, context: Context, chosen: list[Any], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield what passes, in the order it was sampled; `counts` tells what became of the rest."""
    taken: Counter[str] = Counter()
    texts: set[tuple[str, str]] = set()
    for row in _rollouts(context):
        if row["verdict"]["outcome"] != "right":
            counts["not right"] += 1
            continue
        text, dropped = clean(row, chosen)
        if text is None:
            counts[f"dropped by {dropped}"] += 1
        elif (row["prompt"], text) in texts:
            counts["written before"] += 1
        elif taken[row["prompt"]] == stage.keep:
            counts["more than wanted of a problem"] += 1
        else:
            taken[row["prompt"]] += 1
            texts.add((row["prompt"], text))
            yield {"prompt": row["prompt"], "completion": text, "task": row["task"], "language": row["language"]}


def _rollouts(context: Context) -> Iterator[dict[str, Any]]:
    for path in sorted(context.folder.folder.glob("rollouts/step-*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]:
            yield json.loads(line)
