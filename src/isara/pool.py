"""D_t: the pairs that demonstrations are drawn from, with a vector for each question."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isara.files import value_hash
from isara.keys import part_key
from isara.records import QAPair

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
    """

    def __init__(self, embedder: Embedder, pairs: Iterable[QAPair] = ()) -> None:
        self.embedder = embedder
        self.pairs: list[QAPair] = []
        self._by_id: dict[str, QAPair] = {}
        self._vectors: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self._embedded = 0
        self.add(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def add(self, pairs: Iterable[QAPair]) -> None:
        """Appends pairs; their questions are embedded when a neighbour is first asked for."""
        for pair in pairs:
            self.pairs.append(pair)
            self._by_id.setdefault(pair.id, pair)

    def get(self, pair_id: str) -> QAPair | None:
        """The pair with this id, or None."""
        return self._by_id.get(pair_id)

    def similarities(self, question: str) -> NDArray[np.float32]:
        """Cosine similarity of the question to each pair's question, shape (len(self),), in [-1, 1]."""
        if not self.pairs:
            return np.zeros(0, dtype=np.float32)
        scores = self._matrix() @ self.embedder.encode([question])[0]
        # The last bits of a product depend on the row's place in the matrix and on the threads: without them, equal
        # vectors are equally near, and the earlier pair wins everywhere.
        return np.asarray(np.round(scores, 6), dtype=np.float32)

    def nearest(self, pair: QAPair | str, k: int, leave_out: Iterable[str] = ()) -> list[tuple[QAPair, float]]:
        """The k pairs with the most similar questions to the pair's (or to a text), nearest last, each with its cosine.

        A pair is never its own neighbour: pairs with the same question text (case and spaces aside) and those whose id
        is in `leave_out` are passed over. Among equals the earlier pair is the nearer, so the order is always the same.
        """
        if not k:
            return []
        asked = pair if isinstance(pair, str) else pair.asked
        scores = self.similarities(asked)
        banned, text = set(leave_out), _plain(asked)
        found: list[tuple[QAPair, float]] = []
        for index in np.argsort(-scores, kind="stable"):
            if len(found) == k:
                break
            other = self.pairs[index]
            if other.id not in banned and text not in _asked(other):
                found.append((other, round(float(scores[index]), 6)))
        return found[::-1]

    def sample(self, n: int, rng: random.Random) -> list[QAPair]:
        """Draws n pairs without replacement (all of them, shuffled, where the pool is smaller)."""
        return rng.sample(self.pairs, min(n, len(self.pairs)))

    def _matrix(self) -> NDArray[np.float32]:
        """Vectors of all questions, shape (len(self), dim); capacity doubles so that growing stays cheap."""
        if self._embedded < len(self.pairs):
            new = self.embedder.encode([pair.asked for pair in self.pairs[self._embedded :]])
            needed = self._embedded + len(new)
            if needed > len(self._vectors):
                grown = np.zeros((max(needed, 2 * len(self._vectors)), new.shape[1]), dtype=np.float32)
                grown[: self._embedded] = self._vectors[: self._embedded] if self._embedded else 0
                self._vectors = grown
            self._vectors[self._embedded : needed] = new
            self._embedded = needed
        return self._vectors[: self._embedded]


def sample_neighbours(pool: Pool, n: int, rng: random.Random) -> Sequence[QAPair]:
    """One pair drawn at random and its n - 1 nearest neighbours, the drawn pair last."""
    centre = pool.sample(1, rng)[0]
    return [pair for pair, _ in pool.nearest(centre.asked, n - 1, leave_out=[centre.id])] + [centre]


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
    near = dict(zip((other.id for other in pool.pairs), pool.similarities(pair.asked), strict=True))
    others = [other for other in pool.pairs if _plain(pair.asked) not in _asked(other)]
    drawn = random.Random(f"{seed}/{pair.asked}").sample(others, min(k, len(others)))
    return [(other, float(near[other.id])) for other in drawn]


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
