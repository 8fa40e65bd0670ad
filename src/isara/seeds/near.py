"""Near duplicates among many texts: ROUGE-L F of 0.7 or more, without comparing each with each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, log

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

_EXACT_LENGTHS = 12  # words; longer texts share a bucket with those up to a tenth longer
_BATCH = 1000  # texts compared at a time
_SEVERAL = 3
_MOST_ROWS = 20_000  # that are counted for one text
_MOST_LOOKED_UP = 16  # words of a text
_FIRST_CHARACTER, _SURROGATES, _MOST_CHARACTERS = 2, 0xD800, 0x10F000


class NearIndex:
    """Texts as their words, of which the nearest to another text is looked up.

    F = 2·LCS / (m + n) of 0.7 takes LCS ≥ 0.35·(m + n), so two near texts have so many words in common. Of the rarest
    words of each, as many as are left when all but one of those are taken away, one is then in both (a prefix filter:
    Chaudhuri et al. 2006). Only texts that share such a word are compared, as strings of one character a word. Of texts
    beyond some 35 words, the sixteen rarest that any other text has stand for all such words, and three of them must be
    shared; so in principle, one of them could be missed.

    Args:
        texts: The words of all texts that will be added or looked up: they say which words are rare.
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        self._texts_with = Counter(word for words in texts for word in set(words))
        self._characters: dict[str, str] = {}
        self._rows: dict[tuple[int, str], list[int]] = defaultdict(list)
        self._shortest: dict[int, int] = {}
        self._strings: list[str] = []

    def add(self, words: Sequence[str]) -> None:
        """Adds a text; its number is how many were added before."""
        n, bucket = len(words), _bucket(len(words))
        self._shortest[bucket] = min(n, self._shortest.get(bucket, n))
        for word in self._looked_up(self._rarest(words), n - _common(n, ceil(7 * n / 13)) + 1):
            self._rows[bucket, word].append(len(self._strings))
        self._strings.append(self._string(words, once="\1"))

    def nearest(self, words: Sequence[str]) -> tuple[int, float] | None:
        """Number and ROUGE-L F of the nearest text (the first of equals) where it is 0.7 or more; else None.

        Among many that share its words it is the nearest of the first thousand that hold a near one.
        """
        for rows in self._sharing(words):
            own = self._string(words, once="\0")
            strings = [self._strings[row] for row in rows]
            common = process.cdist([own], strings, scorer=LCSseq.similarity, dtype=np.int64)[0]
            total = np.array([len(string) for string in strings]) + len(words)
            # In whole numbers, as the novelty filter decides: short questions tie at exactly 0.7 all the time.
            if (20 * common >= 7 * total).any():
                scores = 2 * common / total
                nearest = int(scores.argmax())
                return rows[nearest], float(scores[nearest])
        return None

    def _sharing(self, words: Sequence[str]) -> Iterator[list[int]]:
        """The texts that may be near, each batch in order; those that share the rarest words come first."""
        m, rarest = len(words), self._rarest(words)
        found: list[list[int]] = []
        most = 0
        for bucket in range(_bucket(ceil(7 * m / 13)), _bucket(13 * m // 7) + 1) if m else ():
            if (n := self._shortest.get(bucket)) is not None:
                likely = self._looked_up(rarest, m - _common(m, max(n, ceil(7 * m / 13))) + 1)
                found += [rows for word in likely if (rows := self._rows.get((bucket, word)))]
                most = max(most, len(likely))
        found.sort(key=len)
        if most == _MOST_LOOKED_UP:
            found = [_in_several(found)]
        batch: set[int] = set()
        done: set[int] = set()
        for rows in found:
            for start in range(0, len(rows), _BATCH):
                batch.update(row for row in rows[start : start + _BATCH] if row not in done)
                if len(batch) >= _BATCH:
                    yield sorted(batch)
                    done |= batch
                    batch = set()
        if batch:
            yield sorted(batch)

    def _rarest(self, words: Sequence[str]) -> list[str]:
        return sorted(words, key=lambda word: (self._texts_with[word], word))

    def _looked_up(self, rarest: Sequence[str], count: int) -> list[str]:
        """Of the first `count` of the words, those by which another text can be found."""
        return [word for word in dict.fromkeys(rarest[:count]) if self._texts_with[word] > 1][:_MOST_LOOKED_UP]

    def _string(self, words: Sequence[str], once: str) -> str:
        """The words as characters; a word of no other text gets one that equals nothing."""
        return "".join(self._character(word) if self._texts_with[word] > 1 else once for word in words)

    def _character(self, word: str) -> str:
        if word not in self._characters:
            code = _FIRST_CHARACTER + len(self._characters) % _MOST_CHARACTERS
            self._characters[word] = chr(code if code < _SURROGATES else code + 0x800)
        return self._characters[word]


def _in_several(lists: Sequence[Sequence[int]]) -> list[int]:
    """The texts that share several of the words that are looked up, as near texts of some length do."""
    times: Counter[int] = Counter()
    for rows in lists:
        times.update(rows)
        if times.total() > _MOST_ROWS:
            break
    return [row for row, count in times.items() if count >= _SEVERAL]


def _common(m: int, n: int) -> int:
    """Words that texts of m and n words have in common at least where they are near."""
    return ceil(7 * (m + n) / 20)


def _bucket(n: int) -> int:
    return n if n <= _EXACT_LENGTHS else _EXACT_LENGTHS + int(log(n / _EXACT_LENGTHS) / log(1.1))
