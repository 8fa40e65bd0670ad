"""Signals and standard streams: how a command ends when somebody stops it or nobody can read it.

Ctrl-C and SIGTERM end a command in one line, whenever they come; a second one, or ten seconds, end it at once (a killed
run loses nothing). An output that can't be written ends in one line, too; a reader that goes away, as `head` does, in
none. What is read off the arguments here is the verb alone, for what is kept depends on it.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Never

_PATIENCE = 10.0  # seconds that a stopped command has to close what is open
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


class Stopped(BaseException):
    """Somebody asked the command to end; no library takes it for an interrupt that it could handle."""


class Unwritable(BaseException):
    """Standard output can't be written; no library takes it for an error of a file."""


class Stop:
    """What happens at SIGINT and SIGTERM from here on: `Stopped` is raised, and the second ends the process.

    Args:
        verb: Of the command line, on which it depends what is kept.
    """

    def __init__(self, verb: str) -> None:
        self.number = 0
        self._line = f"isara: stopped; {_KEPT.get(verb, _AGAIN)}\n"
        self._before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._swallowed

    def say(self) -> None:
        """Writes the line, unless that was done."""
        line, self._line = self._line.encode(), ""
        try:
            os.write(2, line)
        except OSError:
            return  # there is nobody to tell

    def over(self) -> None:
        """Signals mean again what they did."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self._end()
        self.number = number
        late = threading.Timer(_PATIENCE, self._end)
        late.daemon = True
        late.start()
        raise Stopped

    def _swallowed(self, error: Any) -> None:
        """Where Python itself drops an exception, in a destructor or a callback, nobody would hear of this one."""
        if isinstance(error.exc_value, Stopped):
            self._end()
        self._unraisable(error)

    def _end(self) -> Never:
        self.say()
        os._exit(128 + self.number)


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
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    _open_closed()
    sys.stdout, sys.stderr = _own(sys.stdout, _Output), _own(sys.stderr, _Messages)
    stop = Stop(verb)
    try:
        try:
            command()
        finally:
            if not stop.number:
                sys.stdout.flush()
    except Unwritable as error:
        _leave_output()
        number, what = error.args
        if isinstance(OSError(number, what), BrokenPipeError):
            sys.exit(_PIPE_CLOSED)
        os.write(2, f"isara: the output can't be written ({what}): free some space or give it another place\n".encode())
        sys.exit(1)
    except BaseException:
        if not stop.number:
            raise
        _leave_output()
        stop.say()
        sys.exit(128 + stop.number)
    finally:
        if not stop.number:
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
