"""Turns a config into parts: the one place where a config value chooses an implementation."""

import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from isara.config import FILE_NAME, Config, FiltersConfig, OwnPart, load_config, sized
from isara.data import as_pairs
from isara.embedders import find_embedder
from isara.errors import ConfigError, ModelError, RunError
from isara.evaluate.run import build_evaluator
from isara.files import read_rows
from isara.filters import default_filters
from isara.folder import read_environment
from isara.hardware import Place, find_device, share_machine
from isara.models import find_model
from isara.own import load_part, made
from isara.parts import Parts
from isara.pool import Demonstrations, Pool
from isara.process import Start
from isara.protocols import Engine, EngineFactory, Filter, Trainer
from isara.records import QAPair
from isara.render import Renderer, open_renderer
from isara.report.page import refresh_page
from isara.report.publish import final_files
from isara.seeds import load_seeds
from isara.sizes import count_weights, settings_for, shown_count
from isara.training.anchors import questions as everyday_questions
from isara.training.anchors import wanted
from isara.training.child import ChildTrainer
from isara.training.sft import SupervisedTrainer
from isara.watching import Watcher

# Learning rates of the preference step where the config says null (our choice, docs/training.md).
PREFERENCE_RATES = {"lora": 5e-5, "full": 5e-6}
LIBRARIES = ("isara", "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "numpy")


def build_parts(config: Config, watcher: Watcher | None = None) -> Parts:
    """The parts of a config; seeds are read and linted, nothing large is loaded yet.

    Raises:
        SeedError: Seed pairs that can't be used.
        ModelError: No such model, or one that doesn't fit.
        ConfigError: A part of the user's own that can't be had.
    """
    model = find_model(config.model)
    config, notes = settled(config, model)
    renderer = open_renderer(model, config.prompt_format, config.engine.trust_remote_code)
    seeds, heldout = load_seeds(config, renderer)
    for trainer in (build_trainer(config), build_preference(config)):
        if trainer is not None:
            trainer.check(model)  # what training would stumble over is better known before hours of generation
    return replace(assemble(config, model, renderer, seeds, heldout, watcher), notes=notes)


def settled(config: Config, model: str) -> tuple[Config, list[str]]:
    """The config with values for what follows the model's size, so that a run records them; and a line that says so.

    Args:
        config: The config as it was written.
        model: What `find_model` returned.

    Raises:
        ModelError: A file of its weights is torn.
    """
    if not sized(config, None)[1]:
        return config, []  # all of it is written out, as in a run's own config
    weights = count_weights(model)
    config, found = sized(config, weights)
    size = "an unknown number of" if weights is None else shown_count(weights)
    said = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
    )
    return config, [f"settings of a model of {size} weights: {said}"]


def build_run(run: str | Path, overrides: Sequence[str] = (), *, retrieves: bool = True) -> Parts:
    """The parts of a finished run as it was made, its exported model in the place of the base model.

    Args:
        run: The run folder.
        overrides: "KEY=VALUE" settings that differ from the run's, by the user's choice.
        retrieves: Whether neighbours are looked for; without, no embedding model is.

    Raises:
        RunError: It is no run folder, or has exported no model yet.
    """
    folder = Path(run).expanduser()
    read_environment(folder)
    model = folder / "final"
    if not (model / "isara.json").is_file():
        raise RunError(f"{folder} has no aligned model yet: finish it with the command that started it")
    config = load_config(folder / FILE_NAME, overrides)
    renderer = open_renderer(str(model), config.prompt_format, config.engine.trust_remote_code)
    seeds = [QAPair.from_json(row) for row in read_rows(folder / "seeds.jsonl")]
    heldout = [QAPair.from_json(row) for row in read_rows(folder / "heldout.jsonl")]
    return assemble(config, str(model), renderer, seeds, heldout, retrieves=retrieves, generates=False)


