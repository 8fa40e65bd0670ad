"""Files of every form as records; what a file is, its first bytes say before its name does."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from isara.data.encodings import decoded
from isara.data.faults import Record, fault, kind, listed, reason
from isara.data.sheets import csv_records, excel_records
from isara.errors import SeedError

_TEXT_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
FILE_ENDINGS = (*_TEXT_ENDINGS, *(f"{ending}.gz" for ending in _TEXT_ENDINGS), ".parquet", ".xlsx")
ENDINGS = f"{', '.join(_TEXT_ENDINGS)} (each also with .gz), .parquet or .xlsx"
# A hundred pairs are some kilobytes. As objects, the largest text takes a few hundred megabytes.
MOST_BYTES = 100_000_000
_MOST_VALUES = 5_000_000  # in one JSON document
_BATCH = 100  # rows of Parquet that are unpacked at a time

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "run `git lfs pull` in its folder"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as .xlsx or .csv"),
    (b"ARROW1", "an Arrow file", "name the folder that datasets saved, or export it as Parquet"),
    (b"SQLite format 3\0", "a SQLite database", "export the table as CSV"),
    (b"%PDF", "a PDF", "copy the pairs into a table"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it"),
    (b"(\xb5/\xfd", "a zstd archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def file_records(path: Path) -> Iterator[Record]:
    """The records of a file, read as what it is.

    Raises:
        SeedError: It can't be read, or is no data.
    """
    ending = file_ending(path)
    if not ending:
        raise fault(path, f"a file that ends in {ENDINGS}", f"{path.name[-100:]!r}", "convert or rename it")
    data = _read(path)
    if data.startswith(b"\x1f\x8b") or path.name.lower().endswith(".gz"):
        data = _unzipped(data, path)
    _refuse(data, path)
    if data.startswith(b"PK\x03\x04"):
        return excel_records(data, path, MOST_BYTES)
    if data.startswith(b"PAR1") or ending == ".parquet":
        return _parquet_records(data, path)
    if ending == ".xlsx" and data:
        raise fault(path, "an Excel workbook", "a file that is none", "save it again, or name it after what it is")
    text = decoded(data, path)
    if ending in (".csv", ".tsv"):
        return csv_records(text, path)
    return _json_records(text, path) if ending == ".json" else _line_records(text, path)


def file_ending(path: Path) -> str:
    """The ending that says what a file is, without .gz and in lower case; "" where it is none of ours."""
    name = path.name.lower()
    return next((ending.removesuffix(".gz") for ending in FILE_ENDINGS if name.endswith(ending)), "")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise fault(path, "a file", "something else", "copy what it gives into a file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise fault(path, "a file that can be read", reason(error), "check it") from error
    return _bounded(data, path)


def _unzipped(data: bytes, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            return _bounded(file.read(MOST_BYTES + 1), path)
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, "a file that can be read", reason(error), "check it") from error


def _bounded(data: bytes, path: Path) -> bytes:
    if len(data) > MOST_BYTES:
        raise _too_large(path)
    return data


def _too_large(path: Path) -> SeedError:
    return fault(path, f"at most {MOST_BYTES // 10**6} MB of pairs", "more", "take a part of the rows")


def _refuse(data: bytes, path: Path) -> None:
    """Says of a file that can hold no pairs what it is.

    Raises:
        SeedError: Always, where it is such a file.
    """
    for magic, name, advice in _MAGIC:
        if data.startswith(magic):
            raise fault(path, "question-answer pairs", name, advice)
    start = data[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_PAGES):
        advice = 'download the file itself (the link called "raw" or "download")'
        raise fault(path, "question-answer pairs", "a web page", advice)
    if start.startswith((b"<?xml", b"<!doctype")):
        raise fault(path, "question-answer pairs", "XML", "export them as CSV or JSON")


def _line_records(text: str, path: Path) -> Iterator[Record]:
    if text.lstrip()[:1] == "[" or text.lstrip().partition("\n")[0].strip() == "{":
        # A list of rows under this ending, or objects that go over several lines.
        yield from _json_records(text, path, alone=True)
        return
    for number, line in enumerate(_lines(text), start=1):
        if line.strip():
            try:
                value = _json(line)
            except json.JSONDecodeError as error:
                found = f"a line that is none ({error.msg} at character {error.pos + 1})"
                raise fault(f"{path}:{number}", "one JSON object a line", found, "mend the line") from error
            except _JSON_ERRORS as error:
                raise _odd_json(error, f"{path}:{number}") from error
            yield _object(value, path, number)


def _lines(text: str) -> Iterator[str]:
    """The lines, which end at line feeds alone: JSON allows the other separators inside a text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _json_records(text: str, path: Path, alone: bool = False) -> Iterator[Record]:
    """The rows of a list, of objects one behind the other, or of an object that holds a list.

    Args:
        text: The JSON.
        path: Its place.
        alone: Whether a single object is a row, as in JSON Lines.

    Raises:
        SeedError: It is something else.
    """
    if text.count(",") > _MOST_VALUES:
        raise fault(path, f"at most {_MOST_VALUES:,} values", "more", "write JSON Lines (.jsonl), a row a line")
    documents = list(_documents(text, path))
    rowlike = alone and bool(documents) and isinstance(documents[0][1], dict)
    if len(documents) > 1 or rowlike:  # JSON Lines under the wrong ending, as hubs often have them
        yield from (_object(value, path, line) for line, value in documents)
        return
    notes: tuple[str, ...] = ()
    rows = documents[0][1] if documents else []
    if isinstance(rows, dict):
        rows, notes = _rows_inside(rows, path)
    if not isinstance(rows, list):
        raise fault(path, 'a list of rows or {"data": [rows]}', kind(rows), "wrap the rows in [ ]")
    yield from (_object(row, path, number, notes) for number, row in enumerate(rows, start=1))


