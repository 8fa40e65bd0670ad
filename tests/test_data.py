"""Pairs come in from every format under every usual name, and every bad input is answered in one line."""

import csv
import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from isara.data import (
    ANSWER_NAMES,
    DIALOGUE_NAMES,
    FILE_ENDINGS,
    QUESTION_NAMES,
    as_pairs,
    read_pairs,
    read_rows,
    write_pairs,
)
from isara.data.formats import ENDINGS
from isara.data.rows import HISTORY_NAMES, MATERIAL_NAMES
from isara.errors import SeedError
from isara.records import QAPair

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
        "s.docx",
        b"PK",
        f"{{path}}: expected a file that ends in {ENDINGS}, found 's.docx': convert or rename it",
    ),
    "Windows-1252": (
        "s.jsonl",
        GOOD + '{"question": "Épée?"}'.encode("latin1"),
        "{path}:2: expected UTF-8, found byte 0xc9: convert the file, for example `iconv -f WINDOWS-1252 -t UTF-8`",
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
        "found text, answer: rename it, or name it with columns.question",
    ),
    "no answer column": (
        "s.csv",
        b"question,reply\nQ?,A.\n",
        "{path}:2: expected a column with the answers (answer, response, completion, output), "
        "found question, reply: rename it, or name it with columns.answer",
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
        "hyrule/lore:castle/train: expected a file, a folder or a data set on the hub, found none "
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

    for name in (
        *[ending for ending in FILE_ENDINGS if not ending.endswith(".gz")],
        *QUESTION_NAMES, *ANSWER_NAMES, *DIALOGUE_NAMES, *MATERIAL_NAMES, *HISTORY_NAMES,
    ):  # fmt: skip
        assert f"`{name}`" in page, name


MESSAGES: dict[str, tuple[list[dict[str, Any]], QAPair, tuple[str, ...]]] = {
    "OpenAI": (
        [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "Navi."}],
        QAPair("Who are you?", "Navi."),
        (),
    ),
    "ShareGPT of two exchanges": (
        [
            {"from": "human", "value": "Where is the key?"},
            {"from": "gpt", "value": "In the chest.\r\nLook there."},
            {"from": "human", "value": "And the chest?"},
            {"from": "gpt", "value": "Behind the door."},
        ],
        QAPair("And the chest?", "Behind the door.", before=(("Where is the key?", "In the chest.\nLook there."),)),
        (),
    ),
    "system, greeting, joined turns and an open end": (
        [
            {"role": "system", "content": None},
            {"role": "assistant", "content": "Hey! Listen!"},
            {"role": "user", "content": "Wait."},
            {"role": "User", "content": "What is it?"},
            {"role": "assistant", "content": "A fairy.", "reasoning_content": "It glows."},
            {"role": "user", "content": "Oh?"},
        ],
        QAPair("Wait.\nWhat is it?", "A fairy."),
        (
            "thoughts beside an answer (reasoning_content, thinking) are not used",
            "system messages are not used, since no instruction enters a prompt",
            "turns of one speaker in a row are joined",
            "what the assistant says before the first question is not used",
            "a last question without an answer is not used",
        ),
    ),
    "parts": (
        [
            {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "sings?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Malon."}]},
        ],
        QAPair("Who\nsings?", "Malon."),
        (),
    ),
}


@pytest.mark.parametrize(("turns", "pair", "notes"), MESSAGES.values(), ids=MESSAGES)
def test_a_dialogue_is_one_pair_with_its_earlier_turns(
    tmp_path: Path, turns: list[dict[str, Any]], pair: QAPair, notes: tuple[str, ...]
) -> None:
    (tmp_path / "seeds.jsonl").write_text(lines([{"Messages": turns}]))

    (row,) = read_rows(tmp_path / "seeds.jsonl")

    assert (row.pair, row.notes) == (pair, notes)


