"""The verdict on mathematical answers: the rules, what tries to harm the verifier, and every way it is called."""

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.verify import math, math_answer
from aftershock.verify.math import math_answers
from aftershock.verify.math_form import Quantity, TooDeep, exact, quantity, shape, tidy, words
from aftershock.verify.math_same import differs, rounds_to

SYMBOLIC = (r"\boxed{2\sqrt{3}+1}", r"1+\sqrt{12}")
BOMB = (r"\boxed{9^{9^{9^9}}}", "5")


def outcome(answer, gold):
    return math_answer(f"\\boxed{{{answer}}}", gold).outcome


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """A pool whose checks may take 2 s: bombs then cost the tests little."""
    if math._shared is None:
        monkeypatch.setattr(math, "SECONDS", 2.0)
        math._pool()


def test_a_verdict_says_what_was_extracted_and_why():
    verdict = math_answer(r"<think>\boxed{1}</think> It is \boxed{ 13 }.", "12")
    assert (verdict.outcome, verdict.reason, verdict.extracted) == ("wrong", "13 is not 12", "13")
    symbolic = math_answer(r"\boxed{\sqrt{3}}", r"\sqrt{2}")
    assert (symbolic.outcome, symbolic.reason, symbolic.extracted) == (
        "wrong",
        r"\sqrt{3} is not \sqrt{2}",
        r"\sqrt{3}",
    )
    assert math_answer("It is 12.", "12").extracted is None


@pytest.mark.parametrize(
    ("gold", "reason"),
    [("", "empty"), (" ", "empty"), (r"\frac{1}{", "can't be read"), ("{" * 60 + "}" * 60, "more than 40 brackets")],
)
def test_a_gold_answer_that_cannot_be_read_is_unverifiable(gold, reason):
    verdict = math_answer(r"\boxed{\sqrt{5}}", gold)
    assert verdict.outcome == "unverifiable"
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "answer",
    [
        "{" * 900 + "}" * 900,
        "(" * 900 + "1" + ")" * 900,
        "(((" * 10 + "1" + ")))" * 10 + "+x",
        r"\frac{1}{0}",
        r"\frac{1}",
        r"\sqrt{",
        "1" * 1900,
        "1," * 900,
        r"\begin{pmatrix} 1",
        r"\text{" + "a" * 1000 + "}",
        "\x00",
        "\ud800",
        r"\infty - \infty",
        "__import__('os').system('true')",
        r"\int_0^1 x dx",
        r"\left\right",
        "=" * 50,
        "x" * 1500,
    ],
)
def test_junk_is_wrong(answer):
    assert outcome(answer, "12") == "wrong"
    assert outcome(answer, r"\sqrt{2}") == "wrong"


def test_a_megabyte_of_braces_and_a_bomb_leave_the_pool_at_full_speed():
    math_answer(*SYMBOLIC)
    began = time.monotonic()
    assert math_answer("{" * 10**6 + r"\boxed{" * 10**5, "5").outcome == "wrong"
    assert time.monotonic() - began < 3
    began = time.monotonic()
    verdict = math_answer(*BOMB)
    assert verdict.outcome == "unverifiable"
    assert "timed out after" in verdict.reason or "MemoryError" in verdict.reason
    assert verdict.extracted == "9^{9^{9^9}}"
    assert time.monotonic() - began < math.SECONDS + 5
    math_answer(*SYMBOLIC)  # a new worker starts
    began = time.monotonic()
    assert math_answer(*SYMBOLIC).outcome == "right"
    assert time.monotonic() - began < 1


def test_a_batch_keeps_its_order_around_a_bomb():
    pairs = [(r"\boxed{5}", "5"), SYMBOLIC, BOMB, (r"\boxed{6}", "5"), (r"\boxed{\sqrt{3}}", r"\sqrt{2}"), SYMBOLIC]
    assert [verdict.outcome for verdict in math_answers(pairs)] == [
        "right",
        "right",
        "unverifiable",
        "wrong",
        "wrong",
        "right",
    ]
    assert math_answers([]) == []


