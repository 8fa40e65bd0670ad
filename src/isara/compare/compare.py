"""Every arm × training seed as an ordinary run over one shelf, then every model asked and scored."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from isara.build import assemble
from isara.compare.answers import ask
from isara.compare.arms import Arm, changed, check_budget, in_order
from isara.compare.budget import cost, iterations, steps_seen, steps_to_take
from isara.compare.comparison import Comparison, Failure, in_short
from isara.compare.figures import Measured, arm_lines, iteration_lines
from isara.compare.guards import Guard, one_source
from isara.compare.page import refresh_page
from isara.compare.store import claim, write
from isara.compare.tasks import HarnessScore, TaskScore, columns
from isara.compare.trainers import Choice, EqualSteps, Tuned
from isara.config import Config
from isara.errors import ConfigError, IsaraError, RunError, SeedError
from isara.evaluate.run import RunEvaluator, split_answered
from isara.evaluate.scorers import Row, Scorer, build_scorer, heldout_rows
from isara.files import append_text, locked
from isara.folder import model_stage, open_shelf
from isara.loop import run
from isara.marks import clean
from isara.parts import Parts
from isara.records import QAPair
from isara.report.facts import read_run
from isara.stages import Model, trained
from isara.watching import SILENT, Watcher

# Makes an arm's parts of its config and the comparison's own parts.
Make: TypeAlias = Callable[[Config, Parts], Parts]
Tell: TypeAlias = Callable[[str], None]
# Questions to compare on, and what is known of each.
Tests: TypeAlias = tuple[Sequence[QAPair], Sequence[Row]]


def cell_parts(config: Config, base: Parts, watcher: Watcher | None = None) -> Parts:
    """The parts of an arm's config; model, prompts and pairs are the comparison's: pairs are held out once for all."""
    return assemble(config, base.model, base.renderer, base.seeds, base.heldout, watcher)


def silence(line: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all arms of a comparison share.

    Attributes:
        base: Parts of the recipe as it is.
        out: The comparison's folder.
        tests: The questions that arms are compared on.
        rows: What is known of them: the held-out rows with all their columns.
        scorer: Scores the answers.
        guard: Keeps what is near them out of what is trained on.
        task: Scores the models instead, where the score is a task.
        selection: Ids of the held-out pairs that choose the runs' iterations, and so are in no table.
        columns: The columns that the score has given an answer to each question, by the pair's id.
        make: Makes an arm's parts.
        watcher: Is told of a run's progress.
        tell: Is told of each run.
    """

    base: Parts
    out: Path
    tests: Sequence[QAPair]
    rows: Sequence[Row]
    scorer: Scorer
    guard: Guard
    task: TaskScore | HarnessScore | None = None
    selection: frozenset[str] = frozenset()
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    make: Make = cell_parts
    watcher: Watcher = SILENT
    tell: Tell = silence

    @property
    def strata(self) -> list[Hashable] | None:
        """The kind of each test question, where the score weighs kinds; a question that is in no table has one, too."""
        stratum = self.scorer.stratum
        return None if stratum is None or self.task is not None else [stratum(row) for row in self.rows]

    def folder(self, arm: str, seed: int) -> Path:
        """An arm's run folder, or the folder of its runs where it has one for each number of steps."""
        return self.out / "arms" / arm / f"seed-{seed}"

    def parts(self, arm: Arm, seed: int) -> Parts:
        """The parts of an arm's run, but for steps that it takes from another's.

        Raises:
            ConfigError: An override is no key of a config, or has no meaning.
        """
        config = arm.config(self.base.config, seed, self.folder(arm.name, seed))
        parts = self.make(config, self.base)
        parts = replace(parts, question_filters=[*parts.question_filters, self.guard])
        if choices := arm.choices(config):
            tried = [Choice(each, self.make(changed(config, each), self.base).trainer) for each in choices]
            parts = replace(parts, trainer=Tuned(tried, parts))
        return arm.part(parts) if arm.part else parts


