"""The run itself: batches are judged and learned from, weights go out, chips fail.

What happens is a short list of instants (an update, a failure); between two of them samplers.py knows all.
"""

import numpy as np

from aftershock.address import generator
from aftershock.cost.simulation.outcome import Outcome, Step
from aftershock.cost.simulation.samplers import NONE, Rows, Samplers
from aftershock.cost.simulation.setup import Setup
from aftershock.errors import RecipeError

_PATIENCE = 1000  # failures without a checkpoint between them after which a job counts as hopeless


def simulate(setup: Setup) -> Outcome:
    """Return what a run of `setup.steps` steps comes to; the same setup gives the same numbers.

    Approximated: prompts are read as a part of each token's time, judging takes equal time for all, a chip fails at a
    constant rate, a failed learner's chip stops the whole job, and checkpoints cost nothing.
    """
    run = _Run(setup)
    while len(run.steps) < setup.steps:
        run.on()
    return run.outcome()


def served(arrivals: np.ndarray, free: np.ndarray, seconds: float) -> np.ndarray:
    """Return when each is done, first come first served, by judges of equal speed; exact.

    `arrivals` float64[n] ascend, as do `free` float64[judges], the seconds from which on each judge is free.
    """
    rounds = -(-arrivals.size // free.size)
    padded = np.full((rounds, free.size), np.inf)
    padded.ravel()[: arrivals.size] = arrivals
    before = np.arange(rounds)[:, None] * seconds
    begun = np.maximum(np.maximum.accumulate(padded - before, axis=0), free)
    return (begun + before + seconds).ravel()[: arrivals.size]


class _Run:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.samplers = Samplers(setup)
        learners = setup.slowness()[-(setup.learners or setup.samplers) :]
        self.train = setup.rates.train * learners.size / learners.max()
        self.judges = np.zeros(setup.judges)
        self.judged = NONE  # what waits to be learned from; `stop` is when it was judged
        self.steps: list[Step] = []
        self.now = self.free = self.learning = self.lost = self.saved_at = 0.0
        self.failures = self.saved = self.in_vain = 0
        self._await_failure(0.0)

    def _await_failure(self, now: float) -> None:
        self.chance = generator(self.setup.seed, "failure", self.failures)
        self.failure = now + self.setup.mtbf_hours * 3600 / self.setup.chips * self.chance.expovariate(1.0)

    def on(self) -> None:
        """Go on to the next update, or to a failure before it."""
        version = len(self.steps)
        allowed = self.setup.allowed(version)
        self.samplers.fill(allowed - self.samplers.begun, version, self.now)
        self.rows = self.judged.and_then(self._judge(self.samplers.foresee(allowed - self.samplers.begun, version)))
        batch, ready = self._batch()
        begin = max(ready, self.free)
        tokens = self._learnt(float(self.rows.tokens[batch].sum()), batch.size)
        end = begin + self.setup.rates.step_fixed + tokens / self.train
        if self.failure < end:
            self._fail()
        else:
            self._advance(end)
            self._learn(self.rows.order[batch], self.rows.version[batch], begin, tokens)

    def _learnt(self, tokens: float, completions: int) -> float:
        """Return the tokens learned from, prompts among them; which of a group's completions doesn't go by length."""
        setup = self.setup
        read = completions * setup.prompt_share
        return setup.learnt_share * tokens + (read if setup.shared else setup.learnt_share * read)

    def _learn(self, orders: np.ndarray, versions: np.ndarray, begin: float, tokens: float) -> None:
        self.learning += self.now - begin
        self.judged = self.judged.take(~np.isin(self.judged.order, orders, assume_unique=True))
        self.steps.append(Step(self.now, tokens, np.bincount(len(self.steps) - versions)))
        seconds = self.setup.transfer_seconds
        self.samplers.pause(seconds)
        self.free = self.now + seconds
        if len(self.steps) % self.setup.checkpoint_every == 0:
            self.saved, self.saved_at, self.in_vain = len(self.steps), self.now, 0

    def _batch(self) -> tuple[np.ndarray, float]:
        """Return the places in `rows` of the groups that the next step learns from, and when all of them are judged.

        Groups are begun and learned from whole, so a row's order says its group.
        """
        group, order = self.setup.group, self.rows.order
        first = int(order.min()) // group * group
        place = np.full((int(order.max()) // group + 1) * group - first, -1)
        place[order - first] = np.arange(order.size)
        places = place.reshape(-1, group)
        places = places[places[:, 0] >= 0]
        times = self.rows.stop[places].max(1)
        wanted = self.setup.batch // group
        chosen = np.arange(wanted) if self.setup.in_order else np.argsort(times, kind="stable")[:wanted]
        return places[chosen].ravel(), float(times[chosen].max())

    def _judge(self, rows: Rows) -> Rows:
        """Return the rows in the order in which they are judged, with the second of that; as they are if it is none."""
        if not self.setup.rates.judge:
            return rows
        rows = rows.take(np.argsort(rows.stop, kind="stable"))
        rows.stop = served(rows.stop, self.judges, self.setup.rates.judge)
        return rows

    def _advance(self, now: float) -> None:
        ended = self._judge(self.samplers.advance(now))
        if self.setup.rates.judge:
            self.judges = np.concatenate([self.judges, ended.stop])[-self.judges.size :]
        self.judged = self.judged.and_then(ended)
        self.now = now

    def _fail(self) -> None:
        """A chip fails: its engine decodes again what it had, or the whole job starts again from its checkpoint."""
        self._advance(self.failure)
        self.failures, self.in_vain = self.failures + 1, self.in_vain + 1
        if self.in_vain > _PATIENCE:
            raise RecipeError(f"{_PATIENCE} failures in a row between two checkpoints; make checkpoint_every smaller")
        setup, until = self.setup, self.now + self.setup.restart_seconds
        chip = self.chance.randrange(setup.chips)
        if setup.learners and chip < setup.samplers:
            again = self.samplers.fail(chip // setup.chips_per_engine, until)
            self.lost += (again + setup.restart_seconds) * setup.chips_per_engine
        else:
            self._start_again(until)
        self._await_failure(self.now)

    def _start_again(self, until: float) -> None:
        self.lost += (until - self.saved_at) * self.setup.chips
        self.saved_at = self.now = self.free = until
        del self.steps[self.saved :]
        self.samplers.clear(self.saved * self.setup.batch, until)
        self.judged, self.judges = NONE, np.full_like(self.judges, until)

    def outcome(self) -> Outcome:
        """Return the sums."""
        setup, seconds = self.setup, self.now
        sampling = float(self.samplers.busy.mean()) / seconds
        learning = self.learning / seconds
        idle = {"samplers": 1 - sampling, "learners": 1 - learning}
        return Outcome(
            steps=tuple(self.steps),
            chips=setup.chips,
            usd=seconds / 3600 * setup.chips * setup.usd_per_hour,
            idle=idle if setup.learners else {"chips": 1 - sampling - learning},
            lost_chip_hours=self.lost / 3600,
            failures=self.failures,
        )
