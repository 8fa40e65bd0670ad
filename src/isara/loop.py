"""The algorithm: generate, filter, train, evaluate, repeat."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from isara.data import QAPair
from isara.diversity import diversity
from isara.errors import YieldError
from isara.generate import Generation, Row, generate_batch
from isara.pool import Pool
from isara.protocols import Embedder, EngineFactory, Evaluator, Filter, Trainer
from isara.run import Iteration, RunFolder, iterations

log = logging.getLogger("isara")


class Watcher(Protocol):
    """Is told how far the run has come; the command line draws its progress bars with one."""

    def stage(self, iteration: int, name: Literal["generate", "train", "evaluate"], total: int) -> None:
        """A stage begins; `total` is what will be accepted (generate), else 0."""
        ...

    def batch(self, rows: Sequence[Row], accepted: int) -> None:
        """A batch has been filtered; `accepted` counts the whole iteration."""
        ...

    def tokens(self, tokens: int, done: int) -> None:
        """The engine has generated so many tokens, and completed so many prompts, in the call at hand."""
        ...

    def step(self, step: int, total: int, loss: float) -> None:
        """The trainer has taken an optimiser step."""
        ...


class Silent:
    """The watcher that shows nothing."""

    def stage(self, iteration: int, name: Literal["generate", "train", "evaluate"], total: int) -> None:
        """Shows nothing."""

    def batch(self, rows: Sequence[Row], accepted: int) -> None:
        """Shows nothing."""

    def tokens(self, tokens: int, done: int) -> None:
        """Shows nothing."""

    def step(self, step: int, total: int, loss: float) -> None:
        """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What is repeated, and from what. What the paper does not state is our choice; docs/algorithm.md has the reasons.

    Attributes:
        iterations: T, the most iterations.
        start: Each training starts from the base model M_0 or from the last one, M_{t-1}.
        data: It trains on the seeds with all accepted pairs, or with the newest iteration's alone.
        pool: Answers' demonstrations are retrieved from the seeds, or from all of D_{t-1}.
        patience: Iterations without a better held-out likelihood before the run stops; None never stops early.
    """

    iterations: int = 3
    start: Literal["base", "last"] = "base"
    data: Literal["all", "newest"] = "all"
    pool: Literal["seeds", "all"] = "seeds"
    patience: int | None = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind.

    Attributes:
        out: The run folder.
        best: The iteration whose model was exported.
        final: The folder of that model.
        evaluations: Figures of the base model (0) and of each iteration; empty dicts without an evaluator.
        accepted: All accepted pairs, in order.
    """

    out: Path
    best: int
    final: Path
    evaluations: dict[int, dict[str, float]]
    accepted: list[QAPair]


