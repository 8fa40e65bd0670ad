"""The figures that tasks report: each with its standard error, its interval and the items behind it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from isara.statistics import Floats, Interval, bootstrap, mean_error, ratio_error, wilson

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a task.

    Attributes:
        name: What it is.
        value: The number; nan where no item gives it.
        error: Its standard error; nan where there is none.
        low: Lower end of its 95 % interval; nan where there is none.
        high: Upper end.
        n: Items it is made of.
        note: What a reader has to know beside it.
        percent: Whether it is a share, to be shown in percent.
        judge: Pin of the judge that it rests on, "" for none.
    """

    name: str
    value: float
    error: float
    low: float
    high: float
    n: int
    note: str = ""
    percent: bool = False
    judge: str = ""

    def resting_on(self, judge: str, note: str = "") -> "Figure":
        """The same figure with the judge that it rests on."""
        return replace(self, judge=judge, note=note)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; nan is null, since JSON has no NaN."""
        row = asdict(self)
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Figure":
        """The figure that `to_json` wrote.

        Raises:
            KeyError: It lacks a field.
            ValueError: A field has another type, or a number is out of its range.
        """
        figure = cls(
            name=_typed(row["name"], str),
            **{name: _number(row[name]) for name in ("value", "error", "low", "high")},
            n=_typed(row["n"], int),
            note=_typed(row["note"], str),
            percent=_typed(row["percent"], bool),
            judge=_typed(row["judge"], str),
        )
        if figure.n < 0 or figure.error < 0 or figure.low > figure.high or (figure.percent and not _is_share(figure)):
            raise ValueError(f"the numbers of the figure {figure.name!r} can't be: {row}")
        return figure


def share(name: str, hits: Sequence[bool]) -> Figure:
    """The share of items that hit, with its Wilson interval."""
    interval = wilson(sum(hits), len(hits)) if hits else Interval(math.nan, math.nan)
    return _figure(name, _mean(hits), mean_error(hits), interval, len(hits), percent=True)


def mean(name: str, values: Sequence[float], percent: bool = False) -> Figure:
    """The mean over items, with its bootstrap interval."""
    return _figure(name, _mean(values), mean_error(values), bootstrap(np.mean, values), len(values), percent)


def ratio(name: str, tops: Sequence[float], bottoms: Sequence[float]) -> Figure:
    """All of the first over all of the second, with its bootstrap interval over items."""

    def divided(top: Floats, bottom: Floats) -> float:
        return float(top.sum() / bottom.sum())

    interval = bootstrap(divided, tops, bottoms)
    return _figure(name, sum(tops) / sum(bottoms), ratio_error(tops, bottoms), interval, len(tops))


def with_error(name: str, value: float, error: float, n: int, percent: bool = False) -> Figure:
    """A figure whose error was computed elsewhere, with the normal interval; in [0, 1] where it is a share."""
    low, high = value - 1.96 * error, value + 1.96 * error
    interval = Interval(max(0.0, low), min(1.0, high)) if percent and not math.isnan(error) else Interval(low, high)
    return _figure(name, value, error, interval, n, percent)


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:  # a bool is an int to isinstance
        raise ValueError(f"expected a {kind.__name__}, found {value!r}")
    return value


def _number(value: Any) -> float:
    """The number, nan for null."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {value!r}")
    return float(value)


def _is_share(figure: Figure) -> bool:
    return all(math.isnan(value) or -1e-9 <= value <= 1 + 1e-9 for value in (figure.value, figure.low, figure.high))


def _figure(name: str, value: float, error: float, interval: Interval, n: int, percent: bool = False) -> Figure:
    return Figure(name, value, error, interval.low, interval.high, n, percent=percent)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
