"""A dry run: every stage of a recipe in miniature, two steps each, on the CPU and offline. It proves the wiring."""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aftershock import preflight
from aftershock.disk import read_json
from aftershock.known import known_config
from aftershock.models import build, save
from aftershock.pipeline import execute
from aftershock.pipeline.clean import clean, cleaners
from aftershock.pipeline.corpus import draw_problems
from aftershock.pipeline.data import DATA
from aftershock.recipe import Recipe, SampleStage
from aftershock.run import Run
from aftershock.sources import HUB, SHIPPED, shipped_base
from aftershock.tasks import Problem, Task, task
from aftershock.text import Tokenizer
from aftershock.track import Reporters

STEPS = 2
ROWS = 32  # of stand-in data
# What a miniature may have at most of each key of a stage's table, however deep it stands.
_AT_MOST = {
    "steps": STEPS,
    "epochs": 1,
    "problems": 2,
    "samples": 2,
    "quick_problems": 1,
    "every": 1,
    "problems_per_step": 2,
    "samples_per_problem": 2,
    "minibatches": 2,
    "dynamic_sampling": 2,
    "max_rows": 8,
    "max_tokens": 16,
    "overlong_buffer": 8,
    "tokens_per_step": 512,
    "micro_tokens": 2048,
    "examples": ROWS,
    "examples_per_step": ROWS // 2,
    "warmup": 1,
    "reference_every": 1,
    "from_step": 1,
    "checkpoint_every": STEPS,
    "rank": 4,
}
# What a miniature's config.json has in place of larger numbers; all that isn't named here is as in the recipe.
_SMALL_MODEL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_nextn_predict_layers": 1,
}


