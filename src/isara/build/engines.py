"""What opens models, as a config's `engine` section says."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from isara.config import Config
from isara.errors import ConfigError, ModelError
from isara.hardware import Place, find_device, share_machine
from isara.models import find_model
from isara.own import load_part
from isara.process import Start
from isara.protocols import Engine, EngineFactory
from isara.render import open_renderer
from isara.watching import Watcher


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
        return VLLMEngines(config, watcher, place.env if place else _one_gpu(config), start)
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


def _one_gpu(config: Config) -> dict[str, str]:
    """The environment of a process that takes the first GPU it sees: `cuda:1` is the second of this process's.

    Raises:
        ConfigError: This process sees no such GPU.
    """
    kind, _, number = config.engine.device.partition(":")
    if kind != "cuda" or not number or _gpus_each(config) > 1:
        return {}
    seen = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    if seen and int(number) >= len(seen):
        raise ConfigError(
            f"engine.device: expected one of the {len(seen)} GPUs that CUDA_VISIBLE_DEVICES names, found "
            f"{config.engine.device}: name one from cuda:0 on"
        )
    return {"CUDA_VISIBLE_DEVICES": seen[int(number)] if seen else number}


def _gpus_each(config: Config) -> int:
    """GPUs that a worker of vLLM's has for itself; 0 for one of transformers, of which a GPU may hold several."""
    options = config.engine.options
    if config.engine.kind != "vllm":
        return 0
    sizes = {
        name: options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    }
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

    __module__ = "isara.build"  # the name that it has in the keys of runs

    def __init__(self, make: Any, options: dict[str, Any]) -> None:
        self.make, self.options = make, options

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model, as the user's part makes it."""
        engine: Engine = self.make(model, **self.options)
        return engine


def in_child(config: Config) -> bool:
    """Whether stages run in child processes: as configured, or on a GPU."""
    if config.engine.child_process != "auto":
        return config.engine.child_process
    if config.engine.device != "auto":
        return config.engine.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()
