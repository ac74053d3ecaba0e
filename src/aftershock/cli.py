"""The command line: parse, call, print. Whatever is heavy is imported inside the command that needs it."""

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aftershock import __version__, process
from aftershock.errors import AftershockError

if TYPE_CHECKING:
    from aftershock.recipe import Recipe

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
SUITES = ",(?![a-z]{2}(?:,|$))"  # what parts suites; the comma in countdown@3/zh,en parts languages

app = typer.Typer(
    name="aftershock",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make, run and measure reasoning models the way DeepSeek-R1 did. Begin with: aftershock check",
)


class Tracker(StrEnum):
    """Where else metrics can go."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    trackio = "trackio"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Suites = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[,NAME]", help="generated, gym, math, code, r1, or single suites: see docs/suites.md."),
]
Asked = Annotated[
    str | None,
    typer.Argument(
        help="base, a model's folder, RUN:STAGE, a hub id, http://HOST/v1#NAME, or scripted:KIND; without one, the "
        "bench in --out is shown again."
    ),
]


def main() -> None:
    """Run the command line; errors leave as one line `error: ...` with exit code 1, 2 (misuse) or 130 (Ctrl-C)."""
    process.prepare()
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # the parser's errors, from click or from typer's own copy of it
            raise
        used = getattr(getattr(error, "ctx", None), "command_path", "aftershock")
        _tell_error(f"{error.format_message().rstrip('.')}; see {used} --help", "--json" in sys.argv)
        code = MISUSED
    sys.exit(code if isinstance(code, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aftershock {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A TOML file of stages, such as recipes/nano/zero.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; it must be new, empty or a run to resume.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: stage.zero.steps=40.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, to the same bits.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Go on; what the recipe changed is cleared and done again.")
    ] = False,
    only: Annotated[str | None, typer.Option(metavar="NAME[,NAME]", help="Run these stages alone.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="NAME", help="Begin with this stage.")] = None,
    until: Annotated[str | None, typer.Option(metavar="NAME", help="End with this stage.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it will take, and run nothing.")] = False,
    on: Annotated[str | None, typer.Option(metavar="GPU", help="Plan for this one, such as H100-SXM.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Try every stage in miniature; nothing is kept.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Of a recipe with run.seeds, run so many side by side.")] = 1,
    track: Annotated[Tracker | None, typer.Option(help="Also send metrics to tensorboard, wandb or trackio.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Do what a recipe says: train, measure, and leave weights, metrics, costs and a report in a folder.

    A run that was stopped, by Ctrl-C, a crash or a power cut, goes on with --resume as if nothing had happened.
    """
    if plan or dry:
        with _errors(debug, as_json), _stdout_for_json(as_json):
            found = _planned(recipe, overrides or [], on) if plan else _dry(recipe, overrides or [])
        print(json.dumps(found[0], ensure_ascii=False) if as_json else found[1])
        return
    if out is None:
        raise typer.BadParameter("give the run a folder; only --plan and --dry need none", param_hint="--out")
    again = [word for word in sys.argv[1:] if word not in ("--resume", "--redo")]
    with _errors(debug, as_json, shlex.join(["aftershock", *again, "--resume"])), _stdout_for_json(as_json):
        from aftershock import graph
        from aftershock.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or [])  # refuse a wrong recipe before torch is imported
        part = graph.part(loaded, only.split(",") if only else [], start, until)
        if loaded.run.seeds:
            summary, told = _over_seeds(loaded, out, jobs, resume or redo, report, debug)
        else:
            summary = _run(loaded, part, out, resume, redo, track, as_json)
            told = _outcome(out, summary, _report(out, debug) if report else None)
    print(json.dumps(summary, ensure_ascii=False) if as_json else told)


def _planned(recipe: Path, overrides: list[str], machine: str | None) -> tuple[Any, str]:
    from aftershock.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    from aftershock.plan import plan

    found = plan(loaded, machine)
    return found.as_dict(), str(found)


def _dry(recipe: Path, overrides: list[str]) -> tuple[Any, str]:
    from aftershock.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    from aftershock.pipeline.dry import dry_run

    lines = dry_run(loaded, _say)
    return {"dry": lines}, f"the wiring holds; next: aftershock run --plan {shlex.quote(str(recipe))}"


def _run(
    recipe: "Recipe", part: list[str], out: Path, resume: bool, redo: bool, track: str | None, as_json: bool
) -> dict[str, Any]:
    from aftershock import preflight, toml
    from aftershock.pipeline import execute
    from aftershock.run import Run
    from aftershock.track import make_reporter

    preflight.check(recipe)
    with Run.open(out, recipe, toml.write(recipe.content()), resume, redo) as opened:
        reporter = make_reporter(track, out, terminal=sys.stderr.isatty() and not as_json)
        with contextlib.closing(reporter):
            for note in opened.notes:
                reporter.note(note)
            return execute(recipe, opened, reporter, part)


