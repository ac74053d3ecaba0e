"""Fine-tuning learns what it is shown, tells bad data by line, stops where validation does, and resumes to the bit."""

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from walk import walk

from aftershock.errors import DataError
from aftershock.models import load
from aftershock.pipeline import data
from aftershock.pipeline.data import Example, encode
from aftershock.pipeline.sft import Patience
from aftershock.sources import shipped_base
from aftershock.tasks import task
from aftershock.text import Tokenizer

RECIPE = """
[run]
name = "sft"
usd_per_hour = 1.0
watts = 100.0

[stage.cold]
kind = "sft"
data = ["own.jsonl"]
tokens_per_step = 512
validation = 0.1
checkpoint_every = 2
epochs = 2
max_length = 200

[stage.cold.optim]
lr = 1e-3
micro_tokens = 1024
"""


def own_data(folder: Path, count: int = 80) -> None:
    arithmetic = task("arithmetic")
    with open(folder / "own.jsonl", "w") as file:
        for number in range(count):
            problem = arithmetic.draw("train", number)
            completion = arithmetic.trace(problem, random.Random(number), "thorough")
            file.write(json.dumps({"prompt": problem.prompt, "completion": completion}) + "\n")


def run(folder: Path, out: str, recipe: str = RECIPE, resume: bool = False, breaks: int | None = None) -> Path:
    (folder / "sft.toml").write_text(recipe)
    return walk(folder / "sft.toml", folder / out, resume, breaks)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["validation_loss"] for row in rows if row.get("validation_loss") is not None]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "stages/cold/model/model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("more", ["", "[stage.cold.lora]\nrank = 4\n"], ids=["whole", "adapters"])
def test_it_learns_and_moves_what_it_may(tmp_path: Path, more: str):
    own_data(tmp_path)
    whole = run(tmp_path, "whole", RECIPE + more)
    assert losses(whole)[-1] < losses(whole)[0]
    assert (whole / "stages/cold/adapter").exists() == bool(more)
    base = load(shipped_base()).state_dict()
    moved = [n for n, t in load(whole / "stages/cold/model").state_dict().items() if not torch.equal(t, base[n])]
    assert any(".experts." in name for name in moved) == (not more)  # adapters leave stacked experts alone
    assert any("o_proj" in name for name in moved)


def test_it_ends_early_with_the_best_weights(tmp_path: Path):
    own_data(tmp_path, 40)
    wild = RECIPE.replace("validation", "patience = 2\nvalidation")
    for before, after in (("lr = 1e-3", "lr = 0.3"), ("epochs = 2", "epochs = 9"), ("_every = 2", "_every = 1")):
        wild = wild.replace(before, after)
    folder = run(tmp_path, "out", wild)
    seen = losses(folder)
    assert len(seen) < 30, "it went on to the end"
    best = seen.index(min(seen))
    assert len(seen) == best + 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "broken", wild, breaks=best + 2)
    assert digest(run(tmp_path, "broken", wild, resume=True)) == digest(folder)
    assert not (folder / "stages/cold/best").exists()


def test_patience_counts_looks_without_a_better_loss():
    spent = Patience.over([{"validation_loss": v} for v in (3.0, 2.0, 2.5, 2.0)], 2)
    assert spent.spent
    assert not spent.seeing(1.0).spent
    assert not Patience(0).seeing(1.0).seeing(2.0).spent


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not json", "line 1: not JSON"),
        ("[1]", "wanted a JSON object"),
        ('{"prompt": "a"}', "row 1: wanted"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "assistant"),
        ('{"prompt": 3, "completion": "x"}', "row 1"),
    ],
)
def test_rows_that_are_no_examples_are_told(tmp_path: Path, line: str, told: str):
    (tmp_path / "own.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=told):
        run(tmp_path, "out")


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"own\.jsonl can't be read"):
        run(tmp_path, "out")


def test_the_loss_is_on_the_completion_alone_in_every_prompt_form():
    tokenizer = Tokenizer.load(shipped_base())
    for template in ("zero", "paper", "chat"):
        document = encode(
            Example(({"role": "user", "content": "1+1?"},), "<think>\n1+1=2</think> 2"),
            tokenizer.with_template(template),
        )
        assert tokenizer.decode(document.tokens[document.prompt :]).startswith("1+1=2</think>")
        assert document.tokens[-1] == tokenizer.eos
        assert tokenizer.decode(document.tokens[: document.prompt]).rstrip("\n").endswith("<think>")
    plain = encode(Example(({"role": "user", "content": "1+1?"},), "2"), tokenizer.with_template("chat"))
    assert "<think>" not in tokenizer.decode(plain.tokens)


def test_a_prompt_form_that_is_taught_stays_with_the_model(tmp_path: Path):
    own_data(tmp_path, 8)
    folder = run(tmp_path, "out", RECIPE.replace('kind = "sft"', 'kind = "sft"\ntemplate = "chat"'))
    taught = Tokenizer.load(folder / "stages" / "cold" / "model")
    assert taught.taught_template == "chat"
    assert Tokenizer.load(shipped_base()).taught_template == "zero"


def test_equal_prompts_are_on_one_side_and_every_epoch_takes_all():
    examples = [Example(({"role": "user", "content": f"{i % 50}"},), str(i)) for i in range(200)]
    train, validation = data.split(examples, 0.2)
    assert train
    assert validation
    assert not {e.prompt[0]["content"] for e in train} & {e.prompt[0]["content"] for e in validation}
    documents = [data.Document([1] * 10, 3) for _ in range(7)]
    steps = data.batches(documents, 25, 2, 0, "order")
    assert sorted(i for step in steps[:3] for i in step) == list(range(7))
    assert steps[:3] != steps[3:]
    assert max(map(len, steps)) == 3
