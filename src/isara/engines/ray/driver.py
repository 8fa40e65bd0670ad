"""The process that talks to Ray: it connects, places an actor for each worker, and hands requests and replies on."""

import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isara.engines.ray.actor import Actor, lost, versions
from isara.errors import ConfigError, IsaraError
from isara.marks import clean
from isara.process import serve

_REACH_SECONDS = 10.0
_OBJECTS = 128 * 2**20  # bytes of shared memory in a cluster of our own, which holds requests and replies alone
_MOST_SAID = 300  # characters of an error of Ray's
_MISSING = re.compile(r"failed to import on the worker.*No module named '(\w+)", re.DOTALL)
_BECAUSE = re.compile(r"[Tt]he actor (?:is dead|died) because (.+?)(?:\.\s|\.?$)", re.MULTILINE)


def main(next_request: Callable[[], dict[str, Any]], send: Callable[..., None]) -> None:
    """Connects as the first request says, and answers the others, each in a thread, until one is to close."""
    told, lock = next_request(), threading.Lock()
    ray = _connect(told["address"])
    places = Places(ray, told)
    send(**places.described())

    def answer(request: dict[str, Any]) -> None:
        try:
            reply = places.reply(request)
            with lock:
                send(number=request["number"], **reply)
        except BaseException:  # of a thread it would be lost, and its caller wait for ever
            traceback.print_exc()
            os._exit(1)

    while (request := next_request())["method"] != "close":
        if request["method"] == "end":
            places.end(request["worker"], request["process"])
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()
    ray.shutdown()


