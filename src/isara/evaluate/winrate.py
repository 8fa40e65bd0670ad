"""Win rates: of one model over a reference, raw and at equal length, and of many from stored judgements."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isara.errors import SeedError
from isara.statistics import Floats, mean_error

# Weight of the L2 penalty on the length effect (our choice). Where nearly every item is lost, the items hardly say what
# length does, and the fit would extrapolate wildly; docs/evaluation.md has the figures beside the published ones.
_PENALTY = np.array([0.0, 5.0])
_ALIKE = 1e-9  # preferences that differ by less are the same: a fit to what rounding leaves has no answer


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often a model is preferred to the reference; all shares are in [0, 1].

    Attributes:
        model: The model's name.
        rate: Mean preference for the model, a tie counting one half.
        error: Its standard error.
        controlled: The rate at equal length, or nan where the fit has no answer (fewer than three items).
        controlled_error: Its standard error.
        wins: Items with a preference above one half.
        losses: Those below.
        ties: Those at exactly one half.
    """

    model: str
    rate: float
    error: float
    controlled: float
    controlled_error: float
    wins: int
    losses: int
    ties: int

    @property
    def n(self) -> int:
        """Judged items."""
        return self.wins + self.losses + self.ties


def win_rate(model: str, preferences: Sequence[float], extra_length: Sequence[float]) -> WinRate:
    """The win rate from each item's preference for the model, in [0, 1], and how much longer its answer is.

    Args:
        model: The model's name.
        preferences: Shape (n,); 1 where the model wins for sure, 0.5 for a tie.
        extra_length: Shape (n,): characters of the model's answer less those of the reference's.
    """
    values = np.asarray(preferences, dtype=np.float64)
    controlled, controlled_error = length_controlled(values, np.asarray(extra_length, dtype=np.float64))
    return WinRate(
        model=model,
        rate=float(values.mean()) if len(values) else math.nan,
        error=mean_error(values),
        controlled=controlled,
        controlled_error=controlled_error,
        wins=int((values > 0.5).sum()),
        losses=int((values < 0.5).sum()),
        ties=int((values == 0.5).sum()),
    )


def length_controlled(preferences: Floats, extra_length: Floats) -> tuple[float, float]:
    """The win rate that answers of equal length would have, and its standard error; nan below three items.

    Fits logit P(model preferred) = theta + phi * tanh(d / std(d)), d the difference in length, to the preferences as
    probabilities, and gives logistic(theta). This is the model of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475)
    without its term for the difficulty of an instruction, which takes a leaderboard's worth of judgements to fit, and
    with a plain L2 penalty on phi in place of an L1 penalty and judgements of outputs made long or short on purpose.
    The error is the sandwich estimate (Huber 1967) carried through the logistic (delta method).
    """
    n = len(preferences)
    if n < 3:
        return math.nan, math.nan
    if np.ptp(preferences) < _ALIKE:
        return float(preferences[0]), 0.0  # nothing for length to explain, and no finite fit where all are lost
    spread = float(extra_length.std(ddof=1))
    length = np.tanh(extra_length / spread) if spread else np.zeros(n)
    features = np.column_stack([np.ones(n), length])
    weights = _fit(features, preferences)
    expected = _logistic(features @ weights)
    curvature = _curvature(features, expected)
    scores = features * (preferences - expected)[:, np.newaxis]
    bread = np.linalg.inv(curvature)
    variance = (bread @ (scores.T @ scores) @ bread)[0, 0]
    rate = float(_logistic(weights[:1])[0])
    return rate, rate * (1 - rate) * math.sqrt(variance)


def leaderboards(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[WinRate]]:
    """For each judge, the models from the best to the worst, from stored judgements in AlpacaEval's form.

    A row holds `judge`, `generator_1` (the reference) and `generator_2` with `output_1` and `output_2`, and
    `preference`: from 1 (the first is better) to 2 (the second is), 0 or 1.5 for a tie. Unjudged rows (null) are left
    out, as AlpacaEval does; a model is not compared with itself.

    Raises:
        SeedError: A preference is none of these.
    """
    grouped: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for row in rows:
        if row["preference"] is None or row["generator_1"] == row["generator_2"]:
            continue
        longer = len(row["output_2"]) - len(row["output_1"])
        grouped[row["judge"], row["generator_2"]].append((_share(row["preference"]), longer))
    boards: dict[str, list[WinRate]] = defaultdict(list)
    for (judge, model), judged in grouped.items():
        boards[judge].append(win_rate(model, [share for share, _ in judged], [longer for _, longer in judged]))
    return {judge: sorted(board, key=lambda entry: -entry.rate) for judge, board in sorted(boards.items())}


def _share(preference: float) -> float:
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise SeedError(f"expected a preference from 1 to 2, or 0 for a tie, found {preference}: mend the judgements")
    return preference - 1


def _fit(features: Floats, targets: Floats) -> Floats:
    """Weights of shape (2,) by Newton's method on the penalised cross-entropy."""
    weights = np.zeros(2)
    for _ in range(100):
        expected = _logistic(features @ weights)
        slope = features.T @ (targets - expected) - _PENALTY * weights
        step = np.linalg.solve(_curvature(features, expected), slope)
        size = float(np.abs(step).max())
        weights = weights + step * min(1.0, 1.0 / max(size, 1e-12))  # a whole step may overshoot
        if size < 1e-10:
            break
    return weights


def _curvature(features: Floats, expected: Floats) -> Floats:
    spread = expected * (1 - expected)
    return (features * spread[:, np.newaxis]).T @ features + np.diag(_PENALTY)


def _logistic(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))
