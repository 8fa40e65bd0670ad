"""Held against the seeds' kinds of answers: does the question look like one that is answered in this way?"""

import logging
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isara.filters.following import SeedsOf
from isara.kinds import OTHER, Kinds
from isara.nearness import stride
from isara.pool import Embedder, Pool
from isara.records import Candidate, QAPair, Rejection

_log = logging.getLogger("isara")
_FEWEST = 3  # seeds that a kind is learnt from
_MOST = 200  # seeds that it is learnt from: each is predicted by all others
# Balanced accuracy, by leave-one-out, from which on two kinds are told apart by their questions. By MiniLM the two
# wordings of a refusal in the safety recipe have 0.41, refusals and help 0.71, and of the 21 pairs of the shop's rules
# 20 have 0.62 or more; by shared words no two kinds of either recipe have 0.6 (our choice).
_TOLD_APART = 0.6
_BEYOND_CHANCE = 2.33  # standard deviations: one draw at random in a hundred has that much (one-sided)


class Kind:
    """Drops an answer of another kind than its question lets expect.

    Kinds of answers (a refusal, help, a rule of the house) are those that `Kinds` finds among the seeds'. A linear
    probe of the questions' embeddings, fitted to the seeds, says which kind a question asks for. It is a second view
    of the question in the sense of co-training (Blum and Mitchell 1998): the model answers what its demonstrations
    answer, and the probe knows nothing of those.

    Where the probe does not find the kinds of the seeds' own questions beyond chance, each by the others, nothing is
    dropped, and a line in the log says so.
    """

    def __init__(self) -> None:
        self._seeds_of = SeedsOf()
        self._seeds: tuple[QAPair, ...] = ()
        self._probe: KindProbe | None = None

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the kind of the answer and whose threshold is the kind that was expected."""
        probe = self._follow(kept)
        if probe is None:
            return None
        given, expected = probe.kind_of(candidate.pair.answer), probe.expected(candidate.pair.asked)
        return Rejection("kind", given, ", ".join(expected)) if given not in expected else None

    def _follow(self, kept: Pool) -> "KindProbe | None":
        seeds = self._seeds_of(kept)
        if seeds is not self._seeds:
            self._seeds, probe = seeds, KindProbe(kept.embedder, seeds)
            self._probe = probe if probe.tells else None
            if self._probe is None:
                _log.warning(
                    "filters.kind drops nothing: the seeds' questions don't tell kinds of answers apart (%s); name an "
                    "embedding model with retrieve.embedder if questions are compared by their words",
                    "; ".join(probe.names) or "none was found",
                )
            else:
                _log.info(
                    "filters.kind: %d kinds of answers, of which the seeds' questions tell %.0f %% (balanced, each by "
                    "the others)",
                    len(probe.groups),
                    100 * probe.accuracy,
                )
        return self._probe


class KindProbe:
    """A multinomial logistic regression from questions to kinds of answers, each kind weighing as much as the others.

    Kinds that questions don't tell apart, as two wordings of a refusal, are one: the two that are told apart least
    are joined until the rest are. What fewer than three seeds have is no kind.

    Args:
        embedder: Of the questions.
        seeds: Whose kinds of answers are learnt; of many, some.

    Attributes:
        names: The kinds of the seeds' answers.
        groups: Kinds that are one to the probe, together.
        accuracy: Share of the seeds' questions whose group is found by the other seeds, the mean over groups; 0.0
            where there is one group.
        named: Share of the seeds whose answer is of a kind that has a name; the others' are of none.
    """

    def __init__(self, embedder: Embedder, seeds: Sequence[QAPair]) -> None:
        seeds = seeds[:: stride(len(seeds), _MOST)]
        self._embedder = embedder
        self._kinds = Kinds([pair.answer for pair in seeds])
        found = np.array(self._kinds.of([pair.answer for pair in seeds]), dtype=object)
        counted = [kind for kind in (*self._kinds.names, OTHER) if np.sum(found == kind) >= _FEWEST]
        rows = np.flatnonzero(np.isin(found, counted)) if self._kinds.names else np.array([], dtype=int)
        vectors = embedder.encode([seeds[row].asked for row in rows]).astype(np.float64) if len(rows) else np.empty(0)
        self.names = tuple(self._kinds.names)
        self.named = float(np.mean(found != OTHER)) if len(found) else 0.0
        self.groups = _told_apart(vectors, found[rows], counted) if len(rows) else []
        self.accuracy = 0.0
        self._sizes = [int(np.sum(np.isin(found[rows], group))) for group in self.groups]
        if len(self.groups) > 1:
            number = {kind: place for place, group in enumerate(self.groups) for kind in group}
            labels = np.array([number[kind] for kind in found[rows]])
            self.accuracy = _leave_one_out(vectors, labels)
            self._fitted = _probe().fit(vectors, labels)

    @property
    def tells(self) -> bool:
        """Whether there is more than one group, and the accuracy is more than chance gives."""
        if len(self.groups) < 2:
            return False
        # A mean of the groups' shares: the small ones vary most.
        chance, count = 1 / len(self.groups), len(self.groups)
        variance = chance * (1 - chance) * sum(1 / size for size in self._sizes) / count**2
        return self.accuracy >= chance + _BEYOND_CHANCE * math.sqrt(variance)

    def kind_of(self, answer: str) -> str:
        """The kind of an answer; `OTHER` where it is of none."""
        return self._kinds.of([answer])[0]

    def expected(self, question: str) -> tuple[str, ...]:
        """The kinds that an answer to a question may be of."""
        vector = self._embedder.encode([question]).astype(np.float64)
        return self.groups[int(self._fitted.predict(vector)[0])]


def _told_apart(
    vectors: NDArray[np.float64], kinds: NDArray[np.object_], counted: Sequence[str]
) -> list[tuple[str, ...]]:
    """The kinds as groups of those that the vectors don't tell apart."""
    groups: list[tuple[str, ...]] = [(kind,) for kind in counted]
    parted: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
    while len(groups) > 1:
        for one, other in combinations(groups, 2):
            if (one, other) not in parted:
                rows = np.isin(kinds, [*one, *other])
                parted[one, other] = _leave_one_out(vectors[rows], np.isin(kinds[rows], one))
        one, other = min(combinations(groups, 2), key=lambda pair: parted[pair])
        if parted[one, other] >= _TOLD_APART:
            break
        groups = [(*one, *other) if group == one else group for group in groups if group != other]
    return groups


def _leave_one_out(vectors: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Balanced accuracy of rows that are predicted by all others."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    return float(balanced_accuracy_score(labels, cross_val_predict(_probe(), vectors, labels, cv=LeaveOneOut())))


def _probe() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", max_iter=1000)
