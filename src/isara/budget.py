"""How long one command may work on a run before it stops, with everything kept."""

import time
from collections.abc import Callable, Mapping, Sequence

from isara.config import BudgetConfig
from isara.errors import Paused
from isara.records import Candidate, Draw
from isara.watching import StageName, Watcher


class Budgeted:
    """A watcher that passes on what it is told, and stops the run where its budget is spent.

    It stops at the end of a batch of candidates or of own answers and before a stage, where nothing is lost; a training
    or an evaluation that has begun is finished first.

    Args:
        watcher: Is told of everything.
        budget: What one command may take.
        clock: Gives seconds.
    """

    def __init__(self, watcher: Watcher, budget: BudgetConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._watcher, self._budget, self._clock = watcher, budget, clock
        self._begun, self._tokens = clock(), 0

    def stage(self, iteration: int, name: StageName, total: int) -> None:
        """Passes it on, unless the budget is spent.

        Raises:
            Paused: It is.
        """
        self._check()
        self._watcher.stage(iteration, name, total)

    def batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """Passes it on and counts the batch's tokens.

        Raises:
            Paused: The budget is spent.
        """
        self._watcher.batch(candidates, accepted)
        if candidates:  # else it tells of batches that an earlier command has made
            self._spend([draw for candidate in candidates for draw in candidate.draws])

    def alone(self, draws: Sequence[Draw]) -> None:
        """Passes it on and counts the batch's tokens.

        Raises:
            Paused: The budget is spent.
        """
        self._watcher.alone(draws)
        self._spend(draws)

    def tokens(self, tokens: int, done: int) -> None:
        """Passes it on."""
        self._watcher.tokens(tokens, done)

    def step(self, step: int, total: int, loss: float) -> None:
        """Passes it on."""
        self._watcher.step(step, total, loss)

    def figures(self, iteration: int, name: StageName, figures: Mapping[str, float]) -> None:
        """Passes it on."""
        self._watcher.figures(iteration, name, figures)

    def _spend(self, draws: Sequence[Draw]) -> None:
        self._tokens += sum(draw.tokens for draw in draws)
        self._check()

    def _check(self) -> None:
        minutes = (self._clock() - self._begun) / 60
        if self._budget.minutes is not None and minutes >= self._budget.minutes:
            raise _paused(f"{minutes:.3g} minutes, and budget.minutes is {self._budget.minutes:g}")
        if self._budget.tokens is not None and self._tokens >= self._budget.tokens:
            raise _paused(f"{self._tokens:,} generated tokens, and budget.tokens is {self._budget.tokens:,}")


def _paused(spent: str) -> Paused:
    return Paused(
        f"stopped after {spent}: every finished batch and stage is kept, and the same command goes on with a new budget"
    )
