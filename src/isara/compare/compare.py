"""Every arm × training seed as an ordinary run over one shelf, then every model asked and scored.

    comparisons/<name>/  compare.yaml                     what is compared, on what
                         arms/<arm>/seed-0/               a run folder
                         shelf/                           stages that arms share
                         answers/                         what each model answered, by the key of what made it
                         scores.jsonl                     every answer with its values
                         comparison.json  table.md  arms.svg
                         log.txt                          the one place with times
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import yaml

from isara.build import assemble
from isara.compare.answers import ask
from isara.compare.arms import Arm, changed, check_budget, in_order
from isara.compare.budget import Cost, cost, steps_seen, steps_to_take
from isara.compare.figures import Line, Measured, arm_lines, iteration_lines
from isara.compare.scorers import Row, Scorer, build_scorer, heldout_rows
from isara.compare.trainers import EqualSteps
from isara.config import Config, changes
from isara.errors import ConfigError, IsaraError, RunError, SeedError
from isara.files import append_text, disk_errors, json_lines, locked, make_folder, read_text, value_hash, write_json
from isara.files import write_text
from isara.folder import stage_folder
from isara.loop import run
from isara.parts import Parts
from isara.shelf import Shelf
from isara.stages import Model, trained
from isara.watching import SILENT, Watcher

# Makes an arm's parts of its config and the comparison's own parts, whose pairs and model they share.
Make: TypeAlias = Callable[[Config, Parts], Parts]
Tell: TypeAlias = Callable[[str], None]
# What a comparison that was cut off in its first moments may have left behind.
_FIRST_FILES = {".lock", "compare.yaml.tmp"}


@dataclass(frozen=True, slots=True)
class Failure:
    """An arm that failed with one training seed, and what it said."""

    arm: str
    seed: int
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        out: Its folder.
        model: The base model.
        arms: The arms, in the order asked for.
        seeds: The training seeds.
        score: What the first column is.
        percent: Whether its values are shares.
        lines: A line an arm, of the models that the runs exported.
        iterations: A line for each iteration of each arm that trains.
        costs: What each arm cost, one run a seed.
        failures: What went wrong; the rest went on.
    """

    out: Path
    model: str
    arms: Sequence[Arm]
    seeds: Sequence[int]
    score: str
    percent: bool
    lines: Sequence[Line]
    iterations: Sequence[Line]
    costs: dict[str, list[Cost]]
    failures: Sequence[Failure]


def cell_parts(config: Config, base: Parts, watcher: Watcher | None = None) -> Parts:
    """The parts of an arm's config, with the model, prompts and pairs of the comparison: those are split once."""
    return assemble(config, base.model, base.renderer, base.seeds, base.heldout, watcher)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all arms of a comparison share.

    Attributes:
        base: Parts of the recipe as it is.
        out: The comparison's folder.
        rows: The held-out rows with all their columns.
        scorer: Scores the answers.
        make: Makes an arm's parts.
        watcher: Is told of a run's progress.
        tell: Is told of each run that is done.
    """

    base: Parts
    out: Path
    rows: Sequence[Row]
    scorer: Scorer
    make: Make = cell_parts
    watcher: Watcher = SILENT
    tell: Tell = field(default=lambda line: None)

    def folder(self, arm: str, seed: int) -> Path:
        """An arm's run folder."""
        return self.out / "arms" / arm / f"seed-{seed}"

    def parts(self, arm: Arm, seed: int) -> Parts:
        """The parts of an arm's run, but for steps that it takes from another's.

        Raises:
            ConfigError: An override is no key of a config, or has no meaning.
        """
        config = arm.config(self.base.config, seed, self.folder(arm.name, seed))
        parts = self.make(config, self.base)
        return arm.part(parts) if arm.part else parts


