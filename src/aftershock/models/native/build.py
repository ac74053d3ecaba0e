"""Our C, compiled once on each machine by its own C compiler, kept, and loaded.

Each library is one file here with the headers it includes: `step` for decoding, `train` for the learner.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SWITCH = "AFTERSHOCK_NATIVE"  # 0 in the environment: as on a machine without a compiler
_SOURCES = Path(__file__).parent
_TUNED = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
_FLAGS = ("-O3", _TUNED, "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
_SECONDS = 120  # for a few seconds' work, on a busy machine


def library(name: str = "step") -> ctypes.CDLL | None:
    """Return the library of `name`.c, loaded; None where there's no C compiler, it fails, or `AFTERSHOCK_NATIVE` is 0.

    So it depends on the machine and its environment alone, and a run resumed there takes the same path.
    """
    found = None if os.environ.get(SWITCH) == "0" else _load(name)
    return found if isinstance(found, ctypes.CDLL) else None


def why_not(name: str = "step") -> str:
    """Return why there is no library, in a few words; empty where there is one."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    found = _load(name)
    return found if isinstance(found, str) else ""


@functools.cache
def _load(name: str) -> ctypes.CDLL | str:
    """Return the library, or what stands against it."""
    compiler = _compiler()
    if compiler is None:
        return "no cc, gcc or clang"
    if os.name != "posix":
        return "not a POSIX system"
    try:
        return ctypes.CDLL(str(_compiled(compiler, name)))
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return f"{compiler[0]} fails ({last[0]})"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{compiler[0]} fails ({error})"


def _compiler() -> list[str] | None:
    wanted = [shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]]
    return next((words for words in wanted if words and shutil.which(words[0])), None)


def _compiled(compiler: list[str], name: str) -> Path:
    """Return the library's path, in the user's cache or else in a folder that goes with the process."""
    file = f"{name}-{_digest(compiler)}.so"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aftershock" / "native"
        if (folder / file).exists():
            return folder / file
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            return _compile(compiler, name, Path(made) / file).rename(folder / file)  # at once, whoever else does it
    except (OSError, RuntimeError):  # no folder of the user's can be written, or the user has no home
        return _compile(compiler, name, _own_folder() / file)


def _digest(compiler: list[str]) -> str:
    """Name the sources, the flags and, by the macros it defines, the compiler's version and the processor's kind."""
    digest = hashlib.blake2b(repr((compiler, _FLAGS)).encode(), digest_size=16)
    for path in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    digest.update(_run([*compiler, _TUNED, "-dM", "-E", "-x", "c", os.devnull]))
    return digest.hexdigest()


def _compile(compiler: list[str], name: str, to: Path) -> Path:
    _run([*compiler, *_FLAGS, str(_SOURCES / f"{name}.c"), "-o", str(to), "-lm"])
    return to


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout


_folders: list[tempfile.TemporaryDirectory] = []


def _own_folder() -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="aftershock-"))
    return Path(_folders[-1].name)
