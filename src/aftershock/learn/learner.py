"""One training step: forward and backward over packed batches, clip, AdamW, expert balance, and what is told of it."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aftershock import models
from aftershock.errors import CheckpointError, TrainingError
from aftershock.learn import lora
from aftershock.learn.batch import Batch
from aftershock.learn.logprobs import token_logprobs
from aftershock.learn.losses import LOSSES, LossValue, Terms, cross_entropy
from aftershock.learn.optim import (
    adamw,
    learning_rate,
    load_optimiser_state,
    optimiser_state,
    settled,
    take_step,
    trainable,
)
from aftershock.learn.recompute import is_tight, recomputed
from aftershock.models.base import LanguageModel
from aftershock.recipe import LossTable, OptimTable


@dataclass
class _Tally:
    """What a step's batches add up to: sums over tokens, and maxima."""

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)

    def add(self, value: LossValue) -> None:
        """Take in one batch's; what it has and others lacked counts from here on."""
        self.loss += value.loss.detach()
        for name, total in value.sums.items():
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        for name, largest in value.maxima.items():
            self.maxima[name] = torch.maximum(self.maxima[name], largest) if name in self.maxima else largest

    def metrics(self, tokens: int) -> dict[str, float]:
        means = {name: total.item() / tokens for name, total in self.sums.items()}
        return {"loss": self.loss.item(), **means, **{name: value.item() for name, value in self.maxima.items()}}


