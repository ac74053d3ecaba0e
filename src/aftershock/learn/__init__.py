"""How weights change: batches packed end to end, one loss a file, the optimiser, one training step."""

from aftershock.learn.advantages import GroupAdvantages, group_advantages, widest
from aftershock.learn.batch import Batch, Sample, Whole, pack, pack_documents, split
from aftershock.learn.distiller import Distiller
from aftershock.learn.learner import Learner
from aftershock.learn.logprobs import token_logprobs
from aftershock.learn.optim import learning_rate
from aftershock.learn.predictor import Predictor

__all__ = [
    "Batch",
    "Distiller",
    "GroupAdvantages",
    "Learner",
    "Predictor",
    "Sample",
    "Whole",
    "group_advantages",
    "learning_rate",
    "pack",
    "pack_documents",
    "split",
    "token_logprobs",
    "widest",
]
