"""A task whose check does what the answer says, good or ill."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time

from aftershock.tasks import Problem, Task
from aftershock.verify.verdict import Verdict


class Nasty(Task):
    name = "nasty"
    waits = True

    def make(self, rng: random.Random) -> Problem:
        number = rng.randrange(10**6)
        return Problem(self.name, f"nasty-{number}", "Say right.", "right", data={"number": number})

    def begin(self, problem: Problem, answer: str) -> None:
        self.begun = [*getattr(self, "begun", []), answer]
        if answer == "doze":
            time.sleep(0.3)
        if answer == "raise":
            raise KeyError("lost early")

    def check(self, problem: Problem, answer: str) -> Verdict:
        deed = getattr(self, f"do_{answer.split(':')[0]}", None)
        if deed is not None:
            return deed(answer)
        return Verdict("right" if answer == "right" else "wrong", f"was {answer}")

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        return "wrong"

    def do_begun(self, answer: str) -> Verdict:
        return Verdict("right", f"after {self.begun[-4:]}")

    def do_count(self, answer: str) -> Verdict:
        """Fail at first where the answer ends in "late"; tell how often this answer was checked."""
        self.counts = getattr(self, "counts", {})
        self.counts[answer] = self.counts.get(answer, 0) + 1
        if answer.endswith("late") and self.counts[answer] == 1:
            raise KeyError("not yet")
        return Verdict("right", f"check {self.counts[answer]}")

    def do_raise(self, answer: str) -> Verdict:
        raise KeyError("lost")

    def do_loop(self, answer: str) -> Verdict:
        while True:
            pass

    def do_hold(self, answer: str) -> Verdict:
        """Hang inside C with the interpreter's lock held."""
        ctypes.PyDLL(None).sleep(1000)
        raise AssertionError

    def do_exit(self, answer: str) -> Verdict:
        os._exit(3)

    def do_quit(self, answer: str) -> Verdict:
        sys.exit("goodbye")

    def do_crash(self, answer: str) -> Verdict:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError

    def do_garbage(self, answer: str) -> Verdict:
        return "right"

    def do_badoutcome(self, answer: str) -> Verdict:
        return Verdict("splendid")

    def do_badreason(self, answer: str) -> Verdict:
        return Verdict("right", reason=7)

    def do_allocate(self, answer: str) -> Verdict:
        return Verdict("right", str(len(bytearray(8 << 30))))

    def do_print(self, answer: str) -> Verdict:
        print("x" * 100_000)
        print("x" * 100_000, file=sys.stderr)
        return Verdict("right")

    def do_read(self, answer: str) -> Verdict:
        return Verdict("right", input())

    def do_breed(self, answer: str) -> Verdict:
        """Start a process that outlives the check, and note its id in the file named after the colon."""
        child = subprocess.Popen(["sleep", "1000"])
        with open(answer.split(":", 1)[1], "w") as file:
            file.write(str(child.pid))
        time.sleep(1000)
        raise AssertionError

    def do_surrogate(self, answer: str) -> Verdict:
        return Verdict("right", "\ud800" * 5000, "\ud800")

    def do_nap(self, answer: str) -> Verdict:
        time.sleep(float(answer.split(":")[1]))
        return Verdict("right")
