"""What new questions are drawn around: the seeds that the model finds hardest, or the seeds' clusters in turn."""

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

from isara.pool import Pool
from isara.records import QAPair


class Focus(Protocol):
    """Draws the seeds that stand nearest to a new question."""

    def draw(self, turn: int, n: int, rng: random.Random) -> list[QAPair]:
        """At most n seeds for the prompt of this number (from 0 in the iteration), the centre first."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What it was worked out from, by seed id."""
        ...


class Worst:
    """Draws seeds by how badly the model answers them: LLM2LLM (arXiv 2403.15042) with a rank for its yes or no.

    A seed's chance is its rank: that of the costliest answer is n times that of the cheapest (our choice; ranks,
    because one odd seed must not take all).

    Args:
        seeds: The seeds.
        losses: What each one's answer costs, in bits a token.
    """

    def __init__(self, seeds: Sequence[QAPair], losses: Sequence[float]) -> None:
        self.losses = {seed.id: loss for seed, loss in zip(seeds, losses, strict=True)}
        # Of equals the earlier seed has the higher rank.
        self._ranked = sorted(seeds, key=lambda seed: -self.losses[seed.id])[::-1]

    def draw(self, turn: int, n: int, rng: random.Random) -> list[QAPair]:
        """Draws n seeds without replacement, each with a chance in proportion to its rank among those left."""
        left = list(enumerate(self._ranked, 1))
        drawn: list[QAPair] = []
        while left and len(drawn) < n:
            [place] = rng.choices(range(len(left)), weights=[rank for rank, _ in left])
            drawn.append(left.pop(place)[1])
        return drawn

    def to_json(self) -> dict[str, Any]:
        """Bits a token."""
        return {"worst": self.losses}


class Balanced:
    """Draws seeds of one cluster at a time, so that small clusters get as many questions as large ones.

    Clusters are Ward's (scikit-learn) on the questions' embeddings, sqrt(n / 2) of them (our choice): the same seeds
    always fall into the same clusters.

    Args:
        seeds: The seeds.
    """

    def __init__(self, seeds: Pool) -> None:
        self.clusters = clusters(seeds)

    def draw(self, turn: int, n: int, rng: random.Random) -> list[QAPair]:
        """Draws n seeds of the cluster whose turn it is, or all it has."""
        cluster = self.clusters[turn % len(self.clusters)]
        return rng.sample(cluster, min(n, len(cluster)))

    def to_json(self) -> dict[str, Any]:
        """The ids of each cluster."""
        return {"balanced": [[seed.id for seed in cluster] for cluster in self.clusters]}


def clusters(seeds: Pool) -> list[list[QAPair]]:
    """The seeds in sqrt(n / 2) clusters by nearness of their questions, in the order of their first seeds."""
    count = max(1, round(math.sqrt(len(seeds) / 2)))
    if count == 1:
        return [list(seeds.pairs)]
    from sklearn.cluster import AgglomerativeClustering

    vectors = seeds.embedder.encode([seed.asked for seed in seeds.pairs])
    labels = AgglomerativeClustering(n_clusters=count, linkage="ward").fit_predict(vectors)
    found: dict[int, list[QAPair]] = {}
    for seed, label in zip(seeds.pairs, labels.tolist(), strict=True):
        found.setdefault(label, []).append(seed)
    return list(found.values())


def around(pool: Pool, drawn: Sequence[QAPair], n: int) -> list[QAPair]:
    """The drawn pairs, the centre last, after as many of its neighbours in the pool as make n pairs together."""
    centre = drawn[0]
    near = pool.nearest(centre, n - len(drawn), leave_out=[pair.id for pair in drawn])
    return [pair for pair, _ in near] + list(drawn[::-1])
