"""Does HumanEval notice one changed operator? `python benchmarks/humaneval_mutants.py HUMANEVAL.jsonl.gz [--json OUT]`

Runs all reference solutions and all their mutants of one operator (or one integer, moved by one) in the sandbox, and
prints by class how many failed. For each survivor it looks, in the sandbox too, for an input on which the mutant and
the reference differ. A survivor that docs/mutants.md does not explain makes the exit status 1.
"""

import argparse
import ast
import collections
import gzip
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aftershock.errors import VerifierError
from aftershock.verify import AssertTests, CallTest, Limits, Verdict, run_code

EXPLAINED = Path(__file__).parent.parent / "docs" / "mutants.md"
LIMITS = Limits(cpu_seconds=3, wall_seconds=12)

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}


@dataclass(frozen=True)
class Item:
    """One problem: its reference program, whose own lines begin after `prompt_lines`, and what it is tested with."""

    id: str
    program: str
    prompt_lines: int
    tests: AssertTests


@dataclass(frozen=True)
class Mutant:
    """A program that differs from an item's reference in one place; `id` says where and how."""

    id: str
    kind: str
    program: str


def load(path: Path) -> list[Item]:
    """Read HumanEval in its own format."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [item(json.loads(line)) for line in text.split("\n") if line]


def item(row: dict) -> Item:
    """Make an item of a row in HumanEval's fields."""
    tests = AssertTests(row["test"], row["entry_point"], setup=row["prompt"] + "    pass\n")
    return Item(row["task_id"], row["prompt"] + row["canonical_solution"], row["prompt"].count("\n"), tests)


def mutants(item: Item) -> Iterator[Mutant]:
    """Yield every mutant of the lines below the prompt, in the order of the tree."""
    tree = ast.parse(item.program)
    seen = {ast.unparse(tree)}
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) <= item.prompt_lines:
            continue
        for kind, owner, field, new in _changes(node):
            before, old = ast.unparse(node), getattr(owner, field)
            setattr(owner, field, new)
            after, program = ast.unparse(node), ast.unparse(tree)
            setattr(owner, field, old)
            if program not in seen:
                seen.add(program)
                where = f"{item.id}:{node.lineno - item.prompt_lines}:{node.col_offset}"
                yield Mutant(f"{where} {before} -> {after}", kind, program)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, str, object]]:
    """Yield (kind, owner, its field, the field's new value) for each change that `node` itself allows."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for new in _COMPARISONS[type(op)]:
                yield "comparison", node, "ops", [*node.ops[:place], new(), *node.ops[place + 1 :]]
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        kind = "arithmetic" if isinstance(node, ast.BinOp) else "augmented assignment"
        yield kind, node, "op", _ARITHMETIC[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        yield "boolean", node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "unary", node, "op", ast.UAdd()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):  # as a truth value, `not not x` is `x`
        yield "unary", node, "operand", ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield from (("constant", node, "value", node.value + step) for step in (1, -1))


# Inputs within the task that a search near the tests' own is unlikely to find, or finds only outside of the task.
_HINTS = {  # tried from the last to the first
    "HumanEval/19": [("seven six",), ("eight seven",)],
    "HumanEval/32": [([0.5, 0.1],)],
    "HumanEval/75": [(404,), (16,)],
    "HumanEval/81": [([3.7],)],
    "HumanEval/94": [([],)],
    "HumanEval/99": [("14.50",)],
    "HumanEval/124": [
        ("12-11-2000",),
        ("13-11-2000",),
        ("03-29-2000",),
        *((f"{month:02}-0-2000",) for month in range(1, 13)),
    ],
    "HumanEval/127": [((-1, 3), (-5, 7)), ((1, 2), (0, 9)), ((0, 2), (0, 9)), ((0, 3), (0, 9)), ((0, 9), (0, 9))],
    "HumanEval/129": [([[1, 5, 2], [6, 7, 8], [9, 4, 3]], 2)],
    "HumanEval/134": [("a `",)],
    "HumanEval/135": [([5, 4, 6],)],
    "HumanEval/157": [(3, 5, 4)],
    "HumanEval/18": [("a", "")],
    "HumanEval/154": [("a", "")],
}

# Runs in the sandbox: looks for an input on which two programs differ, near the inputs that the tests use.
_SEARCH = '''
import copy, random, signal

def arguments():
    """The tests' own inputs, by running them on a recorder around the reference."""
    names, seen = {}, []
    exec(REFERENCE, names)
    tests = dict(names)
    def recorder(*args):
        seen.append(copy.deepcopy(args))
        return names[ENTRY](*args)
    exec(TESTS, tests)
    random.seed(0)
    try: tests["check"](recorder)
    except AssertionError: pass
    return seen[:50]

