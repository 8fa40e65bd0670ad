"""What an evaluation leaves on disk, and how it goes on where it was cut off.

    OUT/model.json  against.json  report.html      who was measured, the comparison with another model, the page
    OUT/<task>/  answers.jsonl  answers.key.json   what the model gave for each item
                 items.jsonl    items.key.json     the same with each judge's verdict: every figure is made from these
                 answers.sums   items.sums         size and hash of each batch of rows: only what both say counts
                 summary.json                      the figures
                 time.json                         seconds of work, apart from all else so that the rest can be compared

A key says what the rows beside it depend on; rows are never mixed with rows of another key. Which items are measured is
no part of it, so that a larger `--limit` goes on from a smaller one.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from isara.errors import ModelError, RunError
from isara.evaluate.figures import Figure
from isara.files import (
    append_batch,
    cut_to,
    make_folder,
    read_batches,
    read_json,
    read_sealed,
    remove,
    stored_hash,
    sums_file,
    value_hash,
    write_json,
    write_sealed,
    write_text,
)
from isara.keys import leaves
from isara.marks import clean

Row: TypeAlias = dict[str, Any]

_MOST_SHOWN = 3  # differences between two keys that a message names
_MOST_VALUE = 200  # characters of a value in one


class ResultFile:
    """JSON lines, one per item, that belong to one key; what a kill has left of a torn batch is cut off.

    Args:
        path: The file; its key lies beside it.
        key: What the rows depend on, JSON-ready.

    Raises:
        RunError: The file holds rows of another key.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        for left in path.parent.glob("*.tmp"):  # by a kill
            remove(left)
        self.path = path
        self.key_path = path.with_suffix(".key.json")
        self._key = json.loads(json.dumps(key))  # as it is when it is read again
        self._claim(self._key)
        _, size, sums = _batches(path)
        cut_to(path, size)
        cut_to(sums_file(path), sums)

    def rows(self) -> dict[str, Row]:
        """The rows of whole batches by item id.

        Raises:
            RunError: A batch is not what was written.
        """
        return {row["id"]: row for row in read_results(self.path)}

    def append(self, rows: Sequence[Row]) -> None:
        """Adds a batch of rows, flushed to the disk.

        Raises:
            ModelError: They hold a number that is not finite.
            RunError: They can't be written.
        """
        try:
            json.dumps(list(rows), allow_nan=False)
        except ValueError as error:
            raise ModelError(
                "expected likelihoods that are numbers, found nan or infinity: the weights are damaged, or overflow in "
                "this dtype (try --dtype float32)"
            ) from error
        append_batch(self.path, rows, value_hash(self._key))

    def replace(self, rows: Iterable[Row]) -> None:
        """Writes all rows at once, in place of what lies there.

        Raises:
            RunError: They can't be written.
        """
        write_text(sums_file(self.path), "")
        write_text(self.path, "")
        append_batch(self.path, rows, value_hash(self._key))

    def _claim(self, key: Row) -> None:
        for path in (self.path, self.key_path, sums_file(self.path)):
            if path.is_symlink():
                raise RunError(f"{path} is a link, and results are written into their own folder alone: remove it")
        if not self.path.exists():
            make_folder(self.path.parent)
            write_text(sums_file(self.path), "")  # before the rows: rows without it are damage
            write_json(self.key_path, key)
            return
        old, new = dict(leaves(read_json(self.key_path) if self.key_path.exists() else {})), dict(leaves(key))
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
        if list(old) != list(new):  # lines that changed places
            write_json(self.key_path, key)


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
        ids: The items that the figures are made of, in their order: the folder may hold rows of more.
    """

    task: str
    figures: list[Figure]
    items: int
    available: int
    seconds: float
    folder: Path
    ids: tuple[str, ...] = ()


def read_results(path: Path) -> list[Row]:
    """The rows of answers.jsonl or items.jsonl, whole batches of them.

    Raises:
        RunError: A batch is not what was written, or was written for another key.
    """
    return _batches(path)[0]


def _batches(path: Path) -> tuple[list[Row], int, int]:
    """The rows of whole batches, the bytes that they take, and those of their sums."""
    if not path.exists():
        return [], 0, 0
    if not sums_file(path).exists():
        raise broken(sums_file(path), path)
    try:
        found = read_batches(path, value_hash(read_json(path.with_suffix(".key.json"))))
    except RunError:
        raise broken(path) from None
    if not all(isinstance(row.get("id"), str) for row in found[0]):
        raise broken(path)
    return found


def write_result(result: Result) -> None:
    """Writes a task's figures to `summary.json` in its folder, with the hash of the rows that they were made from."""
    summary = {
        "task": result.task,
        "items": result.items,
        "available": result.available,
        "figures": [figure.to_json() for figure in result.figures],
        "ids": result.ids,
        "rows": rows_hash(result.folder),
    }
    write_sealed(result.folder / "summary.json", summary)


def read_result(folder: Path) -> Result:
    """The figures and the seconds that a finished task has left in its folder.

    Raises:
        RunError: They are missing or damaged, or were made from other rows.
    """
    path = folder / "summary.json"
    try:
        summary = _sealed(path)
        if summary["rows"] != rows_hash(folder):
            raise broken(path)
        return Result(
            task=str(summary["task"]),
            figures=[Figure.from_json(row) for row in summary["figures"]],
            items=count(summary["items"]),
            available=count(summary["available"]),
            seconds=read_seconds(folder),
            folder=folder,
            ids=tuple(map(str, summary.get("ids", ()))),  # an older summary has none
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise broken(path) from error


def rows_hash(folder: Path) -> str:
    """What a task's figures were made from: its judged rows and their key.

    Raises:
        RunError: They are missing or can't be read.
    """
    path = folder / "items.jsonl"
    return value_hash([stored_hash(path), stored_hash(path.with_suffix(".key.json"))])


def read_seconds(folder: Path) -> float:
    """Seconds of work on the task so far; 0 where nothing has been done.

    Raises:
        RunError: The file that holds them is damaged.
    """
    path = folder / "time.json"
    if not path.exists():
        return 0.0
    seconds = _sealed(path).get("seconds")
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


def broken(path: Path, rows: Path | None = None) -> RunError:
    """The error for a result that can't be read as what it is; `rows` is what to remove where it is another file."""
    return RunError(
        f"{path} is damaged: put it back, or remove {rows or 'it'} and run the same command again to make it anew"
    )


def _sealed(path: Path) -> Row:
    try:
        return read_sealed(path)
    except RunError:
        raise broken(path) from None


def _shown(value: object) -> str:
    return "not set" if value is None else clean(str(value), _MOST_VALUE)
