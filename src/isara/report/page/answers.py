"""What each model answered to the held-out pairs, and which of them a gain is about."""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

from isara.evaluate.verdict import MEASURES, SHOWN, Gain, Rival, Verdict
from isara.records import READER, SEEDS_ONLY, GivenAnswer, HeldoutRow
from isara.report.facts import Run
from isara.report.terminal import RIVALS

AFTER_DEMOS = "demos"  # the base model after demonstrations, where other models have their number
Model: TypeAlias = int | str
_RIVALS: dict[Rival, Model] = {
    **{"base": 0, "demonstrations": AFTER_DEMOS, "seeds-only": SEEDS_ONLY},
    "reader": READER,
}
# Scores with columns that are above 0 just where an answer is right: one answer's value may be no more than a weight.
_JUDGED = {"rule": ["right"], "refusal": ["right"]}


def heldout(run: Run) -> list[dict[str, Any]]:
    """Each held-out pair that a model has met, with what every model answered, or what the wanted answer costs it.

    Keys: `id`, `q`, `wanted`, `by` (a dict for each model: `t`, and of `answer`, `cut`, `rouge`, `scores` and `bits`,
    per byte, what is known), and `selects` where the pair chose the iteration and the verdict is about others.
    """
    said = {  # of the first held-out pairs: two dialogues may end with the same question
        (facts.number, pair.id): each.answer
        for facts in run.all
        for pair, each in zip(run.heldout, facts.examples, strict=False)
        if each.question == pair.question
    }
    items = {(facts.number, row.id): row for facts in run.all for row in facts.items}
    chose = {row.id for facts in run.all for row in facts.items if row.selects}
    if not any("score_select" in figures for figures in run.figures.values()):
        chose = set()  # then all of them did
    found = []
    for pair in run.heldout:
        by: list[dict[str, Any]] = []
        for facts in run.all:
            row = items.get((facts.number, pair.id))
            by += _shown(facts.number, row, said.get((facts.number, pair.id)))
        if by:
            shown = {"id": pair.id, "q": pair.asked, "wanted": pair.answer, "by": by}
            found.append({**shown, "selects": True} if pair.id in chose else shown)
    return found


def judged_columns(run: Run) -> list[str]:
    """The columns of the run's score in which an answer is right or wrong, and its value no more than a weight."""
    return _JUDGED.get(str(run.config.evaluate.score), [])


def gains(run: Run, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every iteration's gains over its rivals, each with the places of its pairs.

    Args:
        run: The run.
        shown: The held-out pairs of the page, as `heldout` gives them.
    """
    places = {pair["id"]: place for place, pair in enumerate(shown)}
    return [
        {**_gain(gain, number), "pairs": [places[row] for row in _compared(run, number, gain) if row in places]}
        for number, verdict in _verdicts(run)
        for gain in verdict.gains
    ]


def _verdicts(run: Run) -> Iterator[tuple[int, Verdict]]:
    for facts in run.iterations:
        if (verdict := run.verdict_on(facts.number)) is not None:
            yield facts.number, verdict


def _gain(gain: Gain, number: int) -> dict[str, Any]:
    return {
        "t": number,
        "over": RIVALS[gain.over],
        "rival": _RIVALS[gain.over],
        "measure": MEASURES[gain.measure],
        "n": gain.n,
        "value": gain.mean,
        "low": _finite(gain.interval.low),
        "high": _finite(gain.interval.high),
        "shown": gain.shown,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _compared(run: Run, number: int, gain: Gain) -> Iterator[str]:
    """The ids of the pairs that a gain of an iteration is about."""
    base, ours = run.base.items, run.at(number).items
    theirs = run.at({"seeds-only": SEEDS_ONLY, "reader": READER}.get(gain.over, 0)).items
    for weighed, they, we in zip(base, theirs, ours, strict=True):
        given = they.given_demos if gain.over in SHOWN else they.given
        scored = not we.selects and all(each is not None and each.scores for each in (we.given, given))
        if {"score": scored, "content": sum(weighed.token_weights) > 0, "likelihood": True}[gain.measure]:
            yield we.id


def _shown(number: int, row: HeldoutRow | None, example: str | None) -> Iterator[dict[str, Any]]:
    """What a model has shown of a pair; after the base model's own, what it has shown after demonstrations."""
    if row is None:
        if example is not None:
            yield {"t": number, "answer": example}
        return
    if number == READER:
        yield {"t": READER, **_answer(row.given_demos, row.bits_demos, row.bytes)}
        return
    alone = _answer(row.given, row.bits, row.bytes)
    if example is not None:
        alone = {"answer": example, **alone}
    if alone:
        yield {"t": number, **alone}
    if number == 0 and (row.given_demos is not None or row.demo_ids):
        yield {"t": AFTER_DEMOS, **_answer(row.given_demos, row.bits_demos, row.bytes)}


def _answer(given: GivenAnswer | None, bits: float, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if given is not None:
        found |= {"answer": given.answer, "cut": given.cut, "rouge": round(given.rouge_l, 3)}
        found["scores"] = {name: round(score, 3) for name, score in given.scores.items()}
    if size:
        found["bits"] = round(bits / size, 3)
    return found
