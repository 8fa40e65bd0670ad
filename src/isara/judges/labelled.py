"""Rows that people labelled, to check a judge on: XSTest's completions, BeaverTails, or any file with labels."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isara.errors import SeedError
from isara.files import file_hash
from isara.judges.base import LABELS, Kind
from isara.marks import clean
from isara.records import QAPair
from isara.tables import read_table

Half = Literal["development", "test"]

_MOST_LABELS = 5  # in an error message


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """An answer with what people said of it.

    Attributes:
        pair: Question and answer.
        positive: Whether people gave it the positive label of the judge's kind.
        categories: Groups to report on their own, such as a harm category or the model that answered.
    """

    pair: QAPair
    positive: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file mean what.

    Attributes:
        question: Column of the question.
        answer: Column of the answer.
        label: Column of the people's label.
        category: Column of a category, or "" for none.
        positive: The value that stands for the positive label; "" takes the kind's own words, true/false and 1/0.
    """

    question: str = "question"
    answer: str = "answer"
    label: str = "label"
    category: str = "category"
    positive: str = ""


def half_of(question: str) -> Half:
    """The half of a data set that a question falls into, by its hash: all answers to a question are in one half."""
    return "test" if int(hashlib.sha256(question.encode()).hexdigest(), 16) % 2 else "development"


def read_labelled(path: Path, kind: Kind, columns: Columns, half: Half | None = None) -> tuple[list[LabelledRow], str]:
    """The labelled rows of a file, and what to call them: file name, part and content hash.

    XSTest's completions are known by their column `final_label`, where a partial refusal counts as a refusal, and
    BeaverTails by its column `is_safe`; any other file is read by `columns`.

    Raises:
        SeedError: The file can't be read, lacks a column, holds a label that means nothing, or holds labels of
            another kind.
    """
    raw = read_table(path)
    _check_chosen(path, raw, columns)
    read = _reader(path, raw, kind, columns)
    rows = []
    for number, row in enumerate(raw, start=1):
        try:
            rows.append(read(row))
        except KeyError as error:
            known = clean(", ".join(map(str, row)), 300)
            raise SeedError(
                f"row {number} of {path} has no column {error.args[0]!r} (it has {known}): "
                "name the column with --question, --answer, --label or --category"
            ) from error
        except ValueError as error:
            raise SeedError(f"row {number} of {path} {error}") from error
        except TypeError as error:
            raise SeedError(f"row {number} of {path} has no list of categories ({error}): mend the row") from error
    rows = [row for row in rows if half is None or half_of(row.pair.question) == half]
    if not rows:
        raise SeedError(f"{path} holds no labelled rows{f' in its {half} half' if half else ''}: give another file")
    return rows, " ".join(filter(None, (path.name, half and f"({half} half)", f"#{file_hash(path)[:12]}")))


def read_refusals(path: Path, half: Half | None = None) -> list[QAPair]:
    """The answers that people called refusals, of a file in XSTest's form or one labelled refusal and compliance.

    Raises:
        SeedError: As `read_labelled`.
    """
    return [row.pair for row in read_labelled(path, "refusal", Columns(), half)[0] if row.positive]


def _reader(
    path: Path, raw: Sequence[Mapping[str, Any]], kind: Kind, columns: Columns
) -> Callable[[Mapping[str, Any]], LabelledRow]:
    found = raw[0] if raw else {}
    forms: dict[str, tuple[Kind, Callable[[Mapping[str, Any]], LabelledRow]]] = {
        "final_label": ("refusal", _xstest),
        "is_safe": ("harm", _beavertails),
    }
    for column, (labels, read) in forms.items():
        if column in found and columns == Columns():
            if labels != kind:
                raise SeedError(f"{path} holds labels of {labels} and the judge is one of {kind}: give other rows")
            return read
    return lambda row: _plain(row, kind, columns)


def _check_chosen(path: Path, raw: Sequence[Mapping[str, Any]], columns: Columns) -> None:
    """Raises a SeedError where no row has the label that was chosen: all of them would count as the other one."""
    found = list(dict.fromkeys(str(row[columns.label]) for row in raw if columns.label in row))
    if columns.positive and found and not any(_is_chosen(label, columns.positive) for label in found):
        shown = clean(", ".join(found[:_MOST_LABELS]), 300)
        raise SeedError(
            f"expected rows with the label {columns.positive!r} in {path}, found none (its labels are {shown}): name "
            "the positive value with --positive"
        )


def _xstest(row: Mapping[str, Any]) -> LabelledRow:
    label = str(row["final_label"])
    known = {"1": False, "2": True, "3": True}
    if label[:1] not in known:
        raise ValueError(f"has the label {label!r}: expected 1_full_compliance, 2_full_refusal or 3_partial_refusal")
    answer = row["completion"] if "completion" in row else row["response"]
    categories = [f"label {label[2:].replace('_', ' ')}", f"type {row['type']}"]
    if "model" in row:
        categories.append(f"model {row['model']}")
    return LabelledRow(_pair(row["prompt"], answer), known[label[:1]], tuple(categories))


def _beavertails(row: Mapping[str, Any]) -> LabelledRow:
    # The hub has a dict of true and false by category, other copies the list of those that are true.
    named = row["category"] if "category" in row else row["categories"]
    if isinstance(named, str):  # a copy as CSV, whose letters are no categories
        raise TypeError(f"found the text {clean(named, 60)!r}")
    categories = [name for name, holds in named.items() if holds] if isinstance(named, Mapping) else named
    pair = _pair(row["prompt"], row["response"])
    return LabelledRow(pair, not _is_positive(row["is_safe"], "harm", ""), tuple(map(str, categories)))


def _plain(row: Mapping[str, Any], kind: Kind, columns: Columns) -> LabelledRow:
    category = row.get(columns.category) if columns.category else None
    several = category if isinstance(category, list | tuple) else () if category is None else (category,)
    names = tuple(map(str, several))
    pair = _pair(row[columns.question], row[columns.answer])
    return LabelledRow(pair, _is_positive(row[columns.label], kind, columns.positive), names)


def _pair(question: Any, answer: Any) -> QAPair:
    for value in (question, answer):
        if not isinstance(value, str):
            raise ValueError(f"holds {value!r}, where a text was expected: mend the row")
    return QAPair(question, answer)


def _is_chosen(label: object, chosen: str) -> bool:
    return str(label).strip().lower() == chosen.strip().lower()


def _is_positive(label: object, kind: Kind, chosen: str) -> bool:
    text = str(label).strip().lower()
    if chosen:
        return _is_chosen(label, chosen)
    positive, negative = LABELS[kind]
    known = {positive: True, negative: False, "true": True, "false": False, "1": True, "0": False}
    if text not in known:
        raise ValueError(
            f"has the label {label!r}: expected {positive} or {negative}, true or false, 1 or 0, "
            "or name the positive value with --positive"
        )
    return known[text]
