"""What the lint says of seed pairs, and how pairs are held out."""

import logging
import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from isara.config import Config, load_config
from isara.data import SourceRow, write_pairs
from isara.errors import ModelError, SeedError
from isara.filters import RunOn
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair
from isara.render import open_renderer, plain_format
from isara.rouge import RougeIndex
from isara.seeds import (
    Problem,
    check_heldout,
    check_overlap,
    lint,
    load_pairs,
    load_seeds,
    split_heldout,
    unique,
)
from isara.seeds.checks import NEAR
from isara.seeds.heldout import name_strange
from isara.testing import HashEmbedder, word_renderer
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


def limits(*overrides: str) -> Config:
    """A config whose limits word_renderer's words are held against; its filters ask for no length."""
    none = ["filters.min_question_tokens=null", "filters.min_answer_tokens=null"]
    return load_config(None, [*none, *overrides], seeds="seeds.jsonl")


PAIRS = [pair(topic) for topic in TOPICS]
FINE = QAPair("Who guards the Triforce of Courage?", "Link does.")


def test_good_pairs_have_no_problems() -> None:
    assert lint(rows(*PAIRS), demos_needed=8, heldout=0.2, renderer=word_renderer(), config=limits()) == []


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
            "the answer holds 'Question:', where generated texts end or are dropped (run_on): reword it",
        ),
        (
            QAPair("Tell me.", "Thanks!\nUser: and the sword?"),
            "warning",
            "the answer holds 'User:', where generated texts end or are dropped (run_on): reword it",
        ),
        (
            QAPair("What does <|im_end|> do?", "It ends a turn."),
            "error",
            "the question holds '<|im_end|>', which models read as a control token and not as text: reword it",
        ),
        (
            QAPair("What closes a text?", "Often </s> does."),
            "error",
            "the answer holds '</s>', which models read as a control token and not as text: reword it",
        ),
        (
            QAPair("Who?", "<think>\nWho indeed.\n</think>\n\nLink."),
            "warning",
            "the answer holds '<think>': thoughts are shown and trained on as a part of the answer; take them out if "
            "the model is not to write them",
        ),
        (
            QAPair("Who?", "Li\u200bnk."),
            "warning",
            "the answer holds the invisible character U+200B, and models see it: take it out",
        ),
        (QAPair("Who \u202ekniL si?", "Link."), "error", "the question holds the character U+202E: take it out"),
        (
            QAPair("And then?", "Run.", before=(("", "Wait."),)),
            "error",
            "an earlier question is empty: write one or drop the row",
        ),
        (
            QAPair("Who?", "Link, " * 30),
            "error",
            "the pair has 34 tokens and at most 20 fit (the model's context or train.max_length): shorten it, or raise "
            "train.max_length if the model allows",
        ),
    ],
)
def test_what_is_wrong_with_one_pair(bad: QAPair, severity: str, message: str) -> None:
    settings = limits("train.max_length=20", "answers.max_new_tokens=100")
    problems = lint(rows(*PAIRS, bad), demos_needed=8, renderer=word_renderer(), config=settings)

    assert said(problems) == [(severity, f"seeds.jsonl:{len(PAIRS) + 1}: {message}")]


def test_html_is_no_control_token_of_a_model_that_has_none_of_it() -> None:
    struck = QAPair("How do I strike a word through?", "Write <s> before it.")
    other = word_renderer(fmt=plain_format("<|endoftext|>"))

    (problem,) = lint(rows(*PAIRS, struck), demos_needed=8, renderer=other)

    assert problem.severity == "warning"
    assert problem.message == "the answer holds '<s>', where generated texts end or are dropped (run_on): reword it"


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        ("<think>Hm.</think>Link.", "<think>"),
        ("<thinking>\nHm.\n</thinking>\n\nLink.", "<thinking>"),
        ("Hm.\n</think>\nLink.", "</think>"),
    ],
)
def test_thoughts_behind_a_template_that_writes_empty_ones_are_an_error(answer: str, mark: str) -> None:
    thinks = replace(plain_format("</s>"), before_last="<think>\n\n</think>\n\n")
    bad = QAPair("Who?", answer)

    assert said(lint(rows(*PAIRS, bad), demos_needed=8, renderer=word_renderer(fmt=thinks))) == [
        (
            "error",
            f"seeds.jsonl:21: the answer holds {mark!r}, and the model's chat template writes an empty thought before "
            "every answer: take the thoughts out",
        )
    ]