def test_turns_that_a_table_holds_as_json(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Who, then?"}, {"role": "assistant", "content": "Saria."}]
    with (tmp_path / "chats.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(turns)]])

    assert read_pairs(tmp_path / "chats.csv") == [QAPair("Who, then?", "Saria.")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": "Q?"}], "completion": [{"role": "assistant", "content": "A."}]},
        {"prompt": [{"role": "user", "content": "Q?"}], "completion": "A."},
        {"messages": {"role": ["user", "assistant"], "content": ["Q?", "A."]}},
    ],
    ids=["conversational", "a text after turns", "lists of roles and of texts"],
)
def test_turns_in_other_places(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "seeds.jsonl").write_text(lines([row]))

    assert read_pairs(tmp_path) == [QAPair("Q?", "A.")]


TOOLS = {
    "a tool's turn": (
        {"role": "tool", "content": "42"},
        "found a turn of the role tool: rows with tools can't be used, drop them",
    ),
    "a call": (
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]},
        "found a call of a tool: rows with tools can't be used, drop them",
    ),
    "a stranger": (
        {"role": "nar\u202erator", "content": "Once."},
        "found a turn of the role 'narrator': name it user or assistant, or drop it",
    ),
}


@pytest.mark.parametrize(("turn", "found"), TOOLS.values(), ids=TOOLS)
def test_turns_of_others_are_named(tmp_path: Path, turn: dict[str, Any], found: str) -> None:
    turns = [{"role": "user", "content": "Q?"}, turn, {"role": "assistant", "content": "A."}]
    (tmp_path / "s.jsonl").write_text(lines([{"messages": turns}]))

    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "s.jsonl")

    assert str(caught.value) == f"{tmp_path}/s.jsonl:1: expected turns of a user and an assistant, {found}"


def weighed(*weights: object) -> dict[str, Any]:
    """A dialogue with a question and an answer for each weight; "none" gives no weight."""
    turns: list[dict[str, Any]] = []
    for place, weight in enumerate(weights):
        given = {} if weight == "none" else {"weight": weight}
        turns += [{"role": "user", "content": f"Q{place}?"}, {"role": "assistant", "content": f"A{place}.", **given}]
    return {"messages": turns}


def spoken(count: int, untrained: tuple[int, ...] = ()) -> QAPair:
    *before, (question, answer) = [(f"Q{place}?", f"A{place}.") for place in range(count)]
    return QAPair(question, answer, before=tuple(before), untrained=untrained)


TAIL = "what comes after the last answer with another weight than 0 is not used"


@pytest.mark.parametrize(
    ("weights", "pair", "notes"),
    [
        ((1, "none", None, 1.0), spoken(4), ()),
        ((0, 1), spoken(2, (0,)), ()),
        ((1, 0, 0, "none"), spoken(4, (1, 2)), ()),
        ((0, 1, 0), spoken(2, (0,)), (TAIL,)),
        ((1, 0, 0.0), spoken(1), (TAIL,)),
    ],
)
def test_an_answer_of_weight_0_is_shown_and_not_trained_on(
    tmp_path: Path, weights: tuple[object, ...], pair: QAPair, notes: tuple[str, ...]
) -> None:
    (tmp_path / "train.jsonl").write_text(lines([weighed(*weights)]))

    [row] = read_rows(tmp_path / "train.jsonl")

    assert (row.pair, row.notes) == (pair, notes)
    write_pairs(tmp_path / "written.jsonl", [pair])
    assert QAPair.from_json(json.loads((tmp_path / "written.jsonl").read_text())) == pair


def test_joined_answers_are_trained_on_where_none_has_the_weight_0(tmp_path: Path) -> None:
    turns = [*weighed(1)["messages"], {"role": "assistant", "content": "Or not.", "weight": 0}]
    (tmp_path / "train.jsonl").write_text(lines([weighed(1), {"messages": [*turns, *weighed(1)["messages"]]}]))

    _, joined = read_pairs(tmp_path / "train.jsonl")

    assert joined == QAPair("Q0?", "A0.", before=(("Q0?", "A0.\nOr not."),), untrained=(0,))


def test_rows_without_an_answer_to_train_on_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(lines([weighed(1), weighed(0), weighed(0, 0), weighed(1, 1)]))

    assert read_pairs(path) == [spoken(1), spoken(2)]
    path.write_text(lines([weighed(0), weighed(1)]))
    assert read_pairs(path) == [spoken(1)]

    said = [f"{path}: {count} left out, where each answer has the weight 0; the first: line {line}"
            for count, line in (("2 rows are", 2), ("1 row is", 1))]  # fmt: skip
    assert caplog.messages == said


