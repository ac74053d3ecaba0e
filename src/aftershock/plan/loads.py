"""How much each stage does: steps, tokens trained on and sampled, in three scenarios of what can't be known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

from aftershock.plan.lengths import Lineage
from aftershock.recipe import (
    BenchStage,
    DistillStage,
    PretrainStage,
    Recipe,
    RewardModelStage,
    RLStage,
    SampleStage,
    SFTStage,
    Stage,
)
from aftershock.sources import SHIPPED

PROMPT_TOKENS, SHORT_PROMPT = 60, 25  # of word problems in a prompt's form; of our tasks' under a shipped tokenizer
MAX_ROWS = 256  # decoded together where a stage has no such key
BYTES_PER_TOKEN, SHORT_BYTES = 4.0, 3.5  # of text under a vocabulary of real size, and of world.jsonl's under ours
# Counted in those stages: unlike train problems of a family (difficulty 2, two languages) by how many draws repeat one;
# how much shorter the right answers that are kept are than all; of k that may be kept about the root of k are unlike.
POOL, RIGHT, UNLIKE = 1700, 0.83, 0.5
# Unlike train problems of `programs` at its first difficulty, and programs that are unlike for each of them, of a base
# and of what was trained on tasks: equal ones are run once. Counted in one run of r1.toml.
PROGRAMS, WRITTEN = 896, (1.7, 1.08)
CHUNK = 64  # problems that a sampling stage takes together: pipeline/sampling.py's


@dataclass(frozen=True)
class Scenario:
    """One guess at what can't be known: `share` of max_tokens that a completion takes where no length was measured,
    `stretch` of a measured one; `draws` towards their bound in dynamic sampling; share of groups with `signal`, and of
    problems whose completions are `kept` as data, of models unknown and of shipped ones; `speed` of a CPU.
    """

    share: float
    stretch: float
    draws: float
    signal: float
    kept: tuple[float, float]
    speed: float


# Shares by the measured nano runs, where lengths were 6% of max_tokens at the beginning and 19% at the end. `signal`:
# 0.60 to 0.75 in four stages. `kept` of shipped models: 0.96 of the problems in the road's three sampling stages.
SCENARIOS = (
    Scenario(0.05, 0.85, 0.0, 0.5, (0.1, 0.8), 1.25),
    Scenario(0.15, 1.0, 0.5, 0.68, (0.6, 0.96), 1.0),
    Scenario(0.6, 1.2, 1.0, 1.0, (1.0, 1.0), 0.8),
)


@dataclass(frozen=True)
class Load:
    """What a stage does in one scenario. `length` is a sequence's mean, `written` a completion's; completions are
    sampled in `batches`, and `exams` are its whole measurements. `programs` are the unlike ones that are run, `late`
    where that begins once all is sampled.
    """

    steps: float = 0
    trained: float = 0
    sampled: float = 0
    prompt: float = PROMPT_TOKENS
    written: float = 0
    batches: float = 0
    exams: int = 0
    programs: float = 0
    late: bool = False

    @property
    def length(self) -> float:
        """The mean length of a sequence."""
        return self.prompt + self.written

    @property
    def completions(self) -> float:
        """How many completions are sampled."""
        return self.sampled / self.written if self.written else 0.0


Known = Mapping[str, Lineage]


def lineages(recipe: Recipe) -> dict[str, Lineage]:
    """Return what is known of each model that descends from a shipped one, by its stage's name or its own."""
    found = {name: Lineage(name) for name in SHIPPED}
    for name, stage in recipe.stage.items():
        source = None if isinstance(stage, BenchStage) else found.get(stage.source or "")
        if source is None:
            continue
        if isinstance(stage, RLStage):
            found[name] = source.trained
        elif isinstance(stage, SFTStage | DistillStage):
            found[name] = source.taught
    return found


def load(stage: Stage, recipe: Recipe, known: Known, scenario: Scenario, model: str | None = None) -> Load | None:
    """Return what a stage does, its measurements included; None where its data's size is unknown.

    `model` is the one of a bench stage's models that is meant.
    """
    source = model if isinstance(stage, BenchStage) else stage.source
    line = known.get(source or "")
    prompt = SHORT_PROMPT if line else PROMPT_TOKENS
    if isinstance(stage, RewardModelStage):
        return _judging(stage, recipe, known, scenario, prompt)
    exams, quick, measured, written = _measured(stage, line, scenario)
    run = programs(stage, line, exams)
    if isinstance(stage, BenchStage):
        return Load(1, 0, measured * written, prompt, written, exams, exams, run, late=True)
    if isinstance(stage, SampleStage):
        drawn = _stretched(line.tokens(stage.tasks, True) if line else None, stage.max_tokens, scenario)
        problems = unlike(stage) if line else stage.problems
        batches = problems / CHUNK
        return Load(batches, 0, problems * stage.samples_per_problem * drawn, prompt, drawn, batches, 0, run)
    if isinstance(stage, PretrainStage):
        trained = stage.steps * stage.tokens_per_step
        return Load(stage.steps, trained, measured * written, prompt, written, exams, exams, run)
    if isinstance(stage, SFTStage):
        tokens = _data_tokens(stage.data, recipe, known, scenario, prompt)
        if tokens is None:
            return None
        steps = stage.epochs * tokens / stage.tokens_per_step
        return Load(steps, stage.epochs * tokens, measured * written, prompt, written, exams, exams, run)
    return _looped(stage, line, scenario, Load(0, 0, measured * written, prompt, written, exams + quick, exams, run))


def unlike(stage: SampleStage) -> float:
    """Return how many of the drawn problems of our own families are unlike: the others are sampled once."""
    pool = POOL * len(stage.tasks)
    return pool * (1 - exp(-stage.problems / pool))


