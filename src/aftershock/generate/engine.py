"""The engine: prompts and sampling parameters in, completions out."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import torch

from aftershock.address import Address, keys
from aftershock.errors import CapacityError, SamplingError
from aftershock.generate.decoder import Decoder, Finished, Layout
from aftershock.generate.rows import BYTES_A_TOKEN, Group, Request
from aftershock.generate.sampler import Sampler, check_params
from aftershock.generate.speculation import SpeculativeDecoder, need_module
from aftershock.generate.stops import StopStrings
from aftershock.generate.types import Completion, SamplingParams
from aftershock.models.base import LanguageModel
from aftershock.text import Piece, StreamSplitter, Tokenizer, split
from aftershock.text.reasoning import held_back

Prompt = str | Sequence[int]
OnFinish = Callable[[int, int, Completion], None]  # prompt number, sample number, completion

BYTES_A_LOGIT = 40  # of the sampler's working space: logits, log-probabilities, order, float64 sums


class Engine:
    """Samples completions from `model` by continuous batching, at most `max_rows` sequences at once.

    The engine keeps no copy of the weights: it reads whatever the model's tensors hold at the time of the call.
    `max_memory_bytes` bounds what a call may reserve (see `memory`). With `prefilled_think`, a completion begins
    inside the reasoning, as R1's and R1-Zero's prompts have it.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 64,
        max_memory_bytes: int | None = None,
        prefilled_think: bool = True,
    ) -> None:
        if max_rows < 1:
            raise CapacityError(f"max_rows is {max_rows}; the engine needs at least 1")
        self.model = model
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_memory_bytes = max_memory_bytes
        self.prefilled_think = prefilled_think

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        addresses: Sequence[Address] | None = None,
        on_finish: OnFinish | None = None,
    ) -> list[list[Completion]]:
        """Return `params.n` completions for each prompt (text or tokens).

        Sample i of a prompt draws from the address (params.seed, *address, i) alone; the default address is the
        prompt's own tokens and how many equal prompts stand before it. `on_finish` hears of each completion as it
        ends. Raises SamplingError for parameters or prompts that make no sense, CapacityError for what can't fit.
        """
        encoded = self._encode(prompts)
        done: list[list[Completion | None]] = [[None] * params.n for _ in encoded]
        with _sampling(self.model):
            decoder = self._decoder(encoded, params, addresses)
            while not decoder.done:
                for finished in decoder.step():
                    request = finished.request
                    completion = self._completion(encoded[request.prompt], finished, decoder.stops)
                    done[request.prompt][request.sample] = completion
                    if on_finish is not None:
                        on_finish(request.prompt, request.sample, completion)
        return [[completion for completion in row if completion is not None] for row in done]

    def stream(self, prompt: Prompt, params: SamplingParams) -> Generator[Piece, None, Completion]:
        """Yield one completion's text bit by bit, each with its part; the generator returns the Completion.

        Text that may yet be cut off by a stop string, or is only part of a character, is held back.
        """
        if params.n != 1:
            raise SamplingError(f"n is {params.n}; only one completion can be streamed: use generate for more")
        encoded = self._encode([prompt])
        with _sampling(self.model):
            decoder = self._decoder(encoded, params, None)
        decoder.at_once = 1
        splitter, sent = StreamSplitter(self.prefilled_think), 0
        while True:
            with _sampling(self.model):
                finished = decoder.step()
            if finished:
                completion = self._completion(encoded[0], finished[0], decoder.stops)
                yield from splitter.push(completion.text[sent:])
                yield from splitter.finish()
                return completion
            drawn = decoder.rows.tokens[0, : decoder.rows.steps[0]]
            text = self.tokenizer.decode(drawn.tolist()).rstrip("\ufffd")
            text = text[: len(text) - held_back(text, params.stop)]
            yield from splitter.push(text[sent:])
            sent = max(sent, len(text))

    def memory(self, params: SamplingParams, longest_prompt: int, completions: int | None = None) -> int:
        """Return how many bytes `generate` will reserve for prompts of up to `longest_prompt` tokens.

        That is the cache, the record of what is drawn and the sampler's working space; the model's own activations
        come on top. `completions` is the number wanted in all; without it, as many as fill `max_rows` and its
        staging rows.
        """
        wanted = self.max_rows if completions is None else completions
        return self._bytes(self._layout(wanted, wanted, longest_prompt, params), params)

    def _layout(self, groups: int, requests: int, longest_prompt: int, params: SamplingParams) -> Layout:
        """Lay out rows; drafts past a completion's end are computed too, and take places."""
        return Layout.of(self.max_rows, groups, requests, longest_prompt, params.max_tokens + params.draft)

    def _bytes(self, layout: Layout, params: SamplingParams) -> int:
        rows = layout.decoded + layout.staged
        judged = 1 + 2 * params.draft  # distributions a row, those that drafts come from among them
        if params.draft:
            cache = need_module(self.model, params.draft).cache_bytes(rows, layout.capacity, drafting=True)
        else:
            cache = self.model.cache_bytes(rows, layout.capacity)
        return cache + layout.decoded * (params.max_tokens * BYTES_A_TOKEN + judged * self._vocab_size * BYTES_A_LOGIT)

    def _decoder(
        self, encoded: list[tuple[int, ...]], params: SamplingParams, addresses: Sequence[Address] | None
    ) -> Decoder:
        check_params(params, self._vocab_size)
        groups = _groups(encoded, params, addresses)
        longest = max(map(len, encoded), default=1)
        layout = self._layout(len(groups), len(encoded) * params.n, longest, params)
        self._check_capacity(layout, longest, params)
        kinds = {"native": self.model.native, "exact": self.model.exact}
        sampler = Sampler(params, self._vocab_size, self.model.device, **kinds)
        stops = StopStrings(params.stop, self.tokenizer, self._vocab_size)
        rest = groups, sampler, stops, self.tokenizer.eos, self.max_rows, layout
        if params.draft:
            return SpeculativeDecoder(need_module(self.model, params.draft), *rest)
        return Decoder(self.model, *rest)

    def _check_capacity(self, layout: Layout, longest: int, params: SamplingParams) -> None:
        limit = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        if limit is not None and longest + params.max_tokens > limit:
            raise CapacityError(
                f"the longest prompt has {longest} tokens and max_tokens is {params.max_tokens}, together "
                f"{longest + params.max_tokens}; the model has {limit} positions: shorten the prompt, or lower "
                f"max_tokens to {max(limit - longest, 0)}"
            )
        needed = self._bytes(layout, params)
        if self.max_memory_bytes is not None and needed > self.max_memory_bytes:
            raise CapacityError(
                f"{layout.decoded} rows (and {layout.staged} of staged prompts) of {layout.capacity} tokens need "
                f"{needed:,} bytes; max_memory_bytes is {self.max_memory_bytes:,}: lower max_rows (now "
                f"{self.max_rows}) or max_tokens (now {params.max_tokens}), or raise max_memory_bytes"
            )

    @property
    def _vocab_size(self) -> int:
        return getattr(getattr(self.model, "config", None), "vocab_size", self.tokenizer.vocab_size)

    def _encode(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        encoded = [tuple(self.tokenizer.encode(p) if isinstance(p, str) else p) for p in prompts]
        for number, tokens in enumerate(encoded):
            if not tokens:
                raise SamplingError(f"prompt {number} has no tokens; give it at least one, such as the begin token")
            if not 0 <= min(tokens) <= max(tokens) < self._vocab_size:
                raise SamplingError(
                    f"prompt {number} has tokens from {min(tokens)} to {max(tokens)}; the model knows 0 to "
                    f"{self._vocab_size - 1}: encode it with the model's own tokenizer"
                )
        return encoded

    def _completion(self, prompt: tuple[int, ...], finished: Finished, stops: StopStrings) -> Completion:
        text = self.tokenizer.decode(finished.tokens)
        if finished.reason == "stop":
            text = stops.cut(text)
        parts = split(text, self.prefilled_think)
        return Completion(
            prompt_tokens=prompt,
            tokens=tuple(finished.tokens),
            logprobs=tuple(finished.logprobs),
            sampled_logprobs=tuple(finished.sampled_logprobs),
            text=text,
            reasoning=parts.reasoning,
            answer=parts.answer,
            finish_reason=finished.reason,
            forwards=finished.forwards,
        )


def _groups(encoded: list[tuple[int, ...]], params: SamplingParams, addresses: Sequence[Address] | None) -> list[Group]:
    """Return the requests by prompt; equal prompts share a group."""
    if addresses is not None and len(addresses) != len(encoded):
        raise SamplingError(f"{len(addresses)} addresses for {len(encoded)} prompts; give one for each, or none")
    groups: dict[tuple[int, ...], Group] = {}
    for number, tokens in enumerate(encoded):
        group = groups.setdefault(tokens, Group(tokens, []))
        address = addresses[number] if addresses is not None else _own_address(group, params.n)
        drawn_by = keys(params.n, params.seed, *address)
        group.requests.extend(Request(number, sample, key) for sample, key in enumerate(drawn_by))
    return list(groups.values())


def _own_address(group: Group, n: int) -> Address:
    digest = hashlib.blake2b(repr(group.tokens).encode(), digest_size=16).hexdigest()
    return ("prompt", digest, len(group.requests) // n)


@contextmanager
def _sampling(model: LanguageModel) -> Iterator[None]:
    """Without gradients and in eval mode, which is undone afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
