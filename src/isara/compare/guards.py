"""What training could know of the tests: seed pairs and generated questions that a test question gives away.

Only questions are held against each other. Answers of a domain share their manner on purpose, and a run of words in
many tests is a turn of phrase.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara.config import Config
from isara.keys import part_key
from isara.pool import Pool, ids_hash
from isara.protocols import Embedder
from isara.records import Candidate, QAPair, Rejection
from isara.words import ngrams, tokenize

WORDS = 8  # in a row
COSINE = 0.95  # where the filters call two questions near duplicates
STOCK = 10  # tests that may share a run before it counts as a turn of phrase


@dataclass(frozen=True, slots=True)
class Leak:
    """A test question with what gives it away.

    Attributes:
        test: Id of the test.
        question: Its question.
        by: The question that is too near.
        how: "8 words in a row: …", "the same words" or "cosine 0.97".
    """

    test: str
    question: str
    by: str
    how: str


class Guard:
    """A question filter: drops what is too near to a test question, for all arms alike.

    Args:
        tests: The tests.
        embedder: Measures nearness beside words.
    """

    def __init__(self, tests: Sequence[QAPair], embedder: Embedder) -> None:
        self._tests, self._embedder = Pool(embedder, tests), embedder
        self._runs: dict[str, QAPair] = {}
        sharing = Counter(run for pair in tests for run in set(_runs(pair.asked)))
        for pair in tests:
            for run in _runs(pair.asked):
                if sharing[run] <= STOCK:
                    self._runs.setdefault(run, pair)

    def key(self) -> dict[str, Any]:
        """What is kept out."""
        return {
            "guard": "tests",
            "tests": ids_hash(self._tests),
            "embedder": part_key(self._embedder),
            "words": WORDS,
            "cosine": COSINE,
        }

    def leak(self, question: str) -> Leak | None:
        """The test that a question gives away, or None."""
        for run in _runs(question):
            if pair := self._runs.get(run):
                how = f"{WORDS} words in a row: {run}" if len(run.split()) == WORDS else "the same words"
                return Leak(pair.id, pair.asked, question, how)
        found = self._tests.closest(question)
        if found is None or found[1] < COSINE:
            return None
        pair, cosine = found
        return Leak(pair.id, pair.asked, question, f"cosine {cosine:.2f}")

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection that says how near, and names the test."""
        found = self.leak(candidate.pair.asked)
        return Rejection("near_test", found.how, COSINE, found.test) if found else None

    def leaks(self, pairs: Iterable[QAPair]) -> list[Leak]:
        """What pairs give away of the tests, in their order."""
        return [found for pair in pairs if (found := self.leak(pair.asked))]


def one_source(config: Config) -> bool:
    """Whether seeds and tests come from one source: a share of one file, or files that lie side by side."""
    return not isinstance(config.heldout, str) or Path(config.heldout).parent == Path(config.seeds).parent


def _runs(question: str) -> list[str]:
    words = tokenize(question)
    return list(ngrams(words, WORDS)) if len(words) >= WORDS else [" ".join(words)] if words else []
