"""What `isara show` prints about a run. Texts of a model are untrusted and are never read as markup."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isara.decisions import counts, in_words
from isara.errors import RunError
from isara.evaluate.verdict import FEW_PAIRS, Rival, model_name, sentence
from isara.marks import clean, visible
from isara.records import READER, SEEDS_ONLY, Candidate, QAPair, Rejection
from isara.report.facts import Example, IterationFacts, Run, StoredCandidate

_MOST_SHOWN = 80  # characters of a name, an id or a text's beginning
_BITS = {"bits_per_byte": "bits/byte", "bits_per_byte_demos": "bits/byte, demos"}
# Figures whose names say too little.
LABELS = {
    **_BITS,
    "bits_per_byte_plain": "bits/byte, plain text",
    "answered": "held-out questions answered",
    "rouge_l": "ROUGE-L of these answers",
    "cut": "these answers, cut at the limit",
    "score": "score of these answers",
    "score_demos": "score after demos",
    "score_select": "score that chose the iteration",
}
RIVALS: dict[Rival, str] = {
    **{"base": "base", "demonstrations": "base, demos", "seeds-only": "seeds only"},
    "reader": "reader, demos",
}
_Row: TypeAlias = tuple[str, Callable[[IterationFacts], str]]


def summary(run: Run) -> RenderableType:
    """The funnel, training and held-out likelihood of each iteration, as a table, and what it says of the result."""
    table = Table(title=Text(clean(f"Run {run.path}", 10 * _MOST_SHOWN)), title_justify="left")
    table.add_column("iteration", overflow="fold")
    for facts in run.all:
        table.add_column(_head(facts.number), justify="right", overflow="fold")
    for name, cell in _rows(run):
        cells = [cell(facts) for facts in run.all]
        if any(cells):
            table.add_row(Text(name), *map(Text, cells))
    return Group(table, *map(Text, [*_legend(run), *conclusion(run)]))


def samples(run: Run, number: int | None = None, count: int = 5) -> RenderableType:
    """The first accepted pairs of an iteration (the last one with any candidate by default).

    Raises:
        RunError: The iteration has no candidates.
    """
    facts = _with_candidates(run, number)
    return Group(Text(f"Accepted in iteration {facts.number}:"), *map(_pair_panel, facts.accepted[:count]))


def near_threshold(run: Run, number: int | None = None, count: int = 10) -> RenderableType:
    """The dropped rows that were nearest to passing, with reason, value, threshold and what they were too near to.

    Nothing where no row was dropped by a number.

    Raises:
        RunError: The iteration has no candidates.
    """
    facts, texts = _with_candidates(run, number), run.texts()
    rows = []
    for stored in facts.candidates:
        drop = stored.candidate.rejection
        if drop is not None and (numbers := _measured(drop)) is not None:
            rows.append((abs(numbers[0] - numbers[1]) / max(abs(numbers[1]), 1e-9), stored.pair, drop, numbers))
    if not rows:
        return Group()
    table = Table(title=f"Dropped in iteration {facts.number}, nearest to passing first", title_justify="left")
    for name in ("id", "reason", "value", "threshold", "question", "near to"):
        table.add_column(name, overflow="fold")
    for _, pair, drop, (value, threshold) in sorted(rows, key=lambda row: row[0])[:count]:
        reason, near = clean(drop.reason, _MOST_SHOWN), _near(drop, texts)
        cells = (pair.id, reason, f"{value:.4g}", f"{threshold:.4g}", pair.question, near)
        table.add_row(*map(plain, cells))
    return table


def provenance(run: Run, row_id: str) -> RenderableType:
    """Where a row came from: its demonstrations with similarity, seeds, weights, and the stored prompts.

    A seed pair or a held-out pair is shown with what it is.

    Raises:
        RunError: No row, or more than one, begins with this id.
    """
    edited = {pair.id: pair.edited_from for facts in run.iterations for pair in facts.pairs if pair.edited_from}
    given = [(pair, "a seed pair") for pair in run.seeds] + [(pair, "a held-out pair") for pair in run.heldout]
    made = [stored for facts in run.iterations for stored in facts.candidates]
    found = {pair.id for pair in (*(pair for pair, _ in given), *(stored.pair for stored in made))}
    found = {edited.get(pair_id, pair_id) for pair_id in (*found, *edited) if pair_id.startswith(row_id)}
    if len(found) != 1:
        raise RunError(
            f"expected one row of {run.path} whose id begins with {row_id!r}, found {len(found)}: "
            "take an id from candidates.jsonl or from `isara show`"
        )
    [pair_id] = found
    parts: list[RenderableType] = []
    for pair, kind in given:
        if pair.id == pair_id:
            parts += [_pair_panel(pair), Text(f"{kind}, {_uses(pair_id, made)}")]
    same = sorted((each for each in made if each.pair.id == pair_id), key=_dropped)
    if same:
        parts += _origin(run, same[0])
        if len(same) > 1:
            places = ", ".join(f"iteration {each.pair.iteration} batch {each.batch}" for each in same[1:5])
            parts.append(Text(f"The same texts were made {len(same) - 1} more times: {places}"))
    return Group(*parts)


def before_and_after(run: Run) -> RenderableType:
    """The base model's and the aligned model's answers to the same held-out questions, where the run stored them."""
    best = run.best
    if not best:
        return Text("")
    # By their places: two dialogues may end with the same question.
    panels = [
        _examples_panel(before, after)
        for before, after in zip(run.base.examples, run.at(best).examples, strict=False)
        if before.question == after.question
    ]
    return Group(Text("Held-out questions, answered greedily and zero-shot:"), *panels) if panels else Text("")


def has_candidates(run: Run) -> bool:
    """Whether anything was generated yet."""
    return any(facts.candidates for facts in run.iterations)


def plain(text: str) -> Text:
    """Text from outside, whole, with a mark for each character that can't be seen or would move others."""
    return Text(visible(text))


