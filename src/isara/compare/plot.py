"""Arms with their intervals, as a picture."""

from pathlib import Path

from isara.compare.comparison import Comparison
from isara.errors import RunError
from isara.files import disk_errors


def draw(comparison: Comparison, path: Path) -> None:
    """Draws each arm's mean with its interval, and each training seed's mean, as an SVG that is the same every time.

    Raises:
        RunError: matplotlib is not installed, no arm was measured, or the file can't be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError('no picture of the arms: it needs matplotlib, `pip install "isara[plots]"`') from error
    lines = list(comparison.lines)[::-1]
    if not lines:
        raise RunError("no picture of the arms: none of them was measured")
    column = next(iter(lines[0].columns))
    means = [line.columns[column] for line in lines]
    scale = 100 if comparison.percent else 1
    with rc_context({"svg.hashsalt": "isara", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 1.2 + 0.4 * len(lines)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for place, mean in enumerate(means):
            ends = [[scale * (mean.value - mean.interval.low)], [scale * (mean.interval.high - mean.value)]]
            axes.errorbar([scale * mean.value], [place], xerr=ends, fmt="o", color="black", capsize=3)
            axes.plot([scale * value for value in mean.seeds], [place] * len(mean.seeds), "|", color="tab:blue")
        axes.set_yticks(range(len(lines)), [line.arm for line in lines])
        axes.set_xlabel(
            f"{column}{', %' if comparison.percent else ''}: mean and 95 % interval over {means[0].n} questions"
        )
        axes.set_title(comparison.score, fontsize="medium")
        with disk_errors(path):
            aside = path.with_name(path.name + ".tmp")
            figure.savefig(aside, format="svg", metadata={"Date": None})
            aside.replace(path)
