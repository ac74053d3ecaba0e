"""Multiple choice, answered by one letter in a box: GPQA-diamond and MMLU-Pro."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aftershock.address import generator
from aftershock.bench.suite import Source, Suite, unanswered
from aftershock.bench.types import Answer, Question
from aftershock.verify.boxed import boxed_answer
from aftershock.verify.verdict import Verdict

ASK = "Please reason step by step, and put the letter of the one right option within \\boxed{}."
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm)\b|[{}()\[\]$*\s.:]")


def letter(answer: str, options: int) -> str | None:
    r"""Return the one letter in the last box, A to the last option; None where there is none, or more than a letter.

    Let by are brackets, full stop and LaTeX dress; words beside it are not: `\boxed{A or B}` says nothing.

    >>> [letter(text, 4) for text in (r"\boxed{(C).}", r"\boxed{\text{b}}", r"\boxed{A or B}", r"\boxed{E}")]
    ['C', 'B', None, None]
    """
    boxed, _ = boxed_answer(answer)
    bare = _DRESS.sub("", boxed or "").upper()
    return bare if len(bare) == 1 and 0 <= ord(bare) - ord("A") < options else None


class ChoiceSuite(Suite):
    """A question with lettered options, one of them right."""

    def put(
        self, identity: str, question: str, options: Sequence[str], right: int, data: Mapping[str, Any]
    ) -> Question:
        """Return the question with its options lettered in their order; `right` is the place of the right one."""
        lines = "\n".join(f"{chr(ord('A') + place)}. {option.strip()}" for place, option in enumerate(options))
        prompt = f"{question.strip()}\n\n{lines}\n\n{ASK}"
        kept = {"options": len(options), **data}
        return Question(self.name, identity, prompt, chr(ord("A") + right), kept)

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Compare the letter in the last box."""
        found = letter(answer.answer, question.data["options"])
        if found is None:
            return unanswered(answer, f"one letter of A to {chr(64 + question.data['options'])} in \\boxed{{}}")
        right = found == question.gold
        return Verdict("right" if right else "wrong", f"{found}, and it is {question.gold}", found)

    def oracle(self, question: Question) -> str:
        """Return the right letter in a box."""
        return f"The answer is \\boxed{{{question.gold}}}."

    def decoy(self, question: Question) -> str:
        """Return another letter in a box, drawn by the question's id."""
        others = [chr(65 + place) for place in range(question.data["options"]) if chr(65 + place) != question.gold]
        return f"The answer is \\boxed{{{generator('decoy', question.suite, question.id).choice(others)}}}."


class Gpqa(ChoiceSuite):
    """198 questions by experts that a search engine doesn't answer (Rein et al., arXiv 2311.12022). Gated.

    The file gives the right answer first, so each question's options are shuffled, by the address of its id: the same
    order in every run, and the right letter spread over all four.
    """

    title = "GPQA-diamond"
    source = Source("Idavidrein/gpqa", ("gpqa_diamond.csv", "gpqa_diamond.jsonl"), split="train", config="gpqa_diamond")

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Shuffle the right answer among the three wrong ones."""
        identity = row["Record ID"]
        options = [row["Correct Answer"], *(row[f"Incorrect Answer {number}"] for number in (1, 2, 3))]
        order = generator("gpqa", identity).sample(range(4), 4)
        data = {"domain": row.get("High-level domain", "")}
        return self.put(identity, row["Question"], [options[place] for place in order], order.index(0), data)


class MmluPro(ChoiceSuite):
    """12,032 questions with up to ten options (Wang et al., arXiv 2406.01574), which stay in their order."""

    title = "MMLU-Pro"
    source = Source("TIGER-Lab/MMLU-Pro", ("mmlu_pro_test.jsonl", "mmlu_pro.jsonl", "test-00000-of-00001.parquet"))
    samples = 1

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Hold the letter to the place of the right option: a row where they differ is refused."""
        right = int(row["answer_index"])
        if row["answer"] != chr(65 + right) or right >= len(row["options"]):
            raise ValueError(
                f"'answer' is {row['answer']!r}, but 'answer_index' {right} of {len(row['options'])} options"
            )
        data = {"category": row["category"]}
        return self.put(f"mmlu-pro/{row['question_id']}", row["question"], row["options"], right, data)