def dry_run(recipe: Recipe, say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Run a recipe's stages in miniature, in a folder that goes afterwards; return what was proved, a line a stage.

    Models keep their architecture and options and lose their size; tasks, losses, rewards, cleaners and the ways
    between stages are the recipe's own. What lies elsewhere (models and datasets of the hub, data that isn't here yet)
    has a stand-in, and says so in the lines. Raises what the first stage that can't go on raises.
    """
    with TemporaryDirectory(prefix="aftershock-dry-") as place:
        workshop = _Workshop(recipe, Path(place))
        small = workshop.miniature()
        preflight.check(small)
        lines = []
        with Run.open(Path(place) / "run", small, "", resume=False) as run:
            for name, stage in small.stage.items():
                began = time.monotonic()
                execute(small, run, Reporters([]), [name])
                if isinstance(stage, SampleStage):
                    _fill(small, run, name, stage)
                steps = len(run.stage(name, stage).history())
                told = f", {steps} steps" if steps else ""  # a bench takes none
                lines.append(f"{name}: {stage.kind}{told} in {time.monotonic() - began:.1f} s")
                say(lines[-1])
    for line in workshop.stand_ins:
        say(line)
    return [*lines, *workshop.stand_ins]


class _Workshop:
    """Makes a recipe's miniature, and the stand-ins that it needs, in a folder."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.folder = folder
        self.stand_ins: list[str] = []

    def miniature(self) -> Recipe:
        """Return the recipe at toy size; it lies where the recipe does, so that task files are found."""
        content = self.recipe.content()
        content["run"]["device"] = "cpu"
        earlier: set[str] = set(SHIPPED)
        for name, table in content["stage"].items():
            self._shrink(table, earlier)
            earlier.add(name)
        small = Recipe.model_validate(content)
        small._folder = self.recipe.folder
        return small

    def _shrink(self, table: dict[str, Any], earlier: set[str]) -> None:
        for key in ("from", "teacher", "tokenizer"):
            if key in table and table[key] not in earlier:
                table[key] = self._model(table[key])
        if "model" in table:
            table["model"] = _small_config(table["model"])
            table.setdefault("tokenizer", "base")  # a vocabulary of its own takes longer than all the rest
        if "models" in table:
            table["models"] = [one if one in earlier else self._model(one) for one in table["models"]]
        form = table.get("form", "completion")
        table["data"] = [one if one in earlier else self._data(one, form) for one in table.get("data", ())]
        if not table["data"]:
            del table["data"]
        for one in table.get("tasks", ()):
            one["name"], one["difficulty"] = self._task(one["name"], one["difficulty"])
        _cap({key: value for key, value in table.items() if key != "model"}, table)

    def _stand_in(self, name: str, what: str) -> Path:
        said = f"{name}: {what} stood in for it"
        if said not in self.stand_ins:
            self.stand_ins.append(said)
        return self.folder / re.sub(r"\W+", "-", name)

    def _model(self, source: str) -> str:
        """Make a model of the source's family at toy size, with the shipped tokenizer in the chat form."""
        config = (
            known_config(source) if source.startswith(HUB) else read_json(self.recipe.locate(source) / "config.json")
        )
        folder = self._stand_in(source, f"a {config['model_type']} of random weights, with the nano tokenizer,")
        tokenizer = Tokenizer.load(shipped_base()).with_template("chat")
        fields = {**_small_config(config), "vocab_size": tokenizer.vocab_size}
        fields |= {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
        save(build(fields, seed=0), folder, tokenizer=tokenizer)
        return str(folder)

    def _data(self, source: str, form: str) -> str:
        """Return rows of the source where it is a file that is here, else a file of invented ones of the same form."""
        here = self.recipe.locate(source)
        if not source.startswith(HUB) and here.is_file():
            return self._excerpt(source, here) if here.suffix == ".jsonl" else source
        path = self._stand_in(source, f"{ROWS} invented rows").with_suffix(f".{form}.jsonl")
        path.write_text("".join(json.dumps(_row(form, number)) + "\n" for number in range(ROWS)))
        return str(path)

    def _excerpt(self, source: str, path: Path) -> str:
        """Return a file of rows from all over a long one, which would take many steps; a short one as it is."""
        rows = path.read_text(encoding="utf-8").splitlines()
        if len(rows) <= ROWS:
            return source
        short = self._stand_in(source, f"{ROWS} of its {len(rows)} rows").with_suffix(path.suffix)
        step = len(rows) // ROWS
        short.write_text("".join(row + "\n" for row in rows[::step][:ROWS]), encoding="utf-8")
        return str(short)

    def _task(self, name: str, difficulty: int) -> tuple[str, int]:
        """Return the task, with invented rows where it is a dataset that isn't here."""
        kind, _, source = name.partition(":")
        if kind not in ("dataset", "prompts") or self.recipe.locate(source).is_file():
            return name, difficulty
        path = self._stand_in(name, f"{ROWS} invented sums").with_suffix(".jsonl")
        rows = ({"prompt": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(ROWS))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"{kind}:{path}", 1


def _cap(values: Mapping[str, Any], table: dict[str, Any]) -> None:
    for key, value in values.items():
        for inner in [value] if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(inner, dict):
                _cap(dict(inner), inner)
        if isinstance(value, int) and key in _AT_MOST:
            table[key] = min(value, _AT_MOST[key])


def _small_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json of the same architecture and options with few, narrow layers."""
    own = {key: min(config[key], size) for key, size in _SMALL_MODEL.items() if config.get(key) is not None}
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads")
    own |= {"num_attention_heads": 4, "num_key_value_heads": 4 if groups in (None, heads) else 2}
    return {**config, **own}


def _row(form: str, number: int) -> dict[str, Any]:
    """Return an invented row that teaches a sum, in the form that the stage's trainer reads."""
    prompt, right = f"What is {number} + 1?", f"One more.\n</think>\n\n<answer>{number + 1}</answer>"
    if form == "pairwise":
        return {"prompt": prompt, "chosen": right, "rejected": "No idea.\n</think>\n\n<answer>0</answer>"}
    if form == "pointwise":
        return {"prompt": prompt, "completion": right, "label": number % 2 == 0}
    return {"prompt": prompt, "completion": right}


def _fill(recipe: Recipe, run: Run, name: str, stage: SampleStage) -> None:
    """Add right answers to a stage's data: a miniature finds none, and what comes next must have something to read."""
    tasks = [task(table.name, table.difficulty, table.languages, base=recipe.folder) for table in stage.tasks]
    drawn = draw_problems(tasks, [table.weight for table in stage.tasks], ROWS, name)
    chosen = cleaners(stage.clean, recipe.folder)
    folder = run.stage(name, stage)
    rows = [json.loads(line) for line in (folder.folder / DATA).read_text(encoding="utf-8").splitlines()]
    for one, problem in drawn:
        row = _answered(one, problem)
        text, _ = clean(row, chosen)
        kept = {key: row[key] for key in ("prompt", "task", "language")}
        rows.append({**kept, "completion": row["text"] if text is None else text})
    folder.save_lines(DATA, rows)


def _answered(one: Task, problem: Problem) -> dict[str, Any]:
    """Return a row as a stage's rollouts have it, with a gold answer behind a little reasoning."""
    text = f"I work it out.\n</think>\n\n<answer>{problem.gold}</answer>"
    return {
        "problem": problem.id,
        "task": one.name,
        "language": problem.language,
        "prompt": problem.prompt,
        "gold": problem.gold,
        "text": text,
        "reasoning": "I work it out.",
        "answer": problem.gold,
        "tokens": len(text),
    }
