"""A learner whose loss is its divergence from a teacher."""

import torch
from torch import Tensor

from aftershock.learn.batch import Batch
from aftershock.learn.learner import Learner
from aftershock.learn.logprobs import CHUNK_BYTES, in_chunks, kept_hidden, width
from aftershock.learn.losses import LossValue
from aftershock.learn.losses.distill import Divergence, distillation, divergence
from aftershock.models.base import LanguageModel
from aftershock.recipe import OptimTable


class Distiller(Learner):
    """Trains `model` in place towards `teacher`'s next-token distributions; the teacher is frozen and put in eval mode.

    The two read the same tokens by the same numbers and lie on the same device; whoever calls has checked it. A step's
    metrics are `Learner.step`'s, with forward_kl and reverse_kl in nats a token and agreement, the share of tokens
    where both think the same likeliest.
    """

    def __init__(
        self,
        model: LanguageModel,
        teacher: LanguageModel,
        optim: OptimTable,
        kind: Divergence,
        temperature: float = 1.0,
        total_steps: int = 1,
    ) -> None:
        super().__init__(model, optim, None, total_steps)
        self.teacher = teacher.requires_grad_(False).eval()
        self.kind: Divergence = kind
        self.temperature = temperature

    def _backward(self, batch: Batch) -> LossValue:
        own = self._hidden(self.model, batch)
        with torch.no_grad():
            theirs = self._hidden(self.teacher, batch)
        vocab = width(self.model.logits, own) + width(self.teacher.logits, theirs)
        each, told = in_chunks(self._read, (own, theirs), CHUNK_BYTES // (4 * vocab))
        value = distillation(batch.counted(each), batch.counted(told), batch.whole)
        value.loss.backward()
        return value

    def _hidden(self, model: LanguageModel, batch: Batch) -> Tensor:
        with self._autocast():
            return kept_hidden(model, batch.tokens, batch.segments, batch.mask)

    def _read(self, own: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        return divergence(self.model.logits(own), self.teacher.logits(theirs), self.kind, self.temperature)