def _over_seeds(
    recipe: "Recipe", out: Path, jobs: int, going_on: bool, report: bool, debug: bool
) -> tuple[dict[str, Any], str]:
    """Run every seed, then the findings page where the recipe has the table; return what to print as JSON and as text.

    Each seed's process is given this very command line, with a folder and a seed of its own.
    """
    from aftershock import seeds
    from aftershock.table import over_seeds

    summaries = seeds.run(recipe, out, sys.argv[1:], jobs, going_on, _say)
    page = _report(out, debug, findings=True) if report and recipe.findings else None
    first = seeds.seed_folder(out, recipe.run.seeds[0])
    look = f"open {page or first / 'report.html'}" if report else f"aftershock report {shlex.quote(str(first))}"
    return {"seeds": summaries}, f"{over_seeds(summaries)}\nnext: {look}"


def _report(folder: Path, debug: bool, findings: bool = False) -> Path | None:
    """Write the report, or the findings page; a run that went well stays so where that can't be made."""
    try:
        if findings:
            from aftershock.report.findings import write
        else:
            from aftershock.report import write
        return write(folder)
    except (AftershockError, ImportError) as error:
        if debug:
            raise
        _say(f"the report was not written: {error}; mend that, then: aftershock report {shlex.quote(str(folder))}")
        return None


def _outcome(folder: Path, summary: dict[str, Any], report: Path | None) -> str:
    """Return what each stage added and cost, and what to do next."""
    from aftershock.table import outcome

    models = [stage["name"] for stage in summary["stages"] if stage["kind"] not in ("sample", "reward_model", "bench")]
    talk = f"aftershock chat {shlex.quote(str(folder / 'stages' / models[-1] / 'model'))}" if models else ""
    steps = [f"open {report}"] if report else []
    steps += [talk] if talk else []
    return f"{outcome(summary)}\nnext: {', then: '.join(steps)}"


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or one of seed-N runs; finished or not.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write DIR/report.html, the story of a run in one file: curves, before and after, cost, how to repeat it.

    Where the recipe has a [findings] table, and for a folder of seeds, also DIR/findings.html: what R1's paper found,
    asked of these runs.
    """
    with _errors(debug, as_json), _stdout_for_json(as_json):
        from aftershock.report import write_all

        made = {name: str(path) for name, path in write_all(folder).items()}
    print(json.dumps(made) if as_json else f"next: open {' and '.join(made.values())} in a browser")


@app.command()
def cost(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or of seed-N runs.")],
    co2: Annotated[float | None, typer.Option(min=0.0, metavar="KG", help="kg CO2 a kWh; else the world's.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what runs took, beside what was planned: time, tokens, energy, dollars, and the price of a point gained.

    Of several runs, each is compared with the first.
    """
    with _errors(debug, as_json), _stdout_for_json(as_json):
        from aftershock.cost.ledger import GRID_KG_PER_KWH
        from aftershock.report.costs import compare

        found, told = compare(folders, GRID_KG_PER_KWH if co2 is None else co2)
    print(json.dumps(found, ensure_ascii=False) if as_json else told)


@app.command()
def chat(
    model: Annotated[
        str, typer.Argument(help="A model's folder, such as DIR/stages/NAME/model; base is the shipped one.")
    ],
    once: Annotated[str | None, typer.Option("--once", metavar="TEXT", help="Ask this one thing and leave.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Where an answer is cut off.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answers.")] = 0,
    debug: Debug = False,
) -> None:
    """Talk with a model in the terminal; its reasoning is shown apart from its answer."""
    with _errors(debug, as_json=False):
        from aftershock.chat import chat as talk

        talk(model, once=once, temperature=temperature, max_tokens=max_tokens, seed=seed)


