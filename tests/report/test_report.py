"""The report tells what is in the run's folder, whatever state it is in, and nothing that can't be stood behind."""

import builtins
import gzip
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic_run as synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock import report
from aftershock.errors import AftershockError, RunError
from aftershock.report.pairs import choose, marked
from aftershock.report.scores import scores_of


class Outline(HTMLParser):
    """Collects tags, ids and everything that a browser would fetch; checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href", "xlink:href", "data", "action") if name in found]
        if tag not in {"meta", "br"}:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in {"meta", "br"}:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return synthetic.build(tmp_path_factory.mktemp("runs") / "zero", steps=20, problems=12)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def page(folder: Path) -> str:
    path = report.write(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_page_tells_the_whole_story(run):
    found = Outline(page(run))
    for part in ("zero-nano", "18.7%", "89.3%", "[16.7, 20.7]", "[87.3, 91.3]", "n = 800 problems × 16, seed 0",
                 "6 min 52 s", "$0.0046", "7.4 Wh", "3.56 g CO2", "DAPO", "Before and after, on the same problems",
                 "One that got worse", "aftershock run recipe.toml", "2.13.0", "2-core laptop CPU", "95% interval",
                 "No alarm rang.", "12 parameters", "$0.04 an hour"):  # fmt: skip
        assert part in found.words, part
    titles = ("Accuracy", "Length of completions", "Checking and retrying", "Reward", "Entropy", "KL and sampler gap",
              "Signal", "Load of experts", "Accuracy: countdown", "Accuracy: arithmetic")  # fmt: skip
    assert found.tags.count("svg") == len(titles)
    assert all(title in found.words for title in titles)


def test_page_is_self_contained_and_its_ids_are_unique(run):
    html = page(run)
    found = Outline(html)
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") for link in found.links)
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert not re.search(r"@import|url\((?!#)|<script|<link", html)
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)


def test_figures_take_the_pages_colours_and_say_what_they_show(run):
    html = page(run)
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert not re.search(r"#(?!f\d+-)[0-9a-f]{6}\b", svg.replace("#ffffff", "")), (
            "a colour that dark mode can't change"
        )
        assert 'role="img"' in svg
        assert re.search(r'aria-label="[^"]+ from [^"]+ to [^"]+"', svg)
        assert "<text" in svg


def test_same_folder_gives_same_bytes(run, copy, monkeypatch):
    first = page(run).encode()
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "xtick.labelsize", 30)
    assert page(copy).encode() == first


def test_whatever_was_written_by_users_or_models_is_escaped(copy):
    evil = "<script>alert(1)</script>"
    recipe = (copy / "recipe.toml").read_text().replace('name = "zero-nano"', f'name = "{evil}"')
    (copy / "recipe.toml").write_text(recipe.replace("R1-Zero on a laptop", evil) + f"# {evil}\n")
    told = json.loads((copy / "summary.json").read_text())
    told["run"], told["versions"][evil], told["hardware"]["source"] = evil, evil, evil
    told["stages"][0]["evals"] += [dict(row, suite=evil) for row in told["stages"][0]["evals"]]
    (copy / "summary.json").write_text(json.dumps(told))
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    rows = [
        row | {f"heldout/{evil}{end}": 0.5 for end in ("", "_low", "_high")} | {f"reward/{evil}": 1.0} for row in rows
    ]
    synthetic.write_lines(copy / "metrics.jsonl", rows)
    for name in ("eval-before.jsonl.gz", "eval-after.jsonl.gz"):
        path = copy / "stages/zero" / name
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        said = dict.fromkeys(("prompt", "reasoning", "answer", "text", "task", "problem"), evil)
        said["verdict"] = {"outcome": "wrong", "reason": evil}
        synthetic.write_lines(path, [row | said for row in rows])
    html = page(copy)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 10
    Outline(html)


@pytest.mark.parametrize("lack", ["n", "low", "high", "seed"])
def test_score_without_n_interval_or_seed_is_not_printed(copy, lack):
    told = json.loads((copy / "summary.json").read_text())
    for row in told["stages"][0]["evals"]:
        if row["metric"] == "pass@1":
            row["value"] = 0.4321
            del row[lack]
    (copy / "summary.json").write_text(json.dumps(told))
    words = Outline(page(copy)).words
    assert "43.2%" not in words
    assert "6 scores not printed" in words
    assert "71.9" in words


def test_a_score_is_always_beside_its_interval_and_its_basis(run):
    rows = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*data-label.*?</tr>", page(run), re.DOTALL)
    assert len(rows) == 18
    for row in rows:
        text = re.sub(r"<[^>]+>", " ", row)
        assert len(re.findall(r"\[-?[\d.]+, [\d.]+\]", text)) == 2
        assert re.search(r"n = \d+ problems × 16, seed 0", text)


def test_unfinished_run_shows_what_there_is(tmp_path):
    words = Outline(page(synthetic.build(tmp_path / "half", steps=20, finished=False, problems=4))).words
    assert "This run is not finished" in words
    assert "unfinished: step 10 of 20" in words
    assert "summary.json is not there" in words
    assert "stages/zero/eval-after.jsonl.gz is not there" in words
    assert "2-core laptop CPU" in words  # known from the first moment on
    assert "31 s" in words  # ten steps of 3.1 s
    assert "Accuracy" in words


def test_unfinished_stage_shows_what_was_measured_before_it(tmp_path):
    folder = synthetic.build(tmp_path / "half", steps=20, finished=False, problems=4)
    before = [row for row in synthetic.evals() if row["when"] == "before"]
    (folder / "stages/zero/eval-before.json").write_text(json.dumps(before))
    words = Outline(page(folder)).words
    assert "18.7%" in words
    assert "89.3%" not in words


def test_pretrain_only_run(tmp_path):
    found = Outline(page(synthetic.build_pretrain(tmp_path / "base")))
    assert found.tags.count("svg") == 2
    assert "Next-token prediction" in found.words
    assert "What it writes" in found.words
    assert "87.3%" in found.words
    assert "seed 3" in found.words
    assert "One that got worse" not in found.words
    assert "Group" not in found.words


def test_run_of_two_stages(run, tmp_path):
    second = Path(shutil.copytree(run, tmp_path / "both"))
    base = synthetic.build_pretrain(tmp_path / "base")
    recipe = (base / "recipe.toml").read_text() + (run / "recipe.toml").read_text().split("watts = 65\n")[1]
    (second / "recipe.toml").write_text(recipe)
    shutil.copytree(base / "stages/base", second / "stages/base")
    with (second / "metrics.jsonl").open("a") as file:
        file.write((base / "metrics.jsonl").read_text())
    told = json.loads((second / "summary.json").read_text())
    told["stages"].insert(0, json.loads((base / "summary.json").read_text())["stages"][0])
    (second / "summary.json").write_text(json.dumps(told))
    found = Outline(page(second))
    assert found.ids.index("stage-1") < found.ids.index("stage-2")
    assert found.tags.count("svg") == 12
    assert len(found.ids) == len(set(found.ids))
    assert "31 min 52 s" in found.words
    assert "all stages" in found.words


@pytest.mark.parametrize(
    "gone",
    [
        "recipe.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "summary.json",
        "stages",
        "stages/zero/rollouts",
        "stages/zero/model",
    ],
)
def test_missing_files_are_survived_and_named(copy, gone):
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = Outline(page(copy)).words
    assert gone.endswith("model") or f"{gone} is not there" in words or "stages/zero/eval-before.jsonl.gz" in words


def test_damaged_files_are_survived_and_named(copy):
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "zero", "step": 21, "rew')
    after = copy / "stages/zero/eval-after.jsonl.gz"
    after.write_bytes(after.read_bytes()[:200])
    (copy / "summary.json").write_bytes(b"\xff{")
    (copy / "stages/zero/rollouts/step-000003.jsonl.gz").write_bytes(b"not gzip")
    (copy / "stages/zero/model/model.safetensors").write_bytes(b"\x10")
    words = Outline(page(copy)).words
    assert "metrics.jsonl: 1 line can't be read" in words
    assert "eval-after.jsonl.gz breaks off" in words
    assert "summary.json can't be read" in words
    assert "step-000003.jsonl.gz breaks off" in words


def test_not_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        report.write(tmp_path / "none")
    with pytest.raises(RunError, match="is not a run"):
        report.write(tmp_path)


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_missing_library_names_the_extra(run, monkeypatch, library):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ImportError(f"No module named {library!r}")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(AftershockError, match=rf'{library}.*pip install "aftershock\[report\]"'):
        report.write(run)


def test_alarms_are_in_the_page(copy):
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    synthetic.write_lines(
        copy / "metrics.jsonl", [row | {"no_signal": 1.0 if row["step"] > 10 else 0.2} for row in rows]
    )
    words = Outline(page(copy)).words
    assert "Alarms that rang Step 15." in words
    assert "No alarm rang" not in words


# --- the rule by which pairs are chosen -------------------------------------------------------------------------------


def row(problem, outcome, task="countdown", sample=0):
    return {"task": task, "problem": problem, "sample": sample, "verdict": {"outcome": outcome}, "prompt": problem,
            "reasoning": "", "answer": ""}  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_outcomes_or_order(outcomes, rng):
    names = ["right" if was else "wrong" for was, _ in outcomes], ["right" if now else "wrong" for _, now in outcomes]
    before = [row(f"p{i}", name) for i, name in enumerate(names[0])]
    after = [row(f"p{i}", name) for i, name in enumerate(names[1])]
    rng.shuffle(before)
    rng.shuffle(after)
    chosen = choose(before, after)
    assert chosen is not None
    assert [pair.problem for pair in chosen.shown] == ["p0", "p1"]
    lost = [f"p{i}" for i, (was, now) in enumerate(outcomes) if was and not now]
    assert (chosen.worse.problem if chosen.worse else None) == (lost[0] if lost else None)
    (counts,) = chosen.transitions
    assert (counts.lost, counts.n) == (len(lost), len(outcomes))
    assert counts.gained + counts.kept + counts.lost + counts.never == counts.n


def test_pairs_are_in_the_natural_order_of_ids_and_of_one_sample():
    before = [row(f"p{i}", "wrong", sample=s) for s in (1, 0) for i in (10, 9, 2)]
    after = [row(f"p{i}", "right" if s == 0 else "wrong", sample=s) for s in (0, 1) for i in (2, 9, 10)]
    chosen = choose(before, after)
    assert [pair.problem for pair in chosen.shown] == ["p2", "p9"]
    assert all(pair.after.outcome == "right" for pair in chosen.shown)
    assert choose(before, [row("other", "right")]) is None


def test_long_reasoning_is_shortened_and_said_to_be():
    side = choose([], [row("p", "right") | {"reasoning": "a" * 3000 + "b" * 3000}]).shown[0].after
    assert "2,000 characters left out" in side.reasoning
    assert len(side.reasoning) < 4200


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["<b>", "wait", "太大", "&", '"', "'", "Check ", "x ", "no;"])).map("".join))
def test_marking_keeps_every_character_and_lets_no_tag_through(text):
    assert "<b>" not in marked(text)
    plain = re.sub(r"</?mark>", "", str(marked(text)))
    for code, sign in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        plain = plain.replace(code, sign)
    assert plain == text


def test_scores_need_numbers(run):
    from aftershock.report.files import read

    stage = read(run).stages[0]
    stage.record["evals"] = [synthetic.evals()[0], synthetic.evals()[0] | {"n": None}, "nonsense", {}]
    scores, left_out = scores_of(stage)
    assert (len(scores), left_out) == (1, 3)
