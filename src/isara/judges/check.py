"""Measures a judge on rows that people labelled, and keeps the result where `checked` finds it."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isara.errors import RunError
from isara.files import make_folder, parse_line, read_text, write_json
from isara.judges.base import LABELS, UNREADABLE, Judge, Kind, Verdict
from isara.judges.labelled import LabelledRow
from isara.records import QAPair
from isara.statistics import Interval, cohen_kappa, wilson

# Checks of the judges that ship; a user's own are kept in the cache folder.
SHIPPED = Path(__file__).parent / "offline" / "checks"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is nothing to compute it from.

    Attributes:
        value: The figure.
        low: Lower end of the interval.
        high: Upper end.
        n: How many rows it rests on.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How a judge agrees with people; shares have Wilson intervals, kappa a normal one.

    Attributes:
        accuracy: Share of verdicts that are the people's label.
        precision: Share of positive verdicts that people gave too.
        recall: Share of the people's positives that the judge found.
        kappa: Cohen's kappa: agreement beyond chance.
    """

    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Trap:
    """How often a judge calls a refusal harmful, which turns a harmful rate upside down.

    Attributes:
        share: The share, among answers that refuse and that nobody called harmful.
        found_by: Who said that they refuse: "people", or the pin of a refusal judge.
    """

    share: Estimate
    found_by: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Attributes:
        judge: The judge's pin.
        kind: What it judges.
        data: The rows: file name, part and content hash.
        rows: How many rows were judged.
        unreadable: How many verdicts could not be read; the figures leave these out.
        overall: The figures over all rows.
        by_category: The figures over each category's rows.
        confusion: Rows by people's label and verdict: {"harmful": {"harmful": 3, "harmless": 1}, …}.
        trap: Refusals called harmful; only for judges of harm.
    """

    judge: str
    kind: Kind
    data: str
    rows: int
    unreadable: int
    overall: Figures
    by_category: Mapping[str, Figures]
    confusion: Mapping[str, Mapping[str, int]]
    trap: Trap | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; NaN is null."""
        return {name: _without_nan(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "CheckResult":
        """The result that `to_json` wrote."""
        trap = row["trap"] and Trap(_estimate(row["trap"]["share"]), row["trap"]["found_by"])
        by_category = {name: _figures(figures) for name, figures in row["by_category"].items()}
        return cls(**{**row, "overall": _figures(row["overall"]), "by_category": by_category, "trap": trap})


def check(
    judge: Judge, rows: Sequence[LabelledRow], data: str, refusals: Sequence[QAPair] | None = None
) -> CheckResult:
    """The judge's verdicts held against people's labels.

    Args:
        judge: The judge.
        rows: Labelled rows of the judge's kind.
        data: What to call the rows.
        refusals: Answers that people called refusals, for a judge of harm; where there are none, the offline judge
            looks for refusals among the rows that people called harmless.
    """
    verdicts = judge.score([row.pair for row in rows])
    judged = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict.label != UNREADABLE]
    groups: dict[str, list[tuple[LabelledRow, Verdict]]] = {}
    for row, verdict in judged:
        for category in row.categories:
            groups.setdefault(category, []).append((row, verdict))
    positive, _ = LABELS[judge.kind]
    return CheckResult(
        judge=judge.pin,
        kind=judge.kind,
        data=data,
        rows=len(rows),
        unreadable=len(rows) - len(judged),
        overall=_measure(judged, positive),
        by_category={name: _measure(groups[name], positive) for name in sorted(groups)},
        confusion=_confusion(judged, judge.kind),
        trap=_trap(judge, judged, refusals) if judge.kind == "harm" else None,
    )


def checked(judge: Judge | str, folder: Path | None = None) -> CheckResult | None:
    """The last check of this very judge (or pin), or None: then its numbers are to be printed as unchecked.

    Raises:
        RunError: The check that was kept is damaged.
    """
    pin = judge if isinstance(judge, str) else judge.pin
    for place in [folder] if folder else [cache_folder(), SHIPPED]:
        path = _path(place, pin)
        if path.is_file():
            return _read(path)
    return None


def keep(result: CheckResult, folder: Path | None = None) -> Path:
    """Writes the result where `checked` looks for it, and says where that is.

    Raises:
        RunError: The folder can't be written.
    """
    path = _path(folder or cache_folder(), result.judge)
    make_folder(path.parent)
    write_json(path, result.to_json())
    return path


def cache_folder() -> Path:
    """Where checks of a user's own judges lie: `$XDG_CACHE_HOME/isara/judges`, by default in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isara" / "judges"


def summary(result: CheckResult) -> list[str]:
    """The check in a few lines of text, without the categories."""
    positive, negative = LABELS[result.kind]
    shares = result.overall
    lines = [
        f"{result.judge} on {result.data}: {result.rows} rows, {result.unreadable} unreadable verdicts",
        f"accuracy {_shown(shares.accuracy)}   kappa {_shown(shares.kappa)}",
        f"precision {_shown(shares.precision)}   recall {_shown(shares.recall)}   (of {positive})",
    ]
    for label in (positive, negative):
        counts = result.confusion[label]
        lines.append(f"people: {label}   judge: {counts[positive]} {positive}, {counts[negative]} {negative}")
    if result.trap:
        by = result.trap.found_by
        lines.append(f"refusals called harmful: {_shown(result.trap.share)} of {result.trap.share.n} (found by {by})")
    return lines


def draw(result: CheckResult, stem: Path) -> list[Path]:
    """The confusion matrix as `stem`.svg and `stem`.png; the paths written.

    Raises:
        RunError: matplotlib is not installed, or the pictures can't be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("the picture needs matplotlib: pip install matplotlib, or leave out --picture") from error
    labels = LABELS[result.kind]
    counts = [[result.confusion[true][said] for said in labels] for true in labels]
    figure = Figure(figsize=(4.6, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            dark = shares[y][x] > 0.5
            text = f"{count}\n{shares[y][x]:.1%}"
            axes.text(x, y, text, ha="center", va="center", color="white" if dark else "black", fontsize=13)
    axes.set_xticks(range(2), labels)
    axes.set_yticks(range(2), labels)
    axes.set_xlabel("judge")
    axes.set_ylabel("people")
    axes.set_title(f"{result.judge.split('#')[0]}\n{result.data.split(' ')[0]}, {result.rows} rows", fontsize=10)
    paths = [stem.parent / f"{stem.name}{ending}" for ending in (".svg", ".png")]
    # Without a date, and with a fixed salt for its ids, the same check draws the same bytes.
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with rc_context({"svg.hashsalt": "isara", "svg.fonttype": "none"}):
            figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    except OSError as error:
        raise RunError(
            f"the picture can't be written to {paths[0]} ({error.strerror}): give another name with --picture"
        ) from error
    return paths


def _read(path: Path) -> CheckResult:
    try:
        return CheckResult.from_json(parse_line(read_text(path)) or {})
    except (RunError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"the check in {path} is damaged: remove it and measure the judge again with `isara judge check`"
        ) from error


def _measure(judged: Sequence[tuple[LabelledRow, Verdict]], positive: str) -> Figures:
    true = [row.positive for row, _ in judged]
    said = [verdict.label == positive for _, verdict in judged]
    both = sum(map(min, true, said))
    kappa = cohen_kappa(true, said)
    return Figures(
        accuracy=_share(sum(one == other for one, other in zip(true, said, strict=True)), len(true)),
        precision=_share(both, sum(said)),
        recall=_share(both, sum(true)),
        kappa=_with_interval(kappa.value, kappa.interval, len(true)),
    )


def _share(count: int, n: int) -> Estimate:
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    return _with_interval(count / n, wilson(count, n), n)


def _with_interval(value: float, interval: Interval, n: int) -> Estimate:
    return Estimate(value, interval.low, interval.high, n)


def _confusion(judged: Iterable[tuple[LabelledRow, Verdict]], kind: Kind) -> dict[str, dict[str, int]]:
    positive, negative = LABELS[kind]
    counts = {true: {said: 0 for said in (positive, negative)} for true in (positive, negative)}
    for row, verdict in judged:
        counts[positive if row.positive else negative][verdict.label] += 1
    return counts


def _trap(judge: Judge, judged: Sequence[tuple[LabelledRow, Verdict]], refusals: Sequence[QAPair] | None) -> Trap:
    positive, _ = LABELS["harm"]
    if refusals is not None:
        said = [verdict.label for verdict in judge.score(refusals) if verdict.label != UNREADABLE]
        return Trap(_share(said.count(positive), len(said)), "people")
    from isara.judges.offline import OfflineJudge

    finder = OfflineJudge("refusal")
    harmless = [(row.pair, verdict.label) for row, verdict in judged if not row.positive]
    refuses = [verdict.label == LABELS["refusal"][0] for verdict in finder.score([pair for pair, _ in harmless])]
    said = [label for (_, label), refused in zip(harmless, refuses, strict=True) if refused]
    return Trap(_share(said.count(positive), len(said)), finder.pin)


def _path(folder: Path, pin: str) -> Path:
    name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in pin.split("#")[0].split("@")[0])
    return folder / f"{name[-60:]}-{hashlib.sha256(pin.encode()).hexdigest()[:12]}.json"


def _shown(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _figures(row: Mapping[str, Any]) -> Figures:
    return Figures(**{name: _estimate(estimate) for name, estimate in row.items()})


def _estimate(row: Mapping[str, Any]) -> Estimate:
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, int(row["n"]))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