def test_simple_answers_start_no_worker_and_import_no_sympy():
    code = """
        import sys, time
        from aftershock.verify import math_answer, math
        assert math_answer(r"\\boxed{1{,}000}", "1000").outcome == "right"
        assert math_answer(r"\\boxed{(1, 2)}", "(2,1)").outcome == "wrong"
        assert math._shared is None
        assert not {"sympy", "math_verify", "torch"} & set(sys.modules), sys.modules
        began = time.perf_counter()
        for _ in range(2000):
            math_answer(r"\\boxed{1{,}000}", "1000")
        assert time.perf_counter() - began < 1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_a_plain_script_without_a_main_guard_may_ask():
    code = f"from aftershock.verify import math_answer\nprint(math_answer(*{SYMBOLIC!r}).outcome)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "right\n", done.stderr


def test_without_math_verify_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(math, "_shared", None)
    monkeypatch.setattr(math.importlib.util, "find_spec", lambda name: None)
    assert outcome("5", "5") == "right"
    with pytest.raises(math.VerifierError, match=r"aftershock\[math\]"):
        outcome(r"\sqrt{2}", r"2^{1/2}")


def test_threads_and_asyncio():
    found = {}

    def work(number):
        found[number] = [outcome(rf"\sqrt{{{4 * (n + number)}}}", rf"2\sqrt{{{n + 2}}}") for n in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: ["right" if n == 2 else "wrong"] * 5 for n in (1, 2, 3)}

    async def ask():
        return await asyncio.gather(*(asyncio.to_thread(math_answer, *SYMBOLIC) for _ in range(10)))

    assert {verdict.outcome for verdict in asyncio.run(ask())} == {"right"}


def test_a_forked_child_asks_its_own_workers():
    assert math_answer(*SYMBOLIC).outcome == "right"
    child = os.fork()
    if not child:
        good = math_answer(*SYMBOLIC).outcome == "right"
        math._pool().close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert math_answer(*SYMBOLIC).outcome == "right"


@pytest.mark.slow
def test_a_ray_actor_asks_from_its_own_thread(tmp_path):
    code = f"""
        import ray
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)

        @ray.remote(max_concurrency=4)
        class Verifier:
            def judge(self, completion, gold):
                from aftershock.verify import math_answer
                return math_answer(completion, gold).outcome

        verifier = Verifier.remote()
        pairs = [{SYMBOLIC!r}, ({SYMBOLIC[0]!r}, "5")] * 4
        print(*ray.get([verifier.judge.remote(*pair) for pair in pairs], timeout=120))
        ray.shutdown()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["right", "wrong"] * 4, done.stderr[-2000:]


def test_workers_stay_small():
    """sympy's caches are bounded: hundreds of verdicts on ever new terms leave a worker below 200 MB."""
    pairs = [(rf"\boxed{{{n}\sqrt{{2}}+{n}x}}", rf"{n}x+{n + n % 2}\sqrt{{2}}") for n in range(1, 301)]
    outcomes = [verdict.outcome for verdict in math_answers(pairs)]
    assert outcomes == ["wrong", "right"] * 150
    for slot in math._pool().slots:
        for pid in slot.pool.pids if slot.pool else []:
            kilobytes = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4
            assert kilobytes < 200_000


numbers = st.fractions(max_denominator=10**6)


@given(st.integers())
def test_an_integer_equals_itself_however_it_is_written_and_not_its_neighbour(number):
    for answer in (
        f"{number}",
        f"{number:,}",
        f"${number}$",
        f"{number}.0",
        rf"\frac{{{number}}}{{1}}",
        f"x = {number}",
    ):
        assert outcome(answer, str(number)) == "right", answer
    assert outcome(str(number + 1), str(number)) == "wrong"
    assert (outcome(str(-number), str(number)) == "right") == (number == 0)


@given(numbers, numbers)
def test_fractions_are_equal_where_their_values_are(one, other):
    a = rf"\frac{{{one.numerator}}}{{{one.denominator}}}"
    b = f"{other.numerator * 3}/{other.denominator * 3}"
    assert (outcome(b, a) == "right") == (one == other)
    assert exact(a) == one


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(number):
    assert outcome(f"{number:f}0", f"{number:f}") == "right"
    assert outcome(f"{number:f}1", f"{number:f}") == "wrong"


