"""aftershock: make, run, measure and audit reasoning models the way DeepSeek-R1 made them possible."""

__version__ = "0.1.0"
