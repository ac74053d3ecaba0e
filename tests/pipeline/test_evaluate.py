"""What is measured: values worked out by hand on scripted answers, and held-out problems that are held out."""

import pytest
import tokenizers

from aftershock.generate import Completion
from aftershock.pipeline.evaluate import Judged, heldout, measure, prompt_tokens, rows
from aftershock.tasks import Problem, task
from aftershock.text import Tokenizer, train_tokenizer, zero_prompt
from aftershock.verify.verdict import Outcome, Reward, Verdict


def completion(reasoning: str, answer: str, tokens: int) -> Completion:
    text = f"{reasoning}</think><answer>{answer}</answer>"
    return Completion((1,), (2,) * tokens, (0.0,) * tokens, (0.0,) * tokens, text, reasoning, answer, "stop")


def reward(outcome: Outcome, answer: str) -> Reward:
    return Reward(1.0, {"accuracy": 1.0}, Verdict(outcome, "", answer))


def judged(name: str, outcomes: list[tuple[Outcome, str]], reasoning: str = "1+1=2", tokens: int = 10) -> Judged:
    problem = Problem(name, f"{name}-1", "?", "2")
    completions = [completion(reasoning, answer, tokens) for _, answer in outcomes]
    return Judged(problem, completions, [reward(*pair) for pair in outcomes])


def value(found, suite, metric):
    return next(m for m in found if (m.suite, m.metric) == (suite, metric))


def test_values_by_hand():
    first = judged("a", [("right", "2"), ("right", "2"), ("wrong", "3"), ("wrong", "4")], "1*1=1 no;1+1=2", 10)
    second = judged("b", [("wrong", "5"), ("wrong", "5"), ("right", "2"), ("wrong", "6")], "看 hello 看", 20)
    found = measure([first, second], "before", seed=7)
    assert value(found, "a", "pass@1").value == 0.5
    assert value(found, "all", "pass@1").value == pytest.approx(3 / 8)
    assert value(found, "all", "pass@k").value == 1.0
    assert value(found, "a", "majority@k").value == 1.0
    assert value(found, "b", "majority@k").value == 0.0
    assert value(found, "all", "mean_tokens").value == 15
    assert value(found, "a", "check_or_retry_rate").value == 1.0
    assert value(found, "b", "check_or_retry_rate").value == 0.0
    assert value(found, "b", "switch_rate").value == 1.0
    assert value(found, "b", "language_consistency").value == pytest.approx(1 / 3)
    assert value(found, "a", "readable_rate").value == 0.0  # no sentence leads to the answer
    whole = value(found, "all", "pass@1")
    assert (whole.n, whole.k, whole.seed, whole.when) == (2, 4, 7, "before")
    assert whole.low <= whole.value <= whole.high


def test_the_unverifiable_are_neither_right_nor_wrong():
    found = measure([judged("a", [("right", "2"), ("unverifiable", "x")])], "after", seed=0)
    assert value(found, "a", "pass@1").value == 1.0


def test_one_suite_has_no_pooled_double():
    assert {m.suite for m in measure([judged("a", [("right", "2")])], "after", 0)} == {"a"}


def test_consistency_is_of_reasonings_with_words():
    found = measure([judged("a", [("right", "2")]), judged("b", [("right", "2")], "看")], "after", 0)
    assert [(m.suite, m.n, m.value) for m in found if m.metric == "language_consistency"] == [
        ("b", 1, 0.0),
        ("all", 1, 0.0),
    ]


def test_heldout_problems_are_held_out_and_distinct():
    tasks = [task("countdown", 2, ("en", "zh")), task("remainders", 1, ("en", "zh"))]
    problems = heldout(tasks, 60)
    assert problems == heldout(tasks, 60)
    contents = [tasks[p.task == "remainders"].content(p) for p in problems]
    assert len(set(contents)) == len(contents)
    assert all(tasks[p.task == "remainders"].split_of(p) == "heldout" for p in problems)
    assert sum(p.task == "countdown" for p in problems) == 60
    assert sum(p.task == "remainders" for p in problems) < 60  # so few exist


def test_rows_say_all_that_the_report_needs():
    row = rows([judged("a", [("right", "2")])], step=3)[0]
    assert row["step"] == 3
    assert row["reward"]["total"] == 1.0
    assert row["verdict"]["outcome"] == "right"
    assert row["prompt"] == "?"
    assert row["tokens"] == 10
    assert row["sample"] == 0


def test_prompts_begin_as_the_tokenizer_does():
    ours = train_tokenizer(["User: 1+1?\nAssistant:"] * 3, 300)
    assert prompt_tokens(ours, "1+1?") == ours.encode(zero_prompt("1+1?"))
    unmarked = {name: value for name, value in ours.config.items() if name not in ("bos_token", "prompt_template")}
    distilled = Tokenizer(ours.fast, unmarked)
    text = ours.fast.decode(prompt_tokens(distilled, "1+1?"), skip_special_tokens=False)
    assert text == "<｜User｜>1+1?<｜Assistant｜><think>\n"
    foreign = Tokenizer(foreign_vocabulary(), {"eos_token": "<|endoftext|>", "chat_template": "a base may ship one"})
    text = foreign.fast.decode(prompt_tokens(foreign, "1+1?"), skip_special_tokens=False)
    assert text.startswith("A conversation between User and Assistant.")
    assert text.endswith("User: 1+1?. Assistant: <think>")


def foreign_vocabulary():
    """A byte-level vocabulary that knows nothing of R1's tokens, as Qwen2.5's."""
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    fast.train_from_iterator(["a"], trainer)
    return fast
