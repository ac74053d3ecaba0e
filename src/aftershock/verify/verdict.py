"""What a verifier says of an answer."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["right", "wrong", "unverifiable"]


@dataclass(frozen=True)
class Verdict:
    """One judgement: `outcome`, the `reason` in words, and the answer as `extracted` (None where there was none)."""

    outcome: Outcome
    reason: str = ""
    extracted: str | None = None


@dataclass(frozen=True)
class Reward:
    """A rollout's reward: the sum that RL maximises, its parts by name, and the verdict behind `accuracy`.

    `counted` is False where the verdict is unverifiable: such a rollout is kept out of the loss and of the scores.
    """

    total: float
    parts: dict[str, float]
    verdict: Verdict

    @property
    def counted(self) -> bool:
        return self.verdict.outcome != "unverifiable"
