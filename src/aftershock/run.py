"""A run on disk: one process at a time, finished stages, true resume, metrics, cost, rollouts, summary.

    DIR/run.json, recipe.toml      what the run is: recipe, versions, hardware
    DIR/metrics.jsonl              what was measured, a line a step: the same bytes however often the run was killed
    DIR/timings.jsonl              what it took: seconds, tokens, FLOPs, dollars, energy and what measured it
    DIR/plan.json                  what was foretold at its beginning
    DIR/summary.json               the outcome
    DIR/stages/NAME/               model/, rollouts/, checkpoints/, done.json

What a step leaves is written in this order: `rollouts` and `record`, then `checkpoint`. A checkpoint remembers how
much the stage had put into the line files, so that a resume can cut away what it added after that. Stages may be run
in parts and again: what others wrote in between stays, and metrics.jsonl is put in the recipe's order.
"""

import gzip
import json
import math
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftershock import checkpoint as checkpoints
from aftershock import disk, graph
from aftershock.checkpoint import Checkpoint
from aftershock.cost import energy, hardware
from aftershock.cost.ledger import GRID_KG_PER_KWH, Ledger, Work, gain, per_point, price, total
from aftershock.errors import RunError
from aftershock.recipe import Recipe, Stage, fingerprint

if TYPE_CHECKING:
    from torch import Tensor

METRICS, TIMINGS, SUMMARY, FACTS = "metrics.jsonl", "timings.jsonl", "summary.json", "run.json"
BEGIN, DONE = "begin.json", "done.json"
CHECKPOINTS, BEST = "checkpoints", "best"  # the last states of a stage, and that of its best validation
_LOST = b'"lost": true'  # marks a line of timings.jsonl that stands for others
_HEAD = re.compile(rb'\{"stage": "([^"]*)"')  # how every line of a line file begins
LIBRARIES = ("aftershock", "torch", "transformers", "tokenizers", "safetensors", "numpy")


