"""The road as a graph: parts of a recipe, and a changed stage done again with what depends on it and nothing else."""

import hashlib
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock import disk, graph, toml
from aftershock.cost import Work
from aftershock.errors import RecipeError, RunError
from aftershock.recipe import Recipe
from aftershock.run import Run

ROAD = {"one": "base", "two": "one", "three": "two", "apart": "base"}  # where each stage's weights come from


def road(sources=ROAD, seed=0, name="road", **steps) -> Recipe:
    tasks = [{"name": "countdown"}]
    stages = {
        stage: {"kind": "rl", "from": source, "steps": steps.get(stage, 3), "tasks": tasks}
        for stage, source in sources.items()
    }
    return Recipe.model_validate({"run": {"name": name, "seed": seed}, "stage": stages})


def walk(folder: Path, recipe: Recipe, part=None, redo=False) -> Run:
    """Do a run's stages as `execute` does; what each leaves follows from its table and its input's bytes."""
    with Run.open(folder, recipe, toml.write(recipe.content()), resume=True, redo=redo) as run:
        for name, stage in recipe.stage.items():
            if run.finished(name) or name not in (part or recipe.stage):
                continue
            given = run.stage_folder(stage.source) / "model" / "weights"
            weights = hashlib.sha256(given.read_bytes() if stage.source in recipe.stage else b"base")
            folder = run.stage(name, stage)
            found = folder.resume()
            for step in range(found.step if found else 0, stage.steps):
                folder.record(step + 1, {"weights": weights.hexdigest()}, {}, Work(trained_tokens=7))
                folder.checkpoint(step + 1, {}, {})
            weights.update(f"{name} {stage.steps} {recipe.run.seed}".encode())
            disk.write_bytes(folder.model_folder / "weights", weights.digest())
            folder.finish({"evals": []})
    return run


def kept(folder: Path) -> dict[str, bytes]:
    """What must be as in an undisturbed run: models and metrics."""
    paths = [folder / "metrics.jsonl", *folder.glob("stages/*/model/weights")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def stamps(folder: Path, stage: str) -> dict[str, tuple[int, bytes]]:
    files = [path for path in (folder / "stages" / stage).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# --- what depends on what ---------------------------------------------------------------------------------------------


def test_inputs_are_weights_data_teachers_tokenizers_and_reward_models_of_earlier_stages():
    stages = {
        "base": {"kind": "pretrain", "from": "later"},
        "zero": {"kind": "rl", "from": "base"},
        "cold": {"kind": "sample", "from": "zero"},
        "sft": {"kind": "sft", "from": "base", "data": ["cold", "own.jsonl", "cold"]},
        "judge": {"kind": "reward_model", "from": "sft"},
        "rl": {"kind": "rl", "from": "sft", "preferences": [{"model": "judge"}]},
        "student": {"kind": "pretrain", "tokenizer": "base"},
        "pupil": {"kind": "distill", "from": "student", "teacher": "rl"},
        "later": {"kind": "rl", "from": "folder"},
    }
    assert graph.inputs(stages) == {
        "base": [],
        "zero": ["base"],
        "cold": ["zero"],
        "sft": ["base", "cold"],
        "judge": ["sft"],
        "rl": ["sft", "judge"],
        "student": ["base"],
        "pupil": ["student", "rl"],
        "later": [],
    }


@given(st.data())
def test_a_change_moves_the_fingerprints_of_a_stage_and_all_that_comes_of_it_and_no_other(data):
    names = [f"s{number}" for number in range(data.draw(st.integers(1, 6)))]
    sources = {name: data.draw(st.sampled_from(["base", *names[:number]])) for number, name in enumerate(names)}
    changed = data.draw(st.sampled_from(names))
    before = graph.fingerprints(road(sources).content())
    after = graph.fingerprints(road(sources, **{changed: 4}).content())

    def comes_of(name):
        return name == changed or (name in sources and comes_of(sources[name]))

    assert {name for name in names if before[name] != after[name]} == set(filter(comes_of, names))
    assert not set(before.values()) & set(graph.fingerprints(road(sources, seed=1).content()).values())
    assert before == graph.fingerprints(road(sources, name="other").content())


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_part_is_in_the_recipes_order():
    recipe = road()
    assert graph.part(recipe) == list(ROAD)
    assert graph.part(recipe, only=["three", "one"]) == ["one", "three"]
    assert graph.part(recipe, start="two") == ["two", "three", "apart"]
    assert graph.part(recipe, until="two") == ["one", "two"]
    assert graph.part(recipe, start="two", until="two") == ["two"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"only": ["onne"]}, r"there is no stage 'onne' \(nearest: one\); the stages are one, two, three, apart"),
        ({"start": "x"}, "there is no stage 'x'; the stages are"),
        ({"start": "three", "until": "one"}, "'three' stands behind 'one' in the recipe"),
        ({"only": ["one"], "until": "two"}, "can't go together with --from or --until"),
    ],
)
def test_parts_that_can_not_be(words, told):
    with pytest.raises(RecipeError, match=told):
        graph.part(road(), **words)


def test_a_part_without_its_inputs_is_refused_with_what_to_run_first():
    graph.check_part(road(), ["three"], finished=["two"])
    graph.check_part(road(), ["one", "two", "three"], finished=[])
    with pytest.raises(RecipeError, match=r"'three' needs 'two', which isn't finished: .*\(--only one,two\)"):
        graph.check_part(road(), ["three"], finished=[])
    with pytest.raises(RecipeError, match=r"'two' needs 'one'.*\(--only one\)"):
        graph.check_part(road(), ["two", "three", "apart"], finished=["three"])


