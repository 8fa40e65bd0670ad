"""Times exact neighbours in large pools: python benchmarks/retrieval.py [PAIRS …].

Vectors have all-MiniLM-L6-v2's 384 numbers and lie in clusters of about fifty. Looked up are the five nearest of 64
questions, one by one and as a batch that the pool was told of before. Ends with an error where the two differ from one
another or from a plain sort in float64.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isara.hardware import peak_memory
from isara.pool import Pool
from isara.records import QAPair

QUESTIONS, K, DIM, CLUSTER = 64, 5, 384, 50


class Clustered:
    """A text is a number; its vector is that of its cluster, moved by noise that leaves a cosine of about 0.8."""

    def __init__(self, pairs: int) -> None:
        self.centres = np.random.default_rng(0).standard_normal((pairs // CLUSTER, DIM), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), 384) and length 1."""
        noise = [np.random.default_rng(int(text)).standard_normal(DIM, dtype=np.float32) for text in texts]
        centres = self.centres[[int(text) % len(self.centres) for text in texts]]
        vectors = centres + np.float32(0.7) * np.array(noise)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def plain(pool: Pool, question: str) -> list[str]:
    """The ids of the five nearest, nearest last, by a plain sort of all cosines."""
    order = np.argsort(-pool.similarities(question), kind="stable")
    return [pool.pairs[row].id for row in order[:K]][::-1]


def look_up(pool: Pool, questions: Sequence[str]) -> tuple[float, list[list[str]]]:
    """Milliseconds of processor time a question, and the ids that were found."""
    start = time.process_time()
    found = [pool.nearest(question, K) for question in questions]
    spent = (time.process_time() - start) / len(questions) * 1e3
    return spent, [[pair.id for pair, _ in near] for near in found]


def main() -> None:
    """Prints the table."""
    print("| pairs | one by one, ms a question | in a batch of 64, ms | 64 pairs more, ms | peak memory, MB |")
    print("|---|---|---|---|---|")
    for pairs in [int(number) for number in sys.argv[1:]] or [1_000, 10_000, 100_000, 1_000_000]:
        pool = Pool(Clustered(pairs), (QAPair(str(number), "") for number in range(pairs)))
        questions = [str(pairs + number) for number in range(QUESTIONS)]
        pool.closest(questions[0])  # embeds the pairs, which is not what is timed
        single, alone = look_up(pool, questions[:16])
        pool.large = 0
        runs = []
        for _ in range(3):
            pool.expect(questions)
            runs.append(look_up(pool, questions))
        batch, together = min(runs)
        if together[:16] != alone or together[:4] != [plain(pool, question) for question in questions[:4]]:
            raise SystemExit(f"neighbours differ in a pool of {pairs}")
        start = time.process_time()
        pool.add(QAPair(str(2 * pairs + number), "") for number in range(QUESTIONS))
        pool.closest(questions[0])
        more = (time.process_time() - start) * 1e3
        print(
            f"| {pairs:,} | {single:.1f} | {batch:.1f} | {more:.1f} | {(peak_memory() or 0) / 1e6:,.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
