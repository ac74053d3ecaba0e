"""Check workers that any thread, asyncio task, Ray actor or forked child may use at any time."""

import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aftershock.verify.pool import Job, Pool
from aftershock.verify.verdict import Verdict

_LARGEST_PART = 256  # jobs of a batch one worker is given at once: few enough that none is left with the last long ones


class SharedPool:
    """Up to `workers` single-threaded processes, started when first needed, each lent to one caller at a time.

    `tasks` are pickled, as for a `Pool`; each check has `seconds` and is killed from outside when late. The processes
    end with this one, or at `close()`; used again, it starts new ones. A forked child never uses its parent's.
    """

    def __init__(self, tasks: Sequence[Any], workers: int | None = None, seconds: float = 10.0) -> None:
        self._tasks = list(tasks)
        self._workers = workers or min(os.cpu_count() or 1, 8)
        self._seconds = seconds
        self.renew()
        _ALIVE.add(self)

    def check(self, index: int, problem: Any, answer: str) -> Verdict:
        """Return what task number `index` says of `answer`; waits for a free worker, then at most `seconds` for it.

        Unverifiable where the check raises, is late or ends its process. VerifierError where no worker can start.
        """
        return self.check_many([(index, problem, answer)])[0]

    def check_many(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Return a verdict for each (task index, problem, answer), in order, from all the workers that are free now."""
        verdicts: dict[int, Verdict] = {}
        with self._lend(len(jobs)) as lent:
            size = max(1, min(_LARGEST_PART, len(jobs) // (4 * len(lent) or 1)))
            parts = iter([range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size)])
            if len(lent) > 1:
                with ThreadPoolExecutor(len(lent)) as threads:
                    list(threads.map(lambda slot: slot.serve(jobs, parts, verdicts), lent))
            elif lent:
                lent[0].serve(jobs, parts, verdicts)
        return [verdicts[number] for number in range(len(jobs))]

    def close(self) -> None:
        """End the workers, each once its caller is done with it."""
        with self._closing:
            for _ in range(self._workers):
                self._free.get().end()
            self.renew()

    def renew(self) -> None:
        """Forget the workers without ending them, as a forked child must: they are its parent's."""
        self._closing = threading.Lock()
        self.slots = [_Slot(self._tasks, self._seconds) for _ in range(self._workers)]
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()  # the one used last is warm
        for slot in self.slots:
            self._free.put(slot)

    @contextlib.contextmanager
    def _lend(self, wanted: int) -> Iterator[list["_Slot"]]:
        """Lend up to `wanted` slots: the first is waited for, others come along where they are free."""
        free = self._free
        lent = [free.get()] if wanted else []
        try:
            with contextlib.suppress(queue.Empty):
                while len(lent) < wanted:
                    lent.append(free.get_nowait())
            yield lent
        finally:
            for slot in lent:
                free.put(slot)


class _Slot:
    """A place for one worker, which starts at its first job."""

    def __init__(self, tasks: Sequence[Any], seconds: float) -> None:
        self._tasks = tasks
        self._seconds = seconds
        self.pool: Pool | None = None

    def serve(self, jobs: Sequence[Job], parts: Iterator[range], verdicts: dict[int, Verdict]) -> None:
        """Settle part after part of the jobs until none is left; several slots draw from the same `parts`."""
        if self.pool is None:
            self.pool = Pool(self._tasks, 1, self._seconds)
        for part in parts:
            found: dict[int, Verdict] = {}
            self.pool.run([jobs[number] for number in part], found.__setitem__)
            verdicts.update((part[place], verdict) for place, verdict in found.items())

    def end(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None


_ALIVE: weakref.WeakSet[SharedPool] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for pool in list(_ALIVE):
        for slot in pool.slots:
            slot.end()


def _forget_all() -> None:
    for pool in list(_ALIVE):
        pool.renew()


os.register_at_fork(after_in_child=_forget_all)