def assemble(
    config: Config,
    model: str,
    renderer: Renderer,
    seeds: Sequence[QAPair | Mapping[str, Any]],
    heldout: Sequence[QAPair | Mapping[str, Any]] = (),
    watcher: Watcher | None = None,
    *,
    retrieves: bool = True,
    generates: bool = True,
) -> Parts:
    """The parts of a config for a model and pairs that are at hand.

    Args:
        config: Every option.
        model: The model's folder or name.
        renderer: Its prompts.
        seeds: The seed pairs; dicts with `question` and `answer` will do.
        heldout: The held-out pairs, likewise.
        watcher: Is told of progress.
        retrieves: Whether neighbours are looked for; without, no embedding model is.
        generates: Whether pairs are made; without, no filter is loaded.

    Raises:
        ModelError: The embedder can't be had.
        ConfigError: A part of the user's own that can't be had.
    """
    if generates:  # else nothing that follows the model's size is used, and a run's config stays as it is
        config = settled(config, model)[0]
    embedder = find_embedder(config.retrieve.embedder if retrieves else "lexical")
    seeds, heldout = as_pairs(seeds), as_pairs(heldout)
    question_filters, pair_filters = _filters(config.filters) if generates else ([], [])
    engine = build_engine(config, watcher) if generates else build_measuring_engine(config, watcher)
    measured_by = None
    if generates and config.engine.kind != "transformers":
        # The places on a cluster are those of one engine, whatever it does.
        measured_by = engine if config.engine.launcher else build_measuring_engine(config, watcher)
    return Parts(
        config=config,
        seeds=seeds,
        model=model,
        renderer=renderer,
        engine=engine,
        embedder=embedder,
        trainer=build_trainer(config, watcher, Pool(embedder, seeds)),
        reader=build_reader(config, watcher, Pool(embedder, seeds)),
        questioner=build_questioner(config, watcher, Pool(embedder, seeds)),
        checker_steps=checker_steps(config, seeds),
        preference=build_preference(config, watcher),
        heldout=heldout,
        # A finished run that is asked or measured anew has no need of it, nor perhaps the files that it scores by.
        evaluator=build_evaluator(config, heldout, Pool(embedder, seeds)) if heldout and generates else None,
        question_filters=question_filters,
        pair_filters=pair_filters,
        cards=partial(final_files, config, model),
        page=partial(refresh_page, embedder),
        versions=versions(),
        measured_by=measured_by,
    )


def build_engine(config: Config, watcher: Watcher | None = None) -> EngineFactory:
    """What opens a model: in this process, or in a child that returns all of its memory when it ends."""
    engine = config.engine
    if engine.use is not None:
        return OwnEngine(load_part(engine.use, "engine.use"), dict(engine.options))
    if engine.kind == "server":
        return _server_engine(config, watcher)
    if engine.launcher == "ray":
        return _ray_engines(config, watcher)
    if engine.workers > 1:
        from isara.engines.workers import WorkerEngines

        places = share_machine(engine.workers, engine.device, each=_gpus_each(config))
        return WorkerEngines(
            [_local_engine(config, None, place) for place in places], watcher.tokens if watcher else None
        )
    return _local_engine(config, watcher)


def _ray_engines(config: Config, watcher: Watcher | None) -> EngineFactory:
    """What opens a model in actors on a cluster, whose machines are as this one: with GPUs or without."""
    from isara.engines.ray.cluster import RayCluster, RayOptions
    from isara.engines.workers import WorkerEngines

    engine = config.engine
    device = find_device(engine.device).partition(":")[0]  # Ray gives each worker its GPUs
    gpus = (_gpus_each(config) or 1) if device == "cuda" else 0
    cluster = RayCluster(
        RayOptions(address=engine.address, workers=engine.workers, gpus=gpus, timeout=engine.start_timeout)
    )
    what = {"kind": engine.kind, "python": engine.python}
    place = Place(device, {}, 1 if gpus else engine.workers)  # at worst all are on one machine
    makes = [
        _local_engine(config, None, place, partial(cluster.start, number, what)) for number in range(engine.workers)
    ]
    return WorkerEngines(makes, watcher.tokens if watcher else None, cluster)


