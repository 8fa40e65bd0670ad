"""What a user can get wrong, one class a place; each message says what was expected, what was found, what to do."""


class IsaraError(Exception):
    """Base of every error that is the user's to mend; the command line prints its message and exits with 1."""


class SeedError(IsaraError):
    """Seed pairs, held-out pairs or benchmark files that can't be read or used."""


class ConfigError(IsaraError):
    """A configuration value, key or combination that has no meaning."""


class ModelError(IsaraError):
    """A model, tokenizer or embedder that can't be loaded or doesn't fit."""


class RunError(IsaraError):
    """A run folder that can't be written, resumed or shared."""


class YieldError(IsaraError):
    """Too few generated pairs pass the filters; what was made so far stays on disk."""


class TrainingError(IsaraError):
    """Training data or a training run that would spoil the model; the last good model stays."""


class Paused(IsaraError):
    """A run that stopped where it was asked to, with everything kept: no mistake, and the message says how to go on."""
