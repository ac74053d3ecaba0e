"""Text to tokens and back: a thin typed wrapper over a `tokenizers` file, and the training of a small one."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftershock.errors import CheckpointError
from aftershock.text.template import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    ASSISTANT,
    BOS,
    CHAT_TEMPLATE,
    EOS,
    THINK_CLOSE,
    THINK_OPEN,
    USER,
    Template,
)

if TYPE_CHECKING:
    import tokenizers

CONTROL_TOKENS = (BOS, EOS, USER, ASSISTANT)  # left out when decoding, as in R1's tokenizer
TAG_TOKENS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)  # one token each, kept when decoding
# What BPE may never merge across: each digit and each operator alone, so that numbers are spelt one way only;
# runs of Chinese and of other letters (with the space before them), so that frequent words become one token.
SPLIT = r"\p{N}|[-+*/=()<>^×÷]|[\p{Han}]+| ?[^\s\p{N}\p{P}\p{S}\p{Han}]+| ?[^\s\p{L}\p{N}\-+*/=()<>^×÷]+|\s+(?!\S)|\s+"


class Tokenizer:
    """A fast tokenizer with the few things that training and sampling ask of it.

    `config` is the folder's tokenizer_config.json; it names the begin and end tokens and the prompt template.
    """

    def __init__(self, fast: "tokenizers.Tokenizer", config: dict[str, Any]) -> None:
        self.fast = fast
        self.config = config
        self.bos = self._id_of("bos_token") if config.get("bos_token") else None  # Qwen's have none
        self.eos = self._id_of("eos_token")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`; nothing is put before or after, special tokens in the text are recognised."""
        return self.fast.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens` without begin, end and role tokens; the think and answer tags are kept."""
        return self.fast.decode(list(tokens), skip_special_tokens=True)

    def pieces(self) -> list[str]:
        """Return the text of every token alone; one that is part of a character reads as U+FFFD."""
        return self.fast.decode_batch([[i] for i in range(self.vocab_size)], skip_special_tokens=True)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included (a model's may be larger, where it was rounded up)."""
        return self.fast.get_vocab_size(with_added_tokens=True)

    @property
    def template(self) -> Template:
        """The prompt form that the model was trained with; a foreign folder with a chat template is a chat model."""
        return self.config.get("prompt_template") or ("chat" if self.config.get("chat_template") else "paper")

    @property
    def taught_template(self) -> Template:
        """The prompt form that training and its measurements use: `template` where the model is marked or knows R1's
        role tokens; else R1-Zero's wording, for bases such as Qwen2.5's ship a chat template that they never learnt.
        """
        foreign = self.config.get("prompt_template") is None and self.fast.token_to_id(ASSISTANT) is None
        return "paper" if foreign else self.template

    def difference(self, other: "Tokenizer") -> str:
        """Return in words how the two number or merge tokens otherwise; "" where logits of one suit the other."""
        own, their = (one.fast.get_vocab(with_added_tokens=True) for one in (self, other))
        if unlike := own.items() ^ their.items():
            token, number = min(unlike, key=lambda pair: (pair[1], pair[0]))
            return f"{len(own):,} and {len(their):,} tokens; {token!r} is number {number} in one alone"
        merges = [json.loads(one.fast.to_str())["model"].get("merges") for one in (self, other)]
        return "" if merges[0] == merges[1] else "the same tokens, merged by other rules"

    def with_template(self, template: Template) -> "Tokenizer":
        """Return the same tokenizer, marked as that of a model trained with another prompt form.

        Its chat template becomes R1's, so that whoever loads the folder asks as it was taught.
        """
        return Tokenizer(self.fast, self.config | {"prompt_template": template, "chat_template": CHAT_TEMPLATE})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json as `transformers` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.fast.save(str(folder / "tokenizer.json"))
        text = json.dumps(self.config, ensure_ascii=False, indent=2, sort_keys=True)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read a folder's fast tokenizer. Raises CheckpointError where it has none or names no end token."""
        import tokenizers

        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json: a fast tokenizer is needed; "
                "convert it with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
        return cls(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), _read_config(folder))

    def _id_of(self, name: str) -> int:
        value = self.config.get(name)
        content = value["content"] if isinstance(value, dict) else value
        token = self.fast.token_to_id(content) if content else None
        if token is None:
            raise CheckpointError(
                f"the tokenizer's {name} is {content!r}, which is not in its vocabulary; "
                f"name a token of tokenizer.json as {name} in tokenizer_config.json"
            )
        return token


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    jinja = folder / "chat_template.jinja"  # where transformers 5 keeps it
    if "chat_template" not in config and jinja.is_file():
        config["chat_template"] = jinja.read_text(encoding="utf-8")
    return config


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE of `vocab_size` tokens with R1's special tokens; any Unicode text round-trips.

    Deterministic for the same texts in the same order. The result is marked for R1-Zero's short prompt form.
    Raises CheckpointError where `vocab_size` can't hold the 256 bytes and the special tokens.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    smallest = 256 + len(CONTROL_TOKENS) + len(TAG_TOKENS)
    if vocab_size < smallest:
        raise CheckpointError(f"vocab_size is {vocab_size}; bytes and special tokens alone need {smallest}: raise it")
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[
            *(tokenizers.AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS),
            *(tokenizers.AddedToken(token, special=False, normalized=False) for token in TAG_TOKENS),
        ],
        show_progress=False,
    )
    fast.train_from_iterator(texts, trainer)
    return Tokenizer(_unmark_tags(fast), _new_config())


def _unmark_tags(fast: "tokenizers.Tokenizer") -> "tokenizers.Tokenizer":
    """The trainer marks every added token as special, so that decoding would drop the tags; undo that for them."""
    import tokenizers

    state = json.loads(fast.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in CONTROL_TOKENS
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def _new_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "chat_template": CHAT_TEMPLATE,
        "prompt_template": "zero",
    }