def _local_engine(
    config: Config, watcher: Watcher | None, place: Place | None = None, start: Start | None = None
) -> EngineFactory:
    """What opens a model, at a worker's place; `start` gives its processes where they aren't this machine's."""
    engine = config.engine
    if engine.kind == "vllm":
        return VLLMEngines(config, watcher, place.env if place else {}, start)
    return ModelEngine(
        device=place.device if place else engine.device,
        dtype=engine.dtype,
        tokens_per_batch=engine.tokens_per_batch,
        trust_remote_code=engine.trust_remote_code,
        child=in_child(config),
        watcher=watcher,
        place=place,
        start=start,
    )


def _gpus_each(config: Config) -> int:
    """GPUs that a worker of vLLM's has for itself; 0 for one of transformers, of which a GPU may hold several."""
    options = config.engine.options
    if config.engine.kind != "vllm":
        return 0
    sizes = {name: options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")}
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ConfigError(f"engine.options.{name}: expected a whole number of at least 1, found {size!r}")
    return math.prod(sizes.values())


def build_measuring_engine(config: Config, watcher: Watcher | None = None) -> EngineFactory:
    """What opens a model for evaluation: a server has a part in it only where that is asked for."""
    if config.engine.kind != "transformers" and config.engine.evaluate_with == "transformers":
        return build_engine(_with_transformers(config), watcher)
    return build_engine(config, watcher)


def _with_transformers(config: Config) -> Config:
    """The config with the engine of transformers in the place of another kind."""
    other = {
        "kind": "transformers",
        "url": (),
        "load": False,
        "serve": None,
        "python": None,
        "evaluate_with": "transformers",
    }
    engine = config.engine.model_copy(update=other)
    return config.model_copy(update={"engine": engine})


def _server_engine(config: Config, watcher: Watcher | None) -> EngineFactory:
    """What opens a model as servers."""
    from isara.engines.server.engine import Around, ServerEngines, ServerOptions

    names = {field.name for field in fields(ServerOptions)} & set(type(config.engine).model_fields)
    options = ServerOptions(**{name: getattr(config.engine, name) for name in names})
    around = Around(
        local=build_engine(_with_transformers(config)),
        special_tokens=partial(_special_tokens, config),
        write_gguf=_write_gguf,
        base=find_model(config.model),
        on_progress=watcher.tokens if watcher else None,
    )
    return ServerEngines(options, around)


def _special_tokens(config: Config, model: str) -> Sequence[str]:
    """Before which a text of the model's ends."""
    return open_renderer(model, config.prompt_format, config.engine.trust_remote_code).special_tokens


def _write_gguf(model: Path, out: Path, kind: str) -> None:
    """Writes a model folder as a GGUF file.

    Raises:
        ModelError: What writes it is not installed, or can't write this model.
    """
    try:
        from isara.export.gguf import write_gguf
    except ImportError as error:
        raise ModelError(
            f"expected what writes GGUF files for `engine.serve`, found none ({error}): install `gguf`, or use a "
            "server that reads model folders, with {model}"
        ) from error
    write_gguf(model, out, kind)


class ModelEngine:
    """Opens models of transformers.

    Args:
        device: As `engine.device`.
        dtype: As `engine.dtype`.
        tokens_per_batch: As `engine.tokens_per_batch`.
        trust_remote_code: As `engine.trust_remote_code`.
        child: Whether in a process of its own.
        watcher: Is told of tokens.
        place: Where one of several workers runs, each in a process of its own.
        start: Gives a worker's process for a model; None starts one on this machine.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        child: bool = False,
        watcher: Watcher | None = None,
        place: Place | None = None,
        start: Start | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self._options = {"tokens_per_batch": tokens_per_batch, "trust_remote_code": trust_remote_code}
        self._place, self._start = place, start
        self._child, self._on_progress = child, watcher.tokens if watcher else None

    def key(self) -> dict[str, Any]:
        """What completions depend on beside model, prompt, sampling and seed: the device and dtype that are meant."""
        key: dict[str, Any] = self._make("any").key()
        return key

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model, not opened yet."""
        engine: Engine = self._make(model)
        return engine

    def _make(self, model: str) -> Any:
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "on_progress": self._on_progress}
        options |= self._options
        if self._child or self._place:
            from isara.engines.child import ChildEngine, start_child

            if self._place:
                env = self._place.env
                options |= {"shared_by": self._place.shared_by, "start": self._start or (lambda _: start_child(env))}
            return ChildEngine(model, **options)
        from isara.engines.transformers.engine import TransformersEngine

        return TransformersEngine(model, **options)


