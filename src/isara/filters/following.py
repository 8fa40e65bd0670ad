"""The seeds among the kept pairs, for filters that hold candidates against them."""

from isara.pool import Pool
from isara.records import QAPair


class SeedsOf:
    """Gives a pool's seeds; the same tuple as long as they are the same, so that what is worked out on them stays."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._seen = 0
        self._seeds: tuple[QAPair, ...] = ()

    def __call__(self, kept: Pool) -> tuple[QAPair, ...]:
        """The pairs of iteration 0."""
        if kept is not self._pool or self._seen < len(kept):
            start, seeds = (self._seen, self._seeds) if kept is self._pool else (0, ())
            seeds = (*seeds, *(pair for pair in kept.pairs[start:] if pair.iteration == 0))
            self._pool, self._seen = kept, len(kept)
            if seeds != self._seeds:
                self._seeds = seeds
        return self._seeds
