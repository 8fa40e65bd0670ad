"""What a comparison will take in time, by a few rows of the recipe; what arms share is counted once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from isara.asking import Asker
from isara.compare.answers import CHUNK, shown_pairs
from isara.compare.arms import Arm, changed, in_order
from isara.compare.budget import steps_to_take
from isara.compare.compare import Bench
from isara.compare.plan import first_stages, is_run, knowing
from isara.compare.trainers import Tuned
from isara.config import Config
from isara.estimate import ROWS, Rates, Step, answering, in_units, measure, run_steps
from isara.files import value_hash
from isara.keys import part_key
from isara.parts import Parts
from isara.preview import Preview, preview
from isara.records import Candidate


@dataclass(frozen=True, slots=True)
class Ahead:
    """What an arm will take.

    Attributes:
        arm: Its name.
        runs: How many of its runs are missing.
        alone: Seconds of these, if they made everything by themselves.
        added: Seconds that they add to those of the arms before it.
    """

    arm: str
    runs: int = 0
    alone: float = 0.0
    added: float = 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is gone by: the base model, rows that it made, and its speed."""

    asker: Asker
    rows: Preview
    rates: Rates

    def steps(self, parts: Parts) -> list[Step]:
        """The stages of a run."""
        return run_steps(parts, self.asker, self._for(parts), self.rates)

    def questions(self, parts: Parts, arm: Arm, count: int, likelihood: bool) -> Step:
        """So many test questions, asked as the arm asks them, and their answers' likelihood where that is the score."""
        demos = parts.config.answers.demos if arm.shown != "none" else 0
        step = answering(parts, self.asker, self._for(parts), self.rates, count, -(-count // CHUNK), demos)
        return replace(step, seconds=step.seconds + likelihood * step.tokens / self.rates.reading)

    def _for(self, parts: Parts) -> Preview:
        """The rows as this run would have them: with a check that they have gone through or not, or without any."""
        if parts.config.filters.least_agreement:
            return replace(self.rows, unchecked=not any(each.second for each in self.rows.candidates))
        return replace(self.rows, candidates=[_unchecked(each) for each in self.rows.candidates], unchecked=False)


def _unchecked(row: Candidate) -> Candidate:
    taken = row.rejection is not None and row.rejection.reason == "agreement"
    return replace(row, second=None, rejection=None if taken else row.rejection)


def look_ahead(bench: Bench, arms: Sequence[Arm], seeds: Sequence[int], rows: int = ROWS) -> list[Ahead]:
    """What each arm's missing runs will take, in the order in which arms are run; nothing is written.

    Those who ask, answer or check in the recipe are trained for the rows, as a preview does. A score that is a task is
    not counted, nor an evaluator of the user's own.

    Args:
        bench: What the arms share.
        arms: What is compared.
        seeds: Training seeds.
        rows: How many candidates are made to go by.
    """
    base, ordered, known = bench.base, in_order(arms), set[str]()
    weights = base.weights(base.model)
    runs = [(arm, seed, knowing(bench.parts(arm, seed), weights)) for seed in seeds for arm in ordered]
    found = {arm.name: Ahead(arm.name) for arm in ordered}
    missing = {(arm.name, seed) for arm, seed, parts in runs if not is_run(bench, arm, parts, seed)}
    if not missing:
        return list(found.values())
    with base.asker(base.model) as asker:
        seen = _Seen(asker, preview(base, asker, rows), measure(base, asker))
        taken: dict[str, tuple[list[int], list[int]]] = {}
        for arm, seed, parts in runs:
            pieces = list(_pieces(bench, arm, parts, seen, taken))
            new = sum(step.seconds for step, key in pieces if key is None or key not in known)
            known |= {key for _, key in pieces if key is not None}
            if (arm.name, seed) in missing:
                before, alone = found[arm.name], sum(step.seconds for step, _ in pieces)
                found[arm.name] = Ahead(arm.name, before.runs + 1, before.alone + alone, before.added + new)
    return list(found.values())


def sentences(ahead: Sequence[Ahead]) -> list[str]:
    """A line an arm, and one for all."""
    lines = []
    for each in (each for each in ahead if each.runs):
        runs = f"{each.runs} {'run' if each.runs == 1 else 'runs'}"
        alone = "" if each.added > 0.95 * each.alone else f", {in_units(each.alone)} if it shared nothing"
        lines.append(f"{each.arm}: {runs}, {in_units(each.added)}{alone}")
    if not lines:
        return ["every run is done"]
    return [*lines, f"all: {in_units(sum(each.added for each in ahead))}, at the speed of just now"]


def _pieces(
    bench: Bench, arm: Arm, parts: Parts, seen: _Seen, taken: dict[str, tuple[list[int], list[int]]]
) -> Iterator[tuple[Step, str | None]]:
    """Every stage of an arm with one seed, with what it depends on where that is known before anything runs.

    Args:
        bench: What the arms share.
        arm: Which.
        parts: Of its run.
        seen: What is gone by.
        taken: Steps that each arm's models of the newest seed have seen, without those of a preference step and with
            them, by its name; this arm's are put in.
    """
    config, own_pairs = parts.config, bool(parts.config.generate.accept)
    wanted = taken[arm.steps_of][parts.preference is None] if arm.steps_of else []
    runs = [parts]
    if arm.steps_of and not own_pairs:
        runs = [_with(bench, parts, {"train.max_steps": steps}) for steps in dict.fromkeys(wanted)]
    models = max(1, config.iterations)
    for own in runs:
        work = seen.steps(own)
        if arm.steps_of and own_pairs:
            work = _stepped(work, steps_to_take(wanted, config.train.start), seen.rates)
        yield from _keyed(own, [*work, *_tried(bench, arm, own, work, seen.rates)])
        count = 0 if bench.task else len(bench.tests)
        asked = seen.questions(own, arm, count, bench.scorer.likelihood)
        # Of a model that is trained nothing is known.
        key = value_hash(["asked", part_key(own.renderer), shown_pairs(own, arm)[1]]) if not config.iterations else None
        yield from [(asked, key)] * models
    taken[arm.name] = _steps_seen(config, work, preferences=False), _steps_seen(config, work, preferences=True)


def _with(bench: Bench, parts: Parts, settings: Mapping[str, Any]) -> Parts:
    """The parts with other settings."""
    made = bench.make(changed(parts.config, settings), bench.base)
    return replace(made, weights=parts.weights)


def _steps_seen(config: Config, work: Sequence[Step], *, preferences: bool) -> list[int]:
    """Optimiser steps that each iteration's model has seen, as `budget.steps_seen` counts them of a finished run."""
    kinds = {"train", "prefer"} if preferences else {"train"}
    steps = [
        sum(step.steps for step in work if step.number == t and step.name in kinds)
        for t in range(1, config.iterations + 1)
    ]
    return list(accumulate(steps)) if config.train.start == "last" else steps


def _tried(bench: Bench, arm: Arm, parts: Parts, work: Sequence[Step], rates: Rates) -> list[Step]:
    """The trainings of what a hold-out chooses among, on four fifths of the seeds."""
    fit = next((step for step in work if step.name == "train" and step.number == 1), None)
    choices, rows = arm.choices(parts.config), round((1 - Tuned.share) * len(parts.seeds))
    if fit is None or not choices:
        return []
    steps = [changed(parts.config, choice).train.steps(rows) for choice in choices]
    return [_longer(fit, each, rates) for each in steps]


def _keyed(parts: Parts, work: Sequence[Step]) -> Iterator[tuple[Step, str | None]]:
    """The stages with what they depend on, where that is known before anything runs."""
    known = {stage: value_hash(key) for stage, _, key in first_stages(parts)}
    for step in work:
        yield step, known.get((step.name, step.number))


def _stepped(work: Sequence[Step], steps: Sequence[int], rates: Rates) -> list[Step]:
    """The stages with other numbers of optimiser steps in the iterations' trainings."""
    return [
        _longer(step, steps[step.number - 1], rates) if step.name == "train" and 0 < step.number <= len(steps) else step
        for step in work
    ]


def _longer(fit: Step, steps: int, rates: Rates) -> Step:
    """A training with another number of steps."""
    share = steps / fit.steps
    seconds = rates.training + share * (fit.seconds - rates.training)
    return replace(fit, steps=steps, tokens=share * fit.tokens, seconds=seconds)
