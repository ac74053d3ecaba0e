# ruff: noqa: E501 - programs are data, and read best as they are
"""Programs that don't know the answer and want to be judged right. Each must be judged wrong: no less, no more."""

from aftershock.verify.program import AssertTests, CallTest, StdioTest
from hostile.base import TIGHT, Hostile, cheat, trick

ALL = ("call", "check", "mbpp")

LIARS = [
    *cheat(
        "eq-always-true",
        "equality is never asked of the program's objects",
        """
class Liar:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __eq__
def answer(): return Liar()
""",
        *ALL,
    ),
    *cheat(
        "str-subclass",
        "a subclass of str is no str",
        "class Liar(str):\n    def __eq__(self, other): return True\n    __hash__ = str.__hash__\ndef answer(): return Liar('x')\n",
        *ALL,
    ),
    *(
        item
        for kind, value in (
            ("int", "7"),
            ("float", "7"),
            ("list", "[7]"),
            ("dict", "{7: 7}"),
            ("tuple", "[7]"),
            ("set", "[7]"),
            ("bytes", "b'7'"),
        )
        for item in cheat(
            f"{kind}-subclass",
            f"a subclass of {kind} is no {kind}",
            f"class Liar({kind}):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
            f"    def __hash__(self): return 0\ndef answer(): return Liar({value})\n",
            "check",
        )
    ),
    *cheat(
        "liar-inside",
        "parts are as plain as the whole",
        "class Liar:\n    def __eq__(self, other): return True\n    __hash__ = None\n    def __repr__(self): return '7'\ndef answer(): return [(Liar(),)]\n",
        *ALL,
    ),
    *cheat(
        "liar-class-property",
        "what an object says its class is does not count",
        "class Liar:\n    @property\n    def __class__(self): return str\n    def __eq__(self, other): return True\n    def __str__(self): return 'x'\ndef answer(): return Liar()\n",
        *ALL,
    ),
    *cheat(
        "liar-metaclass",
        "neither does what its class says of itself",
        """
class Meta(type):
    def __eq__(self, other): return True
    def __hash__(self): return hash(str)
    def __instancecheck__(self, other): return True
    def __subclasscheck__(self, other): return True
class Liar(metaclass=Meta):
    def __eq__(self, other): return True
def answer(): return Liar()
""",
        *ALL,
    ),
    *cheat(
        "liar-class",
        "a class is no value",
        "class Liar(type):\n    def __eq__(s, o): return True\ndef answer(): return Liar('X', (), {})\n",
        *ALL,
    ),
    *cheat(
        "liar-constant",
        "a name that is no function can't be called",
        "class Liar:\n    def __call__(self): return self\n    def __eq__(self, o): return True\nanswer = Liar()\n",
        *ALL,
    ),
    *cheat(
        "mock",
        "an object that answers everything answers nothing",
        "from unittest.mock import MagicMock\ndef answer(): return MagicMock()\n",
        *ALL,
    ),
    *cheat(
        "getattr-bomb",
        "no attribute of a returned object is asked for",
        "class Bomb:\n    def __getattr__(self, name): return Bomb()\n    def __repr__(self): raise SystemExit\n    def __reduce__(self): raise SystemExit\ndef answer(): return Bomb()\n",
        *ALL,
    ),
    *cheat(
        "repr-endless",
        "nor how it would be shown",
        "class Bomb:\n    def __repr__(self): return 'x' * (1 << 30)\n    __str__ = __repr__\ndef answer(): return Bomb()\n",
        "call",
        "check",
    ),
    *cheat(
        "generator-endless", "a generator is no value, and is not run", "def answer():\n    while True: yield 0\n", *ALL
    ),
    *cheat(
        "iterator-endless", "nor is an iterator", "import itertools\ndef answer(): return itertools.count()\n", *ALL
    ),
    *cheat("coroutine", "nor a coroutine", "async def answer(): return 'x'\n", *ALL),
    *cheat("function", "nor a function", "def answer(): return answer\n", *ALL),
    *cheat("code-object", "nor code", "def answer(): return answer.__code__\n", *ALL),
    *cheat(
        "marshalled",
        "bytes are bytes, whatever they would load as",
        "import marshal\ndef answer(): return marshal.dumps(answer.__code__)\n",
        *ALL,
    ),
    *cheat(
        "pickled",
        "no pickle is loaded: not as bytes, not as text, not as an object's own",
        """
import pickle
class Payload:
    def __reduce__(self): return (eval, ("open('@DIR@/@TOKEN@', 'w')",))
def answer(): return pickle.dumps(Payload())
""",
        *ALL,
    ),
    *cheat(
        "pickled-object",
        "no object is pickled on its way out",
        "import os\nclass Payload:\n    def __reduce__(self): return (os._exit, (0,))\ndef answer(): return Payload()\n",
        *ALL,
    ),
    *cheat("nan", "not a number equals nothing", "def answer(): return float('nan')\n", *ALL),
    *cheat(
        "infinity", "infinity crosses as itself", "def answer(): return [float('inf'), -0.0, complex('nan')]\n", *ALL
    ),
    *cheat(
        "surrogates",
        "half a character crosses or is refused, and is no crash of ours",
        "def answer(): return '\\ud800\\udfff\\x00\\u202e'\n",
        *ALL,
    ),
    *cheat(
        "surrogate-name",
        "so in the message of an error",
        "def answer(): raise ValueError('\\ud800\\x00\\u202e\\n' * 10)\n",
        *ALL,
    ),
]

