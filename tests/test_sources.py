"""Weights from the hub: what is fetched, and what is said where nothing comes."""

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from test_recipe import GOOD, fault, write

from aftershock import sources
from aftershock.errors import CheckpointError
from aftershock.recipe import load_recipe


class Response:
    """What the hub's errors want to be made with."""

    headers: dict = {}
    request = None


def hub(monkeypatch, outcome):
    calls = []

    def download(repository, **options):
        calls.append((repository, options))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return calls


def test_a_revision_is_asked_for_and_pickles_are_not(monkeypatch, tmp_path):
    calls = hub(monkeypatch, str(tmp_path))
    assert sources.hub_folder("hub:Qwen/Qwen2.5-0.5B@v1") == tmp_path
    sources.hub_folder("hub:Qwen/Qwen2.5-0.5B")
    assert [(name, options["revision"]) for name, options in calls] == [
        ("Qwen/Qwen2.5-0.5B", "v1"),
        ("Qwen/Qwen2.5-0.5B", None),
    ]
    wanted = calls[0][1]["allow_patterns"]
    assert "*.safetensors" in wanted
    assert not any(pattern.endswith((".bin", ".pt", ".pth", ".py")) or pattern == "*" for pattern in wanted)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: GatedRepoError("Access to model is restricted", response=Response()), "is gated: accept its terms at"),
        (lambda: RepositoryNotFoundError("401 Client Error", response=Response()), "is not on the hub, or is private"),
        (
            lambda: LocalEntryNotFoundError("no snapshot on disk"),
            "can.t be read from the hub: see that the network is up",
        ),
    ],
)
def test_what_the_hub_refuses_is_told_with_what_to_do(monkeypatch, error, words):
    hub(monkeypatch, error())
    with pytest.raises(CheckpointError, match=rf"some/model {words}.*name its folder"):
        sources.hub_folder("hub:some/model")


def test_a_file_in_no_known_format_is_refused_by_its_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"rows\.txt can't be read: its name should end in \.jsonl"):
        list(sources.read_rows(tmp_path / "rows.txt", CheckpointError))


def test_a_recipe_may_take_weights_from_the_hub(tmp_path):
    text = GOOD.replace('from = "first"', 'from = "hub:Qwen/Qwen2.5-0.5B@main"')
    assert load_recipe(write(tmp_path, text)).stage["zero"].source == "hub:Qwen/Qwen2.5-0.5B@main"
    wrong = fault(tmp_path, text.replace("Qwen/Qwen2.5-0.5B@main", "Qwen2.5"))
    assert "should be hub:ORG/NAME, or hub:ORG/NAME@REVISION" in wrong
