"""What the lint says of seed pairs, and how pairs are held out."""

import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from isara.config import Config, load_config
from isara.data import SourceRow, write_pairs
from isara.errors import ModelError, SeedError
from isara.records import QAPair
from isara.seeds import Problem, check_overlap, lint, load_seeds, split_heldout, unique
from isara.words import rouge_l, tokenize

TOPICS = (
    "bread ferry winter lamp violin garden tax cheese bicycle letter roof fever harbour chess passport soap kite rent "
    "onion thunder"
).split()


def pair(topic: str) -> QAPair:
    """A pair whose question shares no word with another topic's."""
    return QAPair(f"{topic}-what {topic}-is {topic}-this?", f"It is about {topic}.")


def rows(*pairs: QAPair, file: str = "seeds.jsonl") -> list[SourceRow]:
    return [SourceRow(file, number, pair) for number, pair in enumerate(pairs, start=1)]


def said(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(problem.severity, str(problem)) for problem in problems]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


PAIRS = [pair(topic) for topic in TOPICS]
FINE = QAPair("Who guards the Triforce of Courage?", "Link does.")


def test_good_pairs_have_no_problems() -> None:
    assert lint(rows(*PAIRS), demos_needed=8, heldout=0.2, count_tokens=words, max_tokens=50) == []


@pytest.mark.parametrize(
    ("bad", "severity", "message"),
    [
        (QAPair("", "Link."), "error", "the question is empty: write one or drop the row"),
        (QAPair("Who?", ""), "error", "the answer is empty: write one or drop the row"),
        (QAPair("Who?", "Who?"), "error", "question and answer are the same: write the answer"),
        (QAPair("Who\x07?", "Link."), "error", "the question holds the character U+0007: take it out"),
        (QAPair("Who?", "Ganon\ufffd"), "error", "the answer holds the character U+FFFD: take it out"),
        (
            QAPair("Question: who?", "Link."),
            "warning",
            "the question starts with 'Question:', which prompts write themselves: take it out",
        ),
        (
            QAPair("Who?", " a: Link."),
            "warning",
            "the answer starts with 'a:', which prompts write themselves: take it out",
        ),
        (
            QAPair("Who?", "Link.\n\nQuestion: And who else?"),
            "warning",
            "a line of the answer starts with 'Question:', where generated texts end: reword it",
        ),
        (
            QAPair("Who?", "Link, " * 30),
            "error",
            "the pair has 33 tokens and at most 20 fit (the model's context or train.max_length): shorten it, or raise "
            "train.max_length if the model allows",
        ),
    ],
)
def test_what_is_wrong_with_one_pair(bad: QAPair, severity: str, message: str) -> None:
    problems = lint(rows(*PAIRS, bad), demos_needed=8, count_tokens=words, max_tokens=20)

    assert said(problems) == [(severity, f"seeds.jsonl:{len(PAIRS) + 1}: {message}")]


def test_tabs_and_line_breaks_are_no_problem() -> None:
    assert lint(rows(*PAIRS, QAPair("Which\tone?", "This:\r\n- Link")), demos_needed=8) == []


def test_what_the_reader_noted_becomes_a_warning() -> None:
    noted = SourceRow("seeds.jsonl", 99, FINE, ("a system message, which is not used",))

    assert said(lint([*rows(*PAIRS), noted], demos_needed=8)) == [
        ("warning", "seeds.jsonl:99: a system message, which is not used")
    ]


def test_an_exact_duplicate_is_a_warning_and_used_once() -> None:
    found = rows(FINE, *PAIRS, FINE)

    assert said(lint(found, demos_needed=8)) == [
        ("warning", "seeds.jsonl:22: the same pair as in line 1: it is used once")
    ]
    assert unique(found) == found[:-1]


def test_a_near_duplicate_question_names_the_other_line_and_the_score() -> None:
    again = QAPair("Who guards the Triforce of Wisdom?", "Zelda does.")
    elsewhere = SourceRow("more.csv", 7, QAPair("WHO guards the Triforce of courage", "He does."))

    assert said(lint([*rows(FINE, *PAIRS, again), elsewhere], demos_needed=8)) == [
        ("warning", "more.csv:7: the question is near that of seeds.jsonl:1 (ROUGE-L 1.00): vary it or drop one"),
        ("warning", "seeds.jsonl:22: the question is near that of line 1 (ROUGE-L 0.83): vary it or drop one"),
    ]