def compare(
    base: Parts,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    out: Path,
    *,
    make: Make = cell_parts,
    watcher: Watcher = SILENT,
    tell: Tell = lambda line: None,
) -> Comparison:
    """Runs and scores every arm with every training seed; a comparison that was cut off goes on where it was.

    Args:
        base: The recipe's parts as they are; its model, seed pairs and held-out pairs are every arm's.
        arms: What is compared.
        seeds: Training seeds: each arm is run with each.
        out: The comparison's folder.
        make: Makes an arm's parts of its config.
        watcher: Is told of a run's progress.
        tell: Is told of each run that is done or failed.

    Raises:
        ConfigError: An arm's reference is missing, or the recipe has no budget or no score.
        SeedError: There are too few held-out pairs.
        RunError: The folder holds something else, or can't be written.
    """
    bench = set_up(base, out, make=make, watcher=watcher, tell=tell)
    ordered = in_order(arms)
    with locked(out):
        _claim(bench, arms, seeds)
        found, failures = _measure_all(bench, ordered, seeds)
        measured = [model for model, _ in found]
        comparison = Comparison(
            out=out,
            model=base.config.model,
            arms=arms,
            seeds=seeds,
            score=bench.scorer.about,
            percent=bench.scorer.percent,
            lines=arm_lines(arms, measured),
            iterations=iteration_lines(arms, measured),
            costs=_costs(bench, arms, seeds, failures),
            failures=failures,
        )
        _write(comparison, bench, found)
    return comparison


def set_up(
    base: Parts, out: Path, *, make: Make = cell_parts, watcher: Watcher = SILENT, tell: Tell = lambda line: None
) -> Bench:
    """What all arms share, looked over before anything runs.

    Raises:
        ConfigError: The recipe has no budget that arms can be held to, or its score misses something.
        SeedError: There are too few held-out pairs.
    """
    check_budget(base.config)
    if len(base.heldout) < 2:
        raise SeedError(
            f"expected at least 2 held-out pairs to compare arms on, found {len(base.heldout)}: name a file of them "
            "with `heldout`, or a larger share"
        )
    rows = heldout_rows(base.config, base.heldout)
    return Bench(base, out, rows, build_scorer(base.config, rows), make, watcher, tell)