def test_weights_of_a_history_are_its_own(tmp_path: Path) -> None:
    rows = [{"question": "Q2?", "answer": "A2.", "history": weighed(*each)["messages"]} for each in ((0, 1), (1, 0))]
    (tmp_path / "talks.jsonl").write_text(lines(rows))
    assert read_pairs(tmp_path / "talks.jsonl") == [spoken(3, (0,)), spoken(3, (1,))]
    all_shown = {"question": "Q1?", "answer": "A1.", "history": weighed(0)["messages"]}
    assert as_pairs([all_shown]) == [spoken(2, (0,))]


def test_what_is_not_trained_on_is_kept_where_a_stored_pair_is_read_again(tmp_path: Path) -> None:
    pair = spoken(3, (1,))
    assert as_pairs([pair.to_json()]) == [pair]
    write_pairs(tmp_path / "pairs.jsonl", [pair])
    assert read_pairs(tmp_path / "pairs.jsonl") == [pair]
    for wrong, said in (
        ([2], "places of earlier answers in `untrained`, below 2, found 2"),
        ([True], "a list of places"),
        ("0", "a list of places"),
    ):
        with pytest.raises(SeedError, match=f"^pairs:1: expected {said}"):
            as_pairs([{**pair.to_json(), "untrained": wrong}])


NONE_LEFT = (
    ":1: expected an answer to train on, found the weight 0 at each: give an answer that is to be learnt the weight 1, "
    "or drop the row"
)
ODD_WEIGHT = ":1: expected a weight of 0 or 1 at an assistant's turn, found {}: write 0 or 1, or leave it out"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0, 0), NONE_LEFT),
        ((0.5,), ODD_WEIGHT.format("a number (0.5)")),
        (("0",), ODD_WEIGHT.format("text ('0')")),
        ((1, [1]), ODD_WEIGHT.format("a list ([1])")),
    ],
)
def test_weights_that_no_row_can_have(tmp_path: Path, weights: tuple[object, ...], message: str) -> None:
    (tmp_path / "train.jsonl").write_text(lines([weighed(*weights)]))

    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "train.jsonl")
    assert str(caught.value) == f"{tmp_path}/train.jsonl{message}"
    with pytest.raises(SeedError) as caught:
        as_pairs([weighed(*weights)])
    assert str(caught.value) == f"pairs{message}"


def test_a_part_that_is_no_text_is_named(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
    (tmp_path / "s.jsonl").write_text(lines([{"messages": turns}]))

    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "s.jsonl")

    assert str(caught.value) == (
        f"{tmp_path}/s.jsonl:1: expected parts of text in `content`, found a part of the type image_url: only texts "
        "can be used, drop the row"
    )


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"instruction": "Who?", "context": "Ruto lives here.", "response": "Ruto."}, "Who?\nRuto lives here."),
        ({"Instruction": "Name her.", "Input": "Princess Ruto", "Output": "Ruto."}, "Name her.\nPrincess Ruto"),
        ({"question": "Who?", "passage": ["One.", "Two."], "answer": "Ruto."}, "Who?\nOne.\nTwo."),
        ({"question": "Ruto lives. Who?", "document": "Ruto lives.", "answer": "Ruto."}, "Ruto lives. Who?"),
        ({"instruction": "Who?", "input": "<noinput>", "output": "Ruto."}, "Who?"),
        ({"instruction": "Who?", "input": "NaN", "output": "Ruto."}, "Who?"),
        ({"question": "Who?", "context": float("nan"), "answer": "Ruto."}, "Who?"),
        ({"question": "Who?", "context": " \u200b", "answer": "Ruto."}, "Who?"),
    ],
)  # fmt: skip
def test_what_belongs_to_a_question_joins_it(tmp_path: Path, row: dict[str, Any], question: str) -> None:
    (tmp_path / "seeds.jsonl").write_text(lines([row]))

    (found,) = read_rows(tmp_path)

    assert (found.pair, found.notes) == (QAPair(question, "Ruto."), ())


