"""Is it better? Two models' stored items, laid side by side."""

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from isara.errors import RunError
from isara.evaluate.results import broken, read_results, reading, rows_hash
from isara.evaluate.runner import Task
from isara.files import damaged, read_json, read_sealed, without_nan, write_sealed
from isara.statistics import Difference, holm, paired_difference

AGAINST = "against.json"


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


def left_out(tasks: Sequence[Task], out: Path, other: Path) -> list[str]:
    """The figures, after their task's name, that only one of two results has, and so no comparison."""
    found = []
    for task in tasks:
        both = [_values(task, folder / task.name) for folder in (out, other)]
        found += [f"{task.name}: {name}" for name in sorted(both[0].keys() ^ both[1].keys())]
    return found


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


def keep_comparison(rows: Sequence[Compared], out: Path, other: Path) -> None:
    """Writes what was compared to `against.json` in `out`, with the hashes of the rows that it rests on.

    Raises:
        RunError: It can't be written.
    """
    tasks = dict.fromkeys(row.task for row in rows)
    kept = {
        "folder": os.path.relpath(other.resolve(), out.resolve()),  # both may be moved together
        "rows": {task: [rows_hash(out / task), rows_hash(other / task)] for task in tasks},
        "figures": [without_nan(asdict(row)) for row in rows],
    }
    write_sealed(out / AGAINST, kept)


@dataclass(frozen=True, slots=True)
class Kept:
    """A comparison as it lies beside the results.

    Attributes:
        folder: The other model's results.
        figures: The figures of `Compared`, JSON-ready, of the tasks whose rows are still those that were compared.
        changed: The tasks of which either side's rows have changed or are gone.
    """

    folder: Path
    figures: list[dict[str, Any]]
    changed: list[str]


def kept_comparison(out: Path) -> Kept | None:
    """What `keep_comparison` has written; None where nothing was compared.

    Raises:
        RunError: It is damaged.
    """
    path = out / AGAINST
    if not path.exists():
        return None
    found = read_sealed(path)
    other = Path(os.path.normpath(out.resolve() / found["folder"]))
    changed = [task for task, hashes in found["rows"].items() if _hashes(task, out, other) != hashes]
    return Kept(other, [row for row in found["figures"] if row["task"] not in changed], changed)


def _hashes(task: str, out: Path, other: Path) -> list[str] | None:
    try:
        return [rows_hash(out / task), rows_hash(other / task)]
    except RunError:
        return None


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
