"""The same run, one completion and one instant at a time: slow, and without the quick one's tricks."""

import heapq
from dataclasses import dataclass

import numpy as np

from aftershock.address import key
from aftershock.cost.simulation import Setup


@dataclass
class Row:
    order: int
    version: int
    tokens: float
    left: float


class Plain:
    """No failures. `ends` and `ages` are the updates' seconds, and the staleness of each one's completions."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.rates = setup, setup.rates
        self.slots = setup.most_rows
        self.engines: list[dict[int, Row]] = [{} for _ in range(setup.engines)]
        self.slow = setup.slowness()[: setup.samplers].reshape(setup.engines, -1).max(1)
        self.base, self.nth = [0.0] * setup.engines, [0] * (self.slots * setup.engines)
        self.judges, self.judged = [0.0] * setup.judges, {}
        self.ends, self.ages, self.begun, self.now, self.free = [], [], 0, 0.0, 0.0

    def run(self) -> "Plain":
        self.fill()
        while len(self.ends) < self.setup.steps:
            end, batch = self.update()
            over, engine, slot = self.next_end()
            if end < over:
                self.learn(end, batch)
            else:
                self.finish(over, engine, slot)
        return self

    def step(self, engine: int) -> float:
        prefill = self.setup.prompt / self.rates.prefill / self.setup.lengths.mean
        rows = len(self.engines[engine])
        return (np.interp(rows, *zip(*self.rates.decode)) + prefill * rows) * self.slow[engine]

    def next_end(self) -> tuple[float, int, int]:
        ends = [
            (max(self.now, self.base[e]) + row.left * self.step(e), e, slot)
            for e, rows in enumerate(self.engines)
            for slot, row in rows.items()
        ]
        return min(ends, default=(float("inf"), 0, 0))

    def go(self, now: float) -> None:
        for e, rows in enumerate(self.engines):
            made = max(now - max(self.now, self.base[e]), 0) / self.step(e) if rows else 0
            for row in rows.values():
                row.left -= made
        self.now = now

    def begin(self, engine: int, slot: int) -> None:
        number = engine * self.slots + slot
        keys = np.array([key(self.setup.seed, "length", number)], np.uint64)
        tokens = float(self.setup.lengths.draw(keys, np.array([self.nth[number]]))[0])
        self.nth[number] += 1
        self.engines[engine][slot] = Row(self.begun, len(self.ends), tokens, tokens)
        self.begun += 1

    def allowed(self) -> bool:
        return self.begun < self.setup.allowed(len(self.ends))

    def fill(self) -> None:
        for slot in range(self.slots):
            for engine, rows in enumerate(self.engines):
                if slot not in rows and self.allowed():
                    self.begin(engine, slot)

    def finish(self, now: float, engine: int, slot: int) -> None:
        self.go(now)
        row = self.engines[engine].pop(slot)
        if self.rates.judge:
            done = max(heapq.heappop(self.judges), now) + self.rates.judge
            heapq.heappush(self.judges, done)
        self.judged[row.order] = (done if self.rates.judge else now, row)
        if self.allowed():
            self.begin(engine, slot)

    def update(self) -> tuple[float, list[int]]:
        size = self.setup.group
        whole = [g for g in range(self.begun // size) if all(o in self.judged for o in range(g * size, (g + 1) * size))]
        time = {g: max(self.judged[o][0] for o in range(g * size, (g + 1) * size)) for g in whole}
        wanted = self.setup.batch // size
        if self.setup.in_order:
            chosen = list(range(len(self.ends) * wanted, (len(self.ends) + 1) * wanted))
        else:
            chosen = sorted(time, key=lambda g: (time[g], g))[:wanted]
        if len(chosen) < wanted or not all(g in time for g in chosen):
            return float("inf"), []
        batch = [o for g in chosen for o in range(g * size, (g + 1) * size)]
        tokens = sum(self.judged[o][1].tokens + self.setup.prompt for o in batch)
        learners = self.setup.slowness()[-(self.setup.learners or self.setup.samplers) :]
        seconds = self.rates.step_fixed + tokens / (self.rates.train * len(learners) / max(learners))
        return max(self.free, *(time[g] for g in chosen)) + seconds, batch

    def learn(self, end: float, batch: list[int]) -> None:
        self.go(end)
        self.ages.append(sorted(len(self.ends) - self.judged.pop(o)[1].version for o in batch))
        self.ends.append(end)
        pause = self.rates.weight_bytes / self.setup.network
        self.free = end + pause
        for e, rows in enumerate(self.engines):
            cached = sum(row.tokens - row.left + self.setup.prompt for row in rows.values())
            again = cached / self.rates.prefill if self.setup.recompute else 0
            self.base[e] = max(self.base[e], end) + pause + again
        self.fill()
