"""A config and what it names, as the parts of a run."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from isara.build.defaults import settled, settled_by_seeds
from isara.build.engines import build_engine, build_measuring_engine
from isara.build.trainers import build_preference, build_questioner, build_reader, build_trainer, checker_steps
from isara.config import FILE_NAME, Config, FiltersConfig, OwnPart, load_config
from isara.data import as_pairs
from isara.embedders import find_embedder
from isara.errors import RunError
from isara.evaluate.run import build_evaluator
from isara.files import read_rows
from isara.filters import default_filters
from isara.folder import is_done, read_environment, stage_folder
from isara.models import find_model
from isara.own import load_part, made
from isara.parts import Parts
from isara.pool import Pool
from isara.protocols import Filter
from isara.records import READER, QAPair
from isara.render import Renderer, open_renderer
from isara.report.page import refresh_page
from isara.report.publish import final_files
from isara.seeds import load_seeds
from isara.watching import Watcher

LIBRARIES = ("isara", "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "numpy")


def build_parts(config: Config, watcher: Watcher | None = None, *, began: Path | None = None) -> Parts:
    """The parts of a config; seeds are read and linted, nothing large is loaded yet.

    Args:
        config: Every option.
        watcher: Is told of progress.
        began: The record of what may have begun and goes on; by default the isara.yaml in the config's `out`.

    Raises:
        SeedError: Seed pairs that can't be used.
        ModelError: No such model, or one that doesn't fit.
        ConfigError: A part of the user's own that can't be had.
    """
    model = find_model(config.model)
    config, notes = settled(config, model)
    renderer = open_renderer(model, config.prompt_format, config.engine.trust_remote_code)
    seeds, heldout = load_seeds(config, renderer)
    config, more = settled_by_seeds(config, model, seeds, began or Path(config.out) / FILE_NAME)
    for trainer in (build_trainer(config), build_preference(config)):
        if trainer is not None:
            trainer.check(model)  # what training would stumble over is better known before hours of generation
    return replace(assemble(config, model, renderer, seeds, heldout, watcher), notes=[*notes, *more])


def build_run(run: str | Path, overrides: Sequence[str] = (), *, retrieves: bool = True, reader: bool = False) -> Parts:
    """The parts of a finished run as it was made, its exported model in the place of the base model.

    Args:
        run: The run folder.
        overrides: "KEY=VALUE" settings that differ from the run's, by the user's choice.
        retrieves: Whether neighbours are looked for; without, no embedding model is.
        reader: Whether the reader stands there instead, which is to be asked after demonstrations.

    Raises:
        RunError: It is no run folder, or has exported no model yet; or it has no reader.
    """
    folder = Path(run).expanduser()
    read_environment(folder)
    model = folder / "final"
    if reader:
        if not is_done(stage := stage_folder(folder, READER, "train")):
            raise RunError(
                f"expected a reader in {folder}, found none: a run has one where questions.from or answers.from is "
                "reader, as they are for models of 20 M to 1 B weights; leave --reader out"
            )
        return _of_run(folder, stage / "model", overrides, retrieves)
    if not (model / "isara.json").is_file():
        raise RunError(f"{folder} has no aligned model yet: finish it with the command that started it")
    return _of_run(folder, model, overrides, retrieves)


def _of_run(folder: Path, model: Path, overrides: Sequence[str], retrieves: bool) -> Parts:
    """The parts of a run, with one of its models."""
    config = _without_auto(load_config(folder / FILE_NAME, overrides))
    renderer = open_renderer(str(model), config.prompt_format, config.engine.trust_remote_code)
    seeds = [QAPair.from_json(row) for row in read_rows(folder / "seeds.jsonl")]
    heldout = [QAPair.from_json(row) for row in read_rows(folder / "heldout.jsonl")]
    return assemble(config, str(model), renderer, seeds, heldout, retrieves=retrieves, generates=False)


def _without_auto(config: Config) -> Config:
    """The config of a run that was made before there was a choice to record: what it does not name was off."""
    off = {"kind": False, "agreement": None}
    update = {name: value for name, value in off.items() if getattr(config.filters, name) == "auto"}
    return config.model_copy(update={"filters": config.filters.model_copy(update=update)}) if update else config


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
    seeds, heldout = as_pairs(seeds), as_pairs(heldout)
    if generates:  # else nothing that follows the model's size or the seeds is used, and a run's config stays as it is
        decide = seeds if retrieves else ()  # without an embedder they decide nothing
        config = settled_by_seeds(settled(config, model)[0], model, decide, Path(config.out) / FILE_NAME)[0]
    embedder = find_embedder(config.retrieve.embedder if retrieves else "lexical")
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
