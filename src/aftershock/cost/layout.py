"""How a model is spread over a cluster."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Ways of parallelism; data x tensor x pipeline chips in all, as experts are spread over the data's (V3, 3.2).

    `zero` is ZeRO's stage (arXiv 1910.02054): 0 nothing, 1 the optimiser's moments, 2 gradients, 3 weights as well.
    """

    data: int = 1
    tensor: int = 1
    expert: int = 1
    pipeline: int = 1
    zero: int = 1

    @property
    def chips(self) -> int:
        """How many chips it takes."""
        return self.data * self.tensor * self.pipeline

    def __str__(self) -> str:
        return (
            f"data {self.data}, tensor {self.tensor}, expert {self.expert}, pipeline {self.pipeline}, ZeRO-{self.zero}"
        )
