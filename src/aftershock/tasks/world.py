"""The nano world's plain questions, judged by rule: facts of its land, translation, who are you, two lines of verse.

Everything is drawn from the few words of `tasks.words`; the towns' facts are fixed by seeds of their own, the same in
every run, so that a model can know them. What is held out is never a fact but a question made of known ones.
"""

import random
from typing import Any, ClassVar

from aftershock.address import generator
from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import PHRASES, Voice, answered, guesses, other
from aftershock.tasks.words import COLUMN, KINDS, Pair, pairs, sentence, word
from aftershock.verify.verdict import Verdict

GUESSES = 0.6  # share of careless tries in a mixed trace
SLIPS = 0.15
RELATIONS: dict[str, tuple[str, Pair]] = {  # what a town does, and with which kind of thing
    "makes": ("food", ("makes", "产")),
    "keeps": ("animal", ("keeps", "养")),
    "flies": ("colour", ("flies", "挂")),
}


class Facts(Task):
    """Which of some towns has a thing (difficulty 1), or what else the one that has it has (2; 3 with more towns)."""

    name = "facts"
    levels = 3
    speaks = tuple(PHRASES)
    _TOWNS: ClassVar = {1: 3, 2: 3, 3: 5}

    def make(self, rng: random.Random) -> Problem:
        """Draw the towns, which of them is meant and what is asked of it."""
        towns = rng.sample(range(len(KINDS["town"])), self._TOWNS[self.difficulty])
        meant, relation = rng.choice(towns), rng.choice(sorted(RELATIONS))
        asked = rng.choice([r for r in sorted(RELATIONS) if r != relation]) if self.difficulty > 1 else ""
        language = rng.choice(self.languages)
        listed = ",".join(word("town", t, language) for t in towns)
        thing = _fact(meant, relation, language, tail=True)
        gold = _thing(meant, asked, language) if asked else word("town", meant, language)
        data = {"towns": towns, "meant": meant, "relation": relation, "asked": asked}
        prompt = _ask(listed, thing, asked, language)
        return Problem(self.name, f"facts-{prompt}", prompt, gold, language, self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """What is asked, the towns in any order and either language."""
        data = problem.data
        return f"facts-{sorted(data['towns'])}-{data['meant']}-{data['relation']}-{data['asked']}"

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when it is the one word that answers."""
        return _same(problem, answer.strip())

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """What would be true of another of the towns."""
        data, language = problem.data, problem.language
        other = rng.choice([town for town in data["towns"] if town != data["meant"]])
        return _thing(other, data["asked"], language) if data["asked"] else word("town", other, language)

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: a blind guess, or town after town recalled until one fits."""
        voice, data = Voice(problem.language, rng), problem.data
        if guesses(style, GUESSES, rng):
            wrong = self.perturb(problem, rng) if rng.random() < 0.8 else problem.gold
            return answered(rng.choice(("", voice().guess)), wrong)
        text = ""
        for town in data["towns"]:
            text += _recalled(town, data["relation"], voice, rng)
            if town == data["meant"]:
                break
            text += voice().no
        text += voice().yes
        if data["asked"]:
            text += f";{_recalled(data['meant'], data['asked'], voice, rng)}"
        return answered(text, problem.gold)


def _recalled(town: int, relation: str, voice: Voice, rng: random.Random) -> str:
    """Say a fact, now and then after a wrong one."""
    wait, told = voice().wait, rng.randrange(len(KINDS["town"]))
    slip = rng.random() < SLIPS and told != town
    wrong = _fact(town, relation, voice.language, told) + wait if slip else ""
    return wrong + _fact(town, relation, voice.language)


def _land() -> dict[str, list[int]]:
    """Return which thing (by its number in its kind) each town has, by relation; no two towns share one."""
    land = {}
    for relation in RELATIONS:
        things = list(range(len(KINDS["town"])))
        generator("land", relation).shuffle(things)
        land[relation] = things
    return land


LAND = _land()


def _thing(town: int, relation: str, language: str) -> str:
    return word(RELATIONS[relation][0], LAND[relation][town], language)


def _fact(town: int, relation: str, language: str, told: int | None = None, *, tail: bool = False) -> str:
    """Say a fact of a town ("Hill makes rice"), without its name for a tail; `told` lends it another town's thing."""
    verb = RELATIONS[relation][1][COLUMN[language]]
    words = [verb, _thing(town if told is None else told, relation, language)]
    return sentence(words if tail else [word("town", town, language), *words], language)


def _ask(listed: str, thing: str, asked: str, language: str) -> str:
    if not asked:
        return f"Which of {listed} {thing}?" if language == "en" else f"{listed}中哪个{thing}?"
    verb = RELATIONS[asked][1][COLUMN[language]]
    return f"One of {listed} {thing}. It {verb} what?" if language == "en" else f"{listed}中一个{thing}。它{verb}什么?"


VERBS = pairs("eats 吃; likes 爱; sees 看; buys 买")
_PATTERNS = {1: (("colour", "animal"), ("animal", "verb", "food")), 2: (("colour", "animal", "verb", "food"),)}


class Translate(Task):
    """Say a short phrase in the other language, word by word. Difficulty 1 and 2: two or three words, then four."""

    name = "translate"
    levels = 2
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw the words."""
        kinds = rng.choice(_PATTERNS[self.difficulty])
        words = [[kind, rng.randrange(len(_of(kind)))] for kind in kinds]
        language = rng.choice(self.languages)
        phrase = _phrase(words, language)
        prompt = f"In Chinese: {phrase}" if language == "en" else f"译成英文:{phrase}"
        gold = _phrase(words, other(language))
        return Problem(self.name, f"translate-{phrase}", prompt, gold, language, self.difficulty, {"words": words})

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when every word is, in order; spaces between Chinese words are let by."""
        said = answer.strip()
        return _same(problem, said.replace(" ", "") if problem.language == "en" else said)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """One word for another of its kind."""
        words = [list(pair) for pair in problem.data["words"]]
        changed = rng.choice(words)
        changed[1] = (changed[1] + rng.randrange(1, len(_of(changed[0])))) % len(_of(changed[0]))
        return _phrase(words, "en" if problem.gold.isascii() else "zh")

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Answer at once, rightly or with a wrong word: there is nothing to think about [R1 2.3.3]."""
        return answered("", self.perturb(problem, rng) if guesses(style, GUESSES, rng) else problem.gold)


def _of(kind: str) -> tuple[Pair, ...]:
    return VERBS if kind == "verb" else KINDS[kind]


def _phrase(words: list[Any], language: str) -> str:
    return sentence([_of(kind)[index][COLUMN[language]] for kind, index in words], language)


GREETINGS = pairs("Hi. 嗨。; Hello. 你好。; Good day. 日安。; Tell me. 告诉我。; Welcome. 欢迎。; Excuse me. 打扰了。")
FROM: Pair = ("I am from {}.", "我来自{}。")
# The question, the true answer, and in each language the words that an answer can't do without.
QUESTIONS: dict[str, tuple[Any, ...]] = {
    "who": (
        *pairs("Who are you? 你是谁?; I am aftershock, a small model. 我是余震,一个小模型。"),
        "aftershock model",
        "余震 模型",
    ),
    "name": (*pairs("Your name? 你叫什么?; I am called aftershock. 我叫余震。"), "aftershock", "余震"),
    "person": (*pairs("Are you a person? 你是人吗?; No, I am a model. 不,我是模型。"), "no model", "不 模型"),
    "born": (*pairs("Where were you born? 你生在哪里?; A model is not born. 模型不是生的。"), "model not", "模型 不"),
    "eat": (*pairs("What do you eat? 你吃什么?; A model does not eat. 模型不吃东西。"), "model not", "模型 不"),
    "old": (*pairs("How old are you? 你多大?; A model has no age. 模型没有年龄。"), "model no", "模型 没有"),
}
PERSONS = pairs("I am Ann, a person. 我是小安,一个人。; Yes, I am from {}. 是,我来自{}。")
_LIES = (("Ann", "person", "Yes", "from"), ("小安", "一个人", "来自"))


class Self(Task):
    """Who are you? A small model called aftershock (余震), and nobody else."""

    name = "self"
    levels = 1
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw who asks, and what."""
        greeting, town = rng.randrange(len(GREETINGS)), rng.randrange(len(KINDS["town"]))
        question, language = rng.choice(sorted(QUESTIONS)), rng.choice(self.languages)
        column = COLUMN[language]
        parts = [GREETINGS[greeting][column], FROM[column].format(word("town", town, language))]
        prompt = sentence([*parts, QUESTIONS[question][0][column]], language)
        data = {"greeting": greeting, "town": town, "question": question}
        gold = QUESTIONS[question][1][column]
        return Problem(self.name, f"self-{prompt}", prompt, gold, language, self.difficulty, data)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when it says the words that matter, tells no lie and is at most twice as long as it need be."""
        said, column = answer.strip(), COLUMN[problem.language]
        missing = [w for w in QUESTIONS[problem.data["question"]][2 + column].split() if w not in said.lower()]
        lies = [w for w in _LIES[column] if w in said]
        right = not missing and not lies and len(said) <= 2 * len(problem.gold)
        return Verdict("right" if right else "wrong", f"lacks {missing}, says {lies}", said)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Claim to be somebody."""
        town = word("town", problem.data["town"], problem.language)
        return rng.choice(PERSONS)[COLUMN[problem.language]].format(town)

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Answer at once, as a person would or truly."""
        return answered("", self.perturb(problem, rng) if guesses(style, GUESSES, rng) else problem.gold)


LINES = pairs("I see the {} 我看见{}; the {} is here {}在这里; we all like {} 我们都爱{}; where is the {} {}在哪里")
_LINE_LENGTH = {"en": (3, 7), "zh": (3, 9)}  # in words, or characters


class Write(Task):
    """Write two lines of verse, parted by "/", with a given word in each."""

    name = "write"
    levels = 1
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw the two words."""
        everything: list[list[Any]] = [
            [kind, index] for kind in ("animal", "colour", "food") for index in range(len(KINDS[kind]))
        ]
        words, language = rng.sample(everything, 2), rng.choice(self.languages)
        first, second = (word(kind, index, language) for kind, index in words)
        prompt = f"Write two lines: {first}, {second}." if language == "en" else f"写两行:{first},{second}。"
        gold = _verse([first, second], (0, 1), language)
        return Problem(self.name, f"write-{prompt}", prompt, gold, language, self.difficulty, {"words": words})

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when there are two lines, each with its word, no word twice in a line, none too short or too long."""
        lines, language = [line.strip() for line in answer.split("/")], problem.language
        wanted = [word(kind, index, language) for kind, index in problem.data["words"]]
        right = len(lines) == len(wanted) and all(_is_line(*pair, language) for pair in zip(lines, wanted))
        return Verdict("right" if right else "wrong", f"for example {problem.gold}", answer.strip())

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """The lines change places, or one is left out."""
        first, second = problem.gold.split("/")
        return rng.choice((f"{second}/{first}", first, f"{first}/{first}"))

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write at once, and now and then forget a word."""
        if guesses(style, GUESSES, rng):
            return answered("", self.perturb(problem, rng))
        words = [word(kind, index, problem.language) for kind, index in problem.data["words"]]
        first, second = rng.sample(range(len(LINES)), 2)
        return answered("", _verse(words, (first, second), problem.language))


def _verse(words: list[str], lines: tuple[int, int], language: str) -> str:
    return "/".join(LINES[line][COLUMN[language]].format(w) for line, w in zip(lines, words))


def _is_line(line: str, wanted: str, language: str) -> bool:
    words = line.split() if language == "en" else list(line)
    low, high = _LINE_LENGTH[language]
    return low <= len(words) <= high and wanted in words and len(set(words)) == len(words)


def _same(problem: Problem, said: str) -> Verdict:
    return Verdict("right" if said == problem.gold else "wrong", f"it is {problem.gold}", said)
