"""IFEval's 25 kinds of instruction as rules: whether a response follows one (Zhou et al., arXiv 2311.07911).

Written anew from the paper and the behaviour of the original, in time linear in the response; docs/suites.md lists
where they differ. `args` are the dataset's own, so that its rows can be used as they are.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from aftershock.errors import BenchError

Args = Mapping[str, Any]
Rule = Callable[[str, Args], bool]

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ABBREVIATIONS = frozenset("mr mrs ms dr prof st vs etc e.g i.e jr sr inc ltd no fig a.m p.m u.s u.k p.s p.p.s".split())  # noqa: SIM905
_MARKS = re.compile(r"([.!?…]++)[\"'”’)\]*_]*+|[。！？]++")
_TOKEN = re.compile(r"\w+(?:[-.&/]\w+)*|['’]\w+")  # so that "I'M" is two words, as in the original


def follows(kind: str, args: Args, response: str) -> bool:
    """Return whether a response follows the instruction `kind`; an empty one follows none.

    Raises BenchError for a kind that is not among the 25 and for an argument that is missing.
    """
    if kind not in RULES:
        raise BenchError(f"IFEval has no instruction {kind!r}; known are {', '.join(sorted(RULES))}")
    try:
        return bool(response.strip()) and RULES[kind](response, args)
    except KeyError as error:
        raise BenchError(f"IFEval's instruction {kind} lacks its argument {error}; it has {dict(args)}") from error


def count_sentences(text: str) -> int:
    """Return the number of sentences: ends that are no abbreviation, initial or list number; a rest counts as one.

    >>> count_sentences("1. Dr. No met J. Bond at 3 p.m. sharp. Why? It was 1962. See 1.5 e.g.")
    4
    """
    count, last = 0, 0
    for mark in _MARKS.finditer(text):
        after = text[mark.end() : mark.end() + 40]
        if mark.group(1) and after and not after[0].isspace():
            continue
        if mark.group(1) == "." and _is_shortened(text[max(0, mark.start() - 40) : mark.start()]):
            continue
        if mark.group(1) in ("...", "…") and after.lstrip()[:1].islower():
            continue
        count, last = count + 1, mark.end()
    return count + any(character.isalnum() for character in text[last:])


def _is_shortened(before: str) -> bool:
    """Return whether the full stop behind `before` is an abbreviation's, an initial's or a list number's."""
    word = (before.split() or [""])[-1].strip("\"'“‘([*_").lower()
    initial = len(word) == 1 and word.isalpha() and word != "i"
    return word in _ABBREVIATIONS or initial or before.rpartition("\n")[2].strip().isdecimal()


def _compare(count: int, relation: str, wanted: int) -> bool:
    if relation not in ("at least", "less than"):
        raise BenchError(f"IFEval knows the relations 'at least' and 'less than', not {relation!r}")
    return count >= wanted if relation == "at least" else count < wanted


def _occurs(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


@cache
def detector() -> Callable[[str], str | None]:
    """Return a function from text to its language's code, None where it can't be told; the same in every run."""
    try:
        from langdetect import DetectorFactory, LangDetectException, detect
    except ImportError as error:
        raise BenchError('IFEval tells languages with langdetect: pip install "aftershock[bench]"') from error
    DetectorFactory.seed = 0

    def language(text: str) -> str | None:
        try:
            return str(detect(text))
        except LangDetectException:  # digits and marks alone
            return None

    language("warm")  # it reads its profiles at the first call, which threads must not do at once
    return language


def _in_language(text: str, language: str) -> bool:
    """As in the original, a text whose language can't be told is let by."""
    return detector()(text) in (None, language)


def _placeholders(text: str) -> int:
    count = 0
    for line in text.split("\n"):
        opened = line.find("[")
        while opened >= 0 and (closed := line.find("]", opened)) >= 0:
            count, opened = count + 1, line.find("[", closed)
    return count


def _bullets(text: str) -> int:
    lines = [line.lstrip() for line in text.split("\n")]
    return sum(line.startswith("-") or (line.startswith("*") and line[1:2] not in ("*", "")) for line in lines)


def _highlights(text: str) -> int:
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(inside.strip()) for inside in (*single, *double))


