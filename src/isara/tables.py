"""Rows of the files that data are published in: JSON Lines, JSON, CSV and Parquet, for benchmarks and labelled rows."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from isara.errors import SeedError
from isara.marks import clean

TableRow: TypeAlias = dict[str, Any]

_MOST_CHARACTERS = 200_000_000


def read_table(path: Path) -> list[TableRow]:
    """The rows of a JSON Lines, JSON, CSV or Parquet file, the first three gzipped or not.

    Raises:
        SeedError: The file isn't there or can't be read as what its name says.
    """
    readers: dict[str, Callable[[Path], list[TableRow]]] = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in readers:
        raise SeedError(f"expected a .jsonl, .json, .csv or .parquet file, found {path}: convert it to one of these")
    try:
        return readers[kind](path)
    except FileNotFoundError as error:
        raise SeedError(f"expected a file at {path}, found none: check the path") from error
    # UnicodeDecodeError and pyarrow's ArrowInvalid are ValueErrors; a torn .gz ends in an EOFError or a zlib.error.
    except (OSError, ValueError, TypeError, EOFError, RecursionError, csv.Error, zlib.error) as error:
        reason = clean(str(error), 200) or type(error).__name__
        raise SeedError(f"{path} can't be read as {kind[1:]} ({reason}): mend the file or take another copy") from error


def _text(path: Path) -> io.StringIO:
    """The text of a file; a few bytes of gzip can stand for any number of them."""
    gzipped = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if gzipped else path.open(encoding="utf-8-sig") as file:
        text = file.read(_MOST_CHARACTERS + 1)
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"more than {_MOST_CHARACTERS:,} characters")
    return io.StringIO(text)


def _read_jsonl(path: Path) -> list[TableRow]:
    return [dict(json.loads(line)) for line in _text(path) if line.strip()]


def _read_json(path: Path) -> list[TableRow]:
    return [dict(row) for row in json.load(_text(path))]


def _read_csv(path: Path) -> list[TableRow]:
    return list(csv.DictReader(_text(path)))


def _read_parquet(path: Path) -> list[TableRow]:
    import pyarrow.parquet

    rows: list[TableRow] = pyarrow.parquet.read_table(path).to_pylist()
    return rows
