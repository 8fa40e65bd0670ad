"""What a part is to a resumed run: its name, its state and, where it is the user's own, its source."""

import functools
import hashlib
import inspect
import json
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from isara.errors import ConfigError

_LIBRARIES = tuple(str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "purelib", "platlib"))


def part_key(part: Any) -> Any:
    """What decides what a part does, JSON-ready. Take it before the part is used: its state is a part of it.

    A part with a `key()` says it itself, and an embedder with a `name` is known by it. Any other is its qualified name,
    its attributes (or a function's defaults and what it closes over) and, where it is no library's, the hash of the
    file that it is written in. Of the project's own parts private attributes are working memory and are left out.

    Raises:
        ConfigError: It can't be told whether it is the same part in a later process.
    """
    return _key(part, ())


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that a tree of settings holds; tuples as lists, as JSON would have them."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _key(part: Any, seen: tuple[int, ...]) -> Any:
    if id(part) in seen:
        return "itself"
    seen = (*seen, id(part))
    if not isinstance(part, type) and callable(getattr(part, "key", None)):
        return _own_key(part)
    if not isinstance(part, type) and hasattr(part, "encode") and isinstance(getattr(part, "name", None), str):
        return part.name
    if isinstance(part, functools.partial):
        return {"part": _key(part.func, seen), "with": _plain([part.args, part.keywords], part, seen)}
    kind = part if isinstance(part, type) or inspect.isroutine(part) else type(part)
    key = {"part": f"{kind.__module__}.{kind.__qualname__}"}
    if (code := getattr(kind, "__code__", None)) and "<lambda>" in kind.__qualname__:  # a file may hold several
        key["part"] += f" at {code.co_firstlineno}:{max(where[2] or 0 for where in code.co_positions())}"
    if state := _state(part):
        key["with"] = _plain(state, part, seen)
    if source := _source(kind):
        key["source"] = source
    return key


def _own_key(part: Any) -> Any:
    said = part.key()
    try:
        json.dumps(said)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"expected a `key()` of {_name(part)} that JSON can hold, found one that it can't ({error}): return text, "
            "numbers, lists and dicts"
        ) from error
    return said


def _state(part: Any) -> dict[str, Any]:
    if inspect.isfunction(part):
        closed = inspect.getclosurevars(part).nonlocals
        defaults = {f"default {place}": value for place, value in enumerate(part.__defaults__ or ())}
        return {**closed, **defaults, **(part.__kwdefaults__ or {})}
    if inspect.ismethod(part):
        return {"of": part.__self__}
    if isinstance(part, type) or inspect.isroutine(part):
        return {}
    slots = [name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())]
    names = dict.fromkeys([*slots, *getattr(part, "__dict__", {})])
    ours = type(part).__module__.partition(".")[0] == "isara"
    return {name: getattr(part, name) for name in names if hasattr(part, name) and not (ours and name.startswith("_"))}


def _plain(value: Any, part: Any, seen: tuple[int, ...]) -> Any:
    """The value as JSON knows it; a part of its own stands by its key."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item, part, seen) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, part, seen) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, part, seen) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if (known := _known(value)) is not None:
        return known
    if callable(value) or hasattr(value, "key") or hasattr(value, "__dict__"):
        return _key(value, seen)
    if type(value).__module__ in sys.stdlib_module_names and " at 0x" not in repr(value):
        return repr(value)
    raise ConfigError(
        f"expected a part that a resumed run can know again, found {_name(part)}, which holds a "
        f"{type(value).__name__}: give it a method `key()` that returns what it depends on"
    )


def _known(value: Any) -> Any:
    """What stands for a value of a library's whose `repr` does not say all; None for any other."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Path | Enum):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return None


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
