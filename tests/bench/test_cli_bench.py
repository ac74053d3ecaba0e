"""`aftershock bench`, whole: scripted models reported as what they are, kills and resumes, refusals, output."""

import json
import signal
import subprocess
import sys
import time

import pytest

from aftershock import cli
from aftershock.bench.store import read

GSM8K = [
    {"question": f"Ann has {a} pens and buys {b} more. How many has she?", "answer": f"{a}+{b}={a + b}\n#### {a + b:,}"}
    for a, b in ((3, 4), (10, 5), (700, 600), (2, 2), (8, 1), (90, 9), (7, 7), (31, 2))
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return folder


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the command line in this process; return exit code, stdout and stderr as the system saw them."""

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["aftershock", "bench", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        sys.stdout.flush()
        return left.value.code, *capfd.readouterr()

    return called


def shares(out):
    """Return {(suite, metric): value} of what was printed as JSON."""
    return {(m["suite"], m["metric"]): m["value"] for m in json.loads(out)["measurements"]}


# right, truncated and failed shares, of all samples
KNOWN = {"knows": (1, 0, 0), "never": (0, 0, 0), "truncated": (0, 1, 0)}


@pytest.mark.parametrize("kind", [*KNOWN, "p=0.37", "flaky"])
def test_scripted_models_are_reported_as_what_they_are(kind, call, data, tmp_path):
    out = tmp_path / "out"
    words = [f"scripted:{kind}", "--suite", "countdown,gsm8k", "--n", 8, "--k", 8, "--data", data, "--out", out]
    code, printed, told = call(*words, "--json")
    assert code == 0, told
    found = shares(printed)
    for suite in ("countdown", "gsm8k"):
        right, truncated, failed = (found[suite, name] for name in ("pass@1", "truncated", "failed"))
        if kind in KNOWN:
            assert (right, truncated, failed) == KNOWN[kind], suite
        elif kind == "flaky":
            assert right == 1.0
            assert 0.3 < failed < 0.7
            assert found[suite, "pass@1_missing_wrong"] == pytest.approx(1 - failed)
        else:
            (low, high) = next(
                (m["low"], m["high"])
                for m in json.loads(printed)["measurements"]
                if (m["suite"], m["metric"]) == (suite, "pass@1")
            )
            assert low < 0.37 < high
            assert 0.15 < right < 0.6
        assert found[suite, "unverifiable"] == 0
    assert (out / "report.html").is_file()
    assert json.loads((out / "scores.json").read_text())["measurements"] == json.loads(printed)["measurements"]
    if kind == "flaky":
        assert any("not comparable" in note for note in json.loads(printed)["notes"])


BASE = ("base", "--suite", "generated", "--n", "6", "--k", "2", "--max-tokens", "60", "--out")


def start(out):
    return subprocess.Popen(
        [sys.executable, "-m", "aftershock", "bench", *BASE, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # pytest may run in the background
    )


def rows(out):
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/rows.jsonl"))


def stopped(out, number):
    """Start a bench, send it a signal once it has added some rows, and return exit code and what it said."""
    wanted = rows(out) + 5
    process = start(out)
    try:
        deadline = time.monotonic() + 120
        while rows(out) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    return process.returncode, said


def test_killed_or_interrupted_and_gone_on_with_the_scores_are_the_same_to_the_byte(call, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, _ = stopped(killed, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert 5 <= rows(killed) < 36
    assert not (killed / "scores.json").exists()
    code, said = stopped(killed, signal.SIGINT)
    if code != 0:  # it may just have ended before
        assert code == 130, said
        assert f"go on with: aftershock bench {' '.join(BASE)} {killed}" in said
        assert "Traceback" not in said
    for out in (killed, whole):
        code, printed, told = call(*BASE, out)
        assert code == 0, told
        assert "next: " in printed
        assert "answers were given" not in printed  # nothing was clipped
    assert (whole / "scores.json").read_bytes() == (killed / "scores.json").read_bytes()
    assert read(whole).rows == read(killed).rows
    assert len(read(killed).rows) == rows(killed) == 36


def test_a_finished_bench_is_shown_again_without_its_model_and_beside_others(call, data, tmp_path):
    for kind in ("knows", "p=0.5"):
        words = [f"scripted:{kind}", "--suite", "gsm8k", "--data", data, "--out", tmp_path / kind, "--json"]
        assert call(*words)[0] == 0
    code, printed, _ = call("--out", tmp_path / "knows", "--against", tmp_path / "p=0.5", "--train", data, "--json")
    assert code == 0
    shown = json.loads(printed)
    assert shown["compared"]["rows"][0]["difference"] > 0
    assert shown["contamination"]["rows"][0]["overlapping"] > 0
    code, printed, told = call("--out", tmp_path / "knows", "--compare-published", "--against", tmp_path / "p=0.5")
    assert code == 0, told
    assert "100.0%" in printed
    assert "DeepSeek" in printed
    assert printed.rstrip().split("\n")[-1].startswith("next: ")


def test_what_differs_is_refused_and_named(call, tmp_path):
    words = ["scripted:knows", "--suite", "countdown", "--n", 2, "--out", tmp_path / "out"]
    assert call(*words)[0] == 0
    code, printed, told = call(*words[:-4], "--n", 3, "--out", tmp_path / "out", "--json")
    assert code == 1
    assert "protocol.n was 2, is 3" in told
    assert "--out" in json.loads(printed)["error"]


def test_what_cannot_be_is_said_at_once(call, tmp_path):
    for words, part in (
        (["scripted:knows", "--out", tmp_path / "a"], "no suite is named"),
        (["scripted:knows", "--suite", "countdwn", "--out", tmp_path / "a"], "countdown"),
        (["nowhere", "--suite", "countdown", "--out", tmp_path / "a"], "no folder with a config.json"),
        (["--out", tmp_path / "a"], "holds no bench.json"),
        (["scripted:knows", "--suite", "gsm8k", "--data", tmp_path, "--out", tmp_path / "a"], "gsm8k_test.jsonl"),
    ):
        code, printed, told = call(*words)
        assert (code, printed) == (1, "")
        assert part in told
        assert told.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_suites_are_parted_by_commas_and_a_suites_languages_are_not(call, tmp_path):
    words = ["--suite", "countdown@2/zh,en,arithmetic", "--suite", "remainders@2/zh", "--n", 1, "--k", 1]
    code, printed, told = call("scripted:knows", *words, "--out", tmp_path / "out", "--json")
    assert code == 0, told
    names = [suite["name"] for suite in json.loads(printed)["suites"]]
    assert names == ["countdown@2/zh,en", "arithmetic", "remainders@2/zh"]


def test_a_suite_of_ones_own_needs_one_file(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from aftershock.bench.suite import Suite\n"
        "from aftershock.bench.types import Question\n"
        "from aftershock.verify.verdict import Verdict\n"
        "class Mine(Suite):\n"
        "    name, title = 'mine', 'Mine'\n"
        "    def rows(self):\n"
        "        self.origin = 'here'\n"
        "        return [{'q': 'two?', 'a': '2'}]\n"
        "    def question(self, row, index):\n"
        "        return Question(self.name, str(index), row['q'], row['a'])\n"
        "    def score(self, question, answer):\n"
        "        return Verdict('right' if answer.answer == question.gold else 'wrong', 'compared', answer.answer)\n"
        "    def oracle(self, question):\n"
        "        return question.gold\n"
        "    def decoy(self, question):\n"
        "        return '3'\n"
    )
    code, printed, told = call(
        "scripted:knows", "--suite", f"{tmp_path}/mine.py:Mine", "--out", tmp_path / "out", "--json"
    )
    assert code == 0, told
    assert shares(printed)["mine", "pass@1"] == 1.0


def test_help_loads_neither_inspect_nor_torch():
    code = (
        "import sys\nsys.argv = ['aftershock', 'bench', '--help']\nfrom aftershock import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        "    print(sorted({'torch', 'inspect_ai', 'rich.progress'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]"), done
