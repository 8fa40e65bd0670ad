"""D_t: the pairs that demonstrations are drawn from, with a vector for each question."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isara.files import value_hash
from isara.keys import part_key
from isara.records import QAPair
from isara.vectors import Vectors

_AT_ONCE = 4096  # questions that are embedded at a time

RetrieveKind: TypeAlias = Literal["nearest", "random", "none"]
# The demonstrations for a pair's question, nearest last, each with its similarity.
Retrieve: TypeAlias = Callable[[QAPair], Sequence[tuple[QAPair, float]]]


class Embedder(Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), each row of length 1 (or all zero where a text has nothing to embed)."""
        ...


class Pool:
    """Pairs in the order they came, and exact nearest neighbours among their questions.

    A pool only grows, so whatever a filter has worked out about `pairs[:n]` stays true.

    Args:
        embedder: Gives the questions their vectors.
        pairs: The first ones.
    """

    large = 100_000  # pairs; a product with so many takes about as long as a question that is embedded for nothing

    def __init__(self, embedder: Embedder, pairs: Iterable[QAPair] = ()) -> None:
        self.embedder = embedder
        self.pairs: list[QAPair] = []
        self._by_id: dict[str, QAPair] = {}
        self._identified = 0
        self._vectors = Vectors()
        self._origin: tuple[Pool, int] | None = None  # whose first vectors are these
        self._expected: list[str] = []
        self._ahead: dict[str, _Shortlist] = {}
        self.add(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def add(self, pairs: Iterable[QAPair]) -> None:
        """Appends pairs; their questions are embedded when a neighbour is first asked for."""
        self.pairs.extend(pairs)

    def copy(self) -> "Pool":
        """Another pool with the same pairs, which grows by itself; the vectors of these are shared."""
        other = Pool(self.embedder, self.pairs)
        other._origin = self, len(self)
        return other

    def get(self, pair_id: str) -> QAPair | None:
        """The pair with this id, or None."""
        for pair in self.pairs[self._identified :]:
            self._by_id.setdefault(pair.id, pair)
        self._identified = len(self.pairs)
        return self._by_id.get(pair_id)

    def expect(self, questions: Iterable[str]) -> None:
        """Says what will be asked: the first look-up in a large pool then serves all of it, in one product."""
        self._expected, self._ahead = list(dict.fromkeys(questions)), {}

    def similarities(self, question: str) -> NDArray[np.float64]:
        """Cosine similarity of the question to each pair's question, shape (len(self),), in [-1, 1]."""
        if not self.pairs:
            return np.zeros(0)
        self._embed()
        return self._vectors.cosines(self.embedder.encode([question])[0], np.arange(len(self)))

    def closest(self, question: str) -> tuple[QAPair, float] | None:
        """The first pair with the most similar question, be it the same, and the cosine; None of an empty pool."""
        return next(((self.pairs[row], cosine) for row, cosine in self._ranked(question, 1)), None)

    def nearest(self, pair: QAPair | str, k: int, leave_out: Iterable[str] = ()) -> list[tuple[QAPair, float]]:
        """The k pairs with the most similar questions to the pair's (or to a text), nearest last, each with its cosine.

        A pair is never its own neighbour: pairs with the same question text (case and spaces aside) and those whose id
        is in `leave_out` are passed over. Among equals the earlier pair is the nearer, so the order is always the same.
        """
        if not k:
            return []
        asked = pair if isinstance(pair, str) else pair.asked
        banned, text = set(leave_out), _plain(asked)
        found: list[tuple[QAPair, float]] = []
        most = k + len(banned) + 1  # as a rule, one pair has the question itself
        while len(found) < k:
            ranked = ((self.pairs[row], cosine) for row, cosine in self._ranked(asked, most))
            allowed = (each for each in ranked if text not in _asked(each[0]) and each[0].id not in banned)
            found = list(islice(allowed, k))
            if most >= len(self):
                break
            most *= 4
        return found[::-1]

    def sample(self, n: int, rng: random.Random) -> list[QAPair]:
        """Draws n pairs without replacement (all of them, shuffled, where the pool is smaller)."""
        return rng.sample(self.pairs, min(n, len(self.pairs)))

    def _ranked(self, question: str, k: int) -> list[tuple[int, float]]:
        """The k rows with the most similar questions, nearest first and then by row, each with its cosine."""
        if not self.pairs:
            return []
        self._embed()
        known = self._ahead.get(question)
        if known is None or known.k < k:
            together = len(self) >= self.large and question in self._expected
            asked = self._expected if together else [question]
            vectors = self.embedder.encode(asked)
            rows_of = zip(asked, vectors, self._vectors.shortlists(vectors, k), strict=True)
            found = {text: _Shortlist(vector, k, rows, len(self)) for text, vector, rows in rows_of}
            self._ahead = found if together else self._ahead
            known = found[question]
        rows = np.append(known.rows, np.arange(known.among, len(self)))
        cosines = self._vectors.cosines(known.vector, rows)
        order = np.argsort(-cosines, kind="stable")[:k]
        return list(zip(rows[order].tolist(), cosines[order].tolist(), strict=True))

    def _embed(self) -> None:
        """Gives every pair's question its vector."""
        if self._origin is not None:
            origin, n = self._origin
            origin._embed()
            self._vectors, self._origin = origin._vectors.first(n), None
        while (start := len(self._vectors)) < len(self):
            asked = [pair.asked for pair in self.pairs[start : start + _AT_ONCE]]
            self._vectors.add(self.embedder.encode(asked))


@dataclass(frozen=True, slots=True)
class _Shortlist:
    """Rows that hold the k nearest to a question's vector among the pool's first pairs."""

    vector: NDArray[np.float32]
    k: int
    rows: NDArray[np.int64]
    among: int


def _asked(pair: QAPair) -> set[str]:
    """What the pair asks: its dialogue as a whole, and each of its questions."""
    return {_plain(pair.asked), *(_plain(question) for question, _ in pair.turns)}


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def retriever(pool: Pool, kind: RetrieveKind, k: int, seed: int) -> Retrieve:
    """What gives a pair its k demonstrations from a pool, each with its cosine similarity.

    Args:
        pool: Where they come from.
        kind: "nearest" is nearest last; "random" draws them, anew for each question; "none" is zero-shot.
        k: How many.
        seed: Of the random draws.
    """
    if kind == "random":
        return partial(_random_pairs, pool, k, seed)
    return partial(pool.nearest, k=k if kind == "nearest" else 0)


def other_retriever(pool: Pool, kind: RetrieveKind, k: int, seed: int) -> Retrieve:
    """What gives a pair other demonstrations than `retriever` of the same values, so that a second answer is a test.

    "nearest" leaves out the very nearest, which decides most, and takes the next one in the place of it.
    """
    if kind == "random":
        return partial(_random_pairs, pool, k, seed + 1)
    return partial(_without_nearest, pool, k if kind == "nearest" else 0)


def _without_nearest(pool: Pool, k: int, pair: QAPair) -> list[tuple[QAPair, float]]:
    return pool.nearest(pair, k + 1)[:-1] if k else []


def _random_pairs(pool: Pool, k: int, seed: int, pair: QAPair) -> list[tuple[QAPair, float]]:
    text = _plain(pair.asked)
    others = [row for row, other in enumerate(pool.pairs) if text not in _asked(other)]
    drawn = random.Random(f"{seed}/{pair.asked}").sample(others, min(k, len(others)))
    near = pool.similarities(pair.asked)
    return [(pool.pairs[row], float(near[row])) for row in drawn]


def ids_hash(pool: Pool) -> str:
    """A hex digest of the pool's pairs, in their order."""
    return value_hash([pair.id for pair in pool.pairs])


def pool_key(pool: Pool) -> dict[str, object]:
    """What decides which demonstrations can be retrieved: the pairs in their order, and the embedder."""
    return {"pairs": ids_hash(pool), "embedder": part_key(pool.embedder)}


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Retrieval as a value that a resumed run knows again: what gives a pair its k demonstrations from a pool.

    Attributes:
        pool: Where they come from.
        kind: As `retriever` takes it.
        k: How many.
        seed: Of random draws.
    """

    pool: Pool
    kind: RetrieveKind
    k: int
    seed: int

    def __call__(self, pair: QAPair) -> Sequence[tuple[QAPair, float]]:
        """The demonstrations for the pair's question, nearest last, each with its cosine similarity."""
        return retriever(self.pool, self.kind, self.k, self.seed)(pair)

    def key(self) -> dict[str, object]:
        """What decides which they are."""
        drawn = {"seed": self.seed} if self.kind == "random" else {}
        return {"retrieve": self.kind, "demos": self.k, **drawn, **pool_key(self.pool)}
