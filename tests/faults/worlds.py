"""What the harness breaks: a run, an evaluation and a comparison in small worlds that need no model, and a real run.

A world's command is called on a folder, makes what is missing there, and gives what it says at last. Called twice on
one path it leaves the same bytes.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara.asking import Asker
from isara.compare.arms import find_arms
from isara.compare.compare import compare
from isara.errors import RunError
from isara.evaluate import harness
from isara.evaluate.comparison import compare_items
from isara.evaluate.figures import Figure, mean, share
from isara.evaluate.results import Result, Row
from isara.evaluate.runner import run_tasks
from isara.records import Sampling
from isara.testing import word_renderer
from tests.compare_world import recipe
from tests.doubles import SEEDS, hyrule
from tests.test_loop import align

Command = Callable[[Path], Any]


@dataclass(frozen=True)
class World:
    """A command to break.

    Attributes:
        name: What it makes.
        command: Makes it in a folder; what it says.
        unfinished: What to take out of a finished folder, for each unfinished one to begin with.
        unread: Begins of the names of files that the command need not read when it is called again.
    """

    name: str
    command: Command
    unfinished: tuple[tuple[str, ...], ...] = ()
    unread: tuple[str, ...] = ()


def run_world() -> World:
    """A run of two iterations."""

    def command(folder: Path) -> Any:
        result = align(folder, "iterations=2")
        return (result.best, result.evaluations, [pair.id for pair in result.accepted])

    second = "iteration-02/"
    return World(
        "run",
        command,
        (
            ("final", f"{second}evaluate", f"{second}train"),
            ("final", f"{second}evaluate"),
            ("final", f"{second}evaluate", f"{second}train", f"{second}generate/DONE", f"{second}generate/stats.json"),
            ("final/isara.json",),
        ),
    )


class Tellers:
    """A task with a judge: what the people of Hyrule are told."""

    name = "tellers"
    items = SEEDS

    def key(self) -> dict[str, Any]:
        return {"kind": "tellers"}

    def judge_key(self) -> dict[str, Any]:
        return {"length": "words@1"}

    def answer(self, asker: Asker, items: Any) -> list[Row]:
        draws = asker.answers(items, Sampling(0.0, 1.0, 40), [7] * len(items))
        return [{"id": pair.id, "answer": draw.text if draw else ""} for pair, draw in zip(items, draws, strict=True)]

    def judge(self, rows: Any) -> list[Row]:
        return [{**row, "words": len(row["answer"].split()), "keeper": "keeper" in row["answer"]} for row in rows]

    def figures(self, rows: Any) -> list[Figure]:
        return [mean("words", [row["words"] for row in rows]), share("keeper", [row["keeper"] for row in rows])]

    def values(self, row: Row) -> dict[str, float]:
        return {"words": float(row["words"])}


def evaluation_world() -> World:
    """Two models on a task with a judge, laid side by side, and a task of another harness."""

    def measured(folder: Path, weights: str) -> list[Result]:
        asker = Asker(hyrule, f"models/{weights}/m", word_renderer())
        return run_tasks(asker, [Tellers()], folder, weights=weights)

    def command(folder: Path) -> Any:
        results = measured(folder / "before", "w1") + measured(folder / "after", "w2")
        results.append(harness.run_harness("m", "watermelon", folder / "after", "w2", harness.HarnessOptions()))
        compared = compare_items([Tellers()], folder / "after", folder / "before")
        assert all(result.seconds >= 0 for result in results)
        return [[figure.to_json() for figure in result.figures] for result in results], repr(compared)

    return World("evaluation", command, (("after",), ("after/tellers/items.jsonl",), ("after/lm-eval-watermelon",)))


def _answered(model: str, task: str, options: harness.HarnessOptions) -> dict[str, Any]:
    sample = {"filter": "none", "arguments": [["Is it ripe?"]], "resps": [[-1.5, False]], "target": 0}
    samples = [{**sample, "doc_id": number, "metrics": ["acc"], "acc": number % 2} for number in range(6)]
    return {
        "samples": {task: samples},
        "n-samples": {task: {"effective": 6, "original": 9}},
        "results": {task: {"acc,none": 0.5, "acc_stderr,none": 0.1}},
    }


def comparison_world(recipes: Path) -> World:
    """Three arms over one shelf.

    Args:
        recipes: A folder for the recipe.
    """

    def command(folder: Path) -> Any:
        base, make = recipe(recipes)
        found = compare(base, find_arms(["zero-shot", "sft-seeds", "isara"]), [0], folder, make=make)
        for failure in found.failures:
            raise RunError(failure.message)
        return json.dumps({**found.to_json(), "out": ""}, sort_keys=True, default=str)

    run = "arms/isara/seed-0/"
    return World(
        "comparison",
        command,
        (
            ("scores.jsonl", "comparison.json", "table.md"),
            ("answers",),
            (f"{run}iteration-02", f"{run}final"),  # which the shelf lends
            (run.rstrip("/"),),
        ),
        ("shelf/",),
    )


def real_world(model: str, seeds: str, overrides: list[str]) -> World:
    """A run of a real model."""

    def command(folder: Path) -> Any:
        from isara.build import build_parts
        from isara.config import load_config
        from isara.loop import run

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        found = run(build_parts(load_config(None, overrides, model=model, seeds=seeds, out=str(folder), heldout=0.2)))
        return found.best

    return World(model, command)


def small_worlds(place: Path) -> list[World]:
    """The worlds that need no model; their recipes lie in `place`."""
    # The other harness takes seconds to say what is told here.
    harness._evaluate, harness._version = _answered, lambda: "0"
    recipes = place / "recipes"
    recipes.mkdir(exist_ok=True)
    return [run_world(), evaluation_world(), comparison_world(recipes)]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for times and locks."""
    times = {"log.txt", ".lock", "time.json"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in times
    }


def copy(source: Path, target: Path) -> Path:
    """A copy in which files that were one file under two names still are."""
    shutil.rmtree(target, ignore_errors=True)
    seen: dict[int, Path] = {}

    def link_or_copy(one: str, other: str) -> None:
        number = os.stat(one).st_ino
        if number in seen:
            os.link(seen[number], other)
        else:
            shutil.copyfile(one, other)
            seen[number] = Path(other)

    return Path(shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy))


def take_out(folder: Path, names: tuple[str, ...]) -> None:
    """Removes what lies under these names."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
