"""Keeps benchmark text out of the training data: word n-grams in common with files that the user names."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from isara.errors import ConfigError, SeedError
from isara.files import value_hash
from isara.filters.form import newest
from isara.pool import Pool
from isara.records import Candidate, Rejection
from isara.words import ngrams, tokenize

# An n-gram in more different texts of one file than this is a turn of phrase ("I'm sorry, but I can't help with that")
# and no benchmark item; without this rule one file of model answers would drop every polite refusal.
_STOCK_PHRASE = 10


class Contamination:
    """Drops questions and answers that share a run of `contamination_ngram` words with a benchmark file.

    Benchmark texts and questions shorter than that are compared whole. A short answer is not: "I have no comment" is
    everybody's.

    Args:
        contamination: Files to keep out; see `read_texts` for the formats.
        contamination_ngram: Words in a run (characters in scripts without spaces).

    Raises:
        ConfigError: `contamination_ngram` is under 2.
        SeedError: A file can't be read.
    """

    def __init__(self, contamination: Sequence[str | Path], contamination_ngram: int) -> None:
        if contamination_ngram < 2:
            raise ConfigError(
                f"`contamination_ngram` expects 2 words or more, found {contamination_ngram}: 8 finds copied sentences"
            )
        self.contamination_ngram = contamination_ngram
        self._where: dict[str, str] = {}
        for path in contamination:
            self._take_in(Path(path))
        # What a resumed run has to find again: the texts, wherever their files lie.
        self.texts = value_hash(sorted(self._where))

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value names the file, its row and the words in common."""
        words = tokenize(newest(candidate)[0])
        for run in _runs(words, self.contamination_ngram, whole=candidate.answer is None):
            if where := self._where.get(run):
                return Rejection("contamination", f"{where}: {run}", self.contamination_ngram)
        return None

    def _take_in(self, path: Path) -> None:
        rows: dict[str, int] = {}
        texts_with: Counter[str] = Counter()
        seen: set[str] = set()
        for row, text in read_texts(path):
            words = tokenize(text)
            if " ".join(words) in seen:
                continue
            seen.add(" ".join(words))
            for run in set(_runs(words, self.contamination_ngram, whole=True)):
                rows.setdefault(run, row)
                texts_with[run] += 1
        for run, row in rows.items():
            if texts_with[run] <= _STOCK_PHRASE:
                self._where.setdefault(run, f"{path.name} row {row}")


def _runs(words: Sequence[str], n: int, whole: bool) -> Iterator[str]:
    if words and whole and len(words) < n:
        return iter((" ".join(words),))
    return ngrams(words, n)


def read_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every text in a benchmark file, with the row (from 1) where it stands.

    JSON Lines, JSON (a list), CSV and TSV (with a header) and Parquet give all their string fields, however deep; any
    other file gives its lines. A name that ends in .gz is unpacked. A row is a line, or a record of JSON, CSV, Parquet.

    Raises:
        SeedError: The file is not there, is not UTF-8, or is not what its name says.
    """
    kind = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
    for row, record in enumerate(_records(path, kind), start=1):
        for text in _strings(record):
            if text.strip():
                yield row, text


def _records(path: Path, kind: str) -> Iterator[Any]:
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    text = _read(path)
    if kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            yield _parsed(line, path, number) if line.strip() else ""
    elif kind == ".json":
        content = _parsed(text, path, 1)
        yield from content if isinstance(content, list) else [content]
    elif kind in (".csv", ".tsv"):
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter="," if kind == ".csv" else "\t")
    else:
        yield from text.split("\n")


def _read(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise SeedError(
            f"{path}: expected a benchmark file that can be read, found: {error.strerror or error}; "
            "check the path under `contamination`"
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SeedError(
            f"{path} line {line}: expected UTF-8, found byte 0x{content[error.start]:02x}: save the file as UTF-8"
        ) from error


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SeedError(
            f"{path} line {line + error.lineno - 1}: expected JSON, found {error.msg.lower()} at column {error.colno}: "
            "mend the line, or give the file the ending .txt to compare its lines as they stand"
        ) from error


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0].rpartition(f"{path}': ")[2]
        raise SeedError(
            f"{path}: expected a Parquet file, found: {reason}; check the path under `contamination`"
        ) from error
    return rows


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
