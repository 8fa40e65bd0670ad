"""Is it better? Two models' stored items, laid side by side."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from isara.errors import RunError
from isara.evaluate.results import broken, read_results, reading
from isara.evaluate.runner import Task
from isara.files import damaged, read_json
from isara.statistics import Difference, holm, paired_difference


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two models on the items that both were measured on.

    Attributes:
        task: The task.
        name: What is compared.
        n: Items.
        before: Mean of the other model.
        after: Mean of this model.
        difference: This model less the other, with its error, interval and p-value.
        adjusted: The p-value after Holm's correction for all figures of the comparison.
    """

    task: str
    name: str
    n: int
    before: float
    after: float
    difference: Difference
    adjusted: float


def compare_items(tasks: Sequence[Task], out: Path, other: Path) -> list[Compared]:
    """This model's results in `out` against another's in `other`, paired by item.

    Raises:
        RunError: The other folder lacks a task, was measured in another way, or shares no item.
    """
    found = []
    for task in tasks:
        ours, theirs = out / task.name, other / task.name
        _check(task.name, ours, theirs)
        before, after = _values(task, theirs), _values(task, ours)
        for name in after:
            shared = [item for item in after[name] if item in before.get(name, {})]
            if shared:
                pair = [after[name][item] for item in shared], [before[name][item] for item in shared]
                found.append((task.name, name, *pair, paired_difference(*pair)))
    adjusted = holm([difference.p_value for *_, difference in found])
    return [
        Compared(task, name, len(new), sum(old) / len(old), sum(new) / len(new), difference, p_value)
        for (task, name, new, old, difference), p_value in zip(found, adjusted, strict=True)
    ]


def comparison_table(rows: Sequence[Compared], other: Path) -> Table:
    """The comparison as `isara evaluate --against` prints it; p is Holm's, over all rows."""
    grid = Table(title=Text(f"Against {other}, on the same items"), title_justify="left")
    grid.add_column("figure", overflow="fold")
    for name in ("before → after", "difference, 95 % interval", "p (Holm)"):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        gap = row.difference
        grid.add_row(
            Text(f"{row.task}: {row.name}"),
            f"{row.before:.3f} → {row.after:.3f}",
            f"{gap.mean:+.3f} [{gap.interval.low:+.3f}, {gap.interval.high:+.3f}]",
            f"{row.adjusted:.4f}",
        )
    return grid


def _check(task: str, ours: Path, theirs: Path) -> None:
    path = theirs / "items.key.json"
    if not path.is_file():
        raise RunError(f"expected results of `{task}` in {theirs}, found none: measure the other model on it first")
    # A chat model and a base model, or two pools of demonstrations, may well be compared; two judges can't.
    old, new = _judges(theirs), _judges(ours)
    if old != new:
        raise RunError(
            f"`{task}` in {theirs} was judged by {_shown(old)} and here by {_shown(new)}: measure both with the same "
            "judges"
        )


def _judges(folder: Path) -> Mapping[str, Any]:
    path = folder / "items.key.json"
    judges = read_json(path).get("judges")
    if not isinstance(judges, Mapping):
        raise damaged(path)
    return judges


def _values(task: Task, folder: Path) -> dict[str, dict[str, float]]:
    """The items' values by figure and id."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    path = folder / "items.jsonl"
    for row in read_results(path):
        with reading(path, task.name):
            found = task.values(row)
        for name, value in found.items():
            if not math.isfinite(value):
                raise broken(path)
            values[name][row["id"]] = value
    return values


def _shown(judges: Mapping[str, Any]) -> str:
    return ", ".join(map(str, judges.values())) or "none"
