"""A double of Ray: the names that the driver calls. Its actors are objects of the driver's own process.

HYRULE_RAY names a file that says which nodes there are and which of them and of the actors are dead; it is read anew at
each look, so that a test can have them die. It is put first on the path of the driver's process.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Any error of Ray's."""


class RayTaskError(RayError):
    """An actor's method raised."""


class GetTimeoutError(RayError):
    """A result was not there in time."""


class ActorDiedError(RayError):
    """An actor is no more."""


exceptions = SimpleNamespace(
    RayError=RayError, RayTaskError=RayTaskError, GetTimeoutError=GetTimeoutError, ActorDiedError=ActorDiedError
)
_threads = ThreadPoolExecutor(16)
_actors: list["_Actor"] = []
_placing = threading.Lock()  # as of two that look at once, both would see the same node empty


def _world() -> dict[str, Any]:
    world: dict[str, Any] = json.loads(Path(os.environ["HYRULE_RAY"]).read_text())
    return world


def init(address: str, **options: Any) -> None:
    """Connects, or says why not."""
    if error := _world().get("init_error"):
        raise RuntimeError(error)
    with Path(os.environ["HYRULE_RAY"]).with_suffix(".trace").open("a") as file:
        file.write(json.dumps([address, options, os.getpid()]) + "\n")


def nodes() -> list[dict[str, Any]]:
    """All nodes that were ever there."""
    world = _world()
    dead = world.get("dead_nodes", [])
    return [{"Alive": number not in dead, "Resources": resources} for number, resources in enumerate(world["nodes"])]


def available_resources() -> dict[str, float]:
    """What is free: nothing that the world says is taken by others."""
    return {"CPU": 0.0}


def remote(kind: Callable[..., Any]) -> SimpleNamespace:
    """What makes actors of a class."""

    def options(**said: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: _Actor(kind(*arguments), said))

    return SimpleNamespace(options=options)


def get(wanted: tuple["_Actor", Future[Any]], timeout: float | None) -> Any:
    """A method's result, while its actor lives."""
    actor, future = wanted
    until = time.monotonic() + (timeout or 1e9)
    while not (why := actor.dead()):
        if future.done():
            return future.result()
        if time.monotonic() > until:
            raise GetTimeoutError("Get timed out: some object(s) not ready.")
        time.sleep(0.01)
    kill(actor)
    raise ActorDiedError(f"The actor died unexpectedly.\n\tpid: 7\nThe actor is dead because {why}. Advice: pray.")


def kill(actor: "_Actor") -> None:
    """Ends an actor with all that it has started."""
    actor.ended = True
    for process in list(actor.object.children):
        actor.object.end(process)


def shutdown() -> None:
    """Ends what is left."""
    for actor in _actors:
        kill(actor)


class _Actor:
    """An object whose methods run in threads, once there is a place for it."""

    def __init__(self, made: Any, said: dict[str, Any]) -> None:
        self.object, self.ended, self.number = made, False, len(_actors)
        self.size, self.node = said["num_gpus"] or said["num_cpus"], -1
        _actors.append(self)

    def dead(self) -> str:
        """Why it is no more."""
        world = _world()
        if self.number in world.get("dead_actors", []):
            return "its worker process has died"
        if self.node in world.get("dead_nodes", []):
            return "its node has died"
        return ""

    def _placed(self) -> bool:
        with _placing:
            if self.node < 0 and not _world().get("busy"):
                self._look_for_room()
            return self.node >= 0

    def _look_for_room(self) -> None:
        taken = [0.0] * len(nodes())
        for other in _actors:
            if other.node >= 0 and not other.ended:
                taken[other.node] += other.size
        room = [
            number
            for number, node in enumerate(nodes())
            if node["Alive"] and sum(node["Resources"].values()) - taken[number] >= self.size
        ]
        self.node = min(room, key=lambda number: taken[number], default=-1)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        while not self._placed():
            time.sleep(0.01)
        return getattr(self.object, name)(*arguments)

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: (self, _threads.submit(self._call, name, arguments)))
