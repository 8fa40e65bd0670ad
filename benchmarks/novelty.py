"""Times the novelty filter against a loop over `rouge_score`: python benchmarks/novelty.py.

Questions are 5 to 22 random words (Zipf); one candidate in ten is a kept question with a few words changed, so that
there are duplicates and ties to decide. Ends with an error where the two disagree.
"""

import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from rouge_score import rouge_scorer

from isara.filters import NearDuplicate, Novelty
from isara.pool import Pool
from isara.records import Candidate, Completion, QAPair

WORDS = [f"w{number}" for number in range(20_000)]
WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(WORDS))))


class RandomEmbedder:
    """As many numbers as all-MiniLM-L6-v2 gives, so that the pool has its size."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Random vectors of shape (len(texts), 384) and length 1."""
        vectors = np.random.default_rng(len(texts)).standard_normal((len(texts), 384), dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def question(rng: random.Random) -> str:
    """A random question."""
    return " ".join(rng.choices(WORDS, cum_weights=WEIGHTS, k=rng.randint(5, 22))) + "?"


def candidates(kept: Pool, n: int, rng: random.Random) -> list[Candidate]:
    """New questions, one in ten a changed copy of a kept one."""
    texts = [question(rng) if number % 10 else changed(rng.choice(kept.pairs).question, rng) for number in range(n)]
    return [Candidate(QAPair(text, ""), Completion(text, len(text.split()), "stop")) for text in texts]


def changed(text: str, rng: random.Random) -> str:
    """The text with three words in ten replaced: F is about 0.7."""
    return " ".join(rng.choice(WORDS) if rng.random() < 0.3 else word for word in text.split())


def plain(candidate: Candidate, kept: Pool, scorer: rouge_scorer.RougeScorer) -> bool:
    """Whether a kept question has a ROUGE-L F of 0.7 or more, as rouge_score tells it.

    Rounded, because in floating point a tie can come out as 0.6999999999999998 (23 and 37 words).
    """
    scores = (scorer.score(pair.question, candidate.pair.question)["rougeL"].fmeasure for pair in kept.pairs)
    return any(round(score, 9) >= 0.7 for score in scores)


def seconds(decide: Callable[[Candidate], object], rows: Sequence[Candidate]) -> tuple[float, list[bool]]:
    """Mean seconds a candidate, and which ones were dropped."""
    start = time.perf_counter()
    dropped = [bool(decide(row)) for row in rows]
    return (time.perf_counter() - start) / len(rows), dropped


def peak_mb() -> float:
    """The most memory that this process, libraries included, has held so far, in MB."""
    unit = 1e6 if sys.platform == "darwin" else 1e3  # Linux counts in KB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Prints the table."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    print("| pool | rouge_score, ms a candidate | isara, ms | times faster | embeddings, ms | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for size, compared in ((1_000, 40), (10_000, 10), (100_000, 0)):
        rng = random.Random(size)
        kept = Pool(RandomEmbedder(), (QAPair(question(rng), f"answer {number}") for number in range(size)))
        rows = candidates(kept, 200, rng)
        novelty, embedded = Novelty(0.7), NearDuplicate(0.95)
        novelty(rows[0], kept)  # takes the pool in, which a run does pair by pair
        embedded(rows[0], kept)
        ours, decisions = seconds(lambda row: novelty(row, kept), rows)  # noqa: B023 - called at once
        near, _ = seconds(lambda row: embedded(row, kept), rows)  # noqa: B023
        theirs = ratio = "-"
        if compared:
            slow, expected = seconds(lambda row: plain(row, kept, scorer), rows[:compared])  # noqa: B023
            if expected != decisions[:compared]:
                raise SystemExit(f"decisions differ at a pool of {size}")
            theirs, ratio = f"{slow * 1e3:,.0f}", f"{slow / ours:,.0f}"
        print(f"| {size:,} | {theirs} | {ours * 1e3:.2f} | {ratio} | {near * 1e3:.2f} | {peak_mb():.0f} |")


if __name__ == "__main__":
    main()
