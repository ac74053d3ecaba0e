"""Whom a bench asks: finding it, putting the question its way, and answers that hang on nothing but their address."""

import json
import shutil

import pytest

from aftershock.bench.engine_target import EngineTarget, weights_sha256
from aftershock.bench.scripted import Scripted
from aftershock.bench.suite import Suite
from aftershock.bench.target import Endpoint, answer_of, failed, find
from aftershock.bench.templates import frame
from aftershock.bench.types import Protocol, Question
from aftershock.errors import BenchError, CheckpointError
from aftershock.text import Tokenizer
from aftershock.verify.verdict import Verdict

IM = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nTHINK{% endif %}"
)


class Sums(Suite):
    name, title = "sums", "Sums"

    def question(self, row, index):
        return Question(self.name, str(index), f"{index}+1?", str(index + 1))

    def score(self, question, answer):
        return Verdict("right" if answer.answer == question.gold else "wrong", "compared", answer.answer)

    def oracle(self, question):
        return question.gold

    def decoy(self, question):
        return question.gold + "0"


SUITES = {"sums": Sums()}
QUESTIONS = [Sums().question({}, i) for i in range(200)]


@pytest.fixture(scope="module")
def base():
    return find("base", {})


@pytest.fixture
def folder(tmp_path, base):
    return shutil.copytree(base.folder, tmp_path / "model")


def chat_model(folder, template):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["prompt_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return folder


def answers(target, asked, **protocol):
    got = {}
    target.answer(asked, Protocol(**{"max_tokens": 40, **protocol}), got.__setitem__)
    assert sorted(got) == list(range(len(asked)))
    return [got[number] for number in range(len(asked))]


def test_the_base_a_folder_and_a_run_are_found(tmp_path, folder):
    run = tmp_path / "runs" / "demo"
    for stage in ("base", "zero"):
        shutil.copytree(folder, run / "stages" / stage / "model")
    (run / "stages" / "later").mkdir()
    assert find(str(folder), {}).folder == folder
    assert find(f"{run}:base", {}).folder == run / "stages" / "base" / "model"
    assert find(f"{run / 'stages' / 'zero' / 'model'}", {}).folder.parent.name == "zero"
    assert find(str(run), {}).folder.parent.name == "zero"
    with pytest.raises(BenchError, match="no stage 'nero' with a model; it has: base, zero"):
        find(f"{run}:nero", {})


def test_identity_has_the_hashes(folder, base):
    named = find(str(folder), {}).identity
    assert named["name"] == str(folder)
    assert {**named, "name": ""} == {**base.identity, "name": ""}
    assert len(named["weights_sha256"]) == len(named["template_sha256"]) == 64
    (folder / "second.safetensors").write_bytes(b"more")
    assert weights_sha256(folder) != named["weights_sha256"]


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "runs/none:zero", "org/", "~/no such folder"])
def test_what_is_nothing_is_named(name):
    with pytest.raises(BenchError, match=r"no folder with a config\.json, no run"):
        find(name, {})