def _rows(run: Run) -> list[_Row]:
    """The rows of the table in the order of the stages; each gives an iteration's cell, "" where it has none."""
    reasons = dict.fromkeys(reason for facts in run.iterations for reason in facts.reasons)
    others = dict.fromkeys(
        name
        for figures in run.figures.values()
        for name in figures
        if name not in LABELS and not name.endswith("_se") and name != "pairs"
    )
    return [
        ("candidates", lambda facts: _count(facts, "candidates")),
        *((f"  {clean(reason, _MOST_SHOWN)}", _taken(reason)) for reason in reasons),
        ("answers cut at the limit", lambda facts: "" if facts.cut is None else f"{facts.cut:.0%}"),
        ("accepted", lambda facts: _count(facts, "accepted")),
        *((f"  {name} by a person", _decided(name)) for name in ("accepted", "edited", "rejected")),
        ("  let pass unread", _decided("unread")),
        ("trained on", lambda facts: " + ".join(f"{each.stats.rows}" for each in facts.trainings)),
        ("steps", lambda facts: " + ".join(f"{each.stats.steps}" for each in facts.trainings)),
        ("loss, first step → last step", _losses),
        *(
            (label, _figure(name))
            for name, label in {**LABELS, **{name: clean(name, _MOST_SHOWN) for name in others}}.items()
        ),
        *((f"better than {name} by [95 %]", _gain(run, rival)) for rival, name in RIVALS.items()),
    ]


def _count(facts: IterationFacts, name: str) -> str:
    return f"{facts.funnel[name]}" if facts.candidates or facts.generated else ""


def _decided(name: str) -> Callable[[IterationFacts], str]:
    return lambda facts: f"{counts(facts.decisions)[name]}" if name in counts(facts.decisions) else ""


def _taken(reason: str) -> Callable[[IterationFacts], str]:
    return lambda facts: f"-{facts.reasons[reason]}" if reason in facts.reasons else ""


def _losses(facts: IterationFacts) -> str:
    return "; ".join(f"{each.stats.first_loss:.2f} → {each.stats.last_loss:.2f}" for each in facts.trainings)


