"""Held against the seeds as a whole: is a question of their domain, and does one kind of answer spread?"""

import logging
from collections import Counter
from collections.abc import Sequence

from isara.filters.following import SeedsOf
from isara.kinds import OTHER, Kinds
from isara.nearness import FEWEST, least_nearness
from isara.pool import Embedder, Pool
from isara.records import Candidate, QAPair, Rejection

_log = logging.getLogger("isara")
_NEIGHBOURS = 5  # seeds that say which kinds of answer a question may have


class OffDomain:
    """Drops a question that is farther from every seed than nearly all seeds are from the other seeds.

    Args:
        off_domain: Share of the seeds that would pass, each held against the others: 0.95 puts the threshold at the 5th
            percentile of the cosines to the nearest other seed.

    With fewer than ten seeds nothing is dropped, and a line in the log says so.
    """

    def __init__(self, off_domain: float) -> None:
        self.off_domain = off_domain
        self._seeds_of = SeedsOf()
        self._seeds: tuple[QAPair, ...] = ()
        self._pool: Pool | None = None
        self._least: float | None = None

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the cosine to the nearest seed, the cosine that was wanted, and that seed."""
        found = self._follow(kept).closest(candidate.pair.asked)
        if found is None or self._least is None or found[1] >= self._least:
            return None
        return Rejection("off_domain", round(found[1], 4), round(self._least, 4), found[0].id)

    def _follow(self, kept: Pool) -> Pool:
        seeds = self._seeds_of(kept)
        if self._pool is None or seeds is not self._seeds:
            self._seeds, self._pool = seeds, Pool(kept.embedder, seeds)
            self._least = least_nearness(kept.embedder, [pair.asked for pair in seeds], self.off_domain)
            if self._least is None:
                _log.warning(
                    "filters.off_domain drops nothing: it takes %d seeds to say how near they are to one another, and "
                    "there are %d",
                    *(FEWEST, len(seeds)),
                )
            elif str(getattr(kept.embedder, "name", "")).startswith("lexical"):
                _log.warning(
                    "filters.off_domain tells little by shared words: name an embedding model with retrieve.embedder"
                )
        return self._pool


class Balance:
    """Drops answers of a kind that spreads: beyond what the seeds around the questions give.

    Kinds of answers are those that `Kinds` finds among the seeds'. The five seeds nearest to a question vote on the
    kind of its answer; the kind with most votes is the question's region. In each region every kind may be given as
    often as was voted for it, one time more, and `balance` times the region's rows; a kind without a vote has not that
    one more. Counted are the generated pairs that were kept so far.

    Args:
        balance: What a kind may have beyond its votes, as a share of the region's rows.
    """

    def __init__(self, balance: float) -> None:
        self.balance = balance
        self._seeds_of = SeedsOf()
        self._seeds: tuple[QAPair, ...] = ()
        self._regions: _Regions | None = None
        self._counted: Pool | None = None
        self._seen = 0
        self._rows: Counter[str] = Counter()  # by region
        self._given: Counter[tuple[str, str]] = Counter()  # by region and kind
        self._votes: Counter[tuple[str, str]] = Counter()

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the kind and whose threshold are the kinds of the nearest seeds."""
        regions = self._follow(kept)
        if not regions.kinds.names:
            return None
        region, kind, votes = regions.place(candidate.pair)
        given, rows = self._given[region, kind] + 1, self._rows[region] + 1
        voted = (self._votes[region, kind] + votes[kind]) / _NEIGHBOURS
        if given <= voted + (votes[kind] > 0) + self.balance * rows:
            return None
        return Rejection("balance", kind, ", ".join(sorted(votes)))

    def _follow(self, kept: Pool) -> "_Regions":
        seeds = self._seeds_of(kept)
        if self._regions is None or seeds is not self._seeds:
            self._seeds, self._regions, self._counted = seeds, _Regions(kept.embedder, seeds), None
        if kept is not self._counted:
            self._counted, self._seen = kept, 0
            self._rows, self._given, self._votes = Counter(), Counter(), Counter()
        for pair in kept.pairs[self._seen :]:
            if pair.iteration > 0 and self._regions.kinds.names:
                region, kind, votes = self._regions.place(pair)
                self._rows[region] += 1
                self._given[region, kind] += 1
                self._votes.update({(region, voted): count for voted, count in votes.items()})
        self._seen = len(kept)
        return self._regions


class _Regions:
    """The kinds of answers around a question.

    Args:
        embedder: Measures nearness.
        seeds: Give kinds and votes.
    """

    def __init__(self, embedder: Embedder, seeds: Sequence[QAPair]) -> None:
        answers = [pair.answer for pair in seeds]
        self.kinds = Kinds(answers)
        self._pool = Pool(embedder, seeds)
        self._kind_of = dict(zip((pair.id for pair in seeds), self.kinds.of(answers), strict=True))

    def place(self, pair: QAPair) -> tuple[str, str, Counter[str]]:
        """The pair's region, the kind of its answer, and the votes of the nearest seeds."""
        near = [self._kind_of[seed.id] for seed, _ in self._pool.nearest(pair, _NEIGHBOURS)]
        votes = Counter(near)
        most = max(votes.values(), default=0)
        region = next((kind for kind in reversed(near) if votes[kind] == most), OTHER)  # of equals, that of the nearest
        return region, self.kinds.of([pair.answer])[0], votes
