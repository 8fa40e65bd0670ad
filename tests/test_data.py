"""Pairs come in from every format under every usual name, and every bad input is answered in one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from isara.data import ANSWER_NAMES, DIALOGUE_NAMES, FILE_ENDINGS, QUESTION_NAMES, read_pairs, read_rows, write_pairs
from isara.errors import SeedError
from isara.records import QAPair

ENDINGS = ", ".join(FILE_ENDINGS)
LINK = QAPair("Who guards the Triforce of Courage?", "Link does.")
ZELDA = QAPair("Wer regiert Hyrule, „das Land“?", "Zelda: klug, ruhig\nund 海のように深い。")
ROWS = [{"question": pair.question, "answer": pair.answer} for pair in (LINK, ZELDA)]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(delimiter: str) -> str:
    quoted = [f'"{row["question"]}"{delimiter}"{row["answer"]}"' for row in ROWS]
    return "\n".join([f"question{delimiter}answer", *quoted]) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seeds.jsonl", lines(ROWS).encode()),
        ("seeds.ndjson", ("\ufeff" + lines(ROWS).replace("\n", "\r\n") + "\n \n").encode()),
        ("seeds.jsonl.gz", gzip.compress(lines(ROWS).encode())),
        ("seeds.json", json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
        ("data.json", json.dumps({"version": "2", "data": ROWS}).encode()),
        ("lines.json", lines(ROWS).encode()),
        ("seeds.csv", table(",").encode()),
        ("excel.csv", ("\ufeff" + table(";").replace("klug, ruhig", "klug, ruhig")).encode()),
        ("seeds.tsv", table("\t").encode()),
        ("SEEDS.JSONL", lines(ROWS).encode()),
    ],
)
def test_the_same_pairs_from_every_text_format(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read_pairs(tmp_path / name) == [LINK, ZELDA]
    assert read_pairs(str(tmp_path)) == [LINK, ZELDA]


def test_parquet_and_saved_folders_give_the_same_pairs(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    data.to_parquet(tmp_path / "seeds.parquet")
    data.save_to_disk(tmp_path / "saved")
    DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "splits")
    DatasetDict(only=data).save_to_disk(tmp_path / "one")

    for name in ("seeds.parquet", "saved", "splits", "one"):
        assert read_pairs(tmp_path / name) == [LINK, ZELDA], name


def test_a_folder_gives_its_seeds_file_or_else_all_its_data_files_by_name(tmp_path: Path) -> None:
    write_pairs(tmp_path / "b.jsonl", [ZELDA])
    write_pairs(tmp_path / "a.jsonl", [LINK])
    (tmp_path / "README.md").write_text("Not data.")
    assert read_pairs(tmp_path) == [LINK, ZELDA]

    write_pairs(tmp_path / "seeds.jsonl", [ZELDA])
    assert read_pairs(tmp_path) == [ZELDA]


def test_hub_names_go_to_datasets_with_config_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    for name in ("hyrule/lore", "hyrule/lore:test", "hyrule/lore:castle/train[:5%]"):
        assert [(row.file, row.line) for row in read_rows(name)] == [(name, 1), (name, 2)]
    assert asked == [
        ("hyrule/lore", None, "train"),
        ("hyrule/lore", None, "test"),
        ("hyrule/lore", "castle", "train[:5%]"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q?", "answer": "A."},
        {"id": 7, "prompt": "Q?", "response": "A."},
        {"prompt": "Q?", "completion": "A."},
        {"Question": "Q?", " Answer": "A."},
        {"instruction": "Q?", "input": "", "output": "A."},
        {"instruction": "Q?", "input": None, "output": "A."},
        {"instruction": "Q?", "response": "A."},
        {"input": "Q?", "output": "A."},
        {"query": "Q?", "answer": " A.\n"},
        {"prompt": "ignored", "messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]},
        {"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}]},
        {"conversation": [{"role": "User", "content": "Q?"}, {"role": "model", "content": "A."}]},
    ],
    ids=lambda row: "+".join(row),
)
def test_columns_are_found_under_their_usual_names(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "seeds.jsonl").write_text(lines([row]))

    assert read_pairs(tmp_path) == [QAPair("Q?", "A.")]


def test_named_columns_come_before_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,frage,answer\nWho?,Wer?,Link.\n")

    assert read_pairs(tmp_path / "faq.csv", question="frage") == [QAPair("Wer?", "Link.")]


def test_an_instructions_input_follows_on_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(lines([{"instruction": "Translate:", "input": "épée", "output": "sword"}]))

    assert read_pairs(tmp_path) == [QAPair("Translate:\népée", "sword")]


def test_of_a_dialogue_the_first_exchange_counts_and_the_rest_is_noted(tmp_path: Path) -> None:
    turns = [("system", "Be Navi."), ("user", "Q?"), ("assistant", "A."), ("user", "More?"), ("assistant", "No.")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (tmp_path / "seeds.jsonl").write_text(lines([row]))

    (found,) = read_rows(tmp_path)

    assert found.pair == QAPair("Q?", "A.")
    assert found.notes == (
        "2 exchanges, of which only the first is used: split it into rows if all matter",
        "a system message, which is not used: no instruction enters a prompt",
    )


def test_rows_know_their_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n" + lines(ROWS[:1]) + "\n" + lines(ROWS[1:]))
    (tmp_path / "b.csv").write_text('question,answer\n"two\nlines","A."\nQ?,A.\n')

    assert [row.line for row in read_rows(tmp_path / "a.jsonl")] == [2, 4]
    assert [row.line for row in read_rows(tmp_path / "b.csv")] == [2, 4]


def test_unicode_line_separators_stay_inside_their_row(tmp_path: Path) -> None:
    pair = QAPair("Two\u2028lines?", "Yes\x85indeed.")
    write_pairs(tmp_path / "seeds.jsonl", [pair])

    assert read_pairs(tmp_path / "seeds.jsonl") == [pair]


def test_written_pairs_are_plain_utf8_lines_and_nothing_is_left_aside(tmp_path: Path) -> None:
    pair = QAPair("Wer?", "海", iteration=2, demo_ids=(LINK.id,))
    write_pairs(tmp_path / "pairs.jsonl", [pair])

    expected = f'{{"id": "{pair.id}", "question": "Wer?", "answer": "海", "iteration": 2, "demo_ids": ["{LINK.id}"]}}\n'
    assert (tmp_path / "pairs.jsonl").read_bytes() == expected.encode()
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.jsonl"]
    assert QAPair.from_json(json.loads(expected)) == pair


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", [LINK])
    with pytest.raises(UnicodeEncodeError):
        write_pairs(tmp_path / "pairs.jsonl", [QAPair("\ud800", "half a character")])

    assert read_pairs(tmp_path / "pairs.jsonl") == [LINK]


GOOD = b'{"question": "Q?", "answer": "A."}\n'
BAD_FILES = {
    "empty file": ("s.jsonl", b"", "{path}: expected question-answer pairs, found none: write one JSON object a line"),
    "empty JSON": (
        "s.json",
        b" \n",
        "{path}: expected question-answer pairs, found none: write one JSON object a line",
    ),
    "header only": (
        "s.csv",
        b"question,answer\n",
        "{path}: expected question-answer pairs, found none: write one JSON object a line",
    ),
    "unknown ending": (
        "s.xlsx",
        b"PK",
        f"{{path}}: expected a file that ends in {ENDINGS}, found 's.xlsx': convert or rename it",
    ),
    "Latin-1": (
        "s.jsonl",
        GOOD + '{"question": "Épée?"}'.encode("latin1"),
        "{path}:2: expected UTF-8, found byte 0xc9: convert the file, for example `iconv -f LATIN1 -t UTF-8`",
    ),
    "UTF-16": (
        "s.csv",
        "question,answer\nQ,A".encode("utf-16"),
        "{path}:1: expected UTF-8, found byte 0xff: convert the file, for example `iconv -f UTF-16 -t UTF-8`",
    ),
    "torn line": (
        "s.jsonl",
        GOOD + b'{"question": "Q?", "ans',
        "{path}:2: expected one JSON object a line, found a line that is none "
        "(Unterminated string starting at at character 20): mend the line",
    ),
    "text instead of JSON": (
        "s.jsonl",
        b"Question: Who? Answer: Link.\n",
        "{path}:1: expected one JSON object a line, found a line that is none "
        "(Expecting value at character 1): mend the line",
    ),
    "broken JSON": (
        "s.json",
        b'[{"question": "Q?",\n "answer" "A."}]',
        "{path}:2: expected JSON, found none (Expecting ':' delimiter): mend the line",
    ),
    "JSON object without rows": (
        "s.json",
        b'{"pairs": [], "version": 2}',
        '{path}: expected a list of rows or {{"data": [rows]}}, found an object with pairs, version: '
        "wrap the rows in [ ]",
    ),
    "row is a list": (
        "s.jsonl",
        GOOD + b'["Q?", "A."]',
        '{path}:2: expected an object such as {{"question": ..., "answer": ...}}, found a list '
        "(['Q?', 'A.']): give each row its column names",
    ),
    "no question column": (
        "s.jsonl",
        b'{"text": "Q?", "answer": "A."}',
        "{path}:1: expected a column with the questions (question, prompt, instruction, query, input), "
        "found text, answer: name it with columns.question",
    ),
    "no answer column": (
        "s.csv",
        b"question,reply\nQ?,A.\n",
        "{path}:2: expected a column with the answers (answer, response, completion, output), "
        "found question, reply: name it with columns.answer",
    ),
    "column lost on the way": (
        "s.jsonl",
        GOOD + b'{"question": "Q?", "ansewr": "A."}',
        "{path}:2: expected a column `answer` as in the first row, found question, ansewr: add it",
    ),
    "null": (
        "s.jsonl",
        GOOD + b'{"question": "Q?", "answer": null}',
        "{path}:2: expected text in `answer`, found null: put a text there or drop the row",
    ),
    "number": (
        "s.json",
        b'[{"question": "Six by nine?", "answer": 42}]',
        "{path}:1: expected text in `answer`, found a number (42): put a text there or drop the row",
    ),
    "half a character": (
        "s.jsonl",
        b'{"question": "\\ud83d", "answer": "A."}',
        "{path}:1: expected Unicode text in `question`, found half a character (\\ud800-\\udfff): mend it",
    ),
    "unquoted comma": (
        "s.csv",
        b"question,answer\nWho?,Link, of course.\n",
        "{path}:2: expected 2 values (question, answer), found 3: "
        "put texts that hold ',' or a line break in \"double quotes\"",
    ),
    "unclosed quote": (
        "s.csv",
        b'question,answer\nWho?,"Link\n',
        '{path}:2: expected values with closed "double quotes", found unexpected end of data: mend the row',
    ),
    "not gzip": (
        "s.jsonl.gz",
        GOOD,
        "{path}: expected a file that can be read, found Not a gzipped file (b'{{\"'): check it",
    ),
    "no assistant turn": (
        "s.jsonl",
        b'{"messages": [{"role": "system", "content": "Be Navi."}, {"role": "user", "content": "Q?"}]}',
        "{path}:1: expected messages with a user and then an assistant turn, found the roles system, user: "
        "add the missing turn or drop the row",
    ),
    "turns without roles": (
        "s.jsonl",
        b'{"messages": [{"speaker": "Navi", "content": "Hey!"}]}',
        "{path}:1: expected turns with role and content (or from and value), found speaker, content: rename them",
    ),
    "turns that are texts": (
        "s.jsonl",
        b'{"messages": ["Hey!", "Listen!"]}',
        "{path}:1: expected turns with role and content (or from and value), found text ('Hey!'): rename them",
    ),
    "no Parquet": (
        "s.parquet",
        b"question,answer",
        "{path}: expected a Parquet file, found one that is none or torn: export it again",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_answered_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(SeedError) as caught:
        read_pairs(path)

    assert str(caught.value) == message.format(path=path)


def test_a_missing_file_is_answered_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write_pairs(tmp_path / "seeds.jsonl", [LINK])
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "seed.jsonl")
    assert str(caught.value) == (
        f"{tmp_path}/seed.jsonl: expected a file of question-answer pairs, found nothing: "
        f"did you mean {tmp_path}/seeds.jsonl?"
    )

    with pytest.raises(SeedError) as caught:
        read_pairs("/hyrule/castle/lore.csv")
    assert str(caught.value) == (
        "/hyrule/castle/lore.csv: expected a file of question-answer pairs, found nothing: "
        "check the path, or name hub data as owner/name"
    )


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a folder with data files ({ENDINGS}), found none: name the file itself"
    )


def test_saved_splits_without_a_train_split_are_refused(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    DatasetDict(dev=data, test=data).save_to_disk(tmp_path / "splits")

    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "splits")
    assert str(caught.value) == (
        f"{tmp_path}/splits: expected a split called train, found dev, test: name the folder of one split"
    )


def test_a_broken_saved_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a folder that datasets saved, found Directory {tmp_path} is neither a `Dataset` "
        "directory nor a `DatasetDict` directory.: save it again"
    )


def test_a_hub_that_cant_be_reached_is_answered_in_one_line() -> None:
    with pytest.raises(SeedError) as caught:
        read_pairs("hyrule/lore:castle/train")
    assert str(caught.value) == (
        "hyrule/lore:castle/train: expected a file, a folder or a data set on the hub, and the hub gave none "
        "(Couldn't reach 'hyrule/lore' on the Hub (OfflineModeIsEnabled)): check the name (owner/name:config/split) "
        "and the network, or download a file"
    )


@pytest.mark.parametrize(
    ("column", "hint"),
    [("frgae", "did you mean `frage`?"), ("zzz", "set columns.question to one of them")],
)
def test_a_named_column_that_is_missing(tmp_path: Path, column: str, hint: str) -> None:
    (tmp_path / "faq.csv").write_text("frage,answer\nWer?,Link.\n")
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "faq.csv", question=column)
    assert str(caught.value) == f"{tmp_path}/faq.csv:2: expected a column `{column}`, found frage, answer: {hint}"


def test_every_ending_and_column_name_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "seeds.md").read_text(encoding="utf-8")

    for name in (*FILE_ENDINGS, *QUESTION_NAMES, *ANSWER_NAMES, *DIALOGUE_NAMES):
        assert f"`{name}`" in page, name
