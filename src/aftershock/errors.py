"""The errors a user can meet; the command line prints their message without a traceback."""


class AftershockError(Exception):
    """Something a user can mend. The message names the thing, its value, what was wanted, and what to do."""


class RecipeError(AftershockError):
    """A recipe that can't be followed: unknown key, wrong type or impossible value."""


class CheckpointError(AftershockError):
    """Weights or state on disk that are missing, unexpected, misshapen, corrupted or unsafe to load."""


class CapacityError(AftershockError):
    """A request that can't fit the memory or length that was reserved for it."""


class SamplingError(AftershockError):
    """Sampling parameters, a prompt or a chat that can't be sampled from."""


class RunError(AftershockError):
    """A run folder that is locked, damaged, full or of another recipe."""


class TaskError(AftershockError):
    """A task that can't be found or made, or whose own check doesn't hold."""


class VerifierError(AftershockError):
    """Verifiers failed on more answers than the run allows; scores can't be trusted."""


class TrainingError(AftershockError):
    """A training step that can't be taken: samples, batches or gradients that would spoil the weights."""


class DataError(AftershockError):
    """A dataset that can't be read, or rows that aren't prompts with completions."""


class BenchError(AftershockError):
    """A bench that can't be begun, gone on with or read: its model, its suites or its folder."""


class SandboxError(AftershockError):
    """No isolation can be had for untrusted code here, so it is refused; the message says what to install."""
