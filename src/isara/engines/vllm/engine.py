"""An engine that is vLLM's `LLM` in a process of its own: ids go in, texts come back.

The process may have another environment than this one, whose libraries vLLM rarely agrees with; nothing of this package
is needed there. It loads the very folder of the run's weights, so that they need no comparison.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isara.engines.server.client import cut_completion
from isara.errors import ConfigError, ModelError
from isara.models import local_folder
from isara.process import Child, Process, Start
from isara.records import Completion, Prompt, Sampling

log = logging.getLogger("isara")

_WORKER = Path(__file__).with_name("worker.py")
_USUAL = {"enable_prefix_caching": True, "generation_config": "vllm"}  # the sampling is ours, not the model's own
_OWN = ("model", "dtype", "trust_remote_code", "skip_tokenizer_init")  # what `engine` itself says, or the engine needs


@dataclass(kw_only=True)
class VLLMOptions:
    """How vLLM is started; each is the config's `engine` field of that name.

    Attributes:
        python: The interpreter of vLLM's environment.
        dtype: Of the weights; "auto" is theirs.
        trust_remote_code: Runs code that comes with the model.
        options: Of vLLM's `LLM`, by name.
        env: Environment variables of the process.
        start: Gives a process for a model's folder, in the place of `start_vllm`.
        special_tokens: Gives the special tokens of a model's tokenizer, before which a text ends.
        on_progress: Is called with the tokens generated and the rows done in a call.

    Raises:
        ConfigError: An option that isn't vLLM's to be told here.
    """

    python: str
    dtype: str = "auto"
    trust_remote_code: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    start: Start | None = None
    special_tokens: Callable[[str], Sequence[str]]
    on_progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if wrong := [name for name in self.options if name in _OWN]:
            raise ConfigError(
                f"`engine.options`: expected options of vLLM's LLM beside {', '.join(_OWN)}, found {wrong[0]}: leave "
                "it out, as `engine` has fields of its own for these"
            )

    def key(self) -> dict[str, Any]:
        """What completions depend on beside model, prompt, sampling and seed."""
        return {"kind": "vllm", "dtype": self.dtype, "options": dict(self.options)}


def start_vllm(python: str, env: Mapping[str, str]) -> Child:
    """The process of vLLM, which waits for its model.

    Args:
        python: The interpreter of vLLM's environment.
        env: Environment variables beside this process's.

    Raises:
        ConfigError: There is no such interpreter.
    """
    if shutil.which(python) is None:
        raise ConfigError(
            f"`engine.python`: expected the Python of an environment with vLLM, found {python!r}, which can't be run: "
            "give the path of its bin/python"
        )
    return Child([python, "-P", str(_WORKER)], "vLLM's process", ModelError, env=env, starts_others=True)


class VLLMEngine:
    """One model in a process of vLLM's, which lives for a `with` block.

    Args:
        model: The folder or name of the model.
        options: How vLLM is started.
    """

    exact = False  # rows are batched as there is room, and sums depend on the batch

    def __init__(self, model: str, options: VLLMOptions) -> None:
        self.model, self.options = model, options
        self._child: Process | None = None
        self._special_tokens: Sequence[str] = ()
        self._seeded = True

    @property
    def dead(self) -> bool:
        """Whether its process has ended while it was wanted."""
        return self._child is not None and self._child.dead

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i is drawn with seed i, where vLLM's build has seeds.

        Raises:
            ModelError: vLLM's process ended, such as of a prompt that is longer than its context, or its context cut
                a text.
        """
        if not prompts:
            return []
        rows = self._ask(
            "generate",
            prompts=[list(prompt.ids) for prompt in prompts],
            sampling=asdict(sampling),
            seeds=list(seeds) if self._seeded else [None] * len(prompts),
        )
        cut_at = (*sampling.stop, *self._special_tokens)
        done = [cut_completion(text, tokens, finish == "stop", cut_at) for text, tokens, finish in rows]
        for prompt, each in zip(prompts, done, strict=True):
            if each.finish == "length" and (tokens := each.tokens) < sampling.max_new_tokens:
                size = len(prompt.ids)
                least = size + sampling.max_new_tokens
                raise ModelError(
                    f"vLLM cut a text after {tokens} tokens of {sampling.max_new_tokens}, after a prompt of {size}: "
                    f"raise max_model_len in `engine.options` to {least} at least, or leave it out"
                )
        if self.options.on_progress:
            self.options.on_progress(sum(each.tokens for each in done), len(done))
        return done

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens.

        Raises:
            ModelError: As `generate`.
        """
        return [sum(scores) for scores in self.token_logprobs(prompts, continuations)]

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation after its prompt and the tokens before.

        Raises:
            ModelError: As `generate`.
        """
        rows = list(zip(prompts, continuations, strict=True))
        asked = [number for number, (_, tail) in enumerate(rows) if tail]
        found: list[list[float]] = [[] for _ in rows]
        if asked:
            scores = self._ask(
                "token_logprobs",
                prompts=[list(rows[number][0].ids) for number in asked],
                continuations=[list(rows[number][1]) for number in asked],
            )
            for number, values in zip(asked, scores, strict=True):
                found[number] = values
        return found

    def __enter__(self) -> Self:
        told, folder = self.options, str(local_folder(self.model))
        self._child = told.start(folder) if told.start else start_vllm(told.python, told.env)
        try:
            said = self._open(folder)
        except BaseException:
            self._child.close()
            raise
        self._seeded = said["no_seeds"] is None
        if not self._seeded:
            log.warning(
                "vLLM %s draws without seeds (%s): a run that is resumed is whole, but no row can be made again",
                said["version"],
                said["no_seeds"],
            )
        self._special_tokens = self.options.special_tokens(self.model)
        log.info("vLLM %s has loaded %s; prompts go as ids", said["version"], self.model)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _open(self, folder: str) -> dict[str, Any]:
        """Has the process load the model; what it says of itself."""
        told = self.options
        own = {"dtype": told.dtype, "trust_remote_code": told.trust_remote_code}
        said: dict[str, Any] = self._ask("open", model=folder, options={**_USUAL, **own, **told.options})
        if "missing" in said:
            raise ConfigError(
                f"expected vLLM in the environment of {told.python}, found none ({said['missing']}): install it there, "
                "or name the Python of another environment as `engine.python`"
            )
        return said

    def _ask(self, method: str, **arguments: Any) -> Any:
        assert self._child is not None, "an engine is used inside its `with` block"
        for message in self._child.ask(method=method, **arguments):
            return message["result"]
        raise AssertionError("a child answers or dies")
