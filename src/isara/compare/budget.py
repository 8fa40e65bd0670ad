"""What an arm's models have cost, and as how many optimiser steps another arm's models are to have seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from isara.files import read_json
from isara.folder import is_done, iteration_numbers, read_config, stage_folder
from isara.generate import whole_batches

Start = Literal["base", "last"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run has cost, whether it made all of it itself or shares it with another.

    Attributes:
        candidates: Pairs made, accepted or not.
        generated: Tokens generated for them.
        steps: Optimiser steps of all trainings.
        trained: Tokens trained on, prompts and all epochs included.
    """

    candidates: int
    generated: int
    steps: int
    trained: int


def run_folders(cell: Path) -> list[Path]:
    """The run folders of an arm with one seed: the folder itself, or one for each number of steps in it."""
    return [cell] if (cell / "isara.yaml").exists() else sorted(cell.glob("steps-*"))


def cost(cell: Path) -> Cost:
    """The cost of an arm with one seed.

    Raises:
        RunError: A record of it is damaged.
    """
    stages = [(run, t) for run in run_folders(cell) for t in iteration_numbers(run)]
    rows = [row for run, t in stages for row in whole_batches(stage_folder(run, t, "generate") / "candidates.jsonl")]
    stats = [read_json(stage_folder(run, t, "train") / "train.json") for run, t in stages]
    return Cost(
        len(rows),
        sum(tokens for row in rows for tokens in _tokens(row)),
        sum(found["steps"] for found in stats),
        sum(found["tokens"] for found in stats),
    )


def steps_seen(run: Path) -> list[int]:
    """Optimiser steps that the model of each trained iteration has seen since it was the base model.

    Raises:
        RunError: A record of the run is damaged.
    """
    folders = [stage_folder(run, t, "train") for t in iteration_numbers(run)]
    taken = [read_json(folder / "train.json")["steps"] for folder in folders if is_done(folder)]
    start: Start = read_config(run)["train"]["start"]
    return list(accumulate(taken)) if start == "last" else taken


def steps_to_take(seen: Sequence[int], start: Start) -> list[int]:
    """Steps of each iteration after which its model has seen as many as `seen` says; one at the least."""
    if start == "base":
        return list(seen)
    return [max(1, after - before) for before, after in zip([0, *seen], seen, strict=False)]


def _tokens(row: dict[str, Any]) -> Iterator[int]:
    yield row["question_draw"]["tokens"]
    yield from (draw["tokens"] for draw in row["answer_draws"])
