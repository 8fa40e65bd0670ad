"""From a row to a pair: which of its columns are the question, the answer, and what belongs to them."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from isara.data.dialogues import (
    DIALOGUE_NAMES,
    SYSTEM_NOTE,
    Turn,
    UntrainedError,
    dialogue_column,
    earlier,
    exchanges,
    is_dialogue,
    read_turns,
)
from isara.data.faults import Record, fault, is_blank, kind, listed
from isara.data.texts import plain_text
from isara.records import QAPair

QUESTION_NAMES = ("question", "prompt", "instruction", "query", "input")
ANSWER_NAMES = ("answer", "response", "completion", "output")
# Columns whose text belongs to the question, and those with earlier turns.
MATERIAL_NAMES = ("context", "passage", "document")
HISTORY_NAMES = ("history", "before")
_SYSTEM_NAMES = ("system", "system_prompt")
# Others that say something; the rest (ids, sources, categories) is nobody's text.
_SAYING = {*QUESTION_NAMES, *ANSWER_NAMES, "tools", "functions", "thinking", "reasoning", "reasoning_content"}
_NO_MATERIAL = {"<noinput>", "<no input>", "noinput", "nan", "none", "null", "n/a"}


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A pair as it was read, and where it stands.

    Attributes:
        file: The file, folder or hub name it came from.
        line: Its (first) line, from 1; in formats without lines, and in JSON, the number of its row.
        pair: The pair, its texts without the spaces around them.
        notes: What the file holds beside the pair that is not used.
    """

    file: str
    line: int
    pair: QAPair
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a source has its pairs: in a column of turns, or in one of questions and one of answers."""

    dialogue: str | None
    question: str = ""
    answer: str = ""
    named: bool = False


def source_rows(records: Iterable[Record], question: str | None, answer: str | None) -> list[SourceRow]:
    """The pairs of records; the first one decides which columns are read.

    Dialogues of which no answer is to be trained on are left out, and counted in the first row's notes.

    Raises:
        SeedError: A record that is no pair, or none that is to be trained on.
    """
    columns: _Columns | None = None
    rows: list[SourceRow] = []
    untrained: list[tuple[Record, UntrainedError]] = []
    for record in records:
        columns = columns or _find_columns(record, question, answer)
        try:
            rows.append(_read(record, columns))
        except UntrainedError as error:
            untrained.append((record, error))
    if untrained:
        first, fault_of_first = untrained[0]
        if not rows:
            raise fault_of_first
        place = f"line {first.line}" if first.file == rows[0].file else first.where
        count = f"{len(untrained)} rows are" if len(untrained) > 1 else "1 row is"
        note = f"{count} left out, where each answer has the weight 0; the first: {place}"
        rows[0] = replace(rows[0], notes=(*rows[0].notes, note))
    return rows


def read_record(record: Record) -> SourceRow:
    """The pair of a record that stands for itself.

    Raises:
        SeedError: It is no pair.
    """
    return _read(record, _find_columns(record, None, None))


def _find_columns(record: Record, question: str | None, answer: str | None) -> _Columns:
    """The columns' names as asked for or under their usual names, whatever their case."""
    named = question is not None or answer is not None
    if not named and (column := dialogue_column(record.row)):
        return _Columns(column)
    if not named and record.table and not _any_usual(record.row):
        wanted = "a first line with the columns' names, such as question,answer"
        advice = "write one above the rows, or name the columns with columns.question and columns.answer"
        raise fault(record.file, wanted, listed(record.row), advice)
    asked = _find_column(question, QUESTION_NAMES, "question", record)
    return _Columns(None, asked, _find_column(answer, ANSWER_NAMES, "answer", record), named)


def _any_usual(row: Mapping[str, Any]) -> bool:
    return any(_usual(name) in (*QUESTION_NAMES, *ANSWER_NAMES, *DIALOGUE_NAMES) for name in row)


def _find_column(asked: str | None, usual: tuple[str, ...], part: str, record: Record) -> str:
    row = record.row
    if asked is not None:
        if asked in row:
            return asked
        near = difflib.get_close_matches(asked, map(str, row), n=1)
        advice = f"did you mean `{listed(near)}`?" if near else f"set columns.{part} to one of them"
        raise fault(record.where, f"a column `{asked}`", listed(row), advice)
    for name in usual:
        found = [column for column in row if _usual(column) == name]
        if len(found) > 1:
            advice = f"say which one is meant with columns.{part}"
            raise fault(record.where, f"one column `{name}`", listed(found), advice)
        if found:
            return found[0]
    advice = f"rename it, or name it with columns.{part}"
    raise fault(record.where, f"a column with the {part}s ({', '.join(usual)})", listed(row), advice)


