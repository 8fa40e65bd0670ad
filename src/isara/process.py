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
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import isara.errors
from isara.errors import IsaraError
from isara.hardware import peak_memory
from isara.marks import clean

log = logging.getLogger("isara")

_LAST_LINES = 3  # of the child's stderr in an error message
_SHOWN = 400  # characters of an error of a group of processes
_END_SECONDS = 60
_PATIENCE = 10.0  # seconds that a child with children of its own has to end
_WATCHDOG = Path(__file__).with_name("watchdog.py")
# The last line of a traceback, which a library may have put a mark of its own before; and one that points elsewhere.
_ERROR = re.compile(r"(?:^|\]:? |\) |ERROR .*?: )((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt): .*)")
_ELSEWHERE = re.compile(r"root cause|EngineDeadError|ChildFailedError|EngineCore encountered")
# What the others of a group say when one is gone, and how torch's launcher tells of one that was killed.
_LEFT_ALONE = re.compile(
    r"connection (?:closed|reset|refused|was closed)|broken pipe|Dist(?:Network|Backend)Error", re.I
)
_KILLED = re.compile(r"Signal (\d+) \(SIG\w+\) received by PID")
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


def module_command(module: str) -> list[str]:
    """The command that runs a module of this package, whose `main` calls `serve`."""
    return [sys.executable, "-P", "-m", module]  # -P: not the user's random.py in the working directory


def watched(command: Sequence[str], patience: float, stdin: int = -1, folder: str = "") -> list[str]:
    """The command under `isara.watchdog`, which ends it with all that it has started.

    Args:
        command: What to run.
        patience: Seconds between SIGTERM and SIGKILL.
        stdin: The number of the open file that it reads from; -1 is none.
        folder: Is removed when all have ended, whoever is left then; an empty one is none.
    """
    return [sys.executable, "-P", str(_WATCHDOG), str(patience), str(stdin), folder, *command]


class Process(Protocol):
    """Another process that answers requests: a `Child` of this one, or one on another machine."""

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        ...

    def ask(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Its messages after a request, until the caller has what it wants."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


Start: TypeAlias = Callable[[str], Process]  # gives a process for a model


class Child:
    """A command that answers requests as a process of its own.

    Args:
        command: What to run, such as `module_command` makes.
        what: What the process is to the user, such as "the engine's process".
        error: The error that tells of its death.
        env: Environment variables beside this process's.
        starts_others: Whether it has children of its own, which are to end with it: it runs under a watchdog then.
        folder: Is removed when they have ended, whoever is left then; "" is none.
    """

    def __init__(
        self,
        command: Sequence[str],
        what: str,
        error: type[IsaraError],
        *,
        env: Mapping[str, str] | None = None,
        starts_others: bool = False,
        folder: str = "",
    ) -> None:
        self.what, self.error = what, error
        # a file and not a pipe: nobody need read it while the child runs, and it can't fill up
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._watched = starts_others
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            watched(command, _PATIENCE, reading, folder) if starts_others else command,
            stdin=subprocess.PIPE if starts_others else reading,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            env=None if env is None else {**os.environ, **env},
            pass_fds=(reading,) if starts_others else (),
            start_new_session=starts_others,
        )
        os.close(reading)
        self._requests = os.fdopen(writing, "w", encoding="utf-8")

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def ask(self, **request: Any) -> Iterator[dict[str, Any]]:
        """The child's messages after a request, until the caller has what it wants.

        Raises:
            IsaraError: What the child raised, with the same class and message, or `error` if the process has ended.
        """
        try:
            self.send(**request)
        except BrokenPipeError:
            raise self.died() from None
        for message in self.messages():
            if "error" in message:
                raise error_of(message)
            yield message
        raise self.died()

    def send(self, **request: Any) -> None:
        """Sends a request.

        Raises:
            BrokenPipeError: The process has ended.
        """
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says until it ends; a line that its end has cut says nothing."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                yield json.loads(line)

    def end(self) -> None:
        """Ends the process, which a thread may be reading from; it has a minute to do so by itself."""
        try:
            self._requests.close()
        except BrokenPipeError:
            self.process.kill()
        if self.process.stdin is not None:  # the watchdog's, by which it knows that this process lives
            self.process.stdin.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Ends the process, which nobody reads from any more."""
        assert self.process.stdout is not None
        if not self._watched and (peak := peak_memory(self.process.pid)):
            log.info("%s had at most %.2f GiB of memory", self.what, peak / 2**30)
        self.end()
        self.process.stdout.close()
        self._stderr.close()

    def died(self) -> IsaraError:
        """The error that tells of its end."""
        code = self.process.wait()
        if self._watched and code > 128:  # as a shell has it
            code = 128 - code
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        if self._watched and code > 0:
            killed = (int(found[1]) for line in lines if (found := _KILLED.search(line)))
            code = -next((number for number in killed if number != signal.SIGTERM), -code)
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by signal {-code}, as a system does when memory runs out"
        return self.error(f"{self.what} {how}; it last wrote: {self._last_words(lines)}")

    def _last_words(self, lines: Sequence[str]) -> str:
        """What a process that ended says of the reason: its last lines, or of a group of processes the last error."""
        if self._watched:
            errors = [found[1] for line in lines if (found := _ERROR.search(line)) and not _ELSEWHERE.search(line)]
            causes = [error for error in errors if not _LEFT_ALONE.search(error)]
            if errors:
                return clean((causes or errors)[-1], _SHOWN)
        return " | ".join(lines[-_LAST_LINES:]) or "nothing"


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


def error_of(message: Mapping[str, Any]) -> IsaraError:
    """The error that a message of `error_message` stands for."""
    error: IsaraError = _ERRORS[message["error"]](message["message"])
    return error


def _listen(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # the parent closed the pipe or is gone: no need to finish what nobody will read
