"""Instructions with a checkable form: say a word so many times, in capitals, backwards, joined, one of a kind."""

import random
from dataclasses import dataclass

from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import Voice, answered, guesses
from aftershock.verify.verdict import Verdict

GUESSES = 0.5  # share of careless tries in a mixed trace
CHECKS = 0.3

# Words by kind, in both languages; the kinds are what "name a ..." can ask for.
WORDS = {
    "en": {
        "animal": ("cat", "dog", "bird", "fish", "horse", "cow", "sheep", "bear"),
        "colour": ("red", "blue", "green", "white", "black", "gold", "pink", "brown"),
        "food": ("bread", "rice", "cake", "soup", "milk", "honey", "cheese", "plum"),
    },
    "zh": {
        "动物": ("猫", "狗", "鸟", "鱼", "马", "牛", "羊", "熊"),
        "颜色": ("红", "蓝", "绿", "白", "黑", "黄", "紫", "灰"),
        "食物": ("面", "米", "糕", "汤", "奶", "蜜", "豆", "梨"),
    },
}
MARKS = {"en": ("-", "+", "/"), "zh": ("-", "+", "/")}


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
    speaks = ("en", "zh")

    def make(self, rng: random.Random) -> Problem:
        """Draw a form and what fills it."""
        language = rng.choice(self.languages)
        spoken = [form for form in LEVELS[self.difficulty] if language == "en" or FORMS[form].chinese]
        name = rng.choice(spoken)
        form, kinds = FORMS[name], WORDS[language]
        everything = [word for words in kinds.values() for word in words]
        words = rng.sample(everything, rng.randint(*form.words))
        data = {"form": name, "words": words, "n": rng.randint(2, 5), "mark": rng.choice(MARKS[language])}
        data["kind"] = rng.choice(sorted(kinds))
        space = " " if language == "en" else ","
        template = form.english if language == "en" else form.chinese
        prompt = template.format(**{**data, "words": space.join(words)})
        return Problem(
            self.name, f"instructions-{prompt}", prompt, _gold(data, language), language, self.difficulty, data
        )

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
        """One word too many, or too few."""
        words = problem.gold.split(" ")
        return " ".join(words[:-1] if len(words) > 1 and rng.random() < 0.5 else [*words, words[0]])

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: careless, which loses or doubles a word, or counted out."""
        voice = Voice(problem.language, rng)
        if guesses(style, GUESSES, rng):
            wrong = self.perturb(problem, rng) if rng.random() < 0.7 else problem.gold
            return answered(rng.choice(("", voice().guess)), wrong)
        counted = problem.data["form"] in ("last", "count")
        words = problem.data["words"] if counted else problem.gold.split(" ")
        text = ",".join(f"{number} {word}" for number, word in enumerate(words, 1))
        return answered(text + (voice().right if rng.random() < CHECKS else ""), problem.gold)


def _gold(data: dict, language: str) -> str:
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
            return " ".join(WORDS[language][data["kind"]][: data["n"]])


def _are_of_kind(said: str, problem: Problem) -> bool:
    words = said.split(" ")
    members = WORDS[problem.language][problem.data["kind"]]
    return len(words) == len(set(words)) == problem.data["n"] and set(words) <= set(members)