@app.command()
def bench(
    model: Asked = None,
    suite: Suites = None,
    out: Annotated[Path, typer.Option(help="The bench's folder; the same command goes on there.")] = Path("bench"),
    n: Annotated[int | None, typer.Option(min=1, help="Questions a suite; else all, or 100 generated.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Samples a question; without it the suite's own number.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token, once.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest so much.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Where an answer is cut off.")] = 32768,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answers.")] = 0,
    data: Annotated[Path | None, typer.Option(help="A folder with the suites' original files; else the hub.")] = None,
    model_name: Annotated[str | None, typer.Option(help="The name at a URL.")] = None,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds for one request to a URL, retried 3 times.")] = 1800,
    against: Annotated[Path | None, typer.Option(help="Another bench's folder, to compare with.")] = None,
    published: Annotated[bool, typer.Option("--compare-published", help="Show published scores beside ours.")] = False,
    train: Annotated[list[Path] | None, typer.Option(help="Training data, looked through for the questions.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what a model can do, by R1's protocol; every number has its n, k, seed, interval and hashes.

    Stopped by Ctrl-C, a crash or a power cut, the same command goes on where it was.
    """
    again = shlex.join(["aftershock", *sys.argv[1:]])
    with _errors(debug, as_json, again), _stdout_for_json(as_json):
        from aftershock.bench.outcome import outcome
        from aftershock.bench.run import bench as measure
        from aftershock.bench.show import Bar
        from aftershock.bench.types import Protocol

        if model is not None:
            protocol = Protocol(n, k, temperature, top_p, max_tokens, seed)
            names = [name for part in suite or [] for name in re.split(SUITES, part) if name]
            with Bar() as bar:
                measure(model, names, protocol, out, again, bar, data, model_name, timeout)
        result = outcome(out, against, published, train or [])
    if as_json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
    else:
        result.print()


@app.command()
def plan(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's file; r1 with --budget; or deepseek-v3, deepseek-r1: their bills.")
    ],
    on: Annotated[
        str | None, typer.Option(metavar="MACHINE", help="here, H100, 8xH100, or 8xH100@2.5/h (dollars a chip).")
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, or ways such as tensor=2,pipeline=4,zero=1.")] = "auto",
    against: Annotated[
        str | None, typer.Option(metavar="MACHINE[,MACHINE]", help="Other chips beside it, as many of each.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help='"$30" or "20 minutes": write a recipe of R1\'s road that it buys.')
    ] = None,
    out: Annotated[Path, typer.Option(help="Where --budget writes the recipe.")] = Path("r1-budget.toml"),
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Also play through RL on that cluster: who waits, what goes stale, fails."),
    ] = False,
    co2: Annotated[float, typer.Option(min=0.0, metavar="KG", help="kg CO2 a kWh; 0.481 is the world's.")] = 0.481,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: stage.zero.steps=40.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run will take before it starts: memory, hours, dollars, energy, carbon. Nothing runs or downloads.

    Each number is likely (least to most), and what it rests on is said below.
    """
    with _errors(debug, as_json), _stdout_for_json(as_json):
        from aftershock.plan.asked import Asked, answer

        data, told = answer(Asked(recipe, on, layout, against, budget, out, co2, tuple(overrides or ()), simulate))
    print(json.dumps(data, ensure_ascii=False) if as_json else told)


@app.command()
def check(
    full: Annotated[bool, typer.Option("--full", help="Also try torch.compile, which takes up to a minute.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Also measure speeds, for plans: 30 seconds.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has and lacks, one line a thing, each with the next step; exit 1 where one is a FAIL."""
    from dataclasses import asdict

    found, speeds = [], {}
    with _errors(debug, as_json), _stdout_for_json(as_json):
        from aftershock.check import Finding, findings, measured
        from aftershock.cost.measure import measure as measure_machine

        def tell(finding: Finding) -> None:
            found.append(finding)
            if not as_json:
                print(finding)

        for finding in findings(full):
            tell(finding)
        if measure:
            machine = measure_machine()
            speeds = {"machine": asdict(machine)}
            for finding in measured(machine):
                tell(finding)
    failed = any(finding.level == "FAIL" for finding in found)
    if as_json:
        told = {"ok": not failed, "findings": [asdict(finding) for finding in found]}
        print(json.dumps(told | speeds, ensure_ascii=False))
    else:
        print("next: mend what says FAIL" if failed else "next: make demo, or: aftershock run --help")
    raise typer.Exit(FAILED if failed else 0)


@contextlib.contextmanager
def _errors(debug: bool, as_json: bool, resume_with: str = "") -> Iterator[None]:
    """Turn what goes wrong inside into one line and an exit code; with `debug`, let the traceback through."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"what was kept so far stays; go on with: {resume_with}"
        _tell_error(f"stopped; {kept}" if resume_with else "stopped", as_json)
        raise typer.Exit(INTERRUPTED) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        _tell_error(_in_words(error), as_json)
        raise typer.Exit(FAILED) from None


def _in_words(error: Exception) -> str:
    if isinstance(error, AftershockError):
        return str(error)
    if isinstance(error, ImportError):
        return f"{error}; a library is missing: aftershock check says which, and what installs it"
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or 'no file named'}; add --debug for where it happened"
    return (
        f"unexpected {type(error).__name__}: {error}; this is a fault of aftershock: add --debug for where it happened"
    )


def _tell_error(text: str, as_json: bool) -> None:
    _say(f"error: {text}")
    if as_json:
        print(json.dumps({"error": text}, ensure_ascii=False))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _stdout_for_json(as_json: bool) -> Iterator[None]:
    """Where `as_json`, send all that anything prints meanwhile to stderr, libraries and child processes included."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
