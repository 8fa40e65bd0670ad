"""Asks a filter, and says of one that fails or answers something else which it was, on what, and where."""

import traceback

from isara.errors import ConfigError, IsaraError
from isara.marks import clean
from isara.pool import Pool
from isara.protocols import Filter
from isara.records import Candidate, Rejection

_SHOWN = 60
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
    return said


def _name(check: Filter) -> str:
    return str(getattr(check, "__qualname__", type(check).__qualname__))


def _line(error: Exception) -> str:
    """Where in the filter's own file it came to that; "" of a filter that has no file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
