"""Exact neighbours by products that are not: what is found is what a plain sort in float64 finds."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from isara.pool import Pool
from isara.records import QAPair
from isara.testing import HashEmbedder
from isara.vectors import Vectors

WORDS = "Link Zelda Impa Navi Saria Darunia Ruto Nabooru sword shield bow hookshot where who when how".split()


def unit(rng: np.random.Generator, n: int, dim: int = 24) -> NDArray[np.float32]:
    """Clustered rows of length 1, every fifth a copy of an earlier one."""
    centres = rng.standard_normal((max(1, n // 10), dim))
    rows = centres[rng.integers(0, len(centres), n)] + 0.2 * rng.standard_normal((n, dim))
    rows[4::5] = rows[rng.integers(0, 4, len(rows[4::5]))] if n > 4 else rows[4::5]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def plain(rows: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.round((rows.astype(np.float64) * vector).sum(axis=1), 6))


def in_parts(rows: NDArray[np.float32], sizes: Sequence[int]) -> Vectors:
    found, start = Vectors(), 0
    while start < len(rows):
        for size in sizes:
            found.add(rows[start : start + size])
            start += size
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 16_384])
@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 300])
def test_a_shortlist_holds_the_nearest_and_all_that_are_as_near(
    monkeypatch: pytest.MonkeyPatch, block: int, n: int
) -> None:
    monkeypatch.setattr(Vectors, "block", block)
    rng = np.random.default_rng(n)
    rows, asked = unit(rng, n), unit(rng, 9)
    vectors = in_parts(rows, [1, 2, 20])
    assert len(vectors) == n
    for k in (1, 5, 400):
        for vector, found in zip(asked, vectors.shortlists(asked, k), strict=True):
            cosines = plain(rows, vector)
            least = np.sort(cosines)[::-1][k - 1] if k <= n else -1
            assert set(np.flatnonzero(cosines >= least)) <= set(found)
            assert found.tolist() == sorted(found)
            np.testing.assert_array_equal(vectors.cosines(vector, found), cosines[found])
            assert k > 5 or len(found) < 90, "most rows are left out"


def test_a_float32_product_alone_would_take_the_wrong_row() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng, 1, 384) + rng.standard_normal((2000, 384), dtype=np.float32) * np.float32(1e-4)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = Vectors()
    vectors.add(rows)
    wrong = 0
    for vector in rows[:50]:
        cosines = plain(rows, vector)
        [found] = vectors.shortlists(vector[None], 5)
        order = np.argsort(-vectors.cosines(vector, found), kind="stable")[:5]
        assert found[order].tolist() == np.argsort(-cosines, kind="stable")[:5].tolist()
        wrong += found[order].tolist() != np.argsort(-(rows @ vector), kind="stable")[:5].tolist()
    assert wrong


def test_a_copy_grows_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vectors, "block", 8)
    rng = np.random.default_rng(1)
    rows, others = unit(rng, 40), unit(rng, 40)
    for n in (0, 3, 8, 21, 24, 40):
        vectors = in_parts(rows[:30], [5])
        vectors.add(rows[30:])
        copy = vectors.first(n)
        copy.add(others)
        vectors.add(others[:5])
        expected = np.concatenate([rows[:n], others])
        np.testing.assert_array_equal(copy.cosines(rows[0], np.arange(len(copy))), plain(expected, rows[0]))
        expected = np.concatenate([rows, others[:5]])
        np.testing.assert_array_equal(vectors.cosines(rows[0], np.arange(45)), plain(expected, rows[0]))


def test_a_vector_that_is_not_a_number_hides_no_other() -> None:
    rows = unit(np.random.default_rng(2), 20)
    rows[3] = np.nan
    vectors = in_parts(rows, [20])
    [found] = vectors.shortlists(rows[7:8], 2)
    assert 7 in found and 3 not in found


def test_neighbours_are_the_same_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    rows, asked = unit(rng, 40_000, 384), unit(rng, 64, 384)
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            vectors = in_parts(rows, [40_000])
            lists = vectors.shortlists(asked, 5)
            cosines = [vectors.cosines(vector, np.arange(40_000)) for vector in asked[:4]]
        found.append(b"".join(row.tobytes() for row in cosines))
        best = [lists[n][np.argsort(-cosines[n][lists[n]], kind="stable")[:5]].tolist() for n in range(4)]
        assert best == [np.argsort(-each, kind="stable")[:5].tolist() for each in cosines]
    assert found[0] == found[1] == found[2]


def question(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 6)))


@pytest.mark.parametrize(("block", "large"), [(3, 1), (16, 40), (16_384, 100_000)])
def test_a_pool_finds_what_a_plain_sort_finds(monkeypatch: pytest.MonkeyPatch, block: int, large: int) -> None:
    monkeypatch.setattr(Vectors, "block", block)
    monkeypatch.setattr(Pool, "large", large)
    rng, embedder = random.Random(4), HashEmbedder()
    pool = Pool(embedder, [QAPair(question(rng), str(number)) for number in range(60)])
    for _ in range(30):
        pool = pool.copy() if rng.random() < 0.5 else pool
        expected = [question(rng) for _ in range(4)]
        pool.expect(expected)
        for asked in [*expected, question(rng), expected[0]]:
            k, banned = rng.choice([1, 2, 5, 200]), [pair.id for pair in rng.sample(pool.pairs, 2)]
            cosines = plain(embedder.encode([pair.question for pair in pool.pairs]), embedder.encode([asked])[0])
            ranked = [(pool.pairs[row], float(cosines[row])) for row in np.argsort(-cosines, kind="stable")]
            others = [each for each in ranked if each[0].question.lower() != asked.lower()]
            assert pool.closest(asked) == ranked[0]
            assert pool.nearest(asked, k) == others[:k][::-1]
            assert pool.nearest(asked, k, banned) == [each for each in others if each[0].id not in banned][:k][::-1]
            np.testing.assert_array_equal(pool.similarities(asked), cosines)
            pool.add(QAPair(question(rng), f"new {number}") for number in range(rng.randint(0, 2)))
