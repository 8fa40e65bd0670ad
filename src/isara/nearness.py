"""How near questions are to one another, and from which cosine on a question belongs to the seeds' domain."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isara.pool import Embedder

MOST = 2000  # texts that are measured, each beside all others; of more it is every second, third …
_BLOCK, _CELLS = 1000, 2**25  # rows and numbers of the matrix of similarities that are held at once
FEWEST = 10  # questions of which a share says something


def nearest_others(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Cosine of each text to the most similar of the others; of more than `MOST` texts, some are measured.

    At least two texts are needed.
    """
    vectors = embedder.encode(texts)
    measured = np.arange(0, len(texts), stride(len(texts), MOST))
    size = max(1, min(_BLOCK, _CELLS // len(texts)))
    found = np.empty(len(measured))
    for start in range(0, len(measured), size):
        rows = measured[start : start + size]
        block = vectors[rows] @ vectors.T
        block[np.arange(len(rows)), rows] = -np.inf
        found[start : start + size] = block.max(axis=1)
    # As the pool has them: the last bits of a product depend on the shape of the matrix and on the threads.
    return np.round(found, 6)


def stride(count: int, most: int) -> int:
    """Which of so many are looked at, so that they are no more than `most`: 1 is each, 2 every second."""
    return max(1, math.ceil(count / most))


def least_nearness(embedder: Embedder, questions: Sequence[str], share: float) -> float | None:
    """The cosine to the nearest other question that `share` of the questions reach, each left out in its turn.

    Args:
        embedder: Measures nearness.
        questions: The seeds'.
        share: In (0, 1); 0.95 gives the 5th percentile.

    Returns:
        None where there are too few questions for the share to mean anything: fewer than ten.
    """
    if len(questions) < FEWEST:
        return None
    nearest = np.sort(nearest_others(embedder, questions))
    # The decimal number as written: 1 - 0.95 is a little more than 0.05.
    return float(nearest[int(round((1 - share) * len(nearest), 9))])
