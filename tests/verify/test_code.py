"""What run_code says of programs: right, wrong and whose fault, in three kinds of test and several languages."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.errors import SandboxError, VerifierError
from aftershock.verify import AssertTests, CallTest, Limits, StdioTest, run_code
from aftershock.verify.code import LANGUAGES
from aftershock.verify.sandbox import values, walls
from aftershock.verify.sandbox.inside import Unplain, encode

try:
    walls()
    HERE = True
except SandboxError:
    HERE = False
needs_sandbox = pytest.mark.skipif(
    not HERE and not os.environ.get("AFTERSHOCK_REQUIRE_SANDBOX"), reason="no sandbox here: see aftershock check"
)
SHORT = Limits(cpu_seconds=2, wall_seconds=4)
ADD = "def add(a, b):\n    return a + b\n"

keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers()
)
keys = keys | st.tuples(keys, keys) | st.frozensets(keys)
plain = st.recursive(
    keys, lambda inner: st.lists(inner) | st.tuples(inner) | st.sets(keys) | st.dictionaries(keys, inner), max_leaves=20
)


def alike(one, two) -> bool:
    """Equal, of equal types, and nan like nan; sets and dicts by how they are shown, since nan is no key to find."""
    return type(one) is type(two) and (one == two or sorted(repr(one)) == sorted(repr(two)))


@given(plain)
def test_a_plain_value_comes_out_as_it_went_in(value):
    text = encode(value)
    assert "\n" not in text
    assert alike(values.decode(text.encode()), value)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from("tsfdbinczq"), x)
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_out_is_a_value_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        values.decode(text)


COLLIDING = ",".join(str(i * ((1 << 61) - 1)) for i in range(40000))  # all of one hash: a minute to put in a set


@pytest.mark.parametrize(
    "text",
    [
        f'{{"s":[{COLLIDING}]}}',
        f'{{"d":[{COLLIDING}]}}',
        "[" * 100000 + "]" * 100000,
        "[" * 500 + "]" * 500,
        "9" * 5000,
        '{"s":[[]]}',
        '{"d":[1]}',
        '{"t":[],"s":[]}',
        "{}",
        '{"n":"0x1"}',
        '{"c":["1"]}',
        '{"n":1' + "0" * 400 + "}",
    ],
)
def test_what_would_hang_or_crash_the_outside_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are among them
        values.decode(text.encode())


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def test_only_exact_types_are_plain():
    looped: list = []
    looped.append(looped)
    for value in (
        Liar(3),
        type("List", (list,), {})([1]),
        object(),
        range(3),
        iter([]),
        [Liar(3)],
        {Liar(3): 1},
        looped,
        len,
        bytearray(b""),
    ):
        with pytest.raises(Unplain):
            encode(value)
    from collections import Counter, OrderedDict, defaultdict

    for like in (Counter("aab"), OrderedDict(a=1), defaultdict(int, a=2)):
        assert values.decode(encode(like).encode()) == dict(like)


def call(program, *args, expected=None, function="f", **kwargs):
    return run_code(program, [CallTest(function, args, expected, kwargs)], SHORT)


@needs_sandbox
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1", 1),
        ("return 1.0", 1),  # Python's ==
        ("return True", 1),
        ("return (1, [2, {3}], {'a': b'x', (1, 2): None})", (1, [2, {3}], {"a": b"x", (1, 2): None})),
        ("return 2 ** 10000", 2**10000),
        ("return 'é\\ud800\\0\\n'", "é\ud800\0\n"),
        ("return float('inf')", float("inf")),
        ("print('noise'); input() if False else None; return 1", 1),
        ("import os; return len(list(os.fork.__name__))", 4),
    ],
)
def test_a_call_is_right(body, expected):
    assert call(f"def f():\n    {body}", expected=expected).outcome == "right"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "expected", "reason"),
    [
        ("def f(): return 2", 1, "test 1: f() is 2, wanted 1"),
        ("def f(): return [1]", (1,), "f() is [1], wanted (1,)"),
        ("def f(): return 0.1 + 0.2", 0.3, "0.30000000000000004"),
        ("def f(): return float('nan')", float("nan"), "f() is nan"),
        ("def f(): raise ValueError('no')", 1, "f() raised ValueError: no"),
        ("def f(): raise SystemExit(0)", 1, "raised SystemExit"),
        ("def f(: pass", 1, "raises SyntaxError when it is loaded"),
        ("import nonsense", 1, "raises ModuleNotFoundError when it is loaded"),
        ("raise SystemExit", 1, "raises SystemExit when it is loaded"),
        ("def g(): return 1", 1, "defines no f"),
        ("f = 3", 1, "TypeError: 'int' object is not callable"),
        ("def f(): return object()", 1, "f gives a object, which is not a plain value"),
        ("class A:\n  def __eq__(self, other): return True\ndef f(): return A()", 1, "a A, which is not"),
        ("def f(): return '\\x1b[31m\\u202e\\n'", 1, "is '\\x1b[31m\\u202e\\n', wanted"),
        ("def f(): raise ValueError('\\x1b[31m\\u202e\\n')", 1, "ValueError: \\x1b[31m\\u202e\\n"),
        ("def f(): return 10 ** 9000", 1, "too long an integer"),
        ("def f(): return 'a' * 500", 1, "..."),
        ("\0", 1, "when it is loaded"),
        ("\ud800", 1, "when it is loaded"),
        ("def f(): " + "(" * 5000, 1, "when it is loaded"),
    ],
)
def test_a_call_is_wrong_and_the_reason_says_why(program, expected, reason):
    verdict = call(program, expected=expected)
    assert verdict.outcome == "wrong"
    assert reason in verdict.reason
    assert len(verdict.reason) <= 300
    assert verdict.reason.isprintable()


@needs_sandbox
def test_calls_share_a_process_and_the_reason_counts_them():
    program = "seen = []\ndef f(x, *, twice=False):\n    seen.append(x)\n    return len(seen) * (2 if twice else 1)"
    tests = [CallTest("f", (0,), 1), CallTest("f", (0,), 4, {"twice": True}), CallTest("f", (0,), 9)]
    assert run_code(program, tests[:2]).outcome == "right"
    assert run_code(program, tests).reason == "test 3: f(0) is 3, wanted 9"
    assert call("def f(x): return x", object()).outcome == "unverifiable"
    assert call("def f(): return 1", expected=range(1)).outcome == "unverifiable"
    assert run_code("", []).outcome == "unverifiable"


@needs_sandbox
def test_a_program_that_writes_to_every_descriptor_forges_nothing_but_values():
    program = 'import os\nfor i in range(3, 20):\n    try: os.write(i, b\'["value",null]\\n["value",7]\\n\' * 3)\n'
    program += "    except OSError: pass\ndef f(): return 8"
    assert call(program, expected=8).outcome == "wrong"
    passed = program.replace('[\\"value\\",7]', '[\\"passed\\",\\"\\"]')
    assert run_code(passed, [AssertTests("assert f() == 8")], SHORT).outcome == "wrong"


HUMANEVAL = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate('a', 'b') == 'ab'\n"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test"),
    [
        (ADD, AssertTests(HUMANEVAL, "add")),
        (ADD, AssertTests(HUMANEVAL, "add", "def add(a, b):\n    pass")),  # the stub of a prompt is not the program
        (ADD, AssertTests("def check(f):\n    assert add(1, 2) == f(1, b=2)", "add", "def add(a, b):\n    pass")),
        (ADD, AssertTests("assert add([1], [2]) == [1, 2]\nassert (lambda: add(1, 1))() == 2")),
        (ADD + "LIMIT = (1, {2})", AssertTests("assert LIMIT == (1, {2})")),
        (ADD, AssertTests("assert helper(add(1, 1)) == 4", None, "def helper(x):\n    return 2 * x")),
        (ADD, AssertTests("import math\nassert math.isclose(add(0.1, 0.2), 0.3)")),
        (
            ADD,
            AssertTests(
                "try:\n    add(1, 'a')\nexcept TypeError as error:\n    assert 'int' in str(error)\nelse:\n    assert 0"
            ),
        ),
        (
            "class Odd(Exception): pass\ndef f(): raise Odd('x')",
            AssertTests(
                "try:\n    f()\nexcept Exception as error:\n    assert str(error) == 'Odd: x'\nelse:\n    assert 0"
            ),
        ),
    ],
)
def test_assertions_hold(program, test):
    verdict = run_code(program, [test], SHORT)
    assert verdict.outcome == "right", verdict.reason


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test", "reason"),
    [
        (
            "def add(a, b): return 3",
            AssertTests(HUMANEVAL, "add"),
            "== 'ab'\" fails (AssertionError); last, add('a', 'b') is 3",
        ),
        ("def f(): return 1", AssertTests(HUMANEVAL, "add"), "NameError"),
        ("def f(: 1", AssertTests("assert f() == 1"), "SyntaxError when it is loaded"),
        (ADD, AssertTests("assert ad(1, 2) == 3"), "name 'ad' is not defined"),
        ("import os\ndef f(): os._exit(0)", AssertTests("assert f() == 1"), "exited with status 0"),
        ("def f(x): raise StopIteration", AssertTests("assert all(map(f, [1]))"), "StopIteration"),
        ("def f(x): raise SystemExit(0)", AssertTests("assert f(1) == 1"), "SystemExit"),
        # what a lenient test would let by as an exception is no answer either
        ("def f(): return object()", AssertTests("try:\n    f()\nexcept Exception:\n    pass"), "not a plain value"),
        ("def f():\n    while True: pass", AssertTests("f()"), "test 1: the program"),
        ("def f(): return 'x' * 10 ** 7", AssertTests("f()"), "more than"),
        ("def f(x): x.append(1)", AssertTests("given = []\nf(given)\nassert given == [1]"), "AssertionError"),  # copies
        (
            "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.sum = lambda x: 1\ndef f(): return [1, 2]",
            AssertTests("assert sum(f()) == 1"),
            "AssertionError",
        ),
        ("def f(): raise SyntaxError('no')", AssertTests("assert f() == 1"), "SyntaxError: no"),
        ("def f(): return 1", AssertTests("while True: f()"), "test 1"),
    ],
)
def test_assertions_fail_by_the_programs_fault(program, test, reason):
    verdict = run_code(program, [test], Limits(cpu_seconds=1, wall_seconds=5))
    assert verdict.outcome == "wrong"
    assert reason in verdict.reason


@needs_sandbox
@pytest.mark.parametrize(
    "test",
    [
        AssertTests("assert add(1, 2 == 3"),
        AssertTests("import nonsense\nassert add(1, 2) == 3"),
        AssertTests("assert add(1, 2) == 3", None, "1 / 0"),
        AssertTests("assert add(1, 2) == 3", "add"),  # no check
        AssertTests("assert add(lambda: 1, 2) == 3"),
        AssertTests("import os\nos._exit(0)"),
        AssertTests(
            'import os\nfor i in range(3, 9):\n    os.write(i, b\'["passed",""]\\n\')\nassert False'
        ),  # no nonce
        AssertTests("assert False"),
        AssertTests("while True: pass"),
    ],
)
def test_tests_that_fail_by_themselves_are_unverifiable(test):
    verdict = run_code(ADD, [test], Limits(cpu_seconds=1, wall_seconds=10))
    assert verdict.outcome == "unverifiable"
    assert "test 1" in verdict.reason


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "stdin", "stdout", "outcome"),
    [
        ("print(int(input()) + 1)", "3", "4\n", "right"),
        ("print(4, '\\n\\n')", "", "4", "right"),
        ("print('é', end='')", "", "é", "right"),
        ("import sys\nsys.stdout.write(sys.stdin.read())\nsys.exit(0)", "a\r\nb\n", "a\r\nb", "right"),
        ("if __name__ == '__main__': print(1); exit()", "", "1", "right"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nprint(A())", "", "A(x=1)", "right"),
        ("print(4)", "", "4\n5", "wrong"),
        ("print(4)\nprint(5)", "", "4", "wrong"),
        ("print(' 4')", "", "4", "wrong"),
        ("print(4)\nraise SystemExit(1)", "", "4", "wrong"),
        ("print(4)\n1 / 0", "", "4", "wrong"),
        ("print(4)\nimport os, signal\nos.kill(os.getpid(), signal.SIGABRT)", "", "4", "wrong"),
    ],
)
def test_what_a_program_prints(program, stdin, stdout, outcome):
    assert run_code(program, [StdioTest(stdin, stdout)], SHORT).outcome == outcome


@needs_sandbox
def test_reasons_for_what_is_printed_wrong():
    tests = [StdioTest("1", "2"), StdioTest("2", "3\n4")]
    assert run_code("print(int(input()) + 1)", tests, SHORT).reason == "test 2: line 2 is nothing, wanted '4'"
    assert "test 1: exit status 1: ZeroDivisionError" in run_code("1 / 0", tests, SHORT).reason


PRINT_ONE_MORE = {
    "javascript": "console.log(Number(require('fs').readFileSync(0, 'utf8')) + 1)",
    "c": '#include <stdio.h>\nint main() { int a; scanf("%d", &a); printf("%d\\n", a + 1); }',
    "cpp": "#include <iostream>\nint main() { int a; std::cin >> a; std::cout << a + 1 << std::endl; }",
}


@needs_sandbox
@pytest.mark.parametrize("language", LANGUAGES)
def test_other_languages_print_too(language):
    tool = (LANGUAGES[language].build or LANGUAGES[language].command)[0]
    if not os.path.exists(tool):
        pytest.skip(f"no {tool}")
    tests = [StdioTest("3", "4"), StdioTest("4", "5")]
    assert run_code(PRINT_ONE_MORE[language], tests, language=language).outcome == "right"
    assert "is '5', wanted '4'" in run_code(PRINT_ONE_MORE[language], [StdioTest("4", "4")], language=language).reason
    broken = run_code("%(", tests, language=language)
    assert broken.outcome == "wrong"
    assert "rror" in broken.reason


def test_unknown_languages_and_tests_are_named():
    with pytest.raises(VerifierError, match="'cobol'; known: python, javascript"):
        run_code("", [StdioTest("", "")], language="cobol")
    with pytest.raises(VerifierError, match="AssertTests for a program in cpp"):
        run_code("", [AssertTests("")], language="cpp")


@needs_sandbox
def test_many_threads_and_asyncio_get_their_own_verdicts():
    def verdict(number):
        return run_code("def f(x): return x", [CallTest("f", (number,), number - number % 2)], SHORT).outcome

    wanted = ["wrong" if number % 2 else "right" for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(verdict, range(24))) == wanted

    async def both():
        return await asyncio.gather(*(asyncio.to_thread(verdict, number) for number in range(2)))

    assert asyncio.run(both()) == ["right", "wrong"]


@needs_sandbox
def test_in_a_process_with_little_memory_as_the_judges_workers_have():
    script = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
    script += "from aftershock.verify import *\nfrom aftershock.verify.sandbox import walls\n"
    script += f"print(run_code({ADD!r}, [CallTest('add', (1, 2), 3), AssertTests('assert add(1, 2) == 3')]).outcome)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "right\n", done.stderr


def test_importing_it_is_light():
    script = "import sys, aftershock.verify.code\nassert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
