"""The rows of a page: seeds first, then every candidate, each text once.

A prompt is mostly demonstrations, which are rows of the page themselves; where their texts stand in it, it refers to
them. So a page holds tens of thousands of rows in about the bytes of their own texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from isara.decisions import counts, in_words
from isara.kinds import Kinds
from isara.records import Draw, QAPair, Rejection
from isara.report.facts import Run, StoredCandidate

SEED, ACCEPTED, DROPPED = "seed", "accepted", "dropped"
EDITED, REJECTED = "edited", "rejected"  # by a person, after all filters had let it pass
_BLOCK = 1000  # answers that are told into kinds at once
_SHORT = 12  # characters from which on a text is worth a reference
# A piece of a prompt: text, or twice the number of a row for its question, and one more for its answer.
Piece: TypeAlias = str | int


def page_rows(run: Run, kinds: Kinds) -> list[dict[str, Any]]:
    """Every seed and every candidate as a dict; a row is known by its place in the list.

    Keys: `id`, `t` (iteration), `q`, `a`, `fate`, `kind` (of the answer); of a candidate also `batch`, `weights`,
    `question` and `answers` (draws) with `chosen`, `review` where a person decided, and where dropped `reason`,
    `value`, `threshold`, `near`.

    Args:
        run: The run.
        kinds: Of the seeds' answers.
    """
    made = [stored for facts in run.iterations for stored in facts.candidates]
    pairs = [*run.seeds, *(stored.pair for stored in made)]
    places: dict[str, int] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.id, place)
    rows = [{**_pair(pair), "fate": SEED} for pair in run.seeds]
    for pair in (pair for facts in run.iterations for pair in facts.pairs if pair.edited_from):
        places.setdefault(pair.id, places[pair.edited_from])  # a demonstration that a person wrote opens its row
    rows += [{**_pair(stored.pair), **_made(stored, pairs, places), **_review(run, stored)} for stored in made]
    for row, kind in zip(rows, _kinds(kinds, pairs), strict=True):
        if row["a"]:
            row["kind"] = kind
    return rows


def _pair(pair: QAPair) -> dict[str, Any]:
    row: dict[str, Any] = {"id": pair.id, "t": pair.iteration, "q": pair.question, "a": pair.answer}
    return {**row, "before": pair.before} if pair.before else row


def _kinds(kinds: Kinds, pairs: Sequence[QAPair]) -> Iterator[str]:
    for start in range(0, len(pairs), _BLOCK):
        yield from kinds.of([pair.answer for pair in pairs[start : start + _BLOCK]])


def _made(stored: StoredCandidate, pairs: Sequence[QAPair], places: Mapping[str, int]) -> dict[str, Any]:
    each, pair = stored.candidate, stored.pair
    row: dict[str, Any] = {
        "fate": DROPPED if each.rejection else ACCEPTED,
        "batch": stored.batch,
        "weights": stored.weights,
        "question": _draw(each.question, pair.question, pairs, places),
    }
    if stored.question_weights is not None:
        row["asked_by"] = stored.question_weights
    if each.answers:
        row["answers"] = [_draw(draw, pair.answer, pairs, places) for draw in each.answers]
        row["chosen"] = each.chosen
    return {**row, **(_rejection(each.rejection, places) if each.rejection else {})}


def _review(run: Run, stored: StoredCandidate) -> dict[str, Any]:
    """What a person decided about the row, where one did, and the fate that this gives it."""
    decided = run.at(stored.pair.iteration).decisions.get(stored.pair.id)
    if decided is None or stored.candidate.rejection is not None:
        return {}
    [made] = counts({decided.id: decided})
    review: dict[str, Any] = {"said": in_words(decided), "made": made}
    if decided.decision == "edit":
        review |= {"q": decided.question, "a": decided.answer}
    return {"review": review, **({"fate": made} if made in (EDITED, REJECTED) else {})}


def _rejection(drop: Rejection, places: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": drop.reason, "value": _value(drop.value), "threshold": _value(drop.threshold)}
    if drop.near_id is not None:
        found["near"] = places.get(drop.near_id, drop.near_id)
    return found


def _value(value: float | str | None) -> str | None:
    return f"{value:.4g}" if isinstance(value, float) else None if value is None else str(value)


def _draw(draw: Draw, known: str, pairs: Sequence[QAPair], places: Mapping[str, int]) -> dict[str, Any]:
    """A draw; its text is left out where it is the row's own."""
    demos = [places.get(demo, demo) for demo in draw.demo_ids]
    shown: dict[str, Any] = {
        "seed": str(draw.seed),  # it may be larger than what JavaScript counts exactly
        "tokens": draw.tokens,
        "finish": draw.finish,
        "demos": demos,
        "near": [round(near, 4) for near in draw.similarities],
        "prompt": pieces(draw.prompt, demos, pairs),
    }
    if draw.text != known:
        shown["text"] = draw.text
    if draw.scores:
        shown["scores"] = {name: _value(float(score)) for name, score in draw.scores.items()}
    return shown


def pieces(prompt: str, demos: Sequence[int | str], pairs: Sequence[QAPair]) -> list[Piece]:
    """A prompt in pieces, which together are the prompt again, to the character.

    Args:
        prompt: Its text.
        demos: The demonstrations in it, in order: places of rows, or ids of pairs that are none.
        pairs: The pairs of all rows.
    """
    found: list[Piece] = []
    start = 0
    for place in demos:
        if isinstance(place, str):
            continue
        for which, text in enumerate((pairs[place].question, pairs[place].answer)):
            at = prompt.find(text, start) if len(text) >= _SHORT else -1
            if at >= 0:
                found += [prompt[start:at], 2 * place + which] if at > start else [2 * place + which]
                start = at + len(text)
    return [*found, prompt[start:]] if start < len(prompt) else found
