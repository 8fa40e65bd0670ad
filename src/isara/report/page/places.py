"""Where questions lie: a map in two dimensions, on which questions that the run takes for near are near."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isara.pool import Embedder

MOST = 2000  # questions on a map: more are no longer points, and would take minutes to embed


def chosen(count: int, most: int = MOST) -> list[int]:
    """So many numbers below `count` as a map has place for, evenly spread."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]


def lay_out(embedder: Embedder, texts: Sequence[str]) -> tuple[list[tuple[float, float]], float]:
    """A place in [-1, 1]² for each text, and the share of the vectors' variance that the map shows.

    The first two principal components of the vectors; the sign of each is such that its largest weight is above 0, so
    the same texts give the same map.
    """
    if len(texts) < 3:
        return [(0.0, 0.0)] * len(texts), 0.0
    vectors = np.asarray(embedder.encode(texts), dtype=np.float64)
    vectors -= vectors.mean(axis=0)
    total = float((vectors**2).sum())
    if not total:
        return [(0.0, 0.0)] * len(texts), 0.0
    places = vectors @ _components(vectors)
    shown = float((places**2).sum()) / total
    places /= max(float(np.abs(places).max()), 1e-12)
    return [(round(float(x), 3), round(float(y), 3)) for x, y in places], round(shown, 3)


def _components(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The two directions of most variance, shape (dim, 2); the second is zero where there is but one."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    best = directions[:, ::-1][:, :2]
    signs = np.sign(best[np.abs(best).argmax(axis=0), range(best.shape[1])])
    found = np.zeros((vectors.shape[1], 2))
    found[:, : best.shape[1]] = best * signs
    return found