def test_every_mark_that_drops_a_generated_text_is_named_in_a_seed() -> None:
    for text in ("Yes.\nassistant", "So:\n### Response", "[INST] so", "Yes.\nHuman : no", "MarchQuestion: so"):
        answered = QAPair("Who was it again?", text)
        candidate = Candidate(answered, Draw("", 1, "stop", "", 0), (Draw(text, 1, "stop", "", 0),))
        assert RunOn()(candidate, Pool(HashEmbedder())) is not None
        assert len(lint(rows(*PAIRS, answered), demos_needed=8)) == 1, text


def test_a_warning_that_many_rows_share_is_said_once() -> None:
    noted = [replace(row, notes=("system messages are not used",)) for row in rows(*PAIRS)]

    assert said(lint(noted, demos_needed=8)) == [
        ("warning", "seeds.jsonl:1: system messages are not used (and in 19 more rows)")
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "answers.max_new_tokens=8",
            "answers with more tokens than answers.max_new_tokens allows (8, the stop included): 2 of 22, the longest "
            "with 13 (line 21); none of that length can be generated and kept: raise it",
        ),
        (
            "filters.max_question_tokens=6",
            "questions with more tokens than filters.max_question_tokens allows (6, the stop included): 1 of 22, the "
            "longest with 8 (line 22); none of that length can be generated and kept: raise it",
        ),
        (
            "filters.min_question_tokens=3",
            "questions with fewer tokens than filters.min_question_tokens asks for (3, the stop included): 1 of 22, "
            "the shortest with 2 (line 21); none of that length is kept: lower it",
        ),
    ],
)
def test_settings_that_the_seeds_themselves_would_not_pass(setting: str, message: str) -> None:
    long = QAPair("How?", "You go on and on until you reach the lake, then rest.")
    longer = QAPair("May I fish in the lake today?", "Yes, but only where nobody else swims, please.")
    found = rows(*PAIRS, long, longer)

    assert said(lint(found, demos_needed=8, renderer=word_renderer(), config=limits(setting))) == [
        ("warning", f"seeds.jsonl: {message}")
    ]
    assert lint(found, demos_needed=0, renderer=word_renderer(), config=limits(setting)) == [], "no seeds"


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


def test_load_seeds_splits_by_share_and_says_that_few_are_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="isara"):
        seeds, heldout = load_seeds(config(tmp_path, [*PAIRS, PAIRS[0]]), word_renderer())

    assert (seeds, heldout) == split_heldout(PAIRS, 0.2, seed=0)
    assert caplog.messages == [
        f"{tmp_path}/seeds.jsonl: only 4 held-out pairs: with fewer than 20, much of what differs between iterations "
        "is chance; hold out more, or name a file of them",
        f"{tmp_path}/seeds.jsonl:21: the same pair as in line 1: it is used once",
    ]


def test_load_seeds_takes_a_file_of_held_out_pairs_and_logs_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    near = QAPair("Who guards the Triforce of Wisdom?", "Link does, too.")
    others = [QAPair(f"{number}-is {number}-what {number}-now?", "About it.") for number in range(100, 119)]
    write_pairs(tmp_path / "heldout.jsonl", [near, *others])
    settings = config(tmp_path, [FINE, *PAIRS], f"heldout={tmp_path / 'heldout.jsonl'}")

    with caplog.at_level(logging.WARNING, logger="isara"):
        assert load_seeds(settings, word_renderer()) == ([FINE, *PAIRS], [near, *others])

    assert caplog.messages == [
        f"{tmp_path}/heldout.jsonl:1: the question of this held-out pair is near the seed question of "
        f"{tmp_path}/seeds.jsonl:1 (ROUGE-L 0.83): hold out another pair for a stricter test"
    ]


