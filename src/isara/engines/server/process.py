"""A server of one model's weights in a process group of its own, which lives as long as it is wanted and no longer."""

import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

import psutil  # type: ignore[import-untyped]  # it has no types of its own

from isara.errors import ConfigError
from isara.marks import clean
from isara.process import watched
from isara.temporary import temporary_folder

PATIENCE = 10.0  # seconds that a server has to end by itself
_END_SECONDS = 30.0  # for the watchdog, which gives the server ten
DEATH_SECONDS = 15.0  # until a server that is dead has been cleared away
_LAST_LINES = 3  # of the server's log in an error message
_SHOWN = 400  # characters of them
_PLACE = re.compile(r"\{(model|port|gguf)(?::(\w+))?\}")
GGUF_KIND = "f16"  # what {gguf} is; {gguf:q8_0} is another
WriteGGUF: TypeAlias = Callable[[Path, Path, str], None]  # a model folder, the file to write, and its kind of numbers


class ServedModel:
    """A server that is started for a model, watched, and ended with all its children.

    Args:
        command: Its template, with {port} and {model} or {gguf}.
        model: The folder of the model.
        write_gguf: Makes {gguf} of it.

    Raises:
        ConfigError: There is no such command, or a quote in it has no end.
        ModelError: The model can't be written as GGUF.
    """

    def __init__(self, command: str, model: str, write_gguf: WriteGGUF) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(
                f"`engine.serve`: expected a command as a shell reads it, found {error}: mend it"
            ) from None
        program = words[0]
        if shutil.which(program) is None:
            raise ConfigError(
                f"`engine.serve`: expected a command that can be run, found {program!r}, which can't: install it, or "
                "give its path"
            )
        self.port = 0
        self._write_gguf = write_gguf
        self._folder = temporary_folder()
        self._log: IO[bytes] = (Path(self._folder.name) / "log").open("w+b")
        try:
            files = self._files(command, model)
            # Only now: whatever listens at a port that was found before a file was written may be another's server.
            self.port = _free_port()
            values = {"model": model, "port": str(self.port)}
            arguments = [_PLACE.sub(lambda place: files.get(place[0]) or values[place[1]], each) for each in words]
            self._process = subprocess.Popen(
                watched(arguments, PATIENCE, folder=self._folder.name),
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        except BaseException:
            self._log.close()
            self._folder.cleanup()
            raise

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}/v1"

    def death(self, patience: float = 0.0) -> str | None:
        """How it has ended, or does so within these seconds, and what it last wrote, in a line; None where it runs."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return f"the server that `engine.serve` started ended with exit code {code}; {self.last_words()}"

    def usurper(self) -> str | None:
        """What listens at the port in its place, in a line; None where it does itself, or nobody can tell."""
        try:
            watchdog = psutil.Process(self._process.pid)
            own = {watchdog.pid, *(child.pid for child in watchdog.children(recursive=True))}
            listening = {
                found.pid
                for found in psutil.net_connections("tcp")
                if found.status == psutil.CONN_LISTEN and found.laddr.port == self.port and found.pid is not None
            }
            if listening & own:
                return None
            # The port of a container is held by a process that is not of this group, but begins after it.
            for pid in listening:
                if psutil.Process(pid).create_time() < watchdog.create_time():
                    return (
                        f"port {self.port}, which was free, was taken by process {pid} before the server that "
                        "`engine.serve` started could have it: run the command again"
                    )
        except (psutil.Error, OSError):
            return None
        return None

    def last_words(self) -> str:
        """The end of its log, in a line."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f"it last wrote: {clean(' | '.join(lines[-_LAST_LINES:]), _SHOWN) or 'nothing'}"

    def close(self) -> None:
        """Ends it and all that it has started; they have ten seconds to do so by themselves."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the system kills the server with it
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def _files(self, command: str, model: str) -> dict[str, str]:
        """The file of each {gguf} in the command, written."""
        files: dict[str, str] = {}
        for place in _PLACE.finditer(command):
            if place[1] == "gguf" and place[0] not in files:
                path = Path(self._folder.name) / f"{Path(model).name}-{place[2] or GGUF_KIND}.gguf"
                self._write_gguf(Path(model), path, place[2] or GGUF_KIND)
                files[place[0]] = str(path)
        return files


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port
