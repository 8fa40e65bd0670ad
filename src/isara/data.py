"""The one record that passes through every stage: a question-answer pair; and how pairs are read and written."""

import csv
import difflib
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from isara.errors import SeedError

QUESTION_NAMES = ("question", "prompt", "instruction", "query", "input")
ANSWER_NAMES = ("answer", "response", "completion", "output")
DIALOGUE_NAMES = ("messages", "conversations", "conversation")
FILE_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")
_ASKS = {"user", "human"}
_ANSWERS = {"assistant", "gpt", "model", "bot"}
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:((?P<config>[^/:]+)/)?(?P<split>[^/]+))?")


@dataclass(frozen=True, slots=True)
class QAPair:
    """A question with its answer, and where it came from.

    Attributes:
        question: What is asked.
        answer: What is answered; empty while a candidate's question is being filtered.
        iteration: The iteration that made the pair; 0 is a seed pair.
        demo_ids: Ids of the demonstrations in the prompt that made the answer, in prompt order (nearest last).
    """

    question: str
    answer: str
    iteration: int = 0
    demo_ids: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of question and answer: equal texts have equal ids."""
        return hashlib.sha256(json.dumps([self.question, self.answer]).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with the id first."""
        return {"id": self.id, **asdict(self), "demo_ids": list(self.demo_ids)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "QAPair":
        """The pair that `to_json` wrote; keys that are not fields are ignored."""
        return cls(row["question"], row["answer"], row.get("iteration", 0), tuple(row.get("demo_ids", ())))


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


# A record with its file and line.
_Record = tuple[str, int, Mapping[str, Any]]


def read_pairs(source: str | Path, question: str | None = None, answer: str | None = None) -> list[QAPair]:
    """The pairs of a data file, a folder or a hub data set, as `read_rows` reads them."""
    return [row.pair for row in read_rows(source, question, answer)]


def read_rows(source: str | Path, question: str | None = None, answer: str | None = None) -> list[SourceRow]:
    """The pairs of a source with their places, in order; their texts are not judged (`isara.seeds.lint` does that).

    Args:
        source: A JSON Lines (also .gz), JSON, CSV, TSV or Parquet file; a folder that `datasets` saved; a folder with
            data files (its seeds.* where there is one, else all of them by name); or "owner/name[:[config/]split]" on
            the hub.
        question: Column with the questions; None finds it under its usual names.
        answer: Likewise for the answers.

    Raises:
        SeedError: No such source, or a line that is no pair; with file, line, what was found and what to do.
    """
    records = list(_records(source))
    if not records:
        raise SeedError(f"{source}: expected question-answer pairs, found none: write one JSON object a line")
    if question is None and answer is None and _dialogue_column(records[0][2]):
        return [_from_dialogue(*record) for record in records]
    columns = _find_columns(records[0], question, answer)
    return [_row(*record, *columns) for record in records]


def write_pairs(path: Path, pairs: Sequence[QAPair]) -> None:
    """Writes pairs as JSON Lines (UTF-8, one newline a row): the whole file, or none of it."""
    text = "".join(json.dumps(pair.to_json(), ensure_ascii=False) + "\n" for pair in pairs)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _records(source: str | Path) -> Iterator[_Record]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.exists():
        return _from_file(path)
    hub = _HUB_NAME.fullmatch(str(source))
    if hub and not str(source).endswith(FILE_ENDINGS):
        return _from_hub(hub)
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path, or name hub data as owner/name"
    raise SeedError(f"{source}: expected a file of question-answer pairs, found nothing: {hint}")


def _from_folder(path: Path) -> Iterator[_Record]:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _from_saved(path)
    files = sorted(file for file in path.iterdir() if file.name.lower().endswith(FILE_ENDINGS))
    if not files:
        raise SeedError(f"{path}: expected a folder with data files ({_endings()}), found none: name the file itself")
    named = [file for file in files if file.name.lower().startswith("seeds.")]
    return (record for file in named or files for record in _from_file(file))


def _from_file(path: Path) -> Iterator[_Record]:
    name = path.name.lower()
    if not name.endswith(FILE_ENDINGS):
        raise SeedError(f"{path}: expected a file that ends in {_endings()}, found {path.name!r}: convert or rename it")
    try:
        if name.endswith(".parquet"):
            return iter(_from_parquet(path))
        data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SeedError(f"{path}: expected a file that can be read, found {_one_line(error)}: check it") from error
    text = _decoded(data, path)
    if name.endswith((".csv", ".tsv")):
        return _from_table(text, path)
    return _from_json(text, path) if name.endswith(".json") else _from_lines(text, path)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        other = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        raise SeedError(
            f"{path}:{line}: expected UTF-8, found byte 0x{data[error.start]:02x}: convert the file, for example "
            f"`iconv -f {other} -t UTF-8`"
        ) from error


def _from_lines(text: str, path: Path) -> Iterator[_Record]:
    # Not splitlines(), which also splits at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield str(path), number, _object(json.loads(line), path, number)
            except json.JSONDecodeError as error:
                raise SeedError(
                    f"{path}:{number}: expected one JSON object a line, found a line that is none "
                    f"({error.msg} at character {error.pos + 1}): mend the line"
                ) from error


def _from_json(text: str, path: Path) -> Iterator[_Record]:
    try:
        tree = json.loads(text.strip() or "[]")
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON Lines under the wrong ending, as hubs often have them
            yield from _from_lines(text, path)
            return
        raise SeedError(f"{path}:{error.lineno}: expected JSON, found none ({error.msg}): mend the line") from error
    rows = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        found = f"an object with {_listed(tree)}" if isinstance(tree, dict) else _kind(tree)
        raise SeedError(f'{path}: expected a list of rows or {{"data": [rows]}}, found {found}: wrap the rows in [ ]')
    for number, row in enumerate(rows, start=1):
        yield str(path), number, _object(row, path, number)


def _object(row: Any, path: Path, number: int) -> Mapping[str, Any]:
    if isinstance(row, dict):
        return row
    raise SeedError(
        f'{path}:{number}: expected an object such as {{"question": ..., "answer": ...}}, found {_kind(row)}: '
        "give each row its column names"
    )


def _from_table(text: str, path: Path) -> Iterator[_Record]:
    delimiter = "\t" if path.name.lower().endswith(".tsv") else _delimiter(text)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    last = 0
    try:
        for values in reader:
            first, last = last + 1, reader.line_num
            if not values:
                continue
            if not header:
                header = [name.strip() for name in values]
            elif len(values) == len(header):
                yield str(path), first, dict(zip(header, values, strict=True))
            else:
                raise SeedError(
                    f"{path}:{first}: expected {len(header)} values ({', '.join(header)}), found {len(values)}: "
                    f'put texts that hold {delimiter!r} or a line break in "double quotes"'
                )
    except csv.Error as error:
        raise SeedError(
            f'{path}:{last + 1}: expected values with closed "double quotes", found {error}: mend the row'
        ) from error


def _delimiter(text: str) -> str:
    """The one of , ; tab | that cuts the header into the most columns; the comma among equals."""
    header = text.split("\n", 1)[0]
    return max(",;\t|", key=header.count)


def _from_parquet(path: Path) -> list[_Record]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise SeedError(f"{path}: expected a Parquet file, found one that is none or torn: export it again") from error
    return [(str(path), number, row) for number, row in enumerate(rows, start=1)]


def _from_saved(path: Path) -> Iterator[_Record]:
    """The rows of a folder that `datasets` saved; of several splits the one called train."""
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(path))
    except Exception as error:  # datasets passes on whatever its readers raise
        raise SeedError(
            f"{path}: expected a folder that datasets saved, found {_one_line(error)}: save it again"
        ) from error
    if isinstance(data, DatasetDict):
        if "train" not in data and len(data) > 1:
            raise SeedError(
                f"{path}: expected a split called train, found {_listed(data)}: name the folder of one split"
            )
        data = data["train"] if "train" in data else next(iter(data.values()))
    return ((str(path), number, row) for number, row in enumerate(data, start=1))


