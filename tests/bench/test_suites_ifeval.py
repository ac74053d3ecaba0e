"""IFEval's 25 instructions, each with responses that follow it and that don't, all written by us."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suite_items import DATA, ITEMS, answer, needs_data

from aftershock.bench import suites
from aftershock.bench.suites.ifeval_compose import compose, disobey
from aftershock.bench.suites.ifeval_rules import RULES, count_sentences, detector, follows
from aftershock.errors import BenchError

ENGLISH = "This is a plain text about the weather and it goes on for a while"
# kind, arguments, what follows it, what doesn't
CASES = [
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 3},
        ["NASA and ESA met. OK?", "A-B C D", "I'M HERE", "USA, UK; EU"],
        ["NASA and ESA met.", "Nasa Esa Ok", "123 456 789", "A B c"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "less than", "capital_frequency": 2},
        ["ONE word", "no word at all"],
        ["TWO WORDS", "A and B"],
    ),
    (
        "change_case:english_capital",
        {},
        [ENGLISH.upper(), "THERE ARE 3 OF THEM, AND THAT IS ALL THAT THERE IS."],
        [ENGLISH, ENGLISH.title(), "DIES IST EIN DEUTSCHER SATZ UND DER IST NICHT ENGLISCH", "123"],
    ),
    (
        "change_case:english_lowercase",
        {},
        [ENGLISH.lower(), "there are 3 of them, and that is all that there is."],
        [ENGLISH, "Dies ist ein deutscher satz".lower() + " und der ist nicht englisch, sondern deutsch", "123"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a Haiku."},
        ["Write a Haiku.\nRain", "  write a haiku. Rain"],
        ["Sure! Write a Haiku.", "Write a Haiku", "Rain"],
    ),
    (
        "combination:two_responses",
        {},
        ["One\n******\nTwo", "******One******Two******"],
        ["One\n******\nOne", "One", "A******B******C", "One\n***\nTwo", "A******   ******B"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] of [city]", "[a][b][c]", "- [ ] done\n- [x] not"],
        ["[name]", "name city", "[a\nb] [c]", "]a[ ]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. More", "Bye. p.s. more", "Bye.\nP. S. More"],
        ["Bye.\nPS: More", "P.S"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. More", "p. p. s more"],
        ["Bye.\nP.S. More", "PPS: more"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well, My answer is maybe.", "My answer is no. Sorry."],
        ["yes", "My answer is yes", "my answer is no.", "My answer is perhaps."],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', '```\n["a"]\n```', "3", '```JSON\n{"a": null}```'],
        ["{'a': 1}", 'Here: {"a": 1}', '{"a": 1', "[" * 100_000],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION2 SECTION 3"],
        ["SECTION 1 only", "Section 1 Section 2", "SECTION one SECTION two", "SECTION 12"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "Text\n- a\n- b\nText", "  * a\n    - b"],
        ["* a", "* a\n* b\n* c", "1. a\n2. b", "** a\n** b", "a * b\nc - d"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*", "*a* *b* *c*", "**a**\n**b**"],
        ["*a*", "** ** and *a*", "*a\nb* and *c*", "a b", "***"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Rain>>\nIt rains.", "Text\n<< a <b> >>"],
        ["<Rain>", "<<>>", "<< >>", "<<Rain\n>>", ">>Rain<<"],
    ),
    (
        "keywords:existence",
        {"keywords": ["rain", "C++"]},
        ["Rain, in C++", "RAINY c++"],
        ["rain", "rain in C", "C++"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rain", "ice cream"]},
        ["It is raining.", "Ice. Cream.", "train"],
        ["Rain.", "it RAINs or rain-falls", "ice cream", "the rain's end"],
    ),
    (
        "keywords:frequency",
        {"keyword": "rain", "frequency": 2, "relation": "at least"},
        ["rain, Rain", "rain train rain", "rainrain"],
        ["rain", "none"],
    ),
    (
        "keywords:frequency",
        {"keyword": "rain", "frequency": 2, "relation": "less than"},
        ["rain", "none"],
        ["rain, Rain", "rain rain rain"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 3, "let_relation": "at least"},
        ["Eel eve", "tree e"],
        ["tree", "none at all"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
        ["# one", "none"],
        ["# one\n# two", "###"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Dies ist ein deutscher Satz, und er ist nicht sehr lang.", "42"],  # what can't be told is let by
        [ENGLISH, "Ceci est une phrase en français, et elle n'est pas longue."],
    ),
    (
        "language:response_language",
        {"language": "kn"},
        ["ಈ ಪಠ್ಯವನ್ನು ಕನ್ನಡದಲ್ಲಿ ಬರೆಯಲಾಗಿದೆ"],
        [ENGLISH],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Rain"},
        ["One.\n\nRain falls.", 'One.\n\n"Rain," she said.', "One.\n\nrain's here"],
        ["Rain.\n\nTwo.", "One.\nRain falls.", "One.\n\nRainy day", "One.\n\nRain\n\nThree", "One.\n\n\n\nRain falls."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One\n***\nTwo", "***\nOne\n***\nTwo\n***", "One *** Two"],
        ["One\n\nTwo", "One", "a***b***c", "One\n***\n***\nTwo"],
    ),
    (
        "length_constraints:number_sentences",
        {"relation": "at least", "num_sentences": 3},
        [
            "One. Two! Three?",
            "Dr. No came. He saw 3.5 men. He left",
            "第一。第二。第三。",
            "a. ok then. so it is. it was.",
        ],
        ["One. Two.", "Mr. and Mrs. B. Smith met at 3 p.m. today.", "3.14 and 2.71 and 1.41", "Wait... what"],
    ),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 3},
        ["One. Two.", "One"],
        ["One. Two. Three."],
    ),
    (
        "length_constraints:number_words",
        {"relation": "at least", "num_words": 4},
        ["one two three four", "don't do it", "a-b-c-d"],
        ["one two three", "... ! ?", "one, two"],
    ),
    (
        "length_constraints:number_words",
        {"relation": "less than", "num_words": 4},
        ["one two three", "three"],
        ["one two three four"],
    ),
    ("punctuation:no_comma", {}, ["No comma here; none.", "一，二"], ["One, two", ","]),
    (
        "startend:end_checker",
        {"end_phrase": "That is all."},
        ["So. That is all.", 'So. "that is ALL."', "That is all.\n"],
        ["That is all", "That is all. Bye.", "All."],
    ),
    ("startend:quotation", {}, ['"All of it."', ' "a"\n'], ['"Open', "'a'", '"', 'He said "a"', "“a”"]),
]


def test_there_is_a_case_for_every_kind():
    assert {kind for kind, *_ in CASES} == set(RULES)
    assert len(RULES) == 25


@pytest.mark.parametrize(("kind", "args", "good", "bad"), CASES, ids=[kind for kind, *_ in CASES])
def test_a_rule_tells_what_follows_it_from_what_does_not(kind, args, good, bad):
    assert [text for text in good if not follows(kind, args, text)] == []
    assert [text for text in bad if follows(kind, args, text)] == []
    assert not follows(kind, args, ""), "an empty response follows nothing"
    assert not follows(kind, args, " \n ")


@pytest.mark.parametrize(("kind", "args", "good", "bad"), CASES, ids=[kind for kind, *_ in CASES])
def test_composed_responses_follow_and_disobedient_ones_do_not(kind, args, good, bad):
    assert follows(kind, args, compose([(kind, args)]))
    assert not follows(kind, args, disobey([(kind, args)]))


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_any_text_gets_a_yes_or_no_and_relations_are_complements(text):
    for kind, args, *_ in CASES:
        found = follows(kind, args, text)
        assert found in (True, False)
        relation = next((name for name in args if name.endswith("relation")), None)
        if relation and text.strip():
            other = {"at least": "less than", "less than": "at least"}[args[relation]]
            assert follows(kind, {**args, relation: other}, text) != found


UNITS = ("." * 3, "[", "<", "\n", "*", "中", "a.b", "P. ", "-", '"', "<<a", "```", "I'M ")


@pytest.mark.parametrize("unit", UNITS)
def test_rules_take_linear_time(unit):
    text = unit * (200_000 // len(unit)) + "x"
    detector()
    begun = time.process_time()
    for kind, args, *_ in CASES:
        follows(kind, args, text)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 1),
        ("One", 1),
        ("One. Two. Three.", 3),
        ('He said "Stop!" Then he left.', 2),
        ("1. Eggs\n2. Milk\n3. Bread", 1),
        ("It was 1984. Then it was over.", 2),
        ("See e.g. Fig. 3 by J. R. Smith.", 1),
        ("Really?! Yes.", 2),
        ("So... and then... it ended.", 1),
        ("I am I. You are you.", 2),
        ("version 1.2.3 of a.b.c", 1),
    ],
)
def test_sentences_are_counted_past_what_only_looks_like_an_end(text, count):
    assert count_sentences(text) == count


def test_an_unknown_kind_or_a_missing_argument_is_an_error_of_ours():
    with pytest.raises(BenchError, match="no instruction 'keywords:exist'"):
        follows("keywords:exist", {}, "a")
    with pytest.raises(BenchError, match="keywords:existence lacks its argument 'keywords'"):
        follows("keywords:existence", {}, "a")
    with pytest.raises(BenchError, match="not 'at most'"):
        follows("length_constraints:number_words", {"relation": "at most", "num_words": 3}, "a")


def test_the_language_of_a_text_is_the_same_each_time():
    mixed = "Le chat is on the Dach and it is raining dehors"
    assert len({detector()(mixed) for _ in range(20)}) == 1


def test_all_instructions_must_be_followed_and_each_is_told():
    suite = suites.find("ifeval", ITEMS)
    first, second, third = suite.questions()
    long = "rain falls " * 25
    assert suite.score(first, answer(long)).extracted == "yes yes"
    verdict = suite.score(first, answer(f"{long}, and so on"))
    assert (verdict.outcome, verdict.extracted) == ("wrong", "no yes")
    assert verdict.reason == "does not follow punctuation:no_comma"
    assert "num_words" not in json.dumps(second.data), "the hub's rows have nulls for arguments not used"
    assert suite.score(third, answer("Ja. Nein. Vielleicht ist das so, oder auch nicht.")).outcome == "right"
    cut = suite.score(first, answer(long, "length"))
    assert (cut.outcome, cut.reason) == ("wrong", "cut off after 7 tokens, before an answer")


@needs_data
def test_the_originals_541_prompts_but_for_five_that_contradict_themselves():
    """The five ask that the prompt be repeated, which holds a comma or a word that they forbid."""
    suite = suites.find("ifeval", Path(DATA))
    asked = suite.questions()
    assert len(asked) == 541
    lost = {q.id for q in asked if suite.score(q, answer(suite.oracle(q))).outcome != "right"}
    assert lost == {"ifeval/374", "ifeval/1627", "ifeval/3369", "ifeval/3371", "ifeval/3718"}
    for question in asked:
        repeated = [args.get("prompt_to_repeat", "") for args in question.data["arguments"]]
        if question.id in lost:
            assert suite.score(question, answer(max(repeated, key=len))).outcome == "wrong"
        assert suite.score(question, answer(suite.decoy(question))).outcome == "wrong"