class Run:
    """One run's folder, held for this process alone from `open` until the `with` block ends."""

    def __init__(self, folder: Path, recipe: Recipe, facts: dict[str, Any], lock: int, notes: list[str]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.hardware: dict[str, Any] = facts["hardware"]
        self.versions: dict[str, str] = facts["versions"]
        self.notes = notes  # what the user should know: nothing to resume, other versions than at the beginning
        told = recipe.run.watts is not None  # whoever says so has metered the whole machine, its supply included
        self.counters = ([], "run.watts") if told else energy.counters(self.hardware["device"])
        self._lock = lock
        self._stages: dict[str, StageFolder] = {}

    @classmethod
    def open(
        cls, folder: Path | str, recipe: Recipe, recipe_text: str, resume: bool = False, redo: bool = False
    ) -> "Run":
        """Begin a run in an empty or new folder, or go on with the one there where `resume` or `redo` is set.

        Stages that have begun, and that the recipe now makes otherwise, are cleared where `redo` is set: their
        folders and metrics go, their cost stays. RunError: the folder holds something else, a run and neither is set,
        stages to be cleared and `redo` is not set, or is in use by another process. `recipe_text` is kept as
        DIR/recipe.toml.
        """
        folder = Path(folder)
        _refuse_strangers(folder)
        with disk.writing(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            lock = disk.lock(folder)
        try:
            facts, notes, stale = _facts(folder, recipe, resume or redo, redo)
            for name in stale:
                disk.remove_folder(folder / "stages" / name)
            disk.remove_strays(folder)
            _tidy(folder, list(recipe.stage))
            for done in folder.glob(f"stages/*/{DONE}"):
                for place in (CHECKPOINTS, BEST):  # a kill may have come between the two
                    disk.remove_folder(done.with_name(place))
            disk.write_json(folder / FACTS, facts)
            disk.write_bytes(folder / "recipe.toml", recipe_text.encode())
            notes += _keep_task_files(folder, recipe)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, recipe, facts, lock, notes)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._lock, 0)  # so that `side_by_side` doesn't take the next process of our number for us
        os.close(self._lock)

    def side_by_side(self) -> int:
        """Return how many runs of this recipe's seeds are at work on this machine now, this one included."""
        others = self.folder.absolute().parent.glob("seed-*/.lock") if self.folder.name.startswith("seed-") else ()
        return 1 + sum(_at_work(path) for path in others if path.parent.name != self.folder.name)

    def stage(self, name: str, stage: Stage) -> "StageFolder":
        """Return the folder of a stage, always the same one; its clock starts with the first call.

        What an earlier process recorded past the last checkpoint is cut away then. CheckpointError where a byte of
        that checkpoint has changed: nothing is then touched, and the message says how to go back to the one before.
        """
        if name not in self._stages:
            self._stages[name] = StageFolder(self, name, stage)
        return self._stages[name]

    def stage_folder(self, name: str) -> Path:
        """Return DIR/stages/NAME, whether or not it is there."""
        return self.folder / "stages" / name

    def finished(self, name: str) -> bool:
        """Return whether the stage has come to its end, in this process or an earlier one."""
        return (self.stage_folder(name) / DONE).is_file()

    def tidy(self) -> None:
        """Put metrics.jsonl in the recipe's order, however the stages were run."""
        _tidy(self.folder, list(self.recipe.stage))

    def ledger(self, name: str) -> Ledger:
        """Return what a stage has used up so far, over all the processes that worked on it."""
        return total(line for line in _lines(self.folder / TIMINGS) if line.get("stage") == name)

    def summary(self) -> dict[str, Any]:
        """Return the outcome so far: every stage that has begun, in the recipe's order, with its cost and evals."""
        begun = [name for name in self.recipe.stage if (self.stage_folder(name) / BEGIN).is_file()]
        return {
            "run": self.recipe.run.name,
            "finished": all(self.finished(name) for name in self.recipe.stage),
            "seed": self.recipe.run.seed,
            "versions": self.versions,
            "hardware": self.hardware,
            "kg_co2_per_kwh": GRID_KG_PER_KWH,
            "stages": [self.stage_summary(name) for name in begun],
        }

    def write_summary(self) -> dict[str, Any]:
        """Write DIR/summary.json and return what it holds; worth a call after each evaluation."""
        summary = self.summary()
        disk.write_json(self.folder / SUMMARY, summary)
        return summary

    def stage_summary(self, name: str) -> dict[str, Any]:
        """Return a stage's entry in the summary; while it is unfinished, `evals` are those saved as eval-before."""
        folder, ledger = self.stage_folder(name), self.ledger(name)
        done = disk.read_json(folder / DONE) or {"evals": disk.read_json(folder / "eval-before.json") or []}
        evals = done.get("evals", [])
        points = gain(evals)
        return {
            "name": name,
            "kind": self.recipe.stage[name].kind,
            "seconds": ledger.seconds,
            "tokens": ledger.tokens,
            "flops": ledger.flops,
            "usd": ledger.usd,
            "kwh": ledger.kwh,
            "kwh_source": ledger.kwh_source,
            "kg_co2": ledger.kwh * GRID_KG_PER_KWH,
            "points_gained": points,
            "usd_per_point": per_point(ledger.usd, points),
            "evals": evals,
        }


