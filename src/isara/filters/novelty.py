"""Is a question new? Held against every question kept so far, by words (ROUGE-L) and by meaning (embeddings)."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from isara.errors import ConfigError
from isara.pool import Pool
from isara.records import Candidate, QAPair, Rejection
from isara.words import tokenize


class Novelty:
    """Drops a question whose ROUGE-L F to any kept question is `novelty` or more.

    F is 2·LCS / (m + n) with m and n words (Lin 2004). Questions often tie at exactly 0.7, and floating point can put a
    tie on the wrong side, so the decision is made in whole numbers: a tie is a duplicate.

    Raises:
        ConfigError: `novelty` is not above 0 and at most 1.
    """

    def __init__(self, novelty: float) -> None:
        if not 0 < novelty <= 1:
            raise ConfigError(f"`novelty` expects a number above 0 and at most 1, found {novelty}: 0.7 is the paper's")
        self.novelty = novelty
        # The decimal number as written (7/10, not the float just below it), with products that fit into 64 bits.
        self._ratio = Fraction(str(novelty)).limit_denominator(10**9)
        self._index = _Index()

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the highest score and the (first) kept pair that has it."""
        self._index.follow(kept)
        rows, common, total = self._index.overlaps(candidate.pair.question, self._ratio)
        if not (2 * self._ratio.denominator * common >= self._ratio.numerator * total).any():
            return None
        scores = 2 * common / total
        nearest = int(scores.argmax())
        near = kept.pairs[self._index.owner(rows[nearest])]
        return Rejection("novelty", round(float(scores[nearest]), 4), self.novelty, near.id)


_Ints = NDArray[np.int64]


class _Index:
    """The kept questions as strings of one character a word, so that a word comparison is a character comparison.

    rapidfuzz compares such strings bit-parallel in C++. The characters mean nothing outside of this object; there are
    1.1 million of them, which is the most different words that a pool can have.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._pairs: list[QAPair] = []
        self._texts: list[str] = []  # a row a question: a dialogue has several
        self._owners: list[int] = []
        self._chars: dict[str, str] = {}
        self._rows_with: dict[str, array[int]] = defaultdict(lambda: array("q"))

    def follow(self, kept: Pool) -> None:
        """Takes in what the pool has gained; of another pool, only what differs, since it is mostly a copy."""
        if kept is not self._pool:
            self._forget_all_but(_common_prefix(self._pairs, kept.pairs))
            self._pool = kept
        for pair in kept.pairs[len(self._pairs) :]:
            for question, _ in pair.turns:
                words = tokenize(question)
                for word in set(words):
                    self._rows_with[word].append(len(self._texts))
                chars = (self._chars.setdefault(word, _character(len(self._chars))) for word in words)
                self._texts.append("".join(chars))
                self._owners.append(len(self._pairs))
            self._pairs.append(pair)

    def owner(self, row: int) -> int:
        """The place in the pool of the pair that a row's question stands in."""
        return self._owners[row]

    def _forget_all_but(self, pairs: int) -> None:
        while len(self._pairs) > pairs:
            for question, _ in reversed(self._pairs.pop().turns):
                self._texts.pop()
                self._owners.pop()
                for word in set(tokenize(question)):
                    self._rows_with[word].pop()

    def overlaps(self, question: str, ratio: Fraction) -> tuple[_Ints, _Ints, _Ints]:
        """Rows that can have a ROUGE-L F of `ratio`, the LCS with each, and the sum of both lengths, in words."""
        words = tokenize(question)
        rows = self._rows_sharing(words, ratio)
        texts = [self._texts[row] for row in rows]
        # A word that no kept question has equals nothing, so one character serves for all such words.
        own = "".join(self._chars.get(word, "\0") for word in words)
        common = process.cdist([own], texts, scorer=LCSseq.similarity, dtype=np.int64)[0] if texts else rows
        return rows, np.asarray(common), np.array([len(text) for text in texts], dtype=np.int64) + len(words)

    def _rows_sharing(self, words: list[str], ratio: Fraction) -> _Ints:
        """Rows that share as many of the m words as an F of `ratio` takes, and a few more; in order.

        With LCS ≤ n, F ≥ ratio takes n ≥ m·ratio / (2 - ratio), and then LCS is at least that, too. Whoever shares so
        many of the words shares one of any m + 1 - so many; of all those choices, the rarest words are in few rows.
        """
        needed = ceil(len(words) * ratio / (2 - ratio))
        lists = sorted((self._rows_with.get(word, ()) for word in words), key=len)[: len(words) + 1 - needed]
        return np.unique(np.concatenate([np.array(rows, dtype=np.int64) for rows in [(), *lists]]))


def _common_prefix(ours: Sequence[QAPair], theirs: Sequence[QAPair]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((row for row, (one, other) in pairs if one is not other), min(len(ours), len(theirs)))


def _character(number: int) -> str:
    """The number-th character from U+0001 on; surrogates are no characters and are left out."""
    code = number + 1
    return chr(code if code < 0xD800 else code + 0x800)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Drops a question whose embedding has a cosine of `near_duplicate` or more with a kept question's."""

    near_duplicate: float

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the highest cosine and the (first) kept pair that has it."""
        scores = kept.similarities(candidate.pair.question)
        if not scores.size:
            return None
        nearest = int(np.argmax(scores))
        cosine = round(float(scores[nearest]), 4)
        if cosine < self.near_duplicate:
            return None
        return Rejection("near_duplicate", cosine, self.near_duplicate, kept.pairs[nearest].id)
