"""How pairs are read and written: every usual form of file, folder and row, or one line that says what is wrong."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isara.data.dialogues import DIALOGUE_NAMES
from isara.data.faults import Record, kind
from isara.data.formats import FILE_ENDINGS
from isara.data.rows import ANSWER_NAMES, QUESTION_NAMES, SourceRow, read_record, source_rows
from isara.data.sources import find_records
from isara.errors import SeedError
from isara.files import json_lines, write_text
from isara.records import QAPair

__all__ = [
    "ANSWER_NAMES",
    "DIALOGUE_NAMES",
    "FILE_ENDINGS",
    "QUESTION_NAMES",
    "SourceRow",
    "as_pairs",
    "read_pairs",
    "read_rows",
    "write_pairs",
]

log = logging.getLogger("isara")


def read_pairs(source: str | Path, question: str | None = None, answer: str | None = None) -> list[QAPair]:
    """The pairs of a source as `read_rows` reads them; what of it is not used is logged as warnings."""
    rows = read_rows(source, question, answer)
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        log.warning("%s: %s", source, note)
    return [row.pair for row in rows]


def read_rows(source: str | Path, question: str | None = None, answer: str | None = None) -> list[SourceRow]:
    """The pairs of a source with their places, in order; their texts are not judged (`isara.seeds.lint` does that).

    Args:
        source: A JSON Lines, JSON, CSV, TSV (each also .gz), Parquet or Excel file; a folder that `datasets` saved; a
            folder with data files, or a clone from the hub (its seeds.*, else its train split, else all data files);
            or "owner/name[:[config/]split]" on the hub.
        question: Column with the questions; None finds it under its usual names.
        answer: Likewise for the answers.

    Raises:
        SeedError: No such source, or a line that is no pair; with file, line, what was found and what to do.
    """
    rows = source_rows(find_records(source), question, answer)
    if not rows:
        raise SeedError(f"{source}: expected question-answer pairs, found none: write one JSON object a line")
    return rows


def as_pairs(pairs: Iterable[QAPair | Mapping[str, Any]]) -> list[QAPair]:
    """The pairs that a caller gave: each a `QAPair`, or a mapping in any form that a line of a file may have.

    Raises:
        SeedError: Something that is no pair, with its number from 1.
    """
    if isinstance(pairs, str | Path | Mapping) or not isinstance(pairs, Iterable):
        raise SeedError(f"expected a list of pairs, found {kind(pairs)}: read a file with `read_pairs`")
    return [_as_pair(pair, number) for number, pair in enumerate(pairs, start=1)]


def _as_pair(pair: Any, number: int) -> QAPair:
    if isinstance(pair, QAPair):
        return pair
    if isinstance(pair, Mapping):
        return read_record(Record("pairs", number, pair)).pair
    raise SeedError(
        f'pairs:{number}: expected a QAPair or {{"question": ..., "answer": ...}}, found {kind(pair)}: '
        "give question and answer their names"
    )


def write_pairs(path: Path, pairs: Iterable[QAPair]) -> None:
    """Writes pairs as JSON Lines (UTF-8, one newline a row): the whole file, or none of it.

    Raises:
        RunError: It can't be written.
    """
    write_text(path, json_lines(pair.to_json() for pair in pairs))
