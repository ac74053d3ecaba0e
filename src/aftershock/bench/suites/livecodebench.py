"""LiveCodeBench: competition problems by the date they appeared (Jain et al., arXiv 2403.07974)."""

import base64
import json
import pickletools
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aftershock.bench.suite import Source
from aftershock.bench.suites.programs import ASK, ProgramSuite, fenced
from aftershock.bench.types import Question
from aftershock.errors import BenchError
from aftershock.verify.program import CallTest, Limits, ProgramTest, StdioTest

WINDOW = "2024-08..2025-01"  # R1's (arXiv 2501.12948, section 3)
_LARGEST = 1 << 28  # bytes of one problem's hidden tests
_TEXT_ONLY = {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MEMOIZE", "BINPUT", "STOP"}

# Programs for LeetCode's problems are written without imports, as the site allows.
PRELUDE = (
    "".join(
        f"from {module} import *\n"
        for module in "typing collections heapq bisect itertools functools math string operator random".split()  # noqa: SIM905
    )
    + "import collections, heapq, bisect, itertools, functools, math, string, operator, random, re, sys, copy\n"
)


class LiveCodeBench(ProgramSuite):
    """Problems of LeetCode, AtCoder and Codeforces with hidden tests; `@2024-08..2025-01` chooses months.

    A problem's tests stay with the suite, since they may be megabytes: a question holds their checksum.
    There are no reference solutions: `oracle` writes a program that knows the tests' outputs.
    """

    title = "LiveCodeBench"
    source = Source(
        "livecodebench/code_generation_lite",
        (),
        parts=("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl"),
    )
    samples = 8
    limits = Limits(cpu_seconds=60.0, wall_seconds=120.0, output_bytes=1 << 24)

    def __init__(self, data: Path | None = None, option: str = "") -> None:
        super().__init__(data)
        found = re.fullmatch(r"(\d{4}-\d\d)\.\.(\d{4}-\d\d)", option or WINDOW)
        if not found or found.group(1) > found.group(2):
            raise BenchError(f"livecodebench was asked for with @{option}; wanted two months, such as @{WINDOW}")
        self._window = found.groups()
        self.title = f"LiveCodeBench {option or WINDOW}"
        self._hidden: dict[str, tuple[str, str]] = {}

    def wanted(self, row: Mapping[str, Any]) -> bool:
        """Take the problems of the window."""
        return self._window[0] <= str(row["contest_date"])[:7] <= self._window[1]

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Put the problem, with the starter code where there is one; its tests are read when they are needed."""
        starter = row["starter_code"].strip()
        how = (
            f"Begin from this code:\n\n{fenced(starter)}"
            if starter
            else "The program reads standard input and writes its answer to standard output."
        )
        name = json.loads(row["metadata"] or "{}").get("func_name") if starter else None
        if starter and not name:
            raise ValueError("it has 'starter_code', but no func_name in its 'metadata'")
        self._hidden[row["question_id"]] = (row["public_test_cases"], row["private_test_cases"])
        checksum = zlib.crc32(row["private_test_cases"].encode(), zlib.crc32(row["public_test_cases"].encode()))
        data = {"function": name, "date": str(row["contest_date"])[:10], "difficulty": row["difficulty"]}
        data |= {"platform": row["platform"], "method": "class Solution" in starter, "tests_crc32": checksum}
        prompt = f"{row['question_content'].strip()}\n\n{how}\n\n{ASK}"
        return Question(self.name, row["question_id"], prompt, "", data)

    def program(self, question: Question, code: str) -> str:
        """Give LeetCode's programs their imports, and make the method that is tested a function."""
        name = question.data["function"]
        if not name:
            return code
        target = f"Solution().{name}" if question.data["method"] else name
        # A tuple counts as the list it spells, as in the original.
        made = f"_made = {target}(*args)\n    return list(_made) if isinstance(_made, tuple) else _made"
        return f"{PRELUDE}{code}\n\ndef _tested(*args):\n    {made}\n"

    def tests(self, question: Question) -> Sequence[ProgramTest]:
        """Return the public tests, then the hidden ones."""
        return [_test(case, question.data["function"]) for case in self._cases(question)]

    def oracle(self, question: Question) -> str:
        """Return a program that looks each test's output up."""
        return fenced(self._lookup(question, ""))

    def decoy(self, question: Question) -> str:
        """Return a program that answers the last test wrong."""
        return fenced(self._lookup(question, "\nKNOWN[list(KNOWN)[-1]] = '0 and more'"))

    def _lookup(self, question: Question, change: str) -> str:
        cases, name = self._cases(question), question.data["function"]
        if not name:
            known = {case["input"].strip(): case["output"] for case in cases}
            return f"import sys\nKNOWN = {known!r}{change}\nprint(KNOWN[sys.stdin.read().strip()])"
        values = {repr(_test(case, name).args): _test(case, name).expected for case in cases}  # type: ignore[union-attr]
        head = "class Solution:\n    def {name}(self, *args):" if question.data["method"] else "def {name}(*args):"
        return f"KNOWN = {values!r}{change}\n{head.format(name=name)}\n        return KNOWN[repr(args)]"

    def _cases(self, question: Question) -> list[Mapping[str, str]]:
        if question.id not in self._hidden:
            raise BenchError(f"{question.id} is no question of this suite as loaded: call questions() first")
        public, private = self._hidden[question.id]
        return [*json.loads(public), *json.loads(_plain(private))]


def _plain(text: str) -> str:
    """Return hidden tests as JSON; they come as such, or as base64 of zlib of a pickled text.

    That pickle is never loaded: it is taken apart, and anything but one text in it is refused.
    """
    if text.lstrip().startswith("["):
        return text
    opened = zlib.decompressobj()
    try:
        packed = opened.decompress(base64.b64decode(text, validate=True), _LARGEST)
        steps = [(step.name, value) for step, value, _ in pickletools.genops(packed)] if opened.eof else []
    except (ValueError, zlib.error) as error:
        raise BenchError(f"LiveCodeBench's private_test_cases are neither JSON nor base64 of zlib: {error}") from error
    if not opened.eof:
        raise BenchError(f"LiveCodeBench's private_test_cases are cut off, or unpack to more than {_LARGEST} bytes")
    texts = [value for name, value in steps if "UNICODE" in name]
    if not {name for name, _ in steps} <= _TEXT_ONLY or len(texts) != 1:
        raise BenchError("LiveCodeBench's private_test_cases hold a pickle of more than a text: it is not loaded")
    return str(texts[0])


def _test(case: Mapping[str, str], function: str | None) -> StdioTest | CallTest:
    """Return a case as a test; a functional one has an argument a line and its value, all as JSON."""
    if function is None:
        return StdioTest(case["input"], case["output"])
    arguments = tuple(json.loads(line) for line in case["input"].split("\n") if line.strip())
    return CallTest("_tested", arguments, json.loads(case["output"]))
