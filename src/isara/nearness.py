"""How near questions are to one another, and from which cosine on a question belongs to the seeds' domain."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isara.pool import Embedder

_BLOCK = 1000  # rows of the matrix of similarities that are held at once
_FEWEST = 10  # questions of which a share says something


def nearest_others(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Cosine of each text to the most similar of the others, shape (len(texts),); at least two texts are needed."""
    vectors = embedder.encode(texts)
    found = np.empty(len(texts))
    for start in range(0, len(texts), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        found[start : start + _BLOCK] = block.max(axis=1)
    # As the pool has them: the last bits of a product depend on the shape of the matrix and on the threads.
    return np.round(found, 6)


def least_nearness(embedder: Embedder, questions: Sequence[str], share: float) -> float | None:
    """The cosine to the nearest other question that `share` of the questions reach, each left out in its turn.

    Args:
        embedder: Measures nearness.
        questions: The seeds'.
        share: In (0, 1); 0.95 gives the 5th percentile.

    Returns:
        None where there are too few questions for the share to mean anything: fewer than ten.
    """
    if len(questions) < _FEWEST:
        return None
    nearest = np.sort(nearest_others(embedder, questions))
    # The decimal number as written: 1 - 0.95 is a little more than 0.05.
    return float(nearest[int(round((1 - share) * len(nearest), 9))])
