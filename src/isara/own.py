"""Parts of the user's own, named as module:name or file.py:name."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from isara.errors import ConfigError
from isara.files import file_hash


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


def made(found: Any, place: str, options: dict[str, Any]) -> Any:
    """The part itself, or, of a class or where there are options, what it returns when called with them.

    Raises:
        ConfigError: It takes no such options.
    """
    if not options and not isinstance(found, type):
        return found
    try:
        return found(**options)
    except TypeError as error:
        raise ConfigError(
            f"expected options that `{place}` takes, found {', '.join(options) or 'none'} ({error}): mend its options"
        ) from error


def beside(place: str, folder: Path) -> str:
    """The place with the absolute path of its file, where there is such a file in the folder."""
    module, colon, name = place.rpartition(":")
    file = folder / (module if module.endswith(".py") else module.replace(".", "/") + ".py")
    return f"{os.path.abspath(file)}{colon}{name}" if module and file.is_file() else place


def _file_module(path: Path) -> ModuleType:
    """The module that is written in a file; its name is the file's, so that its parts have the same key anywhere."""
    digest = file_hash(path)[:8] if path.is_file() else ""  # two files may have one name
    spec = importlib.util.spec_from_file_location(f"isara_own_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and inspect look a module up
    spec.loader.exec_module(module)
    return module
