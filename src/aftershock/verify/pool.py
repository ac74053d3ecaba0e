"""Worker processes for checks: started, fed, timed, killed from outside when late, and replaced."""

import contextlib
import json
import mmap
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aftershock.errors import VerifierError
from aftershock.verify.channel import Channel
from aftershock.verify.verdict import Verdict
from aftershock.verify.worker import PROGRESS

Job = tuple[int, Any, str]  # which task, the problem, the answer to check

START_SECONDS = 120.0  # for a worker to import the tasks: reasoning-gym takes seconds on a busy machine
_HAND_OVER_SECONDS = 30.0
_KILL_SECONDS = 10.0
_IMPORTABLE = "a task must be importable: put it in a file of its own and name it as path/to/file.py:Class"
_CHUNK = 1024  # jobs sent at once: on a busy machine each round trip waits twice for a turn of the processor


class Worker:
    """One process; `pending` are the numbers of the jobs it still owes a verdict, in the order it will give them."""

    def __init__(self, setup: bytes, seconds: float) -> None:
        ours, theirs = socket.socketpair()
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        with theirs, tempfile.TemporaryFile() as shared:
            shared.truncate(PROGRESS.size)
            self._progress = mmap.mmap(shared.fileno(), PROGRESS.size)
            code = f"from aftershock.verify.worker import main; main({theirs.fileno()}, {shared.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno(), shared.fileno()],
                start_new_session=True,  # so that what a check started is killed with it
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.channel = Channel(ours)
        self.ready = False
        self.retired = False
        self.pending: deque[int] = deque()
        self._received = 0
        self._clock_from = time.monotonic()
        with contextlib.suppress(EOFError):  # met again, and explained, when its first message is read
            self.channel.send(setup, _HAND_OVER_SECONDS)

    @property
    def pid(self) -> int:
        """The process's id, which is also its process group's."""
        return self._process.pid

    @property
    def deadline(self) -> float:
        """When what it does now must have ended, on the monotonic clock; an idle worker has all the time there is."""
        if not self.ready:
            return self._clock_from + START_SECONDS
        if not self.pending:
            return float("inf")
        return max(self._clock_from, PROGRESS.unpack_from(self._progress)[1]) + self._seconds

    @property
    def under_way(self) -> int:
        """Where in `pending` the check stands that was begun last; those before it are done, though not yet sent."""
        place = PROGRESS.unpack_from(self._progress)[0] - self._received
        return place if 0 <= place < len(self.pending) else 0

    def hand_over(self, numbers: Sequence[int], jobs: Sequence[Job]) -> None:
        """Send the jobs of these numbers to an idle worker; the clock of the first starts."""
        self.pending.extend(numbers)
        self._clock_from = time.monotonic()
        with contextlib.suppress(EOFError):  # as above
            self.channel.send(pickle.dumps((True, [jobs[number] for number in numbers])), _HAND_OVER_SECONDS)

    def begin(self, job: Job) -> None:
        """Let an idle worker begin what a check will wait for; there is no answer, and no clock starts."""
        with contextlib.suppress(EOFError):  # as above
            self.channel.send(pickle.dumps((False, [job])), _HAND_OVER_SECONDS)

    def collect(self) -> list[tuple[int, Verdict]]:
        """Return the verdicts that have come in; EOFError where the process is gone."""
        verdicts = []
        for message in self.channel.receive_ready():
            if self.ready and not message:
                self.retired = True
            elif self.ready:
                verdicts += [(self.pending.popleft(), Verdict(*fields)) for fields in json.loads(message)]
            elif message:
                raise VerifierError(f"a check worker could not load the tasks:\n{message.decode()}{_IMPORTABLE}")
            else:
                self.ready = True
        self._received += len(verdicts)
        return verdicts

    def kill(self) -> int:
        """End the process and all that it started; return its exit status (negative: the signal that ended it)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # before wait(): until then the group's id can't be taken by another
        self.channel.close()
        return self._process.wait(_KILL_SECONDS)

    def last_words(self) -> str:
        """What it wrote to stderr before it was ready."""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode(errors="replace")


class Pool:
    """Worker processes that share out jobs; each check has `seconds`. Not for two threads at once."""

    def __init__(self, tasks: Sequence[Any], workers: int, seconds: float) -> None:
        try:
            packed = pickle.dumps(list(tasks))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise VerifierError(f"the tasks can't be sent to check workers: {error}; {_IMPORTABLE}") from error
        self._setup = pickle.dumps((packed, seconds))
        self._seconds = seconds
        self._workers = [Worker(self._setup, seconds) for _ in range(workers)]

    @property
    def pids(self) -> list[int]:
        """The ids of the processes held now."""
        return [worker.pid for worker in self._workers]

    def run(self, jobs: Sequence[Job], settle: Callable[[int, Verdict], None]) -> None:
        """Call `settle(number, verdict)` once for each job, in any order; what it raises ends the run.

        A check that is late or ends its process is settled as unverifiable; the jobs behind it go to another worker.
        """
        waiting = deque(range(len(jobs)))
        open_jobs = len(jobs)

        def done(number: int, verdict: Verdict) -> None:
            nonlocal open_jobs
            open_jobs -= 1
            settle(number, verdict)

        try:
            while open_jobs:
                self._feed(jobs, waiting)
                for slot in self._wait():
                    self._attend(slot, waiting, done)
        finally:
            self._drop_busy()

    def begin(self, job: Job) -> None:
        """Tell the worker of a job to come, where there is one that will get it and it is idle."""
        worker = self._workers[0]
        if len(self._workers) == 1 and worker.ready and not (worker.retired or worker.pending):
            worker.begin(job)

    def close(self) -> None:
        """End every worker and whatever it started."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _feed(self, jobs: Sequence[Job], waiting: deque[int]) -> None:
        # One worker takes all; of several each takes less than its share, so that none is left with the last long ones.
        share = max(1, min(_CHUNK, len(waiting) // (2 * len(self._workers) - 1)))
        for worker in self._workers:
            if waiting and worker.ready and not worker.retired and not worker.pending:
                worker.hand_over([waiting.popleft() for _ in range(min(share, len(waiting)))], jobs)

    def _wait(self) -> list[int]:
        """Return the slots of workers with news or past their deadline; an idle worker has no deadline."""
        with selectors.PollSelector() as selector:
            for slot, worker in enumerate(self._workers):
                selector.register(worker.channel, selectors.EVENT_READ, slot)
            seconds = min(worker.deadline for worker in self._workers) - time.monotonic()
            heard = [key.data for key, _ in selector.select(max(0.0, min(seconds, START_SECONDS)))]
        now = time.monotonic()
        late = [slot for slot, worker in enumerate(self._workers) if slot not in heard and now >= worker.deadline]
        return heard + late

    def _attend(self, slot: int, waiting: deque[int], done: Callable[[int, Verdict], None]) -> None:
        worker = self._workers[slot]
        try:
            verdicts = worker.collect()
        except EOFError:
            ending = _ending(worker.kill())
            self._replace(slot, waiting, done, None if worker.retired else f"the check's process {ending}")
            return
        for number, verdict in verdicts:
            done(number, verdict)
        if not verdicts and time.monotonic() >= worker.deadline:
            worker.kill()
            late = time.monotonic() >= worker.deadline  # else it went on to its next check before it was killed
            self._replace(slot, waiting, done, f"timed out after {self._seconds:g} s" if late else None)

    def _replace(
        self, slot: int, waiting: deque[int], done: Callable[[int, Verdict], None], reason: str | None
    ) -> None:
        """Put a new worker in a killed one's place; with a `reason`, the check under way is unverifiable for it."""
        worker = self._workers[slot]
        if not worker.ready:
            raise VerifierError(f"no check worker could start; one {reason}:\n{worker.last_words()}")
        self._workers[slot] = Worker(self._setup, self._seconds)
        culprit = worker.pending[worker.under_way] if reason and worker.pending else None
        waiting.extendleft(number for number in reversed(worker.pending) if number != culprit)
        if reason and culprit is not None:
            done(culprit, Verdict("unverifiable", reason))

    def _drop_busy(self) -> None:
        """After a run that was cut short: workers that still owe verdicts would give them to the next run."""
        for slot, worker in enumerate(self._workers):
            if worker.pending:
                worker.kill()
                self._workers[slot] = Worker(self._setup, self._seconds)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended itself with status {status}"
    if -status == signal.SIGALRM:
        return "ran out of time"
    return f"was ended by {signal.Signals(-status).name}"
