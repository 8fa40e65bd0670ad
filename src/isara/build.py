"""Turns a config into parts and runs the loop with them: the only place where config values choose an implementation."""

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from isara.cards import data_card, model_card
from isara.config import Config
from isara.data import QAPair
from isara.embedders import find_embedder
from isara.evaluate.domain import HeldoutEvaluator
from isara.filters import default_filters
from isara.generate import Generation, with_stops
from isara.loop import Loop, Result, Watcher, funnel, self_align
from isara.models import find_model, weights_hash
from isara.pool import Pool
from isara.prompts import answer_prompt
from isara.protocols import Embedder, EngineFactory, Filter, Sampling, Trainer
from isara.run import Iteration, RunFolder, write_text
from isara.seeds import load_seeds
from isara.show import candidates

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


class Listener(Watcher):
    """A watcher that hears of tokens and training steps, too."""

    def tokens(self, tokens: int, done: int) -> None:
        """So many tokens were generated since the last call, so many completions are done."""
        ...

    def step(self, step: int, total: int, loss: float) -> None:
        """An optimiser step was taken."""
        ...


def build(config: Config, listener: Any = None) -> Parts:
    """The parts of a config; seeds are read and linted, nothing large is loaded yet.

    Raises:
        SeedError: Seed pairs that can't be used.
        ModelError: No such model, or one that doesn't fit.
    """
    model = find_model(config.model)
    embedder = find_embedder(config.retrieve.embedder)
    seeds, heldout = load_seeds(config, model)
    question_filters, pair_filters = default_filters(**config.filters.model_dump())
    return Parts(
        config=config,
        model=model,
        seeds=seeds,
        heldout=heldout,
        engine=build_engine(config, listener),
        embedder=embedder,
        trainer=build_trainer(config, listener),
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
    )


def run_config(
    config: Config,
    *,
    watcher: Any = None,
    question_filters: Sequence[Filter] = (),
    pair_filters: Sequence[Filter] = (),
) -> Result:
    """Runs ISARA as the config says; a run that was cut off goes on where it was.

    Args:
        config: The whole configuration; `load_config` reads one.
        watcher: Is told of progress; one with `tokens` and `step` hears of those, too.
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
        environment=environment(),
        cards=partial(_cards, parts),
        watcher=watcher,
    )
    _store_examples(parts, result)
    return result


def build_engine(config: Config, listener: Any = None) -> EngineFactory:
    """What opens a model: in this process, or in a child that returns all of its memory when it ends."""
    engine = config.engine
    options: dict[str, Any] = {
        "prompt_format": config.prompt_format,
        "device": engine.device,
        "dtype": engine.dtype,
        "tokens_per_batch": engine.tokens_per_batch,
        "trust_remote_code": engine.trust_remote_code,
    }
    on_progress = getattr(listener, "tokens", None)
    if in_child(config):
        from isara.engines.child import ChildEngine

        return lambda model, /: ChildEngine(model, **options, on_progress=on_progress)
    from isara.engines.transformers import TransformersEngine

    return lambda model, /: TransformersEngine(model, **options, on_progress=on_progress)


def build_trainer(config: Config, listener: Any = None) -> Trainer:
    """What fine-tunes a model, in this process or in a child."""
    from isara import trainers

    options = config.train.model_dump(exclude={"start", "data"})
    options |= {
        "seed": config.seed,
        "prompt_format": config.prompt_format,
        "device": config.engine.device,
        "dtype": config.engine.dtype,
        "trust_remote_code": config.engine.trust_remote_code,
    }
    kind = trainers.ChildTrainer if in_child(config) else trainers.SupervisedTrainer
    return kind(**options, on_step=getattr(listener, "step", None))


def in_child(config: Config) -> bool:
    """Whether stages run in child processes: as configured, or on a GPU."""
    if config.engine.child_process != "auto":
        return config.engine.child_process
    if config.engine.device != "auto":
        return config.engine.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def environment() -> dict[str, Any]:
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
    if not parts.heldout or (path.exists() and json.loads(path.read_text("utf-8"))["made_by"] == mark):
        return
    chosen = sorted(parts.heldout, key=lambda pair: pair.id)[:count]
    before = answer_questions(parts, parts.model, [pair.question for pair in chosen])
    after = answer_questions(parts, str(result.final), [pair.question for pair in chosen])
    rows = [
        {"question": pair.question, "wanted": pair.answer, "before": old, "after": new}
        for pair, old, new in zip(chosen, before, after, strict=True)
    ]
    write_text(path, json.dumps({"made_by": mark, "rows": rows}, indent=2, ensure_ascii=False) + "\n")


def answer_questions(
    parts: Parts, model: str, questions: Sequence[str], demos: Sequence[Sequence[QAPair]] | None = None
) -> list[str]:
    """Greedy answers of a model, zero-shot or after the demonstrations given for each question."""
    sampling = Sampling(0.0, 1.0, parts.generation.answer_sampling.max_new_tokens)
    with parts.engine(model) as engine:
        shown = demos or [()] * len(questions)
        prompts = [answer_prompt(engine.format, pairs, text) for pairs, text in zip(shown, questions, strict=True)]
        done = engine.generate(prompts, with_stops(sampling, engine.format.answer_stops), [0] * len(prompts))
    return [completion.text.strip() for completion in done]


def _cards(parts: Parts, run: RunFolder, best: Iteration) -> Mapping[str, str]:
    raise NotImplementedError


__all__ = [
    "Parts",
    "build",
    "build_engine",
    "build_trainer",
    "candidates",
    "environment",
    "funnel",
    "run_config",
    "Path",
]
