"""Who is asked: the shipped base, a folder, a run's stage, a model of the hub, an endpoint, or a scripted model."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aftershock.bench.suite import Suite
from aftershock.bench.types import Answer, Protocol, Question
from aftershock.errors import BenchError
from aftershock.sources import HUB, HUB_NAME, SHIPPED, hub_folder, shipped_base
from aftershock.text import split

Asked = tuple[Question, int]  # a question and the number of its sample
Tell = Callable[[int, Answer], None]  # the place in what was asked, and the answer
TIMEOUT = 1800  # seconds for one request: 32,768 tokens at 20 a second


class Target(ABC):
    """A model under test. `identity` is what bench.json says of it: name, kind, and the hashes that there are."""

    identity: Mapping[str, Any]

    def lengths(self, questions: Sequence[Question], protocol: Protocol) -> tuple[int, int]:
        """Return the least and the most tokens an answer to one of `questions` is given."""
        return protocol.max_tokens, protocol.max_tokens


class Local(Target):
    """A target that is asked by a plain call in this process."""

    @abstractmethod
    def answer(self, asked: Sequence[Asked], protocol: Protocol, tell: Tell) -> None:
        """Answer every one of `asked`, telling each as it ends; what is said depends on its own address alone."""


class Endpoint(Target):
    """A model behind an OpenAI-compatible URL; what it is made of isn't known. The key comes from OPENAI_API_KEY."""

    def __init__(self, url: str, model: str, timeout: int) -> None:
        self.url, self.model, self.timeout = url, model, timeout
        self.key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers want none, the client wants one
        unknown = dict.fromkeys(("weights_sha256", "template_sha256", "template", "dtype"))
        self.identity = {"name": f"{url}#{model}", "kind": "endpoint", **unknown}


def answer_of(text: str, tokens: int, cut: bool, prefilled: bool = False) -> Answer:
    """Return the Answer in a whole text, split at the end of its thinking; `cut` where it was cut off."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates of a server's JSON can't be written down
    parts = split(text, prefilled)
    return Answer(text, parts.reasoning, parts.answer, tokens, "length" if cut else "stop")


def failed(error: str) -> Answer:
    """Return the Answer of a request that brought nothing."""
    return Answer("", "", "", 0, "failed", error)


def find(model: str, suites: Mapping[str, Suite], model_name: str | None = None, timeout: int = TIMEOUT) -> Target:
    """Return what `model` names: base, a folder, RUN:STAGE, org/name of the hub, a URL, or scripted:KIND.

    `suites` are those it will be asked, which a scripted model knows; `model_name` and `timeout` (seconds for one
    request) are for a URL. Raises BenchError where nothing is found, and says what was looked for, CheckpointError
    where the hub gives nothing.
    """
    if model.startswith("scripted:"):
        from aftershock.bench.scripted import Scripted

        return Scripted(model.removeprefix("scripted:"), suites)
    if model.startswith(("http://", "https://")):
        return _endpoint(model, model_name, timeout)
    from aftershock.bench.engine_target import EngineTarget

    return EngineTarget(model, _folder(model))


def _endpoint(model: str, model_name: str | None, timeout: int) -> Endpoint:
    url, _, after = model.partition("#")
    name = model_name or after
    if not name:
        raise BenchError(f"{model} names no model; add its name as the server knows it: {url}#NAME, or --model-name")
    if urlsplit(url).username is not None:
        raise BenchError(
            "the URL holds a user name, which would be written into the logs; put the key in OPENAI_API_KEY"
        )
    return Endpoint(url, name, timeout)


def _folder(model: str) -> Path:
    if model in SHIPPED:
        return shipped_base(model)
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    if (path / "stages").is_dir():
        return _stage(path, None)
    run, _, stage = model.rpartition(":")
    if run and (Path(run).expanduser() / "stages").is_dir():
        return _stage(Path(run).expanduser(), stage)
    if not path.exists() and HUB_NAME.fullmatch(HUB + model.removeprefix(HUB)):
        return hub_folder(model)
    raise BenchError(
        f"model {model!r} is no folder with a config.json, no run (runs/demo:zero), no hub id (org/name), no URL and "
        "not base; check its spelling"
    )


def _stage(run: Path, stage: str | None) -> Path:
    """Return the model folder of a run's stage; without a name, of the one that was finished last."""
    models = [path.parent for path in (run / "stages").glob("*/model/config.json")]
    found = [path for path in models if stage is None or path.parent.name == stage]
    if not found:
        names = ", ".join(sorted(path.parent.name for path in models)) or "none yet"
        raise BenchError(f"run {run} has no stage {stage or ''!r} with a model; it has: {names}")
    return max(found, key=lambda path: (path / "config.json").stat().st_mtime)
