"""Is a question new? Held against every question kept so far, by words (ROUGE-L) and by meaning (embeddings)."""

import operator
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import compress, count

from isara.errors import ConfigError
from isara.pool import Pool
from isara.records import Candidate, QAPair, Rejection
from isara.rouge import RougeIndex
from isara.words import tokenize


class Novelty:
    """Drops a question whose ROUGE-L F to any kept question is `novelty` or more; a tie is a duplicate.

    Raises:
        ConfigError: `novelty` is not above 0 and at most 1.
    """

    def __init__(self, novelty: float) -> None:
        if not 0 < novelty <= 1:
            raise ConfigError(f"`novelty` expects a number above 0 and at most 1, found {novelty}: 0.7 is the paper's")
        self.novelty = novelty
        # The decimal number as written (7/10, not the float just below it), with products that fit into 64 bits.
        self._ratio = Fraction(str(novelty)).limit_denominator(10**9)
        self._kept = _Kept()

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the highest score and the (first) kept pair that has it."""
        self._kept.follow(kept)
        nearest = self._kept.index.nearest(tokenize(candidate.pair.question), self._ratio)
        if nearest is None:
            return None
        row, score = nearest
        return Rejection("novelty", round(score, 4), self.novelty, kept.pairs[self._kept.owners[row]].id)


class _Kept:
    """The index of a pool's questions, as the pool grows.

    Attributes:
        index: Of the questions: a dialogue has several.
        owners: The place in the pool of the pair that each stands in.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._pairs: list[QAPair] = []
        self.index = RougeIndex()
        self.owners = array("i")

    def follow(self, kept: Pool) -> None:
        """Takes in what the pool has gained; of another pool, only what differs, since it is mostly a copy."""
        if kept is not self._pool:
            self._forget_all_but(_common_prefix(self._pairs, kept.pairs))
            self._pool = kept
        for pair in kept.pairs[len(self._pairs) :]:
            for question, _ in pair.turns:
                self.index.add(tokenize(question))
                self.owners.append(len(self._pairs))
            self._pairs.append(pair)

    def _forget_all_but(self, pairs: int) -> None:
        while len(self._pairs) > pairs:
            for _ in self._pairs.pop().turns:
                self.index.pop()
                self.owners.pop()


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
