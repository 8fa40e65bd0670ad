"""A server of one model's weights in a process group of its own, which lives as long as it is wanted and no longer."""

import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

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
        ConfigError: There is no such command.
        ModelError: The model can't be written as GGUF.
    """

    def __init__(self, command: str, model: str, write_gguf: WriteGGUF) -> None:
        program = shlex.split(command)[0]
        if shutil.which(program) is None:
            raise ConfigError(
                f"`engine.serve`: expected a command that can be run, found {program!r}, which can't: install it, or "
                "give its path"
            )
        self.port = _free_port()
        self._write_gguf = write_gguf
        self._folder = temporary_folder()
        self._log: IO[bytes] = (Path(self._folder.name) / "log").open("w+b")
        try:
            arguments = [self._filled(argument, model) for argument in shlex.split(command)]
            self._process = subprocess.Popen(
                watched(arguments, PATIENCE),
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

    def _filled(self, argument: str, model: str) -> str:
        """An argument with values for its places, which no shell reads."""

        def value(found: re.Match[str]) -> str:
            if found[1] == "gguf":
                path = Path(self._folder.name) / f"{Path(model).name}.gguf"
                self._write_gguf(Path(model), path, found[2] or GGUF_KIND)
                return str(path)
            return model if found[1] == "model" else str(self.port)

        return _PLACE.sub(value, argument)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port
