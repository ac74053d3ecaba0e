"""Tokenizer, prompt templates, and telling the reasoning from the answer."""

from aftershock.text.reasoning import Part, Parts, Piece, StreamSplitter, answer_tag, split
from aftershock.text.template import Message, Template, chat_prompt, prompt_for, zero_prompt
from aftershock.text.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "Message",
    "Part",
    "Parts",
    "Piece",
    "StreamSplitter",
    "Template",
    "Tokenizer",
    "answer_tag",
    "chat_prompt",
    "prompt_for",
    "split",
    "train_tokenizer",
    "zero_prompt",
]