def test_seven_of_ten_words_is_near_and_one_word_less_is_not() -> None:
    ten = "one two three four five six seven eight nine ten"
    tie = "one two three four five six seven a b c"
    below = "one two three four five six x a b c"
    assert rouge_l(tokenize(ten), tokenize(tie)) == 0.7

    assert len(lint(rows(*PAIRS, QAPair(ten, "A."), QAPair(tie, "B.")), demos_needed=8)) == 1
    assert lint(rows(*PAIRS, QAPair(ten, "A."), QAPair(below, "B.")), demos_needed=8) == []


@pytest.mark.parametrize(
    ("count", "share", "severity", "message"),
    [
        (
            5,
            0.0,
            "error",
            "expected at least 8 different seed pairs, as many as a prompt shows, found 5: add pairs, or lower "
            "questions.demos, answers.demos or heldout",
        ),
        (
            9,
            0.2,
            "error",
            "expected at least 8 different seed pairs, as many as a prompt shows, found 7 (9 less 2 held out): add "
            "pairs, or lower questions.demos, answers.demos or heldout",
        ),
        (9, 0.0, "warning", "only 9 seed pairs: 30 to 100 make for more varied questions"),
    ],
)
def test_too_few_pairs(count: int, share: float, severity: str, message: str) -> None:
    found = rows(*PAIRS[:count], PAIRS[0])  # a duplicate adds nothing

    assert said(lint(found, demos_needed=8, heldout=share))[-1] == (severity, f"seeds.jsonl: {message}")


def test_problems_come_in_the_order_of_lines() -> None:
    found = rows(QAPair("", "A."), FINE, FINE, QAPair("Q?", ""))

    assert [problem.line for problem in lint(found, demos_needed=8)] == [1, 3, 4, None]


def test_the_split_has_the_size_asked_for_and_keeps_the_order() -> None:
    seeds, heldout = split_heldout(PAIRS, 0.2, seed=0)

    assert len(heldout) == 4
    assert sorted([*seeds, *heldout], key=PAIRS.index) == PAIRS
    assert seeds == sorted(seeds, key=PAIRS.index)
    assert heldout == sorted(heldout, key=PAIRS.index)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    chosen = {pair.id for pair in split_heldout(PAIRS, 0.2, seed=0)[1]}

    assert chosen == {pair.id for pair in split_heldout(PAIRS[::-1], 0.2, seed=0)[1]}
    assert chosen != {pair.id for pair in split_heldout(PAIRS, 0.2, seed=1)[1]}


def test_a_new_row_moves_at_most_itself_and_one_other() -> None:
    before = {pair.id for pair in split_heldout(PAIRS, 0.2, seed=0)[1]}
    for number in range(50):
        new = QAPair(f"New question {number}?", "Yes.")
        after = {pair.id for pair in split_heldout([new, *PAIRS], 0.2, seed=0)[1]}
        assert len((before ^ after) - {new.id}) <= 1


@pytest.mark.parametrize(("share", "sizes"), [(0.0, (3, 0)), (0.01, (2, 1)), (0.99, (1, 2))])
def test_at_least_one_pair_on_each_side(share: float, sizes: tuple[int, int]) -> None:
    seeds, heldout = split_heldout(PAIRS[:3], share, seed=0)

    assert (len(seeds), len(heldout)) == sizes


def test_one_pair_cant_be_split() -> None:
    with pytest.raises(SeedError) as caught:
        split_heldout(PAIRS[:1], 0.2, seed=0)
    assert str(caught.value) == "expected at least 2 pairs to hold some out, found 1: add pairs or set heldout=0"