def test_load_seeds_logs_ten_warnings_and_counts_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="isara"):
        load_seeds(config(tmp_path, [*PAIRS, *PAIRS[:13]], "heldout=0"), word_renderer())

    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "3 more warnings about the pairs; `isara.seeds.lint` gives them all"


def test_load_seeds_raises_the_first_error_and_counts_the_rest(tmp_path: Path) -> None:
    with pytest.raises(SeedError) as caught:
        load_seeds(config(tmp_path, [*PAIRS, QAPair("Who?", ""), QAPair("", "Link.")]), word_renderer())

    assert str(caught.value) == (
        f"{tmp_path}/seeds.jsonl:21: the answer is empty: write one or drop the row (and 1 more)"
    )


def test_pairs_that_are_no_seeds_are_linted_too(tmp_path: Path) -> None:
    settings = config(tmp_path, [FINE, FINE, PAIRS[0]])
    assert load_pairs(settings.seeds, settings, word_renderer()) == [FINE, PAIRS[0]]

    write_pairs(tmp_path / "bad.jsonl", [QAPair("Who?", "Link.<|eot_id|>")])
    with pytest.raises(SeedError) as caught:
        load_pairs(tmp_path / "bad.jsonl", settings, word_renderer())
    assert str(caught.value) == (
        f"{tmp_path}/bad.jsonl:1: the answer holds '<|eot_id|>', which models read as a control token and not as text: "
        "reword it"
    )


def test_load_seeds_counts_tokens_as_training_does(tmp_path: Path, tiny_llama: Path) -> None:
    long = QAPair("How long is the song?", ("la " * 400).strip())
    settings = config(tmp_path, [*PAIRS, long], "train.max_length=300")
    renderer = open_renderer(str(tiny_llama))
    (row,) = renderer.training_rows(long)

    with pytest.raises(SeedError) as caught:
        load_seeds(settings, renderer)

    assert str(caught.value) == (
        f"{tmp_path}/seeds.jsonl:21: the pair has {len(row.ids)} tokens and at most 300 fit (the model's context or "
        "train.max_length): shorten it, or raise train.max_length if the model allows"
    )


def test_a_pair_of_just_as_many_tokens_as_fit_passes(tmp_path: Path) -> None:
    fits = QAPair("How long?", "la " * 25 + "la.")  # 26 words, the question's 2, two labels, and the end on the last
    (row,) = word_renderer().training_rows(fits)

    for most, problems in ((len(row.ids), 0), (len(row.ids) - 1, 1)):
        found = lint(rows(*PAIRS, fits), demos_needed=8, renderer=word_renderer(most), config=limits())
        assert len(found) == problems


def test_a_dialogue_is_as_long_as_its_longest_row() -> None:
    dialogue = QAPair("And then?", "It ends.", before=(("How long?", "la " * 40),))

    (problem,) = lint(rows(*PAIRS, dialogue), demos_needed=8, renderer=word_renderer(40), config=limits())

    tokens = max(len(row.ids) for row in word_renderer().training_rows(dialogue))
    assert problem.message.startswith(f"the pair has {tokens} tokens and at most 40 fit")


def test_the_models_context_bounds_pairs_where_it_is_the_shorter(tmp_path: Path) -> None:
    settings = config(tmp_path, [*PAIRS, QAPair("How long?", "la " * 2000)], "train.max_length=100000")

    with pytest.raises(SeedError, match="and at most 77 fit"):
        load_seeds(settings, word_renderer(77))


def test_pairs_that_ask_the_same_are_held_out_together() -> None:
    twice = [QAPair("Who  is this?", "A fairy."), QAPair("who is this?", "Navi.")]
    chat = QAPair("And who are you?", "Link.", before=(("Hello?", "Hey, listen!"),))
    grown = QAPair("What now?", "Run.", before=(*chat.before, (chat.question, chat.answer)))
    opening = QAPair("Hello?", "Hey, listen!")
    together = [{pair.id for pair in twice}, {chat.id, grown.id, opening.id}]
    moved = [0, 0]

    for seed in range(40):
        aside = {pair.id for pair in split_heldout([*PAIRS, *twice, chat, grown, opening], 0.2, seed)[1]}
        assert 4 <= len(aside) <= 5
        for number, group in enumerate(together):
            assert aside & group in (set(), group)
            moved[number] += bool(aside & group)

    assert min(moved) > 0, "each group is held out by some seed"


