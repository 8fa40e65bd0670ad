"""The trainer in a process of its own: when the process ends, all of its memory is free again."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isara.errors import TrainingError
from isara.process import Child, module_command, serve
from isara.records import Preference, QAPair, TrainStats
from isara.training.messages import LogSender, recalled_from, shown_to
from isara.training.options import OnStep
from isara.training.sft import SupervisedTrainer

log = logging.getLogger("isara")


class ChildTrainer:
    """The trainer of `SupervisedTrainer` with the same arguments, in a child process that takes its memory with it."""

    def __init__(self, *, on_step: OnStep | None = None, **arguments: Any) -> None:
        self.trainer = SupervisedTrainer(**arguments)
        self.on_step = on_step

    def key(self) -> dict[str, Any]:
        """What `SupervisedTrainer.key` says: the process makes no difference to the weights."""
        return self.trainer.key()

    def check(self, start: str) -> None:
        """What `SupervisedTrainer.check` does, in this process: it loads no weights.

        Raises:
            ConfigError: As there.
            ModelError: As there.
        """
        self.trainer.check(start)

    def with_steps(self, steps: int) -> "ChildTrainer":
        """The same trainer with so many optimiser steps, for a model of the seeds alone: without anchors."""
        return self._changed(max_steps=steps, anchors=0.0)

    def without_demos(self) -> "ChildTrainer":
        """The same trainer for a model that is asked without demonstrations."""
        return self._changed(retrieve=None)

    def with_teacher(self, model: str) -> "ChildTrainer":
        """The same trainer whose teacher of `loss="distil"` is that model."""
        return self._changed(taught_by=model)

    def _changed(self, **option: Any) -> "ChildTrainer":
        told = self.trainer
        functions = {"on_step": self.on_step, "retrieve": told.retrieve, "teach": told.teach}
        return ChildTrainer(**told.options() | functions | option)

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """What `SupervisedTrainer.fit` does and returns.

        Raises:
            TrainingError: As there, or the child process ended before its work was done.
            ModelError: As there.
            ConfigError: As there.
        """
        shown = shown_to(self.trainer, pairs)
        return self._done(pairs=[pair.to_json() for pair in pairs], start=start, out=str(out), shown=shown)

    def prefer(self, preferences: Sequence[Preference], start: str, out: Path) -> TrainStats:
        """What `SupervisedTrainer.prefer` does and returns.

        Raises:
            TrainingError: As there, or the child process ended before its work was done.
            ModelError: As there.
            ConfigError: As there.
        """
        return self._done(preferences=[each.to_json() for each in preferences], start=start, out=str(out), shown={})

    def _done(self, **job: Any) -> TrainStats:
        child = Child(module_command("isara.training.child"), "the training process", TrainingError)
        try:
            for message in child.ask(trainer=self.trainer.options(), **job):
                if "stats" in message:
                    return TrainStats(**message["stats"])
                if "log" in message:
                    log.log(*message["log"])
                elif self.on_step is not None:
                    self.on_step(*message["step"])
        finally:
            child.close()
        raise AssertionError("a child answers or dies")


def _work(next_request: Callable[[], dict[str, Any]], send: Callable[..., None]) -> None:
    """The child: does the one job that it is given."""

    def step(*state: float) -> None:
        send(step=state)

    log.addHandler(LogSender(send))
    log.setLevel(logging.INFO)
    job = next_request()
    trainer = SupervisedTrainer(**job["trainer"] | recalled_from(job["shown"]) | {"on_step": step})
    start, out = job["start"], Path(job["out"])
    if "preferences" in job:
        stats = trainer.prefer([Preference.from_json(row) for row in job["preferences"]], start, out)
    else:
        stats = trainer.fit([QAPair.from_json(row) for row in job["pairs"]], start, out)
    send(stats=asdict(stats))


if __name__ == "__main__":
    serve(_work)
