"""A model folder asked through our own engine; an answer's bits depend on its address, never on its neighbours."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import psutil
import torch

from aftershock import disk
from aftershock.bench.target import Asked, Local, Tell, answer_of, failed
from aftershock.bench.templates import frame
from aftershock.bench.types import Protocol, Question
from aftershock.generate import Completion, Engine, SamplingParams
from aftershock.generate.decoder import rounded_up
from aftershock.models import ModelConfig, load
from aftershock.text import Tokenizer

MAX_ROWS = 256
FREE_SHARE = 0.7  # of the free memory, for the cache: activations and the suite's checks take the rest
LENGTHS = 32  # prompts are told apart by length in this many steps, so that few caps, and so few batches, arise


class EngineTarget(Local):
    """The model in a Hugging Face folder. Its weights are loaded when the first question is asked.

    On a GPU it computes in the dtype the weights are stored in, on a CPU in float32.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.positions = ModelConfig.from_dict(config).max_position_embeddings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        self.dtype = stored if self.device == "cuda" else "float32"
        self.tokenizer = Tokenizer.load(folder)
        self.frame = frame(folder, self.tokenizer)
        self.identity = {
            "name": name,
            "kind": "folder",
            "weights_sha256": weights_sha256(folder),
            "config_sha256": disk.sha256(folder / "config.json"),
            "tokenizer_sha256": disk.sha256(folder / "tokenizer.json"),
            "template": self.frame.name,
            "template_sha256": self.frame.sha256,
            "dtype": self.dtype,
            "device": self.device,
            "positions": self.positions,
        }

    @cached_property
    def engine(self) -> Engine:
        model = load(self.folder, getattr(torch, self.dtype), self.device)
        return Engine(model, self.tokenizer, prefilled_think=self.frame.prefilled)

    def lengths(self, questions: Sequence[Question], protocol: Protocol) -> tuple[int, int]:
        """Return the least and the most tokens an answer is given, prompts that leave no room left out."""
        caps = [self.cap(len(self.frame.encode(question.prompt)), protocol) for question in questions]
        fitting = [cap for cap in caps if cap > 0] or [0]
        return min(fitting), max(fitting)

    def cap(self, prompt_tokens: int, protocol: Protocol) -> int:
        """Return how many tokens may follow a prompt, at most `max_tokens`; 0 or less where there is no room.

        It hangs on this prompt alone: what shares its batch, before and after a resume, may not move it.
        """
        step = max(16, self.positions // LENGTHS)
        return min(protocol.max_tokens, self.positions - rounded_up(prompt_tokens, step))

    def answer(self, asked: Sequence[Asked], protocol: Protocol, tell: Tell) -> None:
        """Sample every one of `asked` by continuous batching; a prompt that leaves no room to answer has failed."""
        prompts = [self.frame.encode(question.prompt) for question, _ in asked]
        batches: dict[int, list[int]] = {}
        for number, prompt in enumerate(prompts):
            cap = self.cap(len(prompt), protocol)
            if cap > 0:
                batches.setdefault(cap, []).append(number)
            else:
                tell(number, failed(f"the prompt's {len(prompt)} tokens leave no room in {self.positions} positions"))
        for cap, numbers in sorted(batches.items()):
            self._generate(cap, numbers, prompts, asked, protocol, tell)

    def _generate(
        self,
        cap: int,
        numbers: list[int],
        prompts: list[list[int]],
        asked: Sequence[Asked],
        protocol: Protocol,
        tell: Tell,
    ) -> None:
        params = SamplingParams(
            max_tokens=cap, temperature=protocol.temperature, top_p=protocol.top_p, seed=protocol.seed
        )
        batch = [prompts[number] for number in numbers]
        self._fit(params, max(map(len, batch)), len(batch))

        def hear(place: int, _: int, completion: Completion) -> None:
            cut = completion.finish_reason == "length"
            tell(numbers[place], answer_of(completion.text, len(completion.tokens), cut, self.frame.prefilled))

        self.engine.generate(batch, params, [_address(asked[number]) for number in numbers], hear)

    def _fit(self, params: SamplingParams, longest: int, wanted: int) -> None:
        """Give the engine as many rows as the free memory holds."""
        free = torch.cuda.mem_get_info()[0] if self.device == "cuda" else psutil.virtual_memory().available
        self.engine.max_rows = MAX_ROWS
        while self.engine.max_rows > 1 and self.engine.memory(params, longest, wanted) > FREE_SHARE * free:
            self.engine.max_rows //= 2


def _address(asked: Asked) -> tuple[str | int, ...]:
    question, sample = asked
    return "bench", question.suite, question.id, sample


def weights_sha256(folder: Path) -> str:
    """Return the hash of a folder's one safetensors file; of several, that of `sha256sum`'s lines on them by name."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return disk.sha256(files[0])
    return hashlib.sha256("".join(f"{disk.sha256(path)}  {path.name}\n" for path in files).encode()).hexdigest()
