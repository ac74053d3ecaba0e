"""Gold answers are right, perturbed ones wrong, and docs/math.md shows what is measured."""

import os
import sys
from pathlib import Path

import pytest

from aftershock.verify.math import math_answer, math_answers
from aftershock.verify.math_perturb import perturbations

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import math_gold

OURS = [
    *(
        "7",
        "-3",
        "0",
        "1,234,500",
        "0.75",
        ".05",
        r"\frac{3}{8}",
        r"2\frac{1}{3}",
        r"5\sqrt{7}",
        r"\frac{\pi}{4}",
        "3-4i",
    ),
    *("x^2-2x+5", "(4,-9)", "(1,2,3)", "[0,5)", r"(-\infty,3)", r"(0,1) \cup (2,3)", "2,-5", r"4 \pm \sqrt{6}"),
    *(r"\{2,4,8\}", r"\begin{pmatrix} 3 \\ -1 \end{pmatrix}", r"\text{Ada}", r"\text{(B)}", "D", r"35\%", r"\$12.50"),
    *(r"75^\circ", r"9\text{ m}^2", "311_5", "y = 3x-1", "x=8", r"x \in [1,4]", "2k", r"\tan x", "10^{12}"),
]


@pytest.mark.parametrize("gold", OURS)
def test_gold_is_right_and_every_perturbation_wrong(gold):
    assert math_answer(f"</think> It is \\boxed{{{gold}}}.", gold).outcome == "right"
    changed = perturbations(gold)
    assert {"off by one", "hedge", "second box", "no box"} <= set(changed)
    verdicts = math_answers([(answer, gold) for answer in changed.values()])
    assert {kind: v.outcome for kind, v in zip(changed, verdicts) if v.outcome != "wrong"} == {}


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("(4,-9)", "swapped"),
        ("[0,5)", "other bracket"),
        ("2,-5", "one value less"),
        (r"35\%", "percent dropped"),
        (r"\$12.50", "other unit"),
        ("311_5", "base dropped"),
        (r"\frac{3}{8}", "upside down"),
        ("7", "sign"),
        ("1,234,500", "digit dropped"),
        ("0.75", "point moved"),
    ],
)
def test_each_kind_of_perturbation_is_made(gold, kind):
    assert kind in perturbations(gold)


def test_a_harmless_change_is_no_perturbation():
    for gold in OURS:
        for kind, answer in math_gold.harmless(gold).items():
            assert math_answer(f"\\boxed{{{answer}}}", gold).outcome == "right", (gold, kind)
            assert f"It is \\boxed{{{answer}}}." not in perturbations(gold).values()


def test_the_page_shows_the_probes_as_they_are_judged():
    assert math_gold.block("probes").search(math_gold.PAGE.read_text())[1] == math_gold.probe_table()


def test_there_are_enough_probes():
    for table in (math_gold.REWRITTEN, math_gold.NEAR):
        assert len({(gold, answer) for _, gold, answer in math_gold.probes(table)}) >= 120


@pytest.mark.skipif("AFTERSHOCK_DATA" not in os.environ, reason="needs the originals: a folder in AFTERSHOCK_DATA")
def test_all_of_gsm8k_and_math_500():
    counts = math_gold.gold_counts(Path(os.environ["AFTERSHOCK_DATA"]))
    assert counts["GSM8K"]["gold"] == {"right": 1319}
    assert counts["MATH-500"]["gold"] == counts["MATH-500"]["solution"] == {"right": 500}
    for found in counts.values():
        assert found["perturbed not wrong"] == []
        assert {outcome for *_, outcome in found["harmless"]} <= {"right"}
    assert math_gold.block("gold").search(math_gold.PAGE.read_text())[1] == math_gold.gold_table(counts)
