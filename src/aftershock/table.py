"""Tables of plain text: columns of equal width, what each stage of a run added and cost, models side by side."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LONGEST_HEAD = 7  # letters of a task's name in a table's head; a longer one is broken in two


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows, the heads first, in columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def outcome(summary: Mapping[str, Any]) -> str:
    """Return a run's end (its summary.json) in one text: what each stage added and cost; each bench's models."""
    benches = [bench(stage["evals"]) for stage in summary["stages"] if stage["kind"] == "bench" and stage["evals"]]
    return "\n\n".join([stages(summary["stages"]), *benches])


def stages(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's stages (entries of summary.json) as a table: pass@1 before and after, seconds, tokens, dollars.

    pass@1 is that of all tasks together, with its 95% interval; n and k are those of the measurement after.
    """
    heads = ["stage", "kind", "pass@1 before", "after", "n", "k", "seconds", "tokens", "usd"]
    total = {name: sum(summary[name] for summary in summaries) for name in ("seconds", "tokens", "usd")}
    last = [["all", *[""] * 5, *_cost(total)]] if len(summaries) > 1 else []
    judged = any(summary["kind"] == "reward_model" for summary in summaries)
    told = "\nof a reward model: accuracy on held-out preferences" if judged else ""
    return columns([heads, *map(_stage, summaries), *last]) + told


def bench(evals: Sequence[Mapping[str, Any]]) -> str:
    """Return what a bench stage measured (`evals` of its entry in summary.json) as a table, a row a model.

    What all rows share is said once: the number n of problems under the heads, k and seed below. pass@1 of all tasks
    together has its 95% interval.
    """
    chosen = bench_columns((m["suite"], m["metric"]) for m in evals)
    found = {(m["when"], m["suite"], m["metric"]): m for m in evals}
    models, (_, pooled, _) = list(dict.fromkeys(m["when"] for m in evals)), chosen[-1]
    heads, counts, rows = [("", "model")], ["n"], [[model] for model in models]
    for head, suite, metric in chosen:
        here = [found.get((model, suite, metric)) for model in models]
        asked = max(m["n"] for m in here if m)
        heads.append(_broken(head))
        counts.append(str(asked) if metric in ("pass@1", "quality") else "")
        for row, m in zip(rows, here):
            row.append(_cell(m, (suite, metric) == (pooled, "pass@1")))
    opened = ", ".join(suite for _, suite, metric in chosen if metric == "quality")
    told = f"pass@1 in %{f' (true quality of {opened})' if opened else ''}, [95% interval]"
    below = f"{told}; n problems, k = {evals[0]['k']} samples of each, seed {evals[0]['seed']}"
    return f"{columns([*zip(*heads), counts, *rows])}\n{below}"


def bench_columns(measured: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return (head, suite, metric) of the columns that show a bench's (suite, metric) pairs.

    A task each, with pass@1 or, where no rule judges, true quality; then of all tasks together: pass@1, language
    consistency, readability, tokens.
    """
    told = list(dict.fromkeys(measured))
    suites = list(dict.fromkeys(suite for suite, _ in told))
    tasks = [(one, one, "quality" if (one, "quality") in told else "pass@1") for one in suites if one != "all"]
    pooled = [("all", "pass@1"), ("language", "language_consistency"), ("readable", "readable_rate")]
    rest = [(head, suites[-1], metric) for head, metric in (*pooled, ("tokens", "mean_tokens"))]
    return [one for one in (*tasks, *rest[len(tasks) == 1 :]) if one[1:] in told]


def _cell(m: Mapping[str, Any] | None, with_interval: bool) -> str:
    if m is None:
        return "-"
    if m["metric"] == "mean_tokens":
        return f"{m['value']:.0f}"
    return f"{100 * m['value']:.1f}" + (f" [{100 * m['low']:.1f}, {100 * m['high']:.1f}]" if with_interval else "")


def _broken(head: str) -> tuple[str, str]:
    """Return a head on two lines, broken in the middle where it is long."""
    half = (len(head) + 1) // 2
    return (head[:half] + "-", head[half:]) if len(head) > LONGEST_HEAD else ("", head)


def over_seeds(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return the stages of one recipe's runs (a summary.json each) as a table: pass@1 after, seconds, dollars.

    pass@1 is the mean over the seeds with its range; n and k are those of one seed, seconds and dollars all seeds'.
    """
    heads = ["stage", "kind", "seeds", "pass@1 after: mean (range)", "n", "k", "seconds", "usd"]
    names = {stage["name"]: stage["kind"] for summary in summaries for stage in summary["stages"]}
    every = [stage for summary in summaries for stage in summary["stages"]]
    rows = [_over_seeds(name, kind, [one for one in every if one["name"] == name]) for name, kind in names.items()]
    return columns([heads, *rows])


def _over_seeds(name: str, kind: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    measured = [after for run in runs if (after := _pass_at_1(run).get("after"))]
    values = [100 * m["value"] for m in measured]
    spread = f"{sum(values) / len(values):.1f}% ({min(values):.1f} to {max(values):.1f})" if values else "-"
    counts = [str(measured[0][key]) if measured else "" for key in ("n", "k")]
    costs = [f"{sum(run['seconds'] for run in runs):,.0f}", f"{sum(run['usd'] for run in runs):.4f}"]
    return [name, kind, str(len(runs)), spread, *counts, *costs]


def _pass_at_1(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return a stage's pass@1 by when it was measured, that of all tasks: the last suite is "all", or the only one.

    Of a reward model it is the accuracy on held-out preferences.
    """
    return {m["when"]: m for m in summary["evals"] if m["metric"] in ("pass@1", "accuracy")}


def _stage(summary: Mapping[str, Any]) -> list[str]:
    found = _pass_at_1(summary)
    after = found.get("after", {})
    shown = [_measured(found.get(when)) for when in ("before", "after")]
    counts = [str(after.get(name, "")) for name in ("n", "k")]
    return [summary["name"], summary["kind"], *shown, *counts, *_cost(summary)]


def _cost(spent: Mapping[str, Any]) -> list[str]:
    return [f"{spent['seconds']:,.0f}", f"{spent['tokens']:,.0f}", f"{spent['usd']:.4f}"]


def _measured(m: Mapping[str, Any] | None) -> str:
    return f"{100 * m['value']:.1f}% [{100 * m['low']:.1f}, {100 * m['high']:.1f}]" if m else "-"
