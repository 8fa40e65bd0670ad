"""What follows from scores: which answer comes first, and which is dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isara.config import AnswerScore, Score
from isara.pool import Pool
from isara.records import Candidate, Draw, Rejection
from isara.selection.calibration import Calibration
from isara.selection.focus import Focus


@dataclass(frozen=True, slots=True)
class Selection:
    """How a stage chooses, worked out once before its first batch.

    Attributes:
        weights: The scores that decide between the answers to a question; empty where the first one is taken.
        keep: The share of the seeds whose value an answer must reach, by score.
        calibration: What the seeds reach.
        focus: What questions are drawn around; None is everything.
    """

    weights: Mapping[AnswerScore, float] = field(default_factory=dict)
    keep: Mapping[Score, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    focus: Focus | None = None

    @property
    def filters(self) -> list["Keep"]:
        """The thresholds, as filters of pairs."""
        return [Keep(name, self.calibration.threshold(name, share)) for name, share in self.keep.items()]

    def order(self, answers: Sequence[Draw]) -> list[int]:
        """The places of the answers, the best first; of equals the earlier one, and those without scores last."""
        values = [self._value(draw) for draw in answers]
        return sorted(range(len(answers)), key=lambda place: -values[place])

    def to_json(self) -> dict[str, Any]:
        """What was measured on the seeds, and what follows from it; empty where nothing had to be."""
        scores, focus = self.calibration.to_json(), self.focus.to_json() if self.focus else None
        thresholds = {check.name: check.threshold for check in self.filters}
        parts = {"scores": scores, "thresholds": thresholds, "focus": focus}
        return {name: part for name, part in parts.items() if part}

    def _value(self, draw: Draw) -> float:
        if not self.weights:
            return 0.0
        if not draw.scores:
            return float("-inf")
        if len(self.weights) == 1:  # no other score to be added to, so its unit is its own
            return sum(weight * draw.scores[name] for name, weight in self.weights.items())
        return sum(weight * self.calibration.standard(name, draw.scores[name]) for name, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class Keep:
    """Drops a pair whose answer falls short of the threshold in one score, or has none: reason `select_` and its name.

    Attributes:
        name: The score.
        threshold: What it must reach; of `distance`, what it must not go beyond.
    """

    name: Score
    threshold: float

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the score."""
        value = candidate.answer.scores.get(self.name) if candidate.answer else None
        short = value is None or (value > self.threshold if self.name == "distance" else value < self.threshold)
        return Rejection(f"select_{self.name}", value, self.threshold) if short else None
