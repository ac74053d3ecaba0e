"""Stop strings, which may begin in one token and end in another."""

import numpy as np

from aftershock.text import Tokenizer


class StopStrings:
    """Finds the token that completes a stop string, asking most tokens nothing.

    `closers` bool[vocab] marks the tokens whose text may complete one; only after these is a row's text looked at.
    """

    def __init__(self, stops: tuple[str, ...], tokenizer: Tokenizer, vocab_size: int) -> None:
        self.stops = stops
        self._tokenizer = tokenizer
        # every token of the stop has at least one byte, but for control tokens, which decode to nothing
        self._window = max((len(stop.encode()) for stop in stops), default=0) + 8
        self.closers = np.zeros(vocab_size, dtype=bool)
        if stops:
            for token, piece in enumerate(tokenizer.pieces()):
                self.closers[token] = "\ufffd" in piece or any(_may_complete(piece, stop) for stop in stops)

    def completed(self, tokens: np.ndarray) -> bool:
        """Return whether the end of `tokens` Int[n] has a stop string in its text."""
        text = self._tokenizer.decode(tokens[-self._window :].tolist())
        return any(stop in text for stop in self.stops)

    def cut(self, text: str) -> str:
        """Return `text` up to its first stop string."""
        ends = [text.find(stop) for stop in self.stops if stop in text]
        return text[: min(ends)] if ends else text


def _may_complete(piece: str, stop: str) -> bool:
    return stop in piece or any(piece.startswith(stop[-length:]) for length in range(1, len(stop)))
