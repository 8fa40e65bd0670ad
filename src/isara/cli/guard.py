"""Signals and standard streams: how a command ends when somebody stops it or nobody can read it.

Ctrl-C and SIGTERM end a command in one line, whenever they come, imports included. An output that can't be written ends
in one line, too; a reader that goes away, as `head` does, in none.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from isara.temporary import temporary_prefix

_PIPE_CLOSED = 141  # 128 + SIGPIPE, as shells report it
_AGAIN = "nothing was changed; give the same command again"
_KEPT = {
    "run": "every finished batch and stage stays in the run folder; the same command goes on from there",
    "generate": "every finished batch stays in the run folder; the same command goes on from there",
    "compare": "every finished batch and stage stays in the comparison's folder; the same command goes on from there",
    "evaluate": "every finished batch of answers and verdicts stays in its folder; the same command goes on from there",
    "train": "nothing is kept of an unfinished training; the same command begins it anew",
    "tune": "nothing is kept of unfinished measurements; the same command begins them anew",
    "judge": "nothing is kept of an unfinished check; the same command begins it anew",
    "export": "nothing is kept of an unfinished export; the same command begins it anew",
    "init": "if its folder is there already, remove it, and give the same command again",
    "report": "the page is as it was; the same command writes it anew",
}


class Unwritable(BaseException):
    """Standard output can't be written; no library takes it for an error of a file."""


class _Stop:
    """What happens at SIGINT and SIGTERM while a command runs: a line, and the process ends.

    It ends at once, as if it were killed, for which every file is written anyway: an exception that is thrown wherever
    Python happens to be is swallowed by destructors and bare excepts, and aborts native code that called Python.
    """

    def __init__(self) -> None:
        # What ignores Ctrl-C, as a shell's background job does, goes on ignoring it.
        heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._asked) for number in heard}

    def over(self) -> None:
        """Signals mean again what they did."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        line = f"isara: stopped; {_KEPT.get(verb, _AGAIN)}\n"
        try:
            with suppress(OSError):  # there may be nobody to tell
                # A bar that is being drawn is taken away, and the cursor that it hid comes back.
                os.write(2, (("\r\x1b[K\x1b[?25h" if os.isatty(2) else "") + line).encode())
            _remove_temporary()
        finally:
            os._exit(128 + number)


def _remove_temporary() -> None:
    """Removes this process's temporary folders, which may hold a whole model."""
    tempfile, shutil = sys.modules.get("tempfile"), sys.modules.get("shutil")
    if tempfile is None or shutil is None:  # then there are none
        return
    for path in os.scandir(tempfile.gettempdir()):
        if path.name.startswith(temporary_prefix()):
            shutil.rmtree(path.path, ignore_errors=True)


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


def guarded(command: Callable[[], None]) -> None:
    """Calls a command, and ends the process where a signal or an output that can't be written does."""
    _open_closed()
    sys.stdout, sys.stderr = _own(sys.stdout, _Output), _own(sys.stderr, _Messages)
    stop = _Stop()
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
