"""Work in a child process: a process that ends returns all of its memory, which on a GPU nothing else reliably does.

Parent and child write one JSON object a line: requests on the child's stdin, messages on its stdout, never pickles. The
child ends at once when its stdin closes, so it never outlives its parent.
"""

import contextlib
import json
import logging
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import isara.errors
from isara.errors import IsaraError
from isara.hardware import peak_memory

log = logging.getLogger("isara")

_LAST_LINES = 3  # of the child's stderr in an error message
_END_SECONDS = 60
_ERRORS = {name: kind for name, kind in vars(isara.errors).items() if isinstance(kind, type)}


_LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*|ACCELERATE_.*|FSDP_.*|"
    r"(PMI|MV2_COMM_WORLD|MPI_LOCAL)_.*|OMPI_COMM_WORLD_.*|SLURM_(PROCID|NTASKS|LOCALID|NPROCS)"
)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Without the variables that a launcher of several processes left behind; they come back afterwards.

    With them, a training library would wait for ever for processes that nobody started.
    """
    found = {name: value for name, value in os.environ.items() if _LAUNCHERS.fullmatch(name)}
    if found:
        log.info("left aside for this process: %s", ", ".join(sorted(found)))
    for name in found:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(found)


class Child:
    """A module of this package that runs as a process of its own.

    Args:
        module: The module, whose `main` calls `serve`.
        what: What the process is to the user, such as "the engine's process".
        error: The error that tells of its death.
    """

    def __init__(self, module: str, what: str, error: type[IsaraError]) -> None:
        self.what, self.error = what, error
        # a file and not a pipe: nobody need read it while the child runs, and it can't fill up
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # -P: not the user's random.py in the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )

    def ask(self, **request: Any) -> Iterator[dict[str, Any]]:
        """The child's messages after a request, until the caller has what it wants.

        Raises:
            IsaraError: What the child raised, with the same class and message, or `error` if the process has ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        for line in self.process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise _ERRORS[message["error"]](message["message"])
            yield message
        raise self._died()

    def close(self) -> None:
        """Ends the process; it has a minute to do so by itself."""
        assert self.process.stdin is not None and self.process.stdout is not None
        if peak := peak_memory(self.process.pid):
            log.info("%s had at most %.2f GiB of memory", self.what, peak / 2**30)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            self.process.kill()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._stderr.close()

    def _died(self) -> IsaraError:
        code = self.process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()][-_LAST_LINES:]
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by signal {-code}, as a system does when memory runs out"
        return self.error(f"{self.what} {how}; it last wrote: {' | '.join(lines) or 'nothing'}")


def serve(work: Callable[[Callable[[], dict[str, Any]], Callable[..., None]], None]) -> None:
    """The child's side: calls `work(next_request, send)`; an IsaraError of it goes to the parent.

    What libraries print goes to stderr, so that stdout holds messages alone.
    """
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(os.fdopen(0, encoding="utf-8"), requests), daemon=True).start()

    def next_request() -> dict[str, Any]:
        request: dict[str, Any] = json.loads(requests.get())
        return request

    def send(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    try:
        work(next_request, send)
    except IsaraError as error:
        send(**error_message(error))


def error_message(error: IsaraError) -> dict[str, str]:
    """The message that raises the same error in the parent."""
    return {"error": type(error).__name__, "message": str(error)}


def _listen(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # the parent closed the pipe or is gone: no need to finish what nobody will read