def test_history_and_written_dialogues_come_before(tmp_path: Path) -> None:
    pair = QAPair("And now?", "Run.", before=(("Is it near?", "Very."), ("Is it big?", "Huge.")))
    write_pairs(tmp_path / "written.jsonl", [pair])
    row = {
        "instruction": "And now?",
        "output": "Run.",
        "history": [list(turn) for turn in pair.before],
        "system": "Hi.",
    }
    (tmp_path / "factory.jsonl").write_text(lines([row]))

    assert read_pairs(tmp_path / "written.jsonl") == [pair]
    (found,) = read_rows(tmp_path / "factory.jsonl")
    assert found.pair == pair
    assert found.notes == ("system messages are not used, since no instruction enters a prompt",)


def test_other_columns_of_text_are_noted_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": n, "question": f"Q{n}?", "prompt": "Say it.", "answer": "A.", "source": "web"} for n in range(3)]
    (tmp_path / "s.jsonl").write_text(lines(rows))

    assert {row.notes for row in read_rows(tmp_path / "s.jsonl")} == {("the column `prompt` is filled and not used",)}
    read_pairs(tmp_path / "s.jsonl")
    assert caplog.messages == [f"{tmp_path}/s.jsonl: the column `prompt` is filled and not used"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"question": "One\\r\\ntwo?", "answer": "A\\rB\\r\\n\\r\\nC"}\r\n'),
        ("a.csv", b'question,answer\r\n"One\r\ntwo?","A\rB\r\n\r\nC"\r\n'),
        (
            "a.json",
            b'[{"messages": [{"role": "user", "content": "One\\r\\ntwo?"},\r\n'
            b'{"role": "assistant", "content": "A\\rB\\r\\n\\r\\nC"}]}]',
        ),
    ],
)
def test_line_ends_of_every_system_are_read_alike(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read_pairs(tmp_path / name) == [QAPair("One\ntwo?", "A\nB\n\nC")]


def test_texts_have_one_kind_of_line_end_and_what_nobody_sees_is_empty(tmp_path: Path) -> None:
    rows = [{"question": "\ufeffOne\r\ntwo\rthree \u200b", "answer": "\u200b\u3164 \ufe0f"}]
    (tmp_path / "s.jsonl").write_text(lines(rows))

    assert read_pairs(tmp_path / "s.jsonl") == [QAPair("One\ntwo\nthree", "")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", b"sep=;\r\nquestion;answer\r\n;\r\nQ?;A.\r\n;;\r\n"),
        ("blank.csv", b"\n,,\n question , answer ,\nQ?,A.,\n,,\n"),
        ("mac.csv", b"question,answer\rQ?,A.\r"),
        ("quoted.csv", b'"question, all","answer"\n"Q?","A."\n'.replace(b"question, all", b"question")),
        ("semicolons.tsv", b"question;answer\nQ?;A.\n"),
        ("utf16.csv", "question,answer\nQ?,A.".encode("utf-16")),
        ("unmarked.csv", "question,answer\nQ?,A.\n".encode("utf-16-le")),
        ("unmarked.jsonl", (json.dumps({"question": "Q?", "answer": "A."}) + "\n").encode("utf-16-be")),
        ("utf32.json", json.dumps([{"question": "Q?", "answer": "A."}]).encode("utf-32")),
        ("array.jsonl", b'[{"question": "Q?", "answer": "A."}]\n'),
        ("pretty.jsonl", b'{\n  "question": "Q?",\n  "answer": "A."\n}\n'),
        ("zipped.jsonl", gzip.compress(b'{"question": "Q?", "answer": "A."}\n', mtime=0)),
        ("zipped.csv.gz", gzip.compress(b"question,answer\nQ?,A.\n", mtime=0)),
    ],
)  # fmt: skip
def test_usual_files_are_read_as_they_are_meant(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read_pairs(tmp_path / name) == [QAPair("Q?", "A.")]


def test_several_objects_over_several_lines_know_where_they_start(tmp_path: Path) -> None:
    rows = [json.dumps(row, indent=1) for row in ROWS]
    (tmp_path / "jq.jsonl").write_text("\n".join(rows))

    assert [(row.line, row.pair) for row in read_rows(tmp_path / "jq.jsonl")] == [(1, LINK), (5, ZELDA)]


def test_a_train_list_inside_an_object_is_read_and_the_rest_noted(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"version": 1, "train": ROWS, "test": ROWS}))

    rows = read_rows(tmp_path / "all.json")

    assert [row.pair for row in rows] == [LINK, ZELDA]
    assert rows[0].notes == ("of the lists in the file, `train` is read; left out: test",)


def workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_a_workbooks_first_sheet_with_rows_is_read(tmp_path: Path) -> None:
    table: list[list[Any]] = [[None, None], ["Question", "Answer", None], ["Six by nine?", 42.0], [], ["True?", True]]
    workbook(tmp_path / "faq.xlsx", {"Empty": [], "FAQ": table, "Old": [["x", "y"]]})

    rows = read_rows(tmp_path / "faq.xlsx")

    assert [(row.line, row.pair) for row in rows] == [(3, QAPair("Six by nine?", "42")), (5, QAPair("True?", "TRUE"))]
    assert rows[0].notes == ("of the sheets the first is read; left out: Old",)


def test_a_workbook_that_is_cut_or_no_workbook_is_refused(tmp_path: Path) -> None:
    workbook(tmp_path / "faq.xlsx", {"FAQ": [["question", "answer"], ["Q?", "A."]]})
    whole = (tmp_path / "faq.xlsx").read_bytes()
    (tmp_path / "cut.xlsx").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")

    for name, message in {
        "cut": "expected an Excel workbook, found one that can't be read (File is not a zip file): save it again, or "
            "as .csv",
        "other": "expected question-answer pairs, found an archive with word/document.xml: unpack it",
    }.items():  # fmt: skip
        with pytest.raises(SeedError) as caught:
            read_pairs(tmp_path / f"{name}.xlsx")
        assert str(caught.value) == f"{tmp_path}/{name}.xlsx: {message}"


def test_without_its_reader_a_workbook_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workbook(tmp_path / "faq.xlsx", {"FAQ": [["question", "answer"], ["Q?", "A."]]})
    monkeypatch.setitem(sys.modules, "openpyxl", None)

    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path / "faq.xlsx")

    assert str(caught.value) == (
        f"{tmp_path}/faq.xlsx: expected the package openpyxl for Excel workbooks, found none: `pip install openpyxl`, "
        "or save the sheet as .csv"
    )


