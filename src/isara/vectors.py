"""Vectors of many texts, and the rows nearest to other vectors: exact, on any number of threads."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 6  # of a cosine


class Vectors:
    """Rows of length 1, in blocks: copies share them, and a product of all rows is never held as a whole.

    A cosine is a sum in float64, rounded to six decimals: its last bits, which depend on threads and on the row's
    place, are gone, and rows of equal vectors are equally near. Products in float32, which are quick, only say which
    rows can be among the nearest.
    """

    block = 16_384  # rows

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.float32]] = []  # all full but the last, which has room to grow
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Appends rows, shape (n, dim)."""
        while len(vectors):
            used = self._rows % self.block
            if not used:
                self._blocks.append(np.empty((0, vectors.shape[1]), dtype=np.float32))
            if used == len(self._blocks[-1]):
                grown = np.empty((min(max(2 * used, len(vectors)), self.block), vectors.shape[1]), dtype=np.float32)
                grown[:used] = self._blocks[-1]
                self._blocks[-1] = grown
            taken = vectors[: len(self._blocks[-1]) - used]
            self._blocks[-1][used : used + len(taken)] = taken
            self._rows += len(taken)
            vectors = vectors[len(taken) :]

    def first(self, n: int) -> "Vectors":
        """A copy of the first n rows; full blocks, which nobody writes any more, are shared."""
        copy, (full, rest) = Vectors(), divmod(n, self.block)
        copy._blocks, copy._rows = self._blocks[:full], full * self.block
        if rest:
            copy.add(self._blocks[full][:rest])
        return copy

    def cosines(self, vector: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cosines of a vector of shape (dim,) with these rows, which are in order; shape (len(rows),), in [-1, 1]."""
        parts = [
            block[rows[slice(*np.searchsorted(rows, (start, start + len(block))))] - start].astype(np.float64) @ vector
            for start, block in self._filled()
        ]
        return np.round(np.concatenate([np.zeros(0), *parts]), _DECIMALS)

    def shortlists(self, vectors: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
        """For each of the vectors, shape (m, dim), rows in order that hold its k nearest and all that are as near."""
        # A sum of dim products of float32 is off by dim · 2^-24 at most where both vectors have length 1 (Higham 2002,
        # section 3.1), and so is the k-th; cosines are equal after rounding where they differ by less than 10^-6.
        slack = np.float32(2.2 * vectors.shape[1] * 2**-24 + 1.1 * 10**-_DECIMALS)
        found = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))] * len(vectors)
        floor = np.full(len(vectors), -np.inf, dtype=np.float32)
        for start, block in self._filled():
            products = vectors @ block.T
            for each in np.flatnonzero(~(products.max(axis=1) < floor)):  # also where one of them is not a number
                new = np.flatnonzero(products[each] >= floor[each])
                rows = np.append(found[each][0], new + start)
                near = np.append(found[each][1], products[each, new])
                if len(near) >= k:
                    floor[each] = np.partition(near, -k)[-k] - slack
                found[each] = rows[near >= floor[each]], near[near >= floor[each]]
        return [rows for rows, _ in found]

    def _filled(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The blocks with the row that each begins at."""
        for start, block in zip(range(0, self._rows, self.block), self._blocks, strict=True):
            yield start, block[: self._rows - start]
