"""Every formula against scipy or statsmodels, or against a count made by hand."""

# mypy: disable-error-code="import-untyped"

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from isara import statistics as ours

RNG = np.random.default_rng(7)
SKEWED = RNG.exponential(size=60)
BYTES = RNG.integers(20, 400, size=60).astype(float)
BITS = BYTES * RNG.normal(2.0, 0.3, size=60)


def test_mean_error_is_scipys() -> None:
    assert ours.mean_error(SKEWED) == pytest.approx(stats.sem(SKEWED), rel=1e-12)
    assert math.isnan(ours.mean_error([1.0]))


def test_strata_are_weighed_by_how_many_items_they_have() -> None:
    labels = ["a"] * 20 + ["b"] * 40
    parts = [SKEWED[:20], SKEWED[20:]]
    expected = math.sqrt(sum((len(part) / 60) ** 2 * stats.sem(part) ** 2 for part in parts))
    assert ours.mean_error(SKEWED, labels) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(ours.mean_error([1.0, 2.0, 3.0], ["a", "a", "b"]))
    # The interval's width is that of the error, and none of what lies between the strata's means.
    apart = np.concatenate([SKEWED[:20], SKEWED[20:] + 100])
    within, across = ours.bootstrap(np.mean, apart, strata=labels), ours.bootstrap(np.mean, apart)
    assert within.high - within.low == pytest.approx(2 * 1.96 * ours.mean_error(apart, labels), rel=0.15)
    assert across.high - across.low > 4 * (within.high - within.low)
    one = ours.bootstrap(np.mean, apart, strata=["a"] * 60)
    assert one == across
    found = ours.paired_difference(apart, np.zeros(60), strata=labels)
    assert found.interval == within and found.error == ours.mean_error(apart, labels)
    assert found.p_value == ours.paired_difference(apart, np.zeros(60)).p_value


def test_ratio_error_is_the_robust_error_of_a_line_through_the_origin() -> None:
    fit = sm.WLS(BITS, BYTES, weights=1 / BYTES).fit(cov_type="HC1")
    assert fit.params[0] == pytest.approx(BITS.sum() / BYTES.sum(), rel=1e-12)
    assert ours.ratio_error(BITS, BYTES) == pytest.approx(fit.bse[0], rel=1e-9)
    assert math.isnan(ours.ratio_error([1.0], [2.0]))


def test_ratio_error_of_equal_denominators_is_the_mean_error() -> None:
    assert ours.ratio_error(SKEWED, np.full(60, 4.0)) == pytest.approx(ours.mean_error(SKEWED / 4), rel=1e-12)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (417, 805)])
def test_wilson_is_statsmodels(successes: int, n: int, confidence: float) -> None:
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    found = ours.wilson(successes, n, confidence)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_wilson_of_nothing_is_everything() -> None:
    assert ours.wilson(0, 0) == ours.Interval(0.0, 1.0)


def test_bootstrap_is_scipys_on_the_same_draws() -> None:
    theirs = stats.bootstrap(
        (SKEWED,), np.mean, n_resamples=2000, method="BCa", vectorized=True, rng=np.random.default_rng(3)
    ).confidence_interval
    found = ours.bootstrap(np.mean, SKEWED, seed=3)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_bootstrap_draws_items_whole() -> None:
    def ratio(bits: ours.Floats, sizes: ours.Floats) -> float:
        return float(bits.sum() / sizes.sum())

    found = ours.bootstrap(ratio, BITS, BYTES, resamples=4000)
    error = ours.ratio_error(BITS, BYTES)
    middle = BITS.sum() / BYTES.sum()
    assert found.low == pytest.approx(middle - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(middle + 1.96 * error, abs=0.3 * error)
    assert ours.bootstrap(ratio, BITS, BYTES, resamples=4000) == found


def test_bootstrap_of_a_constant_is_that_constant() -> None:
    assert ours.bootstrap(np.mean, [2.0] * 9) == ours.Interval(2.0, 2.0)
    assert math.isnan(ours.bootstrap(np.mean, [2.0]).low)


def test_paired_difference_is_scipys_permutation_test() -> None:
    first = RNG.normal(0.3, 1, size=50)
    second = RNG.normal(0, 1, size=50)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20000,
        rng=np.random.default_rng(1),
    )
    found = ours.paired_difference(first, second, resamples=20000)
    assert found.mean == pytest.approx(theirs.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.01)
    assert found.error == pytest.approx(stats.sem(first - second), rel=1e-12)
    assert found.interval.low < found.mean < found.interval.high


def test_paired_difference_of_a_model_with_itself() -> None:
    found = ours.paired_difference(SKEWED, SKEWED)
    assert (found.mean, found.error, found.p_value) == (0, 0, 1)
    assert found.interval == ours.Interval(0, 0)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 12), (20, 20), (40, 61)])
def test_mcnemar_is_statsmodels(only_first: int, only_second: int) -> None:
    first = [True] * only_first + [False] * only_second + [True] * 30
    second = [False] * only_first + [True] * only_second + [True] * 30
    theirs = sm_mcnemar([[30, only_first], [only_second, 0]], exact=True).pvalue
    assert ours.mcnemar(first, second) == pytest.approx(1.0 if math.isnan(theirs) else theirs, rel=1e-12)


P_VALUES = [0.04, 0.001, 0.6, 0.03, 0.03, 0.2, 0.0004]


@pytest.mark.parametrize(("correct", "name"), [(ours.holm, "holm"), (ours.benjamini_hochberg, "fdr_bh")])
def test_corrections_are_statsmodels(correct: Callable[[Sequence[float]], list[float]], name: str) -> None:
    assert correct(P_VALUES) == pytest.approx(multipletests(P_VALUES, method=name)[1].tolist(), rel=1e-12)
    assert correct([]) == []


def test_kappa_is_statsmodels() -> None:
    first = ["harmful", "safe", "safe", "refusal"] * 20
    second = ["harmful", "safe", "refusal", "refusal"] * 12 + ["safe", "safe", "safe", "harmful"] * 8
    labels = ["harmful", "safe", "refusal"]
    table = [[sum(pair == (a, b) for pair in zip(first, second, strict=True)) for b in labels] for a in labels]
    theirs = cohens_kappa(np.array(table))
    found = ours.cohen_kappa(first, second)
    assert (found.value, found.error) == pytest.approx((theirs.kappa, theirs.std_kappa), rel=1e-9)
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp), rel=1e-9)


def test_kappa_at_its_ends() -> None:
    assert ours.cohen_kappa([1, 0, 1], [1, 0, 1]) == ours.Kappa(1.0, 0.0, ours.Interval(1.0, 1.0))
    assert math.isnan(ours.cohen_kappa([1, 1], [1, 1]).value)
    assert math.isnan(ours.cohen_kappa([], []).value)
