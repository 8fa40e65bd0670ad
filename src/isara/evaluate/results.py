"""What an evaluation leaves on disk, and how it goes on where it was cut off.

    OUT/<task>/  answers.jsonl  answers.key.json   what the model gave for each item
                 items.jsonl    items.key.json     the same with each judge's verdict: every figure is made from these
                 summary.json                      the figures
                 time.json                         seconds of work, apart from all else so that the rest can be compared

A key says what the rows beside it depend on; rows are never mixed with rows of another key. Which items are measured is
no part of it, so that a larger `--limit` goes on from a smaller one.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from isara.errors import ModelError, RunError
from isara.evaluate.figures import Figure
from isara.files import append_text, cut_to, make_folder, parse_line, read_json, read_text, whole_lines, write_json

Row: TypeAlias = dict[str, Any]

_MOST_SHOWN = 3  # differences between two keys that a message names


class ResultFile:
    """JSON lines, one per item, that belong to one key. Reading changes nothing.

    Args:
        path: The file; its key lies beside it.
        key: What the rows depend on, JSON-ready.

    Raises:
        RunError: The file holds rows of another key.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self.key_path = path.with_suffix(".key.json")
        self._claim(json.loads(json.dumps(key)))  # as it is when it is read again
        self._end: int | None = None

    def rows(self) -> dict[str, Row]:
        """The rows by item id, but for a torn last line.

        Raises:
            RunError: Something else than the last line is damaged.
        """
        found, self._end = read_results(self.path)
        return {row["id"]: row for row in found}

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows, flushed to the disk; what a kill has left of a torn line is cut off before.

        Raises:
            ModelError: They hold a number that is not finite.
            RunError: They can't be written.
        """
        try:
            text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        except ValueError as error:
            raise ModelError(
                "expected likelihoods that are numbers, found nan or infinity: the weights are damaged, or overflow in "
                "this dtype (try --dtype float32)"
            ) from error
        if self._end is None:
            self._end = read_results(self.path)[1]
        cut_to(self.path, self._end)
        append_text(self.path, text)
        self._end += len(text.encode())

    def _claim(self, key: Row) -> None:
        if not self.path.exists():
            make_folder(self.path.parent)
            write_json(self.key_path, key)
            return
        old, new = dict(_leaves(read_json(self.key_path) if self.key_path.exists() else {})), dict(_leaves(key))
        differences = [
            f"{name} was {_shown(old.get(name))} and is {_shown(new.get(name))}"
            for name in {**old, **new}
            if old.get(name) != new.get(name)
        ]
        if differences:
            shown = "; ".join(differences[:_MOST_SHOWN]) + ("; …" if len(differences) > _MOST_SHOWN else "")
            raise RunError(
                f"{self.path} holds another evaluation's results ({shown}): give another folder with --out, or move "
                "the file away to make it anew"
            )


@dataclass(frozen=True, slots=True)
class Result:
    """A finished task.

    Attributes:
        task: Its name.
        figures: Its figures.
        items: Items measured.
        available: Items that the task has.
        seconds: Work spent on it, in this call and in those that it resumed.
        folder: Where its rows lie.
    """

    task: str
    figures: list[Figure]
    items: int
    available: int
    seconds: float
    folder: Path


def read_results(path: Path) -> tuple[list[Row], int]:
    """The rows of answers.jsonl or items.jsonl, and the bytes of its whole lines; a torn last line is left out.

    Raises:
        RunError: Something else than the last line is damaged.
    """
    rows, end = whole_lines(path)
    # A kill leaves a part of one line behind; a whole line that is none was damaged later.
    torn = path.exists() and b"\n" in path.read_bytes()[end:]
    if torn or not all(isinstance(row.get("id"), str) for row in rows):
        raise broken(path)
    return rows, end


def write_result(result: Result) -> None:
    """Writes a task's figures to `summary.json` in its folder."""
    summary = {
        "task": result.task,
        "items": result.items,
        "available": result.available,
        "figures": [figure.to_json() for figure in result.figures],
    }
    write_json(result.folder / "summary.json", summary)


def read_result(folder: Path) -> Result:
    """The figures and the seconds that a finished task has left in its folder.

    Raises:
        RunError: They are missing or damaged, or a figure is none.
    """
    path = folder / "summary.json"
    summary = parse_line(read_text(path)) if path.exists() else None
    try:
        if summary is None:
            raise broken(path)
        return Result(
            task=str(summary["task"]),
            figures=[Figure.from_json(row) for row in summary["figures"]],
            items=count(summary["items"]),
            available=count(summary["available"]),
            seconds=read_seconds(folder),
            folder=folder,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise broken(path) from error


def read_seconds(folder: Path) -> float:
    """Seconds of work on the task so far; 0 where nothing has been done.

    Raises:
        RunError: The file that holds them is damaged.
    """
    path = folder / "time.json"
    if not path.exists():
        return 0.0
    seconds = (parse_line(read_text(path)) or {}).get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise broken(path)
    return float(seconds)


def count(value: Any) -> int:
    """The value, where it is a whole number that isn't negative.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, found {value!r}")
    return value


@contextmanager
def reading(path: Path, task: str) -> Iterator[None]:
    """Turns what a task stumbles over in its stored rows into one line.

    Raises:
        RunError: It lacks a field, or a field is of another type.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        found = f"a row without {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"expected the rows of `{task}` in {path}, found {found}: move the file away to make it anew, or mend the "
            "task"
        ) from error


def broken(path: Path) -> RunError:
    """The error for a result that can't be read as what it is."""
    return RunError(f"{path} is damaged: put it back, or remove it and run the same command again to make it anew")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
