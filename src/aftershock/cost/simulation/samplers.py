"""All sampling engines at once: between two interruptions the whole future of every row is worked out exactly.

While completions wait to begin every slot is full, so decode steps take equal time and slots don't touch one another.
When none waits rows only leave, and an engine's time is a sum over its rows in order of length. All of it is arrays:
10,000 chips cost no more Python than ten.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from aftershock.address import key
from aftershock.cost.simulation.setup import Setup


@dataclass
class Rows:
    """Completions as parallel arrays: slot, order of beginning, policy's version then, tokens, seconds."""

    slot: np.ndarray
    order: np.ndarray
    version: np.ndarray
    tokens: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def take(self, chosen: np.ndarray) -> "Rows":
        """Return some of the rows, by mask or index."""
        return Rows(*(column[chosen] for column in vars(self).values()))

    def and_then(self, other: "Rows") -> "Rows":
        """Return these rows and after them the others."""
        return Rows(*map(np.concatenate, zip(vars(self).values(), vars(other).values())))

    def __len__(self) -> int:
        return len(self.slot)


NONE = Rows(*(np.zeros(0, kind) for kind in (int, int, int, float, float, float)))


def drained(left: np.ndarray, base: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return when each row ends where none follows, float64[engines, slots].

    `left` float64[engines, slots] are tokens to go (0: empty), `base` float64[engines] the seconds from which on,
    `seconds` float64[engines, slots + 1] those of a step by how many rows are left.
    """
    order = np.argsort(left, axis=1)
    steps = np.diff(np.take_along_axis(left, order, 1), axis=1, prepend=0)
    ends = np.empty_like(left)
    np.put_along_axis(ends, order, base[:, None] + np.cumsum(steps * seconds[:, :0:-1], axis=1), 1)
    return ends


def _decoded(at: float, left: np.ndarray, ends: np.ndarray, base: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return how many steps each engine has made by `at` on the way that `drained` foretold."""
    over = ends <= at
    made = np.where(over, left, 0).max(1)
    since = np.maximum(base, np.where(over, ends, -np.inf).max(1))
    step = seconds[np.arange(base.size), np.maximum((~over).sum(1), 1)]
    return made + np.maximum(at - since, 0) / step


@cache
def _key(seed: int, slot: int) -> int:
    """Return the key of a slot's lengths, which setups that are compared share."""
    return key(seed, "length", slot)


class Samplers:
    """Engines by slots: `left` float64[engines, slots] tokens to go, `base` float64[engines] seconds from which on."""

    def __init__(self, setup: Setup) -> None:
        shape = (setup.engines, setup.most_rows)
        slow = setup.slowness()[: setup.samplers].reshape(setup.engines, -1).max(1)
        prefill = setup.prompt_share / setup.rates.prefill / setup.lengths.mean  # spread over a completion's tokens
        self.setup = setup
        rows = np.arange(shape[1] + 1)
        counts, seconds = np.array(setup.rates.decode).T
        alike = np.interp(rows, counts, seconds) + prefill * rows
        self.seconds = slow[:, None] * alike  # of a step, by engine and rows
        self.left, self.base, self.busy = np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[0])
        self.keys = np.array([_key(setup.seed, slot) for slot in range(self.left.size)], np.uint64)
        self.nth = np.zeros(self.left.size, int)  # how many lengths each slot has drawn
        self.by_turns = np.arange(self.left.size).reshape(shape).T.ravel()  # one slot of each engine, then the next
        self.turn_of = self.by_turns.argsort()
        self.flying, self.begun = NONE, 0

    def fill(self, waiting: int, version: int, now: float) -> None:
        """Begin completions in empty slots, at most `waiting`."""
        free = self.by_turns[self.left.ravel()[self.by_turns] == 0][:waiting]
        drawn = self.setup.lengths.draw(self.keys[free], self.nth[free])
        self.nth[free] += 1
        self.left.ravel()[free] = drawn
        self.flying = self.flying.and_then(self._begin(free, version, drawn, np.full(free.size, now)))
        self.begun += free.size

    def foresee(self, waiting: int, version: int) -> Rows:
        """Return all that is under way or begins as slots come free, with the second at which each row ends."""
        each = self.seconds[:, -1]
        rows = self.flying
        rows.stop = (self.base[:, None] + self.left * each[:, None]).ravel()[rows.slot]
        if waiting:
            rows = rows.and_then(self._following(waiting, version, np.repeat(each, self.left.shape[1])))
        self.turn = float(rows.start[len(self.flying) :].max(initial=-np.inf))
        last, stops = np.full(self.left.size, -1), np.full(self.left.size, -np.inf)
        last[rows.slot], stops[rows.slot] = np.arange(len(rows)), rows.stop  # of a slot's rows the last one stays
        self.full_speed = rows.stop.copy()
        self.turned = np.maximum(self.base, self.turn)
        self.then_left = np.maximum((stops.reshape(self.left.shape) - self.turned[:, None]) / each[:, None], 0)
        self.ends = drained(self.then_left, self.turned, self.seconds)
        rows.stop[last[last >= 0]] = self.ends.ravel()[last >= 0]
        self.rows = rows
        return rows

    def _begin(self, slot: np.ndarray, version: int, tokens: np.ndarray, start: np.ndarray) -> Rows:
        order = self.begun + np.arange(slot.size)
        return Rows(slot, order, np.full(slot.size, version), tokens, start, np.zeros(slot.size))

    def _following(self, waiting: int, version: int, each: np.ndarray) -> Rows:
        """The next `waiting` rows: each begins as another ends, all slots being full. `each` is a slot's step."""
        ends, nth = np.zeros(self.left.size), self.nth.copy()
        ends[self.flying.slot] = self.flying.stop
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        count = 0
        while count < waiting:
            until = np.partition(ends, (most := min(waiting - count, ends.size) - 1))[most]
            while (slot := np.flatnonzero(ends <= until)).size:
                tokens = self.setup.lengths.draw(self.keys[slot], nth[slot])
                found.append((slot, tokens, ends[slot]))
                nth[slot] += 1
                ends[slot] += tokens * each[slot]
                count += slot.size
        slot, tokens, start = map(np.concatenate, zip(*found))
        first = np.lexsort((self.turn_of[slot], start))[:waiting]  # ties: to an engine each
        rows = self._begin(slot[first], version, tokens[first], start[first])
        rows.stop = rows.start + rows.tokens * each[rows.slot]
        return rows

    def advance(self, now: float) -> Rows:
        """Go on to `now` on the way foreseen; return the rows that ended."""
        rows, known = self.rows, len(self.flying)
        begun = rows.start <= now
        begun[:known] = True
        over = rows.stop <= now
        follow = rows.slot[known:][begun[known:]]
        self.nth += np.bincount(follow, minlength=self.nth.size)
        self.begun += follow.size
        self.busy += np.maximum(np.minimum(self.ends.max(1), now) - self.base, 0)
        self._keep(rows, begun & ~over, now)
        self.base = np.maximum(self.base, now)
        return rows.take(over)

    def _keep(self, rows: Rows, chosen: np.ndarray, now: float) -> None:
        flying = rows.take(chosen)
        engine = flying.slot // self.left.shape[1]
        if now < self.turn:
            each = self.seconds[engine, -1]
            left = (self.full_speed[chosen] - np.maximum(now, self.base[engine])) / each
        else:
            made = _decoded(now, self.then_left, self.ends, self.turned, self.seconds)
            left = self.then_left.ravel()[flying.slot] - made[engine]
        self.left = np.zeros_like(self.left)
        self.left.ravel()[flying.slot] = np.maximum(left, 1e-9)
        self.flying = flying

    def pause(self, seconds: float) -> None:
        """Stop all engines for new weights, and for making their caches anew where the setup says so."""
        self.base = self.base + seconds
        if self.setup.recompute:
            done = self.flying.tokens - self.left.ravel()[self.flying.slot] + self.setup.prompt
            engine = self.flying.slot // self.left.shape[1]
            cached = np.bincount(engine, weights=done, minlength=self.base.size)
            self.base += cached / self.setup.rates.prefill

    def fail(self, engine: int, until: float) -> float:
        """Lose what an engine has decoded and stop it; return the seconds that decoding it again takes."""
        mine = self.flying.slot // self.left.shape[1] == engine
        slots = self.flying.slot[mine]
        again = float((self.flying.tokens[mine] - self.left.ravel()[slots]).sum())
        self.left.ravel()[slots] = self.flying.tokens[mine]
        self.base[engine] = until
        return again * float(self.seconds[engine, -1]) / self.left.shape[1]

    def clear(self, begun: int, until: float) -> None:
        """Drop everything, as where a whole job starts again."""
        self.flying, self.left, self.begun = NONE, np.zeros_like(self.left), begun
        self.base = np.full_like(self.base, until)