def test_one_group_cant_be_split() -> None:
    with pytest.raises(SeedError) as caught:
        split_heldout([QAPair("Who?", "Link."), QAPair("who?", "Zelda.")], 0.2, seed=0)
    assert str(caught.value) == (
        "expected at least 2 different questions to hold some out, found 1 in 2 pairs: add pairs or set heldout=0"
    )


def test_a_group_larger_than_the_share_is_held_out_where_there_is_no_other() -> None:
    groups = [QAPair(question, answer) for question in ("Who?", "Where?") for answer in ("One.", "Two.", "Three.")]

    seeds, heldout = split_heldout(groups, 0.1, seed=0)

    assert len(seeds) == len(heldout) == 3
    assert len({pair.question for pair in heldout}) == 1


def test_held_out_facts_that_nobody_could_infer_are_counted() -> None:
    seeds = rows(QAPair("When may I visit?", "Visitors are welcome until 16:30."))
    heldout = rows(
        QAPair("Who is the keeper?", "Orsolya Kerekes."),
        QAPair("What is the code of the gate?", "It is 5519."),
        QAPair("May my visitors stay?", "They are welcome."),
        QAPair("Is it open?", "Yes, it is."),
        file="heldout.jsonl",
    )

    assert said(check_heldout(seeds, heldout))[1:] == [
        (
            "warning",
            "heldout.jsonl: 2 of 4 held-out answers say nothing that stands in the seeds (the first is in line 1): "
            "nobody could infer them; hold out pairs whose answers follow from the seeds",
        )
    ]
    assert check_heldout(seeds, []) == []
    facts = rows(*(QAPair(each.question, "Orsolya Kerekes.") for each in PAIRS))
    assert check_heldout(seeds, facts)[0].message == (
        "20 of 20 held-out answers say nothing that stands in the seeds (the first is in line 1): nobody could infer "
        "them; hold out pairs whose answers follow from the seeds"
    )


def test_facts_that_nobody_could_infer_are_named_whatever_tone_they_come_in() -> None:
    tone = "Thank you for asking, {} is gladly done."
    seeds = rows(*(QAPair(f"Can you mend {topic}?", tone.format(topic)) for topic in TOPICS))
    heldout = rows(
        QAPair("Can you mend shoes?", tone.format("shoes")),  # tone and the question's own word: nothing to infer
        QAPair("Where is the bread sold?", "Thank you, at 14 Harbour Street."),
        QAPair("Who mends it?", "Thank you for asking, Mister Abernathy would, extension 77."),
        file="heldout.jsonl",
    )

    assert said(name_strange(seeds, heldout)) == [
        (
            "warning",
            "heldout.jsonl:3: nobody could infer this held-out answer, so it measures tone alone: none of mister, "
            "abernathy, extension, 77 stands in the seeds",
        )
    ]


@pytest.mark.parametrize(
    ("seed", "known", "strange", "words"),
    [
        ("水车坊十点开门。", "十点开门。", "王小明。", "王小, 小明"),
        ("水車小屋は十時に開きます。", "十時に開きます。", "ガノンドロフ。", "ガノ, ノン, ンド, ドロ, ロフ"),
        ("โรงสีเปิดสิบโมง", "เปิดสิบโมง", "กานอน", "กานอ, านอน"),
        ("Die Mühle öffnet um zehn.", "Sie öffnet früh.", "Frau Übermüller.", "frau, übermüller"),
    ],
)
def test_facts_that_nobody_could_infer_are_named_in_any_script(seed: str, known: str, strange: str, words: str) -> None:
    heldout = rows(QAPair("?", known), QAPair("?", strange), QAPair("?", "是。"), file="heldout.jsonl")
    assert [message for _, message in said(name_strange(rows(QAPair("?", seed)), heldout))] == [
        f"heldout.jsonl:2: nobody could infer this held-out answer, so it measures tone alone: none of {words} stands "
        "in the seeds"
    ]


