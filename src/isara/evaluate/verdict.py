"""Whether a run has helped: paired differences on held-out pairs, with intervals, and what is said of them.

A gain is the mean by which a model is better than another on the same pairs; above 0 is better, whatever is measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from isara.evaluate.run import first_column
from isara.records import READER, SEEDS_ONLY, GivenAnswer, HeldoutRow
from isara.statistics import Floats, Interval, bootstrap

Measure: TypeAlias = Literal["score", "content", "likelihood"]
Rival: TypeAlias = Literal["base", "demonstrations", "seeds-only", "reader"]

FEW_PAIRS = 20  # held-out pairs below which figures say little
# With fewer, even pairs that all say the same are no evidence at 95 %: 2 * 0.5 ** 5 > 0.05.
LEAST_PAIRS = 6
_LEAST_CONTENT = 5.0  # pairs among which the weight of the tokens has to be spread (effective number, Kish 1965)

SHOWN: tuple[Rival, ...] = ("demonstrations", "reader")  # asked after demonstrations

MEASURES: dict[Measure, str] = {
    "score": "the recipe's score",
    "content": "bits per token of content",
    "likelihood": "bits per byte",
}


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much the chosen iteration is better than a rival.

    Attributes:
        over: The rival: the base model alone, after demonstrations (ICL-kNN), or fine-tuned on the seeds alone; or
            the reader after demonstrations.
        measure: What is compared.
        n: Held-out pairs.
        mean: Of the score, or in bits; above 0 the iteration is better.
        interval: Its 95 % bootstrap interval over pairs.
    """

    over: Rival
    measure: Measure
    n: int
    mean: float
    interval: Interval

    @property
    def shown(self) -> bool:
        """Whether the iteration is better beyond chance."""
        return self.n >= LEAST_PAIRS and self.interval.low > 0

    @property
    def worse(self) -> bool:
        """Whether the iteration is worse beyond chance."""
        return self.n >= LEAST_PAIRS and self.interval.high < 0

    @property
    def spread(self) -> bool:
        """Whether there is an interval: of one pair there is none."""
        return math.isfinite(self.interval.low) and math.isfinite(self.interval.high)

    def __str__(self) -> str:
        shown = f" [{self.interval.low:+.3f}, {self.interval.high:+.3f}]" if self.spread else ""
        return f"{self.mean:+.3f}{shown}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run's held-out pairs say of it.

    Attributes:
        chosen: The best of the iterations.
        best: The model that is to be exported: the iteration, 0 for the base model, or SEEDS_ONLY.
        measure: What models are compared by.
        n: The pairs that were compared.
        gains: Over each rival that was measured.
        steps: Optimiser steps that the seeds-only model and the iteration have seen; None where they aren't known.
        redrawn: Whether another seed of the run holds out other pairs.
    """

    chosen: int
    best: int
    measure: Measure
    n: int
    gains: tuple[Gain, ...]
    steps: tuple[int, int] | None = None
    redrawn: bool = False

    @property
    def missing(self) -> list[Rival]:
        """The rivals that were not measured; not every run has a reader."""
        known = {gain.over for gain in self.gains}
        every: tuple[Rival, ...] = ("base", "demonstrations", "seeds-only")
        return [rival for rival in every if rival not in known]

    @property
    def helped(self) -> bool:
        """Whether the iteration is better than every rival beyond chance; only then is it called the best.

        The reader is none of them: it is there because of the loop, and answers after pairs alone.
        """
        return not self.missing and all(gain.shown for gain in self.gains if gain.over != "reader")

    @property
    def unbeaten_reader(self) -> Gain | None:
        """The gain over the reader, where it is not shown to be above 0."""
        return next((gain for gain in self.gains if gain.over == "reader" and not gain.shown), None)


def judge(
    rows: Mapping[int, Sequence[HeldoutRow]],
    chosen: int,
    steps: Mapping[int, int] | None = None,
    *,
    redrawn: bool = False,
) -> Verdict | None:
    """The verdict on the best iteration of a run; None where it or the base model was not measured pair by pair.

    Args:
        rows: Of each model; 0 is the base model.
        chosen: The best of the iterations.
        steps: Optimiser steps that models have seen.
        redrawn: Whether another seed of the run holds out other pairs.
    """
    base, ours = rows.get(0), rows.get(chosen)
    if not base or not ours or chosen < 1:
        return None
    alone = rows.get(SEEDS_ONLY)
    measure = _measure(base, [ours, alone] if alone else [ours])
    gains = [_gain("base", measure, base, base, ours)]
    # Where the base model's own demonstrations have weighed the tokens, it is no fair rival on them.
    plain: Measure = "score" if measure == "score" else "likelihood"
    if any(row.demo_ids for row in base):
        gains.append(_gain("demonstrations", plain, base, base, ours))
    if alone:
        gains.append(_gain("seeds-only", measure, base, alone, ours))
    if reading := rows.get(READER):
        gains.append(_gain("reader", plain, base, reading, ours))
    taken = (steps[SEEDS_ONLY], steps[chosen]) if alone and steps else None
    verdict = Verdict(chosen, chosen, measure, gains[0].n, tuple(gains), taken, redrawn)
    if verdict.helped:
        return verdict
    worth = _worth(verdict)
    return replace(verdict, best=max(worth, key=worth.__getitem__))


def sentence(verdict: Verdict, exported: bool = True) -> str:
    """The verdict in a line: what is best, or that the loop did not help, by how much, on how many pairs.

    Args:
        verdict: Of an iteration.
        exported: Whether a model lies in final/ already, or would do so if the run ended here.
    """
    by = f"by {MEASURES[verdict.measure]} on {_many(verdict.n)}"
    said = ", ".join(f"{gain} over {_rival(gain, verdict.measure)}" for gain in verdict.gains)
    of = " (95 % intervals of paired differences)" if any(gain.spread for gain in verdict.gains) else ""
    reader = verdict.unbeaten_reader
    if verdict.helped:
        best = "the best" if reader is None else "the best without pairs before the question"
        return f"Iteration {verdict.chosen} is {best}, {by}: {said}{of}.{_budgets(verdict)}{_of_reader(reader)}"
    missed = [_rival(gain, verdict.measure) for gain in verdict.gains if not gain.shown]
    if not missed:
        absent = " and ".join(map(_unmeasured, verdict.missing))
        better = f"Iteration {verdict.chosen} is better than what it was compared with"
        return f"{better}, {by}: {said}; {absent}.{_budgets(verdict)}"
    head = (
        "The loop did not help"
        if any(gain.mean <= 0 for gain in verdict.gains if gain.over != "reader")
        else "It is not shown that the loop helps"
    )
    goes_home = f"{model_name(verdict.best).capitalize()} {'is' if exported else 'would be'} exported, {_why(verdict)}"
    return (
        f"{head}: iteration {verdict.chosen} is not shown to be better than {_listed(missed)}, "
        f"{by}: {said}{of}.{_budgets(verdict)} {goes_home}. {_advice(verdict)}{_of_reader(reader)}"
    )


def model_name(number: int) -> str:
    """What a model of the run is called."""
    if number == SEEDS_ONLY:
        return "the seeds-only model"
    return f"iteration {number}" if number else "the base model"


def _worth(verdict: Verdict) -> dict[int, float]:
    """What each model that may be exported has more than the iteration; of equals the first has cost least."""
    place = {"base": 0, "seeds-only": SEEDS_ONLY}
    rivals = {place[gain.over]: -gain.mean for gain in verdict.gains if gain.over in place and gain.n}
    return rivals | {verdict.chosen: 0.0}


def _why(verdict: Verdict) -> str:
    """Why the exported model is, where none is shown to be the best."""
    worth = _worth(verdict)
    if verdict.best not in worth or worth[verdict.best] < max(worth.values()):
        return "as it was chosen when the run was made"
    equals = sum(value == worth[verdict.best] for value in worth.values())
    if equals == 1:
        return "the best by its mean"
    return (
        "as good by its mean as any"
        if verdict.best == verdict.chosen
        else "as good by its mean as what takes more training"
    )


def _budgets(verdict: Verdict) -> str:
    """That the seeds-only model was trained for another time than the iteration, where it was."""
    if verdict.steps is None or verdict.steps[0] == verdict.steps[1]:
        return ""
    alone, ours = verdict.steps
    return (
        f" The seeds-only model took {alone} steps, iteration {verdict.chosen} took {ours}: the arm sft-seeds-equal of "
        "`isara compare` trains it as long."
    )


def _of_reader(gain: Gain | None) -> str:
    """What can be had of the reader, where the iteration is not shown to be better."""
    if gain is None or gain.mean >= 0:
        return ""
    by = "is better" if gain.worse else "has more by its mean"
    return f" Where pairs may stand before each question, the reader {by}: `isara answer --model RUN --reader`."


def _advice(verdict: Verdict) -> str:
    """What to try."""
    worse = {gain.over for gain in verdict.gains if gain.mean < 0}
    if verdict.n < FEW_PAIRS:
        again = ", or repeat the run with --set seed=1 and another --out, which holds out others"
        return f"So few pairs hardly tell: hold out {FEW_PAIRS} or more (--heldout){again if verdict.redrawn else ''}."
    if "seeds-only" in worse:
        harm = any(gain.over == "seeds-only" and gain.worse for gain in verdict.gains)
        return (
            f"The generated pairs {'do harm' if harm else 'are not shown to add to the seeds'}: read them "
            "(`isara show RUN`), lower questions.temperature and answers.temperature, filter more, or take a larger "
            "model."
        )
    if "demonstrations" in worse:
        return "Ask the base model after demonstrations (`isara answer --demos`), or take a larger model."
    return "Try more or better seeds, a larger generate.accept, or a larger model; more held-out pairs tell more."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _rival(gain: Gain, measure: Measure) -> str:
    names = {
        "base": "the base model",
        "demonstrations": "the base model after demonstrations",
        "seeds-only": "the seeds-only model",
        "reader": "the reader after demonstrations",
    }
    return names[gain.over] + ("" if gain.measure == measure else f" (in {MEASURES[gain.measure]})")


def _unmeasured(rival: Rival) -> str:
    options = {"base": "", "demonstrations": " (evaluate.demos is 0)", "seeds-only": " (evaluate.seeds_only)"}
    names = {"base": "the base model", "demonstrations": "demonstrations", "seeds-only": "the seeds-only model"}
    return f"{names[rival]} was not measured{options[rival]}, so it can't be called the best"


def _measure(base: Sequence[HeldoutRow], others: Sequence[Sequence[HeldoutRow]]) -> Measure:
    """What weighs content most, of what was measured."""
    if _column(base) is not None:
        return "score"
    weights = [sum(row.token_weights) for row in base]
    squares = sum(weight * weight for weight in weights)
    pairs = [pair for rows in others for pair in zip(base, rows, strict=True)]
    fits = all(len(one.token_weights) in (0, len(other.token_bits)) for one, other in pairs)
    spread = sum(weights) ** 2 / squares if squares else 0.0
    return "content" if fits and spread >= _LEAST_CONTENT else "likelihood"


def content_bits(base: Sequence[HeldoutRow], own: Sequence[HeldoutRow]) -> float | None:
    """Bits that a model takes for the content of the held-out answers, by the base model's weights of their tokens.

    Args:
        base: The base model's rows.
        own: The model's.

    Returns:
        Bits a unit of weight; None where content can't be weighed, or scores go before it.
    """
    if not base or not own or _measure(base, [own]) != "content":
        return None
    pairs = [
        (weight, bits)
        for weighed, row in zip(base, own, strict=True)
        if weighed.token_weights
        for weight, bits in zip(weighed.token_weights, row.token_bits, strict=True)
    ]
    return sum(weight * bits for weight, bits in pairs) / sum(weight for weight, _ in pairs)


def _gain(
    over: Rival,
    measure: Measure,
    base: Sequence[HeldoutRow],
    theirs: Sequence[HeldoutRow],
    ours: Sequence[HeldoutRow],
) -> Gain:
    """The gain of `ours` over `theirs`, with the base model's weights of tokens."""
    gains: list[float] = []
    sizes: list[float] = []
    kinds: list[str | None] = []
    column = _column(base)
    for weighed, they, we in zip(base, theirs, ours, strict=True):
        if measure == "score":
            scored = they.given_demos if over in SHOWN else they.given
            if (pair := _scores(we, scored, column)) is not None:
                gains.append(pair[0] - pair[1])
                sizes.append(1.0)
                kinds.append(we.stratum)
        elif measure == "content":
            if weight := sum(weighed.token_weights):
                bits = zip(weighed.token_weights, they.token_bits, we.token_bits, strict=True)
                gains.append(sum(each * (b - a) for each, b, a in bits))
                sizes.append(weight)
        else:
            gains.append((they.bits_demos if over in SHOWN else they.bits) - we.bits)
            sizes.append(float(we.bytes))
    if not gains:
        return Gain(over, measure, 0, 0.0, Interval(-float("inf"), float("inf")))
    return Gain(
        over, measure, len(gains), sum(gains) / sum(sizes), bootstrap(_ratio, gains, sizes, strata=kinds or None)
    )


def _column(base: Sequence[HeldoutRow]) -> str | None:
    """The column of the score that the verdict, as the figures, is about."""
    return first_column([row.given for row in base if row.given and not row.selects])


def _scores(ours: HeldoutRow, theirs: GivenAnswer | None, column: str | None) -> tuple[float, float] | None:
    """The column's values of two answers to a question that the verdict is about."""
    if ours.selects or ours.given is None or theirs is None or column is None:
        return None
    values = ours.given.scores.get(column), theirs.scores.get(column)
    return None if values[0] is None or values[1] is None else (values[0], values[1])


def _ratio(gains: Floats, sizes: Floats) -> float:
    return float(gains.sum() / sizes.sum())


def _many(n: int) -> str:
    return f"{n} held-out pair" + ("" if n == 1 else "s")
