"""Progress on the terminal: a bar a stage, with tokens per second and accepted rows."""

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isara.generate import Row

log = logging.getLogger("isara")


class Bars:
    """A watcher that draws one bar for the stage at hand, or prints a line a batch where there is no terminal."""

    def __init__(self, console: Console, iterations: int) -> None:
        self.iterations = iterations
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._begun = time.monotonic()
        self._tokens = self._call = self._rows = 0
        self._label = ""

    def stage(self, iteration: int, name: Literal["generate", "train", "evaluate"], total: int) -> None:
        """Starts the bar of a stage."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._label = f"iteration {iteration}/{self.iterations}: {name}"
        self._tell(self._label)
        self._task = self._progress.add_task(self._label, total=total or None, info="")
        self._begun = time.monotonic()
        self._tokens = self._call = self._rows = 0

    def batch(self, rows: Sequence[Row], accepted: int) -> None:
        """Moves the bar to the pairs accepted so far."""
        self._rows += len(rows)
        info = f"{accepted} accepted of {self._rows} candidates, {self._speed():.0f} tokens/s"
        self._tell(f"{self._label}: {info}")
        self._update(completed=accepted, info=info)

    def tokens(self, tokens: int, done: int) -> None:
        """Takes what the engine has generated so far in one call, in which it counts from zero."""
        if tokens < self._call:
            self._tokens += self._call
        self._call = tokens
        self._update(info=f"{self._speed():.0f} tokens/s")

    def step(self, step: int, total: int, loss: float) -> None:
        """Moves the bar to a step of the training."""
        self._update(completed=step, total=total, info=f"loss {loss:.3f}")

    def _tell(self, line: str) -> None:
        """Logs a line, and prints it where there is no terminal to draw a bar on."""
        log.info("%s", line)
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False)

    def _speed(self) -> float:
        return (self._tokens + self._call) / max(1e-3, time.monotonic() - self._begun)

    def _update(self, *, info: str, completed: float | None = None, total: float | None = None) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=completed, total=total, info=info)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