def compare(
    base: Parts,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    out: Path,
    *,
    tests: Tests | TaskScore | HarnessScore | None = None,
    make: Make = cell_parts,
    watcher: Watcher = SILENT,
    tell: Tell = silence,
) -> Comparison:
    """Runs and scores every arm with every training seed; a comparison that was cut off goes on where it was.

    Args:
        base: The recipe's parts as they are; its model, seed pairs and held-out pairs are every arm's.
        arms: What is compared.
        seeds: Training seeds: each arm is run with each.
        out: The comparison's folder.
        tests: Questions to compare on, with what is known of each, or a task; None is the held-out pairs.
        make: Makes an arm's parts of its config.
        watcher: Is told of a run's progress.
        tell: Is told of each run that begins, is done or failed.

    Raises:
        ConfigError: An arm's reference is missing, or the recipe has no budget or no score.
        SeedError: There are too few held-out pairs.
        RunError: The folder holds something else, or can't be written.
    """
    bench = set_up(base, out, tests=tests, make=make, watcher=watcher, tell=tell)
    ordered = in_order(arms)
    with locked(out):
        claim(out, base, arms, seeds, bench.tests, bench.scorer.about if bench.task else None)
        measured, failures = _measure_all(bench, ordered, seeds)
        failed = {(failure.arm, failure.seed) for failure in failures}
        runs = {arm.name: [seed for seed in seeds if (arm.name, seed) not in failed] for arm in arms}
        comparison = Comparison(
            out=out,
            model=base.config.model,
            arms=arms,
            seeds=seeds,
            score=bench.scorer.about,
            percent=bench.scorer.percent,
            lines=arm_lines(arms, measured, bench.strata),
            iterations=iteration_lines(arms, measured, bench.strata),
            costs={name: [cost(bench.folder(name, seed)) for seed in done] for name, done in runs.items()},
            failures=failures,
            seed_pairs=len(base.seeds),
            tests=len(bench.tests),
            strata=bench.strata,
            more_is_better=bench.task is None,
            leaks=bench.guard.leaks(base.seeds),
            one_source=tests is None and one_source(base.config),
            measured=measured,
            progress={name: [iterations(bench.folder(name, seed)) for seed in done] for name, done in runs.items()},
        )
        write(comparison, measured)
        refresh_page(out)
    return comparison


def set_up(
    base: Parts,
    out: Path,
    *,
    tests: Tests | TaskScore | HarnessScore | None = None,
    make: Make = cell_parts,
    watcher: Watcher = SILENT,
    tell: Tell = silence,
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
            "with --set heldout=FILE, or hold out a larger share"
        )
    task = tests if isinstance(tests, TaskScore | HarnessScore) else None
    asked, rows = tests if isinstance(tests, tuple) else (base.heldout, heldout_rows(base.config, base.heldout))
    if base.config.evaluate.score is None and not all(pair.answer for pair in asked):
        raise ConfigError(
            "expected tests with answers, whose likelihood is the score, found some without: name another score with "
            "--set evaluate.score=…"
        )
    selection = frozenset[str]()
    if tests is None and isinstance(base.evaluator, RunEvaluator):
        # Of these pairs, which may be other ones than those that the recipe's own evaluator was made with.
        _, selection = split_answered(base.config, base.heldout)
    scorer = build_scorer(base.config, [row for pair, row in zip(asked, rows, strict=True) if pair.id not in selection])
    if task is not None:
        asked, rows = (task.questions() if isinstance(task, TaskScore) else ()), ()
        scorer = replace(scorer, about=task.about, percent=False)
    guard = Guard(asked, base.embedder)
    return Bench(base, out, asked, rows, scorer, guard, task, selection, make=make, watcher=watcher, tell=tell)


