"""The whole road with every kind of stage, killed once inside each: it ends as one that was never disturbed."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from walk import walk

from aftershock import toml
from aftershock.pipeline import KINDS, sampling
from aftershock.recipe import load_recipe

HERE = Path(__file__).parent
CHUNK = 8  # problems sampled together, so that a sampling stage has two steps
KEPT = ("model/*", "adapter/*", "eval-*", "rollouts/*", "data.json*", "heldout*", "calibration.json")


def recipe_in(folder: Path) -> Path:
    """Return the road's recipe in a folder; without programs where there is no sandbox to judge them in."""
    tables = toml.read(HERE / "road.toml")
    if shutil.which("bwrap") is None:
        tables["stage"]["zero"]["tasks"].pop()
    shutil.copy(HERE / "even_task.py", folder)
    (folder / "road.toml").write_text(toml.write(tables))
    return folder / "road.toml"


def digests(run: Path) -> dict[str, str]:
    paths = [*(path for name in KEPT for path in run.glob(f"stages/*/{name}")), run / "metrics.jsonl"]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_inside_every_stage_the_road_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = recipe_in(tmp_path)
    stages = load_recipe(path).stage
    assert {stage.kind for stage in stages.values()} == set(KINDS)
    monkeypatch.setattr(sampling, "CHUNK", CHUNK)
    whole, killed = digests(walk(path, tmp_path / "whole")), tmp_path / "killed"
    command = [sys.executable, str(HERE / "walk.py"), str(path), str(killed), str(CHUNK)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (killed / "timings.jsonl").read_text().splitlines()]
    assert [name for name in stages if any(line["stage"] == name and line.get("lost") for line in lines)] == [*stages]
    assert digests(killed) == whole
    for name, stage in stages.items():
        made = {"sample": "data.jsonl", "bench": "eval-zero.jsonl.gz"}.get(stage.kind, "model/model.safetensors")
        assert f"stages/{name}/{made}" in whole
