"""report.html of a comparison: arms with their intervals, and every model's answer to each question side by side."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from isara.compare.arms import BASELINE, REFERENCE
from isara.compare.budget import run_folders
from isara.compare.comparison import in_short
from isara.compare.figures import Measured, matched
from isara.compare.store import FILE_NAME as PLAN
from isara.errors import RunError
from isara.evaluate.rows import ASKED, GIVEN, WANTED, said
from isara.files import read_json, read_rows, read_text, write_text
from isara.records import QAPair
from isara.report.page.html import FILE_NAME, page, refreshing
from isara.yaml_text import YamlError, parse_yaml

FIGURES, SCORES = "comparison.json", "scores.jsonl"
_MODEL = ("arm", "seed", "iteration", "exported", "steps")  # what says whose answer a row of scores.jsonl is
_DIGITS = 6  # of a value behind the point: more would be most of the page


def is_comparison(folder: Path) -> bool:
    """Whether a folder is a comparison's, finished or not."""
    return (folder / PLAN).is_file()


def write_page(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a comparison; its path. The same comparison gives the same bytes.

    Args:
        folder: The comparison, finished once at least.
        out: The file; None for report.html in the folder, where alone the page leads on to the pages of the runs.

    Raises:
        RunError: It is no finished comparison, a file of it is damaged, or the page can't be written.
    """
    path = folder / FILE_NAME if out is None else out
    data = content(folder, linked=path.resolve().parent == folder.resolve())
    write_text(path, page("comparison", data, f"{folder.resolve().name} · ISARA"))
    return path


def refresh_page(folder: Path) -> None:
    """Writes report.html; where that fails, a line in the log says why, and the comparison stands without it."""
    with refreshing(folder):
        write_page(folder)


def content(folder: Path, linked: bool = True) -> dict[str, Any]:
    """Everything that the page of a comparison shows, JSON-ready.

    Args:
        folder: The comparison.
        linked: Whether the page lies in that folder, so that it can name the pages of the runs by their place.

    Raises:
        RunError: It is no finished comparison, or a file of it is damaged.
    """
    if not (folder / FIGURES).is_file():
        raise RunError(
            f"expected a finished comparison with a {FIGURES} at {folder}, found none: the `isara compare` that "
            "began it ends with one"
        )
    try:
        return _content(folder, linked)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise RunError(
            f"the {FIGURES}, {SCORES} and {PLAN} of {folder} don't fit together: one is damaged or of another version; "
            "run the same `isara compare` again, which asks no question twice"
        ) from None


def _content(folder: Path, linked: bool) -> dict[str, Any]:
    found, rows = read_json(folder / FIGURES), _models(read_rows(folder / SCORES))
    columns = list(dict.fromkeys(name for line in found["arms"] for name in line["columns"]))
    models = [_measured(model, own, columns) for model, own in rows]
    lines = [_line(line, models) for line in (*found["arms"], *found["iterations"])]
    seeds, heldout = _pairs(folder, "seeds.jsonl"), _pairs(folder, "heldout.jsonl")
    texts: dict[str, int] = {}
    answers = [[_answer(row, columns, texts) for row in own] for _, own in rows]
    shown = {demo for own in answers for answer in own for demo in answer.get("demos", ())}
    return {
        "name": folder.resolve().name,
        "model": found["model"],
        "score": found["score"],
        "percent": found["percent"],
        "seeds": found["seeds"],
        "columns": columns,
        "baseline": BASELINE,
        "reference": REFERENCE,
        "arms": _arms(folder, found, linked),
        "lines": lines,
        "one_source": found["contamination"]["one_source"],
        "models": [dict(zip(_MODEL, model, strict=True)) for model, _ in rows],
        "questions": _questions(rows[0][1] if rows else [], heldout, found["contamination"]["seeds"]),
        "answers": answers,
        "texts": list(texts),
        "pairs": {pair: {"q": seeds[pair].asked, "a": seeds[pair].answer} for pair in sorted(shown & seeds.keys())},
    }


def _models(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[Any, ...], list[Mapping[str, Any]]]]:
    """Each model with its rows, which are the same questions in the same order.

    Raises:
        ValueError: They are not.
    """
    found = [(key, list(own)) for key, own in groupby(rows, key=lambda row: tuple(row[name] for name in _MODEL))]
    if len({tuple(str(row["id"]) for row in own) for _, own in found}) > 1:
        raise ValueError("the models were asked different questions")
    return found


def _measured(model: tuple[Any, ...], rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Measured:
    arm, seed, iteration, exported, steps = model
    values = {name: np.array([row["values"].get(name, math.nan) for row in rows]) for name in columns}
    return Measured(arm, seed, iteration, exported, steps, values)


def _line(line: Mapping[str, Any], models: Sequence[Measured]) -> dict[str, Any]:
    """A line of the figures with the places of the models behind it, and of the baseline's that they are held against.

    Raises:
        ValueError: One of its models has no rows.
    """
    number = line["iteration"]
    own = [
        model
        for model in models
        if model.arm == line["arm"] and (model.exported if number is None else model.iteration == number)
    ]
    if [model.seed for model in own] != line["seeds"]:
        raise ValueError("a model has no rows")
    places = {id(model): place for place, model in enumerate(models)}
    held = matched(own, models) if line["difference"] else []
    return {
        "arm": line["arm"],
        "t": number,
        "steps": line["steps"],
        "baseline_steps": line["baseline_steps"],
        "models": [places[id(model)] for model in own],
        "pairs": [[places[id(ours)], places[id(theirs)]] for ours, theirs in held],
        "figures": line["columns"],
        "difference": line["difference"],
        "p": line["adjusted"],
    }


def _arms(folder: Path, found: Mapping[str, Any], linked: bool) -> list[dict[str, Any]]:
    """What each arm is, what it cost, where its runs' pages lie, and what failed of it."""
    declared = _declared(folder)
    return [
        {
            "name": name,
            "about": declared[name]["about"],
            "instructions": declared[name]["instructions"],
            "contaminated": name in found["contamination"]["arms"],
            "cost": _mean_cost(costs),
            "failed": [
                {**each, "message": in_short(each["message"])} for each in found["failures"] if each["arm"] == name
            ],
            "runs": _run_pages(folder, name, found["seeds"]) if linked else [],
        }
        for name, costs in found["costs"].items()
    ]


def _declared(folder: Path) -> Mapping[str, Any]:
    try:
        arms: Mapping[str, Any] = parse_yaml(read_text(folder / PLAN))["arms"]
    except YamlError as error:
        raise ValueError("no YAML") from error
    return arms


def _mean_cost(costs: Sequence[Mapping[str, int]]) -> dict[str, float] | None:
    """The mean over the training seeds, None where no run was finished."""
    return {name: sum(each[name] for each in costs) / len(costs) for name in costs[0]} if costs else None


def _run_pages(folder: Path, arm: str, seeds: Sequence[int]) -> list[dict[str, str]]:
    pages = []
    for seed in seeds:
        for run in run_folders(folder / "arms" / arm / f"seed-{seed}"):
            if (run / FILE_NAME).is_file():
                steps = "" if run.name == f"seed-{seed}" else f", {run.name.replace('-', ' ')}"
                place = quote((run / FILE_NAME).relative_to(folder).as_posix())
                pages.append({"said": f"seed {seed}{steps}", "href": place})
    return pages


def _pairs(folder: Path, name: str) -> dict[str, QAPair]:
    """The pairs of a file of the runs by their ids: seed pairs and held-out pairs are every arm's the same."""
    for cell in sorted((folder / "arms").glob("*/seed-*")):
        for run in run_folders(cell):
            if (run / name).is_file():
                return {row["id"]: QAPair.from_json(row) for row in read_rows(run / name)}
    return {}


def _questions(
    rows: Sequence[Mapping[str, Any]], heldout: Mapping[str, QAPair], leaks: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    near = {leak["test"]: leak for leak in leaks}
    by_text = {leak["question"]: leak for leak in leaks}  # the items of a task have ids of their own
    questions = []
    for row in rows:
        pair = heldout.get(row["id"])
        asked = (said(row, ASKED) or "") if pair is None else pair.asked
        question = {"id": str(row["id"]), "q": asked}
        if wanted := said(row, WANTED) if pair is None else pair.answer:
            question["wanted"] = wanted
        if leak := near.get(row["id"], by_text.get(asked)):
            question["near"] = f"{leak['by']} ({leak['how']})"
        questions.append(question)
    return questions


def _answer(row: Mapping[str, Any], columns: Sequence[str], texts: dict[str, int]) -> dict[str, Any]:
    """An answer, its text by its place among all texts: models often say the same."""
    values = [row["values"].get(name) for name in columns]
    answer: dict[str, Any] = {
        "a": texts.setdefault(said(row, GIVEN) or "", len(texts)),
        "v": [None if value is None else round(value, _DIGITS) for value in values],
    }
    for name, key in (("tokens", "tokens"), ("finish", "finish"), ("demo_ids", "demos")):
        if row.get(name):
            answer[key] = row[name]
    return answer
