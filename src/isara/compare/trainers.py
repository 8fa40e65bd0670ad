"""Trainers around a trainer: what an arm changes about training that no config value changes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isara.generate import stream
from isara.parts import Parts
from isara.protocols import Trainer
from isara.records import QAPair, TrainStats


class EqualSteps:
    """Trains each iteration with a trainer of its own: those that take as many steps as another arm took.

    Args:
        trainers: One an iteration, from the first.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = trainers

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start."""
        return {"trainer": "one an iteration", "trainers": [trainer.key() for trainer in self.trainers]}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains with the trainer of the iteration that made the newest of the pairs."""
        newest = max(pair.iteration for pair in pairs)
        return self.trainers[newest - 1].fit(pairs, start, out)


class ShuffledAnswers:
    """Trains on the same questions, each with the answer of another.

    Args:
        trainer: Trains on them.
        seed: Of the order in which answers go round.
    """

    def __init__(self, trainer: Trainer, seed: int) -> None:
        self.trainer, self.seed = trainer, seed

    @classmethod
    def instead(cls, parts: Parts) -> Parts:
        """The parts with their trainer behind this one."""
        return replace(parts, trainer=cls(parts.trainer, parts.config.seed))

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start."""
        return {"trainer": "shuffled answers", "seed": self.seed, "of": self.trainer.key()}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains on the pairs after their answers went one place on in a random round: nobody keeps his own."""
        order = list(range(len(pairs)))
        random.Random(stream(self.seed, "shuffled answers", len(pairs))).shuffle(order)
        wrong = dict(zip(order, [*order[1:], *order[:1]], strict=True))
        return self.trainer.fit(
            [replace(pair, answer=pairs[wrong[place]].answer) for place, pair in enumerate(pairs)], start, out
        )
