"""What a finding is: questions with numbers that answer them, and the verdict that follows by rule."""

import csv
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

from aftershock.alarms import HACKED_ERRORS, WINDOW
from aftershock.report.evidence import Number
from aftershock.report.figures import Chart, Colour

Answer = Literal["yes", "no", "not clear"]
FLOOR, POINTS, KEPT = 0.95, 0.10, 0.90  # consistency, student over control, student over teacher: what we ask of ours
EQUAL = 0.95  # of a student's FLOPs, from which a control had the same compute
PAPER = ("R1-Zero", "Dev1", "Dev2", "Dev3", "R1")
SAME = 1.0  # percentage points under which two of the paper's rows don't differ

WORDS = {  # of each finding: its title, and the rule that its verdict follows
    "rl": (
        "Reinforcement learning alone lifts pass@1, and answers grow longer",
        "Reproduced where pass@1 of every family of tasks that was trained on, the majority vote over all of them and "
        "the length of answers are above the base's on the same held-out problems, each interval clear of 0.",
    ),
    "reflection": (
        "Checking and retrying become more frequent",
        "Counted as a list of words in every answer of every step. Reproduced where the share of answers with one of "
        f"them is higher in the last {WINDOW} steps than in the first {WINDOW}, and, where a base is named, higher "
        "than the base's on held-out problems, each interval clear of 0.",
    ),
    "language": (
        "Reinforcement learning alone mixes languages; the consistency reward mends it at a small cost",
        f"Reproduced where RL alone leaves less than {FLOOR:.0%} of the reasoning's words in the question's language, "
        f"RL with the reward at least {FLOOR:.0%}, and that is more than without the reward, its interval clear of 0. "
        "The cost in pass@1 is told, not judged.",
    ),
    "road": (
        "What each stage of the road adds",
        "Counted are the changes from one row to the next that are clear of 0 here and at least "
        f"{SAME:g} point in the paper. Reproduced where more of them go the paper's way than chance would have it "
        "(exact sign test, p < 0.05), not reproduced where no more than half do.",
    ),
    "distill": (
        "On a small model, distillation beats reinforcement learning",
        f"Reproduced where the student of the control's own base is at least {100 * POINTS:.0f} points of pass@1 above "
        "the control on the same held-out problems, its interval clear of 0, and the control had at least "
        f"{EQUAL:.0%} of the FLOPs of the students' training and of the sampling of their lessons.",
    ),
    "kept": (
        "Students keep most of their teacher's score",
        f"Reproduced where every student's pass@1 is at least {KEPT:.0%} of the teacher's on the same held-out "
        "problems. Its interval is by the delta method.",
    ),
    "hacking": (
        "Long training with a preference reward invites hacking",
        "Heard by the alarm that every run has: the reward models' score is above, and the true quality that no reward "
        "sees is below, what they were when the quality was best (means of ten steps, "
        f"{HACKED_ERRORS:g} standard errors). Reproduced where it rings in every seed.",
    ),
}


@dataclass(frozen=True)
class Check:
    """One question of a finding, with the number that answers it; None where there is nothing to answer it with."""

    text: str
    number: Number | None
    answer: Answer | None
    floor: float | None = None

    @property
    def said(self) -> str:
        """The answer, and whether the interval holds the value that was asked for."""
        if self.number is None or self.answer is None:
            return "not run"
        if self.floor is None or not self.number.low < self.floor <= self.number.high:
            return self.answer
        return f"{self.answer}, but the interval holds {self.number.show(self.floor)}"


@dataclass(frozen=True)
class Forest:
    """A figure of values with intervals: rows of (label, numbers in their colours)."""

    title: str
    rows: list[tuple[str, list[tuple[Number, Colour]]]]
    key: list[tuple[Colour, str]]
    x_label: str
    note: str
    mark: float = 0.0


@dataclass(frozen=True)
class Table:
    """A table of the page: heads, and rows of which a cell is a number of ours or plain text."""

    heads: list[str]
    rows: list[list[Number | str]]


@dataclass
class Finding:
    """One finding: its verdict follows from `checks` alone, or is `told` where a rule of its own says it."""

    name: str
    checks: list[Check] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)  # shown, but not asked of
    figures: list[Chart | Forest] = field(default_factory=list)
    table: Table | None = None
    notes: list[str] = field(default_factory=list)
    told: str | None = None

    @property
    def title(self) -> str:
        """The paper's finding in a sentence."""
        return WORDS[self.name][0]

    @property
    def rule(self) -> str:
        """The rule of the verdict."""
        return WORDS[self.name][1]

    @property
    def verdict(self) -> str:
        """Return "reproduced", "not reproduced", "not clear: ..." or "not run"."""
        if self.told is not None:
            return self.told
        answers = [check.answer for check in self.checks]
        if "no" in answers:
            return "not reproduced"
        if None in answers or not answers:
            return "not run"
        return "not clear: the interval holds 0" if "not clear" in answers else "reproduced"

    @property
    def paper(self) -> list[dict[str, str]]:
        """The paper's own numbers: model, measure, value and where they stand."""
        return [] if self.table else published(self.name)


def published(finding: str) -> list[dict[str, str]]:
    """Return the rows of paper.csv on a finding."""
    text = (files("aftershock") / "report" / "paper.csv").read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["finding"] == finding]


def above(text: str, found: Number | None) -> Check:
    """Ask whether a difference is above 0: yes or no where its interval is clear of 0."""
    if found is None:
        return Check(text, None, None)
    return Check(text, found, "yes" if found.low > 0 else "no" if found.high < 0 else "not clear")


def at_least(text: str, found: Number | None, floor: float) -> Check:
    """Ask whether a value is at least `floor`; of a difference, also that its interval is clear of 0."""
    if found is None:
        return Check(text, None, None)
    if found.unit == "points" and found.low <= 0 <= found.high:
        return Check(text, found, "not clear")
    return Check(text, found, "yes" if found.value >= floor else "no", floor)