def _from_hub(source: re.Match[str]) -> Iterator[_Record]:
    from datasets import load_dataset

    split = source["split"] or "train"
    try:
        data = load_dataset(source["name"], source["config"], split=split)
    except Exception as error:  # datasets passes on whatever the hub's client, its readers and its builders raise
        raise SeedError(
            f"{source[0]}: expected a file, a folder or a data set on the hub, and the hub gave none "
            f"({_one_line(error)}): check the name (owner/name:config/split) and the network, or download a file"
        ) from error
    return ((source[0], number, row) for number, row in enumerate(data, start=1))


def _dialogue_column(row: Mapping[str, Any]) -> str | None:
    return next((name for name in DIALOGUE_NAMES if isinstance(row.get(name), list)), None)


def _from_dialogue(file: str, line: int, row: Mapping[str, Any]) -> SourceRow:
    """The first question and its answer of a row with role/content or from/value turns."""
    column = _dialogue_column(row)
    turns = [_turn(turn, file, line) for turn in row[column]] if column else []
    asked = next((number for number, (role, _) in enumerate(turns) if role in _ASKS), len(turns))
    replies = [text for role, text in turns[asked:] if role in _ANSWERS]
    if not replies:
        raise SeedError(
            f"{file}:{line}: expected messages with a user and then an assistant turn, "
            f"found the roles {_listed([role for role, _ in turns])}: add the missing turn or drop the row"
        )
    notes = []
    if len(replies) > 1:
        notes.append(f"{len(replies)} exchanges, of which only the first is used: split it into rows if all matter")
    if any(role not in _ASKS | _ANSWERS for role, _ in turns):
        notes.append("a system message, which is not used: no instruction enters a prompt")
    return _row(file, line, {"question": turns[asked][1], "answer": replies[0]}, "question", "answer", tuple(notes))


