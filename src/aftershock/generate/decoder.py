"""Continuous batching: prompts are prefilled together, and a finished row's place is taken at once."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from aftershock.address import uniforms
from aftershock.errors import AftershockError
from aftershock.generate.rows import Group, Request, Rows
from aftershock.generate.sampler import Sampler
from aftershock.generate.stops import StopStrings
from aftershock.generate.types import FinishReason
from aftershock.models.base import KVCache, LanguageModel
from aftershock.models.graphs import bucket
from aftershock.models.native.draws import Draws, draws

ROWS = 8  # the rows of a decode that isn't native, and
POSITIONS = 16  # the positions of a prefill and of the cache are rounded up to these: see docs/engine.md
PREFILL_TOKENS = 8192  # at most so many in one forward of a prefill, padding included
STEPS = 64  # native ones between two looks of Python, at most, and
PATIENCE = 16  # where a row that ends keeps its place from one that waits
STAGED = 16  # prompts prefilled together, at most


@dataclass(frozen=True)
class Layout:
    """How many rows a request takes: `decoded` at once, `staged` prompts waiting prefilled, `capacity` tokens each."""

    decoded: int
    staged: int
    capacity: int

    @classmethod
    def of(cls, max_rows: int, groups: int, requests: int, longest_prompt: int, max_tokens: int) -> "Layout":
        """Lay out rows for `requests` completions of `groups` distinct prompts."""
        decoded = rounded_up(min(max_rows, requests), ROWS)
        staged = min(STAGED, groups, max(1, max_rows // 4))
        # the last token drawn is never fed, and so needs no place
        return cls(decoded, staged, rounded_up(longest_prompt + max_tokens - 1, POSITIONS))


def rounded_up(count: int, multiple: int) -> int:
    """Return `count` rounded up to a multiple of `multiple`."""
    return -(-count // multiple) * multiple


class Finished(NamedTuple):
    """A completion as it stood in its row."""

    request: Request
    tokens: list[int]
    logprobs: list[float]
    sampled_logprobs: list[float]
    reason: FinishReason
    forwards: int


class Decoder:
    """Draws the completions of all `groups`, at most `max_rows` at once; call `step` until `done`.

    A prompt is prefilled, all but its last token, into a staging row past the decoded ones, and copied from there
    into the row of each of its requests; the last token is the first one fed, so that every draw comes from the same
    kind of step. Active rows stay compact: the last ones move into holes that no waiting request fills.
    """

    def __init__(
        self,
        model: LanguageModel,
        groups: Iterable[Group],
        sampler: Sampler,
        stops: StopStrings,
        eos: int,
        max_rows: int,
        layout: Layout,
    ) -> None:
        self.model, self.sampler, self.stops, self.eos = model, sampler, stops, eos
        self.padding = 1 if model.native else ROWS
        self.layout, self.device = layout, model.device
        self.max_tokens = sampler.params.max_tokens
        self.at_once = STEPS
        self.rows = self._new_rows()
        self._draws = self._native_draws()
        groups = list(groups)
        held = max((len(group.tokens) for group in groups), default=1) - 1
        room = rounded_up(max(held, 1), POSITIONS)
        self.cache = self._new_cache(layout.decoded + layout.staged, layout.capacity, room)
        # prompts of like length together, so that little is padded; the order can't be seen in what is drawn
        self._waiting = deque(sorted(groups, key=lambda group: len(group.tokens)))
        self._staged: deque[tuple[int, Group, deque[Request]]] = deque()
        self._fill(range(max_rows))

    @property
    def done(self) -> bool:
        """Whether every request is finished."""
        return self.rows.active == 0

    def step(self) -> list[Finished]:
        """Draw one token for each active row, or natively up to `at_once`; return what finished, its place taken."""
        padded = self._reach(1, self.padding)
        most = min(self.at_once, self.cache.room - int(self.rows.lengths[: self.rows.active].max()))
        if self._staged or self._waiting:
            most = min(most, PATIENCE)
        if self._draws is not None:
            self._draws.begin()
        if self._draws is None or not self.model.run(self._draws, self.rows.active, most, self.cache):
            self._draw(padded)
        return self._finish(self._ended())

    def _draw(self, padded: int) -> None:
        rows = self.rows
        logits = self.model.decode(self._tensor(rows.last[:padded]), self._tensor(rows.lengths[:padded]), self.cache)
        drawn = self.sampler(logits, self._tensor(uniforms(rows.keys[:padded], rows.steps[:padded])))
        rows.record(*(part[: rows.active].cpu().numpy() for part in drawn))

    def _native_draws(self) -> Draws | None:
        """Describe native draws, where the sampler's are."""
        if not self.sampler.native:
            return None
        closers = self.stops.closers.copy()
        closers[self.eos] = True
        return draws(self.sampler.params.temperature, self.sampler.bias, closers, self.rows.state)

    def _new_rows(self) -> Rows:
        return Rows(self.layout.decoded, self.max_tokens)

    def _new_cache(self, rows: int, capacity: int, room: int) -> KVCache:
        return self.model.new_cache(rows, capacity, room)

    def _reach(self, ahead: int, multiple: int = ROWS) -> int:
        """Lay out the cache for `ahead` more tokens of each active row; return how many rows a step computes."""
        rows, padded = self.rows, rounded_up(self.rows.active, multiple)
        if self.device.type == "cuda":  # few shapes, each of which is captured
            padded = bucket(padded, self.layout.decoded)
        read = rounded_up(int(rows.lengths[: rows.active].max()) + ahead, POSITIONS)
        if read > self.cache.room:
            self.cache.widen(read, self.cache.rows if self._staged or self._waiting else padded)
        return padded

    def _ended(self) -> dict[int, FinishReason]:
        """Return the rows that end with the token just drawn, and why."""
        rows, last = self.rows, self.rows.last[: self.rows.active]
        ended: dict[int, FinishReason] = dict.fromkeys(
            np.flatnonzero(rows.steps[: rows.active] == self.max_tokens).tolist(), "length"
        )
        if self.stops.stops:
            for row in np.flatnonzero(self.stops.closers[last]).tolist():
                if self.stops.completed(rows.tokens[row, : rows.steps[row]]):
                    ended[row] = "stop"
        ended |= dict.fromkeys(np.flatnonzero(last == self.eos).tolist(), "stop")
        return ended

    def _finish(self, ended: dict[int, FinishReason]) -> list[Finished]:
        """Return the rows' completions, and give their places to others."""
        rows, places = self.rows, list(ended)
        if not places:
            return []
        counts = rows.steps[places].tolist()
        told = [part[places, : max(counts)] for part in (rows.tokens, rows.logprobs, rows.sampled_logprobs)]
        if not (finite := np.isfinite(told[1] + told[2]).all(1)).all():  # what is left of earlier ones is finite too
            self._refuse(places[int(finite.argmin())])
        each = zip(places, counts, *(part.tolist() for part in told))
        finished = [
            Finished(rows.owner(row), tokens[:n], logprobs[:n], sampled[:n], ended[row], rows.forwards(row))
            for row, n, tokens, logprobs, sampled in each
        ]
        self._fill(ended)
        return finished

    def _refuse(self, row: int) -> NoReturn:
        request = self.rows.owner(row)
        raise AftershockError(
            f"the model gave logits that are not finite while completing prompt {request.prompt}, sample "
            f"{request.sample}: its weights have diverged, or logit_bias forbids every token; go back to the "
            "last good checkpoint with a lower learning rate, or lift the bias"
        )

    def _fill(self, free: Iterable[int]) -> None:
        """Give the `free` rows to waiting requests; close the holes that remain."""
        holes = deque(sorted(free))
        while holes and (self._staged or self._waiting):
            if not self._staged:
                self._stage()
            self._admit(holes)
        if holes and holes[0] < self.rows.active:
            self._compact(list(holes))

    def _stage(self) -> None:
        """Prefill the next waiting prompts into the staging rows."""
        count = min(len(self._waiting), self.layout.staged)
        groups = [self._waiting.popleft() for _ in range(count)]
        slots = np.arange(self.layout.decoded, self.layout.decoded + count)
        self._staged.extend((int(slot), group, deque(group.requests)) for slot, group in zip(slots, groups))
        self._prefill(groups, slots)

    def _prefill(self, groups: list[Group], slots: np.ndarray) -> None:
        """Feed all but the last token of each group's prompt to the cache's rows `slots`."""
        if not self.model.prefill([group.tokens[:-1] for group in groups], slots.tolist(), self.cache):
            for _ in self._states(groups, slots):
                pass

    def _states(self, groups: list[Group], slots: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        """Prefill in parts, right-padded; yield each one's first position and its states [groups, width, hidden]."""
        count, longest = len(groups), rounded_up(max(len(group.tokens) for group in groups) - 1, POSITIONS)
        tokens = np.zeros((count, longest), dtype=np.int64)
        for row, group in enumerate(groups):
            tokens[row, : len(group.tokens) - 1] = group.tokens[:-1]
        width = rounded_up(PREFILL_TOKENS // count, POSITIONS)
        for start in range(0, longest, width):
            yield (
                start,
                self.model.hidden(
                    self._tensor(tokens[:, start : start + width]),
                    cache=self.cache,
                    rows=self._tensor(slots),
                    starts=self._tensor(np.full(count, start)),
                ),
            )

    def _admit(self, holes: deque[int]) -> None:
        """Copy staged prompts into the first of `holes`, one for each of their requests, until either runs out."""
        source, target, longest = [], [], 0
        while holes and self._staged:
            slot, group, requests = self._staged[0]
            row = holes.popleft()
            self._begin(row, requests.popleft(), group.tokens)
            source.append(slot)
            target.append(row)
            longest = max(longest, len(group.tokens) - 1)
            if not requests:
                self._staged.popleft()
        self.rows.active = max(self.rows.active, target[-1] + 1)
        self._copy(source, target, longest)

    def _begin(self, row: int, request: Request, prompt: tuple[int, ...]) -> None:
        self.rows.place(row, request, prompt)

    def _compact(self, holes: list[int]) -> None:
        """Move the last active rows into the holes."""
        rows = self.rows
        holes = [hole for hole in holes if hole < rows.active]
        active = rows.active - len(holes)
        source = sorted(set(range(active, rows.active)) - set(holes))
        if source:
            target = [hole for hole in holes if hole < active]
            self._copy(source, target, int(rows.lengths[source].max()))
            rows.move(source, target)
        rows.shrink(active)

    def _copy(self, source: list[int], target: list[int], length: int) -> None:
        if length:
            self.cache.copy_rows(self._tensor(np.array(source)), self._tensor(np.array(target)), length)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