class Learner:
    """Trains `model` in place, by `loss` or, where it is None, by cross entropy on packed documents.

    The engine may read the same model between steps, and finds it in eval mode. Weights stay float32; with
    `precision = "bfloat16"` the forward and backward run under autocast and the output head in float32; "fp8" is that
    with the layers' products in FP8; "auto" is what `settled` takes for the model. `total_steps` counts optimiser
    steps: RL steps times mini-batches. `loss.kl` > 0 keeps a frozen copy of the model, at first its weights of now, as
    `reference`.
    """

    prediction = False  # whether prediction modules are trained beside the model

    def __init__(
        self, model: LanguageModel, optim: OptimTable, loss: LossTable | None = None, total_steps: int = 1
    ) -> None:
        if wrong := [name for name, p in trainable(model).items() if p.dtype != torch.float32]:
            raise TrainingError(
                f"weight {wrong[0]!r} is {trainable(model)[wrong[0]].dtype}; training wants float32 weights: load the "
                'model with dtype=torch.float32 and set optim.precision = "bfloat16" for speed'
            )
        optim = settled(optim, model)
        if optim.precision == "fp8":
            models.make_fp8(model)
        self.model = model.eval()
        self.optim = optim
        self.loss = loss
        self.total_steps = total_steps
        self.steps_done = 0
        self.optimiser = adamw(model, optim)
        self.adapted = any(lora.adapted(model))
        self.balance_rate = 0.0 if self.adapted else optim.balance_rate  # frozen weights: a frozen gate
        self.reference: LanguageModel | None = None
        if self.loss is not None and self.loss.kl > 0:
            self.reference = copy.deepcopy(model).requires_grad_(False).eval()

    @property
    def shares_deeply(self) -> bool:
        """Whether `pack` is to be `deep`: where C attends, of what completions share nothing is computed twice."""
        with self._autocast():
            return self.model.learns_natively

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one optimiser step on all batches of one `pack` and return its metrics.

        loss; grad_norm before clipping; lr; tokens that counted; entropy in nats a token; for a policy loss also
        clip_fraction, ratio_mean and ratio_max, approx_kl (old to new policy), kl (to the reference, where it is on),
        mismatch and mismatch_max (|sampler - learner| log-probability of a token); for a mixture of experts
        load/LAYER/EXPERT, 1 being an even share, and its largest, load_max_over_mean/LAYER. Raises TrainingError, with
        the weights as they were, on batches that aren't one whole pack and on a loss or gradient that isn't finite.
        """
        tokens = self._check(batches)
        metrics = self._accumulate(batches).metrics(tokens)
        metrics |= {"grad_norm": self._clip(metrics["loss"]), "lr": self._set_rate(), "tokens": float(tokens)}
        take_step(self.optimiser)
        if self.adapted:
            lora.refresh(self.model)
        self.steps_done += 1
        return metrics | self._balance()

    def step_minibatches(self, minibatches: Sequence[Sequence[Batch]]) -> dict[str, float]:
        """Take one optimiser step on each mini-batch of a rollout batch (see `split`); return their joint metrics.

        The old policy of the ratio is the one before the first step: were it taken anew before each, the ratio would
        always be 1 and the clip would never act. Metrics are means over steps, `tokens` a sum, `*_max` the largest.
        """
        if len(minibatches) > 1:
            minibatches = [self.old_logprobs(batches) for batches in minibatches]
        told = [self.step(batches) for batches in minibatches]
        return {name: _join(name, [metrics[name] for metrics in told]) for name in told[0]}

    def old_logprobs(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches with `old_logprobs` set under the weights of now, as a second step on rollouts needs."""
        return [replace(batch, old_logprobs=self._logprobs(self.model, batch)) for batch in batches]

    def refresh_reference(self) -> None:
        """Copy the weights of now into the reference (R1-Zero did every 400 steps); does nothing where kl is 0."""
        if self.reference is not None:
            self.reference.load_state_dict(self.model.state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return (tensors, scalars) from which training continues to the same bits.

        Tensors share memory with the learner: write them out before the next step. Names are `model.`, `reference.` and
        `optim.` before a parameter's own; tied weights appear once. Scalars are JSON-able.
        """
        tensors = {f"model.{name}": tensor for name, tensor in _weights(self.model).items()}
        if self.reference is not None:
            tensors |= {f"reference.{name}": tensor for name, tensor in _weights(self.reference).items()}
        tensors |= {f"optim.{name}": t for name, t in optimiser_state(self.optimiser, self.model).items()}
        return tensors, {"steps_done": self.steps_done}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, int]) -> None:
        """Restore what `state` gave, in place, so that an engine reading the model sees it.

        Raises CheckpointError, with the learner as it was, where names or shapes don't match the model or the loss.
        """
        kept = {f"model.{name}": tensor for name, tensor in _weights(self.model).items()}
        if self.reference is not None:
            kept |= {f"reference.{name}": tensor for name, tensor in _weights(self.reference).items()}
        _match(kept, {name: t for name, t in tensors.items() if not name.startswith("optim.")})
        moments = {name.removeprefix("optim."): t for name, t in tensors.items() if name.startswith("optim.")}
        load_optimiser_state(self.optimiser, self.model, moments)
        for name, tensor in kept.items():
            tensor.copy_(tensors[name])
        self.steps_done = scalars["steps_done"]

    def _check(self, batches: Sequence[Batch]) -> int:
        """Return the tokens that count in the step, or raise where the batches aren't one whole pack."""
        tokens = sum(int(batch.lengths.sum()) for batch in batches)
        if tokens == 0:
            raise TrainingError(
                f"step {self.steps_done}: nothing to learn from, no token counts in the loss: skip the step"
            )
        if any(batch.whole.tokens != tokens for batch in batches):
            raise TrainingError(
                f"step {self.steps_done}: the batches hold {tokens} tokens that count, but were packed as part of "
                f"{batches[0].whole.tokens}: pass step() all that one pack() returned, and nothing else"
            )
        return tokens

    def _accumulate(self, batches: Sequence[Batch]) -> _Tally:
        """Leave the step's gradient in the weights. A mixture counts its load in training mode, so only here."""
        self.optimiser.zero_grad(set_to_none=True)
        tally = _Tally(torch.zeros((), device=self.model.device))
        self.model.train()
        for batch in batches:
            again = is_tight(self.model, batch, self.optim, self.prediction)
            with recomputed(self.model) if again else nullcontext():
                tally.add(self._backward(batch.to(self.model.device)))
        self.model.eval()
        return tally

    def _forward(self, model: LanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
        with self._autocast():
            logprobs, entropy = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
        return batch.counted(logprobs), batch.counted(entropy)

    def _autocast(self) -> torch.autocast:
        half = self.optim.precision != "float32"
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=half)

    @torch.no_grad()
    def _logprobs(self, model: LanguageModel, batch: Batch) -> Tensor:
        """Return Float[m]: log-probabilities of the tokens that count, without gradient, where the batch lies."""
        return self._forward(model.eval(), batch.to(model.device))[0].to(batch.mask.device)

    def _backward(self, batch: Batch) -> LossValue:
        logprobs, entropy = self._forward(self.model, batch)
        value = self._loss(batch, logprobs)
        value.loss.backward()
        value.sums["entropy"] = entropy.sum()
        return value

    def _loss(self, batch: Batch, logprobs: Tensor) -> LossValue:
        if self.loss is None:
            return cross_entropy(logprobs, batch.whole)
        terms = self._terms(batch, logprobs)
        value = LOSSES[self.loss.kind](terms, self.loss)
        gap = (terms.old_logprobs - terms.sampler_logprobs).abs()
        value.sums["mismatch"], value.maxima["mismatch_max"] = gap.sum(), gap.max()
        if self.model.exact and gap.any():
            raise TrainingError(
                f"step {self.steps_done}: sampler and learner differ in {int(gap.count_nonzero())} of {len(gap)} "
                f"log-probabilities, by up to {gap.max().item()}; exact = true allows none. This processor, library or "
                "number of threads has kernels that docs/exactness.md doesn't know: take one thread, or leave exact "
                "out. The weights are as they were before the step"
            )
        return value

    def _terms(self, batch: Batch, logprobs: Tensor) -> Terms:
        if batch.sampler_logprobs is None:
            raise TrainingError("a policy loss needs the sampler's log-probabilities: pack samples, not documents")
        reference = batch.reference_logprobs
        if self.reference is not None and reference is None:
            reference = self._logprobs(self.reference, batch)
        old = batch.old_logprobs
        return Terms(
            logprobs=logprobs,
            old_logprobs=logprobs.detach() if old is None else old,
            sampler_logprobs=batch.sampler_logprobs,
            advantages=batch.advantages,
            lengths=batch.lengths,
            whole=batch.whole,
            reference_logprobs=reference,
        )

    def _clip(self, loss: float) -> float:
        """Clip the gradient to `clip_norm` and return its norm before; raise where it or the loss isn't finite."""
        weights = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            self.optimiser.zero_grad(set_to_none=True)
            raise TrainingError(
                f"step {self.steps_done}: loss {loss}, gradient norm {norm.item()}; both must be finite. "
                "The weights are as they were before the step: resume with a lower optim.lr, or in float32"
            )
        if self.optim.clip_norm / (norm + 1e-6) < 1:  # what all gradients are multiplied by, and else by 1
            torch.nn.utils.clip_grads_with_norm_(weights, self.optim.clip_norm, norm)
        return norm.item()

    def _set_rate(self) -> float:
        rate = learning_rate(self.optim, self.steps_done, self.total_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _balance(self) -> dict[str, float]:
        loads = models.balance(self.model, self.balance_rate)
        # A mixture that no token passed, such as an untrained MTP module's, has no load to tell of.
        even = {layer: (load / load.mean()).tolist() for layer, load in loads.items() if load.any()}
        each = {f"load/{layer}/{expert}": load for layer, shares in even.items() for expert, load in enumerate(shares)}
        return each | {f"load_max_over_mean/{layer}": max(shares) for layer, shares in even.items()}


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    """Return parameters (tied ones once) and persistent buffers by name, sharing their memory."""
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    own = {name for name, _ in model.named_parameters()}
    return {name: t for name, t in model.state_dict().items() if name in own or name not in tied}


def _match(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    if wrong := wanted.keys() ^ given.keys():
        raise CheckpointError(
            f"learner state: {len(wrong)} tensors missing or unexpected, first {min(wrong)!r}; the checkpoint belongs "
            "to another model or loss: resume with the recipe that wrote it"
        )
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            raise CheckpointError(
                f"learner state {name!r} has shape {tuple(given[name].shape)}, the model wants {tuple(tensor.shape)}: "
                "resume with the recipe that wrote it"
            )


def _join(name: str, values: Sequence[float]) -> float:
    if name.endswith("_max"):
        return max(values)
    return sum(values) if name == "tokens" else sum(values) / len(values)
