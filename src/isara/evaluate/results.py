"""What an evaluation leaves on disk, and how it goes on where it was cut off.

    OUT/<task>/  answers.jsonl  answers.key.json   what the model gave for each item
                 items.jsonl    items.key.json     the same with each judge's verdict: every figure is made from these
                 summary.json                      the figures
                 time.json                         seconds of work, apart from all else so that the rest can be compared

A key says what the rows beside it depend on; rows are never mixed with rows of another key. Which items are measured is
no part of it, so that a larger `--limit` goes on from a smaller one.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from isara.errors import ModelError, RunError
from isara.run import write_text

Row: TypeAlias = dict[str, Any]


class ResultFile:
    """JSON lines, one per item, that belong to one key.

    Args:
        path: The file; its key lies beside it.
        key: What the rows depend on, JSON-ready.

    Raises:
        RunError: The file holds rows of another key.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self.key_path = path.with_suffix(".key.json")
        self._claim(dict(key))

    def rows(self) -> dict[str, Row]:
        """The rows by item id; a torn last line is cut off the file."""
        found: dict[str, Row] = {}
        if not self.path.exists():
            return found
        end = 0
        with self.path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                found[row["id"]] = row
                end += len(line)
            file.truncate(end)
        return found

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows, flushed to the disk.

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
        append_text(self.path, text)

    def _claim(self, key: Row) -> None:
        if not self.path.exists():
            make_folder(self.path.parent)
            write_text(self.key_path, json.dumps(key, indent=2, ensure_ascii=False) + "\n")
            return
        old = json.loads(self.key_path.read_text("utf-8")) if self.key_path.exists() else {}
        differences = [
            f"{name} was {_shown(old.get(name))} and is {_shown(key.get(name))}"
            for name in {**old, **key}
            if old.get(name) != key.get(name)
        ]
        if differences:
            raise RunError(
                f"{self.path} holds another evaluation's results ({'; '.join(differences)}): give another folder with "
                "--out, or move the file away to make it anew"
            )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder, which is made where it is absent.

    Raises:
        RunError: Another process is at work there, or the folder can't be made.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"{folder} is in use by another process: wait for it, or give another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def make_folder(path: Path) -> None:
    """Makes the folder.

    Raises:
        RunError: It can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_error(path, error) from error


def append_text(path: Path, text: str) -> None:
    """Adds text to a file and flushes it to the disk.

    Raises:
        RunError: It can't be written.
    """
    try:
        with path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _disk_error(path, error) from error


def _disk_error(path: Path, error: OSError) -> RunError:
    return RunError(
        f"can't write {path} ({error.strerror or error}): free some space or mend the rights, "
        "then run the same command again; nothing that was finished is lost"
    )


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
