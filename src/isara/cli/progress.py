"""Progress: a bar for the stage at hand on a terminal, a line a minute where there is none, and the same in log.txt."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from isara.records import BESIDE, Candidate, Draw
from isara.watching import StageName

log = logging.getLogger("isara")

_ASKED = ("evaluate", "test")  # stages in which a model answers, and whose bar counts the answers
_EVERY = 60.0  # seconds: longer than that, nobody is left without a line
_COLUMNS = ("counts", "brief", "speed", "left")
_WORDS = ("counts", "made", "speed", "left", "whole")  # of a line, which has room for more
_WIDE = 100  # characters of a terminal that the time so far fits on, too
_VERY_WIDE = 120  # and the time left of the whole run
_TOO_EARLY = 5.0  # seconds: before, nothing is said of the time left
_GUESSED_YIELD = 0.5  # share of candidates that pass, before any has been seen


class _Drawn:
    """Draws a bar for a `with` block, and looks after it once a second: of much work nobody tells while it lasts.

    Args:
        progress: The bar.
        look: What is done each second.
    """

    def __init__(self, progress: Progress, look: Callable[[], None]) -> None:
        self._progress, self._look = progress, look
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_looking, daemon=True)

    def _keep_looking(self) -> None:
        while not self._ended.wait(1.0):
            self._look()

    def __enter__(self) -> Self:
        self._progress.start()
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beat.join()
        self._progress.stop()


class Bars(_Drawn):
    """A watcher that draws a bar for the stage at hand, or prints a line a minute where there is no terminal.

    Args:
        console: Where to.
        iterations: How many iterations there will be.
        batch: Questions made at a time; 0 where that is not known, and then a first batch moves no bar.
        clock: Gives seconds.
    """

    def __init__(
        self, console: Console, iterations: int, batch: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.iterations, self.batch_size = iterations, batch
        self._console, self._clock = console, clock
        wide = console.width >= _WIDE
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12 if wide else 5),
            *(TextColumn("{task.fields[" + name + "]}") for name in _COLUMNS),
            *([TextColumn("{task.fields[whole]}")] if console.width >= _VERY_WIDE else []),
            *([TimeElapsedColumn()] if wide else []),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        super().__init__(bar, self.refresh)
        self._task: TaskID | None = None
        self._stage: _Stage | None = None
        self._begun: tuple[int, float] | None = None  # the iteration at hand, and when it began
        self._usual: float | None = None  # seconds of the one before, where this process made all of it
        self._partial = False  # whether an earlier process made a part of the one at hand
        self._beside: float | None = None  # when a stage began that belongs to no iteration
        self._aside = 0.0  # seconds of these within the one at hand
        self._told = clock()
        self._lock = threading.RLock()

    def stage(self, iteration: int, name: StageName, total: int) -> None:
        """Starts the bar of a stage."""
        names = {number: name.replace("-", " ") for number, name in BESIDE.items()}
        where = {0: "base model", **names}.get(iteration, f"iteration {iteration} of {self.iterations}")
        self._set_aside(iteration in BESIDE)
        if name == "generate":
            self._begin_iteration(iteration)
        self._begin(f"{where}: {name}", name, total)

    def batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """Moves the bar to the pairs accepted so far."""
        with self._lock:
            if self._stage is not None:
                self._stage.end_batch(candidates, accepted)
                self._partial |= self._stage.taken_over > 0
                self._draw(self._stage)
                self._tell(self._stage)

    def alone(self, draws: Sequence[Draw]) -> None:
        """Shows nothing: the engine has told of their tokens."""

    def tokens(self, tokens: int, done: int) -> None:
        """Takes what the engine has generated so far in one call, in which it counts from zero."""
        with self._lock:
            if self._stage is not None:
                self._stage.count_tokens(tokens, done)
        self.refresh()

    def step(self, step: int, total: int, loss: float) -> None:
        """Moves the bar to a step of the training."""
        with self._lock:
            if self._stage is None:  # a training by itself
                self._begin("train", "train", total)
            assert self._stage is not None
            self._stage.done, self._stage.wanted, self._stage.loss = step, total, loss
        self.refresh()

    def figures(self, iteration: int, name: StageName, figures: Mapping[str, float]) -> None:
        """Shows nothing: the table at the end has them."""

    def refresh(self) -> None:
        """Draws the bar as things stand, and tells of them when nothing was told for a minute."""
        with self._lock:
            if self._stage is not None:
                self._draw(self._stage)
                if self._clock() - self._told >= _EVERY:
                    self._tell(self._stage)

    def _begin_iteration(self, iteration: int) -> None:
        now = self._clock()
        before, begun = self._begun or (iteration, now)
        self._usual = now - begun - self._aside if iteration == before + 1 and not self._partial else None
        self._begun, self._partial, self._aside = (iteration, now), False, 0.0

    def _set_aside(self, beside: bool) -> None:
        """Ends what a stage of no iteration takes, which comes once, and begins it where another one begins."""
        now = self._clock()
        if self._beside is not None:
            self._aside += now - self._beside
        self._beside = now if beside else None

    def _left_in_all(self) -> str:
        """The time left of the whole run, as long as each of its iterations takes what the last one took."""
        if self._usual is None or self._begun is None:
            return ""
        iteration, begun = self._begun
        left = self._usual * (self.iterations - iteration + 1) - (self._clock() - begun)
        return f"{_time_left(left)} in all" if left > 0 else ""

    def _begin(self, label: str, name: StageName, total: int) -> None:
        with self._lock:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage = _Stage(label, name, self._clock(), total, self.batch_size)
            empty: dict[str, Any] = dict.fromkeys((*_COLUMNS, "whole"), "")
            # What says nothing of its end (an evaluation without answers) has a bar that runs to and fro.
            unknown = name in _ASKED and not total
            self._task = self._progress.add_task(label, total=None if unknown else 1.0, **empty)
            self._draw(self._stage)
            self._tell(self._stage)

    def _draw(self, stage: "_Stage") -> None:
        fields: dict[str, Any] = stage.fields(self._clock() - stage.begun) | {"whole": self._left_in_all()}
        if self._task is not None:
            self._progress.update(self._task, completed=stage.share(), **fields)

    def _tell(self, stage: "_Stage") -> None:
        """Logs a line, and prints it where there is no terminal to draw a bar on."""
        self._told = self._clock()
        seconds = self._told - stage.begun
        fields = stage.fields(seconds) | {"whole": self._left_in_all()}
        said = [fields[name] for name in _WORDS if fields[name]]
        if seconds >= _EVERY:
            said.append(f"{seconds / 60:.0f} min so far")
        line = f"{stage.label}: {', '.join(said)}" if said else stage.label
        log.info("%s", line)
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Steps(_Drawn):
    """How far work beside the loop has come: a bar with the time left, or a line a minute where there is no terminal.

    Args:
        console: Where to.
        label: What is done.
        clock: Gives seconds.
    """

    def __init__(self, console: Console, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        super().__init__(bar, self._tell)
        self._task = self._progress.add_task(label, total=None, said="")
        self._label, self._first, self._done, self._total = label, 0, 0, 0
        self._begun = self._told = clock()
        self._lock = threading.Lock()

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        """Takes how much is done; where that is less than before, or of something else, the time begins anew."""
        with self._lock:
            if done < self._done or (label or self._label) != self._label:
                # What was done before, as an earlier process may have done it, took no time.
                self._label, self._first, self._begun = label or self._label, done, self._clock()
            self._done, self._total = done, total
            self._progress.update(
                self._task, description=self._label, completed=done, total=total or None, said=self._said()
            )
        self._tell()

    def _said(self) -> str:
        seconds, made = self._clock() - self._begun, self._done - self._first
        counts = f"{self._done}/{self._total}" if self._total else ""
        if not counts or made <= 0 or self._done >= self._total or seconds < _TOO_EARLY:
            return counts
        return f"{counts}, {_time_left(seconds * (self._total - self._done) / made)}"

    def _tell(self) -> None:
        with self._lock:
            if self._console.is_terminal or self._clock() - self._told < _EVERY:
                return
            self._told = self._clock()
            said = [each for each in (self._said(), f"{(self._told - self._begun) / 60:.0f} min so far") if each]
            line = f"{self._label}: {', '.join(said)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _time_left(seconds: float) -> str:
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


@dataclass
class _Stage:
    """How far a stage has come.

    Attributes:
        label: What it is called.
        name: Which it is.
        begun: When it began, by the clock.
        wanted: Pairs to accept, steps to take, or answers to write.
        batch: Questions made at a time; 0 where that is not known.
        done: Pairs accepted, or steps taken.
        candidates: All that were made.
        loss: Of the last step.
        prompts: Prompts that were completed in this batch, in the calls before the one at hand.
        usual: Prompts of an earlier batch, both its calls together.
        tokens: Generated in the calls before the one at hand.
        call: Tokens and prompts of the call at hand.
        reached: The largest share that was shown: a bar does not go back.
        taken_over: Pairs that an earlier process had accepted, known after the first batch.
        answering: Seconds, share and tokens when the first answers were there: what is read before them takes a time
            of its own, which says nothing of how long the others take.
    """

    label: str
    name: StageName
    begun: float
    wanted: int
    batch: int
    done: int = 0
    candidates: int = 0
    loss: float | None = None
    prompts: int = 0
    usual: int = 0
    tokens: int = 0
    call: tuple[int, int] = (0, 0)
    reached: float = 0.0
    taken_over: int = 0
    answering: tuple[float, float, int] | None = None

    def count_tokens(self, tokens: int, done: int) -> None:
        """Takes the engine's counts, which begin anew with each call."""
        if done <= self.call[1] or tokens < self.call[0]:
            self._end_call()
        self.call = (tokens, done)

    def end_batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """Takes what became of a batch."""
        self._end_call()
        self.usual, self.prompts = self.prompts, 0
        self.batch = self.batch or len(candidates)
        if not self.candidates:
            self.taken_over = accepted - sum(each.rejection is None for each in candidates)
        self.candidates += len(candidates)
        self.done = accepted

    def share(self) -> float:
        """How much of the stage is done, in [0, 1]; a batch that is not finished counts by what it may bring."""
        if self.wanted:
            done = float(self.prompts + self.call[1] if self.name in _ASKED else self.done)
            if self.name == "generate" and (size := self.usual or 2 * self.batch):
                part = min(1.0, (self.prompts + self.call[1]) / size)
                rate = (self.done - self.taken_over) / self.candidates if self.candidates else _GUESSED_YIELD
                done += part * min(rate * self.batch, self.wanted - self.done)
            self.reached = max(self.reached, min(1.0, done / self.wanted))
        return self.reached

    def fields(self, seconds: float) -> dict[str, str]:
        """What is shown beside the bar, by column."""
        if self.answering is None and self.name in _ASKED and self.prompts + self.call[1]:
            self.answering = (seconds, self.share(), self._all_tokens())
        return {
            "counts": self._counts(),
            "made": self._made(),
            "brief": f"{self.candidates} made" if self.name == "generate" else self._made(),
            "speed": self._speed(seconds),
            "left": self._left(seconds),
        }

    def _counts(self) -> str:
        if self.name == "generate":
            return f"{self.done}/{self.wanted} accepted"
        if self.name in _ASKED:
            prompts = self.prompts + self.call[1]
            return f"{min(prompts, self.wanted)}/{self.wanted} answers" if self.wanted and prompts else ""
        return f"step {self.done}/{self.wanted}" if self.done else ""

    def _made(self) -> str:
        if self.name in ("train", "prefer"):
            return "" if self.loss is None else f"loss {self.loss:.3f}"
        prompts = self.prompts + self.call[1]
        if self.name in _ASKED:
            return ""
        return f"{self.candidates} candidates" + (f" + {prompts} texts" if prompts else "")

    def _speed(self, seconds: float) -> str:
        before, _, known = self.answering or (0.0, 0.0, 0)
        tokens, taken = self._all_tokens() - known, seconds - before
        return f"{tokens / taken:.0f} tokens/s" if tokens > 0 and taken > 0 else ""

    def _left(self, seconds: float) -> str:
        before, known, _ = self.answering or (0.0, self.taken_over / self.wanted if self.wanted else 0.0, 0)
        share, taken = self.share(), seconds - before
        if share - known < 0.02 or share == 1 or taken < _TOO_EARLY:  # too early to say, or nothing to say
            return ""
        return _time_left(taken * (1 - share) / (share - known))

    def _all_tokens(self) -> int:
        return self.tokens + self.call[0]

    def _end_call(self) -> None:
        self.tokens += self.call[0]
        self.prompts += self.call[1]
        self.call = (0, 0)