def programs(stage: Stage, line: Lineage | None, exams: int) -> float:
    """Return how many unlike programs a stage has run in the sandbox, in `exams` and in what it samples."""
    share = sum(table.weight for table in stage.tasks if table.name == "programs")
    if isinstance(stage, RewardModelStage) or not share:
        return 0.0
    drawn = stage.problems if isinstance(stage, SampleStage) else 0
    if isinstance(stage, RLStage):
        drawn = stage.steps * stage.problems_per_step
    easy = all(table.difficulty == 1 for table in stage.tasks if table.name == "programs")
    pool = PROGRAMS if easy else 32 * PROGRAMS  # one step more
    unlike = pool * (1 - exp(-drawn * share / sum(table.weight for table in stage.tasks) / pool))
    measured = 0 if isinstance(stage, SampleStage) else exams * stage.eval.problems
    return WRITTEN[line is not None and line.when != "before"] * (unlike + measured)


def _looped(stage: RLStage | DistillStage, line: Lineage | None, scenario: Scenario, exams: Load) -> Load:
    """Return what a stage does that samples, where it does, and trains in turn."""
    rollouts = stage.steps * stage.problems_per_step * stage.samples_per_problem
    told = line.during(stage.tasks, stage.steps) if line else None
    draws, signal = 1.0, 1.0
    if isinstance(stage, RLStage):
        draws += scenario.draws * (stage.dynamic_sampling - 1)
        known = line.signal if line else None
        likely = scenario.signal if known is None else min(1.0, known * scenario.signal / SCENARIOS[1].signal)
        signal = likely if not stage.loss.kl and stage.dynamic_sampling == 1 else 1.0
    else:
        draws = float(stage.on_policy)
        if not stage.on_policy and line:
            told = line.taught.tokens(stage.tasks)
    written = _stretched(told, stage.max_tokens, scenario)
    sampled = draws * rollouts * written
    learnt = stage.learnt / stage.samples_per_problem if isinstance(stage, RLStage) else 1.0
    return Load(
        stage.steps,
        signal * (learnt * rollouts * written + prompts(stage) * exams.prompt),
        exams.sampled + sampled,
        exams.prompt,
        written,
        exams.batches + stage.steps * draws,
        exams.exams,
        exams.programs,
    )


def prompts(stage: RLStage | DistillStage) -> int:
    """Return how many prompts the learner computes: one for a group of RL's, one for each row otherwise.

    What completions of a group begin with alike, which `pack` may lay once too, no plan knows: it counts them whole.
    """
    return stage.steps * stage.problems_per_step * (1 if isinstance(stage, RLStage) else stage.samples_per_problem)


def _judging(stage: RewardModelStage, recipe: Recipe, known: Known, scenario: Scenario, prompt: float) -> Load | None:
    """Return what a reward model's training does: examples of one text, or of two that are compared."""
    written = _judged_tokens(stage, known, scenario)
    texts = (2 if stage.form == "pairwise" else 1) * (prompt + written)
    examples = float(stage.examples) if stage.tasks else 0.0
    if stage.data:
        tokens = _data_tokens(stage.data, recipe, known, scenario, prompt)
        if tokens is None:
            return None
        examples += tokens / texts
    steps = stage.epochs * examples / stage.examples_per_step
    return Load(steps, stage.epochs * examples * texts, 0, prompt, written)


def _judged_tokens(stage: RewardModelStage, known: Known, scenario: Scenario) -> float:
    line = known.get(stage.source)
    told = line.tokens(stage.tasks) if line else None
    return PROMPT_TOKENS if told is None else told * scenario.stretch


def _measured(stage: Stage, line: Lineage | None, scenario: Scenario) -> tuple[int, int, float, float]:
    """Return a stage's measurements, whole ones and quick ones, of how many completions in all and what mean length."""
    if isinstance(stage, SampleStage | RewardModelStage) or not stage.tasks:
        return 0, 0, 0.0, 0.0
    table, once = stage.eval, isinstance(stage, PretrainStage | BenchStage)
    times = 1 if once else 2
    quick = stage.steps // table.every if table.every and isinstance(stage, RLStage) else 0
    count = len(stage.tasks) * (times * table.problems * table.samples + quick * table.quick_problems)
    told = line.tokens(stage.tasks) if line else None
    if told is not None and line and not once:
        end = line.trained if isinstance(stage, RLStage) else line.taught
        told = (told + (end.tokens(stage.tasks) or told)) / 2
    return times, quick, float(count), _stretched(told, stage.max_tokens, scenario)


def _stretched(told: float | None, max_tokens: int, scenario: Scenario) -> float:
    return min(max_tokens, scenario.share * max_tokens if told is None else scenario.stretch * told)


def _data_tokens(
    sources: Sequence[str], recipe: Recipe, known: Known, scenario: Scenario, prompt: float
) -> float | None:
    """Return the tokens of data, None where a source is neither a file that is here nor an earlier stage."""
    total = 0.0
    for source in sources:
        maker, path = recipe.stage.get(source), recipe.locate(source)
        if isinstance(maker, SampleStage):
            line = known.get(maker.source)
            told = line.taught.tokens(maker.tasks, True) if line else None
            written = _stretched(told, maker.max_tokens, scenario) * (RIGHT if line else 1)
            kept, most = scenario.kept[line is not None], min(maker.keep, maker.samples_per_problem)
            total += (unlike(maker) * most**UNLIKE if line else maker.problems * most) * kept * (prompt + written)
        elif path.is_file():
            total += path.stat().st_size / (SHORT_BYTES if prompt == SHORT_PROMPT else BYTES_PER_TOKEN)
        else:
            return None
    return total
