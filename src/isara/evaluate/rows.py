"""What a stored row says, whatever its task: what was asked, given and wanted, and what it adds to each figure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from isara.evaluate import domain, instructions, safety, truthfulness
from isara.evaluate.harness import PREFIX, metrics
from isara.evaluate.results import Row
from isara.judges.base import LABELS, Kind

SHIPPED = ("domain", "safety", "truthfulness", "truthfulness-generation", "instructions")
# What rows of pairs, of tasks and of lm-evaluation-harness call it.
ASKED = ("question", "prompt", "instruction", "arguments")
GIVEN = ("answer", "output", "resps")
WANTED = ("reference", "target")


def said(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these that a row has, as a text; None where it has none of them."""
    value = next((row[name] for name in names if name in row), None)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted(task: str, row: Row, judges: Mapping[str, Any]) -> dict[str, float]:
    """What a judged row adds to each figure that it counts in, by the figure's name; a share counts 1 or 0.

    Of a task of a user's own, the row's numbers by their fields, which need not be the names of its figures.

    Args:
        task: The task's name.
        row: A row of its items.jsonl.
        judges: The task's judges by kind, as the key of its rows says.
    """
    if task.startswith(PREFIX):
        return metrics(row)
    kinds: list[Kind] = [kind for kind in LABELS if kind in judges]
    match task:
        case "domain":
            return domain.counted(row, kinds)
        case "safety":
            return safety.counted(row, kinds)
        case "truthfulness":
            return truthfulness.counted(row)
        case "truthfulness-generation":
            return truthfulness.counted_generation(row, kinds)
        case "instructions":
            return instructions.counted(row)
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
