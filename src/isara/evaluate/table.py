"""The table that `isara evaluate` prints: every figure with its error, its items and its judge."""

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isara.evaluate.figures import Figure
from isara.evaluate.results import Result
from isara.judges.check import Estimate, checked


def table(model: str, results: Sequence[Result]) -> RenderableType:
    """The figures of all tasks, and what has to be known about slices and judges below them."""
    grid = Table(title=Text(f"{model}: mean ± standard error"), title_justify="left")
    grid.add_column("figure", overflow="fold")
    for name in ("value", "95 % interval", "n"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("")
    for result in results:
        grid.add_row(Text(result.task, "bold"), "", "", "", f"{result.seconds:.0f} s")
        for figure in result.figures:
            grid.add_row(Text(figure.name), shown(figure), interval(figure), str(figure.n), remark(figure))
        grid.add_section()
    return Group(grid, *(Text(line) for line in notes(results)))


def shown(figure: Figure) -> str:
    """Value ± error: shares in percent with one decimal, others with three."""
    if math.isnan(figure.value):
        return "-"
    error = "" if math.isnan(figure.error) else f" ± {_number(figure, figure.error)}"
    return _number(figure, figure.value) + error + (" %" if figure.percent else "")


def interval(figure: Figure) -> str:
    """The 95 % interval in the same form."""
    if math.isnan(figure.low):
        return ""
    return f"{_number(figure, figure.low)} to {_number(figure, figure.high)}"


def notes(results: Sequence[Result]) -> list[str]:
    """One line for each task measured on a slice, and one for each judge."""
    slices = [
        f"{result.task}: {result.items} of {result.available} items, those whose ids have the smallest SHA-256"
        for result in results
        if result.items < result.available
    ]
    return slices + [judge_line(pin) for pin in _pins(results)]


def judge_line(pin: str) -> str:
    """What is known of a judge: how it agrees with people, or that nobody has looked."""
    found = checked(pin)
    if found is None:
        return f"judge {pin} was NOT CHECKED against people's labels: measure it with `isara judge check`"
    return (
        f"judge {pin}: accuracy {_estimate(found.overall.accuracy)}, kappa {_estimate(found.overall.kappa)} "
        f"on {found.rows} rows that people labelled ({found.data})"
    )


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _number(figure: Figure, value: float) -> str:
    return f"{value * 100:.1f}" if figure.percent else f"{value:.3f}"


def remark(figure: Figure) -> str:
    """What a reader has to know beside it."""
    unchecked = "unchecked judge" if figure.judge and checked(figure.judge) is None else ""
    return "; ".join(filter(None, (unchecked, figure.note)))


def _pins(results: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(figure.judge for result in results for figure in result.figures if figure.judge))