def test_a_hub_that_cannot_be_reached_says_so(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("some-org/some-model", "hub:some-org/some-model@v1"):
        with pytest.raises(CheckpointError, match=r"^some-org/some-model can't be read from the hub.*name its folder"):
            find(name, {})


def test_an_endpoint_needs_a_model_and_keeps_its_key_out_of_sight(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    for target in (find("http://h:1/v1#m", {}), find("http://h:1/v1", {}, model_name="m", timeout=5)):
        assert isinstance(target, Endpoint)
        assert (target.url, target.model, target.key) == ("http://h:1/v1", "m", "secret-key")
        assert "secret" not in json.dumps(target.identity)
    with pytest.raises(BenchError, match="names no model"):
        find("http://h:1/v1", {})
    with pytest.raises(BenchError, match="OPENAI_API_KEY"):
        find("http://me:pw@h:1/v1#m", {})


def test_zero_models_are_asked_in_zero_form_and_chat_models_in_their_own(folder, base):
    assert base.frame.name == "zero"
    assert base.frame.prefilled
    assert base.frame.encode("1+1?") == base.tokenizer.encode("<｜begin▁of▁sentence｜>User: 1+1?\nAssistant: <think>")
    for think, prefilled in (("", False), ("<think>\n", True), ("<think>\n\n</think>\n\n", False)):
        template = IM.replace("THINK", think)
        made = frame(chat_folder := chat_model_copy(folder, template), Tokenizer.load(chat_folder))
        assert (made.name, made.template, made.prefilled) == ("chat", template, prefilled)
        wanted = f"<|im_start|>user\nis <think> a tag?<|im_end|>\n<|im_start|>assistant\n{think}"
        assert made.encode("is <think> a tag?") == base.tokenizer.encode(wanted)


def chat_model_copy(folder, template):
    other = folder.parent / f"chat-{abs(hash(template))}"
    return chat_model(shutil.copytree(folder, other), template)


def test_the_templates_text_is_what_is_hashed(folder):
    made = [frame(f := chat_model_copy(folder, IM.replace("THINK", think)), Tokenizer.load(f)) for think in ("", "x")]
    assert made[0].sha256 != made[1].sha256


def test_a_template_that_fails_is_named(folder):
    broken = chat_model(folder, "{{ raise_exception('system first') }}")
    with pytest.raises(BenchError, match="system first"):
        find(str(broken), {})


def test_an_answer_hangs_on_its_own_address_alone(base):
    asked = [(question, sample) for question in QUESTIONS[:4] for sample in range(3)]
    whole = answers(base, asked)
    apart = [answers(base, [one])[0] for one in asked]
    assert whole == apart
    assert whole[::-1] == answers(base, asked[::-1])
    assert len({answer.text for answer in whole}) > 6
    assert answers(base, asked, seed=1) != whole
    assert all(answer.tokens <= 40 and (answer.tokens == 40) == (answer.finish == "length") for answer in whole)


def test_a_prompt_that_leaves_no_room_has_failed_and_harms_no_other(base):
    long = Question("sums", "long", "1 " * 600, "2")
    tight = Question("sums", "tight", "1 " * 200, "2")
    alone = answers(base, [(QUESTIONS[0], 0)], max_tokens=32768)
    got = answers(base, [(long, 0), (QUESTIONS[0], 0), (tight, 0)], max_tokens=32768)
    assert got[1:2] == alone
    assert [one.finish == "failed" for one in got] == [True, False, False]
    assert "leave no room in 512 positions" in got[0].error
    assert base.lengths([long, QUESTIONS[0], tight], Protocol()) == (
        base.cap(len(base.frame.encode(tight.prompt)), Protocol()),
        base.cap(len(base.frame.encode(QUESTIONS[0].prompt)), Protocol()),
    )


def test_caps_never_pass_the_models_positions(base):
    for length in range(1, 600):
        cap = base.cap(length, Protocol())
        assert cap <= 512 - length
        assert cap > 0 or length > 512 - 2 * 16
    assert base.cap(10, Protocol(max_tokens=7)) == 7


def test_rows_shrink_to_the_free_memory(base, monkeypatch):
    from types import SimpleNamespace

    from aftershock.generate import SamplingParams

    params = SamplingParams(max_tokens=400)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=50_000_000))
    base._fit(params, 50, 1000)
    assert 1 < base.engine.max_rows < 256
    assert base.engine.memory(params, 50, 1000) <= 35_000_000
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("kind", "right", "finish"), [("knows", 1.0, "stop"), ("never", 0.0, "stop"), ("truncated", 0.0, "length")]
)
def test_scripted_models_are_what_they_are_called(kind, right, finish):
    got = answers(Scripted(kind, SUITES), [(question, 0) for question in QUESTIONS])
    assert {answer.finish for answer in got} == {finish}
    assert [SUITES["sums"].score(q, a).outcome == "right" for q, a in zip(QUESTIONS, got)] == [right == 1.0] * 200
    assert all(answer.reasoning and answer.tokens for answer in got)


def test_a_scripted_share_is_drawn_sample_by_sample():
    got = answers(Scripted("p=0.37", SUITES), [(question, sample) for question in QUESTIONS for sample in range(5)])
    rights = [answer.answer == QUESTIONS[number // 5].gold for number, answer in enumerate(got)]
    assert abs(sum(rights) / 1000 - 0.37) < 0.05
    assert 0 < sum(rights[:5]) < 5 or 0 < sum(rights[5:10]) < 5


def test_a_flaky_one_fails_half_the_time_and_knows_the_rest():
    got = answers(Scripted("flaky", SUITES), [(question, 0) for question in QUESTIONS])
    lost = [answer for answer in got if answer.finish == "failed"]
    assert 70 < len(lost) < 130
    assert all(answer.answer == q.gold for q, answer in zip(QUESTIONS, got) if answer not in lost)


@pytest.mark.parametrize("kind", ["", "clever", "p=1.5", "p=", "p=0"])
def test_unknown_scripts_are_refused(kind):
    if kind == "p=0":
        assert Scripted(kind, SUITES).share == 0
        return
    with pytest.raises(BenchError, match="take knows, never"):
        find(f"scripted:{kind}", SUITES)


def test_answers_can_always_be_written_down():
    answer = answer_of("<think>a\ud800b</think>c\udfff", 3, cut=False)
    assert (answer.reasoning, answer.answer) == ("a?b", "c?")
    answer.text.encode()
    assert failed("why").error == "why"


def test_an_engine_target_loads_no_weights_before_it_is_asked(folder):
    (folder / "model.safetensors").write_bytes(b"no weights")
    target = EngineTarget("x", folder)
    assert target.lengths(QUESTIONS[:2], Protocol()) == (496, 496)
