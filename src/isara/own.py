"""Parts of the user's own, named as module:name or file.py:name."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from isara.errors import ConfigError


def load_part(place: str, key: str, where_to: str = "beside the config") -> Any:
    """What a place names.

    Args:
        place: module:name or file.py:name.
        key: The option that it stands in, for an error's message.
        where_to: Where a file is looked for, for the same.

    Raises:
        ConfigError: There is no such module or name, or importing it fails.
    """
    where, _, name = place.rpartition(":")
    try:
        module = _file_module(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # a module of the user's can raise anything
        raise ConfigError(
            f"`{key}`: expected a module that can be imported, found {where!r} ({type(error).__name__}: {error}): "
            f"put the file {where_to}, or install its package"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(
            f"`{key}`: expected {name!r} in {where}, found no such name: name a function or class that it has"
        ) from None


def _file_module(path: Path) -> ModuleType:
    """The module that is written in a file; its name is the file's, so that its parts have the same key anywhere."""
    spec = importlib.util.spec_from_file_location(f"isara_own_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and inspect look a module up
    spec.loader.exec_module(module)
    return module
