"""What the seeds themselves reach, each asked with its nearest other seeds: the measure of what a candidate reaches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from isara.asking import Asker
from isara.config import Score
from isara.pool import Pool, Retrieve
from isara.selection.scores import Answered, Likelihood


@dataclass(frozen=True, slots=True)
class Calibration:
    """The seeds' own scores.

    Attributes:
        values: By score, one of each seed, in the seeds' order.
    """

    values: Mapping[Score, Sequence[float]] = field(default_factory=dict)

    def threshold(self, name: Score, share: float) -> float:
        """The value that at least this share of the seeds reach: of `distance` they stay within it."""
        best_first = sorted(self.values[name], reverse=name != "distance")
        return best_first[max(1, math.ceil(round(share * len(best_first), 6))) - 1]

    def standard(self, name: Score, value: float) -> float:
        """How many of the seeds' standard deviations the value lies above their mean.

        Seeds that all score the same leave the difference as it is.
        """
        values = self.values[name]
        return (value - fmean(values)) / (pstdev(values) or 1.0)

    def to_json(self) -> dict[str, Any]:
        """Mean, standard deviation (of the seeds as a whole) and values of each score."""
        return {
            name: {"mean": round(fmean(values), 6), "sd": round(pstdev(values), 6), "values": list(values)}
            for name, values in self.values.items()
        }


def leave_one_out(seeds: Pool, retrieve: Retrieve) -> list[Answered]:
    """Each seed as an answered candidate, with what is retrieved for it from the other seeds."""
    return [Answered(seed, [demo for demo, _ in retrieve(seed)]) for seed in seeds.pairs]


def losses(asker: Asker, held: Sequence[Answered]) -> list[float]:
    """What each seed's answer costs after its demonstrations, in bits a token, rounded to 4 decimals."""
    found = Likelihood(asker)([(each.demos, each.pair) for each in held])
    return [round(-value / math.log(2), 4) for value in found]