def self_align(
    seeds: Sequence[QAPair],
    model: str,
    out: Path | str,
    *,
    engine: EngineFactory,
    embedder: Embedder,
    trainer: Trainer,
    question_filters: Sequence[Filter] = (),
    pair_filters: Sequence[Filter] = (),
    evaluate: Evaluator | None = None,
    heldout: Sequence[QAPair] = (),
    generation: Generation | None = None,
    loop: Loop | None = None,
    weights: Callable[[str], str] | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    cards: Callable[[RunFolder, Iteration], Mapping[str, str]] | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Aligns `model` to the domain of `seeds`; a run that was cut off goes on where it was.

    Args:
        seeds: D_0, the seed pairs.
        model: M_0, a model folder or name that `engine` and `trainer` understand.
        out: The run folder, made where it is absent.
        engine: Opens a model for generation.
        embedder: Gives the vectors for retrieval; wrap it in `CachedEmbedder` unless it is cheap.
        trainer: Fine-tunes a model on pairs.
        question_filters: Applied to questions before they are answered.
        pair_filters: Applied to pairs.
        evaluate: Measures M_0 and each M_t; its "bits_per_byte" picks the best and stops the run. None: the last is
            best.
        heldout: The pairs that `evaluate` measures on; only stored, the loop never sees them otherwise.
        generation: How candidates are made.
        loop: What is repeated, and from what.
        weights: Gives the hash of a model's weights, stored with each row; None stores the model's name.
        config: What the run folder records as its config; by default `generation` and `loop`.
        environment: What it records beside it (versions); the hash of M_0's weights is added.
        cards: Gives the text files (by name) that go into final/ beside the exported model.
        watcher: Is told of progress.

    Raises:
        RunError: The folder holds something else, is in use, or can't be written.
        YieldError: Too few pairs pass the filters.
    """
    generation, loop, watcher = generation or Generation(), loop or Loop(), watcher or Silent()
    name_weights = weights or str
    with RunFolder(Path(out)) as run:
        run.claim(
            config or {"model": model, **asdict(generation), **asdict(loop)},
            {**(environment or {}), "weights": name_weights(model)},
            seeds,
            heldout,
        )
        evaluations = {0: _evaluate(run.iteration(0), model, engine, evaluate, watcher)}
        known = Pool(embedder, seeds)  # D_0 = seed pairs
        current = model  # M_0 = base model
        accepted: list[QAPair] = []
        finished = sum(step.done for step in iterations(run.path))
        for t in range(1, max(loop.iterations, finished) + 1):  # what is done stays done
            step = run.iteration(t)
            # Until N pairs are accepted: new questions, question filters, answers, pair filters.
            if not step.accepted.exists():
                generate_iteration(
                    step,
                    engine,
                    current,
                    weights=name_weights(current),
                    known=known,
                    retrieval=Pool(embedder, seeds) if loop.pool == "seeds" else known,
                    options=generation,
                    question_filters=question_filters,
                    pair_filters=pair_filters,
                    watcher=watcher,
                )
            new = step.read_accepted()
            accepted += new
            # M_t = SFT(M_0 or M_{t-1}; seeds + accepted), loss on answers only.
            if not step.trained:
                watcher.stage(t, "train", 0)
                data = [*seeds, *(accepted if loop.data == "all" else new)]
                step.remove_model()  # of a training whose end was not recorded
                stats = trainer.fit(data, model if loop.start == "base" else current, step.model)
                step.sync_model()
                step.write_json("train.json", asdict(stats))
            current = str(step.model)
            known.add(new)  # D_t = D_{t-1} + accepted
            evaluations[t] = _evaluate(step, current, engine, evaluate, watcher)
            if not step.done:
                step.finish()
            if _no_longer_helps(evaluations, loop.patience):
                log.info("stopped after iteration %d: held-out likelihood no longer improves", t)
                break
        best = best_iteration(evaluations)
        run.export(run.iteration(best), cards(run, run.iteration(best)) if cards else {})
        log.info("iteration %d is exported", best)
        return Result(run.path, best, run.path / "final", evaluations, accepted)


def best_iteration(evaluations: Mapping[int, Mapping[str, float]]) -> int:
    """The iteration (from 1) with the fewest held-out bits per byte; the last where nothing was measured."""
    trained = {t: figures["bits_per_byte"] for t, figures in evaluations.items() if t and "bits_per_byte" in figures}
    return min(trained, key=trained.__getitem__) if trained else max(evaluations)


def funnel(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many stored candidates were accepted and how many each reason took, most first."""
    reasons = Counter(row["rejection"]["reason"] for row in rows if not row["accepted"])
    return {"candidates": len(rows), "accepted": sum(row["accepted"] for row in rows), **dict(reasons.most_common())}


def generate_iteration(
    step: Iteration,
    engine: EngineFactory,
    model: str,
    *,
    weights: str,
    known: Pool,
    retrieval: Pool,
    options: Generation,
    question_filters: Sequence[Filter],
    pair_filters: Sequence[Filter],
    watcher: Watcher,
) -> None:
    """Makes candidates until N are accepted, then closes the generation with stats.json and accepted.jsonl.

    Raises:
        YieldError: Too few candidates pass; what was made stays on disk.
    """
    watcher.stage(step.number, "generate", options.accept)
    rows = step.replay()
    kept = Pool(known.embedder, known.pairs)
    kept.add(QAPair.from_json(row) for row in rows if row["accepted"])
    batch = rows[-1]["batch"] + 1 if rows else 0
    with engine(model) as opened:
        while need := options.accept - (len(kept) - len(known)):
            _check_yield(step, rows, batch, options)
            new = generate_batch(
                opened,
                weights=weights,
                demonstrations=known,
                retrieval=retrieval,
                kept=kept,
                iteration=step.number,
                batch=batch,
                need=need,
                options=options,
                question_filters=question_filters,
                pair_filters=pair_filters,
            )
            stored = [row.to_json() for row in new]
            step.append(stored)
            rows += stored
            batch += 1
            watcher.batch(new, len(kept) - len(known))
    passed = [row for row in rows if row["accepted"]]
    step.write_json("stats.json", {"funnel": funnel(rows), **diversity(passed)})
    step.write_accepted(
        {**QAPair.from_json(row).to_json(), "weights": row["weights"], "answer_seed": row["answer_seed"]}
        for row in passed
    )


def _evaluate(
    step: Iteration, model: str, engine: EngineFactory, evaluate: Evaluator | None, watcher: Watcher
) -> dict[str, float]:
    figures = step.read_json("eval.json")
    if figures is None:
        figures = {}
        if evaluate:
            watcher.stage(step.number, "evaluate", 0)
            with engine(model) as opened:
                figures = evaluate(opened)
        step.write_json("eval.json", figures)
    return figures


def _check_yield(step: Iteration, rows: Sequence[Mapping[str, Any]], batches: int, generation: Generation) -> None:
    """Raises a YieldError when going on would be a waste."""
    accepted = sum(row["accepted"] for row in rows)
    if batches < generation.most_batches and (batches < 2 or accepted >= generation.min_yield * len(rows)):
        return
    taken = [
        f"{reason} took {count}" for reason, count in funnel(rows).items() if reason not in {"candidates", "accepted"}
    ]
    raise YieldError(
        f"iteration {step.number}: {accepted} of the {generation.accept} pairs wanted were accepted out of {len(rows)} "
        f"candidates in {batches} batches; {', '.join(taken[:4])}. Everything so far is kept in {step.folder}. "
        f"{_advice(rows)} (generate.max_batches and generate.min_yield may be changed in the same run, the rest only "
        "in a new --out)"
    )


ADVICE = {
    "novelty": "The model repeats itself: raise questions.temperature or filters.novelty, or give more varied seeds",
    "near_duplicate": "Questions are too alike: raise filters.near_duplicate or questions.temperature",
    "truncated": "Texts don't end: raise questions.max_new_tokens or answers.max_new_tokens",
    "run_on": "The model runs on into the next pair: show more demonstrations, or set prompt_format for its kind",
    "min_question_tokens": "Questions are too short: lower filters.min_question_tokens or show more demonstrations",
    "max_question_tokens": "Questions are too long: raise filters.max_question_tokens or shorten the seeds",
    "form": "Texts are no texts: show more demonstrations, or take a larger base model",
    "min_answer_tokens": "Answers are too short: lower filters.min_answer_tokens, or show more demonstrations",
    "max_answer_tokens": "Answers are too long: raise filters.max_answer_tokens, or shorten the seeds",
    "drop_matching": "Your own expressions take them: loosen filters.drop_matching",
    "context_length": "Questions outgrow the model's context: lower answers.max_new_tokens, or shorten the seeds",
    "copied": "Answers copy a demonstration: raise filters.copied or show fewer demonstrations",
    "repetition": "Answers repeat themselves: raise answers.temperature, or take a larger base model",
    "echo": "Answers repeat the question: raise filters.echo, or take a larger base model",
    "language": "Texts are in another script than the seeds: set filters.language to false if that is wanted",
    "contamination": "Texts overlap with the benchmark files: check that the seeds were not taken from them",
}


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to turn, for the reason that took most."""
    reasons = [reason for reason in funnel(rows) if reason not in {"candidates", "accepted", "surplus"}]
    return (
        ADVICE.get(reasons[0], f"Look at the rows dropped by {reasons[0]}") if reasons else "Raise generate.max_batches"
    )


def _no_longer_helps(evaluations: Mapping[int, Mapping[str, float]], patience: int | None) -> bool:
    """Whether the last `patience` iterations all failed to beat what came before them."""
    if patience is None or any("bits_per_byte" not in figures for figures in evaluations.values()):
        return False
    scores = [evaluations[t]["bits_per_byte"] for t in sorted(evaluations)]
    return len(scores) > patience + 1 and min(scores[-patience:]) >= min(scores[1:-patience], default=scores[0])
