"""What tuning found, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isara.errors import RunError
from isara.files import disk_errors
from isara.statistics import bootstrap
from isara.tune.likelihood import Choice
from isara.tune.tune import Tuned


def draw(found: Tuned, path: Path) -> None:
    """Draws bits per byte over k and over the number of seeds, with intervals, as an SVG that is the same every time.

    Raises:
        RunError: matplotlib is not installed, or the file can't be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("no picture of the settings: it needs matplotlib, `pip install matplotlib`") from error
    panels = {"answers.demos": "demonstrations (k)", "seeds": "seeds to retrieve them from"}
    shown = [(found.of(setting), label) for setting, label in panels.items() if len(found.of(setting)) > 1]
    with rc_context({"svg.hashsalt": "isara", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4 * len(shown), 3), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (choices, label) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _curve(axes, choices)
            axes.set_xlabel(label)
            axes.set_ylabel("bits per byte")
        figure.suptitle(f"{len(found.measured)} seeds, each left out: mean and 95 % interval", fontsize="medium")
        with disk_errors(path):
            aside = path.with_name(path.name + ".tmp")
            figure.savefig(aside, format="svg", metadata={"Date": None})
            aside.replace(path)


def _curve(axes: Any, choices: Sequence[Choice]) -> None:
    means = [choice.mean for choice in choices]
    intervals = [bootstrap(np.mean, choice.bits) for choice in choices]
    ends = [
        [mean - interval.low for mean, interval in zip(means, intervals, strict=True)],
        [interval.high - mean for mean, interval in zip(means, intervals, strict=True)],
    ]
    axes.errorbar([choice.value for choice in choices], means, yerr=ends, fmt="o-", color="black", capsize=3)