class StageFolder:
    """One stage's part of a run."""

    def __init__(self, run: Run, name: str, stage: Stage) -> None:
        self.run = run
        self.name = name
        self.stage = stage
        self.folder = run.stage_folder(name)
        self.model_folder = self.folder / "model"
        self._clock = time.monotonic()
        self._meter = energy.Meter(*run.counters)
        if not (self.folder / BEGIN).is_file():
            disk.write_json(self.folder / BEGIN, self._marks())
        elif not run.finished(name):
            self._rewind()

    def resume(self, place: str = CHECKPOINTS) -> Checkpoint | None:
        """Return the last checkpoint (or, with BEST, that of the best validation); None where there is none yet."""
        return checkpoints.read(self.folder / place)

    def _rewind(self) -> None:
        """Cut away what was recorded after the last checkpoint, or since the stage began where there is none."""
        found = checkpoints.latest(self.folder / CHECKPOINTS)
        step, marks = found or (0, disk.read_json(self.folder / BEGIN))
        self._restore(marks, step)
        for path in self.folder.glob("rollouts/step-*.jsonl.gz"):
            if int(path.name[5:].split(".")[0]) > step:
                path.unlink()

    def checkpoint(
        self, step: int, tensors: "Mapping[str, Tensor]", scalars: Mapping[str, Any], place: str = CHECKPOINTS
    ) -> None:
        """Keep the state after `step`: all that the rest of the stage depends on. `scalars` must be JSON-able.

        Call it after the step's `rollouts` and `record`. The last two checkpoints of a `place` stay.
        """
        for name in (METRICS, TIMINGS):
            _sync(self.run.folder / name)
        checkpoints.write(self.folder / place, Checkpoint(step, dict(tensors), dict(scalars)), self._marks())

    def record(
        self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float], work: Work | None = None
    ) -> dict[str, Any]:
        """Add a line to metrics.jsonl and one to timings.jsonl; return the latter.

        `metrics` must follow from the recipe alone (no times, nothing of the machine); values that are not finite
        become null. `timings` are the step's parts; what `account` works out is added.
        """
        disk.append_line(self.run.folder / METRICS, _json({"stage": self.name, "step": step, **metrics}))
        return self.account(step, timings, work)

    def account(self, step: int, timings: Mapping[str, float], work: Work | None = None) -> dict[str, Any]:
        """Add to timings.jsonl what the time since the line before (or the stage's opening) went to; return the line.

        For an evaluation, say; `record` does it for a step. Worked out here: `seconds`, `tokens_per_second`, `usd` at
        the machine's price, and `kwh` as its counters have it (`kwh_source`), else at its power. Both are shared
        evenly with the seeds that run side by side at the moment of the call.
        """
        work, now = work or Work(), time.monotonic()
        seconds, self._clock = now - self._clock, now
        rate = (work.trained_tokens + work.sampled_tokens) / max(seconds, 1e-9)
        usd, kwh = price(seconds, self.run.hardware["usd_per_hour"], self.run.hardware["watts"])
        measured, source = self._meter.kwh(seconds)
        sharing = self.run.side_by_side()
        bill = {"usd": usd / sharing, "kwh": (kwh if measured is None else measured) / sharing, "kwh_source": source}
        worked_out = {**asdict(work), "seconds": seconds, "tokens_per_second": rate, **bill, "side_by_side": sharing}
        line = {"stage": self.name, "step": step, **timings, **worked_out}
        disk.append_line(self.run.folder / TIMINGS, _json(line))
        return line

    def history(self) -> list[dict[str, Any]]:
        """Return the stage's lines of metrics.jsonl so far."""
        return [line for line in _lines(self.run.folder / METRICS) if line["stage"] == self.name]

    def rollouts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Keep a step's rollouts in rollouts/step-000010.jsonl.gz; see `save_rows`."""
        return self.save_rows(f"rollouts/step-{step:06d}", rows)

    def save_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Put rows into NAME.jsonl.gz of the stage's folder in one move; the bytes depend on the rows alone.

        `pandas.read_json(path, lines=True)` reads it.
        """
        path = self.folder / f"{name}.jsonl.gz"
        text = "".join(_json(row) + "\n" for row in rows)
        disk.write_bytes(path, gzip.compress(text.encode(), compresslevel=6, mtime=0))
        return path

    def save_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put rows into the file `name` of the stage's folder, a JSON line each, in one move."""
        disk.write_bytes(self.folder / name, "".join(_json(row) + "\n" for row in rows).encode())

    def save_json(self, name: str, value: Any) -> None:
        """Put `value` into DIR/stages/STAGE/NAME.json in one move."""
        disk.write_json(self.folder / f"{name}.json", _plain(value))

    def read_json(self, name: str) -> Any:
        """Return what `save_json` put under `name`, None where there is nothing."""
        return disk.read_json(self.folder / f"{name}.json")

    def finish(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Mark the stage as done with its outcome (`evals`: a list as in summary.json) and return its summary's entry.

        Its checkpoints go; `record` stays in done.json.
        """
        self.account(max((line["step"] for line in self.history()), default=0), {})
        self.run.tidy()
        self.save_json("done", dict(record))
        for place in (CHECKPOINTS, BEST):
            disk.remove_folder(self.folder / place)
        return self.run.stage_summary(self.name)

    def _marks(self) -> dict[str, int]:
        """Return how many bytes of the line files are this stage's."""
        return {name: len(_cut(_whole(self.run.folder / name), self.name, 0)[1]) for name in (METRICS, TIMINGS)}

    def _restore(self, marks: dict[str, int], step: int) -> None:
        """Cut the stage's lines back to `marks`. The time that the cut steps took stays on the bill."""
        for name, now in self._marks().items():
            if now < marks[name]:
                raise RunError(
                    f"{self.run.folder / name} is damaged: {now} bytes of stage {self.name!r}, {marks[name]} when the "
                    "checkpoint was made; restore the file, or begin in another folder"
                )
        _cut_back(self.run.folder, self.name, marks, step)


def _cut_back(folder: Path, stage: str, marks: Mapping[str, int], step: int) -> None:
    """Take from the line files what a stage added after its first `marks` bytes, leaving a line with its cost."""
    for name in (METRICS, TIMINGS):
        kept, cut = _cut(_whole(folder / name), stage, marks[name])
        _rewrite(folder / name, kept + (_lost(stage, step, cut) if name == TIMINGS else b""))


def _cut(data: bytes, stage: str, mark: int) -> tuple[bytes, bytes]:
    """Split a line file into what stays, and the lines that a stage added after its own first `mark` bytes."""
    own, kept, cut = 0, list[bytes](), list[bytes]()
    for line in data.splitlines(keepends=True):
        mine = _stage_of(line) == stage
        (cut if mine and own >= mark else kept).append(line)
        own += len(line) if mine else 0
    return b"".join(kept), b"".join(cut)


def _stage_of(line: bytes) -> str | None:
    found = _HEAD.match(line)
    return found[1].decode() if found else None


def _whole(path: Path) -> bytes:
    """Return the whole lines of a file; a kill may have left the last one half written."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _rewrite(path: Path, data: bytes) -> None:
    if (path.read_bytes() if path.exists() else b"") != data:
        disk.write_bytes(path, data)


def _tidy(folder: Path, order: list[str]) -> None:
    """Drop half lines and those of stages that are not there (any more); put the metrics in the order of stages."""
    there = {path.parent.name for path in folder.glob(f"stages/*/{BEGIN}")}
    lines = [line for name in (METRICS, TIMINGS) for line in _whole(folder / name).splitlines() if _LOST not in line]
    for stage in sorted({_stage_of(line) or "" for line in lines} - there - {""}):
        _cut_back(folder, stage, {METRICS: 0, TIMINGS: 0}, 0)
    ranks = {name: rank for rank, name in enumerate(order)}
    metrics = _whole(folder / METRICS).splitlines(keepends=True)
    metrics.sort(key=lambda line: ranks.get(_stage_of(line) or "", len(order)))
    _rewrite(folder / METRICS, b"".join(metrics))
    _rewrite(folder / TIMINGS, _whole(folder / TIMINGS))


def _lost(stage: str, step: int, cut: bytes) -> bytes:
    """Return one line with the cost of the lines that are cut: they will be done again, but were paid for."""
    spent = total(_parsed(cut))
    if not spent.seconds:
        return b""
    bill = {"seconds": spent.seconds, "usd": spent.usd, "kwh": spent.kwh, "kwh_by": spent.kwh_by}
    line = {"stage": stage, "step": step, "lost": True, **bill}
    return (_json(line) + "\n").encode()


def _at_work(lock: Path) -> bool:
    """Whether the process that a run's lock names is alive on this machine: to try the lock could take it from one."""
    try:
        found = re.fullmatch(r"process (\d+) on (.*)", lock.read_text())
        if not found or found[2] != socket.gethostname():
            return False
        os.kill(int(found[1]), 0)
    except PermissionError:  # another user's, so it is alive
        return True
    except OSError:
        return False
    return True


def _refuse_strangers(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder with --out")
    others = [path.name for path in folder.glob("*") if path.name != ".lock" and not path.name.startswith(disk.STRAY)]
    if others and FACTS not in others:
        raise RunError(
            f"{folder} is not empty and holds no run (there is {others[0]!r}); give another folder with --out"
        )


def _facts(folder: Path, recipe: Recipe, resume: bool, redo: bool) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return what run.json is to hold, notes for the user, and the stages that are to be cleared."""
    before = disk.read_json(folder / FACTS)
    if before is not None and not resume:
        raise RunError(
            f"{folder} already holds the run {before['name']!r}; add --resume to go on with it, "
            "or give another folder with --out"
        )
    facts: dict[str, Any] = {
        "name": recipe.run.name,
        "fingerprint": fingerprint(recipe),
        "recipe": recipe.content(),
        "recipe_folder": str(recipe.folder),
        "versions": versions(),
        "hardware": _hardware(recipe),
    }
    if before is None:
        return facts, [f"nothing to resume in {folder}: the run begins"] if resume else [], []
    old, new = _as_now(before["recipe"]), facts["recipe"]
    made, wanted = graph.fingerprints(old), graph.fingerprints(new)
    begun = [path.parent.name for path in folder.glob(f"stages/*/{BEGIN}")]
    stale = [name for name in {**new["stage"], **old["stage"]} if name in begun and made.get(name) != wanted.get(name)]
    if stale and not redo:
        raise RunError(_refusal(folder, _changed(old, new), stale, [name for name in begun if name not in stale]))
    notes = [f"the recipe has changed: {_changed(old, new)}"] if old != new else []
    notes += [f"cleared, to be done again where the recipe still has it: {', '.join(stale)}"] if stale else []
    return facts, notes + _version_notes(before["versions"], facts["versions"]), stale


def _as_now(before: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe that a run began with; a key that an older aftershock did not know has its default."""
    try:
        return Recipe.model_validate(before).content()
    except ValueError:  # it has a key that this aftershock does not know
        return before


def _keep_task_files(folder: Path, recipe: Recipe) -> list[str]:
    """Keep a user's task files beside recipe.toml, so that the two say all of what was run; note those changed since.

    Only those named by a path below the recipe's own folder; what they import is not followed.
    """
    notes = []
    named = {table.name.rpartition(":")[0] for stage in recipe.stage.values() for table in stage.tasks}
    for name in sorted(name for name in named if name.endswith(".py") and ".." not in Path(name).parts):
        source, kept = recipe.folder / name, folder / name
        if Path(name).is_absolute() or not source.is_file():
            continue
        if not kept.exists():
            disk.write_bytes(kept, source.read_bytes())
        elif kept.read_bytes() != source.read_bytes():
            notes.append(f"{source} is not as it was when the run began ({kept}): what follows may differ")
    return notes


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)] or ["the order of stages"]
    return "; ".join(f"{key} was {old.get(key, 'not set')!r} and is {new.get(key, 'not set')!r} now" for key in keys)


