"""Which of many texts is the nearest by ROUGE-L, found without comparing each with each, and missing none."""

import operator
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

_Ints = NDArray[np.int64]
_BITS = 64  # of a text's signature


class RougeIndex:
    """Texts as numbers, a word a number, with what tells quickly that few words can be in common.

    Those that can be near become strings of one character a word, which rapidfuzz compares bit-parallel in C++.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # of words, in the order they came: frequent ones are low
        self._rows_with: list[array[int]] = []  # by word
        self._lengths = array("i")  # in words
        self._starts = array("q")  # where a text's words begin
        self._words = array("i")  # of all texts
        self._signatures = array("Q")

    def add(self, words: Sequence[str]) -> None:
        """Adds a text; its number is how many there were before."""
        numbers = [self._number(word) for word in words]
        for number in set(numbers):
            self._rows_with[number].append(len(self._lengths))
        self._signatures.append(_signature(numbers))
        self._starts.append(len(self._words))
        self._words.extend(numbers)
        self._lengths.append(len(numbers))

    def pop(self) -> None:
        """Forgets the text that was added last."""
        start = self._starts.pop()
        for number in set(self._words[start:]):
            self._rows_with[number].pop()
        del self._words[start:]
        self._lengths.pop()
        self._signatures.pop()

    def nearest(self, words: Sequence[str], ratio: Fraction) -> tuple[int, float] | None:
        """Number and ROUGE-L F of the nearest text (the first of equals) where it is `ratio` or more; else None.

        F is 2·LCS / (m + n) with m and n words (Lin 2004). Short texts often tie at exactly 0.7, and floating point can
        put a tie on the wrong side, so the decision is made in whole numbers: a tie is near.

        Args:
            words: Of the text.
            ratio: Above 0 and at most 1, with a numerator and a denominator whose products with lengths fit in 64 bits.
        """
        rows, common, total = self._overlaps(words, ratio)
        if not (2 * ratio.denominator * common >= ratio.numerator * total).any():
            return None
        scores = 2 * common / total
        first = int(scores.argmax())
        return int(rows[first]), float(scores[first])

    def _overlaps(self, words: Sequence[str], ratio: Fraction) -> tuple[_Ints, _Ints, _Ints]:
        """Texts that can have a ROUGE-L F of `ratio`, the LCS with each, and the sum of both lengths, in words."""
        rows = self._rows_near(words, ratio)
        lengths = np.asarray(self._lengths)[rows]
        characters = {word: code for code, word in enumerate(dict.fromkeys(words), 1)}
        own = "".join(chr(characters[word]) for word in words)
        texts = self._texts(rows, lengths, characters)
        common = process.cdist([own], texts, scorer=LCSseq.similarity, dtype=np.int64)[0] if texts else rows
        return rows, np.asarray(common), lengths + np.int64(len(words))

    def _rows_near(self, words: Sequence[str], ratio: Fraction) -> _Ints:
        """Texts that can share as many of the m words as an F of `ratio` takes, in order.

        To n words, F ≥ ratio takes LCS ≥ ratio·(m + n) / 2. Whoever shares so many words shares one of any m + 1 - so
        many of the text's (a prefix filter: Chaudhuri et al. 2006); of all those choices, the rarest are in few texts.
        And LCS ≤ n takes n ≥ m·ratio / (2 - ratio).
        """
        m, shortest = len(words), len(words) * ratio / (2 - ratio)
        known = [number for word in words if (number := self._numbers.get(word)) is not None]
        lengths, signatures, own = np.asarray(self._lengths), np.asarray(self._signatures), _signature(known)
        # All words that share a bit with another of the text's may be in the row where that bit is.
        spare = len(known) - own.bit_count()
        found, longest = [np.zeros(0, dtype=np.intc)], [0]
        known.sort(key=lambda number: len(self._rows_with[number]))
        for place, number in enumerate(known, m - len(known)):  # words that nobody knows are rarer
            most = int(2 * (m - place) / ratio) - m
            if most < shortest:
                break
            found.append(np.asarray(self._rows_with[number]))
            longest.append(most)
        rows = np.concatenate(found)
        n = lengths[rows].astype(np.int64)
        room = np.bitwise_count(signatures[rows] & np.uint64(own)).astype(np.int64) + spare
        near = n <= np.repeat(longest, [len(rows) for rows in found])
        near &= 2 * ratio.denominator * room >= ratio.numerator * (m + n)
        return np.unique(rows[near]).astype(np.int64)

    def _texts(self, rows: _Ints, lengths: NDArray[np.intc], characters: Mapping[str, int]) -> list[str]:
        """The texts with these characters for these words, and one that equals nothing for all others."""
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


def _signature(numbers: Sequence[int]) -> int:
    """Bit n % 64 says that a word of number n is among them."""
    return reduce(operator.or_, (1 << number % _BITS for number in numbers), 0)