def _gain(run: Run, rival: Rival) -> Callable[[IterationFacts], str]:
    def cell(facts: IterationFacts) -> str:
        verdict = run.verdict_on(facts.number)
        return next((str(gain) for gain in verdict.gains if gain.over == rival), "") if verdict else ""

    return cell


def _figure(name: str) -> Callable[[IterationFacts], str]:
    return lambda facts: _shown_figure(facts.figures or {}, name) if name in (facts.figures or {}) else ""


def _shown_figure(figures: Mapping[str, float], name: str) -> str:
    if name == "answered":
        return f"{figures[name]:.0f}"
    return f"{figures[name]:.0%}" if name == "cut" else _with_error(figures, name)


def _head(number: int) -> str:
    return {0: "base", SEEDS_ONLY: "seeds only", READER: "reader"}.get(number, str(number))


def _with_error(figures: Mapping[str, float], name: str) -> str:
    error = figures.get(f"{name}_se")
    return f"{figures[name]:.3f}" + (f"±{error:.3f}" if error is not None else "")


def _legend(run: Run) -> list[str]:
    if not any("bits_per_byte" in figures for figures in run.figures.values()):
        return []
    return [
        "bits/byte: bits that the model needs for a byte of the held-out answers, zero-shot and with demonstrations, "
        f"± standard error, over {_many(run.heldout_count, 'held-out pair')}; less is better"
    ] + [
        "plain text: a fixed text of everyday subjects, from which the run learns nothing; more than the base model's "
        "is forgetting"
    ] * any("bits_per_byte_plain" in figures for figures in run.figures.values())


def conclusion(run: Run) -> list[str]:
    """What the figures say of the iteration that is exported, beside the base model's; and how little few pairs say."""
    best, where = run.best, "is in final/" if run.exported is not None else "would be exported so far"
    if best is None:
        return ["No iteration is finished yet: run the same command again to go on."]
    if verdict := run.verdict:
        return [
            sentence(verdict, run.exported is not None),
            f"{model_name(best).capitalize()} {where}.",
            *_warning(run),
        ]
    if best == 0:
        return ["No iteration was asked for, so the base model is in final/."]
    base, figures = run.base.figures or {}, run.at(best).figures or {}
    if "bits_per_byte" not in figures or "bits_per_byte" not in base:
        return [f"Nothing was held out, so the last iteration ({best}) {where}."]
    before, after = _with_error(base, "bits_per_byte"), _with_error(figures, "bits_per_byte")
    of = f"zero-shot, {_many(run.heldout_count, 'held-out pair')}"
    if figures["bits_per_byte"] < base["bits_per_byte"]:
        said = (
            f"Iteration {best} has the fewest held-out bits per byte of the iterations and {where}: "
            f"{before} for the base model, {after} after it ({of})."
        )
    else:
        said = (
            f"No iteration beat the base model on the held-out pairs: {before} bits per byte for the base model, "
            f"{after} after iteration {best}, which has the fewest of the iterations and {where} ({of})."
        )
    return [said, *_warning(run)]


