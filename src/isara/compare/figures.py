"""Figures of a comparison: means with intervals over questions, and paired differences to the baseline."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isara.compare.arms import BASELINE, Arm
from isara.files import without_nan
from isara.statistics import Difference, Floats, Interval, bootstrap, holm, paired_difference

Strata: TypeAlias = Sequence[Hashable] | None


@dataclass(frozen=True, slots=True)
class Measured:
    """One model of an arm's run, asked and scored.

    Attributes:
        arm: The arm.
        seed: The training seed.
        iteration: Whose model it is; 0 is the base model.
        exported: Whether it is the one that the run exported; of an arm without pairs of its own, the one with the
            steps of its reference's exported model.
        steps: Optimiser steps that it has seen.
        values: By column, a value a question, in their order; nan where a question has none in that column.
        answers: What it answered, in the order of the questions.
    """

    arm: str
    seed: int
    iteration: int
    exported: bool
    steps: int
    values: Mapping[str, Floats]
    answers: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Mean:
    """A figure in one column.

    Attributes:
        value: Mean over questions and training seeds.
        interval: Its 95 % bootstrap interval over questions, each with its mean over the training seeds; over those of
            each kind where the score weighs kinds.
        seeds: The mean of each training seed.
        n: Questions.
    """

    value: float
    interval: Interval
    seeds: tuple[float, ...]
    n: int


@dataclass(frozen=True, slots=True)
class Line:
    """What a comparison says of one arm, or of one of its iterations.

    Attributes:
        arm: The arm.
        iteration: Whose models these are; None for those that the runs exported.
        seeds: Training seeds.
        steps: Optimiser steps that the models have seen, one a seed.
        columns: The figures by column.
        difference: In the first column, less the baseline's model with as many steps; None for the baseline itself and
            where there is none.
        baseline_steps: The steps of those models, one a seed.
        adjusted: The p-value after Holm's correction for all differences beside it.
    """

    arm: str
    iteration: int | None
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    columns: Mapping[str, Mean]
    difference: Difference | None = None
    baseline_steps: tuple[int, ...] = ()
    adjusted: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; nan is null, since JSON has no NaN."""
        found: dict[str, Any] = without_nan(asdict(self))
        return found


def arm_lines(arms: Sequence[Arm], measured: Sequence[Measured], strata: Strata = None) -> list[Line]:
    """A line for each arm that was measured, of the models that its runs exported.

    Args:
        arms: In the order of the lines.
        measured: Every model.
        strata: The kind of each question, where the score weighs kinds.
    """
    return _tested([_line(arm.name, None, _exported(arm.name, measured), measured, strata) for arm in arms])


def iteration_lines(arms: Sequence[Arm], measured: Sequence[Measured], strata: Strata = None) -> list[Line]:
    """A line for each iteration of each arm that trains; arguments as of `arm_lines`."""
    lines = []
    for arm in arms:
        own = [model for model in measured if model.arm == arm.name and model.iteration]
        for number in sorted({model.iteration for model in own}):
            same = [model for model in own if model.iteration == number]
            lines.append(_line(arm.name, number, same, measured, strata))
    return _tested(lines)


def _exported(arm: str, measured: Sequence[Measured]) -> list[Measured]:
    return [model for model in measured if model.arm == arm and model.exported]


def _line(
    arm: str, iteration: int | None, models: Sequence[Measured], measured: Sequence[Measured], strata: Strata
) -> Line | None:
    if not models:
        return None
    names = dict.fromkeys(name for model in models for name in model.values)
    line = Line(
        arm,
        iteration,
        tuple(model.seed for model in models),
        tuple(model.steps for model in models),
        {name: _mean(by_item(models, name), [_seed_mean(model, name) for model in models], strata) for name in names},
    )
    pairs = [] if arm == BASELINE else matched(models, measured)
    if not pairs:
        return line
    column = next(iter(line.columns))
    ours, theirs = (by_item(side, column) for side in zip(*pairs, strict=True))
    counted = ~np.isnan(ours) & ~np.isnan(theirs)
    if not counted.any():
        return line
    found = paired_difference(ours[counted], theirs[counted], strata=_of(strata, counted))
    return replace(line, difference=found, baseline_steps=tuple(model.steps for _, model in pairs))


def matched(models: Sequence[Measured], measured: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """Each model with the baseline's of the same seed that has seen as many steps, or of the nearest number."""
    own = [model for model in measured if model.arm == BASELINE]
    exported = {model.seed: model for model in own if model.exported}
    found = []
    for model in models:
        other = _nearest(model.steps, model.seed, own) if model.steps else exported.get(model.seed)
        if other is not None:
            found.append((model, other))
    return found


def _nearest(steps: int, seed: int, models: Sequence[Measured]) -> Measured | None:
    same = [model for model in models if model.seed == seed and model.iteration]
    return min(same, key=lambda model: (abs(model.steps - steps), model.iteration), default=None)


def by_item(models: Sequence[Measured], column: str) -> Floats:
    """Each question's mean over the models that have a value for it; nan where none has."""
    count = max(len(values) for model in models for values in model.values.values())
    table = np.array([model.values.get(column, np.full(count, np.nan)) for model in models])
    known = (~np.isnan(table)).sum(axis=0)
    return np.where(known > 0, np.nansum(table, axis=0) / np.maximum(known, 1), np.nan)


def _seed_mean(model: Measured, column: str) -> float:
    values = by_item([model], column)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _mean(values: Floats, seeds: Sequence[float], strata: Strata) -> Mean:
    known = ~np.isnan(values)
    own = values[known]
    value = float(own.mean()) if len(own) else math.nan
    return Mean(value, bootstrap(np.mean, own, strata=_of(strata, known)), tuple(seeds), len(own))


def _of(strata: Strata, known: NDArray[np.bool_]) -> Strata:
    return None if strata is None else [label for label, own in zip(strata, known, strict=True) if own]


def _tested(lines: Sequence[Line | None]) -> list[Line]:
    """The lines with p-values that are corrected for how many differences there are."""
    found = [line for line in lines if line is not None]
    tested = [line for line in found if line.difference is not None]
    adjusted = iter(holm([line.difference.p_value for line in tested if line.difference is not None]))
    return [line if line.difference is None else replace(line, adjusted=next(adjusted)) for line in found]
