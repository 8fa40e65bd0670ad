"""Kinds of answers, found without labels: what a domain says again and again, word for word.

A refusal, a rule of the house, a form of words: answers of one kind share phrases. The phrases are the runs of two and
three words that several seeds' answers have and not nearly all of them (a greeting that opens every answer tells
nothing); answers are clustered by the phrases they have. An answer that shares too little with any kind is `OTHER`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from isara.words import ngrams, tokenize

OTHER = "other"
_SIZES = (2, 3)  # words of a phrase
_SHARED, _EVERYWHERE = 0.05, 0.9  # a phrase is in that share of the answers at least, and in no more than that
# Cosine from which on answers are of one kind. Of both recipes' seeds the least of a kind has 0.49 with the others of
# its kind, and invented rules have 0.25 at most with the rules of the shop.
_ALIKE = 0.4
_FEWEST = 3  # answers that make a kind
_LONGEST_NAME = 8  # words
_MOST = 2000  # answers that are clustered: each is compared with each


@dataclass(frozen=True, slots=True)
class KindShare:
    """How often a kind of answer is given.

    Attributes:
        kind: Its name, a phrase that its answers share as the first of them writes it; `OTHER` for answers of no kind.
        seeds: Its share of the seeds, in [0, 1].
        accepted: Its share of the accepted pairs.
    """

    kind: str
    seeds: float
    accepted: float


class Kinds:
    """The kinds of some answers, each named after a phrase that its answers share.

    The same answers give the same kinds: nothing is drawn at random.

    Args:
        answers: The seeds'.

    Attributes:
        names: Of the kinds, each as the first of its answers writes it. No two have the same words.
    """

    def __init__(self, answers: Sequence[str]) -> None:
        answers = answers[:_MOST]
        found = [_phrases(answer) for answer in answers]
        with_phrase = Counter(phrase for phrases in found for phrase in phrases)
        least, most = max(2, ceil(_SHARED * len(answers))), _EVERYWHERE * len(answers)
        shared = sorted(phrase for phrase, count in with_phrase.items() if least <= count <= most)
        self._column = {phrase: number for number, phrase in enumerate(shared)}
        vectors = self._vectors(found)
        clusters = [rows for rows in _clusters(vectors) if len(rows) >= max(_FEWEST, least)]
        texts = [tokenize(answer) for answer in answers]
        kinds: dict[str, list[int]] = {}
        for rows in clusters:
            name = self._name([texts[row] for row in rows])
            if name:  # answers that share no three words, but "of the", are no kind
                kinds.setdefault(name, rows)
        self.names = tuple(_as_written(name, [answers[row] for row in rows]) for name, rows in kinds.items())
        centres = [vectors[rows].mean(axis=0) for rows in kinds.values()]
        self._centres = np.array([centre / np.linalg.norm(centre) for centre in centres])

    def of(self, answers: Sequence[str]) -> list[str]:
        """The kind of each answer."""
        if not self.names:
            return [OTHER] * len(answers)
        cosines = np.round(self._vectors([_phrases(answer) for answer in answers]) @ self._centres.T, 6)
        nearest = cosines.argmax(axis=1)
        return [self.names[best] if row[best] >= _ALIKE else OTHER for best, row in zip(nearest, cosines, strict=True)]

    def _vectors(self, phrases: Iterable[set[str]]) -> NDArray[np.float64]:
        """Which shared phrases a text has, as rows of length 1 (zero where it has none)."""
        columns = [[self._column[phrase] for phrase in row if phrase in self._column] for row in phrases]
        vectors = np.zeros((len(columns), len(self._column)))
        for row, found in enumerate(columns):
            vectors[row, found] = 1 / np.sqrt(len(found)) if found else 0.0
        return vectors

    def _name(self, texts: Sequence[Sequence[str]]) -> str:
        """The longest run of three words or more that most of the texts have, shared phrases all through; or ""."""
        longest = max(map(len, texts))
        for size in range(min(longest, _LONGEST_NAME), 2, -1):
            counts = Counter(run for words in texts for run in set(ngrams(words, size)) if self._is_shared(run))
            most = max(counts.values(), default=0)
            if 2 * most > len(texts):
                return min(run for run, count in counts.items() if count == most)
        return ""

    def _is_shared(self, run: str) -> bool:
        return all(phrase in self._column for phrase in ngrams(run.split(), 3))


def kinds_report(seeds: Sequence[str], accepted: Sequence[str]) -> list[KindShare]:
    """The share of each kind of answer among the accepted answers beside its share among the seeds', `OTHER` last.

    Args:
        seeds: The seeds' answers, which the kinds are found in.
        accepted: The accepted pairs' answers.
    """
    kinds = Kinds(seeds)
    before, after = Counter(kinds.of(seeds)), Counter(kinds.of(accepted))
    return [
        KindShare(name, round(before[name] / max(1, len(seeds)), 4), round(after[name] / max(1, len(accepted)), 4))
        for name in (*kinds.names, OTHER)
    ]


def _phrases(answer: str) -> set[str]:
    words = tokenize(answer)
    return {phrase for size in _SIZES for phrase in ngrams(words, size)}


def _as_written(phrase: str, answers: Iterable[str]) -> str:
    """The phrase as it stands in the first answer that has it, on one line; in its tokens where none can be found."""
    words = phrase.split()
    between = re.compile(r"[\W_]*".join(map(re.escape, words)), re.IGNORECASE)
    for answer in answers:
        whole = tokenize(answer)
        for found in between.finditer(answer):
            # Else it begins or ends within a word.
            if tokenize(answer[: found.start()]) + words + tokenize(answer[found.end() :]) == whole:
                return " ".join(found[0].split())
    return phrase


def _clusters(vectors: NDArray[np.float64]) -> list[list[int]]:
    """The rows that belong together, largest cluster first: merged while they are alike on average."""
    rows = np.flatnonzero(vectors.any(axis=1))
    if len(rows) < 2:
        return []
    from sklearn.cluster import AgglomerativeClustering

    merging = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - _ALIKE)
    labels = merging.fit_predict(vectors[rows])
    clusters = [rows[labels == label].tolist() for label in range(merging.n_clusters_)]
    return sorted(clusters, key=lambda found: (-len(found), found))
