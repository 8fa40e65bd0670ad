"""The transformers engine in a process of its own: when the process ends, all of its memory is free again."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal, Self

from isara.errors import IsaraError, ModelError
from isara.models import find_model
from isara.process import Child, error_message, serve
from isara.prompts import PromptFormat
from isara.protocols import Completion, Sampling


class ChildEngine:
    """The engine of `TransformersEngine` with the same arguments, in a child process that lives for a `with` block."""

    def __init__(
        self,
        model: str,
        *,
        prompt_format: Literal["auto", "plain", "chat"] = "auto",
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.options: dict[str, Any] = {
            "model": model,
            "prompt_format": prompt_format,
            "device": device,
            "dtype": dtype,
            "tokens_per_batch": tokens_per_batch,
            "trust_remote_code": trust_remote_code,
        }
        self.on_progress = on_progress
        self._child: Child | None = None
        self._format: PromptFormat | None = None
        self._context_length = 0

    @property
    def format(self) -> PromptFormat:
        """How pairs become text for this model."""
        assert self._format is not None, "an engine is used inside its `with` block"
        return self._format

    @property
    def context_length(self) -> int:
        """Most tokens that prompt and completion may have together."""
        assert self._format is not None, "an engine is used inside its `with` block"
        return self._context_length

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt, with the BOS that the tokenizer adds."""
        counts: list[int] = self._ask("count_tokens", texts=list(texts))
        return counts

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i depends on prompt i, sampling and seed i alone.

        Raises:
            ModelError: As in `TransformersEngine`, or the child process ended.
        """
        rows = self._ask("generate", prompts=list(prompts), sampling=asdict(sampling), seeds=list(seeds))
        return [Completion(**row) for row in rows]

    def logprobs(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Natural-log probability of each continuation after its prompt, summed over its tokens, in fp32.

        Raises:
            ModelError: As in `TransformersEngine`, or the child process ended.
        """
        scores: list[float] = self._ask("logprobs", prompts=list(prompts), continuations=list(continuations))
        return scores

    def __enter__(self) -> Self:
        find_model(self.options["model"])  # a wrong name is found before a process has loaded its libraries
        self._child = Child("isara.engines.child", "the engine's process", ModelError)
        try:
            opened = self._ask("open", **self.options)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self._format, self._context_length = PromptFormat(**opened["format"]), opened["context_length"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child, self._format = self._child, None, None
        if child is not None:
            child.close()

    def _ask(self, method: str, **arguments: Any) -> Any:
        """The child's result; its errors are raised here with the same class and message."""
        assert self._child is not None, "an engine is used inside its `with` block"
        for message in self._child.ask(method=method, **arguments):
            if "result" in message:
                return message["result"]
            if self.on_progress is not None:
                self.on_progress(*message["progress"])
        raise AssertionError("a child answers or dies")


def _work(next_request: Callable[[], dict[str, Any]], send: Callable[..., None]) -> None:
    """The child: opens the engine that the first request describes, and answers the others for ever."""
    from isara.engines.transformers import TransformersEngine

    def progress(tokens: int, done: int) -> None:
        send(progress=[tokens, done])

    options = next_request()
    options.pop("method")
    with TransformersEngine(options.pop("model"), **options, on_progress=progress) as engine:
        send(result={"format": asdict(engine.format), "context_length": engine.context_length})
        while True:
            try:
                send(result=_call(engine, next_request()))
            except IsaraError as error:
                send(**error_message(error))


def _call(engine: Any, request: dict[str, Any]) -> Any:
    match request.pop("method"):
        case "count_tokens":
            return engine.count_tokens(**request)
        case "logprobs":
            return engine.logprobs(**request)
        case "generate":
            sampling = request.pop("sampling")
            sampling["stop"] = tuple(sampling["stop"])
            return [asdict(row) for row in engine.generate(**request, sampling=Sampling(**sampling))]
        case method:
            raise AssertionError(f"no method {method!r}")


if __name__ == "__main__":
    serve(_work)
