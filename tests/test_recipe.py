"""Recipes: what is read, what is refused, and in which words."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock import toml
from aftershock.errors import RecipeError
from aftershock.recipe import PretrainStage, RLStage, fingerprint, load_recipe
from aftershock.recipe_rules import STAGE_KINDS, nearest

GOOD = """
[run]
name = "demo"
seed = 7

[stage.first]
kind = "pretrain"
steps = 3
[stage.first.model]
model_type = "deepseek_v3"
hidden_size = 64
rope_scaling = {type = "yarn", factor = 4.0}
[[stage.first.tasks]]
name = "countdown"
languages = ["en", "zh"]

[stage.zero]
kind = "rl"
from = "first"
steps = 40
loss.kind = "grpo"
[[stage.zero.tasks]]
name = "countdown"
[[stage.zero.tasks]]
name = "my_task.py:MyTask"
difficulty = 2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), list(overrides))
    return str(caught.value)


def test_reads_stages_in_order_with_their_types(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert list(recipe.stage) == ["first", "zero"]
    first, zero = recipe.stage.values()
    assert isinstance(first, PretrainStage)
    assert isinstance(zero, RLStage)
    assert first.model.model_dump()["rope_scaling"] == {"type": "yarn", "factor": 4.0}
    assert first.tasks[0].languages == ("en", "zh")
    assert zero.source == "first"
    assert zero.loss.kind == "grpo"
    assert recipe.folder == tmp_path


@pytest.mark.parametrize("path", sorted(Path("recipes").rglob("*.toml")), ids=str)
def test_shipped_recipes_are_good(path):
    recipe = load_recipe(path)
    assert recipe.stage


@pytest.mark.parametrize(
    ("override", "reach"),
    [
        ("stage.zero.steps=41", lambda r: r.stage["zero"].steps == 41),
        ("stage.zero.optim.lr=1e-3", lambda r: r.stage["zero"].optim.lr == 1e-3),
        ("stage.zero.tasks.1.difficulty = 5", lambda r: r.stage["zero"].tasks[1].difficulty == 5),
        ("stage.first.tasks.0.languages.1=fr", lambda r: r.stage["first"].tasks[0].languages == ("en", "fr")),
        ('stage.first.tasks.0.languages=["zh"]', lambda r: r.stage["first"].tasks[0].languages == ("zh",)),
        ("stage.zero.from=base", lambda r: r.stage["zero"].source == "base"),
        ("run.description=a = b, and [c", lambda r: r.run.description == "a = b, and [c"),
        ("stage.first.model.rope_scaling.factor=8", lambda r: r.stage["first"].model.rope_scaling["factor"] == 8),
    ],
)
def test_overrides_reach_every_place(tmp_path, override, reach):
    assert reach(load_recipe(write(tmp_path, GOOD), [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage.zreo.steps=4", "there is no stage 'zreo', did you mean \"zero\"?"),
        ("stage.zero.tasks.2.difficulty=4", "a list of 2; 2 should be a number from 0 to 1"),
        ("stage.zero.tasks.name.x=4", "a list of 2; 'name' should be"),
        ("stage.zero.steps.x=4", "stage.zero.steps is 40, which holds no keys"),
        ("stage.zero.steps", "should be KEY=VALUE"),
        ("stage..steps=4", "should be KEY=VALUE"),
        ("stage.zero.steps=4O", '--set stage.zero.steps = "4O": should be a valid integer'),
        ("stage.zero.steps=0", "--set stage.zero.steps = 0: should be greater than or equal to 1"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path, override, words):
    assert words in fault(tmp_path, GOOD, override)


def test_all_faults_are_told_at_once_each_with_file_key_value_and_wish(tmp_path):
    text = GOOD.replace("seed = 7", "sead = 7").replace("steps = 40", 'steps = "40"').replace('"grpo"', '"grppo"')
    told = fault(tmp_path, text.replace("difficulty", "dificulty") + "\n[stag.x]\n")
    lines = told.splitlines()
    assert all(line.startswith(f"{tmp_path}/recipe.toml: ") for line in lines)
    assert len(lines) == 5
    for words in (
        'run.sead = 7: unknown key, did you mean "seed"?',
        'stage.zero.steps = "40": should be a valid integer',
        'stage.zero.loss.kind = "grppo": should be',
        'did you mean "grpo"?',
        'stage.zero.tasks.1.dificulty = 2: unknown key, did you mean "difficulty"?',
        'stag: unknown key, did you mean "stage"?',
    ):
        assert words in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[run]", "[rum]"), "run.name: missing"),
        (
            ('kind = "rl"', 'kind = "rll"'),
            '"rll": should be "pretrain" or',
        ),
        (('kind = "rl"', ""), 'stage.zero.kind: should be "pretrain" or "sft"'),
        (('from = "first"', 'from = "zero"'), "stands before this one"),
        (('from = "first"', 'from = "frist"'), 'did you mean "first"?'),
        (("[stage.zero]", '[stage."a/b"]'), "names a folder"),
        (("[stage.first]\n", '[stage.first]\nfrom = "base"\n'), "can't go together with a [stage.NAME.model] table"),
        (("steps = 40", "steps = 40\nloss.clip_low = 1.0"), "clip_low = 1.0: should be less than 1"),
        (("steps = 40", "steps = 40\nloss.kl_estimator = 'k1'"), "acts only with kl above 0"),
        (("difficulty = 2", "difficulty = 2\nguesses = 0.5"), "is for pretrain stages only"),
        (("steps = 40", "steps = 40\neval.temperature = 0"), "use samples = 1"),
        (("steps = 40", "steps = 40\noptim.warmup = 41"), "is longer than the stage's steps = 40"),
        (("steps = 40", "steps = 40\noptim.betas = [0.9, 1.0]"), "should be at least 0 and less than 1"),
        (("steps = 40", "steps = 40\nminibatches = 999"), "more than a step's 512 rollouts"),
        (("steps = 40", "steps = 40\ndown_sample = 17"), "from 2 to samples_per_problem = 16"),
        (("steps = 40", "steps = 40\ndown_sample = 1"), "from 2 to samples_per_problem = 16"),
        (("steps = 40", "steps = 40\nreward.overlong_buffer = 257"), "is longer than max_tokens = 256"),
        (("steps = 40", "steps = 40\nreward = {accuracy = 0, format = 0}"), "nothing would be rewarded"),
        (("steps = 40", "steps = 40\noptim.lr = inf"), "should be a finite number"),
        (("steps = 40", "steps = true"), "stage.zero.steps = true: should be a valid integer"),
        (("languages = ", "languages = []\n#"), "should name at least one language"),
    ],
)
def test_impossible_recipes_are_refused(tmp_path, change, words):
    assert change[0] in GOOD
    assert words in fault(tmp_path, GOOD.replace(*change))


def test_a_pretrain_stage_needs_weights_and_any_stage_needs_tasks(tmp_path):
    text = '[run]\nname="x"\n[stage.a]\nkind="pretrain"\nsteps=1\ntasks=[]\n'
    told = fault(tmp_path, text)
    assert "stage.a.model: missing: say [stage.NAME.model]" in told
    assert "stage.a.tasks = []: there is no task" in told


@pytest.mark.parametrize(
    "text", ['[run]\nname = "x"\n', '[run]\nname = "x"\n[stage]\n', '[run]\nname = "x"\nstage = 3']
)
def test_no_stage_is_refused(tmp_path, text):
    assert "stage" in fault(tmp_path, text)


def test_adapters_arent_trained_in_fp8(tmp_path):
    text = '[run]\nname="x"\n[stage.a]\nkind="sft"\ndata=["x.jsonl"]\nlora.rank=4\noptim.precision="%s"\n'
    assert 'stage.a.optim.precision = "fp8": can\'t be fp8 with [lora]' in fault(tmp_path, text % "fp8")
    assert "lora" not in fault(tmp_path, text % "fp9")


def test_a_stage_called_base_is_refused_where_from_would_be_ambiguous(tmp_path):
    told = fault(tmp_path, GOOD.replace("stage.first", "stage.base").replace('from = "first"', 'from = "base"'))
    assert "could mean the shipped base or the stage" in told


def test_from_takes_a_model_folder_beside_the_recipe(tmp_path):
    (tmp_path / "weights").mkdir()
    text = GOOD.replace('from = "first"', 'from = "weights"')
    assert "config.json" in fault(tmp_path, text)
    (tmp_path / "weights/config.json").write_text("{}")
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.locate("weights") == tmp_path / "weights"


def test_unreadable_files_are_named_with_the_line(tmp_path):
    assert "line 2" in fault(tmp_path, '[run]\nname "x"\n')
    (tmp_path / "latin.toml").write_bytes(b'[run]\nname = "caf\xe9"\n')
    with pytest.raises(RecipeError, match="byte 17 is not UTF-8"):
        load_recipe(tmp_path / "latin.toml")
    with pytest.raises(RecipeError, match=r"no such file; did you mean .*recipe.toml"):
        load_recipe(tmp_path / "recpe.toml")
    with pytest.raises(RecipeError, match="can't be read"):
        load_recipe(tmp_path)


def test_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD), ["stage.zero.optim.lr=3e-7"])
    other = tmp_path / "other"
    other.mkdir()
    again = load_recipe(write(other, toml.write(recipe.content())))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert again.folder != recipe.folder


