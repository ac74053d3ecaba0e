"""A reward model's say in the reward of open tasks [R1 2.3.4]: what it reads of a completion, what its score counts.

A score counts as sigmoid(score - centre), in (0, 1), like a rule's: for a model of pairs, whose scores mean something
only against one another, `centre` is the mean score of its held-out answers, and the value the chance of being
preferred to such an answer (arXiv 2502.18770, 4: a bounded and centred reward is hacked later); for one of judgements
it is 0, and the value the chance of being safe.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aftershock.cost import flops
from aftershock.learn.preference import score_all
from aftershock.models import Scorer, load
from aftershock.pipeline.context import Context, model_folder
from aftershock.pipeline.data import Example, encode
from aftershock.pipeline.evaluate import Judged
from aftershock.recipe import PreferenceTable, RewardModelStage
from aftershock.tasks import Task
from aftershock.text import Message, Tokenizer, split
from aftershock.text.reasoning import THINK_CLOSE
from aftershock.verify.verdict import Reward

CENTRE = "score_centre"  # the key in a reward model's config.json


def read(
    prompt: tuple[Message, ...], text: str, judges: str, tokenizer: Tokenizer, prefilled: bool = True
) -> list[int]:
    """Return the tokens that a reward model reads; where it `judges` the "answer", an empty reasoning before it."""
    if judges == "answer":
        text = THINK_CLOSE + split(text, prefilled).answer
    return encode(Example(prompt, text), tokenizer).tokens


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)), for any finite value."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))


@dataclass(frozen=True)
class Preference:
    """One reward model at work in a stage of reinforcement learning, from step `table.from_step` on."""

    table: PreferenceTable
    judges: str
    scorer: Scorer
    tokenizer: Tokenizer
    micro_tokens: int
    tasks: frozenset[str]  # names of the open tasks that it judges

    @classmethod
    def load(
        cls, table: PreferenceTable, context: Context, micro_tokens: int, tasks: Mapping[str, Task]
    ) -> "Preference":
        """Read the reward model that an earlier stage made; `tasks` are the stage's, by their names in the recipe."""
        stage, folder = context.recipe.stage[table.model], model_folder(table.model, context)
        scorer = load(folder, device=context.device, kind=Scorer)
        assert isinstance(scorer, Scorer)
        assert isinstance(stage, RewardModelStage)
        judged = frozenset(tasks[name].name for name in table.tasks or tasks)
        return cls(table, stage.judges, scorer, Tokenizer.load(folder), micro_tokens, judged)

    def judge(self, judged: Sequence[Judged]) -> tuple[list[Judged], float]:
        """Return the completions with this model's part and weight in their rewards, and the FLOPs that took.

        A completion without an answer after its reasoning is not scored: its part is 0, as it is where a rule judges.
        Completions of tasks that this model doesn't judge stay as they are.
        """
        mine = [one for one in judged if one.problem.task in self.tasks]
        texts = [(one.problem.prompt, completion) for one in mine for completion in one.completions]
        documents = [
            read(({"role": "user", "content": prompt},), completion.text, self.judges, self.tokenizer)
            for prompt, completion in texts
        ]
        centre = self.scorer.config.extras.get(CENTRE, 0.0)
        scores = score_all(self.scorer, documents, self.micro_tokens)
        parts = iter([sigmoid(s - centre) if c.answer else 0.0 for s, (_, c) in zip(scores, texts)])
        tokens = sum(map(len, documents))
        spent = flops.forward(self.scorer.config.to_dict(), tokens / max(1, len(documents)) / 2) * tokens
        heard = iter([replace(one, rewards=[self._add(r, next(parts)) for r in one.rewards]) for one in mine])
        return [next(heard) if one.problem.task in self.tasks else one for one in judged], spent

    def _add(self, reward: Reward, part: float) -> Reward:
        parts = {**reward.parts, f"preference/{self.table.model}": part}
        return replace(reward, total=reward.total + self.table.weight * part, parts=parts)