def test_parts_in_any_order_end_as_the_whole(tmp_path):
    walk(tmp_path / "whole", road())
    assert not walk(tmp_path / "parts", road(), part=["apart"]).summary()["finished"]
    walk(tmp_path / "parts", road(), part=["one"])
    assert walk(tmp_path / "parts", road()).summary()["finished"]
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")


def test_a_stage_at_work_goes_on_after_another_was_run_in_between(tmp_path):
    recipe = road()
    walk(tmp_path / "whole", recipe)
    with Run.open(tmp_path / "run", recipe, "") as run:
        one = run.stage("one", recipe.stage["one"])
        one.record(1, json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[0]), {}, Work(7))
        one.checkpoint(1, {}, {})
        one.record(2, {"weights": "lost"}, {}, Work(7))
        with open(run.folder / "metrics.jsonl", "ab") as file:
            file.write(b'{"stage": "one", "st')  # a kill in the middle of a line
    walk(tmp_path / "run", recipe, part=["apart"])
    run = walk(tmp_path / "run", recipe)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")
    assert [run.ledger(name).tokens for name in ROAD] == [21] * 4


# --- change -----------------------------------------------------------------------------------------------------------


def test_a_changed_stage_is_done_again_with_what_comes_of_it_and_nothing_else(tmp_path):
    walk(tmp_path / "run", road())
    untouched = stamps(tmp_path / "run", "one") | stamps(tmp_path / "run", "apart")
    spent = Run.open(tmp_path / "run", road(), "", resume=True)
    before = {name: spent.ledger(name) for name in ROAD}
    spent.__exit__()
    run = walk(tmp_path / "run", road(two=5), redo=True)
    assert stamps(tmp_path / "run", "one") | stamps(tmp_path / "run", "apart") == untouched
    walk(tmp_path / "fresh", road(two=5))
    assert kept(tmp_path / "run") == kept(tmp_path / "fresh")
    assert run.notes[0] == "the recipe has changed: stage.two.steps was 3 and is 5 now"
    assert run.notes[1].endswith("again where the recipe still has it: two, three")
    assert run.ledger("one") == before["one"]
    assert run.ledger("two").tokens == 35
    assert run.ledger("two").seconds > before["two"].seconds, "what was paid for stays on the bill"


def test_without_the_flag_the_refusal_says_what_would_be_done_again_and_nothing_is_touched(tmp_path):
    walk(tmp_path / "run", road())
    before = {name: stamps(tmp_path / "run", name) for name in ROAD}
    with pytest.raises(RunError) as refused:
        walk(tmp_path / "run", road(two=5))
    told = str(refused.value)
    assert "stage.two.steps was 3 and is 5 now" in told
    assert "add --redo (stages two, three; " in told.replace(", one", "; one").replace(", apart", "; apart")
    assert "would stay" in told
    assert {name: stamps(tmp_path / "run", name) for name in ROAD} == before
    walk(tmp_path / "run", road())


def test_another_seed_makes_all_stale(tmp_path):
    walk(tmp_path / "run", road())
    walk(tmp_path / "run", road(seed=1), redo=True)
    walk(tmp_path / "fresh", road(seed=1))
    assert kept(tmp_path / "run") == kept(tmp_path / "fresh")


def test_what_changes_no_stage_needs_no_flag(tmp_path):
    walk(tmp_path / "run", road())
    before = {name: stamps(tmp_path / "run", name) for name in ROAD}
    longer = road({"apart": "base", **ROAD, "four": "three"}, name="renamed")  # one more, and in another order
    run = walk(tmp_path / "run", longer)
    assert {name: stamps(tmp_path / "run", name) for name in ROAD} == before
    assert "run.name was 'road' and is 'renamed' now" in run.notes[0]
    walk(tmp_path / "fresh", longer)
    assert kept(tmp_path / "run") == kept(tmp_path / "fresh")


def test_a_stage_that_left_the_recipe_goes_with_the_flag(tmp_path):
    walk(tmp_path / "run", road())
    shorter = road({name: source for name, source in ROAD.items() if name != "apart"})
    with pytest.raises(RunError, match=r"stage.apart.kind was 'rl' and is 'not set' now"):
        walk(tmp_path / "run", shorter)
    walk(tmp_path / "run", shorter, redo=True)
    walk(tmp_path / "fresh", shorter)
    assert kept(tmp_path / "run") == kept(tmp_path / "fresh")


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: flushes to a real disk take long."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def test_killed_at_any_moment_of_clearing_either_recipe_goes_on_to_its_end(memory):
    """A forked child dies at its n-th rename or removal, while it opens the run with the changed recipe."""
    recipes = {"old": road(), "new": road(two=5)}
    for name, recipe in recipes.items():
        walk(memory / name, recipe)
    count, killed = 0, True
    while killed:
        count += 1
        for name, recipe in recipes.items():
            folder = memory / f"{count}-{name}"
            shutil.copytree(memory / "old", folder)
            killed = _open_dying_at(count, folder)
            walk(folder, recipe, redo=True)
            assert kept(folder) == kept(memory / name), f"killed at call {count}"
    assert count > 6


def _open_dying_at(count: int, folder: Path) -> bool:
    child = os.fork()
    if child == 0:
        left = [count]

        def counted(call):
            def counting(*args, **more):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **more)

            return counting

        os.replace, os.unlink = counted(os.replace), counted(os.unlink)
        Run.open(folder, road(two=5), toml.write(road(two=5).content()), resume=True, redo=True)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL
