"""The algorithm: generate, filter, train, evaluate, repeat."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isara.asking import Asker
from isara.decisions import check_trained, reviewed
from isara.evaluate.verdict import Verdict, content_bits, judge, model_name, sentence
from isara.files import read_json
from isara.folder import RunFolder, is_done, link_stage, model_stage, stage_folder
from isara.generate import Making
from isara.helpers import helped, helper_trainer
from isara.models import local_folder
from isara.parts import Parts
from isara.pool import Pool
from isara.records import CHECKER, READER, SEEDS_ONLY, HeldoutRow, QAPair
from isara.shelf import Shelf
from isara.stages import (
    Keys,
    Model,
    PreferenceStep,
    claim,
    earlier_preferences,
    fit,
    has_baseline,
    has_measured_reader,
    measure,
    prefer,
    read_accepted,
    read_figures,
    read_items,
    stage_figures,
    stepped,
    steps,
    taught,
    trained,
)
from isara.watching import SILENT, Watcher

log = logging.getLogger("isara")

# What chooses the iteration, by the figure that says so.
_CHOOSES = {"score_select": "score", "content_bits": "content"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind.

    Attributes:
        out: The run folder.
        best: The iteration whose model was exported; 0 is the base model, SEEDS_ONLY the seeds-only model.
        final: The folder of that model.
        evaluations: Figures of the base model (0), of each iteration, and of the seeds-only model (SEEDS_ONLY) and
            the reader (READER) where they were measured; empty dicts without an evaluator.
        accepted: All accepted pairs as they were trained on, in order.
        chosen: The best of the iterations, whether its model was exported or not; 0 where there is none.
        verdict: What the held-out pairs say; None where they were not measured one by one.
    """

    out: Path
    best: int
    final: Path
    evaluations: dict[int, dict[str, float]]
    accepted: list[QAPair]
    chosen: int = 0
    verdict: Verdict | None = None


def run(parts: Parts, watcher: Watcher = SILENT, *, shelf: Shelf | None = None, verify: bool = True) -> Result:
    """Aligns the model of `parts` to the domain of its seeds; a run that was cut off goes on where it was.

    Args:
        parts: What the run is made of; `isara.build_parts` makes them of a config.
        watcher: Is told of progress.
        shelf: Finished stages of sibling runs, to borrow from.
        verify: Whether the bytes of finished stages are compared with what their DONE says; sizes always are.

    Raises:
        RunError: The folder holds something else, is damaged, in use, or can't be written.
        YieldError: Too few pairs pass the filters.
        Paused: A person has to read rows before anything is trained (`review.before_training`).
    """
    config, seeds = parts.config, list(parts.seeds)
    with RunFolder(parts.out, shelf, verify, parts.page) as folder:
        keys = claim(folder, parts)
        base = model = Model(parts.model, keys.weights)  # M_0 = base model
        pool = Pool(parts.embedder, seeds)  # D_0 = seed pairs
        figures: dict[int, dict[str, float]] = {}
        measured: dict[int, Path] = {}
        accepted: list[QAPair] = []
        last = max(config.iterations, folder.finished)  # what is done stays done
        for t in range(last + 1):
            with parts.asker(model.path) as asker, parts.asker(base.path) as untuned:  # opened when first asked
                work = partial(measure, parts, asker, t, watcher)
                measured[t] = folder.stage(t, "evaluate", keys.evaluate(model), work)
                figures[t] = read_figures(measured[t])
                watcher.figures(t, "evaluate", figures[t])
                rows = {number: read_items(place) for number, place in measured.items()}
                weighed = with_content(figures, rows, config.evaluate.select)
                if t == last or no_longer_helps(weighed, config.evaluate.patience):
                    break
                # Questions, question filters, answers, pair filters, until N pairs are accepted.
                making = steps(parts, t + 1, model, pool, (untuned, base.weights) if t else None)
                made = generate(folder, parts, keys, making, (asker, model), watcher)
            watcher.figures(t + 1, "generate", stage_figures(made / "stats.json"))
            new = read_accepted(made, config.train.weights)
            # What a person has read is trained on as decided; nothing of the paper's (docs/algorithm.md).
            new = reviewed(parts.out, t + 1, new, config.review.before_training)
            accepted += new
            # M_t = SFT(M_0 or M_{t-1}; seeds + accepted), loss on answers only.
            model = learn(folder, parts, keys, t + 1, (new, accepted), (base, model), watcher)
            if t == 0:
                measured |= measure_rivals(folder, parts, keys, watcher)
            pool.add(new)  # D_t = D_{t-1} + accepted
        chosen = best_iteration(weighed)
        verdict = judge(
            rows,
            chosen,
            {number: steps_taken(parts.out, number, config.train.start) for number in measured},
            redrawn=not isinstance(config.heldout, str),
        )
        final = export(folder, parts, chosen, verdict)
        folder.show()
        for number in sorted(number for number in measured if number < 0):
            figures[number] = read_figures(measured[number])
            watcher.figures(number, "evaluate", figures[number])
        return Result(parts.out, verdict.best if verdict else chosen, final, figures, accepted, chosen, verdict)


def learn(
    folder: RunFolder,
    parts: Parts,
    keys: Keys,
    t: int,
    made: tuple[Sequence[QAPair], Sequence[QAPair]],
    models: tuple[Model, Model],
    watcher: Watcher,
) -> Model:
    """M_t: fine-tuned on seeds and accepted pairs, and then on preferences where the run has them.

    Args:
        folder: The run folder.
        parts: What the run is made of.
        keys: The keys of its stages.
        t: The iteration, from 1.
        made: The pairs accepted in it, and in all so far.
        models: M_0 and M_{t-1}.
        watcher: Is told of progress.
    """
    config, seeds, (new, accepted), (base, last) = parts.config, list(parts.seeds), made, models
    start, spin = base if config.train.start == "base" else last, config.prefer.method == "spin"
    distils = config.train.loss == "distil"
    reader = beside(folder, parts, keys, watcher, READER) if distils or parts.preference else None
    if t == 1 or not spin:
        first = [] if config.train.data == "generated" else seeds
        data = [*first, *(new if config.train.data == "newest" else accepted)]
        teacher = reader if distils else None
        trainer = parts.trainer if teacher is None else taught(parts.trainer, teacher)
        work, key = partial(fit, trainer, t, data, start, watcher), keys.train(data, start, teacher=teacher)
        check_trained(parts.out, t, key["pairs"])
        place = folder.stage(t, "train", key, work)
        watcher.figures(t, "train", stage_figures(place / "train.json"))
        start = trained(place)
    if parts.preference is None:
        return start
    # What is preferred: accepted answers to the model's own zero-shot ones, or the seeds' to those of M_t as it is now.
    pairs, opponent = (seeds, start) if spin else (new, reader or last)
    step = PreferenceStep(t, pairs, opponent, earlier_preferences(parts, t))
    work = partial(prefer, parts, step, start, watcher)
    place = folder.stage(t, "prefer", keys.prefer(step, start), work)
    watcher.figures(t, "prefer", stage_figures(place / "prefer.json"))
    return trained(place)


def measure_rivals(folder: RunFolder, parts: Parts, keys: Keys, watcher: Watcher) -> dict[int, Path]:
    """The evaluations of the SEEDS_ONLY model and of the READER, where the run measures them."""
    found = {}
    if has_baseline(parts):
        found[SEEDS_ONLY] = measure_seeds_only(folder, parts, keys, watcher)
    if has_measured_reader(parts):
        found[READER] = measure_reader(folder, parts, keys, watcher)
    return found


def measure_seeds_only(folder: RunFolder, parts: Parts, keys: Keys, watcher: Watcher) -> Path:
    """The evaluation of M_0 fine-tuned on the seeds alone, with the optimiser steps of iteration 1's fine-tuning."""
    trainer, base = stepped(parts.trainer, stage_folder(parts.out, 1, "train")), Model(parts.model, keys.weights)
    key = keys.train(parts.seeds, base, trainer)
    work = partial(fit, trainer, SEEDS_ONLY, list(parts.seeds), base, watcher)
    if folder.has(CHECKER, "train", key):  # it was trained before any pair was made
        work = partial(link_stage, stage_folder(parts.out, CHECKER, "train"))
    model = trained(folder.stage(SEEDS_ONLY, "train", key, work))
    with parts.asker(model.path) as asker:
        work = partial(measure, parts, asker, SEEDS_ONLY, watcher)
        return folder.stage(SEEDS_ONLY, "evaluate", keys.evaluate(model), work)


def measure_reader(folder: RunFolder, parts: Parts, keys: Keys, watcher: Watcher) -> Path:
    """The evaluation of the reader after demonstrations: what a user has who shows pairs with each question."""
    reader = beside(folder, parts, keys, watcher, READER)
    assert reader is not None, "it has answered"
    with parts.asker(reader.path) as asker:
        work = partial(measure, parts, asker, READER, watcher)
        return folder.stage(READER, "evaluate", keys.evaluate(reader, shown=True), work)


def steps_taken(run: Path, number: int, start: str) -> int:
    """Optimiser steps that a model of a run has seen since it was M_0, those on preferences among them.

    Args:
        run: The run folder.
        number: The iteration, or SEEDS_ONLY.
        start: As `train.start`.
    """
    numbers = range(1, number + 1) if start == "last" and number > 0 else [number]
    stages = [stage_folder(run, each, name) for each in numbers for name in ("train", "prefer")]
    return sum(int(read_json(stage / f"{stage.name}.json")["steps"]) for stage in stages if is_done(stage))


