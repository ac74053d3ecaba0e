# ruff: noqa: E501 - programs are data, and read best as they are
"""Good programs that do what hostile ones do, within reason: each must be judged right, or the walls are too close."""

from aftershock.verify.program import AssertTests, CallTest, StdioTest
from hostile.base import Hostile, control

_TEN = AssertTests("def check(candidate):\n    assert candidate(4) == 10\n    assert candidate(0) == 0\n", "answer")

CONTROLS: list[Hostile] = [
    control(
        "good-call",
        "plain work",
        "def answer(n): return n * (n + 1) // 2\n",
        CallTest("answer", (4,), 10),
        CallTest("answer", (10**6,), 500000500000),
    ),
    control("good-check", "HumanEval's kind of test", "def answer(n): return sum(range(n + 1))\n", _TEN),
    control(
        "good-mbpp",
        "MBPP's kind of test",
        "def answer(n): return sum(range(n + 1))\n",
        AssertTests("assert answer(4) == 10\nassert answer(0) == 0\n"),
    ),
    control(
        "good-stdio",
        "reads and prints",
        "print(sum(map(int, input().split())))\n",
        StdioTest("1 2 3\n", "6\n"),
        StdioTest("5", "5"),
    ),
    control(
        "good-prints-in-call",
        "may talk",
        "def answer(n):\n    print('x' * 100_000)\n    return n\n",
        CallTest("answer", (7,), 7),
    ),
    control(
        "good-prints-much",
        "a long output below the limit",
        "for n in range(20000): print(n)\n",
        StdioTest("", "\n".join(map(str, range(20000)))),
    ),
    control(
        "good-threads",
        "a few threads",
        "import threading\ndef answer(n):\n    out = []\n    threads = [threading.Thread(target=out.append, args=(i,)) for i in range(n)]\n"
        "    for t in threads: t.start()\n    for t in threads: t.join()\n    return sorted(out)\n",
        CallTest("answer", (4,), [0, 1, 2, 3]),
    ),
    control(
        "good-children",
        "a child or two",
        "import subprocess, sys\ndef answer():\n    return subprocess.run(['/bin/echo', 'hello'], capture_output=True, text=True).stdout\n",
        CallTest("answer", (), "hello\n"),
    ),
    control(
        "good-temp-file",
        "a file of its own",
        "import tempfile\ndef answer(text):\n    with tempfile.NamedTemporaryFile('w+') as file:\n        file.write(text)\n        file.seek(0)\n        return file.read()\n",
        CallTest("answer", ("kept",), "kept"),
    ),
    control(
        "good-recursion",
        "a raised limit of recursion",
        "import sys\nsys.setrecursionlimit(20_000)\ndef answer(n): return 0 if n == 0 else 1 + answer(n - 1)\n",
        CallTest("answer", (9000,), 9000),
    ),
    control(
        "good-exit",
        "sys.exit(0) at the end of a program that prints",
        "import sys\nprint(7)\nsys.exit(0)\n",
        StdioTest("", "7\n"),
    ),
    control(
        "good-exit-none",
        "so is sys.exit()",
        "import sys\ndef main():\n    print(7)\n    sys.exit()\nif __name__ == '__main__':\n    main()\n",
        StdioTest("", "7\n"),
    ),
    control(
        "good-unicode",
        "text beyond ASCII",
        "def answer(s): return s[::-1] + '\\u00e9\\U0001f600'\nprint('\\u4e2d')\n",
        CallTest("answer", ("ab",), "baé😀"),
    ),
    control(
        "good-unicode-stdio",
        "text beyond ASCII in and out",
        "print(input()[::-1], 'é😀')\n",
        StdioTest("中文\n", "文中 é😀\n"),
    ),
    control(
        "good-cookie",
        "a known encoding cookie",
        "# -*- coding: utf-8 -*-\ndef answer(): return 'é'\n",
        CallTest("answer", (), "é"),
    ),
    control(
        "good-trailing-space",
        "space at the ends of lines does not count",
        "print('1 \\n2\\t\\n\\n')\n",
        StdioTest("", "1\n2"),
    ),
    control(
        "good-catches",
        "catches its own errors",
        "def answer():\n    try: raise SystemExit(1)\n    except BaseException: return 'caught'\n",
        CallTest("answer", (), "caught"),
    ),
    control(
        "good-raises",
        "errors the tests want",
        "def answer(n):\n    if n < 0: raise ValueError('negative')\n    return n\n",
        AssertTests(
            "try:\n    answer(-1)\n    assert False, 'no error'\nexcept ValueError:\n    pass\nassert answer(1) == 1\n"
        ),
    ),
    control(
        "good-memory",
        "a list of two million numbers",
        "def answer(): return len(list(range(2_000_000)))\n",
        CallTest("answer", (), 2_000_000),
    ),
    control(
        "good-big-number",
        "a number of a thousand digits",
        "def answer(n): return 10 ** n\n",
        CallTest("answer", (1000,), 10**1000),
    ),
    control(
        "good-plain-kinds",
        "every plain kind crosses there and back",
        "def answer(x): return x\n",
        *(
            CallTest("answer", (value,), value)
            for value in (
                None,
                True,
                -3,
                2.5,
                1 + 2j,
                "s",
                b"\x00\xff",
                [1, [2]],
                (1, (2,)),
                {1, 2},
                frozenset({"a"}),
                {(1, 2): {"k": [None]}},
                float("inf"),
                "",
                [],
                (),
                {},
                set(),
            )
        ),
    ),
    control(
        "good-state",
        "a program keeps what its functions remember",
        "seen = []\ndef answer(x):\n    seen.append(x)\n    return len(seen)\n",
        AssertTests("assert answer(1) == 1\nassert answer(1) == 2\n"),
    ),
    control(
        "good-main-guard",
        "a main that waits for input is not run by calls",
        "def answer(): return 1\nif __name__ == '__main__':\n    input()\n",
        CallTest("answer", (), 1),
    ),
    control(
        "good-modules",
        "the usual modules",
        "import collections, functools, heapq, itertools, math, re, random, datetime, decimal, fractions, hashlib, bisect, string, typing, statistics\n"
        "def answer(x): return math.isqrt(len(hashlib.md5(x.encode()).hexdigest()))\n",
        CallTest("answer", ("x",), 5),
    ),
    control(
        "good-megabyte",
        "a long program",
        "# " + "x" * 500_000 + "\ndef answer(): return 1\n",
        CallTest("answer", (), 1),
    ),
]
