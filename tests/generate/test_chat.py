import io

import pytest
from rich.console import Console
from test_engine_models import CONFIGS
from toy import toy_tokenizer

from aftershock.chat import chat, show
from aftershock.generate import Completion, Engine, SamplingParams
from aftershock.models import build, save
from aftershock.text import Piece, chat_prompt, zero_prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(build(CONFIGS["llama"], seed=0), folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(monkeypatch):
    """What the engine was asked, in order."""
    asked, stream = [], Engine.stream

    def listening(self, prompt, params):
        asked.append((prompt, params))
        return stream(self, prompt, params)

    monkeypatch.setattr(Engine, "stream", listening)
    return asked


def quiet():
    return Console(file=io.StringIO(), width=10_000)


def completion(reason="stop"):
    return Completion((1,), (2, 3), (0.0, 0.0), (0.0, 0.0), "", "", "", reason)


def pieces(reason):
    yield Piece("think [1", "reasoning")
    yield Piece("]", "reasoning")
    yield Piece("42", "answer")
    return completion(reason)


def test_reasoning_is_dimmed_and_apart_from_the_answer():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False)
    assert show(pieces("stop"), console.print) == completion()
    assert console.file.getvalue() == "\x1b[2mthink [1\x1b[0m\x1b[2m]\x1b[0m\n\n42\n"


def test_what_was_cut_off_says_so():
    console = quiet()
    show(pieces("length"), console.print)
    assert "cut off after 2 tokens" in console.file.getvalue()


def test_once_asks_one_thing_in_the_models_own_form(folder, prompts):
    console = quiet()
    chat(folder, once="1+1?", max_tokens=5, seed=3, console=console)
    assert prompts == [(zero_prompt("1+1?"), SamplingParams(max_tokens=5, temperature=0.6, top_p=0.95, seed=3))]
    assert console.file.getvalue().strip()


def test_lines_are_answered_in_turn_until_the_input_ends(folder, prompts, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+1?\n\n2+2?\n"))
    chat(folder, max_tokens=3, console=quiet())
    assert [prompt for prompt, _ in prompts] == [zero_prompt("1+1?"), zero_prompt("2+2?")]
    assert [params.seed for _, params in prompts] == [0, 1]


def test_a_chat_model_is_shown_the_turns_before(folder, prompts, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+1?\n2+2?"))
    chat(folder, template="chat", max_tokens=3, console=quiet())
    messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": ""}]
    assert prompts[0][0] == chat_prompt(messages[:1])
    assert prompts[1][0] == chat_prompt([*messages, {"role": "user", "content": "2+2?"}])


def test_an_interrupted_answer_does_not_end_the_talk(folder, monkeypatch):
    def interrupted(self, prompt, params):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Engine, "stream", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO("1+1?\n2+2?"))
    console = quiet()
    chat(folder, console=console)
    assert console.file.getvalue().count("(stopped)") == 2
