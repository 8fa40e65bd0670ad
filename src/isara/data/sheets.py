"""Tables with a first line of names: CSV as spreadsheets and databases write it, and Excel workbooks."""

import csv
import importlib
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from isara.data.dialogues import DIALOGUE_NAMES
from isara.data.faults import Record, fault, listed, reason
from isara.errors import SeedError

_DELIMITERS = ",;\t|"
_MOST_CELL = 1_000_000  # characters; more than any text may have
_MOST_COLUMNS = 1000


def csv_records(text: str, path: Path) -> Iterator[Record]:
    """The rows of a text with delimiters, each by the names of its first line.

    Raises:
        SeedError: It is no such text.
    """
    if text.lstrip()[:1] in ("{", "["):
        raise fault(path, "a first line with the columns' names", "JSON", "rename the file to .jsonl or .json")
    first, _, rest = text.partition("\n")
    told = first.strip().strip('"')
    if told.lower().startswith("sep=") and len(told) == 5:  # what Excel writes, and hides, to say its delimiter
        delimiter, text = told[4], f"\n{rest}"
    else:
        delimiter = _delimiter(text, tabs=path.name.lower().removesuffix(".gz").endswith(".tsv"))
    advice = f'put texts that hold {delimiter!r} or a line break in "double quotes"'
    return _table(_csv_rows(text, delimiter, path), path, advice)


def _csv_rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows with the lines on which they start."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        usual = csv.field_size_limit(_MOST_CELL)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wanted = 'values with closed "double quotes"'
            raise fault(f"{path}:{line}", wanted, reason(error), "mend the row") from error
        finally:
            csv.field_size_limit(usual)
        yield line, row


def _delimiter(text: str, tabs: bool) -> str:
    """The one that cuts the first line with names into the most columns; the file's own among equals."""
    lines = (line for line in StringIO(text[:100_000], newline="") if line.strip(_DELIMITERS + '" \r\n'))
    header = next(lines, "")

    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max("\t" + _DELIMITERS if tabs else _DELIMITERS, key=columns)


def excel_records(data: bytes, path: Path, most_bytes: int) -> Iterator[Record]:
    """The rows of a workbook's first sheet that holds any, each by the names of its first row.

    Args:
        data: The file.
        path: Its place.
        most_bytes: How large it may be when it is unpacked.

    Raises:
        SeedError: It is no workbook, or there is no reader for one.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names, size = archive.namelist(), sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _no_workbook(path, error) from error
    if not any(name.startswith("xl/") for name in names):
        raise fault(path, "question-answer pairs", f"an archive with {listed(names[:3])}", "unpack it")
    if size > most_bytes:
        raise fault(path, f"at most {most_bytes // 10**6} MB of pairs", "more", "take a part of the rows")
    return _workbook(data, path)


def _workbook(data: bytes, path: Path) -> Iterator[Record]:
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError as error:
        advice = "`pip install openpyxl`, or save the sheet as .csv"
        raise fault(path, "the package openpyxl for Excel workbooks", "none", advice) from error
    try:
        with warnings.catch_warnings():  # of styles and pictures that are passed over
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True)
            filled = [sheet for sheet in book.worksheets if next(_sheet_rows(sheet), None)]
            rows = list(_sheet_rows(filled[0])) if filled else []
    except Exception as error:  # openpyxl passes on whatever a damaged workbook makes its parts raise
        raise _no_workbook(path, error) from error
    left = listed(sheet.title for sheet in filled[1:])
    notes = (f"of the sheets the first is read; left out: {left}",) if filled[1:] else ()
    return _table(rows, path, "move it into a column with a name", notes)


def _no_workbook(path: Path, error: Exception) -> SeedError:
    return fault(path, "an Excel workbook", f"one that can't be read ({reason(error)})", "save it again, or as .csv")


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a sheet that hold anything, with their numbers."""
    for number, row in enumerate(sheet.iter_rows(values_only=True, max_col=_MOST_COLUMNS), start=1):
        if any(value is not None for value in row):
            yield number, [_cell(value) for value in row]


def _cell(value: Any) -> str:
    """What a spreadsheet shows of a value, and would write into a CSV file."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).upper() if isinstance(value, bool) else str(value)


def _table(
    rows: Iterable[tuple[int, list[str]]], path: Path, advice: str, notes: tuple[str, ...] = ()
) -> Iterator[Record]:
    """The rows below the first that is not blank, which names the columns."""
    header: Sequence[str] = ()
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = _header(cells, f"{path}:{line}")
            continue
        values = _without_blank_end(cells, len(header))
        if len(values) != len(header):
            wanted = f"{len(header)} values ({listed(header)})"
            raise fault(f"{path}:{line}", wanted, str(len(values)), advice)
        row = {name: value for name, value in zip(header, values, strict=True) if name}
        yield Record(str(path), line, row, notes, table=True)


def _header(cells: Sequence[str], where: str) -> list[str]:
    names = [name.strip().removeprefix("\ufeff") for name in _without_blank_end(cells, 0)]
    if len(names) < 2 and names[0].lower() not in DIALOGUE_NAMES:
        wanted = "a first line with the columns' names, such as question,answer"
        raise fault(where, wanted, listed(names), "write one above the rows")
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise fault(where, "each column once", f"`{listed([name])}` twice", "rename or drop one of the columns")
    return names


def _without_blank_end(cells: Sequence[str], least: int) -> Sequence[str]:
    """The cells without blank ones at the end, of which spreadsheets write many; at least so many of them."""
    end = len(cells)
    while end > least and not cells[end - 1].strip():
        end -= 1
    return cells[:end]