def _measure_all(
    bench: Bench, arms: Sequence[Arm], seeds: Sequence[int]
) -> tuple[list[tuple[Measured, list[dict[str, Any]]]], list[Failure]]:
    """Every model with its answers, and what failed."""
    found: list[tuple[Measured, list[dict[str, Any]]]] = []
    failures: list[Failure] = []
    for seed in seeds:
        for arm in arms:
            begun = time.monotonic()
            try:
                if any(failure.arm == arm.steps_of and failure.seed == seed for failure in failures):
                    raise RunError(f"{arm.steps_of}, whose steps it takes, failed: mend that arm first")
                models = _measure(bench, arm, seed)
            except IsaraError as error:
                failures.append(Failure(arm.name, seed, " ".join(str(error).split())))
                said = f"{arm.name}, seed {seed} failed: {failures[-1].message}"
            else:
                found += models
                said = f"{arm.name}, seed {seed}: done in {time.monotonic() - begun:.0f} s"
            append_text(bench.out / "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
            bench.tell(said)
    return found, failures


def _measure(bench: Bench, arm: Arm, seed: int) -> list[tuple[Measured, list[dict[str, Any]]]]:
    """One arm with one seed: its run, and all of its models asked and scored."""
    parts = _with_steps(bench, arm, bench.parts(arm, seed), seed)
    result = run(parts, bench.watcher, shelf=Shelf(bench.out / "shelf"))
    seen = [0, *steps_seen(result.out)]
    numbers = sorted(t for t in result.evaluations if t) or [0]
    found = []
    for t in numbers:
        model = trained(stage_folder(result.out, t, "train")) if t else Model(parts.model, parts.weights(parts.model))
        answers = ask(parts, arm, model, bench.out / "answers", bench.scorer.likelihood)
        values = [
            dict(bench.scorer.score(row, answer)) for row, answer in zip(bench.rows, answers, strict=True)
        ]
        found.append((Measured(arm.name, seed, t, t == result.best, seen[t], _by_column(values)), answers))
    return found


def _with_steps(bench: Bench, arm: Arm, parts: Parts, seed: int) -> Parts:
    """The parts with a trainer that takes the steps of another arm's run, where the arm asks for that."""
    if arm.steps_of is None:
        return parts
    seen = steps_seen(bench.folder(arm.steps_of, seed))
    if len(seen) < parts.config.iterations:
        raise ConfigError(
            f"{arm.name} has {parts.config.iterations} iterations and {arm.steps_of}, whose steps it takes, has "
            f"{len(seen)}: give it as many"
        )
    taken = steps_to_take(seen, parts.config.train.start)[: parts.config.iterations]
    makers = [bench.make(changed(parts.config, {"train.max_steps": steps}), bench.base).trainer for steps in taken]
    return replace(parts, trainer=EqualSteps(makers))


def _by_column(values: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The questions' values as a column each, nan where a question has none; the first question's columns first."""
    names = dict.fromkeys(name for row in values for name in row)
    return {name: np.array([row.get(name, np.nan) for row in values]) for name in names}


def _costs(
    bench: Bench, arms: Sequence[Arm], seeds: Sequence[int], failures: Sequence[Failure]
) -> dict[str, list[Cost]]:
    failed = {(failure.arm, failure.seed) for failure in failures}
    return {
        arm.name: [cost(bench.folder(arm.name, seed)) for seed in seeds if (arm.name, seed) not in failed]
        for arm in arms
    }


def _claim(bench: Bench, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Makes the folder this comparison's, or checks that it is; arms and seeds may be others.

    Raises:
        RunError: It holds something else.
    """
    path, base = bench.out / "compare.yaml", bench.base
    config = base.config.model_dump(mode="json")
    contents = {
        "weights of the base model": base.weights(base.model),
        "seed pairs": value_hash([pair.id for pair in base.seeds]),
        "held-out pairs": value_hash([pair.id for pair in base.heldout]),
    }
    if path.exists():
        _check(bench.out, yaml.safe_load(read_text(path)), config, contents)
    elif foreign := sorted(file.name for file in bench.out.iterdir() if file.name not in _FIRST_FILES):
        raise RunError(
            f"{bench.out} is not empty and is no comparison (it holds {foreign[0]}): give another folder with --out"
        )
    about = {
        arm.name: {"about": arm.about, "overrides": _plain(arm.settings(base.config)), "shown": arm.shown}
        | ({"steps of": arm.steps_of} if arm.steps_of else {})
        | ({"instructions in its prompts": True} if arm.instructions else {})
        for arm in arms
    }
    record = {"arms": about, "seeds": list(seeds), "contents": contents, "config": config}
    write_text(path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=120))


def _check(out: Path, old: dict[str, Any], config: dict[str, Any], contents: dict[str, str]) -> None:
    differences = [f"{key} was {was} and is {now}" for key, was, now in changes(old["config"], config)]
    differences += [f"the {name} are others" for name, value in contents.items() if old["contents"][name] != value]
    if differences:
        raise RunError(
            f"{out} holds another comparison: {'; '.join(differences)}. Undo the change to go on with it, or give "
            "another folder with --out"
        )


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _write(comparison: Comparison, bench: Bench, found: Sequence[tuple[Measured, list[dict[str, Any]]]]) -> None:
    """All that a comparison leaves beside its runs and answers."""
    from isara.compare.plot import draw
    from isara.compare.table import table

    out = comparison.out
    rows = [
        {
            "arm": model.arm,
            "seed": model.seed,
            "iteration": model.iteration,
            "exported": model.exported,
            "steps": model.steps,
            **answer,
            "values": {name: float(values[place]) for name, values in model.values.items() if values[place] == values[place]},
        }
        for model, answers in found
        for place, answer in enumerate(answers)
    ]
    write_text(out / "scores.jsonl", json_lines(rows))
    write_json(
        out / "comparison.json",
        {
            "model": comparison.model,
            "score": comparison.score,
            "percent": comparison.percent,
            "seeds": list(comparison.seeds),
            "arms": [line.to_json() for line in comparison.lines],
            "iterations": [line.to_json() for line in comparison.iterations],
            "costs": {arm: [asdict(each) for each in costs] for arm, costs in comparison.costs.items()},
            "failures": [asdict(failure) for failure in comparison.failures],
        },
    )
    write_text(out / "table.md", table(comparison))
    if said := draw(comparison, out / "arms.svg"):
        bench.tell(said)