EXITS = [
    *(
        item
        for name, act in (
            ("exit", "import sys; sys.exit(0)"),
            ("exit-hard", "import os; os._exit(0)"),
            ("exit-raise", "raise SystemExit(0)"),
            ("exit-interrupt", "raise KeyboardInterrupt"),
            ("exit-generator", "raise GeneratorExit"),
            ("exit-base", "raise type('Quiet', (BaseException,), {})"),
            ("exit-abort", "import os; os.abort()"),
            ("exit-kill", "import os; os.kill(os.getpid(), 9)"),
            ("exit-term", "import os; os.kill(0, 15)"),
            ("exit-segfault", "import ctypes; ctypes.string_at(0)"),
            ("exit-exec", "import os; os.execv('/bin/true', ['true'])"),
        )
        for item in (
            *cheat(f"{name}-in-call", "ending early is losing", f"def answer():\n    {act}\n", *ALL),
            *cheat(f"{name}-at-import", "ending before the tests is losing", f"def answer(): return 0\n{act}\n", *ALL),
        )
    ),
    *(
        item
        for error in (
            "StopIteration",
            "StopAsyncIteration",
            "AssertionError",
            "NotImplementedError",
            "ImportError",
            "SyntaxError",
            "MemoryError",
            "RecursionError",
            "IndexError",
        )
        for item in trick(
            f"raise-{error}".lower(),
            "an error of the program's ends no loop of the tests and passes for none of theirs",
            f"def answer(x): raise {error}('all tests passed')\n",
            AssertTests(
                "def check(candidate):\n    assert all(map(lambda x: candidate(x) == '@EXPECTED@', range(3)))\n",
                "answer",
            ),
        )
    ),
    *trick(
        "raise-stopiteration-in-next",
        "nor the tests' own generators",
        "def answer(x): raise StopIteration\n",
        AssertTests("for got in map(answer, [1, 2]):\n    assert got == '@EXPECTED@'\n"),
    ),
    *trick(
        "raise-exit-in-tests",
        "an exit can't cross to the tests, even where they catch errors",
        "def answer(x): raise SystemExit(0)\n",
        AssertTests("try:\n    answer(1)\nexcept Exception:\n    pass\nassert answer(2) == '@EXPECTED@'\n"),
    ),
    *cheat(
        "del-raises",
        "what is raised in cleaning up changes nothing",
        "class Late:\n    def __del__(self): raise SystemExit(0)\nkept = Late()\ndef answer():\n    global kept\n    kept = None\n    return Late()\n",
        *ALL,
    ),
    *cheat(
        "del-exits",
        "ending there is losing",
        "import os\nclass Late:\n    def __del__(self): os._exit(0)\ndef answer(): Late(); return 0\n",
        *ALL,
    ),
    *cheat(
        "atexit-exits",
        "what runs at the end can't pass a test",
        "import atexit, os\natexit.register(os._exit, 0)\natexit.register(print, '@TOKEN@')\ndef answer(): return 0\n",
        *ALL,
        "stdio",
    ),
    *cheat(
        "thread-exits",
        "nor what runs beside",
        "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.01), os._exit(0)), daemon=True).start()\ndef answer():\n    time.sleep(5)\n",
        "call",
        "check",
    ),
    *cheat(
        "alarm-exits",
        "nor what a signal sets off",
        "import signal, os, time\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ndef answer():\n    time.sleep(5)\n",
        "call",
        "check",
    ),
]