def export(folder: RunFolder, parts: Parts, chosen: int, verdict: Verdict | None) -> Path:
    """final/ with the best model: the chosen iteration's, unless another is better and it is not shown to help."""
    best, said = chosen, {}
    if verdict is not None:
        best = verdict.best
        said = {"model": model_name(best), "helped": verdict.helped, "verdict": sentence(verdict)}
        log.info("%s", said["verdict"])
    final = folder.export(
        model_stage(parts.out, best) / "model" if best else local_folder(parts.model),
        best,
        parts.cards(parts.out, best) if parts.cards else {},
        said,
    )
    log.info("%s is exported", model_name(best))
    return final


def generate_pairs(parts: Parts, watcher: Watcher = SILENT) -> Path:
    """The folder of the first iteration's generation alone, in the run folder that `run` goes on from."""
    with RunFolder(parts.out, show=parts.page) as folder, parts.asker(parts.model) as asker:
        keys = claim(folder, parts)
        base = Model(parts.model, keys.weights)
        making = steps(parts, 1, base, Pool(parts.embedder, parts.seeds))
        return generate(folder, parts, keys, making, (asker, base), watcher)


def generate(
    folder: RunFolder, parts: Parts, keys: Keys, making: Making, last: tuple[Asker, Model], watcher: Watcher
) -> Path:
    """The finished generation of an iteration: M_{t-1} asks and answers, or who is there to do it in its place."""
    asker, model = last
    model_of = partial(beside, folder, parts, keys, watcher, before=asker.close)
    with helped(parts, making, (asker, model.weights), model_of) as (answering, made):
        return folder.stage(made.t, "generate", keys.generate(made), partial(parts.make, answering, made, watcher))


def beside(
    folder: RunFolder,
    parts: Parts,
    keys: Keys,
    watcher: Watcher,
    number: int,
    *,
    before: Callable[[], None] = lambda: None,
) -> Model | None:
    """The READER, QUESTIONER or CHECKER, M_0 tuned on the seeds alone, once a run; None where the run has none.

    Args:
        folder: The run folder.
        parts: What the run is made of.
        keys: The keys of its stages.
        watcher: Is told of progress.
        number: Which.
        before: Is called where it has to be trained: closes what else holds memory.
    """
    trainer = helper_trainer(parts, number)
    if trainer is None:
        return None
    base, seeds = Model(parts.model, keys.weights), list(parts.seeds)

    def work(place: Path) -> None:
        before()
        fit(trainer, number, seeds, base, watcher, place)

    return trained(folder.stage(number, "train", keys.train(seeds, base, trainer), work))


def with_content(
    evaluations: Mapping[int, Mapping[str, float]], rows: Mapping[int, Sequence[HeldoutRow]], select: str
) -> dict[int, Mapping[str, float]]:
    """The figures of each model, with what the content of the held-out answers costs it where that can be told of all.

    Args:
        evaluations: Figures by iteration.
        rows: What the held-out pairs have shown of each.
        select: As `evaluate.select`: likelihood is that of all bits.
    """
    if select == "likelihood":
        return dict(evaluations)
    costs = {t: content_bits(rows.get(0, ()), rows.get(t, ())) for t in evaluations}
    if any(cost is None for cost in costs.values()):
        return dict(evaluations)
    return {
        t: {**figures, "content_bits": cost} for t, figures in evaluations.items() if (cost := costs[t]) is not None
    }


def best_iteration(evaluations: Mapping[int, Mapping[str, float]]) -> int:
    """The best iteration (from 1) by score, content or held-out likelihood; the last where nothing was measured."""
    costs = {t: cost for t, figures in evaluations.items() if t > 0 and (cost := _cost(figures)) is not None}
    return min(costs, key=costs.__getitem__) if costs else max(evaluations)


def no_longer_helps(evaluations: Mapping[int, Mapping[str, float]], patience: int | None) -> bool:
    """Whether the last `patience` iterations all failed to beat what came before them."""
    costs = [_cost(evaluations[t]) for t in sorted(evaluations) if t >= 0]
    known = [cost for cost in costs if cost is not None]
    if patience is None or len(known) < len(costs):
        return False
    stop = len(known) > patience + 1 and min(known[-patience:]) >= min(known[1:-patience], default=known[0])
    if stop:
        by = next((said for name, said in _CHOOSES.items() if name in evaluations[0]), "likelihood")
        log.info("stopped after iteration %d: held-out %s no longer improves", max(evaluations), by)
    return stop


def _cost(figures: Mapping[str, float]) -> tuple[float, float] | None:
    """What iterations are compared by, less is better: minus the score where it chooses, then content, or all bits."""
    if "bits_per_byte" not in figures:
        return None
    return -figures.get("score_select", 0.0), figures.get("content_bits", figures["bits_per_byte"])