class Places:
    """The actors of the workers.

    Args:
        ray: The library, connected.
        told: The options of `RayOptions` and the `least` number of workers that there has to be room for.

    Raises:
        ConfigError: There is no room for so many.
    """

    def __init__(self, ray: Any, told: Mapping[str, Any]) -> None:
        self.ray, self.gpus, self.timeout = ray, told["gpus"], told["timeout"]
        self.actors: dict[int, Any] = {}
        self.lock = threading.Lock()
        self.versions = versions()
        self.cpus = 0
        if not self.gpus:
            said = os.environ.get("OMP_NUM_THREADS", "")
            self.cpus = (int(said) if said.isdecimal() else cpus_each(self._nodes(), told["workers"])) or 1
        self._check(told["least"])

    def described(self) -> dict[str, str]:
        """The cluster in words."""
        nodes = self._nodes()
        kind = "GPUs" if self.gpus else "CPUs"
        return {"nodes": f"{len(nodes)} nodes with {', '.join(f'{n:g}' for n in nodes)} {kind}", "each": self._each()}

    def reply(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker's actor replies, or an error where it is lost."""
        ray, worker = self.ray, request["worker"]
        try:
            return self._asked(worker, request) if request["method"] == "ask" else self._started(worker, request)
        except ray.exceptions.RayTaskError:
            raise  # a mistake of ours, which is to keep its traceback
        except ray.exceptions.GetTimeoutError:
            self._lose(worker)
            return lost(
                f"expected a place with {self._each()} for worker {worker} within {self.timeout:g} s, found "
                f"{self._free()} free in the cluster: wait for other work there, or lower `engine.workers`"
            )
        except ray.exceptions.RayError as error:
            self._lose(worker)
            return lost(f"the Ray actor of worker {worker} ended: {reason(error)}")
        except IsaraError as error:
            return lost(str(error))

    def end(self, worker: int, process: int) -> None:
        """Ends a process, where its actor still lives."""
        if worker in self.actors:
            self.actors[worker].end.remote(process)

    def _asked(self, worker: int, request: Mapping[str, Any]) -> dict[str, Any]:
        actor = self.actors.get(worker)
        if actor is None:
            return lost(f"the Ray actor of worker {worker} has ended")
        return self._got(actor.ask.remote(request["process"], request["request"]))

    def _started(self, worker: int, request: Mapping[str, Any]) -> dict[str, Any]:
        with self.lock:  # two workers may find room for one
            if worker not in self.actors:
                self._check(len(self.actors) + 1)
                self.actors[worker] = self._placed()
        return self._got(self.actors[worker].start.remote(request["process"], request["told"]), self.timeout)

    def _placed(self) -> Any:
        """An actor, which Ray may still have to find a place for."""
        env = {"OMP_NUM_THREADS": str(self.cpus)} if self.cpus else {}
        made = self.ray.remote(Actor).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            scheduling_strategy="SPREAD",
            max_concurrency=2,  # a process may be ended while it is asked
        )
        return made.remote(env, self.versions)

    def _got(self, reference: Any, timeout: float | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self.ray.get(reference, timeout=timeout)
        return found

    def _lose(self, worker: int) -> None:
        """Gives up an actor, which is ended where it still lives."""
        actor = self.actors.pop(worker, None)
        if actor is not None:
            self.ray.kill(actor)

    def _check(self, workers: int) -> None:
        """Sees to it that the nodes that live are large enough for so many workers.

        Raises:
            ConfigError: They are not.
        """
        nodes, size = self._nodes(), self.gpus or self.cpus
        room = sum(int(each // size) for each in nodes)
        if room < workers:
            raise ConfigError(
                f"expected a Ray cluster with room for {workers} workers with {self._each()} each, found room for "
                f"{room} ({self.described()['nodes']}): lower `engine.workers`, or start more nodes"
            )

    def _nodes(self) -> list[float]:
        """GPUs or CPUs of each node that lives."""
        kind = "GPU" if self.gpus else "CPU"
        return [node["Resources"].get(kind, 0.0) for node in self.ray.nodes() if node["Alive"]]

    def _each(self) -> str:
        number, kind = (self.gpus, "GPU") if self.gpus else (self.cpus, "CPU")
        return f"{number} {kind}{'s' * (number > 1)}"

    def _free(self) -> str:
        kind = "GPU" if self.gpus else "CPU"
        return f"{self.ray.available_resources().get(kind, 0):g} {kind}s"


def cpus_each(nodes: Sequence[float], workers: int) -> int:
    """Most CPUs that each of the workers can have; 0 where there are fewer than workers.

    Args:
        nodes: CPUs of each node.
        workers: How many there are.
    """
    sizes = range(int(max(nodes, default=0)), 0, -1)
    return next((size for size in sizes if sum(int(each // size) for each in nodes) >= workers), 0)


def _connect(address: str | None) -> Any:
    """Ray, connected to a cluster.

    Raises:
        ConfigError: It is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"expected Ray for `engine.launcher: ray`, found none ({error}): pip install ray, or leave the launcher "
            "out, as `engine.workers` needs no Ray on one machine"
        ) from None
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    _check_reachable(where)
    own = {"include_dashboard": False, "object_store_memory": _OBJECTS} if where == "local" else {}
    try:
        ray.init(where, log_to_driver=False, logging_level="error", **own)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"expected a Ray cluster at {where!r}, found none of use ({clean(str(error), _MOST_SAID)}): start one "
            "with `ray start` and give its host:port as `engine.address`; this machine has to be a node of it"
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        ConfigError: Nobody listens at a host and port.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"expected a Ray cluster at {address!r}, found nobody ({error}): give the host:port that `ray start` shows "
            "as `engine.address`, or auto on a machine that is a node of it"
        ) from None


def reason(error: Exception) -> str:
    """Why an actor was lost, out of a page of advice."""
    if "unavailable" in type(error).__name__.lower():  # so a lost node shows first
        return "it can't be reached any more"
    if missing := _MISSING.search(str(error)):
        return f"its node has no {missing[1]}; install the same versions of ISARA and its libraries on every node"
    found = _BECAUSE.search(str(error))
    return clean(found[1] if found else str(error), _MOST_SAID)


if __name__ == "__main__":
    serve(main)
