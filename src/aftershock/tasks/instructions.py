"""Instructions with a checkable form: say a word so many times, in capitals, backwards, joined, one of a kind."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import PHRASES, Voice, answered, guesses
from aftershock.tasks.words import COLUMN, KIND_NAMES, KINDS, word
from aftershock.verify.verdict import Verdict

GUESSES = 0.5  # share of careless tries in a mixed trace
CHECKS = 0.3
SLIPS = 0.2  # share of counted tries that begin with a careless one, seen and mended
MARKS = ("-", "+", "/")


@dataclass(frozen=True)
class Form:
    """One kind of instruction: its words in each language, and how many words it is about."""

    english: str
    chinese: str
    words: tuple[int, int]  # fewest and most


FORMS = {
    "repeat": Form("Say {words} {n} times.", "说{n}遍{words}。", (1, 1)),
    "backwards": Form("Say {words} backwards.", "倒着说{words}。", (2, 5)),
    "join": Form("Join {words} with {mark}.", "用{mark}连接{words}。", (2, 4)),
    "last": Form("Say the last of {words}.", "说{words}中最后一个。", (3, 6)),
    "count": Form("How many words: {words}?", "有几个词:{words}?", (3, 8)),
    "capitals": Form("Say {words} in capitals.", "", (1, 3)),
    "kind": Form("Name {n} of the kind {kind}.", "说{n}种{kind}。", (0, 0)),
}
# difficulty -> which forms
LEVELS = {1: ("repeat", "last", "count"), 2: ("repeat", "last", "count", "backwards", "join"), 3: tuple(FORMS)}


class Instructions(Task):
    """Follow an instruction to the letter. Difficulty 1 to 3: `LEVELS`."""

    name = "instructions"
    levels = max(LEVELS)
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw a form and what fills it."""
        language = rng.choice(self.languages)
        spoken = [form for form in LEVELS[self.difficulty] if language == "en" or FORMS[form].chinese]
        name = rng.choice(spoken)
        form, kind = FORMS[name], rng.choice(sorted(KIND_NAMES))
        everything = [member for kind in KIND_NAMES for member in _members(kind, language)]
        words = rng.sample(everything, rng.randint(*form.words))
        data = {"form": name, "words": words, "n": rng.randint(2, 5), "mark": rng.choice(MARKS), "kind": kind}
        filled = {"words": (" " if language == "en" else ",").join(words), "kind": KIND_NAMES[kind][COLUMN[language]]}
        prompt = (form.english if language == "en" else form.chinese).format(**(data | filled))
        gold = _gold(data, language)
        return Problem(self.name, f"instructions-{prompt}", prompt, gold, language, self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """The instruction as it is put."""
        return problem.id

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when it is what was asked for, to the letter; of a kind, any members will do, none twice."""
        said = answer.strip()
        if problem.data["form"] == "kind":
            right = _are_of_kind(said, problem)
        else:
            right = said == problem.gold
        return Verdict("right" if right else "wrong", f"for example {problem.gold}", said)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """One word too many or too few, the number off by one, or the last but one."""
        words = problem.data["words"]
        if problem.data["form"] == "count":
            return str(len(words) + rng.choice((-1, 1)))
        if problem.data["form"] == "last":
            return str(words[-2])
        words = problem.gold.split(" ")
        return " ".join(words[:-1] if len(words) > 1 and rng.random() < 0.5 else [*words, words[0]])

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: careless, which loses or doubles a word, or counted out."""
        voice = Voice(problem.language, rng)
        if guesses(style, GUESSES, rng):
            wrong = self.perturb(problem, rng) if rng.random() < 0.85 else problem.gold
            return answered(rng.choice(("", voice().guess)), wrong)
        counted = problem.data["form"] in ("last", "count", "join")
        text = f"{self.perturb(problem, rng)}{voice().no}" if rng.random() < SLIPS else ""
        text += _numbered(problem.data["words"] if counted else problem.gold.split(" "))
        return answered(text + (voice().right if rng.random() < CHECKS else ""), problem.gold)


def _numbered(words: Sequence[str]) -> str:
    return ",".join(f"{number} {said}" for number, said in enumerate(words, 1))


def _members(kind: str, language: str) -> list[str]:
    return [word(kind, index, language) for index in range(len(KINDS[kind]))]


def _gold(data: dict[str, Any], language: str) -> str:
    words = data["words"]
    match data["form"]:
        case "repeat":
            return " ".join(words * data["n"])
        case "backwards":
            return " ".join(words[::-1])
        case "join":
            return data["mark"].join(words)
        case "last":
            return words[-1]
        case "count":
            return str(len(words))
        case "capitals":
            return " ".join(words).upper()
        case _:
            return " ".join(_members(data["kind"], language)[: data["n"]])


def _are_of_kind(said: str, problem: Problem) -> bool:
    words = said.split(" ")
    members = _members(problem.data["kind"], problem.language)
    return len(words) == len(set(words)) == problem.data["n"] and set(words) <= set(members)
