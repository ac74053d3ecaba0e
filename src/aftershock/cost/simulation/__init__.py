"""An RL run on a cluster, simulated: who waits for whom, what failures cost, how stale the data gets."""

from aftershock.cost.lengths import Lengths
from aftershock.cost.simulation.learner import simulate
from aftershock.cost.simulation.outcome import Outcome, describe
from aftershock.cost.simulation.setup import Rates, Setup

__all__ = ["Lengths", "Outcome", "Rates", "Setup", "describe", "simulate"]
