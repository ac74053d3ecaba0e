"""What the tests of suites share: our own items in the originals' formats, and answers to them."""

import os
from pathlib import Path

import pytest

from aftershock.bench.types import Answer

ITEMS = Path(__file__).parent / "items"
DATA = os.environ.get("AFTERSHOCK_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="needs AFTERSHOCK_DATA, a folder with the originals")


def answer(text, finish="stop", reasoning="hm"):
    return Answer(f"{reasoning}</think>{text}", reasoning, text, 7, finish)
