"""What several comparisons of the same arms found together: held-out categories, or numbers of seeds."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isara.compare.arms import BASELINE
from isara.compare.comparison import Comparison
from isara.compare.figures import Line, Measured, Strata, arm_lines
from isara.compare.table import NO_VALUE, difference_cells, mean_cell
from isara.files import write_json, write_text
from isara.statistics import Floats

FILE_NAME = "summary.json"
Varied = Mapping[str, Comparison]


def write_summary(out: Path, varied: Varied, about: Mapping[str, str], pooled: bool) -> str:
    """Writes summary.md and summary.json; the text of the first.

    Args:
        out: Their folder.
        varied: The comparisons by name, as many as are finished.
        about: What each is, those that are still to come among them.
        pooled: Whether their questions are different ones of one test, and count together.

    Raises:
        RunError: They can't be written.
    """
    lines = pool(varied) if pooled else []
    first = next(iter(varied.values()))
    blocks = [
        f"# {len(first.arms)} arms on `{first.model}`, {len(varied)} times\n\nScore: {first.score}.",
        "\n".join(f"- {name}: {text}{'' if name in varied else ' (not finished)'}" for name, text in about.items()),
        _means(varied, lines),
        "Accepted pairs for each candidate, and for each seed pair; the mean over training seeds.\n\n"
        + _yields(varied),
    ]
    text = "\n\n".join(blocks) + "\n"
    write_text(out / "summary.md", text)
    write_json(out / FILE_NAME, _record(varied, about, lines if pooled else None))
    return text


def pool(varied: Varied) -> list[Line]:
    """A line an arm over the questions of all comparisons, of the models that the runs exported.

    A question that several comparisons ask is one question, with its mean over them.
    """
    first = next(iter(varied.values()))
    kinds = _kinds(varied)
    measured = []
    for arm in first.arms:
        for seed in first.seeds:
            own = [(each, _exported(each, arm.name, seed)) for each in varied.values()]
            if found := [(each, model) for each, model in own if model is not None]:
                if len(found) == len(varied):
                    measured.append(_together(found, kinds))
    return arm_lines(first.arms, measured, list(kinds.values()) if first.strata else None)


def _exported(comparison: Comparison, arm: str, seed: int) -> Measured | None:
    same = (each for each in comparison.measured if (each.arm, each.seed) == (arm, seed) and each.exported)
    return next(same, None)


def _kinds(varied: Varied) -> dict[str, Hashable]:
    """The kind of each question that has a value anywhere, by its id."""
    found: dict[str, Hashable] = {}
    for comparison in varied.values():
        for model in comparison.measured[:1]:
            labels = comparison.strata or [None] * len(model.answers)
            known = ~np.isnan(next(iter(model.values.values())))
            for answer, label, own in zip(model.answers, labels, known, strict=True):
                if own:
                    found.setdefault(str(answer["id"]), label)
    return found


def _together(models: Sequence[tuple[Comparison, Measured]], kinds: Mapping[str, Hashable]) -> Measured:
    """One model's values on all questions; what differs between the comparisons' models is summed or left out."""
    _, first = models[0]
    column = next(iter(first.values))
    known: dict[str, list[float]] = {name: [] for name in kinds}
    for comparison, model in models:
        plain = _unweighted(model.values[column], comparison.strata)
        for answer, value in zip(model.answers, plain, strict=True):
            if str(answer["id"]) in known and not np.isnan(value):
                known[str(answer["id"])].append(float(value))
    counts = Counter(kinds.values())
    values = [
        np.mean(own) * len(kinds) / len(counts) / counts[kinds[name]] if own else np.nan for name, own in known.items()
    ]
    steps = sum(model.steps for _, model in models)
    return Measured(first.arm, first.seed, int(steps > 0), True, steps, {column: np.array(values)})


def _unweighted(values: Floats, strata: Strata) -> Floats:
    """The values without the weights by which each kind of question counts the same."""
    if strata is None:
        return values
    counts = Counter(label for label, value in zip(strata, values, strict=True) if not np.isnan(value))
    return values * [len(counts) * counts[label] / counts.total() if counts[label] else 1.0 for label in strata]


def _means(varied: Varied, lines: Sequence[Line]) -> str:
    first = next(iter(varied.values()))
    contaminated = {arm for comparison in varied.values() for arm in comparison.contaminated}
    titles = ["arm", *varied]
    titles += ["all questions", f"less {BASELINE} [95 %]", "p (Holm)"] if lines else []
    rows = [titles, ["---"] * len(titles)]
    for arm in first.arms:
        row = [f"{arm.name}{'†' if arm.instructions else ''}"]
        row += [
            _cell(comparison, comparison.lines, arm.name, comparison.contaminated) for comparison in varied.values()
        ]
        if lines:
            found = next((line for line in lines if line.arm == arm.name), None)
            row += [_cell(first, lines, arm.name, contaminated)]
            row += difference_cells(found, first.percent) if found else [NO_VALUE, NO_VALUE]
        rows.append(row)
    notes = [f"† Instructions stand in the prompts of {arm.name}." for arm in first.arms if arm.instructions]
    if contaminated:
        notes.append("‡ Contaminated: these models have seen a seed pair that gives a test question away.")
    return "\n\n".join(["\n".join("| " + " | ".join(row) + " |" for row in rows), *notes])


def _cell(comparison: Comparison, lines: Sequence[Line], arm: str, contaminated: Collection[str]) -> str:
    found = next((line for line in lines if line.arm == arm), None)
    mark = "‡" if arm in contaminated else ""
    return NO_VALUE if found is None else mean_cell(next(iter(found.columns.values())), comparison.percent) + mark


def _yields(varied: Varied) -> str:
    rows = [["arm", *varied], ["---"] * (len(varied) + 1)]
    for arm in next(iter(varied.values())).arms:
        cells = [_yield(comparison, arm.name) for comparison in varied.values()]
        if any(cell != NO_VALUE for cell in cells):
            rows.append([arm.name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _yield(comparison: Comparison, arm: str) -> str:
    costs = [each for each in comparison.costs.get(arm, ()) if each.candidates]
    if not costs:
        return NO_VALUE
    accepted = sum(each.accepted for each in costs)
    share, times = accepted / sum(each.candidates for each in costs), accepted / len(costs) / comparison.seed_pairs
    return f"{100 * share:.0f} %, {times:.1f}"


def _record(varied: Varied, about: Mapping[str, str], lines: Sequence[Line] | None) -> dict[str, Any]:
    arms = next(iter(varied.values())).arms
    return {
        "planned": dict(about),
        "arms": [{"name": arm.name, "about": arm.about, "instructions": arm.instructions} for arm in arms],
        "comparisons": dict(_records(varied, about)),
        "pooled": None if lines is None else [line.to_json() for line in lines],
    }


def _records(varied: Varied, about: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, comparison in varied.items():
        yield name, {"about": about[name], "seed_pairs": comparison.seed_pairs, **comparison.to_json()}
