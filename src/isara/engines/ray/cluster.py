"""The run's side of a Ray cluster: processes of an engine on its machines, each in a worker's place.

Ray itself lives in a process of its own (`isara.engines.ray.driver`), for three reasons: it ends its process where its
head or the machine's own node is lost, it takes signals for itself, and it writes to the standard streams.
"""

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from isara.errors import IsaraError, ModelError
from isara.models import weights_hash
from isara.process import Child, error_message, error_of, module_command

log = logging.getLogger("isara")

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray's telemetry
_END_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where workers are placed.

    Attributes:
        address: Of the cluster; None is RAY_ADDRESS or the one that this machine is a node of, "local" starts one.
        workers: How many there are.
        gpus: That each has for itself; 0 gives each a share of the CPUs.
        timeout: Seconds until a worker has to have its place.
    """

    address: str | None
    workers: int
    gpus: int
    timeout: float


class RayCluster:
    """The connection to a cluster, which lives while one of its engines does; each engine enters and leaves it.

    Args:
        options: Where workers are placed.
    """

    def __init__(self, options: RayOptions) -> None:
        self.options = options
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._users, self._was_whole = 0, False
        self._numbers = itertools.count()
        self._child: Child | None = None
        self._reader: threading.Thread | None = None
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._ended: dict[str, Any] | None = None
        self._weights: dict[str, str] = {}

    def start(self, worker: int, engine: Mapping[str, Any], model: str) -> "RayProcess":
        """A process of an engine in a worker's place; it is started when first asked.

        Args:
            worker: From 0.
            engine: What `isara.engines.ray.actor` starts.
            model: Its folder or name, which has to be the same on each machine.
        """
        return RayProcess(self, worker, next(self._numbers), {"engine": engine, "model": model})

    def ask(self, **request: Any) -> dict[str, Any]:
        """The driver's reply to a request, which it may give after those to later ones."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._ended or self._child is None:
                return self._ended or _ended(ModelError("the connection to Ray is closed"))
            number = next(self._numbers)
            self._waiting[number] = future
            with suppress(BrokenPipeError):  # the reader finds out
                self._child.send(number=number, **request)
        return future.result()

    def weights(self, model: str) -> str:
        """The hash of a model's weights, read once while the connection lives: all workers ask for it."""
        with self._hashing:
            if model not in self._weights:
                self._weights[model] = weights_hash(model)
            return self._weights[model]

    def tell(self, **request: Any) -> None:
        """Sends a request that has no reply."""
        with self._lock, suppress(BrokenPipeError):
            if self._child is not None:
                self._child.send(**request)

    def __enter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            try:
                self._connect()
            except BaseException:
                self._users = 0
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0:
            self._close()

    def _connect(self) -> None:
        """Starts the driver; a cluster that once had room for all workers may have lost some of it since."""
        command = module_command("isara.engines.ray.driver")
        child = Child(command, "Ray's process", ModelError, env=_QUIET, starts_others=True)
        least = 1 if self._was_whole else self.options.workers
        try:
            found = next(child.ask(**asdict(self.options), least=least))
        except BaseException:
            child.close()
            raise
        log.info("Ray: %s; %d workers with %s each", found["nodes"], self.options.workers, found["each"])
        self._child, self._ended, self._was_whole = child, None, True
        self._reader = threading.Thread(target=self._read, args=(child,), daemon=True)
        self._reader.start()

    def _close(self) -> None:
        assert self._child is not None and self._reader is not None
        self.tell(method="close")
        self._reader.join(_END_SECONDS)
        child, self._child = self._child, None
        self._weights.clear()
        child.close()

    def _read(self, child: Child) -> None:
        """Hands out replies until the driver ends."""
        for message in child.messages():
            self._waiting.pop(message.pop("number")).set_result(message)
        with self._lock:
            self._ended = _ended(child.died())
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_result(self._ended)


class RayProcess:
    """A process of an engine that a Ray actor keeps, as `isara.process.Child` is one of this machine's.

    Args:
        cluster: Where it is.
        worker: Whose place it has.
        number: Tells it apart from others in that place.
        told: What it is and which model it is for.
    """

    def __init__(self, cluster: RayCluster, worker: int, number: int, told: dict[str, Any]) -> None:
        self.dead = False
        self._cluster, self._told, self._started = cluster, told, False
        self._name = {"worker": worker, "process": number}

    def ask(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Its result for a request.

        Raises:
            IsaraError: What the process raised, or it was lost with its actor or machine.
        """
        if not self._started:
            told = self._told | {"weights": self._cluster.weights(self._told["model"])}
            place = self._reply(method="start", told=told)
            log.info("worker %d runs on %s as process %d", self._name["worker"], place["node"], place["pid"])
            self._started = True
        yield {"result": self._reply(method="ask", request=request)}

    def close(self) -> None:
        """Ends it."""
        self._cluster.tell(method="end", **self._name)

    def _reply(self, **request: Any) -> Any:
        reply = self._cluster.ask(**self._name, **request)
        if "error" in reply:
            self.dead = reply["dead"]
            raise error_of(reply)
        return reply["result"]


def _ended(error: IsaraError) -> dict[str, Any]:
    return {**error_message(error), "dead": True}
