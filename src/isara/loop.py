"""The algorithm: generate, filter, train, evaluate, repeat."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isara.folder import RunFolder, stage_folder
from isara.models import local_folder
from isara.parts import Parts
from isara.pool import Pool
from isara.records import QAPair
from isara.shelf import Shelf
from isara.stages import Model, claim, fit, measure, read_accepted, read_figures, steps, trained
from isara.watching import SILENT, Watcher

log = logging.getLogger("isara")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind.

    Attributes:
        out: The run folder.
        best: The iteration whose model was exported; 0 is the base model.
        final: The folder of that model.
        evaluations: Figures of the base model (0) and of each iteration; empty dicts without an evaluator.
        accepted: All accepted pairs, in order.
    """

    out: Path
    best: int
    final: Path
    evaluations: dict[int, dict[str, float]]
    accepted: list[QAPair]


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
    """
    config, seeds = parts.config, list(parts.seeds)
    with RunFolder(parts.out, shelf, verify) as folder:
        keys = claim(folder, parts)
        base = model = Model(parts.model, keys.weights)  # M_0 = base model
        pool = Pool(parts.embedder, seeds)  # D_0 = seed pairs
        figures: dict[int, dict[str, float]] = {}
        accepted: list[QAPair] = []
        last = max(config.iterations, folder.finished)  # what is done stays done
        for t in range(last + 1):
            with parts.asker(model.path) as asker:  # opened when first asked, once a model
                work = partial(measure, parts, asker, t, watcher)
                figures[t] = read_figures(folder.stage(t, "evaluate", keys.evaluate(model), work))
                if t == last or no_longer_helps(figures, config.evaluate.patience):
                    break
                # Questions, question filters, answers, pair filters, until N pairs are accepted.
                making = steps(parts, t + 1, model, pool)
                key = keys.generate(making)
                new = read_accepted(folder.stage(t + 1, "generate", key, partial(parts.make, asker, making, watcher)))
            accepted += new
            # M_t = SFT(M_0 or M_{t-1}; seeds + accepted), loss on answers only.
            start = base if config.train.start == "base" else model
            first = [] if config.train.data == "generated" else seeds
            data = [*first, *(new if config.train.data == "newest" else accepted)]
            work = partial(fit, parts, t + 1, data, start, watcher)
            model = trained(folder.stage(t + 1, "train", keys.train(data, start), work))
            pool.add(new)  # D_t = D_{t-1} + accepted
        best = best_iteration(figures)
        final = folder.export(
            stage_folder(parts.out, best, "train") / "model" if best else local_folder(parts.model),
            best,
            parts.cards(parts.out, best) if parts.cards else {},
        )
        log.info("iteration %d is exported", best)
        return Result(parts.out, best, final, figures, accepted)


def generate_pairs(parts: Parts, watcher: Watcher = SILENT) -> Path:
    """The folder of the first iteration's generation alone, in the run folder that `run` goes on from."""
    with RunFolder(parts.out) as folder, parts.asker(parts.model) as asker:
        keys = claim(folder, parts)
        making = steps(parts, 1, Model(parts.model, keys.weights), Pool(parts.embedder, parts.seeds))
        return folder.stage(1, "generate", keys.generate(making), partial(parts.make, asker, making, watcher))


def best_iteration(evaluations: Mapping[int, Mapping[str, float]]) -> int:
    """The iteration (from 1) with the fewest held-out bits per byte; the last where nothing was measured."""
    trained = {t: figures["bits_per_byte"] for t, figures in evaluations.items() if t and "bits_per_byte" in figures}
    return min(trained, key=trained.__getitem__) if trained else max(evaluations)


def no_longer_helps(evaluations: Mapping[int, Mapping[str, float]], patience: int | None) -> bool:
    """Whether the last `patience` iterations all failed to beat what came before them."""
    if patience is None or any("bits_per_byte" not in figures for figures in evaluations.values()):
        return False
    scores = [evaluations[t]["bits_per_byte"] for t in sorted(evaluations)]
    stop = len(scores) > patience + 1 and min(scores[-patience:]) >= min(scores[1:-patience], default=scores[0])
    if stop:
        log.info("stopped after iteration %d: held-out likelihood no longer improves", max(evaluations))
    return stop
