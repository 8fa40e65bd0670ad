"""Trainers around a trainer: what an arm changes about training that no config value changes."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isara.compare.prompts import tagged
from isara.evaluate.domain import HeldoutEvaluator
from isara.files import write_json
from isara.generate import stream
from isara.helpers import with_steps
from isara.keys import part_key
from isara.parts import Parts
from isara.pool import Pool
from isara.protocols import Trainer
from isara.records import QAPair, TrainStats
from isara.seeds import split_heldout


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

    def with_steps(self, steps: int) -> Trainer:
        """What trains who checks the arm's answers: the recipe's trainer, on the seeds as they are."""
        return with_steps(self.trainers[0], steps)

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

    def with_steps(self, steps: int) -> Trainer:
        """What trains who checks the arm's answers: the recipe's trainer, on the seeds as they are."""
        return with_steps(self.trainer, steps)

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains on the pairs after their answers went one place on in a random round: nobody keeps his own."""
        order = list(range(len(pairs)))
        random.Random(stream(self.seed, "shuffled answers", len(pairs))).shuffle(order)
        wrong = dict(zip(order, [*order[1:], *order[:1]], strict=True))
        return self.trainer.fit(
            [replace(pair, answer=pairs[wrong[place]].answer) for place, pair in enumerate(pairs)], start, out
        )


class TaggedSources:
    """Trains on questions that end with a tag, which tells seed pairs from generated ones (Humpback, 2308.06259).

    Args:
        trainer: Trains on them.
        seed_tag: Stands after the questions of seed pairs.
        generated_tag: Stands after those of generated pairs.
    """

    def __init__(self, trainer: Trainer, seed_tag: str, generated_tag: str) -> None:
        self.trainer, self.seed_tag, self.generated_tag = trainer, seed_tag, generated_tag

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start."""
        tags = [self.seed_tag, self.generated_tag]
        return {"trainer": "tagged sources", "tags": tags, "of": self.trainer.key()}

    def with_steps(self, steps: int) -> Trainer:
        """What trains who checks the arm's answers: the recipe's trainer, on the seeds as they are."""
        return with_steps(self.trainer, steps)

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains on the pairs with their tags."""
        marked = [tagged(pair, self.generated_tag if pair.iteration else self.seed_tag) for pair in pairs]
        return self.trainer.fit(marked, start, out)


@dataclass(frozen=True)
class Choice:
    """Settings among which a hold-out chooses, by dotted key, and the trainer that has them."""

    settings: Mapping[str, Any]
    trainer: Trainer


class Tuned:
    """Trains with the settings under which a part of the pairs, held out, was likeliest; the tests are never looked at.

    Args:
        choices: What is tried.
        parts: Whose engine and prompts measure the held-out part.
    """

    share = 0.2

    def __init__(self, choices: Sequence[Choice], parts: Parts) -> None:
        self.choices, self._parts = choices, parts

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start."""
        return {
            "trainer": "tuned on a hold-out",
            "share": self.share,
            "seed": self._parts.config.seed,
            "of": [choice.trainer.key() for choice in self.choices],
            "engine": part_key(self._parts.engine),
            "prompt format": part_key(self._parts.renderer),
        }

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains each choice on four fifths of the pairs, and the best one again on all; tuning.json says how it went.

        Raises:
            SeedError: The pairs are too few to be split.
        """
        parts = self._parts
        most, aside = split_heldout(pairs, self.share, parts.config.seed)
        measure = HeldoutEvaluator(aside, Pool(parts.embedder, most), 0)
        tried = out.with_name("tried")
        found = []
        for choice in self.choices:
            choice.trainer.fit(most, start, tried)
            with parts.asker(str(tried)) as asker:
                found.append(measure(asker)["bits_per_byte"])
            shutil.rmtree(tried)
        best = min(range(len(found)), key=found.__getitem__)
        rows = zip(self.choices, found, strict=True)
        tuning = [{"settings": dict(choice.settings), "bits_per_byte": bits} for choice, bits in rows]
        stats = self.choices[best].trainer.fit(pairs, start, out)
        write_json(out.with_name("tuning.json"), {"heldout": len(aside), "tried": tuning, "best": best})
        return stats
