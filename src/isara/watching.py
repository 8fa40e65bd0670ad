"""Who is told how far a run has come."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from isara.records import Candidate, Draw

StageName: TypeAlias = Literal["generate", "train", "prefer", "evaluate", "test"]


class Watcher(Protocol):
    """Is told how far the run has come; the command line draws its progress bars with one."""

    def stage(self, iteration: int, name: StageName, total: int) -> None:
        """A stage begins; `total` is the pairs to accept (generate) or answers to write (evaluate, test), else 0."""
        ...

    def batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """A batch has been filtered; `accepted` counts the whole iteration."""
        ...

    def alone(self, draws: Sequence[Draw]) -> None:
        """A batch of a model's own answers is stored, which the preference step learns from."""
        ...

    def tokens(self, tokens: int, done: int) -> None:
        """The engine has generated so many tokens, and completed so many prompts, in the call at hand."""
        ...

    def step(self, step: int, total: int, loss: float) -> None:
        """The trainer has taken an optimiser step."""
        ...

    def figures(self, iteration: int, name: StageName, figures: Mapping[str, float]) -> None:
        """A stage is done, now or in an earlier command, and these are its figures."""
        ...


class Silent:
    """The watcher that shows nothing."""

    def stage(self, iteration: int, name: StageName, total: int) -> None:
        """Shows nothing."""

    def batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """Shows nothing."""

    def alone(self, draws: Sequence[Draw]) -> None:
        """Shows nothing."""

    def tokens(self, tokens: int, done: int) -> None:
        """Shows nothing."""

    def step(self, step: int, total: int, loss: float) -> None:
        """Shows nothing."""

    def figures(self, iteration: int, name: StageName, figures: Mapping[str, float]) -> None:
        """Shows nothing."""


SILENT = Silent()