def vary(value, rng):
    """Another value of the same type, close by; parts of sequences keep the types that were there."""
    if type(value) is bool: return rng.random() < 0.5
    if type(value) is int:
        near = value + rng.randint(-3, 3)
        return rng.choice([value, value, near, rng.randint(0, 2 * abs(value) + 3), max(value, 0) // 2, abs(value)])
    if type(value) is float:
        near = round(value + rng.choice([-1, -0.5, 0.1, 1]), 2)
        return rng.choice([value, near, float(rng.randint(-9, 9))])
    if type(value) is str:
        letters = sorted(set(value)) or ["a"]
        pool = letters + [rng.choice(letters), rng.choice(ALPHABET)] if rng.random() < 0.6 else list(ALPHABET)
        chars = list(value)
        return "".join(edit(chars, lambda: rng.choice(pool), lambda c: rng.choice(pool), rng))
    if type(value) in (list, tuple) and value:
        parts = list(value)
        return type(value)(edit(parts, lambda: vary(rng.choice(parts), rng), lambda part: vary(part, rng), rng))
    if type(value) is dict and value:
        pairs = list(value.items())
        pairs = edit(pairs, lambda: rng.choice(pairs), lambda pair: pair, rng)
        return dict((vary(k, rng), vary(v, rng)) for k, v in pairs)
    return value

def edit(parts, new, change, rng):
    parts = list(parts)
    for _ in range(rng.randint(1, 3)):
        act, place = rng.randrange(4), rng.randint(0, len(parts))
        if act == 0: parts.insert(place, new())
        elif act == 1 and len(parts) > 1: del parts[place - 1]
        elif act == 2 and parts: parts[place - 1] = change(parts[place - 1])
        elif all(type(part) is type(parts[0]) and type(part) in (int, float, str) for part in parts):
            rng.choice([rng.shuffle, list.reverse, list.sort])(parts)
    return parts

class Late(BaseException): pass
def late(*_): raise Late

def outcome(program, args):
    """What it returns or raises; a reference that runs late says nothing, a mutant that does is different."""
    names = {}
    exec(program, names)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try: return ("value", repr(names[ENTRY](*copy.deepcopy(args))))
    except Late: return ("late", "")
    except Exception as error: return ("raised", type(error).__name__)
    finally: signal.setitimer(signal.ITIMER_REAL, 0)

def search(seconds):
    import time
    signal.signal(signal.SIGALRM, late)
    rng, until, known = random.Random(0), time.monotonic() + seconds, arguments()
    pool, hints = list(known), list(HINTS)
    while time.monotonic() < until:
        args = rng.choice(pool if rng.random() < 0.5 else known)
        args = hints.pop() if hints else tuple(vary(arg, rng) if rng.random() < 0.8 else arg for arg in args)
        wanted = outcome(REFERENCE, args)
        if wanted[0] != "value": continue
        got = outcome(MUTANT, args)
        if got != wanted: raise LookupError(f"{ENTRY}{args!r:.120}: {wanted[1]:.30} became {got[0]} {got[1]:.30}")
        if len(pool) < 5000 and len(repr(args)) < 300: pool.append(args)
'''
_ALPHABET = "abcxyzABC aeiou019 ()[]{}<>.,!?-_\t"


def difference(item: Item, mutant: Mutant, seconds: float) -> str:
    """Return an input on which the mutant differs from the reference, found within `seconds`; "" where none was."""
    names = {"REFERENCE": item.program, "MUTANT": mutant.program, "TESTS": item.tests.source}
    names |= {"ENTRY": item.tests.entry_point, "ALPHABET": _ALPHABET, "HINTS": _HINTS.get(item.id, [])}
    program = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + _SEARCH
    limits = Limits(cpu_seconds=seconds + 5, wall_seconds=4 * seconds + 20)
    verdict = run_code(program, [CallTest("search", (seconds,), None)], limits)
    if verdict.outcome == "right":
        return ""
    return verdict.reason.partition("LookupError: ")[2] or f"an input on which the mutant never ends ({verdict.reason})"


def passed(program: str, item: Item) -> Verdict:
    """Judge a program by an item's tests; VerifierError where the tests or the sandbox fail."""
    verdict = run_code(program, [item.tests], LIMITS)
    if verdict.outcome == "unverifiable":
        raise VerifierError(f"{item.id}: {verdict.reason}")
    return verdict


def explained() -> set[str]:
    """The survivors that docs/mutants.md names, each in backticks at the start of a table's row."""
    rows = EXPLAINED.read_text().split("\n") if EXPLAINED.exists() else []
    return {row.split("`")[1].replace("\\|", "|") for row in rows if row.startswith("| `HumanEval/")}


def measure(items: list[Item], seconds: float) -> dict:
    """Run all references and mutants, two at a time; return the counts and the survivors with what was found."""
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        failing = [
            item.id
            for item, got in zip(items, pool.map(lambda item: passed(item.program, item), items))
            if got.outcome != "right"
        ]
        pairs = [(item, mutant) for item in items for mutant in mutants(item)]
        outcomes = list(pool.map(lambda pair: passed(pair[1].program, pair[0]).outcome, pairs))
        judged = time.monotonic() - began
        alive = [pair for pair, outcome in zip(pairs, outcomes) if outcome == "right"]
        found = list(pool.map(lambda pair: difference(*pair, seconds), alive))
    made, lived = (collections.Counter(mutant.kind for _, mutant in some) for some in (pairs, alive))
    return {
        "references": len(items),
        "references that fail": failing,
        "mutants": {
            kind: {"made": made[kind], "failed": made[kind] - lived[kind], "survived": lived[kind]}
            for kind in sorted(made)
        },
        "survivors": [
            {"id": mutant.id, "kind": mutant.kind, "differs": where} for (_, mutant), where in zip(alive, found)
        ],
        "seconds to judge": round(judged, 1),
        "seconds to search": seconds,
    }


def main() -> None:
    """Print the table; exit with 1 where a reference fails or a survivor is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="to look for an input that tells a survivor apart")
    given = parser.parse_args()
    result = measure(load(given.data), given.seconds)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"references: {result['references']}, of which fail: {result['references that fail'] or 'none'}")
    for kind, counts in result["mutants"].items():
        print(f"{kind:22}{counts['made']:6} made{counts['failed']:6} failed{counts['survived']:6} survived")
    unexplained = [one for one in result["survivors"] if one["id"] not in explained()]
    for one in unexplained:
        print(f"unexplained: {one['id']}: {one['differs'] or 'no difference found'}")
    sys.exit(bool(unexplained or result["references that fail"]))


if __name__ == "__main__":
    main()
