"""Figures that show a collapse: how varied the accepted pairs are, and how far they have left the seeds."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from isara.kinds import OTHER, Kinds, KindShare, kinds_report
from isara.marks import turn_mark
from isara.nearness import MOST, least_nearness, nearest_others, stride
from isara.pool import Pool
from isara.words import repeated_share, tokenize

_log = logging.getLogger("isara")
_DOMAIN = 0.95  # share of the seeds that are inside their own domain by definition
_NGRAM = 4  # as the filter `repetition` has it
_SPREADS, _FEWEST = 0.3, 20  # a share that moves so far among so many accepted pairs is worth a warning
# A kind is lost under half of its share among the seeds, if draws at that share give so few once in a hundred at most.
_LOST, _BELOW_CHANCE = 0.5, 2.33  # standard deviations


def collapse_figures(demonstrations: Pool, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What stats.json says of an iteration's rows beside the funnel; docs/run-folder.md says what each figure means.

    Args:
        demonstrations: D_{t-1}; the seeds are among them, and its embedder measures nearness.
        rows: All candidates as they are stored.
    """
    seeds = Pool(demonstrations.embedder, (pair for pair in demonstrations.pairs if pair.iteration == 0))
    accepted = [row for row in rows if row["accepted"]]
    answers = [row["answer"] for row in rows if row["answer_draws"]]
    kinds = kinds_report([pair.answer for pair in seeds.pairs], [row["answer"] for row in accepted])
    _warn_of_spread(kinds, len(accepted))
    _warn_of_lost(kinds, [pair.answer for pair in seeds.pairs], rows)
    return {
        **diversity(accepted),
        **dict(_nearness(seeds, [row["question"] for row in accepted])),
        **dict(_faults(answers)),
        "kinds": {share.kind: {"seeds": share.seeds, "accepted": share.accepted} for share in kinds},
    }


def diversity(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Distinct-1 and distinct-2 of questions and answers, and their mean lengths in words.

    Distinct-n is the share of n-grams that are different (Li et al. 2016, arXiv 1510.03055, section 5); it falls as
    texts grow more alike, and also as there are more of them, so compare it between iterations of equal size.
    """
    figures: dict[str, float] = {}
    for name in ("question", "answer"):
        texts = [str(row[name]).lower().split() for row in rows]
        for n in (1, 2):
            grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
            figures[f"{name}_distinct_{n}"] = round(len(set(grams)) / max(1, len(grams)), 4)
        figures[f"{name}_words"] = round(sum(map(len, texts)) / max(1, len(texts)), 2)
    return figures


def _nearness(seeds: Pool, questions: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Mean cosine to the nearest other question and to the nearest seed, and the share inside the seeds' domain."""
    if len(questions) > 1:
        yield "question_nearest", _mean(nearest_others(seeds.embedder, questions))
    if questions and len(seeds):
        measured = questions[:: stride(len(questions), MOST)]
        nearest = [found[1] for question in measured if (found := seeds.closest(question))]
        yield "question_nearest_seed", _mean(nearest)
        least = least_nearness(seeds.embedder, [pair.asked for pair in seeds.pairs], _DOMAIN)
        if least is not None:
            yield "question_in_domain", _mean([cosine >= least for cosine in nearest])


def _faults(answers: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Of all answers, accepted or not: the share that runs on, and the mean share of words in repeated 4-grams."""
    if answers:
        yield "answer_run_on", _mean([turn_mark(answer) is not None for answer in answers])
        yield "answer_repetition", _mean([repeated_share(tokenize(answer), _NGRAM) for answer in answers])


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


def _warn_of_spread(kinds: Sequence[KindShare], accepted: int) -> None:
    moved = max(kinds, key=lambda share: abs(share.accepted - share.seeds))
    if accepted >= _FEWEST and abs(moved.accepted - moved.seeds) > _SPREADS:
        _log.warning(
            "answers of the kind %r are %.0f %% of the accepted pairs and %.0f %% of the seeds: read some of them; "
            "filters.balance keeps kinds near the seeds'",
            moved.kind,
            100 * moved.accepted,
            100 * moved.seeds,
        )


def _warn_of_lost(kinds: Sequence[KindShare], seeds: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Names the kinds of the seeds' answers that the accepted pairs hardly have, each with what took most of them."""
    accepted = sum(row["accepted"] for row in rows)
    lost = [share for share in kinds if share.kind != OTHER and _is_lost(share, accepted)]
    if accepted < _FEWEST or not lost:
        return
    # What is surplus was looked at by no filter.
    dropped = [
        row for row in rows if row["answer_draws"] and not row["accepted"] and row["rejection"]["reason"] != "surplus"
    ]
    kind_of = zip(dropped, Kinds(seeds).of([row["answer"] for row in dropped]), strict=True)
    took = {share.kind: Counter[str]() for share in lost}
    for row, kind in kind_of:
        if kind in took:
            took[kind][row["rejection"]["reason"]] += 1
    named = [
        f"{share.kind!r} ({100 * share.seeds:.0f} % of the seeds, {100 * share.accepted:.0f} % of the pairs"
        + "".join(f"; {reason} took {count}" for reason, count in took[share.kind].most_common(1))
        + ")"
        for share in lost
    ]
    # What was dropped is the cause where it would have sufficed.
    wanted = sum(_LOST * share.seeds - share.accepted for share in lost) * accepted
    reasons = [(why, count) for why, count in sum(took.values(), Counter[str]()).most_common(1) if count >= wanted]
    _log.warning(
        "the accepted pairs hardly have %s, and a model forgets what its pairs lack: %s",
        ", ".join(named),
        _FORGOTTEN.get(reasons[0][0] if reasons else "", "loosen what took them, or ask evenly (questions.focus)"),
    )


def _is_lost(share: KindShare, accepted: int) -> bool:
    few = share.seeds - _BELOW_CHANCE * sqrt(share.seeds * (1 - share.seeds) / max(1, accepted))
    return share.accepted < min(_LOST * share.seeds, few)


_FORGOTTEN = {
    "agreement": "second answers are no such answers either; filters.kind: true with filters.agreement: null "
    "asks the seeds' questions instead",
    "": "the model doesn't give such answers; ask evenly (questions.focus), or add seeds like them",
}
