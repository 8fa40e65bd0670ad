"""How much a pair counts in training, by a score of its answer."""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

LEAST, MOST = 0.25, 4.0  # of a weight, before their mean is brought to 1 (our choice)


def weights(scores: Sequence[float | None]) -> list[float]:
    """The weights of an iteration's pairs, rounded to 4 decimals, with a mean of 1.

    exp(z), where z is how many standard deviations (of these pairs) the score lies above their mean, and at least 1/4
    and at most 4. Equal scores, and none, weigh alike.

    Args:
        scores: One of each pair; None counts as the mean.
    """
    known = [score for score in scores if score is not None]
    if not known or not (spread := pstdev(known)):
        return [1.0] * len(scores)
    mean = fmean(known)
    raw = [1.0 if score is None else math.exp((score - mean) / spread) for score in scores]
    clipped = [min(MOST, max(LEAST, weight)) for weight in raw]
    whole = fmean(clipped)
    return [round(weight / whole, 4) for weight in clipped]
