"""How a question is put to a model: R1-Zero's conversation, its short form for nano models, and R1's chat."""

from collections.abc import Mapping, Sequence
from typing import Literal

from aftershock.errors import SamplingError
from aftershock.text.reasoning import THINK_CLOSE, THINK_OPEN

Template = Literal["zero", "paper", "chat"]
Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"

# DeepSeek-R1 (arXiv 2501.12948), table 1.
PAPER = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>. User: {question}. Assistant: "
)

# The same string as `chat_prompt`, for whoever loads the saved tokenizer with transformers. Every message is
# put in order; system turns come first whatever their place, as in R1's own template.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for m in messages if m['role'] == 'system' -%}{{- m['content'] -}}{%- endfor -%}"
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'user' -%}{{- '<｜User｜>' + m['content'] -}}"
    "{%- elif m['role'] == 'assistant' -%}"
    "{{- '<｜Assistant｜>' + m['content'].split('</think>')[-1] + eos_token -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}"
    "{%- if prefill_think is not defined or prefill_think -%}{{- '<think>\n' -}}{%- endif -%}{%- endif -%}"
)


def zero_prompt(question: str, *, paper: bool = False) -> str:
    """Return R1-Zero's prompt for one question; the completion begins inside the reasoning.

    The short form is for nano models, whose context is precious. With `paper`, the wording of DeepSeek-R1's table 1.

    >>> zero_prompt("1+1?")
    '<｜begin▁of▁sentence｜>User: 1+1?\\nAssistant: <think>'
    """
    if paper:
        return BOS + PAPER.replace("{question}", question) + THINK_OPEN
    return f"{BOS}User: {question}\nAssistant: {THINK_OPEN}"


def chat_prompt(messages: Sequence[Message], *, prefill_think: bool = True) -> str:
    """Return R1's chat prompt: system text, then the turns, then an assistant turn begun with `<think>\\n`.

    Earlier assistant turns keep only what follows `</think>`. Raises SamplingError for an unknown role or no message.
    """
    if not messages:
        raise SamplingError("the chat has no message; give at least one of role 'user'")
    turns = [message["content"] for message in messages if message["role"] == "system"]
    for message in messages:
        turns.append(_turn(message))
    return BOS + "".join(turns) + ASSISTANT + (THINK_OPEN + "\n" if prefill_think else "")


def _turn(message: Message) -> str:
    role, content = message["role"], message["content"]
    if role == "user":
        return USER + content
    if role == "assistant":
        return ASSISTANT + content.split(THINK_CLOSE)[-1] + EOS
    if role == "system":
        return ""
    raise SamplingError(f"a message has role {role!r}; it must be 'system', 'user' or 'assistant'")


def prompt_for(template: Template, question: str) -> str:
    """Return the prompt of a single question in the form that a model was trained with (`Tokenizer.template`)."""
    if template == "chat":
        return chat_prompt([{"role": "user", "content": question}])
    return zero_prompt(question, paper=template == "paper")
