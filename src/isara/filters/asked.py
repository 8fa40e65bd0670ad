"""Asks a filter, and says of one that fails or answers something else which it was, on what, and where."""

import math
import traceback
from typing import Any

from isara.errors import ConfigError, IsaraError
from isara.marks import clean
from isara.pool import Pool
from isara.protocols import Filter
from isara.records import Candidate, Rejection

_SHOWN = 60
_COUNTED = ("candidates", "accepted", "surplus")  # in the funnel, beside the reasons
_EXAMPLE = "Rejection" + '("its_name", value, threshold)'


def rejection_of(check: Filter, candidate: Candidate, kept: Pool) -> Rejection | None:
    """What the filter says.

    Raises:
        ConfigError: A filter of the user's own raises an exception, or returns something else.
    """
    try:
        said = check(candidate, kept)
    except IsaraError:
        raise
    except Exception as error:  # a filter of the user's can raise anything; a fault of ours keeps its traceback
        if check.__module__.partition(".")[0] == "isara":
            raise
        reason = clean(f"{type(error).__name__}: {error}", 2 * _SHOWN)
        raise ConfigError(
            f"expected a Rejection or None from the filter `{_name(check)}`, found that it fails on the candidate "
            f"{candidate.pair.id} ({clean(candidate.pair.question, _SHOWN)!r}){_line(error)}: {reason}: mend the "
            "filter; a run's finished batches are kept"
        ) from error
    if said is not None and not isinstance(said, Rejection):
        raise ConfigError(
            f"expected a Rejection or None from the filter `{_name(check)}`, found {said!r}: "
            f"return {_EXAMPLE} for a pair to drop and None for one to keep"
        )
    if said is not None and (wrong := _wrong(said)):
        raise ConfigError(
            f"expected {_EXAMPLE} from the filter `{_name(check)}`, its name being a line of text and the others a "
            f"number, text or None, found {wrong}: mend the filter; a run's finished batches are kept"
        )
    return said


def _wrong(said: Rejection) -> str:
    """The part of a rejection that can't be stored; "" where all can."""
    if not (isinstance(said.reason, str) and said.reason.strip() and said.reason.isprintable()):
        return f"the name {said.reason!r}"
    if said.reason in _COUNTED:
        return f"the name {said.reason!r}, which counts something else"
    for name in ("value", "threshold"):
        value = getattr(said, name)
        if not _can_be_stored(value):
            return f"the {name} {clean(repr(value), _SHOWN)}"
    near = said.near_id
    if isinstance(near, str | None) and _can_be_stored(near):
        return ""
    return f"the id of a near pair {clean(repr(near), _SHOWN)}"


def _can_be_stored(value: Any) -> bool:
    """Whether it is text without half a character, None, or a finite number, Python's or numpy's."""
    if getattr(value, "size", 0) == 1 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return isinstance(value, int | None)


def _name(check: Filter) -> str:
    return str(getattr(check, "__qualname__", type(check).__qualname__))


def _line(error: Exception) -> str:
    """Where in the filter's own file it came to that; "" of a filter that has no file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
