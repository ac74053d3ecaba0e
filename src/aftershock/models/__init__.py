"""What is computed: the R1 family in plain PyTorch, one definition for training and for sampling."""

from aftershock.models.base import KVCache, LanguageModel, Segments
from aftershock.models.causal_lm import CausalLM, build
from aftershock.models.config import DeepseekConfig, DenseConfig, ModelConfig
from aftershock.models.exact import make_exact
from aftershock.models.folder import load, save
from aftershock.models.fp8 import make_fp8
from aftershock.models.moe import balance
from aftershock.models.scorer import Scorer, scorer_of

__all__ = [
    "CausalLM",
    "DeepseekConfig",
    "DenseConfig",
    "KVCache",
    "LanguageModel",
    "ModelConfig",
    "Scorer",
    "Segments",
    "balance",
    "build",
    "load",
    "make_exact",
    "make_fp8",
    "save",
    "scorer_of",
]