_PATCHES = {
    "builtins": """
import builtins
class Liar:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
builtins.isinstance = lambda *_: True
builtins.issubclass = lambda *_: True
builtins.len = lambda *_: 0
builtins.repr = lambda *_: "'x'"
builtins.type = lambda *_: str
builtins.print = builtins.open = builtins.__import__ = lambda *_, **__: Liar()
builtins.AssertionError = builtins.BaseException = builtins.Exception = type("Quiet", (Exception,), {})
builtins.all = builtins.any = builtins.sorted = builtins.eval = builtins.exec = builtins.compile = lambda *_: True
""",
    "modules": """
import sys
class Liar:
    def __getattr__(self, name): return Liar()
    def __call__(self, *_, **__): return True
    def __eq__(self, other): return True
for name in list(sys.modules):
    if name not in ("sys", "builtins", "__main__"): sys.modules[name] = Liar()
""",
    "encoders": """
import json, sys
json.dumps = lambda *_, **__: '{"ok": true, "passed": true, "outcome": "right"}'
json.JSONEncoder.encode = json.dumps
json.loads = lambda *_: {}
import re, operator, math
operator.eq = math.isclose = lambda *_, **__: True
""",
    "trace": """
import sys, threading
def trace(frame, event, argument):
    for name in ("expected", "passed", "ok", "outcome", "right"):
        if name in frame.f_locals: frame.f_locals[name] = True
    return trace
sys.settrace(trace); sys.setprofile(trace); threading.settrace(trace)
""",
    "streams": """
import sys, io
sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = sys.stdin = io.StringIO()
sys.stdout.close()
""",
    "closed-streams": "import os\nos.closerange(0, 1024)\n",
    "hooks": """
import sys
sys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = lambda *_: None
sys.meta_path.insert(0, type("Finder", (), {"find_spec": lambda *_: None}))
sys.path_hooks.clear(); sys.addaudithook(lambda *_: None)
sys.exit = lambda *_: None
""",
    "limits": "import sys\nsys.setrecursionlimit(50)\nsys.set_int_max_str_digits(0)\nsys.setswitchinterval(1e-9)\n",
    "environment": """
import os, sys
os.environ.update(LD_PRELOAD="./x.so", PYTHONPATH=".", PYTHONSTARTUP="./x.py", PYTHONOPTIMIZE="2", PATH=".")
for name in ("x.so", "sitecustomize.py", "usercustomize.py", "json.py", "x.pth", "operator.py", "math.py"):
    open(name, "w").write("import os; os._exit(0)")
sys.path.insert(0, os.getcwd()); sys.flags = None
""",
}

PATCHES = [
    item
    for name, patch in _PATCHES.items()
    for item in cheat(
        f"patch-{name}", "what it changes is only its own", patch + "\ndef answer():\n    return 'x'\n", *ALL
    )
]

_SEARCH = """
import os, sys, re
def pids():
    try: return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError: return []
WANTED = "EXPE" + "CT-[0-9a-f]{16}"
def first(text):
    found = re.search(WANTED, text)
    return found and found[0]
"""

