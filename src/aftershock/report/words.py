"""What a stage did and what the report's terms mean, in words for a newcomer."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from aftershock.recipe import (
    BenchStage,
    DistillStage,
    PretrainStage,
    RewardModelStage,
    RLStage,
    SampleStage,
    SFTStage,
    Stage,
    TaskTable,
)

LOSSES = {
    "grpo": "GRPO (Shao et al. 2024), as R1-Zero",
    "dr_grpo": "Dr.GRPO (Liu et al. 2025)",
    "dapo": "DAPO (Yu et al. 2025)",
    "gspo": "GSPO (Zheng et al. 2025)",
    "cispo": "CISPO (MiniMax 2025)",
}
KINDS = {
    "rl": "reinforcement learning",
    "pretrain": "pretraining",
    "sft": "supervised fine-tuning",
    "sample": "making data",
    "distill": "distillation",
    "reward_model": "learning a reward",
    "bench": "models side by side",
}
LANGUAGES = {"en": "English", "zh": "Chinese"}
SOURCES = {
    "base": "the nano base model that ships with aftershock",
    "road-base": "the nano base model for the whole road, which ships with aftershock",
    "small-qwen": "a small dense base of Qwen's shape, which ships with aftershock",
    "small-llama": "a small dense base of Llama's shape, which ships with aftershock",
}


def method(table: dict[str, Any]) -> list[str]:
    """Return paragraphs on what a stage's recipe asks for; empty where the recipe is missing or of another version."""
    try:
        stage = TypeAdapter(Stage).validate_python(table)
    except ValidationError:
        return []
    if isinstance(stage, SFTStage):
        return _sft(stage)
    if isinstance(stage, SampleStage):
        return _sample(stage)
    if isinstance(stage, RewardModelStage):
        return _reward_model(stage)
    if isinstance(stage, DistillStage):
        return _distill(stage)
    if isinstance(stage, PretrainStage):
        return _pretrain(stage)
    if isinstance(stage, BenchStage):
        return _bench(stage)
    return _rl(stage) if isinstance(stage, RLStage) else []


def _bench(stage: BenchStage) -> list[str]:
    return [
        f"Nothing was trained: {', '.join(stage.models)} answered the same held-out problems ({_tasks(stage.tasks)}), "
        f"at most {stage.eval.problems:,} a task, {stage.eval.samples} completions of each, at temperature "
        f"{stage.eval.temperature:g} and of at most {stage.max_tokens:,} tokens."
    ]


def _tasks(tables: tuple[TaskTable, ...]) -> str:
    languages = [" and ".join(LANGUAGES.get(code, code) for code in table.languages) for table in tables]
    told = [f"{t.name} at difficulty {t.difficulty} in {spoken}" for t, spoken in zip(tables, languages, strict=True)]
    return ", ".join(told)


def _some(stage: RLStage) -> str:
    """Say which of a problem's completions are learnt from, where not all are."""
    if not (stage.down_sample or stage.down_sample_spread):
        return ""
    most = "at most " if stage.down_sample_spread else ""
    return f"Of a problem's completions {most}the {stage.learnt} whose rewards differ most were learnt from. "


def _rl(stage: RLStage) -> list[str]:
    source = SOURCES.get(stage.source, stage.source)
    how = "and reward models, as in R1's last stage" if stage.preferences else "alone, the way R1-Zero was trained"
    return [
        f"Reinforcement learning from rule-checked answers {how}: no worked example is "
        f"ever shown. It starts from {source}. At each of {stage.steps:,} steps the model got "
        f"{stage.problems_per_step} problems ({_tasks(stage.tasks)}), and wrote {stage.samples_per_problem} "
        f"completions of each, at temperature {stage.temperature:g} and of at most {stage.max_tokens:,} tokens.",
        f"A program checked every answer: a right one earned {stage.reward.accuracy:g}, keeping the form of reasoning "
        f"first and answer after {stage.reward.format:g}. {_some(stage)}Completions that earned more than others of "
        f"their problem were made likelier, the others less likely: loss {LOSSES[stage.loss.kind]}, learning rate "
        f"{stage.optim.lr:g}{_kl(stage)}.",
        *_judges(stage),
    ]


def _judges(stage: RLStage) -> list[str]:
    if not stage.preferences:
        return []
    told = [f"{t.weight:g} × {t.model} from step {t.from_step:,} on" for t in stage.preferences]
    return [
        f"Where no rule can judge, reward models did: {', '.join(told)}. How good those answers truly are is known "
        "here, is hidden from the reward, and is shown beside it."
    ]


def _reward_model(stage: RewardModelStage) -> list[str]:
    source = SOURCES.get(stage.source, stage.source)
    drawn = f"{stage.examples:,} examples of {_tasks(stage.tasks)}" if stage.tasks else ""
    what = "which of two answers is preferred" if stage.form == "pairwise" else "whether an answer is safe"
    read = "the final answer alone" if stage.judges == "answer" else "the whole completion, reasoning included"
    return [
        f"A reward model that starts from {source} and learns {what}, reading {read}: "
        f"{' and '.join([*stage.data, *([drawn] if drawn else [])])}, {stage.epochs} times over, "
        f"{stage.examples_per_step} examples a step, learning rate {stage.optim.lr:g}. It is measured on examples with "
        "prompts that it has not seen."
    ]