def _documents(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The JSON values of a text, one behind the other, each with the line on which it starts."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    place, line = _after_space(text, 0), 1
    line += text.count("\n", 0, place)
    while place < len(text):
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            where = f"{path}:{error.lineno}"
            raise fault(where, "JSON", f"none ({error.msg})", "mend the line") from error
        except _JSON_ERRORS as error:
            raise _odd_json(error, path) from error
        yield line, value
        after = _after_space(text, end)
        line += text.count("\n", place, after)
        place = after


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n\ufeff":
        place += 1
    return place


def _rows_inside(tree: Mapping[str, Any], path: Path) -> tuple[Any, tuple[str, ...]]:
    """The rows of an object that holds them under a name, with a note of what beside them is left out."""
    for name in ("data", "train"):
        if isinstance(tree.get(name), list):
            others = [other for other, value in tree.items() if other != name and isinstance(value, list)]
            note = f"of the lists in the file, `{name}` is read; left out: {listed(others)}"
            return tree[name], (note,) if others else ()
    wanted = 'a list of rows or {"data": [rows]}'
    if len(tree) > 1 and all(isinstance(value, list | dict) for value in tree.values()):
        advice = 'write a list with an object a row (in pandas, orient="records")'
        raise fault(path, wanted, f"an object with the columns {listed(tree)}", advice)
    raise fault(path, wanted, f"an object with {listed(tree)}", "wrap the rows in [ ]")


# Nesting beyond the interpreter's depth, numbers of too many digits, and names that stand twice.
_JSON_ERRORS = (RecursionError, ValueError)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(twice)
    return row


class _TwiceError(ValueError):
    """A name that stands twice in one object; of its values, JSON would keep the last alone."""


def _odd_json(error: Exception, where: object) -> SeedError:
    if isinstance(error, _TwiceError):
        return fault(where, "each name once in an object", f"`{listed([error])}` twice", "rename or drop one")
    found = "one that is nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
    return fault(where, "rows of texts", found, "mend the row")


def _object(row: Any, path: Path, number: int, notes: tuple[str, ...] = ()) -> Record:
    if isinstance(row, dict):
        return Record(str(path), number, row, notes)
    wanted = 'an object such as {"question": ..., "answer": ...}'
    raise fault(f"{path}:{number}", wanted, kind(row), "give each row its column names")


def _parquet_records(data: bytes, path: Path) -> Iterator[Record]:
    from pyarrow import BufferReader, parquet

    def batches() -> Iterator[list[dict[str, Any]]]:
        file = parquet.ParquetFile(BufferReader(data))
        size = 0
        if file.metadata.num_rows > _MOST_VALUES:
            raise fault(path, f"at most {_MOST_VALUES:,} rows", f"{file.metadata.num_rows:,}", "take a part of them")
        for batch in file.iter_batches(_BATCH):
            size += batch.nbytes
            if size > MOST_BYTES:  # a text that stands in every row is stored once
                raise _too_large(path)
            yield batch.to_pylist()

    number = 0
    for batch in boundary(batches, path, "a Parquet file", "one that is none or torn", "export it again"):
        for row in batch:
            number += 1
            yield Record(str(path), number, row)


def boundary(
    read: Callable[[], Iterator[Any]], source: object, expected: str, found: str, advice: str
) -> Iterator[Any]:
    """What a library's reader gives; whatever it raises becomes one line.

    Args:
        read: Starts the reader.
        source: What is read.
        expected: What it should be.
        found: What it is where the reader fails, "{reason}" in it standing for what the reader says.
        advice: What to do then.

    Raises:
        SeedError: The reader failed.
    """
    try:
        yield from read()
    except SeedError:
        raise
    except Exception as error:  # libraries pass on whatever their readers, clients and builders raise
        raise fault(source, expected, found.replace("{reason}", reason(error)), advice) from error