class VLLMEngines:
    """Opens models in processes of vLLM's.

    Args:
        config: Its `engine` says how.
        watcher: Is told of tokens.
        env: Environment variables of the processes.
        start: Gives the process for a model's folder; None starts one on this machine.

    Raises:
        ConfigError: `engine.options` holds what isn't to be told there.
    """

    def __init__(
        self,
        config: Config,
        watcher: Watcher | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
        start: Start | None = None,
    ) -> None:
        from isara.engines.vllm.engine import VLLMOptions

        engine = config.engine
        self.options = VLLMOptions(
            python=engine.python or sys.executable,
            dtype=engine.dtype,
            trust_remote_code=engine.trust_remote_code,
            options=dict(engine.options),
            env=env,
            start=start,
            special_tokens=partial(_special_tokens, config),
            on_progress=watcher.tokens if watcher else None,
        )

    def key(self) -> dict[str, Any]:
        """What completions depend on beside model, prompt, sampling and seed: dtype and options."""
        return self.options.key()

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model, not opened yet."""
        from isara.engines.vllm.engine import VLLMEngine

        return VLLMEngine(model, self.options)


class OwnEngine:
    """Opens models with a class or function of the user's own.

    Args:
        make: Is called with the model and the options.
        options: By name.
    """

    def __init__(self, make: Any, options: dict[str, Any]) -> None:
        self.make, self.options = make, options

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model, as the user's part makes it."""
        engine: Engine = self.make(model, **self.options)
        return engine


def build_trainer(
    config: Config, watcher: Watcher | None = None, seeds: Pool | None = None, **own: Any
) -> SupervisedTrainer | ChildTrainer:
    """What fine-tunes a model, in this process or in a child; demonstrations for training come from the seeds.

    Args:
        config: Its train section has the options.
        watcher: Is told of steps.
        seeds: Where demonstrations come from; None is without.
        own: Options that no config has.
    """
    options = config.train.model_dump(exclude={"start", "data", "demos", "weights"}, exclude_none=True)
    if seeds is not None:
        options["retrieve"] = _demonstrations(config, seeds, config.train.demos)
        options["teach"] = _demonstrations(config, seeds, config.answers.demos * (config.train.loss == "distil"))
    options |= {
        "seed": config.seed,
        "prompt_format": config.prompt_format,
        "device": config.engine.device,
        "dtype": config.engine.dtype,
        "trust_remote_code": config.engine.trust_remote_code,
        **own,
    }
    kind = ChildTrainer if in_child(config) else SupervisedTrainer
    return kind(**options, on_step=watcher.step if watcher else None)


def _demonstrations(config: Config, seeds: Pool, k: int) -> Demonstrations | None:
    """What gives a pair k demonstrations as `answers.retrieve` says; None where it is to have none."""
    kind = config.answers.retrieve
    return Demonstrations(seeds, kind, k, config.seed) if k and kind != "none" else None


def build_reader(config: Config, watcher: Watcher | None, seeds: Pool) -> Trainer | None:
    """What tunes a model to read demonstrations (in-context tuning, arXiv 2110.07814 and 2110.15943), or None.

    Raises:
        ConfigError: No demonstrations are shown before an answer, or a reader asks that doesn't answer.
    """
    answers, asks = config.answers, config.questions.from_ == "reader"
    if answers.from_ != "reader":
        if asks:
            raise ConfigError(
                "questions.from is reader: expected answers.from reader, too, found last: set both, or questions.from"
            )
        return None
    return _tuned_on_seeds(config, watcher, seeds, "answers.from is reader", whole_pairs=asks)