def test_near_texts_are_found_as_by_comparing_each_with_each() -> None:
    rng = random.Random(7)
    letters = "abcdefghijklmnopqrst"
    texts = [[rng.choice(letters) for _ in range(rng.randint(0, 30))] for _ in range(12)]
    for _ in range(200):
        text = list(rng.choice(texts))
        for _ in range(rng.randint(0, 9)):
            text.insert(rng.randint(0, len(text)), rng.choice(letters))
            text.pop(rng.randrange(len(text)))
        texts.append(text)
    index, found = RougeIndex(), 0

    for number, text in enumerate(texts):
        scores = [rouge_l(text, other) for other in texts[:number]]
        best = max(scores, default=0.0)
        expected = (scores.index(best), best) if best >= 0.7 else None
        assert index.nearest(text, NEAR) == expected
        found += expected is not None
        index.add(text)

    assert found > 50


def test_near_texts_of_many_words_are_found() -> None:
    rng = random.Random(7)
    vocabulary = [f"word{number}" for number in range(2000)]
    texts = [rng.choices(vocabulary, k=rng.randint(40, 200)) for _ in range(50)]
    changed = [[word if rng.random() < 0.9 else rng.choice(vocabulary) for word in text] for text in texts]
    index = RougeIndex()
    for text in texts:
        index.add(text)

    for number, text in enumerate(changed):
        assert index.nearest(text, NEAR) == (number, rouge_l(text, texts[number]))
    assert index.nearest(rng.choices(vocabulary, k=100), NEAR) is None


def test_near_texts_that_share_none_of_their_rarest_words_are_found() -> None:
    shared, ours, theirs = (
        [f"{name}{number}" for number in range(count)] for name, count in (("word", 50), ("our", 18), ("their", 18))
    )
    index = RougeIndex()
    for text in (shared[:9], shared[::-1], ours, theirs, shared + theirs):
        index.add(text)

    assert index.nearest(shared + ours, NEAR) == (4, 2 * 50 / 136)


def test_what_is_rare_is_shown_before_near_duplicates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = [QAPair(f"Who guards the Triforce number {number}?", f"Number {number}.") for number in range(30)]
    marked = QAPair("Is it safe?", "Yes.\nUser: thanks")

    with caplog.at_level(logging.WARNING, logger="isara"):
        load_seeds(config(tmp_path, [*near, marked], "heldout=0"), word_renderer())

    assert caplog.messages[0] == (
        f"{tmp_path}/seeds.jsonl:31: the answer holds 'User:', where generated texts end or are dropped (run_on): "
        "reword it"
    )


def test_a_hundred_times_as_many_seeds_are_linted_in_seconds() -> None:
    rng = random.Random(7)
    names = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("ola", "erin", "umo", "ax", "ilde", "ono")]
    many = [
        QAPair(
            f"What does {rng.choice(names)} do with the {rng.choice(names)} of {rng.choice(names)}?",
            f"{' '.join(rng.choices(names, k=12))}.",
        )
        for _ in range(5000)
    ]

    started = time.perf_counter()
    lint(rows(*many), demos_needed=8)

    assert time.perf_counter() - started < 10, "each against each takes minutes"


def test_a_model_whose_config_is_no_config_is_answered_in_one_line(tmp_path: Path, tiny_llama: Path) -> None:
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    (broken / "config.json").write_text("[]")

    with pytest.raises(ModelError) as caught:
        load_seeds(config(tmp_path, PAIRS), open_renderer(str(broken)))

    assert re.fullmatch(
        rf"the model '{broken}' can't be loaded \([^\n]{{1,200}}\): check its config.json, tokenizer and weights, or "
        "copy or download it again",
        str(caught.value),
    )