HTML = b'\n<!DOCTYPE html>\n<html lang="en"><title>faq.jsonl</title></html>'
PAIRS = "expected question-answer pairs, found"
ODD_FILES = {
    "a pointer": ("s.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
        f"{{path}}: {PAIRS} a pointer of Git LFS: run `git lfs pull` in its folder"),
    "a web page": ("s.jsonl", HTML,
        f'{{path}}: {PAIRS} a web page: download the file itself (the link called "raw" or "download")'),
    "a zipped web page": ("s.csv.gz", gzip.compress(HTML),
        f'{{path}}: {PAIRS} a web page: download the file itself (the link called "raw" or "download")'),
    "an old workbook": ("s.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1",
        f"{{path}}: {PAIRS} an old Excel workbook: save it as .xlsx or .csv"),
    "JSON as a table": ("s.csv", b'{"question": "Q?"}',
        "{path}: expected a first line with the columns' names, found JSON: rename the file to .jsonl or .json"),
    "no header": ("s.csv", b"Who?,Link.\nWhere?,Here.\n",
        "{path}: expected a first line with the columns' names, such as question,answer, found Who?, Link.: write one "
        "above the rows, or name the columns with columns.question and columns.answer"),
    "a title above": ("s.csv", b"Our FAQ,\nquestion,answer\nQ?,A.\n",
        "{path}:1: expected a first line with the columns' names, such as question,answer, found Our FAQ: write one "
        "above the rows"),
    "a column twice": ("s.csv", b"question,answer,answer\nQ?,A.,B.\n",
        "{path}:1: expected each column once, found `answer` twice: rename or drop one of the columns"),
    "a column in two cases": ("s.jsonl", b'{"question": "Q?", "Answer": "A.", "answer": "B."}',
        "{path}:1: expected one column `answer`, found Answer, answer: say which one is meant with columns.answer"),
    "a name twice": ("s.jsonl", GOOD + b'{"question": "Q?", "answer": "A.", "answer": "B."}',
        "{path}:2: expected each name once in an object, found `answer` twice: rename or drop one"),
    "depth": ("s.jsonl", b'{"question": ' + b"[" * 100_000,
        "{path}:1: expected rows of texts, found one that is nested too deep: mend the row"),
    "digits": ("s.json", b"[" + b"9" * 5000 + b"]",
        "{path}: expected rows of texts, found a number of too many digits: mend the row"),
    "columns for rows": ("s.json", b'{"question": {"0": "Q?"}, "answer": {"0": "A."}}',
        '{path}: expected a list of rows or {{"data": [rows]}}, found an object with the columns question, answer: '
        'write a list with an object a row (in pandas, orient="records")'),
    "NUL": ("s.jsonl", b'{"question": "Q\0?", "answer": "A."}',
        "{path}:1: expected one JSON object a line, found a line that is none (Invalid control character at at "
        "character 16): mend the line"),
    "Shift-JIS": ("s.csv", "question,answer\n質問は何ですか,答えです\n".encode("shift-jis"),
        "{path}:2: expected UTF-8, found byte 0x8e: save it as UTF-8 with the program that wrote it"),
    "one bad byte": ("s.csv", "question,answer\nÜber was? Über wen?,Là".encode() + b"\xff\n",
        "{path}:2: expected UTF-8, found byte 0xff in a file that else is UTF-8: mend the character"),
    "a cut character": ("s.csv", "question,answer\nQ?,Épé".encode()[:-1],
        "{path}:2: expected UTF-8, found a character that is cut off at the end: take another copy of the file"),
    "torn UTF-16": ("s.csv", "question,answer\nQ?,A.".encode("utf-16")[:-1],
        "{path}: expected UTF-16 as its first bytes say, found bytes that are none (truncated data): save it again as "
        "UTF-8"),
    "messages that are none": ("s.jsonl", b'{"messages": "user: Q?"}',
        "{path}:1: expected a column with the questions (question, prompt, instruction, query, input), found messages: "
        "rename it, or name it with columns.question"),
    "escape sequences": ("s.jsonl", b'{"\\u001b[31mred\\u202e": 1, "answer": "A."}',
        "{path}:1: expected a column with the questions (question, prompt, instruction, query, input), found [31mred, "
        "answer: rename it, or name it with columns.question"),
    "history of another kind": ("s.jsonl", b'{"question": "Q?", "answer": "A.", "history": "before that"}',
        "{path}:1: expected earlier turns in `history` such as [[question, answer]], found text ('before that'): write "
        "them so or drop the column"),
    "a torn gzip": ("s.jsonl.gz", gzip.compress(GOOD)[:-12],
        "{path}: expected a file that can be read, found Compressed file ended before the end-of-stream marker was "
        "reached: check it"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), ODD_FILES.values(), ids=ODD_FILES)
