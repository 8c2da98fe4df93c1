"""Errors that a user can correct, each stated in one sentence."""


class ConfigError(ValueError):
    """A value, or a combination of values, that cannot be run; nothing has been compiled yet."""


class TrainingError(RuntimeError):
    """A run that had to stop; its last good checkpoint is still there."""