def _has_title(text: str) -> bool:
    for line in text.split("\n"):
        opened, closed = line.find("<<"), line.rfind(">>")
        if opened >= 0 and closed > opened + 2 and line[opened : closed + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def _filled(parts: list[str]) -> list[str] | None:
    """Return the parts without an empty first or last one; None where one between them is empty."""
    kept = [part.strip() for place, part in enumerate(parts) if part.strip() or 0 < place < len(parts) - 1]
    return kept if all(kept) else None


def _paragraphs(text: str, args: Args) -> bool:
    return len(_filled(re.split(r"\s?\*\*\*\s?", text)) or ()) == args["num_paragraphs"]


def _two_responses(text: str, args: Args) -> bool:
    responses = _filled(text.split("******"))
    return responses is not None and len(responses) == 2 and responses[0] != responses[1]


def _first_word(text: str, args: Args) -> bool:
    paragraphs = text.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if filled != args["num_paragraphs"] or args["nth_paragraph"] > filled:
        return False
    words = paragraphs[args["nth_paragraph"] - 1].split()
    first = re.split(r"[.,?!'\"]", words[0].lstrip("'\""))[0] if words else ""
    return first.lower() == args["first_word"].lower()


def _postscript(text: str, args: Args) -> bool:
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    marker = args["postscript_marker"].strip()
    return re.search(known.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _is_json(text: str) -> bool:
    bare = re.sub(r"^```(?:json)?", "", text.strip(), flags=re.IGNORECASE).removesuffix("```").strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _case(text: str, args: Args, kept: Callable[[str], bool]) -> bool:
    return kept(text) and _in_language(text, "en")


def _quoted(text: str, args: Args) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _ends(text: str, args: Args) -> bool:
    return text.strip().strip('"').lower().endswith(args["end_phrase"].strip().lower())


def _forbidden(text: str, args: Args) -> bool:
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE) for w in args["forbidden_words"])


def _sections(text: str, args: Args) -> bool:
    return len(re.findall(rf"{re.escape(args['section_spliter'])}\s?\d", text)) >= args["num_sections"]


def _capitals(text: str) -> int:
    return sum(token.isupper() for token in _TOKEN.findall(text))


RULES: dict[str, Rule] = {
    "change_case:capital_word_frequency": lambda text, args: _compare(
        _capitals(text), args["capital_relation"], args["capital_frequency"]
    ),
    "change_case:english_capital": partial(_case, kept=str.isupper),
    "change_case:english_lowercase": partial(_case, kept=str.islower),
    "combination:repeat_prompt": lambda text, args: (
        text.strip().lower().startswith(args["prompt_to_repeat"].strip().lower())
    ),
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": lambda text, args: _placeholders(text) >= args["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": lambda text, args: any(option in text for option in CONSTRAINED),
    "detectable_format:json_format": lambda text, args: _is_json(text),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": lambda text, args: _bullets(text) == args["num_bullets"],
    "detectable_format:number_highlighted_sections": lambda text, args: _highlights(text) >= args["num_highlights"],
    "detectable_format:title": lambda text, args: _has_title(text),
    "keywords:existence": lambda text, args: all(_occurs(keyword, text) for keyword in args["keywords"]),
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": lambda text, args: _compare(
        _occurs(args["keyword"], text), args["relation"], args["frequency"]
    ),
    "keywords:letter_frequency": lambda text, args: _compare(
        text.lower().count(args["letter"].lower()), args["let_relation"], args["let_frequency"]
    ),
    "language:response_language": lambda text, args: _in_language(text, args["language"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": lambda text, args: _compare(
        count_sentences(text), args["relation"], args["num_sentences"]
    ),
    "length_constraints:number_words": lambda text, args: _compare(
        len(re.findall(r"\w+", text)), args["relation"], args["num_words"]
    ),
    "punctuation:no_comma": lambda text, args: "," not in text,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
}
