"""The parts that the loop is made of. Anything with these methods will do; nothing has to be inherited."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from isara.pool import Embedder, Pool, Retrieve
from isara.records import Candidate, Completion, Preference, Prompt, QAPair, Rejection, Sampling, TrainStats

__all__ = [
    "AloneTrainer",
    "Embedder",
    "Engine",
    "EngineFactory",
    "Filter",
    "PreferenceTrainer",
    "Retrieve",
    "SteppedTrainer",
    "TaughtTrainer",
    "TokenEngine",
    "Trainer",
]


class Engine(Protocol):
    """A causal language model's weights: a context manager, in whose `with` block they are loaded."""

    @property
    def exact(self) -> bool:
        """Whether a completion depends on its own prompt and seed alone, to the last bit, whatever it runs beside."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i is drawn with seed i."""
        ...

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class TokenEngine(Protocol):
    """An engine that tells a continuation's tokens apart, which no engine need be able to."""

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation (ids) after its prompt and the tokens before."""
        ...


class EngineFactory(Protocol):
    """Opens a model; a class whose constructor takes a model folder or name is one."""

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model; nothing need be loaded before its `with` block is entered."""
        ...


class Filter(Protocol):
    """Decides on one candidate."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """The reason to drop the candidate, or None to keep it; `kept` holds seeds and all accepted so far."""
        ...


class Trainer(Protocol):
    """Fine-tunes a model on pairs."""

    def key(self) -> Mapping[str, Any]:
        """What the trained model depends on beside pairs and start, JSON-ready."""
        ...

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains the model at `start` on `pairs` and leaves in `out` a folder that transformers can load."""
        ...


class PreferenceTrainer(Protocol):
    """Trains a model on preferences."""

    def key(self) -> Mapping[str, Any]:
        """What the trained model depends on beside preferences and start, JSON-ready."""
        ...

    def prefer(self, preferences: Sequence[Preference], start: str, out: Path) -> TrainStats:
        """Trains the model at `start` on `preferences` and leaves in `out` a folder that transformers can load."""
        ...


@runtime_checkable
class SteppedTrainer(Protocol):
    """A trainer that can be told how many optimiser steps to take, which the seeds-only baseline is trained with."""

    def with_steps(self, steps: int) -> Trainer:
        """The same trainer with so many steps."""
        ...


@runtime_checkable
class AloneTrainer(Protocol):
    """A trainer that can be told to show no demonstrations, as who gives second answers is asked without any."""

    def without_demos(self) -> Trainer:
        """The same trainer for a model that is asked without demonstrations."""
        ...


@runtime_checkable
class TaughtTrainer(Protocol):
    """A trainer that can be told which model shows it what to say after demonstrations."""

    def with_teacher(self, model: str) -> Trainer:
        """The same trainer with that teacher, a model folder."""
        ...
