"""The table of a comparison, as Markdown: never a figure without its baseline, its interval and how many questions."""

import math
from collections.abc import Iterator, Sequence

from isara.compare.arms import BASELINE, REFERENCE
from isara.compare.budget import Cost
from isara.compare.comparison import Comparison, in_short
from isara.compare.figures import Line, Mean
from isara.marks import clean

NO_VALUE = "–"


def table(comparison: Comparison) -> str:
    """Arms, iterations and costs, what failed, and what a reader has to know."""
    blocks = [
        _head(comparison),
        *_lines(comparison, comparison.lines, "arm"),
        *_notes(comparison),
        *_contamination(comparison),
        *_iterations(comparison),
        "## Cost of one training seed\n\nThe mean over seeds, as if each arm had made everything by itself.\n\n"
        + _costs(comparison),
    ]
    if comparison.failures:
        failed = [f"- {each.arm}, seed {each.seed}: {in_short(each.message)}" for each in comparison.failures]
        blocks.append("## Failed\n\n" + "\n".join(failed))
    return "\n\n".join(blocks) + "\n"


def _head(comparison: Comparison) -> str:
    seeds = ", ".join(map(str, comparison.seeds))
    return (
        f"# {len(comparison.arms)} arms on `{comparison.model}`\n\nScore: {comparison.score}. Greedy answers; training "
        f"seeds {seeds}."
    )


def _lines(comparison: Comparison, lines: Sequence[Line], first: str) -> Iterator[str]:
    """A Markdown table of lines, where there are any."""
    if not lines:
        return
    names = list(dict.fromkeys(name for line in lines for name in line.columns))
    with_difference = any(line.difference for line in lines)
    titles = [first, f"{names[0]} [95 %]"]
    titles += [f"less {BASELINE} [95 %]", "p (Holm)"] if with_difference else []
    titles += [f"{name} [95 %]" for name in names[1:]]
    titles += ["n", "seeds", "steps"]
    rows = [titles, ["---"] * len(titles)]
    for line in lines:
        row = [_name(comparison, line), mean_cell(line.columns.get(names[0]), comparison.percent)]
        row += list(difference_cells(line, comparison.percent)) if with_difference else []
        row += [mean_cell(line.columns.get(name), comparison.percent) for name in names[1:]]
        found = line.columns.get(names[0]) if names else None
        row += [str(found.n if found else 0), str(len(line.seeds)), _steps(line.steps)]
        rows.append(row)
    yield "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _iterations(comparison: Comparison) -> Iterator[str]:
    found = list(_lines(comparison, comparison.iterations, "arm, iteration"))
    if found:
        yield "## By iteration\n\n" + found[0]


def _contamination(comparison: Comparison) -> Iterator[str]:
    """What training could know of the tests, and where it does not count."""
    if comparison.one_source:
        yield "Seeds and tests come from one source: the figures say little of questions that others would ask."
    if comparison.leaks:
        tests = len({leak.test for leak in comparison.leaks})
        first = comparison.leaks[0]
        yield (
            f"‡ **Contaminated**: {tests} of {comparison.tests} test questions are "
            f"near a seed pair, and comparison.json names them; the first is "
            f"{clean(repr(first.question), 200)} ({clean(first.how, 200)}). `--drop-near-tests` leaves such seeds out."
        )
    if comparison.left_out:
        yield (
            f"{len(comparison.left_out)} seed pairs near a test question were left out, and comparison.json names them."
        )
    dropped = [
        f"{arm} {sum(each.near_tests for each in costs) / len(costs):,.0f}"
        for arm, costs in comparison.costs.items()
        if any(each.near_tests for each in costs)
    ]
    if dropped:
        yield f"Generated questions near a test question were dropped, for each training seed: {', '.join(dropped)}."