def test_fingerprint_follows_content_and_stage_order_only(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    spaced = GOOD.replace("steps = 40\n", "# a comment\n").replace('from = "first"', 'steps=40\nfrom="first"')
    assert fingerprint(load_recipe(write(tmp_path, spaced))) == fingerprint(recipe)
    assert fingerprint(load_recipe(write(tmp_path, GOOD), ["run.seed=8"])) != fingerprint(recipe)
    two = GOOD.replace('from = "first"\n', "") + GOOD[GOOD.index("[stage.zero]") :].replace("zero", "late").replace(
        'from = "first"\n', ""
    )
    swapped = two.replace("stage.late", "stage.x").replace("stage.zero", "stage.late").replace("stage.x", "stage.zero")
    assert fingerprint(load_recipe(write(tmp_path, two))) != fingerprint(load_recipe(write(tmp_path, swapped)))


def test_findings_name_stages_and_change_none(tmp_path):
    plain = load_recipe(write(tmp_path, GOOD))
    told = load_recipe(write(tmp_path, GOOD + '[findings]\nzero = "zero"\nroad = ["zero"]\nhacked = "zero"\n'))
    assert told.findings is not None
    assert (told.findings.zero, told.findings.road, told.findings.base) == ("zero", ("zero",), None)
    assert told.content()["findings"] == {"zero": "zero", "road": ["zero"], "students": [], "hacked": "zero"}
    assert plain.stage == told.stage
    assert fingerprint(plain) != fingerprint(told)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            'zero = "zeroo"',
            'findings.zero = "zeroo": is no stage, and no model of the bench stage, did you mean "zero"?',
        ),
        ('road = ["first", "last"]', 'findings.road.1 = "last": is no stage, and no model of the bench stage'),
        ('hacked = "first"', 'findings.hacked = "first": should be a stage of kind "rl"'),
        ('table = "zero"', 'findings.table = "zero": should be a stage of kind "bench"'),
        ('zeros = "zero"', 'findings.zeros = "zero": unknown key, did you mean "zero"?'),
    ],
)
def test_findings_that_name_the_wrong_thing_are_refused(tmp_path, line, wanted):
    assert wanted in fault(tmp_path, f"{GOOD}[findings]\n{line}\n")