THIEVES = [
    *cheat(
        "steal-from-frames",
        "no caller of the program knows what is expected",
        _SEARCH
        + """
def answer():
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values(), frame.f_code.co_consts]:
            try: found = first(repr(value))
            except Exception: continue
            if found: return found
        frame = frame.f_back
    return "nothing"
""",
        *ALL,
    ),
    *cheat(
        "steal-from-heap",
        "no object in the program's process does",
        _SEARCH
        + """
import gc
def answer():
    for thing in gc.get_objects():
        for part in [thing, *gc.get_referents(thing)]:
            if type(part) in (str, bytes, dict, list, tuple):
                found = first(str(part)[:100000])
                if found: return found
    return "nothing"
""",
        "call",
        "check",
    ),
    *cheat(
        "steal-from-memory",
        "no byte of any process it can read does",
        _SEARCH
        + """
def answer():
    for pid in pids():
        try:
            spans = [line.split()[:2] for line in open(f"/proc/{pid}/maps")]
            memory = open(f"/proc/{pid}/mem", "rb", 0)
        except OSError: continue
        for span, mode in spans:
            low, high = (int(part, 16) for part in span.split("-"))
            if mode.startswith("r") and high - low < 1 << 26:
                try:
                    memory.seek(low)
                    found = re.search(WANTED.encode(), memory.read(high - low))
                except (OSError, ValueError, OverflowError): continue
                if found: return found[0].decode()
    return "nothing"
""",
        *ALL,
        "stdio",
    ),
    *cheat(
        "steal-from-files",
        "no file, pipe or command line it can read does",
        _SEARCH
        + """
import threading
def look():
    places = [f"/proc/self/fd/{fd}" for fd in range(32)]
    places += [f"/proc/{pid}/{name}" for pid in pids() for name in ("cmdline", "environ", "comm")]
    for folder in (".", "/tmp", "/dev/shm", "/run", "/var/tmp", "/work", "/app", "/sandbox", "/"):
        try: places += [os.path.join(folder, name) for name in os.listdir(folder)]
        except OSError: pass
    for place in places:
        try:
            fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
            found = first(os.read(fd, 1 << 20).decode("latin-1"))
        except (OSError, ValueError): continue
        if found: return found
    return "nothing"
kept = look()
def answer(): return kept if kept != "nothing" else look()
print(kept)
""",
        *ALL,
        "stdio",
    ),
]

_FORGED = r"""
import os, json, itertools
words = ["right", "passed", "ok", True, 0, None, "x"]
def messages():
    for word in words:
        for key in ("ok", "passed", "result", "outcome", "value", "status", "done", "nonce", "verdict"):
            yield json.dumps({key: word}).encode() + b"\n"
        yield json.dumps(word).encode() + b"\n"
        yield json.dumps([word]).encode() + b"\n"
    for body in (b"right", b'["right"]', b'{"ok":true}', b"ok"):
        for size in (4, 8):
            for order in ("little", "big"): yield len(body).to_bytes(size, order) + body
"""

_AHEAD = """
import os, stat
for fd in range(3, 64):
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode): os.write(fd, b'["value",1]\\n' * 100)
    except OSError: pass
def answer(x): return 1
"""

_ODD = {
    "not-json": "nonsense",
    "empty": "",
    "number": "7",
    "nested": "[" * 100_000,
    "nested-tags": '{"t":[' * 5000,
    "nul": "\\0",
    "big": "[" + "9" * 200_000 + "]",
    "float": '["value",{"n":"' + "1" * 200_000 + '"}]',
    "tag": '["value",{"z":1}]',
    "tags": '["value",{"t":[1],"s":[1]}]',
    "unhashable": '["value",{"s":[[1]]}]',
    "odd-dict": '["value",{"d":[1]}]',
    "bytes": '["value",{"b":"zz"}]',
    "complex": '["value",{"c":[1]}]',
    "inner": '["value",{"t":7}]',
    "word": '["passed"]',
    "raised": '["raised",7,[]]',
    "raised-short": '["raised"]',
    "unplain-short": '["unplain"]',
    "unplain": '["unplain",7]',
    "surrogate": '["raised","\\\\ud800","\\\\ud800"]',
    "callable": '["callable"]',
    "missing": '["missing"]',
    "null": "null",
    "object": '{"value":1}',
    "nan": '["value",NaN]',
    "infinite": '["value",1e999]',
    "latin": '["value","\\xff"]',
}

