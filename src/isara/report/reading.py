"""Rows beside the pairs that they were made from, for a reader. Texts of a model are untrusted, as everywhere."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from isara.decisions import drawn, in_words
from isara.errors import RunError
from isara.marks import clean
from isara.records import Candidate, Draw, QAPair
from isara.report.facts import Run, StoredCandidate
from isara.report.terminal import plain

_MOST_SHOWN = 80  # characters of a name or value
_MOST_TEXT = 240  # of a neighbour's question or answer: it is there to compare with


def read_rows(run: Run, count: int, number: int | None = None, rejected: bool = False) -> RenderableType:
    """A sample of a run's rows, always the same for the same number, each beside its demonstrations.

    Args:
        run: The run.
        count: How many; all of them where there are fewer.
        number: Of this iteration; None for all.
        rejected: The dropped rows, with the reason, instead of the accepted ones.

    Raises:
        RunError: There are none.
    """
    rows = [
        stored
        for facts in run.iterations
        if number in (None, facts.number)
        for stored in facts.candidates
        if (stored.candidate.rejection is not None) is rejected
    ]
    kind = "dropped" if rejected else "accepted"
    where = f"iteration {number}" if number is not None else "any iteration"
    if not rows:
        raise RunError(f"{run.path} holds no {kind} rows of {where}: give an --iteration that has some")
    chosen = drawn(rows, count, kind)
    texts = run.texts()
    panels = [row_panel(stored.candidate, texts, _made(run, stored)) for stored in chosen]
    return Group(Text(f"{len(panels)} of {len(rows)} {kind} rows, drawn at random:"), *panels)


def row_panel(each: Candidate, texts: Mapping[str, QAPair], origin: str = "") -> Panel:
    """A row with its fate, the scores that are stored with it, and its demonstrations, the nearest first.

    Args:
        each: The row.
        texts: The pairs that its demonstrations are among, by id.
        origin: What made it, where that is known.
    """
    lines = [_turn("Question", each.pair.question)]
    if each.answer is not None:
        lines.append(_turn("Answer", each.pair.answer))
        lines += _demonstrations("answered after", each.answer, texts)
        if scores := _scores(each.answer):
            lines.append(Text.assemble(("scores ", "bold"), scores))
    lines += [] if each.answer else _demonstrations("asked after", each.question, texts)
    if origin:
        lines.append(Text(clean(origin, 2 * _MOST_SHOWN), style="dim"))
    fate = "accepted" if each.rejection is None else "dropped: " + _reason(each, texts)
    title = Text(clean(f"{each.pair.id} {fate}", 2 * _MOST_SHOWN))
    return Panel(Text("\n").join(lines), title=title, title_align="left")


def _made(run: Run, stored: StoredCandidate) -> str:
    """What made a row, and what a person made of it."""
    number = stored.pair.iteration
    decided = run.at(number).decisions.get(stored.pair.id)
    return f"iteration {number}, weights {stored.weights[:12]}" + (f", {in_words(decided)}" if decided else "")


def _turn(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), plain(text))


def _demonstrations(label: str, draw: Draw, texts: Mapping[str, QAPair]) -> list[Text]:
    """A line for the question and one for the answer of each demonstration; the nearest stood last in the prompt."""
    if not draw.demo_ids:
        return [Text(f"{label} no demonstration", style="bold")]
    near = draw.similarities or [None] * len(draw.demo_ids)
    lines = [Text(f"{label} {len(draw.demo_ids)} pairs:", style="bold")]
    for pair_id, similarity in reversed(list(zip(draw.demo_ids, near, strict=True))):
        pair = texts.get(pair_id)
        said = f"{similarity:.2f} " if similarity is not None else ""
        if pair is None:
            lines.append(Text(f"  {said}{clean(pair_id, _MOST_SHOWN)} (not in this folder)"))
            continue
        lines.append(Text(f"  {said}{clean(pair.question, _MOST_TEXT)}"))
        lines.append(Text(f"    → {clean(pair.answer, _MOST_TEXT)}", style="dim"))
    return lines


def _scores(draw: Draw) -> str:
    """The scores that were stored with an answer, where there are some."""
    scores = getattr(draw, "scores", None)
    if not isinstance(scores, Mapping):
        return ""
    return ", ".join(f"{clean(str(name), _MOST_SHOWN)} {_value(value)}" for name, value in scores.items())


def _reason(each: Candidate, texts: Mapping[str, QAPair]) -> str:
    drop = each.rejection
    assert drop is not None, "an accepted row has no reason"
    numbers = [
        f"{name} {_value(value)}"
        for name, value in (("value", drop.value), ("threshold", drop.threshold))
        if value is not None
    ]
    near = texts.get(drop.near_id or "")
    said = [*numbers, *([f"near to {near.question!r}"] if near else [])]
    return drop.reason + (f" ({', '.join(said)})" if said else "")


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else clean(str(value), _MOST_SHOWN)