def test_overlap_names_both_places() -> None:
    near = QAPair("Who guards the Triforce of Wisdom?", "Zelda does.")

    assert said(check_overlap(rows(FINE, *PAIRS), rows(PAIRS[3], near, pair("island"), file="heldout.csv"))) == [
        ("error", "heldout.csv:1: this held-out pair is the seed pair of seeds.jsonl:5: take it out of one of them"),
        (
            "warning",
            "heldout.csv:2: the question of this held-out pair is near the seed question of seeds.jsonl:1 "
            "(ROUGE-L 0.83): hold out another pair for a stricter test",
        ),
    ]


def config(folder: Path, pairs: Sequence[QAPair], *overrides: str) -> Config:
    write_pairs(folder / "seeds.jsonl", pairs)
    (folder / "isara.yaml").touch()
    return load_config(folder, overrides)


def test_load_seeds_splits_by_share(tmp_path: Path, tiny_llama: Path) -> None:
    seeds, heldout = load_seeds(config(tmp_path, [*PAIRS, PAIRS[0]]), str(tiny_llama))

    assert (seeds, heldout) == split_heldout(PAIRS, 0.2, seed=0)


def test_load_seeds_takes_a_file_of_held_out_pairs_and_logs_warnings(
    tmp_path: Path, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    near = QAPair("Who guards the Triforce of Wisdom?", "Zelda does.")
    write_pairs(tmp_path / "heldout.jsonl", [near])
    settings = config(tmp_path, [FINE, *PAIRS], f"heldout={tmp_path / 'heldout.jsonl'}")

    with caplog.at_level(logging.WARNING, logger="isara"):
        assert load_seeds(settings, str(tiny_llama)) == ([FINE, *PAIRS], [near])

    assert caplog.messages == [
        f"{tmp_path}/heldout.jsonl:1: the question of this held-out pair is near the seed question of "
        f"{tmp_path}/seeds.jsonl:1 (ROUGE-L 0.83): hold out another pair for a stricter test"
    ]


def test_load_seeds_logs_ten_warnings_and_counts_the_rest(
    tmp_path: Path, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="isara"):
        load_seeds(config(tmp_path, [*PAIRS, *PAIRS[:13]]), str(tiny_llama))

    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "3 more warnings about the pairs; `isara.seeds.lint` gives them all"


def test_load_seeds_raises_the_first_error_and_counts_the_rest(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(SeedError) as caught:
        load_seeds(config(tmp_path, [*PAIRS, QAPair("Who?", ""), QAPair("", "Link.")]), str(tiny_llama))

    assert str(caught.value) == (
        f"{tmp_path}/seeds.jsonl:21: the answer is empty: write one or drop the row (and 1 more)"
    )


def test_load_seeds_counts_tokens_as_the_model_does(tmp_path: Path, tiny_llama: Path) -> None:
    from transformers import AutoTokenizer

    long = QAPair("How long is the song?", "la " * 400)
    settings = config(tmp_path, [*PAIRS, long], "train.max_length=300")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokens = len(tokenizer(f"Question: {long.question}\nAnswer: {long.answer.strip()}")["input_ids"])

    with pytest.raises(SeedError) as caught:
        load_seeds(settings, str(tiny_llama))

    assert str(caught.value) == (
        f"{tmp_path}/seeds.jsonl:21: the pair has {tokens} tokens and at most 300 fit (the model's context or "
        "train.max_length): shorten it, or raise train.max_length if the model allows"
    )


def test_the_models_context_bounds_pairs_where_it_is_the_shorter(tmp_path: Path, tiny_llama: Path) -> None:
    context = json.loads((tiny_llama / "config.json").read_text())["max_position_embeddings"]
    settings = config(tmp_path, [*PAIRS, QAPair("How long?", "la " * 2000)], "train.max_length=100000")

    with pytest.raises(SeedError, match=f"and at most {context} fit"):
        load_seeds(settings, str(tiny_llama))


def test_a_model_whose_config_is_no_config_is_answered_in_one_line(tmp_path: Path, tiny_llama: Path) -> None:
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    (broken / "config.json").write_text("[]")

    with pytest.raises(ModelError) as caught:
        load_seeds(config(tmp_path, PAIRS), str(broken))

    assert re.fullmatch(
        rf"the model '{broken}' can't be loaded \([^\n]{{1,200}}\): check its config.json, tokenizer and weights, or "
        "copy or download it again",
        str(caught.value),
    )