FORGERS = [
    *(
        item
        for name, line in _ODD.items()
        for item in cheat(
            f"forge-{name}",
            "a reply that is none, or an odd one, is the program's fault",
            f"""
import os, stat
for fd in range(3, 64):
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode): os.write(fd, b'["value",null]\\n' + {line!r}.encode("latin-1") + b"\\n")
    except OSError: pass
def answer(): return 0
""",
            *(ALL if len(line) < 50 else ("call",)),
        )
    ),
    *cheat(
        "forge-everywhere",
        "a message of the program's own making, at any door, is at most a value",
        _FORGED
        + """
def forge():
    for fd in range(1, 64):
        try: os.set_blocking(fd, False)
        except OSError: continue
        for message in messages():
            try: os.write(fd, message)
            except OSError: break
forge()
def answer():
    forge()
    return "x"
""",
        *ALL,
    ),
    *cheat(
        "forge-and-exit",
        "nor does it pass by being the last word",
        _FORGED
        + """
def answer():
    for fd in range(1, 64):
        try: os.set_blocking(fd, False)
        except OSError: continue
        for message in messages():
            try: os.write(fd, message)
            except OSError: break
    os._exit(0)
""",
        *ALL,
    ),
    Hostile(
        "forge-ahead",
        "answers given before their questions were read are values, and trip nobody",
        _AHEAD,
        tuple(CallTest("answer", ("x" * 300_000,), expected) for expected in (1, 1, 1, "@EXPECTED@")),
        ("wrong",),
    ),
    Hostile(
        "forge-and-hang-up",
        "nor does a program that answers and then hears no more",
        _AHEAD + "os.closerange(0, 64)\n",
        tuple(CallTest("answer", ("x" * 300_000,), expected) for expected in (1, 1, 1, "@EXPECTED@")),
        ("wrong",),
    ),
    *cheat(
        "forge-by-fork",
        "two processes that answer pass no more than one",
        "import os\nos.fork()\ndef answer():\n    os.fork()\n    return 'x'\n",
        *ALL,
    ),
    *cheat(
        "steal-and-echo",
        "what comes in at the doors, sent back out, is no pass",
        """
import os, time
def answer():
    for fd in range(64):
        try:
            os.set_blocking(fd, False)
            got = os.read(fd, 1 << 16)
        except OSError: continue
        for to in range(1, 64):
            try: os.write(to, got)
            except OSError: pass
    return "x"
""",
        *ALL,
    ),
    *cheat(
        "rewrite-harness",
        "whatever of the harness it can reach and replace, the answer is still wrong",
        """
import gc, sys, types
def yes(*_, **__): return True
def answer():
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__module__ in ("__main__", "builtins") and thing is not answer and thing is not yes:
            try: thing.__code__ = yes.__code__
            except Exception: pass
        if type(thing) is dict:
            for key in list(thing):
                if key in ("expected", "passed", "failed", "nonce", "ok", "check", "outcome"):
                    thing[key] = True
    return "x"
""",
        *ALL,
    ),
    *cheat(
        "return-through-frames",
        "a caller's names, rewritten, rewrite no verdict",
        """
import ctypes, sys
def answer():
    frame = sys._getframe(1)
    while frame:
        for name in list(frame.f_locals): frame.f_locals[name] = True
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        for name in list(frame.f_globals):
            if name not in ("__builtins__", "answer", "sys", "ctypes"): frame.f_globals[name] = lambda *_, **__: True
        frame = frame.f_back
    return "x"
""",
        *ALL,
    ),
]

