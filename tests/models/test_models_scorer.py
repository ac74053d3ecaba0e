"""A reward model is what transformers reads as a sequence classifier with one label, and scores the same."""

from pathlib import Path

import pytest
import torch
from tiny_models import eager, theirs, tokens
from transformers import AutoModelForSequenceClassification

from aftershock.errors import CheckpointError
from aftershock.models import Scorer, Segments, load, save, scorer_of


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3", "deepseek_v3"])
def test_transformers_reads_it_and_scores_the_same(kind: str, tmp_path: Path):
    theirs(kind, pad_token_id=4).save_pretrained(tmp_path / "base")
    ours = scorer_of(load(tmp_path / "base"), seed=1)
    save(ours, tmp_path / "scorer")
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "scorer", **eager(kind)).eval()
    assert type(other).__name__.endswith("ForSequenceClassification")
    assert other.config.num_labels == 1
    row = tokens(1, 11)
    row[0, -1] = 4  # the end token, which the base also pads with
    with torch.inference_mode():
        torch.testing.assert_close(other(row).logits[0], ours.scores(row[0], torch.tensor([10])), atol=1e-5, rtol=1e-4)


def test_it_comes_back_from_its_folder_to_the_bit_and_is_no_language_model(tmp_path: Path):
    theirs("qwen2").save_pretrained(tmp_path / "base")
    ours = scorer_of(load(tmp_path / "base"), seed=1)
    save(ours, tmp_path / "scorer")
    again = load(tmp_path / "scorer", kind=Scorer)
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(t, ours.state_dict()[name]) for name, t in again.state_dict().items())
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        load(tmp_path / "scorer")
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        load(tmp_path / "base", kind=Scorer)


def test_a_score_is_read_at_each_end_whatever_stands_beside(tmp_path: Path):
    theirs("deepseek_v3").save_pretrained(tmp_path / "base")
    ours = scorer_of(load(tmp_path / "base"), seed=1)
    row = tokens(1, 9)[0]
    with torch.inference_mode():
        both = ours.scores(row, torch.tensor([3, 8]), segments=Segments(torch.tensor([0, 4, 9], dtype=torch.int32), 5))
        alone = [ours.scores(part, torch.tensor([len(part) - 1])) for part in (row[:4], row[4:])]
    torch.testing.assert_close(both, torch.cat(alone))