def extending(tmp_path, text, under=GOOD):
    """A recipe in a/ that extends one in b/, and the path of the former."""
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "b").mkdir(exist_ok=True)
    write(tmp_path / "b", under)
    return write(tmp_path / "a", text)


def test_a_recipe_over_another_wins_key_by_key_and_adds_stages_at_the_end(tmp_path):
    late = '[stage.late]\nkind = "rl"\nfrom = "zero"\nsteps = 3\n[[stage.late.tasks]]\nname = "countdown"\n'
    text = f'extends = "../b/recipe.toml"\n[run]\nname = "more"\nseeds = [0, 2]\n{late}[stage.zero]\nsteps = 9\n'
    text += '[[stage.zero.tasks]]\nname = "arithmetic"\n'
    recipe = load_recipe(extending(tmp_path, text), ["stage.first.steps=7"])
    plain = load_recipe(tmp_path / "b/recipe.toml")
    assert (recipe.run.name, recipe.run.seed, recipe.run.seeds) == ("more", plain.run.seed, (0, 2))
    assert list(recipe.stage) == ["first", "zero", "late"]
    assert recipe.stage["zero"].steps == 9
    assert recipe.stage["zero"].loss == plain.stage["zero"].loss
    assert [task.name for task in recipe.stage["zero"].tasks] == ["arithmetic"]
    assert recipe.stage["first"].steps == 7
    assert recipe.folder == tmp_path / "a"


