"""A row on its way to a pair, and the words in which it is said what is wrong with one."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isara.errors import SeedError
from isara.marks import clean

_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    bytes: "bytes",
    list: "a list",
    tuple: "a list",
}
_SHOWN_VALUE, _SHOWN_NAMES, _SHOWN_REASON, _SHOWN_PLACE = 40, 12, 200, 1000


@dataclass(frozen=True, slots=True)
class Record:
    """A row as a file holds it.

    Attributes:
        file: The file, folder or hub name it came from.
        line: Its (first) line, from 1; in formats without lines, and in JSON, the number of its row.
        row: Its values by column.
        notes: What of its source is not used.
        table: Whether the names of the columns come from a first line, which may be missing.
    """

    file: str
    line: int
    row: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    table: bool = False

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


def fault(where: object, expected: str, found: str, advice: str) -> SeedError:
    """The error for something at a place; what comes from outside was cleaned by who writes `found`."""
    return SeedError(f"{clean(str(where), _SHOWN_PLACE)}: expected {expected}, found {found}: {advice}")


def reason(error: object) -> str:
    """What a library says, on one short line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return clean(said, _SHOWN_REASON) or type(error).__name__


def listed(names: Iterable[object]) -> str:
    """Names from outside, the first few of them."""
    shown = [clean(str(name), _SHOWN_VALUE) for name in names]
    more = [f"{len(shown) - _SHOWN_NAMES} more"] if len(shown) > _SHOWN_NAMES else []
    return ", ".join(shown[:_SHOWN_NAMES] + more) or "nothing"


def kind(value: Any) -> str:
    """What a value is, and the value itself where it is short."""
    known = "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    name = _KINDS.get(type(value), known)
    try:
        shown = reprlib.repr(value)
    except ValueError:  # a number of too many digits
        return name
    return f"{name} ({shown})" if value is not None and len(shown) <= _SHOWN_VALUE else name


def is_blank(value: Any) -> bool:
    """Whether a value stands for nothing at all: null, NaN, or empty."""
    if isinstance(value, str):
        return not value.strip()
    empty = isinstance(value, list | tuple | Mapping) and not value
    return value is None or empty or (isinstance(value, float) and math.isnan(value))
