"""The pool: who is near, who is left out, and that growing changes nothing else."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from isara.pool import Pool
from isara.records import QAPair
from isara.selection.focus import around
from isara.testing import HashEmbedder

QUESTIONS = (
    "How do bees find their way home?",
    "How do bees make honey?",
    "Which planet has the most moons?",
    "Why do cats purr?",
)
PAIRS = [QAPair(question, f"Answer {number}.") for number, question in enumerate(QUESTIONS)]


class CountingEmbedder(HashEmbedder):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return super().encode(texts)


def questions(found: list[tuple[QAPair, float]]) -> list[str]:
    return [pair.question for pair, _ in found]


def test_nearest_comes_last() -> None:
    found = Pool(HashEmbedder(), PAIRS).nearest("How do bees find flowers?", 2)
    assert questions(found) == [QUESTIONS[1], QUESTIONS[0]]
    assert found == [(PAIRS[1], 0.6), (PAIRS[0], pytest.approx(0.676123))]


def test_a_pair_is_never_its_own_neighbour() -> None:
    pool = Pool(HashEmbedder(), PAIRS)
    assert questions(pool.nearest(QUESTIONS[0], 1)) == [QUESTIONS[1]]
    assert questions(pool.nearest("  how do BEES\nfind their way home?", 1)) == [QUESTIONS[1]]
    assert PAIRS[1] not in [pair for pair, _ in pool.nearest("Do bees make honey?", 4, leave_out=[PAIRS[1].id])]


def test_equals_stay_in_the_order_they_came() -> None:
    same = [QAPair(QUESTIONS[3] + mark, "") for mark in ("!", "?!", "…", " ;)")]
    for count in range(1, 40):
        pool = Pool(HashEmbedder(), [*[QAPair(f"Filler {number}", "") for number in range(count)], *same])
        assert [pair for pair, _ in pool.nearest("Why does a cat purr?", 4)] == same[::-1]


def test_asking_for_more_than_there_are() -> None:
    assert len(Pool(HashEmbedder(), PAIRS).nearest("How do bees find flowers?", 9)) == 4
    assert Pool(HashEmbedder(), PAIRS).nearest("How do bees find flowers?", 0) == []


def test_growing_embeds_only_what_is_new_and_finds_the_same() -> None:
    rng = random.Random(3)
    words = "bee cat moon honey planet purr home why how which".split()
    pairs = [QAPair(" ".join(rng.choices(words, k=6)) + f" {number}", "") for number in range(50)]
    embedder = CountingEmbedder()
    grown = Pool(embedder)
    for pair in pairs:
        grown.add([pair])
        grown.similarities("Why?")
    assert sorted(text for text in embedder.asked if text != "Why?") == sorted(pair.question for pair in pairs)
    at_once = Pool(HashEmbedder(), pairs)
    assert len(grown) == 50
    for pair in pairs:
        assert grown.nearest(pair.question, 5) == at_once.nearest(pair.question, 5)


def test_many_pairs_of_its_own_text_hide_no_neighbour() -> None:
    same = [QAPair(QUESTIONS[0], f"Answer {number}.") for number in range(70)]
    found = Pool(HashEmbedder(), [*same, *PAIRS]).nearest(QUESTIONS[0], 3)
    assert len(found) == 3 and found == Pool(HashEmbedder(), PAIRS).nearest(QUESTIONS[0], 3)


def test_a_copy_grows_by_itself_and_embeds_only_what_is_new() -> None:
    embedder = CountingEmbedder()
    pool = Pool(embedder, PAIRS[:2])
    copy = pool.copy()
    copy.add(PAIRS[2:])
    copies = copy.copy()  # of a pool that has not embedded anything yet
    assert embedder.asked == []
    for each, n in ((copies, 4), (copy, 4), (pool, 2)):
        assert len(each) == n
        assert set(questions(each.nearest("Which moons?", 4))) == set(QUESTIONS[:n])
    assert sorted(text for text in embedder.asked if text != "Which moons?") == sorted(QUESTIONS)


def test_what_is_expected_of_a_large_pool_is_embedded_at_once_and_of_a_small_one_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["Why?", "How do bees sleep?", "Which cats?"]
    for large, at_once in ((5, asked[1:2]), (4, asked)):
        monkeypatch.setattr(Pool, "large", large)
        embedder = CountingEmbedder()
        pool = Pool(embedder, PAIRS)
        pool.expect(asked)
        assert embedder.asked == []
        pool.nearest(asked[1], 1)
        assert embedder.asked == [*QUESTIONS, *at_once]
    for text in asked:
        pool.nearest(text, 1)
    assert embedder.asked == [*QUESTIONS, *asked]


def test_nothing_is_embedded_before_a_neighbour_is_asked_for() -> None:
    embedder = CountingEmbedder()
    Pool(embedder, PAIRS).sample(2, random.Random(0))
    assert embedder.asked == []


def test_the_empty_pool() -> None:
    pool = Pool(HashEmbedder())
    assert len(pool) == 0
    assert pool.nearest("Why do cats purr?", 3) == []
    assert pool.similarities("Why do cats purr?").shape == (0,)
    assert pool.sample(3, random.Random(0)) == []
    pool.add(PAIRS)
    assert questions(pool.nearest("Why do dogs and cats purr?", 1)) == [QUESTIONS[3]]


def test_sample() -> None:
    pool = Pool(HashEmbedder(), PAIRS)
    drawn = pool.sample(3, random.Random(1))
    assert len(set(drawn)) == 3
    assert drawn == pool.sample(3, random.Random(1))
    assert sorted(pool.sample(9, random.Random(1)), key=PAIRS.index) == PAIRS


def test_a_drawn_pair_and_its_neighbours() -> None:
    pool = Pool(HashEmbedder(), PAIRS)
    centres = set()
    for seed in range(30):
        drawn = around(pool, pool.sample(1, random.Random(seed)), 2)
        centres.add(drawn[-1])
        assert drawn[:-1] == [pair for pair, _ in pool.nearest(drawn[-1].question, 1)]
    assert centres == set(PAIRS)


def test_get_finds_the_first_of_equal_pairs() -> None:
    twice = QAPair(QUESTIONS[0], "Answer 0.", iteration=2)
    pool = Pool(HashEmbedder(), [*PAIRS, twice])
    assert pool.get(PAIRS[0].id) is PAIRS[0]
    assert pool.get("0123456789ab") is None