def _kl(stage: RLStage) -> str:
    if not stage.loss.kl:
        return ", no penalty for leaving the start"
    return f", a penalty of {stage.loss.kl:g} × KL for leaving the reference"


def _sft(stage: SFTStage) -> list[str]:
    source = SOURCES.get(stage.source, stage.source)
    share = f", as adapters of rank {stage.lora.rank}" if stage.lora else ""
    return [
        f"Supervised fine-tuning of {source}{share}: next-token prediction on the completions of "
        f"{', '.join(stage.data)}, {stage.epochs} times over, about {stage.tokens_per_step:,} tokens a step, learning "
        f"rate {stage.optim.lr:g}."
    ]


def _sample(stage: SampleStage) -> list[str]:
    source = SOURCES.get(stage.source, stage.source)
    return [
        f"Data made by {source}: {stage.samples_per_problem} completions of each of {stage.problems:,} train problems "
        f"({_tasks(stage.tasks)}) at temperature {stage.temperature:g}; at most {stage.keep} right ones a problem were "
        f"kept, none twice, after the cleaners {', '.join(stage.clean) or '(none)'}."
    ]


def _distill(stage: DistillStage) -> list[str]:
    source, teacher = (SOURCES.get(name, name) for name in (stage.source, stage.teacher))
    where = f"its own completions of problems ({_tasks(stage.tasks)})" if stage.on_policy else ", ".join(stage.data)
    return [
        f"Distillation of {teacher} into {source}: at each token of {where}, over {stage.steps:,} steps of "
        f"{stage.problems_per_step * stage.samples_per_problem:,} completions, the student's distribution over the "
        f"whole vocabulary was brought nearer to the teacher's, by {stage.divergence.replace('_kl', '')} KL, learning "
        f"rate {stage.optim.lr:g}."
    ]


def _pretrain(stage: PretrainStage) -> list[str]:
    source = f"weights of {SOURCES.get(stage.source, stage.source)}" if stage.source else "random weights"
    kind = f" of type {stage.model.model_type}" if stage.model else ""
    return [
        f"Next-token prediction on text generated from worked attempts at the tasks ({_tasks(stage.tasks)}), from "
        f"{source}{kind}: {stage.steps:,} steps of {stage.tokens_per_step:,} tokens, learning rate {stage.optim.lr:g}. "
        "Held-out problems never appear in the text."
    ]


GLOSSARY = (  # (term, meaning, the kinds of stage it belongs to; "" is any)
    ("Held-out", "Problems never used in training; a hash of a problem's content decides, so none can be in both.", ""),
    ("pass@1", "How often one completion gets the right answer: the mean over all completions of all problems.", ""),
    ("pass@k", "How often at least one of k completions of a problem is right.", ""),
    ("majority@k", "How often the answer given most often among k completions is right.", ""),
    (
        "95% interval",
        "The range within which the true value plausibly lies, given how many problems were asked. Completions of one "
        "problem resemble one another, so the interval counts problems, not completions. Two values whose intervals "
        "overlap may differ by chance alone.",
        "",
    ),
    ("n, seed", "How many problems a number rests on, and the number from which every random draw follows.", ""),
    ("Token", "The unit a model reads and writes: here a character or a short piece of text.", ""),
    ("Completion", "What the model writes after a problem: its reasoning, then its answer.", ""),
    (
        "Checks or retries",
        "A completion whose reasoning holds one of a fixed list of words (such as 'check', 'too big', 'wait', or their "
        "Chinese forms), marked in the samples above. It counts words, not thoughts.",
        "",
    ),
    ("Changes language", "A completion whose reasoning has both English words and Chinese characters.", ""),
    ("Reward", "What a completion earns by rule: for a right answer and for keeping the form.", "rl"),
    (
        "True quality",
        "How good an answer is by a rule that no reward knows. A reward model whose score rises while it falls is "
        "being hacked.",
        "rl",
    ),
    (
        "Expected calibration error",
        "How far the share of a reward model's right choices is from the confidence it had in them, on average; 0 is "
        "best, and chance alone makes it a little larger.",
        "reward_model",
    ),
    ("Policy", "The model being trained.", "rl"),
    ("Group", "All completions of one problem in one step. Each is compared with the mean of its group.", "rl"),
    (
        "No signal",
        "A group in which all completions earn the same: there is nothing to prefer, so nothing is learnt.",
        "rl",
    ),
    ("Entropy", "How undecided the model is at a token, in nats. Near 0 it always writes the same.", "rl distill"),
    ("KL", "How far the model has moved from its reference, in nats a token.", "rl"),
    (
        "Forward and reverse KL",
        "How far the student's next-token distribution is from the teacher's, in nats a token: weighed by what the "
        "teacher would write (forward) or by what the student would (reverse). 0 is no difference.",
        "distill",
    ),
    ("Clipped", "Tokens whose probability moved so far in one step that the loss stops pushing them.", "rl"),
    (
        "Sampler-learner gap",
        "How much the probabilities used for writing differ from those used for learning; 0 would be perfect.",
        "rl",
    ),
    ("Loss", "How surprised the model is by the next token of a text, in nats; lower is better.", "pretrain sft"),
    ("FLOPs", "Floating-point operations: how much was computed, whatever the machine.", ""),
)


def glossary(kinds: set[str]) -> list[tuple[str, str]]:
    """Return (term, meaning) for the terms that a run with these kinds of stage uses."""
    return [(term, meaning) for term, meaning, kind in GLOSSARY if not kind or kinds & set(kind.split())]
