"""Starts a command and ends it, with all that it has started, as soon as nobody holds the other end of its stdin.

It runs by itself, as `python watchdog.py SECONDS STDIN FOLDER COMMAND…`, in a session of its own: Ctrl-C doesn't reach
it, and when the process that started it ends in whatever way, its stdin closes. The seconds are those between SIGTERM
and SIGKILL; STDIN is the number of the open file that the command is to read from, or -1 for none; FOLDER is removed at
the end, and an empty one is none. Its exit code is the command's.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

import psutil  # type: ignore[import-untyped]  # it has no types of its own

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl


def main(patience: float, stdin: int, folder: str, command: list[str]) -> int:
    """Runs the command to its end, or to that of stdin; its exit code, 128 and the signal where one killed it."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    if prctl:
        prctl(_SET_CHILD_SUBREAPER, 1)  # what the server leaves behind becomes a child of this process
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin < 0 else stdin,
        start_new_session=True,
        # If this very process is killed, the server goes with it. No thread is running yet.
        preexec_fn=(lambda: prctl(_SET_PDEATHSIG, signal.SIGKILL)) if prctl else None,
    )
    if stdin >= 0:
        os.close(stdin)
    threading.Thread(target=_listen, args=(over,), daemon=True).start()
    while server.poll() is None and not over.wait(0.1):
        pass
    ended = server.poll()
    _end_all(server, patience)
    code = server.wait() if ended is None else ended
    if folder:  # of a process that may be gone
        shutil.rmtree(folder, ignore_errors=True)
    return 128 - code if code < 0 else code


def _listen(over: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    over.set()


def _end_all(server: "subprocess.Popen[bytes]", patience: float) -> None:
    """Asks the server and all its descendants to end, and kills those that don't."""
    _signal(server, signal.SIGTERM)
    asked = psutil.Process().children(recursive=True)
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(asked, timeout=patience)
    _signal(server, signal.SIGKILL)
    while left := [each for each in psutil.Process().children(recursive=True) if each.status() != "zombie"]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _signal(server: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, of a group of zombies
        os.killpg(server.pid, number)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