def _notes(comparison: Comparison) -> Iterator[str]:
    yield (
        f"In brackets the 95 % bootstrap interval over the n questions{_within(comparison)}, each with its mean over "
        "the training seeds; after it the range of the seeds. An arm that trains is shown by one of its iterations, "
        "chosen by the score on other held-out pairs where `evaluate.select` says so, else by the likelihood of the "
        "held-out answers (of their content, where it can be weighed)."
    )
    if any(line.difference for line in comparison.lines):
        yield (
            f"Differences are paired by question and seed, with the model of {BASELINE} that has seen as many "
            f"optimiser steps (the arms without training: as many as {REFERENCE}'s exported one); p from random sign "
            "flips, corrected by Holm for the differences of its table."
        )
    elif BASELINE not in [arm.name for arm in comparison.arms]:
        yield f"No differences: {BASELINE} is not among the arms."
    if untrained := _above_training(comparison):
        yield untrained
    if not comparison.more_is_better:
        yield "Of a task's figures some are the better the lower they are, such as bits per byte or a harmful rate."
    unequal = [
        f"{line.arm}{'' if line.iteration is None else f', iteration {line.iteration}'} ({_steps(line.steps)} against "
        f"{_steps(line.baseline_steps)})"
        for line in [*comparison.lines, *comparison.iterations]
        if line.difference and any(line.steps) and line.steps != line.baseline_steps
    ]
    if unequal:
        yield f"Not at equal steps: {'; '.join(unequal)}."
    broken = [arm.name for arm in comparison.arms if arm.instructions]
    if broken:
        yield f"† Instructions stand in the prompts of {', '.join(broken)}, which ISARA's own rule forbids."


def _within(comparison: Comparison) -> str:
    return " (each kind that the score weighs by itself)" if comparison.strata else ""


def _above_training(comparison: Comparison) -> str:
    """That an arm without training is above all that train, where it is: then differences among these say little."""

    def best(lines: Sequence[Line]) -> tuple[Line, Mean] | None:
        scored = [(line, next(iter(line.columns.values()))) for line in lines if line.columns]
        return max(scored, key=lambda each: each[1].value, default=None)

    plain = best([line for line in comparison.lines if not any(line.steps)])
    trained = best([line for line in comparison.lines if any(line.steps)])
    if not comparison.more_is_better or plain is None or trained is None or plain[1].value <= trained[1].value:
        return ""
    cells = [mean_cell(mean, comparison.percent) for _, mean in (plain, trained)]
    return (
        f"**By its mean {plain[0].arm}, which trains nothing, is above every arm that trains**: {cells[0]}, and "
        f"{trained[0].arm} {cells[1]}. What the others are better or worse than {BASELINE} says little then."
    )


def _costs(comparison: Comparison) -> str:
    rows = ["| arm | candidates | tokens generated | optimiser steps | tokens trained |", "|---|---|---|---|---|"]
    for arm, costs in comparison.costs.items():
        rows.append(f"| {arm} | " + " | ".join(_cost(costs)) + " |")
    return "\n".join(rows)


def _cost(costs: Sequence[Cost]) -> list[str]:
    if not costs:
        return [NO_VALUE] * 4
    values = [(each.candidates, each.generated, each.steps, each.trained) for each in costs]
    return [f"{sum(column) / len(costs):,.0f}" for column in zip(*values, strict=True)]


def _name(comparison: Comparison, line: Line) -> str:
    mark = "†" if any(arm.instructions and arm.name == line.arm for arm in comparison.arms) else ""
    mark += "‡" if line.arm in comparison.contaminated else ""
    return f"{line.arm}{mark}" if line.iteration is None else f"{line.arm}{mark}, {line.iteration}"


def mean_cell(found: Mean | None, percent: bool) -> str:
    """A figure with its interval, and the range of the seeds where they differ."""
    if found is None:
        return NO_VALUE
    low, high = found.interval.low, found.interval.high
    text = f"{_number(found.value, percent)} [{_bare(low, percent)}, {_bare(high, percent)}]"
    least, most = min(found.seeds), max(found.seeds)
    return text if least == most else f"{text}; {_bare(least, percent)} to {_bare(most, percent)}"


def difference_cells(line: Line, percent: bool) -> tuple[str, str]:
    """A difference with its interval, and its p-value."""
    found = line.difference
    if found is None:
        return NO_VALUE, NO_VALUE
    scale, digits, unit = (100, 0, " points") if percent else (1, 3, "")
    mean, low, high = (
        f"{scale * value:+.{digits}f}" for value in (found.mean, found.interval.low, found.interval.high)
    )
    return f"{mean}{unit} [{low}, {high}]", f"{line.adjusted:.4f}"


def _number(value: float, percent: bool) -> str:
    """The figure with its unit."""
    return f"{100 * value:.0f} %" if percent else f"{value:.3f}"


def _bare(value: float, percent: bool) -> str:
    """The figure without a unit; a dash for an interval of too few questions."""
    if math.isnan(value):
        return NO_VALUE
    return f"{100 * value:.0f}" if percent else f"{value:.3f}"


def _steps(steps: Sequence[int]) -> str:
    """One number where all seeds have the same."""
    return ", ".join(map(str, dict.fromkeys(steps)))
