"""What a worker is on its machine: a Ray actor that starts processes of engines and hands requests on.

An engine stays in a process of its own, as on one machine: it may have another environment, and its memory is free
when it ends. One actor holds those of all models that are open at a time, as they share its GPUs.
"""

import socket
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from isara.engines.child import start_child
from isara.engines.vllm.engine import start_vllm
from isara.errors import ConfigError, IsaraError, ModelError
from isara.models import weights_hash
from isara.process import Child, error_message

_LIBRARIES = ("isara", "torch", "transformers")  # which rows depend on


class Actor:
    """Processes of engines by number.

    Args:
        env: Environment variables of each beside this process's.
        versions: Of the libraries of the machine that the run is on.
    """

    def __init__(self, env: Mapping[str, str], versions: Mapping[str, str]) -> None:
        self.env, self.versions = env, versions
        self.children: dict[int, Child] = {}

    def start(self, process: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """Starts a process of an engine: which it is and on which machine, or an error.

        Args:
            process: Its number.
            told: The `engine` (`kind` and `python`), the `model` that it is for and the hash of its `weights`.
        """
        try:
            self._check(told["model"], told["weights"])
            self.children[process] = child = self._started(**told["engine"])
        except IsaraError as error:
            return {**error_message(error), "dead": False}
        return {"result": {"node": _node(), "pid": child.process.pid}}

    def ask(self, process: int, request: Mapping[str, Any]) -> dict[str, Any]:
        """A process's result for a request, or its error."""
        child = self.children.get(process)
        if child is None:  # this actor has taken the place of the one that had it
            return lost(f"the engine's process on {_node()} has ended")
        try:
            return next({"result": each["result"]} for each in child.ask(**request) if "result" in each)
        except IsaraError as error:
            return {**error_message(error), "dead": child.dead}

    def end(self, process: int) -> None:
        """Ends a process, whatever it is at."""
        child = self.children.pop(process, None)
        if child is not None:
            child.end()

    def _started(self, kind: str, python: str | None) -> Child:
        if kind == "vllm":
            return start_vllm(python or sys.executable, self.env)
        return start_child(self.env)

    def _check(self, model: str, weights: str) -> None:
        """Sees to it that this machine makes what the run's own would.

        Raises:
            ConfigError: It has other versions of libraries.
            ModelError: It has no such model, or one with other weights.
        """
        if (found := versions()) != self.versions:
            raise ConfigError(
                f"expected {_shown(self.versions)} on {_node()}, as where the run was started, found {_shown(found)}: "
                "install the same on every node"
            )
        try:
            there = "that of the run" if weights_hash(model) == weights else "one with other weights"
        except ModelError:
            there = "none that can be read"
        if there != "that of the run":
            raise ModelError(
                f"expected the model {model} on {_node()}, found {there}: put models and the run folder on a disk that "
                "all nodes share, under the same path"
            )


def lost(said: str) -> dict[str, Any]:
    """The reply for a process that is no more."""
    return {**error_message(ModelError(said)), "dead": True}


def versions() -> dict[str, str]:
    """Of the libraries that rows depend on."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _shown(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _node() -> str:
    return socket.gethostname()