def build_questioner(config: Config, watcher: Watcher | None, seeds: Pool) -> Trainer | None:
    """What tunes a model to go on with the next pair, as it does a reader that asks, or None.

    Raises:
        ConfigError: No demonstrations are shown before an answer, so that there is nothing to go on from.
    """
    if config.questions.from_ != "seeds":
        return None
    return _tuned_on_seeds(config, watcher, seeds, "questions.from is seeds", whole_pairs=True)


def _tuned_on_seeds(
    config: Config, watcher: Watcher | None, seeds: Pool, wanted: str, *, whole_pairs: bool
) -> SupervisedTrainer | ChildTrainer:
    """What tunes a model on the seeds alone, each after its nearest others."""
    answers = config.answers
    if answers.retrieve == "none" or not answers.demos:
        raise ConfigError(
            f"{wanted}: expected demonstrations to read, found answers.demos 0 or answers.retrieve none: "
            f"show some, or set {wanted.split()[0]} to last"
        )
    own = {"num_train_epochs": answers.reader_epochs, "max_steps": None, "demos": answers.demos}
    plain = {"loss": "sft", "anchors": 0.0}  # it learns from the seeds alone
    # At the whole rate of the training SmolLM2-135M's reader gave a third of its answers one rule (docs/log.md).
    rate = config.train.learning_rate or settings_for(None, config.train.method).learning_rate
    gentle = {"learning_rate": rate / 2}
    tuned = config.model_copy(update={"train": config.train.model_copy(update=own | plain | gentle)})
    return build_trainer(tuned, watcher, seeds, whole_pairs=whole_pairs)


def checker_steps(config: Config, seeds: Sequence[QAPair]) -> int | None:
    """Optimiser steps of the model that gives second answers; None where there is none.

    They are those that iteration 1 is going to take when as many pairs are accepted as are wanted, each one row, as it
    is without packing and over-long rows: then the seeds-only model of the run's table is the same one.

    Args:
        config: Every option.
        seeds: The seed pairs.
    """
    train = config.train
    if not config.filters.checked_by_seeds or not config.generate.accept:
        return None
    learnt = [] if train.data == "generated" else seeds
    pairs = config.generate.accept + len(learnt)
    rows = config.generate.accept + sum(len(pair.turns) - len(pair.untrained) for pair in learnt)
    rows += min(len(everyday_questions(0)), wanted(train.anchors, pairs))
    return train.steps(rows)


def build_preference(config: Config, watcher: Watcher | None = None) -> SupervisedTrainer | ChildTrainer | None:
    """What trains a model on preferences, with the train section's options but for those of its own; None without."""
    method, told = config.prefer.method, config.prefer
    if method == "none" or method == "dpo" and not config.generate.accept:  # which nothing is preferred in
        return None
    rate = told.learning_rate or PREFERENCE_RATES[config.train.method or settings_for(None).method]
    own = {"learning_rate": rate, "num_train_epochs": told.num_train_epochs, "max_steps": None, "anchors": 0.0}
    tuned = config.model_copy(update={"train": config.train.model_copy(update={**own, "packing": False})})
    return build_trainer(tuned, watcher, loss="dpo", beta=told.beta)


def in_child(config: Config) -> bool:
    """Whether stages run in child processes: as configured, or on a GPU."""
    if config.engine.child_process != "auto":
        return config.engine.child_process
    if config.engine.device != "auto":
        return config.engine.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def versions() -> dict[str, str]:
    """Versions of what decides the results."""
    return {"python": platform.python_version(), "machine": platform.machine(), **{n: _version(n) for n in LIBRARIES}}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _filters(options: FiltersConfig) -> tuple[list[Filter], list[Filter]]:
    questions, pairs = default_filters(options)
    own = (map(_own_filter, parts) for parts in (options.own_questions, options.own_pairs))
    return [*questions, *next(own)], [*pairs, *next(own)]


def _own_filter(own: OwnPart) -> Filter:
    """A filter of the user's: the named function itself, or with options what it returns when called with them."""
    check: Filter = made(load_part(own.use, "filters"), own.use, own.options)
    return check
