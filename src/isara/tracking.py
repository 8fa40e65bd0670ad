"""The figures of a run in an experiment tracker, next to the trainer's: `track: tensorboard`, for example."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from isara.config import Config
from isara.errors import ConfigError
from isara.keys import leaves
from isara.records import BESIDE, Candidate, Draw
from isara.watching import StageName, Watcher

log = logging.getLogger("isara")

PROJECT = "isara"  # what runs are found under
_MOST_PARAM = 500  # characters that every store of MLflow takes


class Tracker(Protocol):
    """What figures are sent to."""

    def log(self, values: dict[str, float], step: int) -> Any:
        """Takes figures by name, at a step of the x axis."""
        ...

    def finish(self) -> Any:
        """Sends what is left."""
        ...


class Tracked:
    """A watcher that passes on what it is told, and sends figures to a tracker.

    The x axis counts optimiser steps of all trainings of this command. A tracker that fails ends no run: it is
    left out from then on, and the log says why.

    Args:
        watcher: Is told of everything.
        start: Gives the tracker when the first figure is there, since a new run's folder has to be empty until then;
            None for no tracker.
    """

    def __init__(self, watcher: Watcher, start: Callable[[], Tracker] | None) -> None:
        self._watcher, self._start = watcher, start
        self._tracker: Tracker | None = None
        self._training = "train"
        self._before = self._step = 0

    def stage(self, iteration: int, name: StageName, total: int) -> None:
        """Passes it on; steps that follow are counted after those of earlier trainings."""
        if name in ("train", "prefer"):
            self._training = BESIDE.get(iteration, name)
            self._before = self._step
        self._watcher.stage(iteration, name, total)

    def batch(self, candidates: Sequence[Candidate], accepted: int) -> None:
        """Passes it on."""
        self._watcher.batch(candidates, accepted)

    def alone(self, draws: Sequence[Draw]) -> None:
        """Passes it on."""
        self._watcher.alone(draws)

    def tokens(self, tokens: int, done: int) -> None:
        """Passes it on."""
        self._watcher.tokens(tokens, done)

    def step(self, step: int, total: int, loss: float) -> None:
        """Sends the loss of an optimiser step."""
        self._step = self._before + step
        self._send({f"{self._training}/loss": loss})
        self._watcher.step(step, total, loss)

    def figures(self, iteration: int, name: StageName, figures: Mapping[str, float]) -> None:
        """Sends the figures of a finished stage, with its iteration."""
        prefix = f"{BESIDE[iteration]}/{name}" if iteration in BESIDE else name
        self._send({"iteration": max(iteration, 0), **{f"{prefix}/{key}": value for key, value in figures.items()}})
        self._watcher.figures(iteration, name, figures)

    def _send(self, values: dict[str, float]) -> None:
        if self._start is None:
            return
        try:
            if self._tracker is None:
                self._tracker = self._start()
            self._tracker.log(values, step=self._step)
        except Exception as error:  # whatever a tracker's client raises, hours of a run are not lost to it
            what = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            log.warning("the tracker is left out from here on: %s", what)
            self._start = self._tracker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker.finish()
        except Exception as failed:
            log.warning("the tracker could not be closed: %s: %s", type(failed).__name__, failed)


def tracked(watcher: Watcher, config: Config) -> Tracked:
    """The watcher with the tracker of `track`, or with none.

    Raises:
        ConfigError: The tracker's package is missing.
    """
    if config.track is None:
        return Tracked(watcher, None)
    if not _is_installed(config.track):
        raise ConfigError(
            f"track: {config.track}: expected its package, found none: pip install {config.track}, or set track to null"
        )
    return Tracked(watcher, partial(_start, config.track, config))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # of a module that was switched off
        return False


def _start(name: str, config: Config) -> "Tracker":
    """The tracker of a name, started, that has been told the config.

    Raises:
        ConfigError: It can't be started.
    """
    out = Path(config.out)
    told = {key: str(value) for key, value in leaves(config.model_dump(mode="json"))}
    try:
        if name == "tensorboard":
            return _TensorBoard(out / "tensorboard")
        if name == "mlflow":
            return _MLflow(out.name, told)
        # trackio has the calls of wandb.
        started: Tracker = import_module(name).init(project=PROJECT, name=out.name, config=told)
    except Exception as error:  # what each client raises is its own affair
        raise ConfigError(
            f"track: {name} can't be started ({type(error).__name__}: {error}): mend that, or set track to null"
        ) from error
    return started


class _TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class _MLflow:
    """A run of the experiment that all runs are in, where the environment says."""

    def __init__(self, name: str, told: dict[str, str]) -> None:
        self._mlflow = import_module("mlflow")
        self._mlflow.set_experiment(PROJECT)
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params({key: value[:_MOST_PARAM] for key, value in told.items()})

    def log(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)

    def finish(self) -> None:
        self._mlflow.end_run()
