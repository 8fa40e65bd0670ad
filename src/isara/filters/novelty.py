"""Is a question new? Held against every question kept so far, by words (ROUGE-L) and by meaning (embeddings)."""

import operator
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import compress, count

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
_BITS = 64  # of a row's signature


class _Index:
    """The kept questions as numbers, a word a number, with what tells quickly that few words can be in common.

    Those that can be near become strings of one character a word, which rapidfuzz compares bit-parallel in C++.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._pairs: list[QAPair] = []
        self._numbers: dict[str, int] = {}  # of words, in the order they came: frequent ones are low
        self._rows_with: list[array[int]] = []  # by word
        # A row a question: a dialogue has several.
        self._owners = array("i")
        self._lengths = array("i")  # in words
        self._starts = array("q")  # where a row's words begin
        self._words = array("i")  # of all rows
        self._signatures = array("Q")

    def follow(self, kept: Pool) -> None:
        """Takes in what the pool has gained; of another pool, only what differs, since it is mostly a copy."""
        if kept is not self._pool:
            self._forget_all_but(_common_prefix(self._pairs, kept.pairs))
            self._pool = kept
        for pair in kept.pairs[len(self._pairs) :]:
            for question, _ in pair.turns:
                self._take_in([self._number(word) for word in tokenize(question)])
            self._pairs.append(pair)

    def owner(self, row: int) -> int:
        """The place in the pool of the pair that a row's question stands in."""
        return self._owners[row]

    def overlaps(self, question: str, ratio: Fraction) -> tuple[_Ints, _Ints, _Ints]:
        """Rows that can have a ROUGE-L F of `ratio`, the LCS with each, and the sum of both lengths, in words."""
        words = tokenize(question)
        rows = self._rows_near(words, ratio)
        lengths = np.asarray(self._lengths)[rows]
        characters = {word: code for code, word in enumerate(dict.fromkeys(words), 1)}
        own = "".join(chr(characters[word]) for word in words)
        texts = self._texts(rows, lengths, characters)
        common = process.cdist([own], texts, scorer=LCSseq.similarity, dtype=np.int64)[0] if texts else rows
        return rows, np.asarray(common), lengths + np.int64(len(words))

    def _rows_near(self, words: Sequence[str], ratio: Fraction) -> _Ints:
        """Rows that can share as many of the m words as an F of `ratio` takes, in order.

        To n words, F ≥ ratio takes LCS ≥ ratio·(m + n) / 2. Whoever shares so many words shares one of any m + 1 - so
        many of the question's (a prefix filter: Chaudhuri et al. 2006); of all those choices, the rarest are in few
        rows. And LCS ≤ n takes n ≥ m·ratio / (2 - ratio).
        """
        m, shortest = len(words), len(words) * ratio / (2 - ratio)
        known = [number for word in words if (number := self._numbers.get(word)) is not None]
        lengths, signatures, own = np.asarray(self._lengths), np.asarray(self._signatures), _signature(known)
        # All words that share a bit with another of the question's may be in the row where that bit is.
        spare = len(known) - own.bit_count()
        found = [np.zeros(0, dtype=np.intc)]
        known.sort(key=lambda number: len(self._rows_with[number]))
        for place, number in enumerate(known, m - len(known)):  # words that nobody knows are rarer
            longest = int(2 * (m - place) / ratio) - m
            if longest < shortest:
                break
            rows = np.asarray(self._rows_with[number])
            n = lengths[rows].astype(np.int64)
            room = np.bitwise_count(signatures[rows] & np.uint64(own)).astype(np.int64) + spare
            near = (n <= longest) & (2 * ratio.denominator * room >= ratio.numerator * (m + n))
            found.append(rows[near])
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _texts(self, rows: _Ints, lengths: NDArray[np.intc], characters: Mapping[str, int]) -> list[str]:
        """The rows with these characters for these words, and one that equals nothing for all others."""
        codes = np.zeros(len(self._numbers), dtype="<u4")
        for word, code in characters.items():
            if (number := self._numbers.get(word)) is not None:
                codes[number] = code
        ends = lengths.cumsum(dtype=np.int64)
        places = np.arange(lengths.sum()) + np.repeat(np.asarray(self._starts)[rows] - ends + lengths, lengths)
        text = codes[np.asarray(self._words)[places]].tobytes().decode("utf-32-le", "surrogatepass")
        return [text[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]

    def _number(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self._numbers))
        if number == len(self._rows_with):
            self._rows_with.append(array("i"))
        return number

    def _take_in(self, words: Sequence[int]) -> None:
        for word in set(words):
            self._rows_with[word].append(len(self._lengths))
        self._signatures.append(_signature(words))
        self._starts.append(len(self._words))
        self._words.extend(words)
        self._lengths.append(len(words))
        self._owners.append(len(self._pairs))

    def _forget_all_but(self, pairs: int) -> None:
        while len(self._pairs) > pairs:
            for _ in self._pairs.pop().turns:
                start = self._starts.pop()
                for word in set(self._words[start:]):
                    self._rows_with[word].pop()
                del self._words[start:]
                for column in (self._owners, self._lengths, self._signatures):
                    column.pop()


def _signature(words: Sequence[int]) -> int:
    """Bit n % 64 says that a word of number n is among them."""
    return reduce(operator.or_, (1 << word % _BITS for word in words), 0)


def _common_prefix(ours: Sequence[QAPair], theirs: Sequence[QAPair]) -> int:
    differs = map(operator.is_not, ours, theirs)
    return next(compress(count(), differs), min(len(ours), len(theirs)))


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Drops a question whose embedding has a cosine of `near_duplicate` or more with a kept question's."""

    near_duplicate: float

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the highest cosine and the (first) kept pair that has it."""
        found = kept.closest(candidate.pair.question)
        if found is None or round(found[1], 4) < self.near_duplicate:
            return None
        return Rejection("near_duplicate", round(found[1], 4), self.near_duplicate, found[0].id)