def _refusal(folder: Path, changed: str, stale: list[str], others: list[str]) -> str:
    stay = f", {', '.join(others)} would stay" if others else ""
    return (
        f"{folder} is a run of another recipe: {changed}. To clear what that changes and do it again, add --redo "
        f"(stages {', '.join(stale)}{stay}); else resume with the recipe it began with "
        f"(aftershock run '{folder}/recipe.toml' --out '{folder}' --resume), or begin in another folder"
    )


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield key, value
    for name, inner in items:
        yield from _flat(inner, f"{key}.{name}" if key else str(name))


def _hardware(recipe: Recipe) -> dict[str, Any]:
    found = hardware.detect(recipe.run.device)
    given = {"usd_per_hour": recipe.run.usd_per_hour, "watts": recipe.run.watts}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    source = f"{', '.join(said)}: given in the recipe; {found.source}" if len(said) == 1 else "given in the recipe"
    return asdict(replace(found, **said, source=source) if said else found)


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and the libraries that a run's numbers depend on."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _version_notes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    return [f"not the versions the run began with ({', '.join(changed)}): its bits may differ"] if changed else []


def _sync(path: Path) -> None:
    if path.exists():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _lines(path: Path) -> list[dict[str, Any]]:
    return _parsed(path.read_bytes()) if path.exists() else []


def _parsed(data: bytes) -> list[dict[str, Any]]:
    """Return the whole lines of a line file; a kill may have left the last one half written."""
    return [json.loads(line) for line in data.split(b"\n")[:-1] if line]


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _json(value: Any) -> str:
    try:
        return _ENCODER.encode(value)  # most often all is plain already
    except (TypeError, ValueError):
        return _ENCODER.encode(_plain(value))


def _plain(value: Any) -> Any:
    """Return the value as JSON knows it: numbers of numpy and torch as Python's, those not finite as null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
