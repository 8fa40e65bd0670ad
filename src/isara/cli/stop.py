"""Ctrl-C and SIGTERM: they end a command in one line, whenever they come, imports included.

What this file imports is loaded before they can, so it is as little as can be.
"""

import os
import signal
import sys

from isara.temporary import temporary_prefix

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
    "review": "every decision is kept; the same command goes on with those that are left",
    "report": "the page is as it was; the same command writes it anew",
}


class Stop:
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

    def done(self, status: int) -> None:
        """The command has ended with this status: what is asked for now only hastens the interpreter's end."""
        for number in self._before:
            signal.signal(number, lambda *_: os._exit(status))

    def _asked(self, number: int, frame: object) -> None:
        verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        line = f"isara: stopped; {_KEPT.get(verb, _AGAIN)}\n"
        try:
            _remove_temporary()
            # A bar that is being drawn is taken away, and the cursor that it hid comes back.
            os.write(2, (("\r\x1b[K\x1b[?25h" if os.isatty(2) else "") + line).encode())
        finally:  # whether there was somebody to tell or not
            os._exit(128 + number)


def _remove_temporary() -> None:
    """Removes this process's temporary folders, which may hold a whole model."""
    tempfile, shutil = sys.modules.get("tempfile"), sys.modules.get("shutil")
    if tempfile is None or shutil is None:  # then there are none
        return
    for path in os.scandir(tempfile.gettempdir()):
        if path.name.startswith(temporary_prefix()):
            shutil.rmtree(path.path, ignore_errors=True)
