"""Standard streams: an output that can't be written ends a command in one line, and one that nobody reads in none."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from isara.cli.stop import Stop

_PIPE_CLOSED = 141  # 128 + SIGPIPE, as shells report it


class Unwritable(BaseException):
    """Standard output can't be written; no library takes it for an error of a file."""


class _Output(io.FileIO):
    """A descriptor whose failures are `Unwritable`."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise Unwritable(error.errno, error.strerror) from None


class _Messages(io.FileIO):
    """A descriptor for messages: where nobody can be told any more, the work goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def guarded(command: Callable[[], None], stop: Stop) -> None:
    """Calls a command, and ends the process where an output that can't be written does; then signals are let go."""
    _open_closed()
    sys.stdout, sys.stderr = _own(sys.stdout, _Output), _own(sys.stderr, _Messages)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except Unwritable as error:
        _leave_output()
        number, what = error.args
        if number == errno.EPIPE:  # the reader has seen enough
            sys.exit(_PIPE_CLOSED)
        os.write(2, f"isara: the output can't be written ({what}): free some space or give it another place\n".encode())
        sys.exit(1)
    finally:
        stop.over()


def _open_closed() -> None:
    """Gives each closed standard descriptor to the null device, or the next file opened would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, and that is this one
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _own(stream: Any, kind: type[io.FileIO]) -> Any:
    """The stream over a descriptor of ours; as it is where it is none of the process's own, or a Windows console."""
    if stream not in (sys.__stdout__, sys.__stderr__) or (os.name == "nt" and stream.isatty()):
        return stream
    raw = kind(stream.fileno(), "w", closefd=False)
    own = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=stream.line_buffering)
    own.mode = "w"  # type: ignore[misc]
    return own


def _leave_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter's end has nothing to complain of."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
