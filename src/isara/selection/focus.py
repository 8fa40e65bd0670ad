"""What new questions are drawn around: the seeds that the model finds hardest, their clusters, or a kind of answer."""

import logging
import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

from isara.kinds import OTHER, Kinds
from isara.pool import Pool, Retrieve, RetrieveKind, retriever
from isara.records import Candidate, QAPair

log = logging.getLogger("isara")

_FEWEST = 3  # seeds that are a kind here; what has fewer is among the others


class Focus(Protocol):
    """Draws the seeds that stand nearest to a new question."""

    def draw(self, turn: int, n: int, rng: random.Random) -> list[QAPair]:
        """At most n seeds for the prompt of this number (from 0 in the iteration), the centre first."""
        ...

    def fill(self, pool: Pool, drawn: Sequence[QAPair], n: int) -> list[QAPair]:
        """The drawn pairs, the centre last, after as many of its neighbours as make n pairs together."""
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

    def fill(self, pool: Pool, drawn: Sequence[QAPair], n: int) -> list[QAPair]:
        """With neighbours from the pool."""
        return around(pool, drawn, n)

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

    def fill(self, pool: Pool, drawn: Sequence[QAPair], n: int) -> list[QAPair]:
        """With neighbours from the pool."""
        return around(pool, drawn, n)

    def to_json(self) -> dict[str, Any]:
        """The ids of each cluster."""
        return {"balanced": [[seed.id for seed in cluster] for cluster in self.clusters]}


class ByKind:
    """Draws seeds of one kind of answer, and has the answers follow pairs of that kind alone.

    A model that is shown refusals beside help takes the manner of most of what it is shown, whatever is asked. Shown
    questions of one kind it asks more of that kind, and the answer is of the kind by construction: what has to be
    right is the question, which `filters.kind` looks at. Conditioning on the class instead of asking for it afterwards
    is how SuperGen makes training data without labels (arXiv 2202.04538). Kinds are drawn as often as the seeds have
    them.

    Args:
        seeds: The seeds.
        source: The pool that the demonstrations for answers come from.
        kind: As `answers.retrieve`.
        k: As `answers.demos`.
        seed: Of random draws.
    """

    def __init__(self, seeds: Pool, source: Pool, kind: RetrieveKind, k: int, seed: int) -> None:
        self._kinds, self._joined = Kinds([pair.answer for pair in seeds.pairs]), frozenset[str]()
        self._joined = frozenset(name for name, pairs in self._parted(seeds.pairs).items() if len(pairs) < _FEWEST)
        self.seeds = self._parted(seeds.pairs)
        if len(self.seeds) < 2:
            log.warning("questions.focus: kinds: the seeds' answers are of one kind, so questions follow any of them")
        elif few := sum(len(pairs) < _FEWEST for pairs in self.seeds.values()):
            log.warning(
                "questions.focus: kinds: %d of %d kinds of answers have fewer than %d seeds, so that their questions "
                "follow the same one or two; add seeds like them",
                *(few, len(self.seeds), _FEWEST),
            )
        self._kind_of = {pair.id: name for name, pairs in self.seeds.items() for pair in pairs}
        self._neighbours = {name: Pool(seeds.embedder, pairs) for name, pairs in self.seeds.items()}
        shown = self._parted(source.pairs)
        self._retrieve = {
            name: retriever(Pool(source.embedder, shown.get(name, pairs)), kind, k, seed)
            for name, pairs in self.seeds.items()
        }

    def draw(self, turn: int, n: int, rng: random.Random) -> list[QAPair]:
        """Draws a seed, and n - 1 others of its kind, or all it has."""
        kind = rng.choices(list(self.seeds), weights=[len(pairs) for pairs in self.seeds.values()])[0]
        return rng.sample(self.seeds[kind], min(n, len(self.seeds[kind])))

    def fill(self, pool: Pool, drawn: Sequence[QAPair], n: int) -> list[QAPair]:
        """With neighbours from the seeds of the kind, as far as there are any."""
        return around(self._neighbours[self._kind_of[drawn[0].id]], drawn, n)

    def answering(self, candidates: Sequence[Candidate], otherwise: Retrieve) -> Retrieve:
        """Gives each candidate's question the nearest pairs of the kind that it was asked after.

        Args:
            candidates: Have been asked.
            otherwise: Serves those in whose prompt no demonstration had room.
        """
        shown = {each.pair.asked: each.question.demo_ids for each in candidates}

        def retrieve(pair: QAPair) -> Sequence[tuple[QAPair, float]]:
            ids = shown[pair.asked]
            return self._retrieve[self._kind_of[ids[-1]]](pair) if ids else otherwise(pair)

        return retrieve

    def to_json(self) -> dict[str, Any]:
        """The ids of each kind."""
        return {"kinds": {name: [seed.id for seed in pairs] for name, pairs in self.seeds.items()}}

    def _parted(self, pairs: Sequence[QAPair]) -> dict[str, list[QAPair]]:
        """Pairs by the kind of their answer, the few among the others."""
        found: dict[str, list[QAPair]] = {}
        for pair, name in zip(pairs, self._kinds.of([pair.answer for pair in pairs]), strict=True):
            found.setdefault(OTHER if name in self._joined else name, []).append(pair)
        return found


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
