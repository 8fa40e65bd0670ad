"""Seed pairs before anything runs: what is wrong with them, and which of them are held out."""

import logging
from collections.abc import Sequence
from pathlib import Path

from isara.config import Config
from isara.data import SourceRow, read_rows
from isara.errors import SeedError
from isara.records import QAPair
from isara.render import Renderer
from isara.seeds.checks import Problem, lint, unique
from isara.seeds.heldout import check_heldout, check_overlap, name_strange, split_heldout

__all__ = [
    "Problem",
    "check_heldout",
    "check_overlap",
    "check_seeds",
    "lint",
    "load_pairs",
    "load_seeds",
    "split_heldout",
    "unique",
]

log = logging.getLogger("isara")

_SHOWN = 10


def load_seeds(config: Config, renderer: Renderer) -> tuple[list[QAPair], list[QAPair]]:
    """Seed pairs and held-out pairs of a config, linted; warnings go to the log.

    Args:
        config: Names the seeds, their columns, and what is held out; its limits are held against the pairs.
        renderer: Of the model, whose tokens and context decide which pairs are too long.

    Raises:
        SeedError: The first error of the lint, and how many more there are.
    """
    seeds, heldout, problems = _read(config, renderer)
    _report(problems)
    return [row.pair for row in seeds], [row.pair for row in heldout]


def check_seeds(
    config: Config, renderer: Renderer
) -> tuple[list[SourceRow], list[SourceRow], list[Problem], list[Problem]]:
    """Seed pairs, held-out pairs, all that is wrong with them, and each held-out answer that nobody could infer.

    Args:
        config: As for `load_seeds`.
        renderer: As there.
    """
    seeds, heldout, problems = _read(config, renderer)
    return seeds, heldout, problems, name_strange(seeds, heldout)


def _read(config: Config, renderer: Renderer) -> tuple[list[SourceRow], list[SourceRow], list[Problem]]:
    share = config.heldout if isinstance(config.heldout, float) else 0.0
    needed = max(config.questions.demos, config.answers.demos)
    rows = read_rows(config.seeds, config.columns.question, config.columns.answer)
    problems = lint(rows, demos_needed=needed, heldout=share, renderer=renderer, config=config)
    seeds = unique(rows)
    if isinstance(config.heldout, str):
        others = read_rows(config.heldout, config.columns.question, config.columns.answer)
        problems += lint(others, demos_needed=0, renderer=renderer, config=config)
        heldout = unique(others)
    else:
        aside = {pair.id for pair in split_heldout([row.pair for row in seeds], share, config.seed)[1]}
        heldout = [row for row in seeds if row.pair.id in aside]
        seeds = [row for row in seeds if row.pair.id not in aside]
    problems += check_overlap(seeds, heldout)
    problems += check_heldout(seeds, heldout)
    return seeds, heldout, problems


def load_pairs(source: str | Path, config: Config, renderer: Renderer) -> list[QAPair]:
    """The pairs of a source that are to be trained or measured on, linted as held-out pairs are, each once.

    Raises:
        SeedError: The first error of the lint, and how many more there are.
    """
    rows: list[SourceRow] = read_rows(source, config.columns.question, config.columns.answer)
    _report(lint(rows, demos_needed=0, renderer=renderer, config=config))
    return [row.pair for row in unique(rows)]


def _report(problems: Sequence[Problem]) -> None:
    """Logs the warnings and raises the first error."""
    warnings = [problem for problem in problems if problem.severity == "warning"]
    # What is about all pairs says more than what is about one, and near duplicates are many.
    for problem in sorted(warnings, key=lambda problem: (problem.minor, problem.line is not None))[:_SHOWN]:
        log.warning("%s", problem)
    if len(warnings) > _SHOWN:
        log.warning("%d more warnings about the pairs; `isara.seeds.lint` gives them all", len(warnings) - _SHOWN)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise SeedError(f"{errors[0]}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))
