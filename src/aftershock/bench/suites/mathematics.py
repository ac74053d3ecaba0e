"""Mathematics with one answer in a box: GSM8K, MATH-500, AIME 2024 and 2025."""

from collections.abc import Mapping
from typing import Any

from aftershock.address import generator
from aftershock.bench.suite import Source, Suite, unanswered
from aftershock.bench.types import Answer, Question
from aftershock.tasks.dataset import ASK
from aftershock.verify.verdict import Verdict


class BoxedSuite(Suite):
    """A problem and its one answer, judged by `verify.math_answer`: only what is in the last box counts."""

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Judge the last box after the reasoning."""
        from aftershock.verify import math_answer

        verdict = math_answer(answer.answer, question.gold)
        silent = verdict.extracted is None and (answer.finish == "length" or not answer.answer)
        return unanswered(answer, "answer in \\boxed{}") if silent else verdict

    def oracle(self, question: Question) -> str:
        """Return the gold answer in a box."""
        return f"So the answer is \\boxed{{{question.gold}}}."

    def decoy(self, question: Question) -> str:
        """Return one of the ways to be almost right, drawn by the question's id."""
        from aftershock.verify.math_perturb import perturbations

        changed = perturbations(question.gold)
        after = [text for _, text in sorted(changed.items()) if "<think>" not in text]
        return generator("decoy", question.suite, question.id).choice(after)

    def boxed(self, problem: str, answer: object, identity: str, data: Mapping[str, Any] | None = None) -> Question:
        """Return the question that asks for the answer to a problem in a box."""
        return Question(self.name, identity, f"{problem.strip()}\n\n{ASK}", str(answer).strip(), data or {})


class Gsm8k(BoxedSuite):
    """Grade-school word problems (Cobbe et al., arXiv 2110.14168), the 1,319 of the test split."""

    title = "GSM8K"
    source = Source("openai/gsm8k", ("gsm8k_test.jsonl", "test.jsonl", "gsm8k_test.parquet"), config="main")

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Take the gold answer from behind ####, thousands separators dropped."""
        solution, mark, gold = row["answer"].rpartition("####")
        if not mark:
            raise ValueError("'answer' holds no ####")
        return self.boxed(row["question"], gold.replace(",", ""), f"gsm8k/{index}", {"solution": solution.strip()})


class Math500(BoxedSuite):
    """500 competition problems of MATH (Hendrycks et al., arXiv 2103.03874), chosen by Lightman et al. (2305.20050)."""

    title = "MATH-500"
    source = Source("HuggingFaceH4/MATH-500", ("math500.jsonl", "test.jsonl", "math500.parquet"))

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Keep subject and level for tables."""
        data = {"subject": row["subject"], "level": row["level"], "solution": row["solution"]}
        return self.boxed(row["problem"], row["answer"], row["unique_id"], data)


class Aime24(BoxedSuite):
    """The 30 problems of AIME I and II of 2024: answers are integers from 0 to 999."""

    title = "AIME 2024"
    source = Source("HuggingFaceH4/aime_2024", ("aime24.jsonl", "aime_2024.jsonl", "aime24.parquet"), split="train")
    samples = 64

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Read `problem` or `question`, or QwQ's `prompt`, which ends in its own asking."""
        problem = (
            row.get("problem") or row.get("question") or row["prompt"].partition("\nPlease reason step by step")[0]
        )
        gold = int(row["answer"])
        if not 0 <= gold <= 999:
            raise ValueError(f"'answer' is {gold}, wanted 0 to 999")
        return self.boxed(problem, gold, f"{self.name}/{row.get('id', index)}")


class Aime25(Aime24):
    """The 30 problems of AIME I and II of 2025."""

    title = "AIME 2025"
    source = Source("math-ai/aime25", ("aime25.jsonl", "aime_2025.jsonl", "aime25.parquet"))
