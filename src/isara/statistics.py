"""Errors, intervals and tests for figures that are computed over items; each function names its formula's source.

Everything is deterministic: what resamples takes a seed. Only numpy and the standard library are used.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How two models differ on the same items.

    Attributes:
        mean: Mean of the first less the second.
        error: Its standard error.
        interval: Its bootstrap interval (BCa).
        p_value: Two-sided, from random sign flips.
    """

    mean: float
    error: float
    interval: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement of two raters beyond chance.

    Attributes:
        value: Cohen's kappa, in [-1, 1]; nan where both raters gave one and the same label throughout.
        error: Its standard error.
        interval: Normal interval, cut to [-1, 1].
    """

    value: float
    error: float
    interval: Interval


def mean_error(values: ArrayLike, strata: Sequence[Hashable] | None = None) -> float:
    """Standard error of the mean of values of shape (n,); nan for fewer than two, or two of a stratum.

    Source: s / sqrt(n) with the n - 1 variance; Cochran, Sampling Techniques (1977), eq. 2.19, and of strata with fixed
    numbers of items chapter 5, both without the finite population correction.
    """
    sample = _floats(values)
    if len(sample) < 2:
        return math.nan
    members = _members([None] * len(sample) if strata is None else strata)
    if any(len(own) < 2 for own in members):
        return math.nan
    return math.sqrt(sum(len(own) * sample[own].var(ddof=1) for own in members)) / len(sample)


def ratio_error(numerators: ArrayLike, denominators: ArrayLike) -> float:
    """Standard error of sum(numerators) / sum(denominators) over items, both of shape (n,); nan for fewer than two.

    Source: the linearised (delta-method) variance of a ratio estimate, Cochran (1977), eq. 2.46 without the finite
    population correction.
    """
    top, bottom = _floats(numerators), _floats(denominators)
    if len(top) < 2:
        return math.nan
    residuals = top - top.sum() / bottom.sum() * bottom
    return float(math.sqrt((residuals**2).sum() / (len(top) - 1) / len(top)) / bottom.mean())


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion, within [0, 1] and sensible at 0 and n; (0, 1) where n is 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z, share = _z(confidence), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n an end is 0 or 1 exactly, which rounding would miss.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    strata: Sequence[Hashable] | None = None,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of `statistic(*samples)`.

    Items are drawn whole: the samples, each of shape (n, ...), are resampled together along their first axis. Where
    every resample gives the same value, the interval is that value.

    Source: Efron, "Better bootstrap confidence intervals", JASA 82 (1987); acceleration by the jackknife, Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), eq. 14.15. Within strata: Davison and Hinkley, Bootstrap
    Methods and their Application (1997), section 3.2, with deviations from the mean of the stratum in the acceleration.

    Args:
        statistic: Of samples like these.
        samples: The values.
        resamples: How many are drawn.
        confidence: Of the interval.
        seed: Of the draws.
        strata: The label of each item, where a test has a fixed number of each: items are drawn among those of their
            own label. None: all are of one.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n = len(arrays[0])
    if n < 2:
        return Interval(math.nan, math.nan)
    members = _members([None] * n if strata is None else strata)
    rng = np.random.default_rng(seed)
    draws = np.concatenate([own[rng.integers(0, len(own), (resamples, len(own)))] for own in members], axis=1)
    values = np.array([statistic(*(array[draw] for array in arrays)) for draw in draws])
    observed = statistic(*arrays)
    if np.all(values == values[0]):
        return Interval(float(values[0]), float(values[0]))
    left_out = np.array([statistic(*(np.delete(array, item, axis=0) for array in arrays)) for item in range(n)])
    gaps = np.concatenate([left_out[own].mean() - left_out[own] for own in members])
    tails = [_bca_level(values, observed, gaps, tail) for tail in ((1 - confidence) / 2, (1 + confidence) / 2)]
    low, high = np.quantile(values, tails)
    return Interval(float(low), float(high))


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    strata: Sequence[Hashable] | None = None,
) -> Difference:
    """Mean difference (first less second) of two models on the same items, values of shape (n,) in the same order.

    Source: the bootstrap over pairs of Efron and Tibshirani (1993), chapter 14; the sign-flip (Fisher-Pitman)
    permutation test with the (b + 1) / (m + 1) p-value of Phipson and Smyth, "Permutation p-values should never be
    zero", SAGMB 9 (2010). The test asks whether the two could be exchanged for one another item by item, so strata are
    nothing to it.
    """
    gaps = _floats(first) - _floats(second)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(gaps)))
    flipped = np.abs((signs * gaps).mean(axis=1))
    # Sums in another order differ in the last bits; without the margin ties would be lost.
    as_far = int((flipped >= abs(gaps.mean()) - 1e-12).sum())
    return Difference(
        mean=float(gaps.mean()),
        error=mean_error(gaps, strata),
        interval=bootstrap(np.mean, gaps, resamples=resamples, seed=seed, strata=strata),
        p_value=(as_far + 1) / (resamples + 1),
    )


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two models are right equally often, given right or wrong on the same items.

    Source: McNemar, Psychometrika 12 (1947), in its exact binomial form.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))  # a shift: mypy takes the power of two ints for Any


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that bound the chance of even one false finding.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    scaled = _floats(p_values)[order] * np.arange(len(p_values), 0, -1)
    return _restored(np.minimum(np.maximum.accumulate(scaled), 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that bound the expected share of false findings.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B 57 (1995).
    """
    order = np.argsort(p_values, kind="stable")
    scaled = _floats(p_values)[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    return _restored(np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0), order)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable], confidence: float = 0.95) -> Kappa:
    """Cohen's kappa of two raters' labels of the same items, with its large-sample error.

    Source: Cohen, Educ. Psychol. Meas. 20 (1960); the error is eq. 13 of Fleiss, Cohen and Everitt, "Large sample
    standard errors of kappa and weighted kappa", Psychol. Bull. 72 (1969).
    """
    shares = _joint_shares(first, second)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, chance = float(np.trace(shares)), float(rows @ columns)
    if not len(first) or chance >= 1:
        return Kappa(math.nan, math.nan, Interval(math.nan, math.nan))
    value = (agreed - chance) / (1 - chance)
    sums = rows[np.newaxis, :] + columns[:, np.newaxis]  # [i, j] = row share of j + column share of i
    on_diagonal = float((np.diag(shares) * (1 - np.diag(sums) * (1 - value)) ** 2).sum())
    squares = shares * sums**2
    off_diagonal = (1 - value) ** 2 * float(squares.sum() - np.trace(squares))
    variance = (on_diagonal + off_diagonal - (value - chance * (1 - value)) ** 2) / (1 - chance) ** 2 / len(first)
    error = math.sqrt(max(variance, 0.0))
    half = _z(confidence) * error
    return Kappa(value, error, Interval(max(-1.0, value - half), min(1.0, value + half)))


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _restored(adjusted: Floats, order: NDArray[np.intp]) -> list[float]:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return [float(value) for value in result]


