"""What runs inside a sandbox before and around an untrusted program: limits, Landlock, then one job.

Its source is handed over and run there by another Python, so it stands alone, and imports next to nothing: `json` would
cost more than the whole start. Nothing here is trusted by the outside once the program has begun: the program shares
this process and may change all of it, so what comes out is only ever a claim of plain values.
"""

import _json
import builtins
import marshal
import os
import resource
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEEPEST = 100  # levels of nesting in a value that crosses
_LONGEST_MESSAGE = 200  # characters of an exception's text
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_READ, _WRITE_DEVICE = 0b1101, 0b110  # Landlock: execute, read file, read folder; write and read file
_FORBIDDEN_IN_TMP = 1 << 6 | 1 << 9 | 1 << 11 | 1 << 15  # character and block devices, sockets, ioctl on devices


class Unplain(TypeError):
    """A value of a type that doesn't cross the sandbox's wall."""


def encode(value: "Any", depth: int = 0) -> str:
    """Write a plain value as JSON, where types that JSON lacks are one-key objects: {"t": [...]} is a tuple.

    Only exact types pass, so that no code of a subclass runs. Counter, defaultdict and OrderedDict, which equal a dict
    of the same items, go as dicts. Raises Unplain for the rest and for what is nested too deep.
    """
    kind = type(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if kind is str:
        return str(_json.encode_basestring_ascii(value))
    if kind is int:
        return str(value) if -(1 << 63) <= value < 1 << 63 else f'{{"i":"{value:x}"}}'
    if kind is float:
        return repr(value) if value - value == 0 else f'{{"n":"{value!r}"}}'
    if kind is complex:
        return f'{{"c":["{value.real!r}","{value.imag!r}"]}}'
    if kind is bytes:
        return f'{{"b":"{value.hex()}"}}'
    return _encode_many(value, kind, depth + 1)


def _encode_many(value: "Any", kind: type, depth: int) -> str:
    if depth > DEEPEST:
        raise Unplain(f"a value nested more than {DEEPEST} deep")
    if kind is dict or kind in _dict_like():
        value = [part for item in dict.items(value) for part in item]
        return f'{{"d":[{",".join([encode(part, depth) for part in value])}]}}'
    tags: dict[type, str] = {list: "", tuple: "t", set: "s", frozenset: "f"}
    tag = tags.get(kind)
    if tag is None:
        raise Unplain(f"a {kind.__name__}, which is not a plain value")
    inner = f"[{','.join([encode(part, depth) for part in value])}]"
    return f'{{"{tag}":{inner}}}' if tag else inner


def _dict_like() -> "list[Any]":
    module = sys.modules.get("collections")
    return [module.Counter, module.defaultdict, module.OrderedDict] if module else []


def main(job: "dict[str, Any]") -> None:
    """Start a child that raises the walls around itself and does the job; end with it, or when told from outside.

    This process is the first of its process namespace: the kernel kills all others when it ends, and shields it from
    their signals. Once the walls stand, the child says so on the status pipe and keeps only descriptors 0 to 2.
    """
    child = os.fork()
    if child:
        os._exit(_watch(child, job["leash"]))
    for name, value in job["limits"].items():
        _limit(getattr(resource, name), value)
    os.write(job["status"], b"%d " % _landlock(job["readable"]))
    os.closerange(3, max(4096, job["status"], job["leash"]) + 1)
    _MODES[job["mode"]](job)


def _watch(child: int, leash: int) -> int:
    """Return the child's exit status, as a shell would; 0 at once when the outside writes to the leash or lets go."""
    poll = select.poll()
    ended = os.pidfd_open(child)
    for number in (ended, leash):
        poll.register(number, select.POLLIN)
    if ended not in dict(poll.poll()):
        return 0
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _limit(which: int, value: int) -> None:
    most = resource.getrlimit(which)[1]
    # CPU time: the soft limit's signal tells the outside what happened; a program that ignores it gets a second more.
    hard = value + 1 if which == resource.RLIMIT_CPU else value
    if most != resource.RLIM_INFINITY:
        value, hard = min(value, most), min(hard, most)
    resource.setrlimit(which, (value, hard))


def _landlock(readable: "list[str]") -> int:
    """Shut this process and its children in; return the kernel's Landlock version, 0 where there is none.

    Reading and running is left for `readable`, all but sockets and devices for /tmp; TCP, and from version 6 signals
    and abstract sockets to processes outside, are forbidden.
    """
    try:
        call = _system_call()
    except (ImportError, AttributeError):
        return 0
    abi = call(_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return 0
    handled = (1 << (12 + min(abi, 3))) - 1 | (1 << 15 if abi >= 5 else 0)
    rules = handled.to_bytes(8, "little") + (3 if abi >= 4 else 0).to_bytes(8, "little")
    rules += (3 if abi >= 6 else 0).to_bytes(8, "little")
    ruleset = call(_CREATE_RULESET, rules, len(rules) if abi >= 6 else 16 if abi >= 4 else 8, 0)
    allowed = dict.fromkeys(readable, _READ) | {"/tmp": handled & ~_FORBIDDEN_IN_TMP, "/dev": _WRITE_DEVICE}
    for path, access in allowed.items():
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        call(_ADD_RULE, ruleset, 1, (access & handled).to_bytes(8, "little") + folder.to_bytes(4, "little"), 0)
        os.close(folder)
    return abi if call(_RESTRICT_SELF, ruleset, 0) == 0 else 0


def _system_call() -> "Callable[..., int]":
    """The C library's `syscall`, by way of ctypes' core, which loads in a fifth of the time ctypes takes."""
    import _ctypes

    class Long(_ctypes._SimpleCData):
        _type_ = "l"

    class Bytes(_ctypes._SimpleCData):
        _type_ = "z"

    own: Any = None  # what this process has loaded
    address = _ctypes.dlsym(_ctypes.dlopen(own, 0), "syscall")

    def call(*arguments: "int | bytes | None") -> int:
        typed = tuple(Long(value) if isinstance(value, int) else Bytes(value) for value in arguments)
        return int(_ctypes.call_function(address, typed))

    return call


class _Line:
    """The way out: requests come on what was standard input, replies go to what was standard output.

    The program finds an empty input, and what it prints goes to standard error, which the outside only counts.
    """

    def __init__(self) -> None:
        self._requests, self._replies = os.dup(0), os.dup(1)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(2, 1)

    def send(self, message: str) -> None:
        data = memoryview(message.encode() + b"\n")
        while data:
            data = data[os.write(self._replies, data) :]

    def receive(self) -> "Any":
        return marshal.loads(self._exactly(int.from_bytes(self._exactly(4), "little")))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = os.read(self._requests, count - len(data))
            if not more:
                os._exit(0)  # nobody asks any more
            data += more
        return data


def _module(name: str) -> "dict[str, Any]":
    """Make the module that the program is, with what `site` would have added to the builtins, without running it."""
    builtins.__dict__.update(exit=sys.exit, quit=sys.exit)
    module = type(sys)(name)
    sys.modules[name] = module
    sys.argv = ["program.py"]
    return module.__dict__


def _functions(job: "dict[str, Any]") -> None:
    """Load the program, then answer: (name,) asks what a name stands for, (name, args, kwargs) calls it."""
    line = _Line()
    names = _module("program")
    line.send(_claim(_run, (job["source"], names)))
    while True:
        name, *arguments = line.receive()
        if name not in names:
            line.send(encode(["missing"]))
        elif arguments:
            line.send(_claim(names[name], *arguments))
        else:
            line.send(encode(["callable"]) if callable(names[name]) else _claim(names.get, (name,)))


def _run(source: str, names: "dict[str, Any]") -> None:
    exec(compile(source, "program.py", "exec"), names)


def _claim(action: "Callable[..., Any]", args: "tuple[Any, ...]" = (), kwargs: "Any" = {}) -> str:  # noqa: B006
    try:
        value = action(*args, **kwargs)
    except BaseException as error:
        return encode(["raised", *_describe(error)])
    try:
        return encode(["value", value])
    except Unplain as error:
        return encode(["unplain", str(error)])
    except BaseException as error:
        return encode(["unplain", ": ".join(_describe(error))])


def _describe(error: BaseException) -> "tuple[str, str]":
    try:
        message = str(error)[:_LONGEST_MESSAGE]
    except BaseException:
        message = "(its text can't be had)"
    return str(type(error).__name__), message


class ProgramError(Exception):
    """An exception of the program's whose type the tests don't have, or that would end a loop of theirs quietly."""


class _Names(dict):
    """Builtins for the tests, in which a name that nothing defines is looked up in the program."""

    def __init__(self, line: _Line) -> None:
        super().__init__(builtins.__dict__)
        self._line = line
        self.contacted = False

    def __missing__(self, name: str) -> "Any":
        reply = self._ask(["get", name])
        if reply[0] == "callable":
            return self.proxy(name)
        return self._result(name, reply)

    def proxy(self, name: str) -> "Callable[..., Any]":
        """Return a function that calls `name` of the program and gives what it gave."""

        def call(*args: "Any", **kwargs: "Any") -> "Any":
            return self._result(name, self._ask(["call", name, args, kwargs]))

        call.__name__ = call.__qualname__ = name
        return call

    def _ask(self, message: "list[Any]") -> "Any":
        text = encode(message)
        self.contacted = True
        self._line.send(text)
        return self._line.receive()

    def _result(self, name: str, reply: "Any") -> "Any":
        if reply[0] == "value":
            return reply[1]
        if reply[0] == "missing":
            raise NameError(f"name {name!r} is not defined")
        raise _exception(*reply[1:])


def _exception(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not name.startswith("Stop"):
        try:
            return kind(message)
        except TypeError:  # such as UnicodeDecodeError, which wants more than a message
            pass
    return ProgramError(f"{name}: {message}")


def _tester(job: "dict[str, Any]") -> None:
    """Run the tests; the nonce is sent when the last of them is through, and by nothing else."""
    line = _Line()
    names = _Names(line)
    tests = _module("tests")
    tests["__builtins__"] = names
    place = "setup"
    try:
        setup = compile(job["setup"], "setup.py", "exec")
        place = "tests"
        code = compile(job["source"], "tests.py", "exec")
        place = "setup"
        exec(setup, tests)
        place = "tests"
        subject = names.proxy(job["entry_point"]) if job["entry_point"] else None
        if subject:
            if "check" not in code.co_names:
                raise NameError("they define no check")
            tests[job["entry_point"]] = subject
        exec(code, tests)
        if subject:
            tests["check"](subject)
    except BaseException as error:
        fault = "program" if names.contacted and not isinstance(error, Unplain) else "tests"
        line.send(encode(["failed", fault, place, *_describe(error), _line_of(error, job["source"])]))
        return
    line.send(encode(["passed", job["nonce"]]))


def _line_of(error: BaseException, source: str) -> str:
    """The line of the tests in which it was raised."""
    trace, number = error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == "tests.py":
            number = trace.tb_lineno
        trace = trace.tb_next
    return source.splitlines()[number - 1].strip()[:_LONGEST_MESSAGE] if number else ""


def _script(job: "dict[str, Any]") -> None:
    """Run a Python program as a script; what it leaves by (exception, exit) is the process's to show."""
    _run(job["source"], _module("__main__"))


def _execute(job: "dict[str, Any]") -> None:
    """Write a file and become the command that runs it."""
    _write(job)
    os.execv(job["command"][0], job["command"])


def _build(job: "dict[str, Any]") -> None:
    """Write a file, run the compiler on it, and print the binary; exits with 1 where it doesn't compile."""
    _write(job)
    pid = os.fork()
    if pid == 0:
        os.execv(job["command"][0], job["command"])
    if os.waitpid(pid, 0)[1]:
        sys.exit(1)
    with open("program", "rb") as binary:
        sys.stdout.buffer.write(binary.read())


def _write(job: "dict[str, Any]") -> None:
    with open(job["file"], "wb") as file:
        file.write(job["content"])
    os.chmod(job["file"], 0o755)


def _compile(job: "dict[str, Any]") -> None:
    """Print this very source compiled by this Python, for all later sandboxes to be spared the work."""
    sys.stdout.buffer.write(bytes(sys.version_info[:2]) + marshal.dumps(compile(job["source"], "inside.py", "exec")))


_MODES: "dict[str, Callable[[dict[str, Any]], None]]" = {
    "functions": _functions,
    "tester": _tester,
    "script": _script,
    "execute": _execute,
    "build": _build,
    "compile": _compile,
}
