"""Self-speculation: a model's own multi-token-prediction module drafts tokens, one forward of the model judges them.

Drafts are accepted by speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318), so that
what is drawn follows the model's own distribution, whatever the module thinks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aftershock.address import uniforms
from aftershock.errors import SamplingError
from aftershock.generate.decoder import Decoder, Finished, Layout
from aftershock.generate.rows import Group, Request, Rows
from aftershock.generate.sampler import Sampler, inverse_cdf
from aftershock.generate.stops import StopStrings
from aftershock.generate.types import FinishReason
from aftershock.models.base import KVCache, LanguageModel
from aftershock.models.causal_lm import CausalLM

ROWS = 4  # the rows of a step are rounded up to it: of two positions each, they make the eight a plain step has
_DRAFT, _ACCEPT = 1 << 40, 2 << 40  # added to a token's position: numbers of its own for each purpose


class Judged(NamedTuple):
    """Per row `counts` Long[rows] tokens stand: all but the last of them drafts. `tokens` Long[rows, k + 1]."""

    tokens: Tensor
    counts: Tensor


def judge(target: Tensor, drafts: Tensor, offered: Tensor, accept: Tensor, last: Tensor) -> Judged:
    """Accept the first drafts with probability min(1, target / offered) each, and draw one more token.

    That token comes from max(0, target - offered), normalised, at the first draft refused; from the target after the
    last draft where none was. target float32[rows, k + 1, vocab] and offered [rows, k, vocab] are probabilities, drafts
    Long[rows, k] was drawn from `offered`; `accept` float64[rows, k] and `last` [rows, k + 1] are uniforms in [0, 1).
    """
    rows, count = torch.arange(len(drafts), device=drafts.device), drafts.shape[1]
    wanted, had = (probs.gather(-1, drafts[..., None])[..., 0] for probs in (target[:, :count], offered))
    accepted = (accept * had < wanted).long().cumprod(-1).sum(-1)
    at_target = target[rows, accepted]
    refused = offered[rows, accepted.clamp(max=count - 1)] * (accepted < count)[:, None]
    rest = (at_target - refused).clamp(min=0)
    # equal but for rounding, the two leave nothing, and a draft is refused about never
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, at_target)
    tokens = torch.cat((drafts, drafts[:, :1]), 1)
    tokens[rows, accepted] = inverse_cdf(rest, last[rows, accepted])
    return Judged(tokens, accepted + 1)


class DraftRows(Rows):
    """Rows with what the module reads next: `following` Int[rows, k + 1], of which the first `fed` Int[rows] count.

    They are the tokens that came last, each after a position whose state is in `states` Float[rows, k + 1, hidden].
    """

    def __init__(self, count: int, max_tokens: int, states: Tensor) -> None:
        super().__init__(count, max_tokens)
        self.states = states
        self.following = np.zeros(states.shape[:2], dtype=np.int64)
        self.fed = np.zeros(count, dtype=np.int64)
        self.judged = np.zeros(count, dtype=np.int64)

    def begin(self, row: int, request: Request, prompt: tuple[int, ...], state: Tensor | None) -> None:
        """Begin `request`; `state` is that of the prompt's last token but one, None where it has one only."""
        self.place(row, request, prompt)
        self.judged[row], self.fed[row], self.following[row, 0] = 0, state is not None, prompt[-1]
        self.states[row] = 0
        if state is not None:
            self.states[row, 0] = state

    def move(self, source: list[int], target: list[int]) -> None:
        super().move(source, target)
        for array in (self.following, self.fed, self.judged):
            array[target] = array[source]
        self.states[target] = self.states[source]

    def forwards(self, row: int) -> int:
        return int(self.judged[row])


