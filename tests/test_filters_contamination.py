"""Benchmark text is found wherever a file holds it, and files that can't be read say where."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from isara.errors import ConfigError, SeedError
from isara.filters import Contamination
from isara.filters.contamination import read_texts
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.testing import HashEmbedder

DONE = Draw("", 9, "stop", "", 0)
BENCH = "What happens to you if you eat watermelon seeds by the handful?"
RUN = "to you if you eat watermelon seeds by"
EMPTY = Pool(HashEmbedder())


def asked(question: str) -> Candidate:
    return Candidate(QAPair(question, ""), DONE)


def answered(answer: str) -> Candidate:
    return Candidate(QAPair("What is true?", answer), DONE, (DONE,))


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.jsonl"
    rows = [{"q": "Is the earth flat?"}, {"q": BENCH, "targets": {"good": ["The seeds pass through.", None, 3]}}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_run_of_words_in_question_or_answer(bench: Path) -> None:
    contamination = Contamination([bench], 8)
    expected = Rejection("contamination", f"bench.jsonl row 2: {RUN}", 8)
    assert contamination(asked("What will happen to you if you eat watermelon seeds by night?"), EMPTY) == expected
    assert contamination(answered("What happened TO YOU, if you eat watermelon seeds by mistake."), EMPTY) == expected
    assert contamination(asked("What happens if you eat pumpkin seeds by the handful?"), EMPTY) is None


def test_short_texts_are_compared_whole_and_only_as_questions(bench: Path) -> None:
    contamination = Contamination([bench], 8)
    expected = Rejection("contamination", "bench.jsonl row 1: is the earth flat", 8)
    assert contamination(asked("Is the Earth flat?"), EMPTY) == expected
    assert contamination(answered("Is the Earth flat?"), EMPTY) is None
    assert contamination(asked("Is the Earth flat or round?"), EMPTY) is None
    assert contamination(asked("?"), EMPTY) is None


def test_the_length_of_a_run(bench: Path) -> None:
    near = asked("What happens to you if you eat melons?")
    assert Contamination([bench], 8)(near, EMPTY) is None
    assert Contamination([bench], 7)(near, EMPTY) == Rejection(
        "contamination", "bench.jsonl row 2: what happens to you if you eat", 7
    )


def test_turns_of_phrase_are_no_benchmark_text(tmp_path: Path) -> None:
    sorry = "I'm sorry, but I can't help with that"
    answers = [f"{sorry}, and least of all with number {number}." for number in range(11)]
    (tmp_path / "ten.txt").write_text("\n".join([*answers[:10], answers[0]]))
    (tmp_path / "eleven.txt").write_text("\n".join(answers))
    refusal = answered(f"{sorry}.")
    assert Contamination([tmp_path / "ten.txt"], 8)(refusal, EMPTY) is not None
    assert Contamination([tmp_path / "eleven.txt"], 8)(refusal, EMPTY) is None


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"q": [BENCH, "Why?"], "n": [1, 2]}), path)


@pytest.mark.parametrize(
    ("name", "write", "row"),
    [
        ("a.jsonl", lambda path: path.write_text(f'\n{{"q": "{BENCH}"}}\n'), 2),
        ("a.json", lambda path: path.write_text(json.dumps([["Why?"], {"x": {"y": [BENCH]}}])), 2),
        ("a.csv", lambda path: path.write_text(f'id,q\n1,"Why,\nwhy?"\n2,{BENCH}\n'), 2),
        ("a.tsv", lambda path: path.write_text(f"id\tq\n1\t{BENCH}\n"), 1),
        ("a.txt", lambda path: path.write_bytes(f"\ufeffWhy?\r\n{BENCH}\r\n".encode()), 2),
        ("a.md", lambda path: path.write_text(f"# Questions\n\n{BENCH}"), 3),
        ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(json.dumps({"q": BENCH}).encode())), 1),
        ("a.parquet", write_parquet, 1),
    ],
)
def test_formats(tmp_path: Path, name: str, write: Callable[[Path], object], row: int) -> None:
    write(tmp_path / name)
    assert (row, BENCH) in [(row, text.strip()) for row, text in read_texts(tmp_path / name)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "gone.txt",
            None,
            "{path}: expected a benchmark file that can be read, found: No such file or directory; check the path "
            "under `contamination`",
        ),
        (
            "latin.csv",
            "q\nGrüße\n".encode("latin-1"),
            "{path} line 2: expected UTF-8, found byte 0xfc: save the file as UTF-8",
        ),
        (
            "torn.jsonl",
            b'{"q": "Why?"}\n{"q": "Wh\n',
            "{path} line 2: expected JSON, found unterminated string starting at at column 7: mend the line, or give "
            "the file the ending .txt to compare its lines as they stand",
        ),
        (
            "torn.json",
            b'[\n"Why?"\n"How?"]',
            "{path} line 3: expected JSON, found expecting ',' delimiter at column 1: mend the line, or give the file "
            "the ending .txt to compare its lines as they stand",
        ),
        (
            "plain.gz",
            b"Why?",
            "{path}: expected a benchmark file that can be read, found: Not a gzipped file (b'Wh'); check the path "
            "under `contamination`",
        ),
        (
            "torn.parquet",
            b"Why?",
            "{path}: expected a Parquet file, found: Parquet file size is 4 bytes, smaller than the minimum file "
            "footer (8 bytes); check the path under `contamination`",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SeedError, match=f"^{re.escape(message.format(path=path))}$"):
        Contamination([path], 8)


def test_a_run_of_one_word_is_refused() -> None:
    message = "`contamination_ngram` expects 2 words or more, found 1: 8 finds copied sentences"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Contamination([], 1)