def _warning(run: Run) -> list[str]:
    if run.heldout_count >= FEW_PAIRS:
        return []
    return [
        f"{_many(run.heldout_count, 'held-out pair')} can't tell such models apart: hold out {FEW_PAIRS} or more "
        "(--heldout takes a share or a file)."
    ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _with_candidates(run: Run, number: int | None) -> IterationFacts:
    iterations = [facts for facts in run.iterations if facts.candidates]
    chosen = [facts for facts in iterations if number in (None, facts.number)]
    if not chosen:
        has = ", ".join(str(facts.number) for facts in iterations) or "none"
        which = "any iteration" if number is None else f"iteration {number}"
        raise RunError(f"{run.path} holds no candidates of {which} (it has: {has}): give one that it has")
    return chosen[-1]


def _measured(drop: Rejection) -> tuple[float, float] | None:
    """Value and threshold where both are numbers, which can be sorted by how near they were to passing."""
    pair = (drop.value, drop.threshold)
    numbers = [value for value in pair if isinstance(value, int | float) and not isinstance(value, bool)]
    return (numbers[0], numbers[1]) if len(numbers) == len(pair) else None


def _near(drop: Rejection, texts: Mapping[str, QAPair]) -> str:
    """The question of the pair that a candidate was too near to, with its id."""
    if drop.near_id is None:
        return ""
    near = texts.get(drop.near_id)
    return f"{clean(drop.near_id, _MOST_SHOWN)} {near.question if near else '(not in this folder)'}"


def _dropped(stored: StoredCandidate) -> bool:
    return stored.candidate.rejection is not None


def _uses(pair_id: str, made: Sequence[StoredCandidate]) -> str:
    questions = sum(pair_id in stored.candidate.question.demo_ids for stored in made)
    answers = sum(pair_id in stored.pair.demo_ids for stored in made)
    return f"shown before {_many(questions, 'new question')} and {_many(answers, 'new answer')}"


def _origin(run: Run, stored: StoredCandidate) -> list[RenderableType]:
    """All that made a candidate."""
    each, texts = stored.candidate, run.texts()
    facts = {
        "iteration": stored.pair.iteration,
        "batch": stored.batch,
        "weights": clean(stored.weights, _MOST_SHOWN),
        "question seed": each.question.seed,
        "answer seed": each.answer.seed if each.answer else "none",
        "fate": _fate(each, texts),
    }
    if each.second is not None:
        how = "by the seeds-only model" if run.config.filters.checked_by_seeds else "after other demonstrations"
        facts[f"second answer, {how}"] = clean(each.second.text, 100 * _MOST_SHOWN)
    decided = run.at(stored.pair.iteration).decisions.get(stored.pair.id)
    if decided is not None:
        facts["review"] = in_words(decided)
    edited = decided.apply(stored.pair) if decided is not None and decided.decision == "edit" else None
    parts: list[RenderableType] = [
        *_rewritten(edited),
        _pair_panel(stored.pair),
        plain("\n".join(f"{name}: {value}" for name, value in facts.items())),
    ]
    if each.answer is not None:
        demos = Table("similarity", "id", "demonstration", title="Demonstrations, nearest last", title_justify="left")
        # Drawn at random, they have no similarity.
        near = [f"{value:.4f}" for value in each.answer.similarities] or [""] * len(each.answer.demo_ids)
        for pair_id, similarity in zip(each.answer.demo_ids, near, strict=True):
            shown = texts.get(pair_id)
            demos.add_row(similarity, plain(pair_id), plain(shown.question if shown else "not in this folder"))
        parts += [demos, Panel(plain(each.answer.prompt), title="Prompt of the answer", title_align="left")]
    parts.append(Panel(plain(each.question.prompt), title="Prompt of the question", title_align="left"))
    return parts


def _rewritten(edited: QAPair | None) -> list[RenderableType]:
    if edited is None:
        return []
    return [Text("As a person wrote it:"), _pair_panel(edited), Text("As it was made:")]


def _fate(each: Candidate, texts: Mapping[str, QAPair]) -> str:
    drop = each.rejection
    if drop is None:
        return "accepted"
    near = f", near to {_near(drop, texts)}" if drop.near_id else ""
    return f"dropped by {drop.reason} (value {drop.value}, threshold {drop.threshold}{near})"


def _pair_panel(pair: QAPair) -> Panel:
    turns = [
        Text.assemble(("Question: ", "bold"), plain(question), ("\nAnswer: ", "bold"), plain(answer))
        for question, answer in pair.turns
    ]
    return Panel(Text("\n").join(turns), title=plain(pair.id), title_align="left")


def _examples_panel(before: Example, after: Example) -> Panel:
    text = Text.assemble(
        ("before  ", "bold"), plain(before.answer), ("\nafter   ", "bold"), plain(after.answer),
        ("\nwanted  ", "bold"), plain(before.wanted),
    )  # fmt: skip
    return Panel(text, title=Text(clean(before.question, 2 * _MOST_SHOWN)), title_align="left")