class SpeculativeDecoder(Decoder):
    """A decoder whose step drafts `sampler.params.draft` tokens a row and draws between one and one more than these.

    The module has a layer of its own in the cache, read and written as the model's: with it a draft costs one position
    of one layer, where computing the module's keys anew would cost all positions. What was written for drafts that
    were refused lies past a row's length, and is written over. Beyond its first draft the module reads its own state in
    the place of the model's, as DeepSeek's servers have it; further modules of a model are not used.
    """

    rows: DraftRows

    def __init__(
        self,
        model: CausalLM,
        groups: Iterable[Group],
        sampler: Sampler,
        stops: StopStrings,
        eos: int,
        max_rows: int,
        layout: Layout,
    ) -> None:
        self.causal, self.draft = model, sampler.params.draft
        self._last_states: dict[tuple[int, ...], Tensor] = {}
        super().__init__(model, groups, sampler, stops, eos, max_rows, layout)

    def step(self) -> list[Finished]:
        """Draw up to k + 1 tokens for each active row; return what finished, its place already taken."""
        rows, active = self.rows, self.rows.active
        padded = self._reach(self.draft + 1, ROWS)
        drafts, offered = self._drafts(padded)
        fed = torch.cat((self._tensor(rows.last[:padded, None]), drafts), 1)
        hidden = self.model.hidden(fed, cache=self.cache, starts=self._tensor(rows.lengths[:padded]))
        logits = self.model.logits(hidden).float().flatten(0, 1)
        own = self.sampler.own(logits)
        shaped = self.sampler.distribution(logits, own)
        tokens, counts = judge(
            shaped.exp().view(*hidden.shape[:2], -1),
            drafts,
            offered,
            self._uniforms(padded, self.draft, _ACCEPT),
            self._uniforms(padded, self.draft + 1, 0),
        )
        told = [values.gather(-1, tokens.flatten()[:, None]).view(tokens.shape) for values in (own, shaped)]
        rows.states[:padded] = hidden
        rows.following[:padded], rows.fed[:padded] = tokens.cpu().numpy(), counts.cpu().numpy()
        rows.judged[:active] += 1
        return self._record(rows.fed[:active], *(part[:active].cpu().numpy() for part in (tokens, *told)))

    def _drafts(self, padded: int) -> tuple[Tensor, Tensor]:
        """Return the drafts Long[padded, k] and the probabilities float32[padded, k, vocab] they were drawn from."""
        rows, numbers = self.rows, self._uniforms(padded, self.draft, _DRAFT)
        following = self._tensor(rows.following[:padded])
        starts = self._tensor(np.maximum(rows.lengths[:padded] - rows.fed[:padded], 0))
        states = self.causal.draft_hidden(following, rows.states[:padded], self.cache, starts=starts)
        state = states[torch.arange(padded, device=self.device), self._tensor(np.maximum(rows.fed[:padded] - 1, 0))]
        drafts: list[Tensor] = []
        offered: list[Tensor] = []
        for ahead in range(self.draft):
            if ahead:
                starts = self._tensor(rows.lengths[:padded] + ahead - 1)
                state = self.causal.draft_hidden(drafts[-1][:, None], state[:, None], self.cache, starts=starts)[:, 0]
            logits = self.causal.mtp_logits(state).float()
            offered.append(self.sampler.distribution(logits, logits.log_softmax(-1)).exp())
            drafts.append(inverse_cdf(offered[-1], numbers[:, ahead]))
        return torch.stack(drafts, 1), torch.stack(offered, 1)

    def _uniforms(self, padded: int, count: int, purpose: int) -> Tensor:
        """Return float64[padded, count]: each row's numbers for its next `count` tokens."""
        positions = self.rows.steps[:padded, None] + np.arange(count) + purpose
        return self._tensor(uniforms(self.rows.keys[:padded, None], positions))

    def _record(self, counts: np.ndarray, *told: np.ndarray) -> list[Finished]:
        """Write down the first `counts` of each row's tokens, as far as its end; return what finished."""
        ended: dict[int, FinishReason] = {}
        for ahead in range(self.draft + 1):
            counts[list(ended)] = 0
            if not (going := np.flatnonzero(counts > ahead)).size:
                break
            drawn, logprobs, sampled = (part[going, ahead] for part in told)
            self.rows.record(drawn, logprobs, sampled, going)
            ended = self._ended() | ended
        return self._finish(ended)

    def _new_rows(self) -> Rows:
        shape = (self.layout.decoded, self.draft + 1, self.causal.config.hidden_size)
        return DraftRows(
            self.layout.decoded, self.max_tokens, torch.zeros(shape, dtype=self.model.dtype, device=self.device)
        )

    def _new_cache(self, rows: int, capacity: int, room: int) -> KVCache:
        return self.causal.new_cache(rows, capacity, room, drafting=True)

    def _prefill(self, groups: list[Group], slots: np.ndarray) -> None:
        """Let the module read the prompts too, and keep each one's last state."""
        for start, hidden in self._states(groups, slots):
            count, width = hidden.shape[:2]
            following = np.zeros((count, width), dtype=np.int64)
            for row, group in enumerate(groups):
                next_ones = group.tokens[start + 1 : start + 1 + width]
                following[row, : len(next_ones)] = next_ones
                if start <= len(group.tokens) - 2 < start + width:
                    self._last_states[group.tokens] = hidden[row, len(group.tokens) - 2 - start].clone()
            starts, rows = self._tensor(np.full(count, start)), self._tensor(slots)
            self.causal.draft_hidden(self._tensor(following), hidden, self.cache, rows=rows, starts=starts)

    def _begin(self, row: int, request: Request, prompt: tuple[int, ...]) -> None:
        self.rows.begin(row, request, prompt, self._last_states.get(prompt))


def need_module(model: LanguageModel, draft: int) -> CausalLM:
    """Return the model as one that can draft; SamplingError where it has no module."""
    if isinstance(model, CausalLM) and model.model.mtp:
        return model
    raise SamplingError(
        f"draft is {draft}, but the model has no multi-token-prediction module to draft with: train one "
        "(num_nextn_predict_layers = 1 and mtp_weight in a pretrain stage), load a checkpoint that holds one, or set "
        "draft to 0"
    )
