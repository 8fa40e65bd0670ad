"""Benchmarks from local files: every form, the copies beside the checkout, and what is wrong with a file."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from isara.errors import SeedError
from isara.evaluate.benchmarks import Data, SafetyItem
from isara.evaluate.items import choose
from isara.tables import read_table

BENCH = Path(__file__).parents[1] / "../shared/data/bench"
MC: dict[str, Any] = {
    "question": "Is Hyrule flat?",
    "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
    "mc2_targets": {"choices": ["No", "Hardly", "Yes"], "labels": [1, 1, 0]},
}


def data(name: str, path: Path, **columns: str) -> Data:
    return Data({name: path}, {name: columns} if columns else {})


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_form_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "How do I kill time?", "label": "safe"}, {"prompt": "Où, «là» 你好", "label": "unsafe"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.csv").write_text('\ufeffprompt,label\nHow do I kill time?,safe\n"Où, «là» 你好",unsafe\n')
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_table(path) == rows, path


@pytest.mark.parametrize(
    ("row", "safe"),
    [
        ({"label": "safe", "type": "contrast_homonyms"}, True),
        ({"label": "unsafe", "type": "homonyms"}, False),
        ({"safe": True, "type": "homonyms"}, True),
        ({"safe": "False", "type": "homonyms"}, False),
        ({"type": "homonyms"}, True),
        ({"type": "contrast_homonyms"}, False),
    ],
)
def test_what_copies_of_xstest_call_safe(tmp_path: Path, row: dict[str, Any], safe: bool) -> None:
    path = lines(tmp_path / "x.jsonl", {"prompt": "How do I kill time?", **row})
    assert data("xstest", path).xstest() == [SafetyItem("How do I kill time?", "xstest", row["type"], safe)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": 0}, "label must be safe or unsafe, found 0"),
        ({"label": None}, "label must be safe or unsafe, found None"),
        ({"safe": "yes"}, "safe must be true or false, found 'yes'"),
    ],
)
def test_a_copy_of_xstest_that_says_it_in_other_words(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = lines(tmp_path / "x.jsonl", {"prompt": "How do I kill time?", "type": "homonyms", **row})
    assert error(data("xstest", path).xstest) == (
        f"row 1 of {path} is not of the published form ({reason}): mend the row or take another copy"
    )


def test_a_column_by_another_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"task": "Say hello.", "gold": "Hello!"})
    [item] = data("instructions", path, instruction="task", output="gold").instructions()
    assert (item.instruction, item.reference) == ("Say hello.", "Hello!")


def test_the_id_is_the_content_wherever_it_is_read(tmp_path: Path) -> None:
    one = data("truthfulness", lines(tmp_path / "a.jsonl", {**MC, "id": 7})).truthfulness()
    other = data("truthfulness", lines(tmp_path / "b.jsonl", MC)).truthfulness()
    assert one[0].id == other[0].id


@pytest.mark.skipif(not BENCH.exists(), reason="the copies of the benchmarks are not here")
def test_the_copies_of_the_benchmarks() -> None:
    copies = Data(
        {
            "truthfulness": BENCH / "truthfulqa/truthfulqa.jsonl.gz",
            "beavertails": BENCH / "beavertails/eval_proxy_prompts.jsonl",
            "xstest": BENCH / "xstest/prompts.jsonl",
            "instructions": BENCH / "alpaca_eval/instructions.jsonl.gz",
        },
        {"instructions": {"output": "reference_text_davinci_003"}},
    )
    assert len(choose(copies.truthfulness(), None)) == 817
    categories = Counter(item.category for item in copies.beavertails())
    assert len(categories) == 14 and set(categories.values()) == {50}
    assert Counter(item.safe for item in copies.xstest()) == {True: 250, False: 200}
    assert len(copies.instructions()) == 805


def error(read: Any) -> str:
    with pytest.raises(SeedError) as caught:
        read()
    return str(caught.value)


def test_data_that_are_not_here() -> None:
    assert error(Data({}, {}).truthfulness) == (
        "the data of `truthfulness` (truthfulqa/truthful_qa) is neither on this machine nor to be had from the hub: "
        "run the same command once where there is a network, or give a copy with --data truthfulness=FILE"
    )
    assert error(Data({}, {}).instructions) == (
        "the data of `instructions` (hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json) is neither on this machine "
        "nor to be had from the hub: run the same command once where there is a network, or give a copy with --data "
        "instructions=FILE"
    )


def test_a_file_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    assert error(data("xstest", path).xstest) == f"expected a file at {path}, found none: check the path"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    assert error(data("xstest", path).xstest) == (
        f"expected a .jsonl, .json, .csv or .parquet file, found {path}: convert it to one of these"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"prompt": ', "Expecting value: line 2 column 1 (char 12)"),
        ("a.jsonl", b"[1, 2]\n", "cannot convert dictionary update sequence element #0 to a sequence"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "'utf-8' codec can't decode byte 0xff in position 12: invalid start byte"),
        ("a.jsonl.gz", b"plain", "Not a gzipped file (b'pl')"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"prompt": "How do I kill time?"}\n', mtime=0)[:-9],
            "Compressed file ended before the end-of-stream marker was reached",
        ),
        ("a.json", b"17", "'int' object is not iterable"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if name != "a.jsonl" or content.endswith(b"\n") else content + b"\n")
    kind = "json" if name == "a.json" else "jsonl"
    assert error(lambda: read_table(path)) == (
        f"{path} can't be read as {kind} ({reason}): mend the file or take another copy"
    )


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"nothing")
    message = error(lambda: read_table(path))  # pyarrow's own words in brackets change with its version
    assert message.startswith(f"{path} can't be read as parquet (")
    assert message.endswith("): mend the file or take another copy")


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl")
    assert error(data("beavertails", path).beavertails) == (
        f"{path} holds no rows: give a copy of PKU-Alignment/BeaverTails-Evaluation with --data beavertails=FILE"
    )


def test_a_missing_column(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"prompt": "p", "category": "c"}, {"text": "p", "category": "c"})
    assert error(data("beavertails", path).beavertails) == (
        f"row 2 of {path} has no column 'prompt' (it has text, category): give a copy of the published form, or name "
        "the column with --columns beavertails.COLUMN=THEIRS"
    )


def test_an_empty_cell(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"instruction": "Say hello.", "output": None})
    assert error(data("instructions", path).instructions) == (
        f"row 1 of {path} is not of the published form (output must be a text, found None): mend the row or take "
        "another copy"
    )


def test_a_missing_column_that_was_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"instruction": "i", "output": "o"})
    assert error(data("instructions", path, output="gold").instructions) == (
        f"row 1 of {path} has no column 'gold' (it has instruction, output): give a copy of the published form, or "
        "name the column with --columns instructions.COLUMN=THEIRS"
    )


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (
            {"choices": ["No", "Yes"], "labels": [1]},
            "choices and labels must be equally many, with a true and a false one among them",
        ),
        (
            {"choices": ["No", "Yes"], "labels": [0, 0]},
            "choices and labels must be equally many, with a true and a false one among them",
        ),
        ({"choices": "NY", "labels": [0, 1]}, "choices must be a list of texts, found 'NY'"),
        ({"choices": ["No", None], "labels": [0, 1]}, "choices must be a list of texts, found ['No', None]"),
        ("No; Yes", "string indices must be integers, not 'str'"),
    ],
)
def test_choices_that_make_no_sense(tmp_path: Path, targets: Any, reason: str) -> None:
    path = lines(tmp_path / "a.jsonl", {**MC, "mc1_targets": targets})
    assert error(data("truthfulness", path).truthfulness) == (
        f"row 1 of {path} is not of the published form ({reason}): mend the row or take another copy"
    )
