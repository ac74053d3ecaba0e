"""Reward models: the losses they are trained by, the step that takes them, and the scores they give.

Pairs      L = -1/N sum log sigmoid(s_chosen - s_rejected)               [Bradley-Terry; arXiv 2203.02155, eq. 1]
Judgements L = -1/N sum y log sigmoid(s) + (1 - y) log sigmoid(-s)        [R1's safety model: pointwise]
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from aftershock.learn.batch import Batch, bins
from aftershock.learn.learner import Learner
from aftershock.learn.losses import LossValue
from aftershock.models import Scorer, Segments
from aftershock.recipe import OptimTable


def bradley_terry(scores: Tensor) -> Tensor:
    """Return the summed loss, in nats, of pairs: Float[2n] scores, each chosen one followed by its rejected one."""
    chosen, rejected = scores.view(-1, 2).unbind(1)
    return -F.logsigmoid(chosen - rejected).sum()


def logistic(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the summed loss, in nats, of scores Float[n] whose labels Float[n] are 1 (good) or 0."""
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


class RewardLearner(Learner):
    """Trains a reward model in place, on what `pack_scored` packs: pairs, or single documents with a label."""

    model: Scorer

    def __init__(self, model: Scorer, optim: OptimTable, pairwise: bool, total_steps: int) -> None:
        super().__init__(model, optim, None, total_steps)
        self.pairwise = pairwise

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one optimiser step; metrics as of a Learner, with `loss` in nats a pair (or judgement), the share of
        them that were right before the step (`accuracy`), and `examples`, their number, in place of tokens.
        """
        metrics = super().step(batches)
        each = 2 if self.pairwise else 1
        metrics["examples"] = metrics.pop("tokens") / each
        return metrics | {"accuracy": each * metrics["accuracy"]}

    def _backward(self, batch: Batch) -> LossValue:
        with self._autocast():
            scores = self.model.scores(batch.tokens, batch.mask.nonzero()[:, 0], segments=batch.segments)
        if self.pairwise:
            total, right = bradley_terry(scores), scores[::2] > scores[1::2]
        else:
            labels = batch.advantages
            total, right = logistic(scores, labels), (scores > 0) == (labels > 0.5)
        loss = total * (2 if self.pairwise else 1) / batch.whole.sequences
        loss.backward()
        return LossValue(loss, sums={"accuracy": right.sum()})


@torch.no_grad()
def score_all(model: Scorer, documents: Sequence[Sequence[int]], micro_tokens: int) -> list[float]:
    """Return a reward model's score of every document, in order; at most `micro_tokens` tokens in one forward."""
    model.eval()
    found = [0.0] * len(documents)
    lengths = [len(document) for document in documents]
    for members in bins(lengths, micro_tokens):
        ends = list(accumulate(lengths[index] for index in members))
        tokens = torch.tensor([token for index in members for token in documents[index]], device=model.device)
        places = torch.tensor([0, *ends], dtype=torch.int32, device=model.device)
        longest = max(lengths[index] for index in members)
        scores = model.scores(tokens, places[1:].long() - 1, segments=Segments(places, longest))
        for index, score in zip(members, scores.tolist()):
            found[index] = score
    return found
