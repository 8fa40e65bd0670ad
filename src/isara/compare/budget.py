"""What an arm's models have cost, and as how many optimiser steps another arm's models are to have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from isara.report.facts import read_run

Start = Literal["base", "last"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run has cost, whether it made all of it itself or shares it with another.

    Attributes:
        candidates: Pairs made, accepted or not.
        generated: Tokens generated for them.
        steps: Optimiser steps of all trainings.
        trained: Tokens trained on, prompts and all epochs included.
        accepted: Pairs accepted.
        near_tests: Candidates that were dropped because a test question is too near.
    """

    candidates: int
    generated: int
    steps: int
    trained: int
    accepted: int
    near_tests: int


def run_folders(cell: Path) -> list[Path]:
    """The run folders of an arm with one seed: the folder itself, or one for each number of steps in it."""
    return [cell] if (cell / "isara.yaml").exists() else sorted(cell.glob("steps-*"))


def cost(cell: Path) -> Cost:
    """The cost of an arm with one seed.

    Raises:
        RunError: A record of it is damaged.
    """
    runs = [read_run(run, verify=False) for run in run_folders(cell)]
    iterations = [facts for run in runs for facts in run.iterations]
    candidates = [each.candidate for facts in iterations for each in facts.candidates]
    stats = [each.stats for facts in iterations for each in facts.trainings]
    stats += [each.stats for run in runs for each in (*(run.reader.trainings if run.reader else ()), *run.helpers)]
    return Cost(
        len(candidates),
        sum(draw.tokens for each in candidates for draw in each.draws) + sum(facts.alone for facts in iterations),
        sum(found.steps for found in stats),
        sum(found.tokens for found in stats),
        sum(each.rejection is None for each in candidates),
        sum(each.rejection is not None and each.rejection.reason == "near_test" for each in candidates),
    )


def iterations(cell: Path) -> list[dict[str, Any]]:
    """What each iteration of an arm with one seed shows of a collapse: counts, diversity, lengths and likelihood.

    Raises:
        RunError: A record of it is damaged.
    """
    return [
        {
            "run": run.name,
            "iteration": facts.number,
            "funnel": dict(facts.funnel),
            "diversity": dict(facts.stats or {}),
            "cut_answers": facts.cut,
            "heldout": dict(facts.figures or {}),
        }
        for run in run_folders(cell)
        for facts in read_run(run, verify=False).iterations
    ]


def steps_seen(run: Path, *, preferences: bool = True) -> list[int]:
    """Optimiser steps that the model of each trained iteration has seen since it was the base model.

    Args:
        run: The run folder.
        preferences: Whether those of the preference step count.

    Raises:
        RunError: A record of the run is damaged.
    """
    found = read_run(run, verify=False)  # the run that made it has just checked it
    trained = [facts for facts in found.iterations if facts.trained]
    tuned = [facts.training.stats.steps if facts.training else 0 for facts in trained]
    taken = [facts.steps for facts in trained] if preferences else tuned
    return list(accumulate(taken)) if found.config.train.start == "last" else taken


def steps_to_take(seen: Sequence[int], start: Start) -> list[int]:
    """Steps of each iteration after which its model has seen as many as `seen` says; one at the least."""
    if start == "base":
        return list(seen)
    return [max(1, after - before) for before, after in zip([0, *seen], seen, strict=False)]
