"""One RL step (sample, judge, learn) of ours against TRL's GRPOTrainer, in turn, from the same Hugging Face folder.

    python benchmarks/rl_step.py [--small] [--only nano] [--rounds 7] [--threads 2] [--json] [--out FILE]

The same problems, group size, lengths, temperature, learning rate, precision and threads; one optimiser step a rollout
batch. Each side has a process of its own, which waits while the other one works; the first step of each is not timed.
Time is split into sampling, verifying and learning (all the rest, the optimiser included); `processor` is the seconds
of processor time over all threads, which a busy machine changes less than the clock's.

- `nano`: the shipped small-qwen on sums, judged by the task's check. Groups that are all right or all wrong teach
  nothing: ours leaves them out before the forward, TRL does not. `nano-coin` has a coin toss (the parity of a hash of
  the text) as its verdict, so that nearly every group teaches and both learn from the same number of rollouts.
- `0.5b`: Qwen2.5-0.5B's shape with random weights made on the spot, which never write an answer, hence the coin.
  Two sides with AdamW in float32 need 16 GB and more, so each round starts each side anew.

TRL gets: no logging, no saving, no checkpointed activations, a constant rate, no reference model, its fused AdamW;
`trl` is its own generation, `trl-cb` its continuous batching. In bfloat16 both run under autocast and keep float32
weights, and ours samples in float32; only `trl-cb` casts its weights to bfloat16 for good. TRL's micro-batch is a
number of rows, ours has as many tokens as those rows have places.
"""

import itertools
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import paired

from aftershock import process

