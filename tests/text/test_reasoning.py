import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.text import StreamSplitter, answer_tag, split
from aftershock.text.reasoning import held_back

plain = st.text("ab<> /think\n", max_size=8).filter(lambda s: "<think>" not in s and "</think>" not in s)
tags = st.sampled_from(["<think>", "</think>"])


@pytest.mark.parametrize(
    ("text", "prefilled", "reasoning", "answer", "closed"),
    [
        ("a</think>b", True, "a", "b", True),
        ("\na\n</think>\n\nb\n", True, "a", "b", True),
        ("<think>a</think>b", True, "a", "b", True),  # repeated though prefilled
        ("<think>\n<think>a</think>b", False, "a", "b", True),
        ("<think>a</think>b", False, "a", "b", True),
        ("a</think>b", False, "a", "b", True),  # missing
        ("hm <think>a</think>b", False, "a", "hm b", True),
        ("<think>a<think>b</think>c</think>d", False, "abc", "d", True),  # nested
        ("a<think>b</think>c</think>d", True, "abc", "d", True),
        ("a tag <think> is</think>d", True, "a tag  is", "d", True),  # only mentioned
        ("<think>a</think>b<think>c</think>d", False, "ac", "bd", True),  # a second block
        ("<think>\n\n</think>b", False, "", "b", True),  # empty
        ("</think>b", True, "", "b", True),
        ("a", True, "a", "", False),  # unclosed
        ("<think>a", False, "a", "", False),
        ("<think>a</think>b<think>c", False, "ac", "b", False),
        ("a</think>b</think>c", True, "a", "bc", True),
        ("a", False, "", "a", False),
        ("", True, "", "", False),
    ],
)
def test_known_shapes(text, prefilled, reasoning, answer, closed):
    parts = split(text, prefilled)
    assert (parts.reasoning, parts.answer, parts.closed) == (reasoning, answer, closed)


words = st.text("ab \n", max_size=5)


@settings(deadline=None, max_examples=300)
@given(text=st.lists(words | tags, max_size=9).map("".join), prefilled=st.booleans())
def test_no_text_is_lost_and_no_tag_survives(text, prefilled):
    parts = split(text, prefilled)
    assert "think" not in parts.reasoning + parts.answer
    kept = text.replace("<think>", "").replace("</think>", "").split()
    assert sorted("".join(kept)) == sorted("".join((parts.reasoning + parts.answer).split()))
    assert (parts.reasoning, parts.answer) == (parts.reasoning.strip(), parts.answer.strip())
    assert not parts.closed or "</think>" in text


@settings(deadline=None, max_examples=100)
@given(reasoning=plain, answer=plain)
def test_a_well_formed_completion_splits_as_written_however_it_was_prefilled(reasoning, answer):
    prefilled = split(f"{reasoning}</think>{answer}", prefilled=True)
    assert (prefilled.reasoning, prefilled.answer, prefilled.closed) == (reasoning.strip(), answer.strip(), True)
    assert split(f"<think>{reasoning}</think>{answer}", prefilled=False) == prefilled
    assert split(f"<think>{reasoning}</think>{answer}", prefilled=True) == prefilled


@settings(deadline=None, max_examples=300)
@given(data=st.data(), prefilled=st.booleans(), blocks=st.lists(st.tuples(plain, plain), min_size=1, max_size=3))
def test_a_stream_adds_up_to_the_split(data, prefilled, blocks):
    text = "".join(f"<think>{reasoning}</think>{answer}" for reasoning, answer in blocks)
    if prefilled:
        text = text.removeprefix("<think>")
    splitter, pieces, rest = StreamSplitter(prefilled), [], text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        pieces += splitter.push(rest[:cut])
        rest = rest[cut:]
    pieces += splitter.finish()
    parts = split(text, prefilled)
    streamed = {part: "".join(p.text for p in pieces if p.part == part) for part in ("reasoning", "answer")}
    assert streamed == {"reasoning": parts.reasoning, "answer": parts.answer}


def test_a_stream_never_shows_part_of_a_tag():
    splitter = StreamSplitter(prefilled=True)
    shown = [piece for c in "so 4 </think> 4 < 5" for piece in splitter.push(c)] + splitter.finish()
    assert "".join(p.text for p in shown if p.part == "reasoning") == "so 4"
    assert "".join(p.text for p in shown if p.part == "answer") == "4 < 5"


def test_answer_tag_wants_exactly_one():
    assert answer_tag("so <answer> 3*7\n</answer>.") == "3*7"
    assert answer_tag("<answer></answer>") == ""
    for wrong in ("3", "<answer>3", "3</answer>", "</answer>3<answer>", "<answer>1</answer><answer>2</answer>"):
        assert answer_tag(wrong) is None
    assert answer_tag("<answer><answer>1</answer>") is None


@given(st.text("ab", max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_held_back_is_the_longest_proper_beginning_at_the_end(text, marks):
    wanted = max((n for mark in marks for n in range(len(mark)) if text.endswith(mark[:n])), default=0)
    assert held_back(text, marks) == wanted
