"""What a comparison found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isara.compare.arms import Arm
from isara.compare.budget import Cost
from isara.compare.figures import Line


@dataclass(frozen=True, slots=True)
class Failure:
    """An arm that failed with one training seed, and what it said."""

    arm: str
    seed: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison found.

    Attributes:
        out: Its folder.
        model: The base model.
        arms: The arms, in the order asked for.
        seeds: The training seeds.
        score: What the first column is.
        percent: Whether its values are shares.
        lines: A line an arm, of the models that the runs exported.
        iterations: A line for each iteration of each arm that trains.
        costs: What each arm cost, one run a seed.
        failures: What went wrong; the rest went on.
    """

    out: Path
    model: str
    arms: Sequence[Arm]
    seeds: Sequence[int]
    score: str
    percent: bool
    lines: Sequence[Line]
    iterations: Sequence[Line]
    costs: Mapping[str, Sequence[Cost]]
    failures: Sequence[Failure]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of the figures."""
        return {
            "model": self.model,
            "score": self.score,
            "percent": self.percent,
            "seeds": list(self.seeds),
            "arms": [line.to_json() for line in self.lines],
            "iterations": [line.to_json() for line in self.iterations],
            "costs": {arm: [asdict(each) for each in costs] for arm, costs in self.costs.items()},
            "failures": [asdict(failure) for failure in self.failures],
        }
