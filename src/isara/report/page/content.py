"""What a run's page shows, as JSON-ready data: facts in, nothing of HTML."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from isara.config import Config
from isara.kinds import Kinds, KindShare
from isara.pool import Embedder
from isara.records import READER, SEEDS_ONLY
from isara.report.cards import shown_model
from isara.report.facts import IterationFacts, Run
from isara.report.page.answers import AFTER_DEMOS, gains, heldout, judged_columns
from isara.report.page.decided import known
from isara.report.page.places import chosen, lay_out
from isara.report.page.rows import page_rows
from isara.report.terminal import LABELS, conclusion
from isara.statistics import wilson
from isara.words import tokenize

_NORMAL = 1.96  # standard errors to each side of a 95 % interval
_LESS_IS_BETTER = ("bits_per_byte", "cut")
# Figures that say how a measurement was made, or that stand elsewhere on the page.
_NO_FIGURES = ("pairs", "answered")
_DIVERSITY = {
    "question_distinct_2": "different pairs of words in questions",
    "answer_distinct_2": "different pairs of words in answers",
    "question_words": "words in a question",
    "answer_words": "words in an answer",
    "question_nearest": "nearness to the nearest other question",
    "question_nearest_seed": "nearness to the nearest seed",
    "question_in_domain": "questions inside the seeds' domain",
    "answer_run_on": "answers that run on",
    "answer_repetition": "words repeated in answers",
}


def content(run: Run, embedder: Embedder) -> dict[str, Any]:
    """Everything that the page of a run shows.

    Args:
        run: The run.
        embedder: Lays out the map.
    """
    kinds = Kinds([pair.answer for pair in run.seeds])
    rows, answered = page_rows(run, kinds), heldout(run)
    seeds = len(run.seeds)
    shown = [*range(seeds), *(seeds + place for place in chosen(len(rows) - seeds))]
    asked = [*(pair.asked for pair in run.seeds), *(each.pair.asked for it in run.iterations for each in it.candidates)]
    places, share = lay_out(embedder, [asked[place] for place in shown])
    for place, xy in zip(shown, places, strict=True):
        rows[place]["xy"] = xy
    return {
        "name": run.path.name,
        "story": _story(run),
        "models": _models(run, answered),
        "gains": gains(run, answered),
        "figures": [*_figures(run), *_yields(run)],
        "diversity": list(_diversity(run)),
        "funnel": [
            {"t": facts.number, **{key: facts.funnel[key] for key in ("candidates", "accepted")}, "cut": facts.cut}
            | {"reasons": list(facts.reasons.items())}
            for facts in run.iterations
            if facts.candidates
        ],
        "kinds": [{"t": facts.number, "shares": _shares(facts.kinds, kinds)} for facts in run.iterations],
        "heldout": answered,
        "judged": judged_columns(run),
        "map": {"shown": len(shown), "of": len(rows), "share": share, "embedder": _embedder(embedder, run.config)},
        "rows": rows,
    }


def _story(run: Run) -> dict[str, Any]:
    verdict, best = run.verdict, run.best
    return {
        "said": conclusion(run),
        "helped": verdict.helped if verdict else None,
        "model": shown_model(run.config.model),
        "best": best,
        "best_name": None if best is None else _name(best),
        "chosen": run.chosen,
        "exported": run.exported is not None,
        "seeds": len(run.seeds),
        "heldout": len(run.heldout),
        "measured": run.heldout_count,
        "rests": verdict.n if verdict else None,
        "iterations": len(run.iterations),
        "planned": run.config.iterations,
        "candidates": sum(len(facts.candidates) for facts in run.iterations),
        "accepted": sum(len(facts.accepted) for facts in run.iterations),
        "decided": run.decided(),
        "known": known(run),
        "licence": run.config.licence,
        "cost": _cost(run),
    }


def _cost(run: Run) -> dict[str, Any] | None:
    """Bits per byte of a plain text before and after: what the model unlearnt elsewhere."""
    number = run.best if run.best else run.chosen
    before = (run.base.figures or {}).get("bits_per_byte_plain")
    after = (run.at(number).figures or {}).get("bits_per_byte_plain") if number else None
    if before is None or after is None or number is None:
        return None
    return {"model": _name(number), "before": before, "after": after}


def _name(number: int) -> str:
    names = {0: "base model", SEEDS_ONLY: "seeds only", READER: "reader, after demonstrations"}
    return names.get(number, f"iteration {number}")


def _models(run: Run, answered: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whose answers can be seen; the base model stands there once more where it was shown demonstrations."""
    models: list[dict[str, Any]] = [{"t": facts.number, "name": _name(facts.number)} for facts in run.all]
    if any(by["t"] == AFTER_DEMOS for pair in answered for by in pair["by"]):
        models.insert(1, {"t": AFTER_DEMOS, "name": "base model, after demonstrations"})
    return models


def _shares(found: Sequence[KindShare], kinds: Kinds) -> list[dict[str, Any]]:
    """The shares under the names that the rows of the page have: older runs have stored names in bare words."""
    names = {" ".join(tokenize(name)): name for name in kinds.names}
    return [asdict(share) | {"kind": names.get(" ".join(tokenize(share.kind)), share.kind)} for share in found]


def _figures(run: Run) -> Iterator[dict[str, Any]]:
    """Each figure of the evaluations over the models, with its 95 % interval where an error is known."""
    said = dict.fromkeys(name for figures in run.figures.values() for name in figures)
    for name in said:
        if name in _NO_FIGURES or name.endswith("_se"):
            continue
        points = [
            _point(facts, facts.figures[name], facts.figures.get(f"{name}_se"))
            for facts in run.all
            if facts.figures is not None and name in facts.figures
        ]
        better = "less is better" if name.startswith(_LESS_IS_BETTER) else ""
        yield {
            "name": name,
            "title": LABELS.get(name, name).replace("these answers", "the answers"),
            "note": better,
            "points": points,
        }


def _point(facts: IterationFacts, value: float, error: float | None = None) -> dict[str, Any]:
    ends = {} if error is None else {"low": value - _NORMAL * error, "high": value + _NORMAL * error}
    return {"t": facts.number, "value": value, **ends}


def _yields(run: Run) -> Iterator[dict[str, Any]]:
    points = []
    for facts in run.iterations:
        if facts.candidates:
            ends = wilson(len(facts.accepted), len(facts.candidates))
            share = len(facts.accepted) / len(facts.candidates)
            points.append({"t": facts.number, "value": share, "low": ends.low, "high": ends.high})
    if points:
        yield {"name": "yield", "title": "candidates accepted", "note": "share", "points": points}


def _diversity(run: Run) -> Iterator[dict[str, Any]]:
    for name, title in _DIVERSITY.items():
        points = [_point(facts, facts.stats[name]) for facts in run.iterations if facts.stats and name in facts.stats]
        if points:
            yield {"name": name, "title": title, "note": "", "points": points}


def _embedder(embedder: Embedder, config: Config) -> str:
    name = str(getattr(embedder, "name", type(embedder).__name__))
    if name.startswith("model@") and config.retrieve.embedder == "minilm":  # the name of the package's folder
        return "all-MiniLM-L6-v2"
    return "shared words" if name.startswith("lexical") else name.split("@")[0]
