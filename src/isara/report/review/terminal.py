"""The review by keys in the terminal, or in a pipe: a letter and Enter for each row."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from isara.decisions import Decision, in_words
from isara.errors import RunError
from isara.marks import clean
from isara.report.review import REASONS, Desk, Row
from isara.report.terminal import plain

_MOST_TEXT = 240  # characters of a pair beside the row
HELP = "a accept   e edit   r reject   u undo   j next   k previous   ? help   q stop"


def review(desk: Desk, show: Callable[[RenderableType], None], ask: Callable[[str], str | None]) -> None:
    """Goes through the rows of a desk until all are decided or the reader stops.

    Args:
        desk: What is reviewed.
        show: Prints.
        ask: Asks for a line; None where the input has ended.
    """
    show(Text(f"{clean(desk.name, 200)}: {desk.said()}"))
    show(Text(HELP, style="dim"))
    here = _next(desk, 0)
    while desk.rows:
        show(Text("every row is decided") if here is None else _panel(desk, desk.rows[here], here))
        line = ask("> ")
        key = "q" if line is None else line.strip()
        if key == "q":
            return
        if key in ("j", "k"):
            step = 1 if key == "j" else -1
            here = len(desk.rows) - 1 if here is None else max(0, min(len(desk.rows) - 1, here + step))
        elif key == "u":
            here = _undo(desk, here)
        elif here is None:
            show(Text(HELP, style="dim"))
        elif (made := _decision(desk.rows[here], key, show, ask)) is not None:
            try:
                desk.decide(made)
            except RunError as error:
                show(Text(str(error), style="bold"))
                continue
            here = _next(desk, here)


def _decision(
    row: Row, key: str, show: Callable[[RenderableType], None], ask: Callable[[str], str | None]
) -> Decision | None:
    """What the reader decides about a row; None where that is nothing yet."""
    pair = row.pair
    if key == "a":
        return Decision(pair.id, "accept")
    if key == "r":
        numbered = ", ".join(f"{number} {words}" for number, words in enumerate(REASONS, start=1))
        given = (ask(f"why? ({numbered}, or in your words) ") or "").strip()
        if not given:
            show(Text("a row is rejected with a reason: nothing was decided"))
            return None
        picked = given.isascii() and given.isdecimal() and 0 < int(given) <= len(REASONS)
        return Decision(pair.id, "reject", reason=REASONS[int(given) - 1] if picked else given)
    if key == "e":
        question = _written("question", pair.question, ask)
        answer = None if question is None else _written("answer", pair.answer, ask)
        if question is None or answer is None:
            show(Text("the edit has no end, a line with a dot: nothing was decided"))
            return None
        return Decision(pair.id, "edit", question, answer)
    show(Text(HELP, style="dim"))
    return None


def _written(part: str, was: str, ask: Callable[[str], str | None]) -> str | None:
    """The lines that the reader writes, up to one that is a dot alone; none keep the text. None without that dot."""
    lines: list[str] = []
    prompt = f"new {part}, a line with a dot ends it, a dot alone keeps it: "
    while (line := ask(prompt)) is None or line.strip() != ".":
        if line is None:
            return None
        lines.append(line)
        prompt = "… "
    return "\n".join(lines) if lines else was


def _undo(desk: Desk, here: int | None) -> int | None:
    """Takes back the decision about the row at hand, or the last one; where its row is."""
    row_id = None if here is None else desk.rows[here].pair.id
    standing = desk.decisions
    if row_id not in standing:
        if not standing:
            return here
        row_id = list(standing)[-1]
    desk.decide(Decision(row_id, "undo"))
    return next(place for place, row in enumerate(desk.rows) if row.pair.id == row_id)


def _next(desk: Desk, here: int) -> int | None:
    """The next row without a decision, from here on and then from the first; None where all have one."""
    places = {row.pair.id: place for place, row in enumerate(desk.rows)}
    waiting = [places[row.pair.id] for row in desk.undecided]
    return next((place for place in waiting if place >= here), waiting[0] if waiting else None)


def _panel(desk: Desk, row: Row, here: int) -> Panel:
    lines: list[RenderableType] = []
    for question, answer in row.pair.turns:
        lines.append(Text.assemble(("Question: ", "bold"), plain(question), ("\nAnswer: ", "bold"), plain(answer)))
    made = desk.decisions.get(row.pair.id)
    if made is not None and made.decision == "edit":
        lines.append(Text.assemble(("now: ", "bold"), plain(made.question), "\n", plain(made.answer)))
    if row.scores:
        lines.append(Text(", ".join(f"{clean(name, 80)} {score:.3g}" for name, score in row.scores.items())))
    if row.near:
        lines.append(Text(f"{desk.beside}, the nearest first:", style="bold"))
    for pair_id, cosine in row.near:
        said = "" if cosine is None else f"{cosine:.2f} "
        pair = desk.texts.get(pair_id)
        lines.append(Text(f"  {said}{clean(pair.question, _MOST_TEXT) if pair else f'{pair_id} (not in this folder)'}"))
        if pair is not None:
            lines.append(Text(f"    → {clean(pair.answer, _MOST_TEXT)}", style="dim"))
    if row.about:
        lines.append(Text(clean(row.about, 200), style="dim"))
    fate = clean(in_words(made), 200) if made else "undecided"
    return Panel(Group(*lines), title=Text(f"{here + 1} of {len(desk.rows)}, {fate}"), title_align="left")
