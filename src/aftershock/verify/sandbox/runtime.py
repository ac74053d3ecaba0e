"""Which Python and which walls a sandbox has on this machine, found by trying, and the command that starts one."""

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from aftershock.errors import SandboxError
from aftershock.verify.program import Limits
from aftershock.verify.sandbox import seccomp
from aftershock.verify.sandbox.box import Box, Ended

NOBODY = 65534  # who a sandbox runs as when root starts it: root's processes escape the limit on processes
LEAST_PYTHON = (3, 11)
_PROBE_SECONDS = 20.0
_START = (
    "import marshal,os;c,j=marshal.loads(os.pread({0},os.fstat({0}).st_size,0));os.close({0});n={{}};"
    "exec(c if isinstance(c,str) else marshal.loads(c),n);n['main'](j)"
)
# Unreachable for the sandbox's user is, for example, a Python under root's home: root lends it by a bind mount that
# only the sandbox's own mount namespace has.
_LEND = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", 'mount --bind "$0" /mnt && exec "$@"')
_INSTALL = (
    "untrusted code is never run bare: install it (apt install bubblewrap util-linux; dnf install bubblewrap) and let "
    "users make namespaces (sysctl -w user.max_user_namespaces=15000, on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0; a container's seccomp profile must allow unshare and mount)"
)


@dataclass(frozen=True)
class Runtime:
    """How a sandbox is started here: `python` and its `prefix`, `lent` where root must bind it, and the walls found.

    `landlock` is the kernel's version of it, 0 where there is none; `inside` is inside.py, compiled by `python`.
    """

    python: str
    prefix: str
    lent: bool
    seccomp: bytes
    landlock: int = 0
    version: tuple[int, ...] = ()
    inside: bytes | str = b""

    def command(self, job: int, filter_: int | None, scratch_bytes: int) -> list[str]:
        """Return the command line; `job` and `filter_` are descriptors of the job and of the seccomp filter."""
        launch = [*_LEND, self.prefix] if self.lent else []
        if os.geteuid() == 0:
            launch += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        launch += ["bwrap", "--unshare-user", "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session"]
        launch += ["--clearenv", "--cap-drop", "ALL", "--hostname", "sandbox"]
        for name, value in {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}.items():
            launch += ["--setenv", name, value]
        launch += [*_system_folders(), "--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom"]
        launch += ["/dev/urandom", "--size", str(scratch_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
        if not _under_usr(self.prefix):
            launch += ["--ro-bind", "/mnt" if self.lent else self.prefix, self.prefix]
        launch += ["--remount-ro", "/", *(["--seccomp", str(filter_)] if filter_ is not None else []), "--"]
        return [*launch, self.python, "-S", "-s", "-P", "-B", "-X", "utf8", "-c", _START.format(job)]

    @property
    def readable(self) -> list[str]:
        """The folders that Landlock leaves readable."""
        return ["/usr", *([] if _under_usr(self.prefix) else [self.prefix])]


@dataclass(frozen=True)
class Walls:
    """What stands between an untrusted program and this machine; `landlock` is its version, 0 where there is none."""

    bubblewrap: str
    seccomp: bool
    landlock: int
    python: str

    def __str__(self) -> str:
        landlock = f"Landlock {self.landlock}" if self.landlock else "no Landlock in this kernel"
        filter_ = "seccomp" if self.seccomp else "no seccomp filter for this machine"
        return f"{self.bubblewrap}, {filter_}, {landlock}, running {self.python}"


def walls() -> Walls:
    """Start a sandbox and say what it is made of; SandboxError where none can be had, with what to install."""
    found = runtime()
    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS).stdout
    python = f"Python {'.'.join(map(str, found.version))} in {found.prefix}"
    return Walls(version.strip(), bool(found.seccomp), found.landlock, python)


@functools.cache
def runtime() -> Runtime:
    """Return the first way to start a sandbox that works, found once a process; SandboxError where none does.

    Tried in this order: this process's own Python where the sandbox's user can read it, the system's Python, and, as
    root, this process's Python lent by a bind mount; each with a seccomp filter, or without where the kernel has none.
    """
    needed = ["bwrap", *(["setpriv"] if os.geteuid() == 0 else [])]
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        raise SandboxError(f"no sandbox without {' and '.join(missing)}, which can't be found; {_INSTALL}")
    tries = []
    for candidate in _candidates():
        found, failure = _probe(candidate)
        if found:
            return found
        tries.append(f"{candidate.python}: {failure}")
    raise SandboxError(f"no sandbox could be started ({', '.join(dict.fromkeys(tries))}); {_INSTALL}")


def _candidates() -> Iterator[Runtime]:
    own, prefix = getattr(sys, "_base_executable", sys.executable), sys.base_prefix
    places = [(own, prefix, False), ("/usr/bin/python3", "/usr", False)]
    if os.geteuid() == 0:
        places.append((own, prefix, True))
    for filter_ in filter(None, [seccomp.program(), b"none"]):
        for python, where, lent in places:
            yield Runtime(python, where, lent, b"" if filter_ == b"none" else filter_)


def _probe(candidate: Runtime) -> tuple[Runtime | None, str]:
    source = Path(__file__).with_name("inside.py").read_text()
    job = {"mode": "compile", "source": source}
    try:
        with Box(replace(candidate, inside=source), job, Limits(), time.monotonic() + _PROBE_SECONDS, b"") as box:
            output, status = box.finish()
            started = box.started()
    except (Ended, OSError) as error:
        return None, str(error)
    if status or not started:
        return None, box.last_words()
    version = tuple(output[:2])
    if version < LEAST_PYTHON:
        return None, f"is Python {version[0]}.{version[1]}, 3.11 or newer is wanted"
    return replace(candidate, inside=output[2:], version=version, landlock=int(started)), ""


def _system_folders() -> list[str]:
    """Bind /usr, and what lies beside it in systems of either layout."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options


def _under_usr(prefix: str) -> bool:
    return Path(prefix).is_relative_to("/usr")
