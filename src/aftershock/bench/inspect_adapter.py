"""inspect-ai around our plain functions: a suite becomes its Task, a target one of its models, a row one of its scores.

Nothing here decides what is right: questions come from the suite, verdicts from `judge_row`, and rows go to `keep`. In
return come inspect's logs and viewer, and its client for endpoints, with retries and adaptive concurrency.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from inspect_ai import Epochs, Task
from inspect_ai import eval as run_inspect
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelAPI, ModelOutput, get_model, modelapi
from inspect_ai.scorer import Score, Scorer, mean, scorer, stderr
from inspect_ai.scorer import Target as Gold
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from aftershock.address import key
from aftershock.bench.target import Asked, Endpoint, Local, Target, answer_of, failed
from aftershock.bench.types import Answer, Protocol, Question, Row
from aftershock.errors import BenchError

TOGETHER = 1024  # questions that are asked at once of a local model
QUIET_SECONDS = 0.05  # a batch begins when so long nobody has asked
CONNECTIONS = 100  # to an endpoint, at most: inspect feels its way up to it
RETRIES = 3  # of a failed request, some 3, 6 and 12 seconds apart, each with the client's own two quick ones
HOPELESS = 20  # an endpoint whose first so many requests all failed won't answer the others


@dataclass
class Call:
    """One sample on its way through inspect: who is asked, and the answer once there is one."""

    asked: Asked
    answer: Answer | None = None


_CALL: ContextVar[Call] = ContextVar("call")


@dataclass
class Ask:
    """All that one suite's Task needs; `done` are rows from before, `judge` and `keep` are called from threads."""

    name: str
    questions: Sequence[Question]
    k: int
    protocol: Protocol
    done: Mapping[tuple[str, int], Row]
    judge: Callable[[Question, int, Answer], Row]
    keep: Callable[[Row], None]
    fault: BaseException | None = None  # ours, not the model's: it ends the bench
    failures: int = 0
    answers: int = 0
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)


class Gatherer:
    """Answers what many ask at once, in one thread: a local model works best on large batches."""

    def __init__(self, target: Local, protocol: Protocol) -> None:
        self._target, self._protocol = target, protocol
        self._queue: queue.SimpleQueue[tuple[Asked, Future[Answer]]] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="bench-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> "Future[Answer]":
        """Return the answer to come."""
        if self._stopped:
            raise InterruptedError("the bench was stopped")
        future: Future[Answer] = Future()
        self._queue.put((asked, future))
        return future

    def stop(self) -> None:
        """End the thread at the next answer, or when idle; one that goes on too long is left to the process's end."""
        self._stopped = True
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._stopped:
            batch = self._gather()
            try:
                self._target.answer([asked for asked, _ in batch], self._protocol, partial(self._tell, batch))
            except BaseException as error:
                waiting = [future for _, future in batch if not future.done()]
                if waiting:  # one is told: inspect writes a long story of each error, and cancels the other samples
                    self._stopped = True
                    waiting[0].set_exception(error)

    def _gather(self) -> list[tuple[Asked, "Future[Answer]"]]:
        batch: list[tuple[Asked, Future[Answer]]] = []
        while len(batch) < TOGETHER and not self._stopped:
            try:
                batch.append(self._queue.get(timeout=QUIET_SECONDS))
            except queue.Empty:
                if batch:
                    break
        return batch

    def _tell(self, batch: list[tuple[Asked, "Future[Answer]"]], number: int, answer: Answer) -> None:
        if self._stopped:
            raise InterruptedError("the bench was stopped")
        batch[number][1].set_result(answer)


@modelapi(name="aftershock")
class LocalAPI(ModelAPI):
    """A local target as one of inspect's models."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 as inspect declares it
        gatherer: Gatherer | None = None,
    ) -> None:
        super().__init__(model_name=model_name, config=config)
        self.gatherer = gatherer

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer the call that is under way in this context."""
        assert self.gatherer is not None
        call = _CALL.get()
        call.answer = await asyncio.wrap_future(self.gatherer.ask(call.asked))
        return output_of(call.answer, self.model_name)


def output_of(answer: Answer, model: str) -> ModelOutput:
    """Return an answer as inspect writes it down."""
    output = ModelOutput.from_content(model, answer.text, "max_tokens" if answer.finish == "length" else "stop")
    output.error = answer.error or None
    return output


def answer_from(output: ModelOutput) -> Answer:
    """Return what an endpoint said as an Answer, the same whether its reasoning came apart, in tags, or not at all.

    What was withheld by a filter, and a prompt that was too long, are failed requests: they say nothing of the model.
    """
    if output.error or not output.choices:
        return failed(output.error or "the endpoint gave no choice")
    tokens = output.usage.output_tokens if output.usage else 0
    if output.stop_reason == "content_filter" or (output.stop_reason == "model_length" and not output.usage):
        return failed(f"{output.stop_reason}: {output.message.text[:200]}")
    content = output.message.content
    thought = "" if isinstance(content, str) else "".join(c.reasoning for c in content if c.type == "reasoning")
    text = output.message.text
    if thought and text.lstrip().startswith("<think>"):  # inspect repeats the whole where nothing follows the tags
        thought = ""
    whole = f"<think>\n{thought}\n</think>\n{text}" if thought and text else f"<think>\n{thought}" if thought else text
    return answer_of(whole, tokens, output.stop_reason in ("max_tokens", "model_length"))