def _read(record: Record, columns: _Columns) -> SourceRow:
    row, where = record.row, record.where
    if columns.dialogue is not None:
        turns, notes = read_turns(_cell(record, columns.dialogue), columns.dialogue, where)
    elif is_dialogue(row.get(columns.question)) or is_dialogue(row.get(columns.answer)):
        asked, notes = _as_turns(record, columns.question, "user")
        replied, more = _as_turns(record, columns.answer, "assistant")
        turns, notes = asked + replied, notes + more
    else:
        return _plain_row(record, columns)
    pair, more_notes = exchanges(turns, where)
    notes = [*record.notes, *notes, *more_notes]
    if any(not is_blank(row[name]) for name in row if _usual(name) in _SYSTEM_NAMES):
        notes.append(SYSTEM_NOTE)
    return SourceRow(record.file, record.line, pair, tuple(dict.fromkeys(notes)))


def _as_turns(record: Record, column: str, role: str) -> tuple[list[Turn], list[str]]:
    """A column's turns: those of TRL's conversational form, or a text as what the role says."""
    value = _cell(record, column)
    if is_dialogue(value):
        return read_turns(value, column, record.where)
    return [Turn(role, plain_text(value, column, record.where))], []


def _plain_row(record: Record, columns: _Columns) -> SourceRow:
    asked = plain_text(_cell(record, columns.question), columns.question, record.where)
    replied = plain_text(_cell(record, columns.answer), columns.answer, record.where)
    before: tuple[tuple[str, str], ...] = ()
    shown: tuple[int, ...] = ()  # of these, what is not trained on
    notes = list(record.notes)
    for name, value in record.row.items():
        usual = _usual(name)
        if name in (columns.question, columns.answer) or is_blank(value):
            continue
        if usual in MATERIAL_NAMES or (usual == "input" and _usual(columns.question) == "instruction"):
            asked = _with_material(asked, _material(value, str(name), record.where))
        elif usual in HISTORY_NAMES:
            before, found = _history(value, str(name), record.where)
            shown = found or shown
        elif usual == "untrained" and "before" in map(_usual, record.row):  # as pairs are stored
            shown = _places(value, record)
        elif usual in _SYSTEM_NAMES:
            notes.append(SYSTEM_NOTE)
        elif usual in _SAYING and not columns.named:
            notes.append(f"the column `{usual}` is filled and not used")
    if shown and max(shown) >= len(before):
        wanted = f"places of earlier answers in `untrained`, below {len(before)}"
        raise fault(record.where, wanted, str(max(shown)), "correct it or leave it out")
    pair = replace(QAPair(asked, replied), before=before, untrained=shown)
    return SourceRow(record.file, record.line, pair, tuple(dict.fromkeys(notes)))


def _with_material(asked: str, material: str) -> str:
    return f"{asked}\n{material}" if material and material not in asked else asked


def _material(value: Any, column: str, where: str) -> str:
    """The text of a column that belongs to the question; "" where it says that there is none."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    text = plain_text(value, column, where)
    return "" if text.lower() in _NO_MATERIAL else text


def _places(value: Any, record: Record) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and all(type(place) is int and place >= 0 for place in value):
        return tuple(value)
    raise fault(record.where, "a list of places in `untrained`", kind(value), "correct it or leave it out")


def _history(value: Any, column: str, where: str) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...]]:
    """Earlier turns, a list of questions with their answers or of turns; and the places of what is not trained on."""
    if isinstance(value, list) and all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in value):
        return tuple((plain_text(one, column, where), plain_text(two, column, where)) for one, two in value), ()
    if value and is_dialogue(value):
        return earlier(read_turns(value, column, where)[0], where)
    wanted = f"earlier turns in `{column}` such as [[question, answer]]"
    raise fault(where, wanted, kind(value), "write them so or drop the column")


def _cell(record: Record, column: str) -> Any:
    if column in record.row:
        return record.row[column]
    raise fault(record.where, f"a column `{column}` as in the first row", listed(record.row), "add it")


def _usual(name: object) -> str:
    return str(name).strip().lower()
