"""Turns a config into parts and runs the loop: the one place where a config value chooses an implementation."""

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from isara.answer import answer_questions, nearest_demos
from isara.child_trainer import ChildTrainer
from isara.config import Config
from isara.data import QAPair, read_pairs
from isara.embedders import find_embedder
from isara.errors import RunError
from isara.evaluate.domain import HeldoutEvaluator
from isara.filters import default_filters
from isara.generate import Generation
from isara.loop import Loop, Result, Silent, Watcher, generate_iteration, self_align
from isara.models import find_model, weights_hash
from isara.pool import Pool
from isara.protocols import Embedder, EngineFactory, Filter, Sampling, Trainer, TrainStats
from isara.publish import final_files
from isara.run import Iteration, RunFolder, exported, read_json, write_text
from isara.seeds import load_seeds
from isara.trainers import SupervisedTrainer

log = logging.getLogger("isara")

LIBRARIES = ("isara", "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "numpy")


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a config stands for."""

    config: Config
    model: str
    seeds: list[QAPair]
    heldout: list[QAPair]
    engine: EngineFactory
    embedder: Embedder
    trainer: Trainer
    question_filters: list[Filter]
    pair_filters: list[Filter]
    generation: Generation
    loop: Loop
    environment: dict[str, str]


def build(config: Config, watcher: Watcher | None = None) -> Parts:
    """The parts of a config; seeds are read and linted, nothing large is loaded yet.

    Raises:
        SeedError: Seed pairs that can't be used.
        ModelError: No such model, or one that doesn't fit.
    """
    model = find_model(config.model)
    seeds, heldout = load_seeds(config, model)
    embedder = find_embedder(config.retrieve.embedder)
    trainer = build_trainer(config, watcher)
    trainer.check(model)  # what training would stumble over is better known before hours of generation
    question_filters, pair_filters = default_filters(**config.filters.model_dump())
    return Parts(
        config=config,
        model=model,
        seeds=seeds,
        heldout=heldout,
        engine=build_engine(config, watcher),
        embedder=embedder,
        trainer=trainer,
        question_filters=question_filters,
        pair_filters=pair_filters,
        generation=_generation(config),
        loop=Loop(
            config.iterations,
            config.train.start,
            config.train.data,
            config.retrieve.pool,
            config.evaluate.patience,
        ),
        environment={**environment(), "embedder": embedder.name},
    )


def run_config(
    config: Config,
    *,
    watcher: Watcher | None = None,
    question_filters: Sequence[Filter] = (),
    pair_filters: Sequence[Filter] = (),
) -> Result:
    """Runs ISARA as the config says; a run that was cut off goes on where it was.

    Args:
        config: The whole configuration; `load_config` reads one.
        watcher: Is told of progress.
        question_filters: The user's own filters, after the configured ones.
        pair_filters: Likewise, for pairs.

    Raises:
        IsaraError: One line that says what was expected, what was found and what to do.
    """
    parts = build(config, watcher)
    evaluator = None
    if parts.heldout:
        evaluator = HeldoutEvaluator(parts.heldout, Pool(parts.embedder, parts.seeds), config.evaluate.demos)
    result = self_align(
        parts.seeds,
        parts.model,
        config.out,
        engine=parts.engine,
        embedder=parts.embedder,
        trainer=parts.trainer,
        question_filters=[*parts.question_filters, *question_filters],
        pair_filters=[*parts.pair_filters, *pair_filters],
        evaluate=evaluator,
        heldout=parts.heldout,
        generation=parts.generation,
        loop=parts.loop,
        weights=weights_hash,
        config=config.model_dump(mode="json"),
        environment=parts.environment,
        cards=partial(final_files, config, parts.model, parts.generation, parts.seeds),
        watcher=watcher,
    )
    _store_examples(parts, result)
    return result


def build_engine(config: Config, watcher: Watcher | None = None) -> EngineFactory:
    """What opens a model: in this process, or in a child that returns all of its memory when it ends."""
    engine = config.engine
    options: dict[str, Any] = {
        "prompt_format": config.prompt_format,
        "device": engine.device,
        "dtype": engine.dtype,
        "tokens_per_batch": engine.tokens_per_batch,
        "trust_remote_code": engine.trust_remote_code,
    }
    on_progress = watcher.tokens if watcher else None
    if in_child(config):
        from isara.engines.child import ChildEngine

        return lambda model, /: ChildEngine(model, **options, on_progress=on_progress)
    from isara.engines.transformers import TransformersEngine

    return lambda model, /: TransformersEngine(model, **options, on_progress=on_progress)


def build_trainer(config: Config, watcher: Watcher | None = None) -> SupervisedTrainer | ChildTrainer:
    """What fine-tunes a model, in this process or in a child."""
    options = config.train.model_dump(exclude={"start", "data"})
    options |= {
        "seed": config.seed,
        "prompt_format": config.prompt_format,
        "device": config.engine.device,
        "dtype": config.engine.dtype,
        "trust_remote_code": config.engine.trust_remote_code,
    }
    kind = ChildTrainer if in_child(config) else SupervisedTrainer
    return kind(**options, on_step=watcher.step if watcher else None)


def in_child(config: Config) -> bool:
    """Whether stages run in child processes: as configured, or on a GPU."""
    if config.engine.child_process != "auto":
        return config.engine.child_process
    if config.engine.device != "auto":
        return config.engine.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def environment() -> dict[str, str]:
    """Versions of what decides the results."""
    return {"python": platform.python_version(), "machine": platform.machine(), **{n: _version(n) for n in LIBRARIES}}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _generation(config: Config) -> Generation:
    questions, answers, generate = config.questions, config.answers, config.generate
    return Generation(
        accept=generate.accept,
        batch=generate.batch,
        max_batches=generate.max_batches,
        min_yield=generate.min_yield,
        question_demos=questions.demos,
        question_choice=questions.choice,
        per_prompt=questions.per_prompt,
        question_sampling=Sampling(questions.temperature, questions.top_p, questions.max_new_tokens),
        answer_demos=answers.demos,
        answer_sampling=Sampling(answers.temperature, answers.top_p, answers.max_new_tokens),
        seed=config.seed,
    )


def _store_examples(parts: Parts, result: Result, count: int = 3) -> None:
    """Answers a few held-out questions with the base and the exported model, for a reader to judge by himself."""
    path = result.out / "examples.json"
    mark = {"iteration": result.best}
    if not parts.heldout or (path.exists() and read_json(path)["made_by"] == mark):
        return
    chosen = parts.heldout[:count]
    questions = [pair.question for pair in chosen]
    sampling = Sampling(0.0, 1.0, parts.generation.answer_sampling.max_new_tokens)
    before = answer_questions(parts.engine, parts.model, questions, sampling)
    after = answer_questions(parts.engine, str(result.final), questions, sampling)
    rows = [
        {"question": pair.question, "wanted": pair.answer, "before": old, "after": new}
        for pair, old, new in zip(chosen, before, after, strict=True)
    ]
    with RunFolder(result.out):
        write_text(path, json.dumps({"made_by": mark, "rows": rows}, indent=2, ensure_ascii=False) + "\n")


def generate_only(config: Config, watcher: Watcher | None = None) -> Iteration:
    """The generation of the first iteration alone, in the run folder that `run_config` would use and goes on from."""
    parts = build(config, watcher)
    with RunFolder(Path(config.out)) as run:
        weights = weights_hash(parts.model)
        run.claim(config.model_dump(mode="json"), {**parts.environment, "weights": weights}, parts.seeds, parts.heldout)
        step = run.iteration(1)
        if not step.accepted.exists():
            known = Pool(parts.embedder, parts.seeds)
            generate_iteration(
                step,
                parts.engine,
                parts.model,
                weights=weights,
                known=known,
                retrieval=known,
                options=parts.generation,
                question_filters=parts.question_filters,
                pair_filters=parts.pair_filters,
                watcher=watcher or Silent(),
            )
    return step


def train_only(config: Config, sources: Sequence[str], out: Path, watcher: Watcher | None = None) -> TrainStats:
    """Fine-tunes the configured model on the pairs of all sources and leaves it in `out`.

    Raises:
        RunError: `out` is there already.
    """
    if out.exists():
        raise RunError(f"expected a new folder for the trained model, found {out}: give another --out")
    columns = config.columns
    pairs = [pair for source in sources for pair in read_pairs(source, columns.question, columns.answer)]
    return build_trainer(config, watcher).fit(pairs, find_model(config.model), out)


def answer_only(config: Config, questions: Sequence[str], demos: int, temperature: float) -> list[str]:
    """The configured model's answers, zero-shot or after the `demos` nearest pairs of the configured seeds.

    A run folder given as the model stands for the model that it exported.
    """
    run = Path(config.model)
    is_run = (run / "isara.yaml").is_file()
    if is_run and exported(run) is None:
        raise RunError(f"{run} has no aligned model yet: finish it with the command that started it")
    model = find_model(str(run / "final") if is_run else config.model)
    shown = None
    if demos:
        pairs = read_pairs(config.seeds, config.columns.question, config.columns.answer)
        shown = nearest_demos(Pool(find_embedder(config.retrieve.embedder), pairs), questions, demos)
    sampling = Sampling(temperature, config.answers.top_p, config.answers.max_new_tokens)
    return answer_questions(build_engine(config), model, questions, sampling, shown, config.seed)
