import pytest

from aftershock.errors import SamplingError
from aftershock.text import chat_prompt, prompt_for, zero_prompt


def test_r1s_chat_prompt_to_the_letter():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"},
        {"role": "user", "content": "2+2?"},
    ]
    assert chat_prompt(messages) == (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>1+1?<｜Assistant｜>\n\n2<｜end▁of▁sentence｜>"
        "<｜User｜>2+2?<｜Assistant｜><think>\n"
    )
    assert chat_prompt(messages[1:2], prefill_think=False) == "<｜begin▁of▁sentence｜><｜User｜>1+1?<｜Assistant｜>"


def test_zero_prompts_to_the_letter():
    assert zero_prompt("1+1?") == "<｜begin▁of▁sentence｜>User: 1+1?\nAssistant: <think>"
    paper = zero_prompt("Is {question} 5?", paper=True)
    assert paper.startswith("<｜begin▁of▁sentence｜>A conversation between User and Assistant.")
    assert paper.endswith("User: Is {question} 5?. Assistant: <think>")
    assert "{question}" not in zero_prompt("x", paper=True)


def test_each_template_has_its_prompt():
    assert prompt_for("zero", "q") == zero_prompt("q")
    assert prompt_for("paper", "q") == zero_prompt("q", paper=True)
    assert prompt_for("chat", "q") == chat_prompt([{"role": "user", "content": "q"}])


def test_chats_that_make_no_sense_are_refused():
    with pytest.raises(SamplingError, match="no message"):
        chat_prompt([])
    with pytest.raises(SamplingError, match="role 'tool'"):
        chat_prompt([{"role": "tool", "content": "x"}])