@given(st.lists(st.integers(-999, 999), min_size=2, max_size=6), st.randoms())
def test_lists_have_no_order_and_tuples_have(values, rng):
    mixed = rng.sample(values, len(values))
    gold, answer = ", ".join(map(str, values)), ", ".join(map(str, mixed))
    assert outcome(answer, gold) == outcome(rf"\{{{answer}\}}", gold) == "right"
    assert (outcome(f"({answer})", f"({gold})") == "right") == (mixed == values)
    assert outcome(f"({gold})", gold) == "wrong"
    assert outcome(f"{answer}, {values[0]}", gold) == "wrong"


pieces = st.sampled_from(
    [
        *"0123456789.,-+/()[]{}$%^_=<> abx",
        r"\frac",
        r"\{",
        r"\}",
        r"\text{",
        " or ",
        "square ",
        "sq",
        " cm",
        r"\sqrt",
        r"\pm",
    ]
)


def test_each_value_of_a_list_answers_for_one_of_gold():
    assert outcome("1, 2", "1, 1") == outcome("1, 1", "1, 2") == "wrong"
    assert outcome("1, 1", "1, 1.0") == "right"


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=20).map("".join))
def test_reading_never_fails(text):
    clean = tidy(text)
    for part in shape(clean).parts:
        exact(quantity(part).body)
        words(part)
    verdict = math._by_form(f"\\boxed{{{text}}}", "77777")
    assert verdict is None or verdict.outcome == ("right" if verdict.extracted == "77777" else "wrong"), verdict


def test_a_failure_of_ours_is_neither_right_nor_wrong(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(math, "differs", fail)
    verdict = math_answer(r"\boxed{5}", "5")
    assert (verdict.outcome, verdict.reason) == ("unverifiable", "ZeroDivisionError: ours")


@pytest.mark.parametrize(
    "piece", ["1", "1,", "{", "a ", r"\text{a}", r"\frac{", r"\pm", "=", "10^", "x=", "(", "5 ab "]
)
def test_the_longest_answers_are_read_in_no_time(piece):
    text = (piece * 2000)[:1990]
    began = time.process_time()
    with contextlib.suppress(TooDeep, math._Undecided):
        differs("12", tidy(text), math._undecided)
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("42", 42),
        ("-.5", -0.5),
        ("1e3", 1000),
        (r"1\frac{1}{2}", 1.5),
        (r"1\frac{3}{2}", None),
        ("1/0", None),
        ("1 2", None),
        ("x", None),
        ("10^{400}", 10**400),
        ("10^{4000}", None),
        ("1.2.3", None),
    ],
)
def test_exact_numbers(text, found):
    assert exact(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"15 \text{ cm}^{2}", Quantity("15", "cm^2")),
        (r"3\text{ square meters}", Quantity("3", "m^2")),
        (r"60\text{ miles/hour}", Quantity("60", "mi per h")),
        (r"-\dollar 5", Quantity("-5", "dollar")),
        (r"5\text{ million}", Quantity(r"5\text{ million}")),
        (r"5\text{ s}", Quantity("5", "s")),
        ("2 seconds", Quantity("2", "s")),
        ("19_8", Quantity("19_8")),
        ("5ab", Quantity("5ab")),
        ("5 ab", Quantity("5 ab")),
        ("5cm", Quantity("5", "cm")),
        ("12 eggs", Quantity("12", "egg")),
        ("1A_{16}", Quantity("1A", "", 16)),
        ("x_1", Quantity("x_1")),
    ],
)
def test_quantities(text, found):
    assert quantity(text) == found


def test_only_a_decimal_of_five_digits_stands_for_what_rounds_to_it():
    assert rounds_to("1.4142", 2**0.5)
    assert not rounds_to("1.414", 2**0.5)
    assert not rounds_to("1.4143", 2**0.5)
    assert not rounds_to("14142", 14142.2)
