"""Several engines of one model, each in a process of its own, that share the rows of a call.

A completion depends on its own prompt and seed, and comes back at its own place: where the engine is exact, one worker
and several give the same. The rows of a worker that dies are made by another one.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, cast

from isara.errors import ModelError
from isara.protocols import Engine, EngineFactory
from isara.records import Completion, Prompt, Sampling

log = logging.getLogger("isara")

_TASKS = 2  # of a worker in a call, so that one that is slower gets fewer; one where that would make batches small
_FEWEST = 128  # rows of a task where there are several: smaller ones are slower a row, and end with few (docs/scale.md)
# What makes these rows of a call with an engine: a result a row, in order.
Ask: TypeAlias = Callable[["WorkerProcess", Sequence[int]], Sequence[Any]]


class WorkerProcess(Engine, Protocol):
    """An engine in a process of its own."""

    @property
    def dead(self) -> bool:
        """Whether its process has ended while it was wanted."""
        ...

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """As of `TokenEngine`."""
        ...


class WorkerEngines:
    """Opens a model in several processes.

    Args:
        makes: What opens it in each of them; they differ in nothing that completions depend on.
        on_progress: Is called with the tokens generated and the rows done so far in a call.
        around: What the processes need, entered before they are opened and left when they are closed, perhaps by
            several engines at a time.
    """

    def __init__(
        self,
        makes: Sequence[EngineFactory],
        on_progress: Callable[[int, int], None] | None = None,
        around: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._makes, self._on_progress, self._around = makes, on_progress, around or nullcontext()

    def key(self) -> Any:
        """As of one of them."""
        return cast(Any, self._makes[0]).key()

    def __call__(self, model: str, /) -> "WorkerEngine":
        """An engine for the model, not opened yet."""
        return WorkerEngine(model, self._makes, self._on_progress, self._around)


@dataclass(eq=False)
class _Worker:
    """One of the processes."""

    number: int
    engine: WorkerProcess
    deaths: int = 0
    opened: bool = False
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Starts its process, where it has none and is still wanted."""
        with self.lock:
            if not self.opened and not self.ended:
                self.engine.__enter__()
                self.opened = True

    def close(self) -> None:
        """Ends its process, where it has one."""
        with self.lock:
            if self.opened:
                self.opened = False
                self.engine.__exit__(None, None, None)

    def end(self) -> None:
        """Ends its process for good, though a thread may be about to start it."""
        self.ended = True
        self.close()


@dataclass
class _Task:
    """Rows of a call, by their places, that are made together."""

    rows: list[int]
    cost: int = 0
    deaths: int = 0