def _measure_all(bench: Bench, arms: Sequence[Arm], seeds: Sequence[int]) -> tuple[list[Measured], list[Failure]]:
    """Every model, and what failed."""
    measured: list[Measured] = []
    failures: list[Failure] = []
    for seed in seeds:
        for arm in arms:
            begun = time.monotonic()
            bench.tell(f"{arm.name}, seed {seed}")
            try:
                if any(failure.arm == arm.steps_of and failure.seed == seed for failure in failures):
                    raise RunError(f"{arm.steps_of}, whose steps it takes, failed: mend that arm first")
                measured += _measure(bench, arm, seed)
                said = f"{arm.name}, seed {seed}: done in {time.monotonic() - begun:.0f} s"
            except IsaraError as error:
                failures.append(Failure(arm.name, seed, " ".join(str(error).split())))
                said = f"{arm.name}, seed {seed}: failed: {failures[-1].message}"
            append_text(bench.out / "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
            bench.tell(in_short(said))
    return measured, failures


def _measure(bench: Bench, arm: Arm, seed: int) -> list[Measured]:
    """One arm with one seed: its run, and all of its models asked and scored."""
    parts = bench.parts(arm, seed)
    if arm.steps_of is None:
        return _run(bench, arm, parts)
    reference = bench.folder(arm.steps_of, seed)
    # An arm with a preference step of its own takes the reference's steps before that one.
    seen = steps_seen(reference, preferences=parts.preference is None)
    if parts.config.generate.accept:
        return _run(bench, arm, replace(parts, trainer=_equal_steps(bench, arm, parts.config, seen)))
    best = read_run(reference, verify=False).chosen
    measured = []
    for t, steps in enumerate(seen, 1):
        place = bench.folder(arm.name, seed) / f"steps-{steps}"
        parts = bench.make(changed(parts.config, {"train.max_steps": steps, "out": str(place)}), bench.base)
        measured += [replace(model, iteration=t, exported=t == best) for model in _run(bench, arm, parts)]
    return measured


def _run(bench: Bench, arm: Arm, parts: Parts) -> list[Measured]:
    """One run of an arm, and its models asked and scored."""
    result = run(parts, bench.watcher, shelf=open_shelf(bench.out / "shelf"))
    seen = [0, *steps_seen(result.out)]
    measured = []
    for t in sorted(t for t in result.evaluations if t) or [0]:
        model = trained(model_stage(result.out, t)) if t else Model(parts.model, parts.weights(parts.model))
        if bench.task is not None:
            values, answers = bench.task.measure(parts, arm, model, bench.out / "answers")
        else:
            begin = partial(bench.watcher.stage, t, "test")
            answers = ask(parts, arm, model, bench.tests, bench.out / "answers", bench.scorer.likelihood, begin)
            values = _columns(bench, answers)
        measured.append(Measured(arm.name, parts.config.seed, t, t == result.chosen, seen[t], values, answers))
    return measured


def _equal_steps(bench: Bench, arm: Arm, config: Config, seen: Sequence[int]) -> EqualSteps:
    """A trainer after whose iterations the arm's models have seen as many steps as `seen` says."""
    if len(seen) < config.iterations:
        raise ConfigError(
            f"{arm.name} has {config.iterations} iterations and {arm.steps_of}, whose steps it takes, has {len(seen)}: "
            "give both as many"
        )
    taken = steps_to_take(seen, config.train.start)[: config.iterations]
    return EqualSteps([bench.make(changed(config, {"train.max_steps": steps}), bench.base).trainer for steps in taken])


def _columns(bench: Bench, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answers' values as a column each, nan where a question has none; the first question's first column first."""
    asked = zip(bench.tests, bench.rows, answers, strict=True)
    found = [{} if pair.id in bench.selection else bench.scorer.score(row, answer) for pair, row, answer in asked]
    for pair, values in zip(bench.tests, found, strict=True):
        first = bench.columns.setdefault(pair.id, tuple(values))
        if set(first) != set(values):
            raise ConfigError(
                f"expected {', '.join(first)} from {bench.scorer.name} for every answer to "
                f"{clean(repr(pair.asked), 60)}, found {', '.join(values)}: let columns depend on the question alone"
            )
    # In one order for all arms: the first column is what they are compared by.
    return columns(
        [
            {name: values[name] for name in bench.columns[pair.id]}
            for pair, values in zip(bench.tests, found, strict=True)
        ]
    )
