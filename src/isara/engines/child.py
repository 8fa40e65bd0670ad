"""The transformers engine in a process of its own: when the process ends, all of its memory is free again.

Parent and child write one JSON object a line: requests on the child's stdin, answers, progress and errors on its
stdout. The child ends at once when its stdin closes, so it never outlives its parent.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, Literal, Self

import isara.errors
from isara.errors import IsaraError, ModelError
from isara.models import find_model
from isara.prompts import PromptFormat
from isara.protocols import Completion, Sampling

_LAST_LINES = 3  # of the child's stderr in an error message
_END_SECONDS = 60


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
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None
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
        # a file and not a pipe: nobody need read it while the child runs, and it can't fill up
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "isara.engines.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )
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
        process, self._process, self._format = self._process, None, None
        if process is not None:
            _end(process)
        if self._stderr is not None:
            self._stderr.close()

    def _ask(self, method: str, **arguments: Any) -> Any:
        """The child's result; its errors are raised here with the same class and message."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None, (
            "an engine is used inside its `with` block"
        )
        try:
            process.stdin.write(json.dumps({"method": method, **arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(process) from None
        for line in process.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                if self.on_progress is not None:
                    self.on_progress(*answer["progress"])
            elif "error" in answer:
                raise _ERRORS[answer["error"]](answer["message"])
            else:
                return answer["result"]
        raise self._died(process)

    def _died(self, process: "subprocess.Popen[str]") -> ModelError:
        assert self._stderr is not None
        code = process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()][-_LAST_LINES:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ModelError(f"the engine's process {how}; it last wrote: {' | '.join(lines) or 'nothing'}")


_ERRORS = {name: kind for name, kind in vars(isara.errors).items() if isinstance(kind, type)}


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        process.kill()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _serve(requests: "queue.SimpleQueue[str]", answers: IO[str]) -> None:
    """The child: opens the engine that the first request describes, and answers the others for ever."""
    from isara.engines.transformers import TransformersEngine

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    def progress(tokens: int, done: int) -> None:
        answer(progress=[tokens, done])

    options = json.loads(requests.get())
    options.pop("method")
    try:
        with TransformersEngine(options.pop("model"), **options, on_progress=progress) as engine:
            answer(result={"format": asdict(engine.format), "context_length": engine.context_length})
            while True:
                try:
                    answer(result=_call(engine, json.loads(requests.get())))
                except IsaraError as error:
                    answer(error=type(error).__name__, message=str(error))
    except IsaraError as error:
        answer(error=type(error).__name__, message=str(error))


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


def _listen(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # the parent closed the pipe or is gone: no need to finish what nobody will read


def main() -> None:
    """Serves requests on stdin. What libraries print goes to stderr, so that stdout holds answers alone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    lines = os.fdopen(0, encoding="utf-8")
    threading.Thread(target=_listen, args=(lines, requests), daemon=True).start()
    _serve(requests, answers)


if __name__ == "__main__":
    main()