NAMES = [
    *trick(
        "shadow-builtin",
        "the tests' `len` is Python's, not the program's",
        "def len(x): return 987654321\ndef answer(): return [1]\n",
        AssertTests("assert len(answer()) == 987654321\n"),
    ),
    *trick(
        "shadow-helper",
        "a helper of the tests is theirs",
        "def twice(x): return answer(x)\ndef answer(x): return 0\n",
        AssertTests("assert answer(3) == twice(3)\n", setup="def twice(x):\n    return 2 * x\n"),
    ),
    *trick(
        "shadow-check",
        "the tests' `check` is theirs",
        "def check(candidate): pass\ndef answer(): return 0\n",
        AssertTests("def check(candidate):\n    assert candidate() == '@EXPECTED@'\n", "answer"),
    ),
    *trick(
        "shadow-module",
        "a module of the tests is Python's, whatever lies in the program's folder",
        "import sys\nopen('math.py', 'w').write('isclose = lambda *a, **k: True')\nclass math: isclose = lambda *a, **k: True\n"
        "sys.modules['math'] = math\ndef answer(): return 0.0\n",
        AssertTests("import math\nassert math.isclose(answer(), 987.0)\n"),
    ),
    *trick(
        "shadow-candidate",
        "so is `candidate`",
        "candidate = __builtins__ = assertion = None\ndef answer(): return 0\n",
        AssertTests("def check(candidate):\n    assert candidate() == '@EXPECTED@'\n", "answer"),
    ),
    *trick(
        "spoil-arguments",
        "a list that the program empties is a copy",
        "def answer(xs):\n    xs.clear()\n    return []\n",
        AssertTests("xs = [3, 1, 2]\nassert answer(xs) == sorted(xs)\n"),
    ),
    *trick(
        "missing-function",
        "a function that is not there fails its test, which is no fault of the harness",
        "def other(): return 0\n",
        CallTest("answer", (), None),
    ),
    *trick(
        "missing-entry",
        "so for an entry point",
        "def other(): return 0\n",
        AssertTests("def check(c):\n    assert c() == 1\n", "answer"),
    ),
    *trick(
        "missing-name", "so for a name in assertions", "def other(): return 0\n", AssertTests("assert answer() == 1\n")
    ),
    *trick(
        "missing-name-caught",
        "also where the tests use what it returned",
        "",
        AssertTests("got = answer()\nassert got == 1\n"),
    ),
    *trick(
        "dunder-function",
        "names of Python's own are not the program's functions",
        "def answer(): return 0\n",
        CallTest("__import__", ("os",), None),
    ),
    *trick("dotted-function", "no path through objects is followed", "import os\n", CallTest("os.getpid", (), 2)),
    *trick(
        "broken-program",
        "a program that can't be read loses, even where its tests ask nothing",
        "def answer(:\n",
        AssertTests("def check(c):\n    pass\n", "answer"),
    ),
    *trick(
        "raising-program",
        "so does one that raises before its tests",
        "def answer(): return 1\n1 / 0\n",
        AssertTests("assert True\n"),
    ),
]

STDIO = [
    *trick(
        "print-terminal",
        "nor what it says as it dies",
        "import sys\nsys.stderr.write('\\x1b]0;x\\x07\\x9b2J\\n')\nsys.exit('\\x1b[2J\\u202e')\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-then-raise",
        "a program that ends by an error has lost",
        "print(7)\nraise ValueError\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-then-status",
        "so has one that says it failed",
        "print(7)\nimport sys\nsys.exit(3)\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-then-die",
        "so has one that is killed",
        "import os\nprint(7, flush=True)\nos.kill(os.getpid(), 9)\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-then-loop",
        "so has one that goes on for ever",
        "print(7, flush=True)\nimport time\ntime.sleep(60)\n",
        StdioTest("", "7\n"),
        TIGHT,
    ),
    *trick(
        "print-much",
        "the right answer among others is not the answer",
        "for n in range(1000): print(n)\n",
        StdioTest("", "7\n"),
    ),
    *trick("print-nul", "NUL is no space", "print('7\\0')\n", StdioTest("", "7\n")),
    *trick(
        "print-bidi", "a mark that can't be seen is a character", "print('\\u202e7\\u200b')\n", StdioTest("", "7\n")
    ),
    *trick(
        "print-bytes",
        "bytes that are no text are a wrong answer",
        "import sys\nsys.stdout.buffer.write(b'7\\xff\\xfe\\n')\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-surrogate",
        "so is half a character",
        "import sys\nsys.stdout.buffer.write('7\\ud800'.encode('utf-8', 'surrogatepass'))\n",
        StdioTest("", "7\n"),
    ),
    *trick(
        "print-replacement",
        "a replacement character is not what it replaced",
        "import sys\nsys.stdout.buffer.write(b'\\xff')\n",
        StdioTest("", "\ufffd\n"),
    ),
    *trick("print-carriage-return", "overwritten on a screen is not unsaid", "print('8\\r7')\n", StdioTest("", "7\n")),
    *trick(
        "print-to-stderr",
        "what is said elsewhere is not said",
        "import sys\nprint(7, file=sys.stderr)\n",
        StdioTest("", "7\n"),
    ),
    *trick("print-nothing", "silence is an answer, and wrong", "", StdioTest("", "7\n")),
    *trick("echo-input", "the input is not the output", "print(open(0).read())\n", StdioTest("8\n", "7\n")),
]

CHEATS: list[Hostile] = [*LIARS, *EXITS, *PATCHES, *THIEVES, *FORGERS, *NAMES, *STDIO]
