"""validate() must see each way in which a task can break its word."""

from pathlib import Path

import pytest

from aftershock.errors import TaskError
from aftershock.tasks import task

GOOD = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "gold=str(word.count(letter))",
            "gold=str(word.count(letter) + 1)",
            "the gold answer .* scores wrong, not right",
        ),
        ("rng.choice((-1, 1))", "rng.choice((0, 1))", "the perturbed answer .* scores right, not wrong"),
        ("answer.strip() == str(count)", "str(count).startswith(answer.strip())", "an empty answer '' scores right"),
        (
            "answer.strip() == str(count)",
            "int(answer or 99) == count",
            r"the junk answer .* scores unverifiable.*ValueError",
        ),
        ("answer.strip() == str(count)", "answer in (str(count), '--5')", "the junk answer '--5' scores right"),
        ('"right" if right else "wrong"', "right", "the check returned Verdict.* not a Verdict"),
        ("letter = rng.choice", "letter = random.choice", "a second draw gives another problem"),
        ('"letter": letter}', '"letter": (letter,)}', "comes back from JSON changed"),
        ('"letter": letter}', '"letter": {letter}}', "can't be kept as JSON"),
        ("task=self.name", 'task="other"', "its task is 'other', not 'letters'"),
        ("difficulty=self.difficulty", 'language="fr"', r"its language is 'fr', not one of \['en'\]"),
        ("difficulty=self.difficulty", "difficulty=7", "its difficulty is 7, not 1"),
        ('prompt=f"How many times is {letter} in {word}?"', 'prompt=" "', "its prompt is empty"),
        (
            "    def perturb",
            "    def draw(self, split, *where):\n        return super().draw('train', *where)\n\n    def perturb",
            "heldout problem 0 .* belongs to train",
        ),
    ],
)
def test_each_broken_word_is_seen(tmp_path, old, new, message):
    assert old in GOOD
    (tmp_path / "broken.py").write_text(GOOD.replace(old, new))
    with pytest.raises(TaskError, match=message) as caught:
        task("broken.py:MyTask", base=tmp_path).validate(n=20)
    assert str(caught.value).startswith("task 'letters' does not hold:")
    assert len(str(caught.value).splitlines()) <= 4


def test_a_check_that_hangs_on_junk_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("aftershock.tasks.validate.SECONDS", 0.3)
    hang = "any(iter(int, 1)) if '**' in answer else answer.strip() == str(count)"
    (tmp_path / "hangs.py").write_text(GOOD.replace("answer.strip() == str(count)", hang))
    with pytest.raises(TaskError, match=r"junk answer '9\*\*9\*\*9' scores unverifiable, not wrong \(timed out"):
        task("hangs.py:MyTask", base=tmp_path).validate(n=2)


def test_a_split_with_too_few_problems_is_refused(tmp_path):
    (tmp_path / "few.py").write_text(
        GOOD.replace('"abcde", k=5 * self.difficulty', '"a", k=1').replace('"abcde"', '"a"')
    )
    with pytest.raises(TaskError, match="its problems are too few"):
        task("few.py:MyTask", base=tmp_path).validate(n=2)