SECONDS = 1800  # after which a side that has not answered is given up
RATE = 1e-5
PARTS = ("sample", "verify", "learn")
VOCABULARY = 151936
QWEN_05B: dict[str, Any] = {  # config.json of Qwen/Qwen2.5-0.5B; the end token is our tokenizer's
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@dataclass(frozen=True)
class Case:
    """One comparison: the model, the verdict (`check` or `coin`), and the sizes of a step."""

    name: str
    model: str
    verdict: str
    precision: str
    theirs: str
    problems: int = 24
    samples: int = 16
    max_tokens: int = 96
    micro_rows: int = 96
    rounds: int = 7
    warm: int = 1  # steps before the timed ones
    anew: bool = False  # whether a round starts both sides anew, where memory can't hold both
    threads: int = 1


def cases(small: bool) -> list[Case]:
    """Return all comparisons, or the few of `make bench`."""
    nano = [
        Case(f"{kind} {precision} {theirs}", "small-qwen", verdict, precision, theirs)
        for kind, verdict in (("nano", "check"), ("nano-coin", "coin"))
        for precision in ("float32", "bfloat16")
        for theirs in ("trl", "trl-cb")
    ]
    sizes: dict[str, Any] = {"problems": 1, "samples": 8, "max_tokens": 64, "micro_rows": 8, "rounds": 3, "anew": True}
    half = [
        Case(f"0.5b {precision} {theirs}", "0.5b", "coin", precision, theirs, **sizes)
        for precision in ("float32", "bfloat16")
        for theirs in ("trl", "trl-cb")
    ]
    return [*nano, *half] if not small else [case for case in nano if case.name.endswith("float32 trl")]


def model_folder(model: str, scratch: Path, layers: int = QWEN_05B["num_hidden_layers"]) -> Path:
    """Return the folder of a shipped model, or make Qwen2.5-0.5B's shape with random weights in `scratch`.

    Fewer `layers` make it smaller, at the same widths and vocabulary. Its tokenizer is the nano one with made-up tokens
    up to the shape's vocabulary, so that any token has a text.
    """
    from aftershock.models import build, save
    from aftershock.sources import shipped_base

    if model != "0.5b":
        return shipped_base(model)
    folder = scratch / f"qwen2.5-0.5b-random-{layers}"
    if not folder.exists():
        save(build(QWEN_05B | {"num_hidden_layers": layers}, seed=0), folder)
        nano = shipped_base("small-qwen")
        tokenizer = json.loads((nano / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        first = 1 + max(*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"]))
        vocabulary |= {f"x{number}": number for number in range(first, VOCABULARY)}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        (folder / "tokenizer_config.json").write_bytes((nano / "tokenizer_config.json").read_bytes())
    return folder


class Clock:
    """Seconds spent in the functions it watches, by part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.start()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time every call of `owner.name` from now on."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - began

        setattr(owner, name, timed)

    def start(self) -> None:
        """Begin a step."""
        self.began, self.processor = time.perf_counter(), time.process_time()

    def told(self, tokens: int) -> dict[str, float]:
        """Return a step's seconds, by the clock and of this process's processors, and begin anew.

        Learning is what the other parts left.
        """
        total, processor = time.perf_counter() - self.began, time.process_time() - self.processor
        self.seconds["learn"] = total - self.seconds["sample"] - self.seconds["verify"]
        told = {"seconds": total, "processor": processor, **self.seconds, "tokens": tokens}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        return told


def toss(text: str) -> bool:
    """Return the coin's verdict on a completion, by its text alone."""
    return zlib.crc32(text.encode()) % 2 == 0


class Coin:
    """A judge that tosses; it stands where the pipeline has its `Judge`."""

    def judge(self, pairs: Any) -> list[Any]:
        from aftershock.verify.verdict import Reward, Verdict

        tossed = [toss(completion.text) for _, completion in pairs]
        outcomes = [Verdict("right" if right else "wrong", "tossed") for right in tossed]
        return [Reward(float(v.outcome == "right"), {"accuracy": float(v.outcome == "right")}, v) for v in outcomes]

    def begin(self, problem: Any, completion: Any) -> None:
        return None

    def is_open(self, problem: Any) -> bool:
        return False

    def quality(self, problem: Any, completion: Any) -> None:
        return None


@cache
def sums() -> Any:
    """Return the task that is asked."""
    from aftershock.tasks import task

    return task("arithmetic", 2)


def checked(problem: Any, text: str) -> bool:
    """Return TRL's verdict: the task's own check of the text in the answer tags after the reasoning."""
    from aftershock.text import split
    from aftershock.text.reasoning import answer_tag

    parts = split(text, prefilled=True)
    answer = answer_tag(parts.answer) if parts.closed else None
    return answer is not None and sums().check(problem, answer).outcome == "right"


def our_loop(case: Case, folder: Path, judge: Any, task: Any, rate: float = RATE) -> Any:
    """Return what the pipeline's RL stage holds from step to step, outside any run."""
    import torch

    from aftershock.generate import Engine
    from aftershock.learn import Learner
    from aftershock.models import load
    from aftershock.pipeline import rl
    from aftershock.recipe import OptimTable, RLStage, TaskTable
    from aftershock.text import Tokenizer

    policy = load(folder, dtype=torch.float32)
    longest = max(len(our_prompt(folder, task.draw("train", number).prompt)) for number in range(8))
    micro = max(64, case.micro_rows * (longest + case.max_tokens))
    stage = RLStage(
        kind="rl",
        tasks=(TaskTable(name=task.name, difficulty=task.difficulty),),
        steps=10**6,
        problems_per_step=case.problems,
        samples_per_problem=case.samples,
        max_tokens=case.max_tokens,
        optim=OptimTable(lr=rate, precision=case.precision, micro_tokens=micro),
    )
    engine = Engine(policy, Tokenizer.load(folder), max_rows=case.problems * case.samples)
    learner = Learner(policy, stage.optim, stage.loss, stage.steps)
    nobody: Any = None  # no run is recorded, so nothing asks for the context
    return rl.Loop(stage, nobody, [task], engine, judge, learner, [], policy.config.to_dict())


def ours(case: Case, folder: Path) -> Iterator[dict[str, float]]:
    """Yield what each step of ours took: the pipeline's own functions, with nothing recorded."""
    from aftershock.generate import SamplingParams
    from aftershock.pipeline import rl
    from aftershock.pipeline.evaluate import sample
    from aftershock.recipe import RewardTable
    from aftershock.verify.judge import Judge

    task, clock = sums(), Clock()
    params = SamplingParams(n=case.samples, max_tokens=case.max_tokens)
    with ExitStack() as stack:
        judge: Any = Coin()
        if case.verdict == "check":
            judge = stack.enter_context(Judge([task], RewardTable(format=0.0), case.max_tokens))
        loop = our_loop(case, folder, judge, task)
        clock.watch(loop.engine, "generate", "sample")
        clock.watch(judge, "judge", "verify")
        for step in itertools.count():
            problems = [task.draw("train", step * case.problems + number) for number in range(case.problems)]
            clock.start()
            judged = sample(loop.engine, judge, problems, params, ("bench", step))
            rl._learn(loop, judged, {})
            told = clock.told(sum(len(c.tokens) for one in judged for c in one.completions))
            rewards = [[reward.total for reward in one.rewards] for one in judged]
            if case.verdict == "check":
                same = [[float(checked(one.problem, c.text)) for c in one.completions] for one in judged]
                assert same == rewards, "TRL's verdicts would not be ours"
            telling = sum(len(set(group)) > 1 for group in rewards) / case.problems
            yield told | {"telling": telling, "right": sum(map(sum, rewards)) / case.problems / case.samples}


def theirs(case: Case, folder: Path, answer: Callable[[dict[str, float] | None], None]) -> None:
    """Run TRL's trainer; `answer` is called before the first step and after every one, and returns when to go on."""
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from aftershock.text import zero_prompt

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    task, clock, made = sums(), Clock(), {"tokens": 0, "right": 0.0}
    problems = [task.draw("train", number) for number in range(case.problems * (case.warm + case.rounds))]
    prompts = [{"prompt": zero_prompt(problem.prompt), "number": n} for n, problem in enumerate(problems)]

    def reward(completions: list[str], completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float]:
        pairs = zip(completions, number)
        right = [float(toss(text) if case.verdict == "coin" else checked(problems[n], text)) for text, n in pairs]
        made.update(tokens=sum(map(len, completion_ids)), right=sum(right) / len(right))
        return right

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                answer(None)
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            answer(clock.told(int(made["tokens"])) | {"right": made["right"]})

    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(output_dir=scratch, **settings(case))
        trainer = GRPOTrainer(str(folder), reward, args=config, train_dataset=Dataset.from_list(prompts))
        trainer.add_callback(Watch())
        reader: Any = trainer.processing_class
        ids = reader(text=[prompts[0]["prompt"]])["input_ids"][0]
        assert ids == our_prompt(folder, problems[0].prompt), "the two sides read a prompt as other tokens"
        clock.watch(trainer, "_generate_single_turn", "sample")
        clock.watch(trainer, "_calculate_rewards", "verify")
        trainer.train()


def our_prompt(folder: Path, question: str) -> list[int]:
    """Return the tokens of a question's prompt as our pipeline reads them."""
    from aftershock.pipeline.evaluate import prompt_tokens
    from aftershock.text import Tokenizer

    return prompt_tokens(Tokenizer.load(folder), question)


def settings(case: Case) -> dict[str, Any]:
    """Return TRL's settings: our loss and optimiser, and what it does not need for a step turned off."""
    rows = case.problems * case.samples
    return {
        "use_cpu": True,
        "bf16": case.precision == "bfloat16",
        "model_init_kwargs": {"dtype": "float32"},
        "per_device_train_batch_size": min(case.micro_rows, rows),
        "gradient_accumulation_steps": rows // min(case.micro_rows, rows),
        "num_generations": case.samples,
        "max_completion_length": case.max_tokens,
        "temperature": 1.0,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "loss_type": "dapo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
        "max_steps": case.warm + case.rounds,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **continuous(case),
    }


def continuous(case: Case) -> dict[str, Any]:
    """Return what turns continuous batching on, with a cache for just the rows there are: by default it takes all."""
    if case.theirs != "trl-cb":
        return {}
    rows, page = case.problems * case.samples, 32
    blocks = rows * -(-(case.max_tokens + 64) // page)
    cache = {"page_size": page, "num_blocks": blocks, "max_batch_tokens": max(512, rows), "use_cuda_graph": False}
    return {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": cache}


def serve(side: str, case: Case, folder: Path) -> None:
    """Take one step for each line on stdin and print what it took; TRL's loop is held at its callbacks."""
    os.dup2(2, 1), sys.stdout.flush()  # what the libraries print goes to stderr, the answers to the kept handle
    if side == "ours":
        process.prepare()
    import torch

    torch.set_num_threads(case.threads)

    def answer(told: Mapping[str, float] | None) -> None:
        if told is not None:
            ANSWERS.write(json.dumps(told) + "\n")
            ANSWERS.flush()
        if not sys.stdin.readline():
            sys.exit(0)

    if side == "theirs":
        theirs(case, folder, answer)
        return
    answer(None)
    for told in ours(case, folder):
        answer(told)


class Side:
    """A process that takes one step of a case when asked."""

    def __init__(self, side: str, case: Case, folder: Path, log: Any) -> None:
        told = json.dumps({"side": side, "case": asdict(case), "folder": str(folder)})
        environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def step(self) -> dict[str, float]:
        """Return what one step took; TimeoutError or RuntimeError where the side gives no answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print("step", file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise RuntimeError("the side has ended") from None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(SECONDS):
                raise TimeoutError(f"no step within {SECONDS} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the side ended in its step")
        return json.loads(line)


def measure(case: Case, folder: Path, log: Any) -> dict[str, list[dict[str, float]]]:
    """Return what the steps of both sides took, round by round."""

    def once(side: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            with Side(side, case, folder, log) as worker:
                return [worker.step() for _ in range(case.warm + 1)][-1]

        return run

    if case.anew:
        return paired.alternate({"ours": once("ours"), "theirs": once("theirs")}, case.rounds)
    with Side("ours", case, folder, log) as one, Side("theirs", case, folder, log) as other:
        for _ in range(case.warm):
            one.step(), other.step()
        return paired.alternate({"ours": one.step, "theirs": other.step}, case.rounds)


def rows(case: Case, told: Mapping[str, list[dict[str, float]]]) -> list[paired.Row]:
    """Return the whole step and its parts in seconds, and the sampled tokens a second of the whole step."""

    def row(part: str, value: Callable[[dict[str, float]], float], unit: str = "s") -> paired.Row:
        one, other = ([value(step) for step in told[side]] for side in ("ours", "theirs"))
        return paired.compare(f"rl_step {case.name}{part}", one, other, unit)

    parts = [row(f": {part}", itemgetter(part)) for part in (*PARTS, "processor")]
    return [
        row("", itemgetter("seconds")),
        *parts,
        row(": pace", lambda one: one["tokens"] / one["seconds"], "tokens/s"),
    ]


def main() -> None:
    parser = paired.parser(__doc__)
    parser.add_argument("--serve", help=paired.argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asked = json.loads(given.serve)
        serve(asked["side"], Case(**asked["case"]), Path(asked["folder"]))
        return
    before, found, steps, failed = paired.machine(given.threads), [], {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases(given.small):
            if given.only not in case.name:
                continue
            case = Case(**{**asdict(case), "threads": given.threads, "rounds": given.rounds or case.rounds})
            log = Path(scratch) / "log"
            try:
                with log.open("w", encoding="utf-8") as file:
                    told = measure(case, model_folder(case.model, Path(scratch)), file)
            except (RuntimeError, TimeoutError) as error:
                said = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                failed[case.name] = f"{error}: {' '.join(said)}"
                print(f"{case.name:44}{failed[case.name]}", file=sys.stderr)
                continue
            steps[case.name] = {"case": asdict(case), **told}
            for row in rows(case, told):
                paired.tell(row)
                found.append(row)
            paired.report(found, given, before, done=False, steps=steps, failed=failed)
    paired.report(found, given, before, steps=steps, failed=failed)


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    main()
