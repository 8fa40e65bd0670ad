"""What a part is to a resumed run: its name, its options and, where it is the user's own, its source."""

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from isara.errors import ConfigError

_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")
_LIBRARIES = tuple(str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "purelib", "platlib"))


def part_key(part: Any) -> Any:
    """What decides what a part does, JSON-ready.

    A part with a `key()` says it itself; one with a `name` is known by it. Any other is its qualified name, its public
    attributes (or a function's defaults and what it closes over; private attributes are working memory) and, where it
    is no library's, the hash of the file that it is written in.

    Raises:
        ConfigError: It can't be told whether it is the same part in a later process.
    """
    if not isinstance(part, type) and callable(getattr(part, "key", None)):
        return part.key()
    if not isinstance(part, type) and isinstance(getattr(part, "name", None), str):
        return part.name
    if isinstance(part, functools.partial):
        return {"part": part_key(part.func), "with": _plain([part.args, part.keywords], part)}
    kind = part if isinstance(part, type) or inspect.isroutine(part) else type(part)
    key = {"part": f"{kind.__module__}.{kind.__qualname__}"}
    if state := _state(part):
        key["with"] = _plain(state, part)
    if source := _source(kind):
        key["source"] = source
    return key


def _state(part: Any) -> dict[str, Any]:
    if inspect.isfunction(part):
        closed = inspect.getclosurevars(part).nonlocals
        return {**closed, **{f"default {i}": value for i, value in enumerate(part.__defaults__ or ())}}
    if inspect.ismethod(part):
        return {"of": part.__self__}
    if isinstance(part, type) or inspect.isroutine(part):
        return {}
    names = [field.name for field in fields(part)] if is_dataclass(part) else list(vars(part))
    return {name: getattr(part, name) for name in names if not name.startswith("_")}


def _plain(value: Any, part: Any) -> Any:
    """The value as JSON knows it; a part of its own stands by its key."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item, part) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, part) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    if callable(value) or is_dataclass(value):
        return part_key(value)
    text = repr(value)
    if _ADDRESS.search(text):
        raise ConfigError(
            f"expected a part that a resumed run can know again, found {_name(part)}, which holds a "
            f"{type(value).__name__}: give it a method `key()` that returns what it depends on"
        )
    return text


def _source(kind: Any) -> str | None:
    """The hash of the file that a user's part is written in; None for a library's."""
    if kind.__module__ == "builtins" or kind.__module__.partition(".")[0] in {"isara", *sys.stdlib_module_names}:
        return None
    try:
        path = inspect.getsourcefile(kind)
        if path and str(Path(path).resolve()).startswith(_LIBRARIES):
            return None
        text = Path(path).read_text("utf-8") if path and Path(path).is_file() else inspect.getsource(kind)
    except (OSError, TypeError):
        raise ConfigError(
            f"expected a part whose source can be read, found {_name(kind)}: put it into a file, or give it a method "
            "`key()` that returns what it depends on"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(part: Any) -> str:
    return f"`{getattr(part, '__qualname__', type(part).__qualname__)}`"
