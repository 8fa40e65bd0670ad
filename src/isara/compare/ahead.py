"""What a comparison will take in time, by a few rows of the recipe; what arms share is counted once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from isara.asking import Asker
from isara.compare.answers import CHUNK, shown_pairs
from isara.compare.arms import Arm, changed, in_order
from isara.compare.budget import steps_to_take
from isara.compare.compare import Bench
from isara.compare.plan import first_stages, is_run
from isara.estimate import ROWS, Rates, Step, answering, in_units, measure, run_steps
from isara.files import value_hash
from isara.helpers import HELPERS, helper_trainer
from isara.parts import Parts
from isara.preview import Preview, preview
from isara.stages import Keys, Model


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
        """The stages of a run. Where an arm asks for no second answers, those of the rows count for nothing."""
        return run_steps(parts, self.asker, self._for(parts), self.rates)

    def questions(self, parts: Parts, arm: Arm, count: int) -> Step:
        """So many test questions, asked as the arm asks them."""
        demos = parts.config.answers.demos if arm.shown != "none" else 0
        return answering(parts, self.asker, self._for(parts), self.rates, count, -(-count // CHUNK), demos)

    def _for(self, parts: Parts) -> Preview:
        if parts.config.filters.agreement:
            return self.rows
        taken = [each.rejection is not None and each.rejection.reason == "agreement" for each in self.rows.candidates]
        rows = zip(self.rows.candidates, taken, strict=True)
        return replace(
            self.rows,
            candidates=[replace(each, second=None, rejection=None if by else each.rejection) for each, by in rows],
        )


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
    found = {arm.name: Ahead(arm.name) for arm in ordered}
    with base.asker(base.model) as asker:
        seen = _Seen(asker, preview(base, asker, rows), measure(base, asker))
        for seed in seeds:
            taken: dict[str, list[int]] = {}
            for arm in ordered:
                parts = bench.parts(arm, seed)
                pieces = list(_pieces(bench, arm, parts, seen, taken))
                new = sum(step.seconds for step, key in pieces if key is None or key not in known)
                known |= {key for _, key in pieces if key is not None}
                if is_run(bench, arm, parts, seed):
                    continue
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
    bench: Bench, arm: Arm, parts: Parts, seen: _Seen, taken: dict[str, list[int]]
) -> Iterator[tuple[Step, str | None]]:
    """Every stage of an arm with one seed, with what it depends on where that is known before anything runs.

    Args:
        bench: What the arms share.
        arm: Which.
        parts: Of its run.
        seen: What is gone by.
        taken: Steps that each arm's models of this seed have seen, by its name; this arm's are added.
    """
    config, wanted = parts.config, taken.get(arm.steps_of or "", [])
    runs = [parts]
    if wanted and not config.generate.accept:
        runs = [bench.make(changed(config, {"train.max_steps": steps}), bench.base) for steps in wanted]
    for own in runs:
        work = seen.steps(own)
        if wanted and config.generate.accept:
            work = _stepped(work, steps_to_take(wanted, config.train.start), seen.rates)
        tried = len(arm.choices(config)) + 1  # each choice is trained once, and the best once more
        fits = [step for step in work if step.name == "train" and step.number > 0]
        work += fits * (tried - 1)
        yield from _keyed(own, work)
        asked = seen.questions(own, arm, len(bench.tests))
        models = max(1, len({step.number for step in fits}))
        _, shown = shown_pairs(own, arm)
        for _ in range(models):
            yield asked, None if fits else value_hash(["asked", shown])
    seen_steps = [step.steps for step in fits[: config.iterations]]
    taken[arm.name] = list(accumulate(seen_steps)) if config.train.start == "last" else seen_steps


def _keyed(parts: Parts, work: Sequence[Step]) -> Iterator[tuple[Step, str | None]]:
    keys, seeds = Keys(parts, parts.keys()), list(parts.seeds)
    base = Model(parts.model, keys.weights)
    first: Mapping[tuple[str, int], object] = {stage: key for stage, _, key in first_stages(parts)}
    for step in work:
        key = first.get((step.name, step.number))
        if step.name == "train" and step.number in HELPERS:
            key = keys.train(seeds, base, helper_trainer(parts, step.number))
        elif step.name == "train" and step.number == 1 and not parts.config.generate.accept:
            key = keys.train(seeds, base)
        yield step, None if key is None else value_hash(key)


def _stepped(work: Sequence[Step], steps: Sequence[int], rates: Rates) -> list[Step]:
    """The stages with other numbers of optimiser steps in the iterations' trainings."""
    found = []
    for step in work:
        if step.name == "train" and 0 < step.number <= len(steps):
            share = steps[step.number - 1] / step.steps
            seconds = rates.training + share * (step.seconds - rates.training)
            step = replace(step, steps=steps[step.number - 1], tokens=share * step.tokens, seconds=seconds)
        found.append(step)
    return found
