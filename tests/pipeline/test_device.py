"""Where a run works, and that every stage works there."""

import ast
from pathlib import Path

import pytest
import torch

from aftershock import pipeline
from aftershock.cost import hardware
from aftershock.errors import RecipeError


@pytest.mark.parametrize(
    ("wanted", "there", "taken"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_a_run_works_on_a_gpu_where_there_is_one_unless_told_otherwise(wanted, there, taken, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert hardware.device(wanted) == taken


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r'set run\.device to "cpu"'):
        hardware.device("cuda")


def test_every_stage_puts_its_models_where_the_run_works():
    for path in Path(pipeline.__file__).parent.glob("*.py"):
        if path.name == "dry.py":
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("load", "build"):
                assert "context.device" in [ast.unparse(v) for v in (*call.args, *(k.value for k in call.keywords))], (
                    path
                )
