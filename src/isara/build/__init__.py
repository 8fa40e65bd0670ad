"""Turns a config into parts: the one place where a config value chooses an implementation."""

from isara.build.assembly import assemble, build_parts, build_run, versions
from isara.build.defaults import settled, settled_by_seeds
from isara.build.engines import ModelEngine, OwnEngine, VLLMEngines, build_engine, build_measuring_engine, in_child
from isara.build.trainers import (
    build_preference,
    build_questioner,
    build_reader,
    build_trainer,
    checker_steps,
)

__all__ = [
    "ModelEngine",
    "OwnEngine",
    "VLLMEngines",
    "assemble",
    "build_engine",
    "build_measuring_engine",
    "build_parts",
    "build_preference",
    "build_questioner",
    "build_reader",
    "build_run",
    "build_trainer",
    "checker_steps",
    "in_child",
    "settled",
    "settled_by_seeds",
    "versions",
]
