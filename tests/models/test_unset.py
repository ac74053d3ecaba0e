"""Models are made on the meta device without torch's own initial values, and so without importing its compiler."""

import subprocess
import sys

import torch
from torch import nn

from aftershock.models.unset import unset

LOADED = """
import sys
from aftershock.models import load
from aftershock.sources import shipped_base
model = load(shipped_base("base"))
assert all(weight.device.type == "cpu" for weight in model.parameters())
print(sorted(name for name in ("torch._dynamo", "sympy", "transformers") if name in sys.modules))
"""


def test_nothing_is_filled_within_and_everything_after():
    with unset():
        made = [nn.Linear(3, 2), nn.Embedding(3, 2), torch.zeros(2)]
    assert {made[0].weight.device.type, made[1].weight.device.type, made[2].device.type} == {"meta"}
    after = nn.Linear(3, 2).weight
    assert after.device.type == "cpu"
    assert after.abs().sum() > 0


def test_loading_a_model_does_not_import_torchs_compiler():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
