"""Arms with their intervals, and their scores over iterations, as pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from isara.compare.comparison import Comparison
from isara.errors import RunError
from isara.files import disk_errors


def draw(comparison: Comparison, path: Path) -> None:
    """Draws each arm's mean with its interval, and each training seed's mean, as an SVG that is the same every time.

    Raises:
        RunError: matplotlib is not installed, no arm was measured, or the file can't be written.
    """
    lines = list(comparison.lines)[::-1]
    if not lines:
        raise RunError("no picture of the arms: none of them was measured")
    column = next(iter(lines[0].columns))
    means = [line.columns[column] for line in lines]
    scale = 100 if comparison.percent else 1

    def paint(axes: Any) -> None:
        for place, mean in enumerate(means):
            # Where no resample differs, rounding may put the mean outside: matplotlib takes no length below 0, but nan.
            ways = (mean.value - mean.interval.low, mean.interval.high - mean.value)
            ends = [[0.0 if way < 0 else scale * way] for way in ways]
            axes.errorbar([scale * mean.value], [place], xerr=ends, fmt="o", color="black", capsize=3)
            axes.plot([scale * value for value in mean.seeds], [place] * len(mean.seeds), "|", color="tab:blue")
        axes.set_yticks(range(len(lines)), [line.arm for line in lines])
        axes.set_xlabel(
            f"{column}{', %' if comparison.percent else ''}: mean and 95 % interval over {means[0].n} questions"
        )
        axes.set_title(comparison.score, fontsize="medium")

    _picture(paint, 1.2 + 0.4 * len(lines), path)


def draw_iterations(comparison: Comparison, path: Path) -> None:
    """Draws each trained arm's mean over its iterations; arms that train once are a point.

    Raises:
        RunError: matplotlib is not installed, no arm was trained, or the file can't be written.
    """
    lines = [line for line in comparison.iterations if line.iteration]
    if not lines:
        raise RunError("no picture of the iterations: no arm was trained")
    column = next(iter(lines[0].columns))
    scale = 100 if comparison.percent else 1

    def paint(axes: Any) -> None:
        for number, arm in enumerate(dict.fromkeys(line.arm for line in lines)):
            own = [line for line in lines if line.arm == arm]
            values = [scale * line.columns[column].value for line in own]
            # As many styles as arms, so that lines that cross can be told apart without colours, too.
            style = ("-", "--", ":", "-.")[number // 10 % 4]
            axes.plot([line.iteration for line in own], values, style, marker="o", markersize=4, label=arm)
        axes.set_xticks(sorted({line.iteration for line in lines if line.iteration}))
        axes.set_xlabel("iteration")
        axes.set_ylabel(f"{column}{', %' if comparison.percent else ''}")
        axes.set_title(comparison.score, fontsize="medium")
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))

    _picture(paint, 4.5, path)


def _picture(paint: Callable[[Any], None], height: float, path: Path) -> None:
    """Writes what is painted as an SVG that is the same every time."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("no picture of the arms: it needs matplotlib, `pip install matplotlib`") from error
    with rc_context({"svg.hashsalt": "isara", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.subplots())
        with disk_errors(path):
            aside = path.with_name(path.name + ".tmp")
            figure.savefig(aside, format="svg", metadata={"Date": None})
            aside.replace(path)