def test_odd_files_are_named_truly(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    test_bad_files_are_answered_in_one_line(tmp_path, name, content, message)


def test_limits_are_said_before_memory_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 3_000_000))
    (tmp_path / "long.jsonl").write_text(lines([{"question": "Q" * 1_000_001, "answer": "A."}]))
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * 3_000_000)
    repeated = Dataset.from_list([{"question": "Q?" * 10_000, "answer": "A."}] * 200)
    repeated.to_parquet(tmp_path / "bomb.parquet")
    monkeypatch.setattr("isara.data.formats.MOST_BYTES", 2_000_000)

    for name, message in {
        "bomb.parquet": "bomb.parquet: expected at most 2 MB of pairs, found more: take a part of the rows",
        "bomb.jsonl.gz": "bomb.jsonl.gz: expected at most 2 MB of pairs, found more: take a part of the rows",
        "bomb.xlsx": "bomb.xlsx: expected at most 2 MB of pairs, found more: take a part of the rows",
        "long.jsonl": "long.jsonl:1: expected at most 1,000,000 characters in `question`, found 1,000,001: cut the "
        "text or drop the row",
    }.items():
        with pytest.raises(SeedError) as caught:
            read_pairs(tmp_path / name)
        assert str(caught.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize(
    ("names", "read", "note"),
    [
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], "train.jsonl is read; left out: test.jsonl"),
        (
            ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/validation-00000.jsonl"],
            ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
            "train-00000-of-00002.jsonl, train-00001-of-00002.jsonl is read; left out: validation-00000.jsonl",
        ),
        (["faq.jsonl", "held_out.jsonl"], ["faq.jsonl"], "faq.jsonl is read; left out: held_out.jsonl"),
        (["test.jsonl"], ["test.jsonl"], None),
        (["faq.jsonl", "._faq.jsonl", ".hidden.json", "dataset_infos.json", "~$faq.xlsx"], ["faq.jsonl"], None),
        (["testimonials.jsonl", "contest.jsonl"], ["contest.jsonl", "testimonials.jsonl"], None),
        (["seeds.jsonl", "heldout.jsonl", "train.jsonl"], ["seeds.jsonl"], None),
    ],
)
def test_of_a_folder_what_is_meant_is_read(tmp_path: Path, names: list[str], read: list[str], note: str | None) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name[0].isalpha() and not name.startswith("dataset"):
            write_pairs(tmp_path / name, [QAPair(name, "A.")])
        else:
            (tmp_path / name).write_bytes(b"\0\x05\x16\x07")

    rows = read_rows(tmp_path)

    assert [row.pair.question for row in rows] == read
    assert rows[0].notes == ((f"of {tmp_path} {note}",) if note else ())


def test_splits_without_train_and_data_further_below_are_named(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    write_pairs(tmp_path / "en" / "faq.jsonl", [LINK])
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a folder with data files ({ENDINGS}), found none but en/faq.jsonl below it: "
        "name the file itself"
    )

    write_pairs(tmp_path / "dev.jsonl", [LINK])
    write_pairs(tmp_path / "test.jsonl", [LINK])
    with pytest.raises(SeedError) as caught:
        read_pairs(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a train split, found dev.jsonl, test.jsonl: name the file that is meant"
    )


def test_saved_splits_that_are_left_out_are_noted(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    DatasetDict(train=data, test=data).save_to_disk(tmp_path / "splits")

    assert [row.notes for row in read_rows(tmp_path / "splits")] == [
        ("of the splits train is read; left out: test",),
        (),
    ]


def test_paths_that_no_system_has_are_answered_in_one_line() -> None:
    with pytest.raises(SeedError) as caught:
        read_pairs("a" * 300)
    assert str(caught.value) == (
        f"{'a' * 300}: expected a file of question-answer pairs, found File name too long: check the path"
    )
    with pytest.raises(SeedError) as caught:
        read_pairs("\x1b[2Ja\0b.jsonl")
    assert str(caught.value) == (
        "[2Jab.jsonl: expected a file of question-answer pairs, found nothing: check the path, or name hub data as "
        "owner/name"
    )


def test_given_pairs_may_be_rows_of_any_form() -> None:
    given: list[QAPair | dict[str, Any]] = [
        LINK,
        {"question": "Q?", "answer": "A.\r\n"},
        {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]},
    ]

    assert as_pairs(given) == [LINK, QAPair("Q?", "A."), QAPair("Q?", "A.")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([LINK, "Q?"], 'pairs:2: expected a QAPair or {"question": ..., "answer": ...}, found text (\'Q?\'): give '
            "question and answer their names"),
        ([{"question": "Q?", "reply": "A."}], "pairs:1: expected a column with the answers (answer, response, "
            "completion, output), found question, reply: rename it, or name it with columns.answer"),
        ("seeds.jsonl", "expected a list of pairs, found text ('seeds.jsonl'): read a file with `read_pairs`"),
        (7, "expected a list of pairs, found a number (7): read a file with `read_pairs`"),
        ([{"question": 10**5000, "answer": "A."}], "pairs:1: expected text in `question`, found a number: put a text "
            "there or drop the row"),
    ],
)  # fmt: skip
def test_given_pairs_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(SeedError) as caught:
        as_pairs(given)
    assert str(caught.value) == message
