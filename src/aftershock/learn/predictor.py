"""A learner that trains multi-token-prediction modules beside the model [V3 2.2, eq. 21 to 25].

L = L_main + weight / D sum_k L_k,   L_k = -1/N sum_t log P_k(x_t),   k = 1 .. D

N are the tokens that count in the whole step, though module k can't foretell the first k + 1 of a sequence: so has it
eq. 24. The gradient flows on into the trunk, the embedding and the head that the modules share.
"""

import torch
from torch import Tensor

from aftershock.errors import TrainingError
from aftershock.learn.batch import Batch
from aftershock.learn.learner import Learner
from aftershock.learn.logprobs import chunked
from aftershock.learn.losses import LossValue, cross_entropy
from aftershock.models import CausalLM
from aftershock.recipe import OptimTable


class Predictor(Learner):
    """Trains `model` and its prediction modules in place on packed documents; `weight` is V3's lambda.

    A step's metrics are `Learner.step`'s, where `loss` is the sum of both; `mtp_loss`, the modules' mean L_k before the
    weight; and `mtp_acceptance`, the mean over the tokens that count of min(1, P_1 / P_main): where the data is what
    the model itself would write, the share of module 1's drafts that speculative sampling accepts.
    Raises TrainingError for a model without modules.
    """

    prediction = True

    def __init__(self, model: CausalLM, optim: OptimTable, weight: float, total_steps: int = 1) -> None:
        self.modules = len(model.model.mtp)
        if not self.modules:
            raise TrainingError(
                f"mtp_weight is {weight}, but the model has no multi-token-prediction module to train: make it with "
                "num_nextn_predict_layers = 1 (deepseek_v3 only), start from a checkpoint that holds one, or leave "
                "mtp_weight out"
            )
        super().__init__(model, optim, None, total_steps)
        self.causal, self.weight = model, weight

    def _backward(self, batch: Batch) -> LossValue:
        tokens, segments = batch.tokens[None], batch.segments
        with self._autocast():
            states = [self.causal.hidden(tokens, segments=segments)]
            for depth in range(1, self.modules + 1):
                states.append(self.causal.mtp_hidden(states[-1], tokens, segments, depth))
        counted = batch.mask.nonzero()[:, 0]
        own, entropy = self._read(states[0], batch, counted, 0)
        value = cross_entropy(own, batch.whole)
        total, accepted = own.new_zeros(()), own.new_zeros(())
        for depth in range(1, self.modules + 1):
            kept = _place(batch)[counted] > depth
            drafted, _ = self._read(states[depth], batch, counted[kept], depth)
            total = total - drafted.sum() / self.modules
            if depth == 1:
                accepted = (drafted - own[kept]).detach().exp().clamp(max=1).sum()
        loss = value.loss + self.weight * total / batch.whole.tokens
        loss.backward()
        return LossValue(loss, {"entropy": entropy.sum(), "mtp_loss": total.detach(), "mtp_acceptance": accepted})

    def _read(self, states: Tensor, batch: Batch, targets: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of the tokens at `targets` Long[n], read 1 + depth places before."""
        hidden = states[0].index_select(0, targets - 1 - depth).to(self.model.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            head = self.model.logits if depth == 0 else lambda x: self.causal.mtp_logits(x, depth)
            return chunked(head, hidden, batch.tokens[targets])


def _place(batch: Batch) -> Tensor:
    """Return Long[total]: each token's place in its own document."""
    bounds = batch.segments.bounds.long()
    return torch.arange(len(batch.tokens), device=bounds.device) - bounds[:-1].repeat_interleave(bounds.diff())