def _members(labels: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """The places of each label, in the order in which labels come first."""
    return [
        np.array([place for place, own in enumerate(labels) if own == label], dtype=np.intp)
        for label in dict.fromkeys(labels)
    ]


def _bca_level(values: Floats, observed: float, gaps: Floats, tail: float) -> float:
    """The quantile of the bootstrap values that stands for `tail` after correcting bias and skew, in [0, 1]."""
    below = float(((values < observed).sum() + (values <= observed).sum()) / (2 * len(values)))
    if not 0 < below < 1:
        return tail  # nothing to correct with: the percentile interval
    bias = NormalDist().inv_cdf(below)
    spread = float((gaps**2).sum() ** 1.5)
    skew = float((gaps**3).sum()) / (6 * spread) if spread else 0.0
    shifted = bias + NormalDist().inv_cdf(tail)
    return NormalDist().cdf(bias + shifted / (1 - skew * shifted))


def _joint_shares(first: Sequence[Hashable], second: Sequence[Hashable]) -> Floats:
    """Share of the items by the first rater's label (row) and the second's (column), shape (labels, labels)."""
    places = {label: place for place, label in enumerate(dict.fromkeys([*first, *second]))}
    counts = np.zeros((len(places), len(places)))
    for one, other in zip(first, second, strict=True):
        counts[places[one], places[other]] += 1
    return counts / max(len(first), 1)