class WorkerEngine:
    """One model in several processes, which live for a `with` block.

    Args:
        model: The folder or name of the model.
        makes: What opens it in each process.
        on_progress: Is called with the tokens generated and the rows done so far in a call.
        around: As of `WorkerEngines`.
    """

    def __init__(
        self,
        model: str,
        makes: Sequence[EngineFactory],
        on_progress: Callable[[int, int], None] | None,
        around: AbstractContextManager[Any],
    ) -> None:
        self.model, self._makes, self._on_progress, self._around = model, makes, on_progress, around
        self._workers: list[_Worker] = []
        self._opened = ExitStack()

    @property
    def exact(self) -> bool:
        """As of one worker."""
        return self._made(0).exact

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i is drawn with seed i, whichever worker makes it.

        Raises:
            ModelError: As of one worker; or all of them died, or two died of the same rows.
        """

        def ask(engine: WorkerProcess, rows: Sequence[int]) -> list[Completion]:
            return engine.generate([prompts[row] for row in rows], sampling, [seeds[row] for row in rows])

        return self._share(prompts, [len(prompt.ids) + sampling.max_new_tokens for prompt in prompts], ask)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens.

        Raises:
            ModelError: As `generate`.
        """

        def ask(engine: WorkerProcess, rows: Sequence[int]) -> list[float]:
            return engine.logprobs([prompts[row] for row in rows], [continuations[row] for row in rows])

        return self._share(prompts, _lengths(prompts, continuations), ask)

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation after its prompt and the tokens before.

        Raises:
            ModelError: As `generate`.
        """

        def ask(engine: WorkerProcess, rows: Sequence[int]) -> list[list[float]]:
            return engine.token_logprobs([prompts[row] for row in rows], [continuations[row] for row in rows])

        return self._share(prompts, _lengths(prompts, continuations), ask)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self._around)
            self._workers = [_Worker(number, self._made(number)) for number in range(len(self._makes))]
            opened.callback(self._close)
            with ThreadPoolExecutor(len(self._workers)) as threads:
                futures = {threads.submit(worker.open): worker for worker in self._workers}
            lost = {worker: error for future, worker in futures.items() if (error := future.exception())}
            for worker, error in lost.items():
                if not _died(worker, error) or len(lost) == len(futures):
                    raise error
                log.warning("worker %d: %s; the others make its rows", worker.number, error)
                self._workers.remove(worker)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _made(self, number: int) -> WorkerProcess:
        return cast(WorkerProcess, self._makes[number](self.model))

    def _close(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()

    def _share(self, prompts: Sequence[Prompt], costs: Sequence[int], ask: Ask) -> list[Any]:
        """What the workers make of all rows: each takes a task as soon as it is free."""
        waiting = shared_out(prompts, costs, len(self._workers))
        done: dict[int, Any] = {}
        running: dict[Future[Sequence[Any]], tuple[_Worker, _Task]] = {}
        free = list(self._workers)
        with ThreadPoolExecutor(len(self._workers)) as threads:
            try:
                while waiting or running:
                    while waiting and free:
                        worker, task = free.pop(0), waiting.pop(0)
                        running[threads.submit(_work, worker, task, ask)] = worker, task
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        worker, task = running.pop(future)
                        error = future.exception()
                        if error is None:
                            done |= zip(task.rows, future.result(), strict=True)
                            self._report(done)
                        else:
                            self._check_death(worker, task, error)
                            waiting.insert(0, task)
                        if worker in self._workers:
                            free.append(worker)
            except BaseException:
                self._close()  # what the others are at is of no use, and nobody is to wait for it
                raise
        return [done[row] for row in range(len(prompts))]

    def _check_death(self, worker: _Worker, task: _Task, error: BaseException) -> None:
        """Has a worker that died start again, once; raises any other error, and where starting again is of no use."""
        if not _died(worker, error):
            raise error
        worker.deaths += 1
        task.deaths += worker.opened  # one that could not start again did not die of the rows
        worker.close()
        if task.deaths > 1:
            raise ModelError(f"two workers ended over the same {len(task.rows)} rows; the last one: {error}") from error
        if worker.deaths == 1:
            log.warning("worker %d: %s; it starts again, and its rows are made once more", worker.number, error)
            worker.engine = self._made(worker.number)
            return
        self._workers.remove(worker)
        log.warning("worker %d: %s; it ended before, and the others make its rows", worker.number, error)
        if not self._workers:
            raise error

    def _report(self, done: dict[int, Any]) -> None:
        made = [each for each in done.values() if isinstance(each, Completion)]
        if made and self._on_progress is not None:
            self._on_progress(sum(each.tokens for each in made), len(made))


def _died(worker: _Worker, error: BaseException) -> bool:
    """Whether the error is that the worker's process has ended."""
    return isinstance(error, ModelError) and worker.engine.dead


def _work(worker: _Worker, task: _Task, ask: Ask) -> Sequence[Any]:
    """A task's results, by a worker that may have to start again before."""
    worker.open()
    return ask(worker.engine, task.rows)


def shared_out(prompts: Sequence[Prompt], costs: Sequence[int], workers: int) -> list[_Task]:
    """Rows in tasks of like cost, the most costly first; rows of one prompt stay together, as it is read once then.

    Args:
        prompts: Of each row.
        costs: Tokens of each row.
        workers: How many engines there are.
    """
    together: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        together.setdefault(prompt.ids, []).append(row)
    groups = sorted(together.values(), key=lambda rows: -sum(costs[row] for row in rows))
    count = workers * (_TASKS if len(prompts) >= _TASKS * _FEWEST * workers else 1)
    tasks = [_Task([]) for _ in range(count)]
    for rows in groups:
        task = min(tasks, key=lambda each: each.cost)
        task.rows += rows
        task.cost += sum(costs[row] for row in rows)
    return sorted((task for task in tasks if task.rows), key=lambda task: -task.cost)


def _lengths(prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[int]:
    return [len(prompt.ids) + len(tail) for prompt, tail in zip(prompts, continuations, strict=True)]
