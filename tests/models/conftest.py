"""A folder as transformers writes it."""

from pathlib import Path

import pytest
from tiny_models import theirs


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A deepseek_v3 folder as transformers writes it."""
    theirs("deepseek_v3").save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"