def test_paths_of_an_extended_recipe_lie_beside_it(tmp_path):
    under = GOOD.replace('from = "first"', 'from = "weights"') + (
        '[stage.tuned]\nkind = "sft"\nfrom = "zero"\ndata = ["rows.jsonl", "hub:org/rows", "gone.jsonl"]\n'
        '[[stage.tuned.tasks]]\nname = "mine.py:Mine"\n[[stage.tuned.tasks]]\nname = "dataset:rows.jsonl"\n'
        '[[stage.tuned.tasks]]\nname = "countdown"\n'
    )
    path = extending(tmp_path, 'extends = "../b/recipe.toml"\n', under)
    for name in ("weights", "zero", "countdown"):  # the last two are names first, whatever lies there
        (tmp_path / "b" / name).mkdir()
        (tmp_path / "b" / name / "config.json").write_text("{}")
    for name in ("rows.jsonl", "mine.py"):
        (tmp_path / "b" / name).touch()
        (tmp_path / "a" / name).touch()
    recipe = load_recipe(path)
    assert recipe.stage["zero"].source == "../b/weights"
    assert recipe.stage["tuned"].source == "zero"
    assert recipe.stage["tuned"].data == ("../b/rows.jsonl", "hub:org/rows", "gone.jsonl")
    assert recipe.locate(recipe.stage["tuned"].data[0]).samefile(tmp_path / "b/rows.jsonl")
    names = [task.name for task in recipe.stage["tuned"].tasks]
    assert names == ["../b/mine.py:Mine", "dataset:../b/rows.jsonl", "countdown"]


def test_extending_a_recipe_with_another_name_in_the_same_folder_changes_no_path(tmp_path):
    write(tmp_path, GOOD.replace('from = "first"', 'from = "weights"'))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/config.json").write_text("{}")
    middle, top = tmp_path / "middle.toml", tmp_path / "top.toml"
    middle.write_text('extends = "recipe.toml"\n')
    top.write_text('extends = "middle.toml"\n')
    assert load_recipe(top) == load_recipe(middle) == load_recipe(tmp_path / "recipe.toml")


def test_a_fault_is_told_with_the_file_it_stands_in(tmp_path):
    under = GOOD.replace("steps = 40", 'steps = "40"').replace('name = "', 'nam = "', 1)
    path = extending(
        tmp_path, 'extends = "../b/recipe.toml"\n[run]\nseeds = [1, 1]\n[stage.zero.optim]\nlr = -1\n', under
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["stage.first.steps=-2"])
    below = f"{tmp_path}/a/../b/recipe.toml"
    told = str(caught.value)
    for line in (
        f"{path}: --set stage.first.steps = -2: ",
        f'{below}: stage.zero.steps = "40": ',
        f"{path}: stage.zero.optim.lr = -1: ",
        f"{below}: run.nam = ",
        f"{path}: run.name: missing",
    ):
        assert line in told


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('"gone.toml"', "there is no file {tmp}/gone.toml; the path is relative to the file it stands in"),
        ("3", "extends = 3: should be the path of another recipe"),
        ('"recipe.toml"', "leads back to {tmp}/recipe.toml; break the loop"),
        ('"round.toml"', '{tmp}/round.toml: extends = "recipe.toml": leads back to {tmp}/recipe.toml; break the loop'),
    ],
)
def test_an_extended_recipe_that_is_not_there_or_leads_back_is_refused(tmp_path, line, wanted):
    (tmp_path / "round.toml").write_text('extends = "recipe.toml"\n')
    assert wanted.format(tmp=tmp_path) in fault(tmp_path, f"extends = {line}\n{GOOD}")


@pytest.mark.parametrize(
    ("seeds", "wanted"),
    [
        ("[0, 1, 0]", "run.seeds.2 = 0: stands there already"),
        ("[-1]", "run.seeds.0 = -1: should be greater than or equal to 0"),
        ("3", "run.seeds = 3: should be a valid"),
    ],
)
def test_seeds_are_different_numbers(tmp_path, seeds, wanted):
    assert wanted in fault(tmp_path, GOOD, f"run.seeds={seeds}")


KEYS = sorted({field.alias or name for kind in STAGE_KINDS.values() for name, field in kind.model_fields.items()})


@given(key=st.sampled_from([key for key in KEYS if len(key) > 4]), data=st.data())
@settings(deadline=None, max_examples=50)
def test_one_dropped_letter_still_finds_the_key(key, data):
    place = data.draw(st.integers(0, len(key) - 1))
    said = key[:place] + key[place + 1 :]
    assert nearest(said, KEYS) == f', did you mean "{said if said in KEYS else key}"?'


scalars = (
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
)
tables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(st.dictionaries(st.text(max_size=5), tables, max_size=4))
@settings(deadline=None, max_examples=100)
def test_written_toml_reads_back(content):
    assert tomllib.loads(toml.write(content)) == content


@given(scalars)
@settings(deadline=None, max_examples=100)
def test_an_override_takes_any_toml_value(value):
    assert toml.parse_override(f"a.0={toml.literal(value)}") == (("a", 0), value)