def _turn(turn: Any, file: str, line: int) -> tuple[str, Any]:
    for role, text in (("role", "content"), ("from", "value")):
        if isinstance(turn, Mapping) and role in turn and text in turn:
            return str(turn[role]).lower(), turn[text]
    raise SeedError(
        f"{file}:{line}: expected turns with role and content (or from and value), found "
        f"{_listed(turn) if isinstance(turn, Mapping) else _kind(turn)}: rename them"
    )


def _find_columns(record: _Record, question: str | None, answer: str | None) -> tuple[str, str]:
    """The columns' names in this file, as asked for or under their usual names, whatever their case."""
    file, line, row = record
    return (
        _find_column(question, QUESTION_NAMES, "question", row, f"{file}:{line}"),
        _find_column(answer, ANSWER_NAMES, "answer", row, f"{file}:{line}"),
    )


def _find_column(asked: str | None, usual: Sequence[str], part: str, row: Mapping[str, Any], where: str) -> str:
    if asked is not None:
        if asked in row:
            return asked
        near = difflib.get_close_matches(asked, row, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"set columns.{part} to one of them"
        raise SeedError(f"{where}: expected a column `{asked}`, found {_listed(row)}: {hint}")
    lowered = {name.strip().lower(): name for name in row}
    for name in usual:
        if name in lowered:
            return lowered[name]
    raise SeedError(
        f"{where}: expected a column with the {part}s ({', '.join(usual)}), found {_listed(row)}: "
        f"name it with columns.{part}"
    )


def _row(
    file: str, line: int, row: Mapping[str, Any], question: str, answer: str, notes: tuple[str, ...] = ()
) -> SourceRow:
    asked, replied = (_text(row, column, f"{file}:{line}") for column in (question, answer))
    # Alpaca's form: the instruction's material stands in a column of its own.
    if question.lower() == "instruction" and (material := row.get("input")):
        asked = f"{asked}\n{_text({'input': material}, 'input', f'{file}:{line}')}"
    return SourceRow(file, line, QAPair(asked, replied), notes)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise SeedError(f"{where}: expected a column `{column}` as in the first row, found {_listed(row)}: add it")
    value = row[column]
    if not isinstance(value, str):
        raise SeedError(f"{where}: expected text in `{column}`, found {_kind(value)}: put a text there or drop the row")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise SeedError(
            f"{where}: expected Unicode text in `{column}`, found half a character (\\ud800-\\udfff): mend it"
        )
    return value.strip()


def _endings() -> str:
    return ", ".join(FILE_ENDINGS)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _kind(value: Any) -> str:
    """What a JSON value is, and the value itself where it is short."""
    kinds = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list"}
    kind = kinds.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
    shown = repr(value)
    return f"{kind} ({shown})" if value is not None and len(shown) <= 40 else kind


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
