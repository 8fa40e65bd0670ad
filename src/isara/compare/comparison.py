"""What a comparison found."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isara.compare.arms import Arm
from isara.compare.budget import Cost
from isara.compare.figures import Line, Measured
from isara.compare.guards import Leak
from isara.marks import clean

_MOST_SAID = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """An arm that failed with one training seed, and what it said."""

    arm: str
    seed: int
    message: str


def in_short(message: str) -> str:
    """As much of a failure's message as tables and pages show; comparison.json and log.txt hold all of it."""
    return clean(message, _MOST_SAID)


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
        seed_pairs: How many there were.
        tests: How many test questions.
        strata: The kind of each test question, where the score weighs kinds.
        more_is_better: Whether more of the first column is; of a task's figures nobody says.
        leaks: Seed pairs that give a test question away.
        left_out: Seed pairs that were left out, since they do.
        one_source: Whether seeds and tests come from one source.
        measured: Every model that was asked.
        progress: What each iteration of each run shows, one run a seed.
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
    seed_pairs: int
    tests: int
    strata: Sequence[Hashable] | None = None
    more_is_better: bool = True
    leaks: Sequence[Leak] = ()
    left_out: Sequence[Leak] = ()
    one_source: bool = False
    measured: Sequence[Measured] = ()
    progress: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)

    @property
    def contaminated(self) -> list[str]:
        """The arms whose models have seen a seed pair that gives a test question away."""
        return [arm.name for arm in self.arms if arm.sees_seeds] if self.leaks else []

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
            "progress": {arm: [list(run) for run in runs] for arm, runs in self.progress.items()},
            "failures": [asdict(failure) for failure in self.failures],
            "contamination": {
                "one_source": self.one_source,
                "seeds": [asdict(leak) for leak in self.leaks],
                "left_out": [asdict(leak) for leak in self.left_out],
                "arms": self.contaminated,
            },
        }