@solver
def put(ask: Ask) -> Solver:
    """Put the question, unless it was answered before; a request that failed becomes a failed answer."""
    questions = {question.id: question for question in ask.questions}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        """Ask the model, or give back the answer that an earlier run kept."""
        question, sample = questions[str(state.sample_id)], state.epoch - 1
        call = ask.calls[question.id, sample] = Call((question, sample))
        if (question.id, sample) in ask.done:
            call.answer = ask.done[question.id, sample].answer
            state.output = output_of(call.answer, str(state.model))
            return state
        _CALL.set(call)
        seed = key(ask.protocol.seed, "bench", question.suite, question.id, sample) % 2**31
        try:
            state = await generate(state, seed=seed)
            call.answer = call.answer or answer_from(state.output)
        except Exception as error:
            if ask.fault is not None or str(state.model).startswith("aftershock/"):
                ask.fault = ask.fault or error
                raise
            call.answer = failed(f"{type(error).__name__}: {error}"[:500])
        _give_up(ask, call.answer, str(state.model))
        return state

    return solve


def _give_up(ask: Ask, answer: Answer, model: str) -> None:
    """End a bench whose endpoint never answers; a local model's failures are cheap, and a result."""
    ask.failures += answer.finish == "failed"
    ask.answers += answer.finish != "failed"
    if ask.failures >= HOPELESS and not ask.answers and not model.startswith("aftershock/"):
        ask.fault = BenchError(
            f"the endpoint's first {ask.failures} requests all failed, the last with: {answer.error}; see that it "
            "runs, its URL, model name and OPENAI_API_KEY, then repeat the command to go on"
        )
        raise ask.fault


@scorer(metrics=[mean(), stderr()])
def judge(ask: Ask) -> Scorer:
    """Have the answer judged by the suite and keep the row, in a thread."""

    def row_of(call: Call) -> Row:
        """Judge an answer and keep its row, once; runs in a thread of its own, as a program may take seconds."""
        question, sample = call.asked
        before = ask.done.get((question.id, sample))
        if before is not None:
            return before
        assert call.answer is not None
        row = ask.judge(question, sample, call.answer)
        ask.keep(row)
        return row

    async def score(state: TaskState, target: Gold) -> Score:
        """Score an answer by its row; the first fault is kept for whoever began the run."""
        call = ask.calls.pop((str(state.sample_id), state.epoch - 1))
        try:
            row = await anyio.to_thread.run_sync(row_of, call)
        except Exception as error:
            ask.fault = ask.fault or error
            raise
        if not row.counted:
            return Score.unscored(reason="scoring_failed", explanation=row.reason)
        return Score(value=float(row.right), answer=row.extracted, explanation=row.reason)

    return score


class Inspect:
    """Runs suites through inspect; its logs go to `logs`. A context manager: `close` ends the model's thread."""

    def __init__(self, target: Target, protocol: Protocol, logs: Path) -> None:
        self._logs = logs
        self._gatherer = Gatherer(target, protocol) if isinstance(target, Local) else None
        self._model = _model(target, protocol, self._gatherer)

    def __enter__(self) -> "Inspect":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._gatherer is not None:
            self._gatherer.stop()

    def run(self, ask: Ask) -> None:
        """Ask, judge and keep everything that isn't done. Raises what went wrong on our side, or KeyboardInterrupt."""
        samples = [Sample(input=q.prompt, target=q.gold, id=q.id) for q in ask.questions]
        task = Task(
            MemoryDataset(samples), solver=put(ask), scorer=judge(ask), name=ask.name, epochs=Epochs(ask.k, "mean")
        )
        try:
            logs = run_inspect(
                task,
                model=self._model,
                display="none",
                log_level="critical",
                log_dir=str(self._logs),
                log_realtime=False,
                log_model_api=False,
                log_header_only=True,
                max_samples=TOGETHER if self._gatherer else CONNECTIONS,
                fail_on_error=True,
                ctl_server=False,
            )
        except Exception:
            if ask.fault is not None:
                raise ask.fault from None
            raise
        if ask.fault is not None:
            raise ask.fault
        if not logs or logs[0].status == "cancelled":
            raise KeyboardInterrupt
        if logs[0].status != "success":
            raise BenchError(f"inspect ended suite {ask.name} with: {logs[0].error and logs[0].error.message}")


def _model(target: Target, protocol: Protocol, gatherer: Gatherer | None) -> Model:
    if isinstance(target, Endpoint):
        config = GenerateConfig(
            temperature=protocol.temperature,
            top_p=protocol.top_p,
            max_tokens=protocol.max_tokens,
            max_retries=RETRIES,
            attempt_timeout=target.timeout,
        )
        name = f"openai-api/endpoint/{target.model}"
        return get_model(name, config=config, base_url=target.url, api_key=target.key, memoize=False)
    config = GenerateConfig(max_connections=TOGETHER)
    return get_model(f"aftershock/{target.identity['name']}", config=config, memoize=False, gatherer=gatherer)
