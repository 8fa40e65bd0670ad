"""The transformers engine in a process of its own: when the process ends, all of its memory is free again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from isara.errors import IsaraError, ModelError
from isara.models import find_model
from isara.process import Child, Process, Start, error_message, module_command, serve
from isara.records import Completion, Prompt, Sampling

if TYPE_CHECKING:
    from isara.engines.transformers.engine import TransformersEngine


def start_child(env: Mapping[str, str] | None = None) -> Child:
    """The process of an engine of transformers, which waits for its model.

    Args:
        env: Environment variables beside this process's.
    """
    return Child(module_command("isara.engines.child"), "the engine's process", ModelError, env=env)


class ChildEngine:
    """The engine of `TransformersEngine` in a process that lives for a `with` block.

    The arguments are the same; `start` gives a process for a model, in the place of `start_child`.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
        shared_by: int = 1,
        start: Start | None = None,
    ) -> None:
        self.options: dict[str, Any] = {
            "model": model,
            "device": device,
            "dtype": dtype,
            "tokens_per_batch": tokens_per_batch,
            "trust_remote_code": trust_remote_code,
            "shared_by": shared_by,
        }
        self._start = start
        self.on_progress = on_progress
        self._child: Process | None = None

    @property
    def exact(self) -> bool:
        """As in `TransformersEngine`; no process is started to know it."""
        return self._unopened().exact

    @property
    def dead(self) -> bool:
        """Whether its process has ended while it was wanted."""
        return self._child is not None and self._child.dead

    def key(self) -> dict[str, Any]:
        """As in `TransformersEngine`, whose outputs are the same."""
        return self._unopened().key()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i depends on prompt i, sampling and seed i alone.

        Raises:
            ModelError: As in `TransformersEngine`, or the child process ended.
        """
        rows = self._ask("generate", prompts=_ids(prompts), sampling=asdict(sampling), seeds=list(seeds))
        return [Completion(**row) for row in rows]

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens, in fp32.

        Raises:
            ModelError: As in `TransformersEngine`, or the child process ended.
        """
        tails = [list(continuation) for continuation in continuations]
        scores: list[float] = self._ask("logprobs", prompts=_ids(prompts), continuations=tails)
        return scores

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation after all that stands before it, in fp32.

        Raises:
            ModelError: As in `logprobs`.
        """
        tails = [list(continuation) for continuation in continuations]
        scores: list[list[float]] = self._ask("token_logprobs", prompts=_ids(prompts), continuations=tails)
        return scores

    def __enter__(self) -> Self:
        find_model(self.options["model"])  # a wrong name is found before a process has loaded its libraries
        self._child = self._start(self.options["model"]) if self._start else start_child()
        try:
            self._ask("open", **self.options)
        except BaseException:
            self._child.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _unopened(self) -> "TransformersEngine":
        """The same engine in this process, where it stays without weights."""
        from isara.engines.transformers.engine import TransformersEngine

        return TransformersEngine(self.options["model"], device=self.options["device"], dtype=self.options["dtype"])

    def _ask(self, method: str, **arguments: Any) -> Any:
        """The child's result; its errors are raised here with the same class and message."""
        assert self._child is not None, "an engine is used inside its `with` block"
        for message in self._child.ask(method=method, **arguments):
            if "result" in message:
                return message["result"]
            if self.on_progress is not None:
                self.on_progress(*message["progress"])
        raise AssertionError("a child answers or dies")


def _ids(prompts: Sequence[Prompt]) -> list[list[int]]:
    # Texts stay with the parent: the engine reads ids alone.
    return [list(prompt.ids) for prompt in prompts]


def _work(next_request: Callable[[], dict[str, Any]], send: Callable[..., None]) -> None:
    """The child: opens the engine that the first request describes, and answers the others for ever."""
    from isara.engines.transformers.engine import TransformersEngine

    def progress(tokens: int, done: int) -> None:
        send(progress=[tokens, done])

    options = next_request()
    options.pop("method")
    with TransformersEngine(options.pop("model"), **options, on_progress=progress) as engine:
        send(result=None)
        while True:
            try:
                send(result=_call(engine, next_request()))
            except IsaraError as error:
                send(**error_message(error))


def _call(engine: "TransformersEngine", request: dict[str, Any]) -> Any:
    prompts = [Prompt("", tuple(ids)) for ids in request["prompts"]]
    match request["method"]:
        case "logprobs":
            return engine.logprobs(prompts, request["continuations"])
        case "token_logprobs":
            return engine.token_logprobs(prompts, request["continuations"])
        case "generate":
            sampling = Sampling(**request["sampling"] | {"stop": tuple(request["sampling"]["stop"])})
            return [asdict(row) for row in engine.generate(prompts, sampling, request["seeds"])]
        case method:
            raise AssertionError(f"no method {method!r}")


if __name__ == "__main__":
    serve(_work)
