"""A reward model: the trunk of a language model with one number for a head, as `*ForSequenceClassification` has it."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from aftershock.address import key
from aftershock.models.causal_lm import CausalLM
from aftershock.models.config import DeepseekConfig, ModelConfig
from aftershock.models.unset import unset


class Scorer(CausalLM):
    """Scores whole sequences: a linear map of the last token's hidden state [Stiennon et al., arXiv 2009.01325, 3.4].

    Its folder is Hugging Face's layout of a sequence classifier with one label (`score.weight`, no output head).
    """

    def __init__(self, config: ModelConfig, own: frozenset[str] = frozenset()) -> None:
        super().__init__(_scoring(config), own)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def scores(self, tokens: Tensor, ends: Tensor, **forms: object) -> Tensor:
        """Return Float[n] scores read at the positions `ends` Long[n] of the one row tokens Long[total].

        `forms` are those of `hidden`, such as `segments`. The head runs in the model's own dtype even under autocast.
        """
        hidden = self.hidden(tokens[None], **forms)[0, ends]  # type: ignore[arg-type]
        with torch.autocast(hidden.device.type, enabled=False):
            return self.score(hidden.to(self.dtype))[:, 0].float()


def _scoring(config: ModelConfig) -> ModelConfig:
    """Return the config of a sequence classifier: tied, so that there is no output head, and without MTP modules.

    A padding token that is also the end token is left out: transformers would read the score before the end.
    """
    kind = config.to_dict()["architectures"][0].replace("ForCausalLM", "ForSequenceClassification")
    extras = {**config.extras, "architectures": [kind], "num_labels": 1}
    extras |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    if extras.get("pad_token_id") == extras.get("eos_token_id"):
        extras.pop("pad_token_id", None)
    if isinstance(config, DeepseekConfig):
        config = replace(config, num_nextn_predict_layers=0)
    return replace(config, tie_word_embeddings=True, extras=extras)


@torch.no_grad()
def scorer_of(model: CausalLM, seed: int) -> Scorer:
    """Return a new reward model on the trunk of `model` (shared, not copied); only its head is drawn from the seed."""
    with unset():
        scorer = Scorer(model.config)
    scorer.model, scorer.rotary, scorer.companions = model.model, model.rotary, model.companions
    scorer.model.mtp = nn.ModuleList()
    draw = torch.Generator().manual_seed(key(seed, "init", "score.weight") >> 1)
    head = torch.empty(scorer.score.weight.shape).normal_(0.0, model.config.initializer_range, generator=draw)
    scorer.score.weight = nn.Parameter(head.to(model.device, model.dtype))
    return scorer.eval()
