"""A double of vLLM: the names that the worker calls, and an `LLM` whose texts are functions of ids and seed.

It is put first on the path of the worker's process. Options that vLLM doesn't have decide how it fails.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "0.0.hyrule"


@dataclass
class SamplingParams:
    """What a request asks for."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    stop: list[str] = field(default_factory=list)
    seed: int | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    prompt_logprobs: int | None = None


@dataclass
class _Text:
    text: str
    token_ids: list[int]
    finish_reason: str


@dataclass
class _Logprob:
    logprob: float


@dataclass
class _Output:
    outputs: list[_Text]
    prompt_logprobs: list[dict[int, _Logprob] | None]


class LLM:
    """Answers with what it was asked; `trace` is a file that each start and the start of a helper are written to."""

    def __init__(
        self,
        model: str,
        dtype: str,
        trace: str,
        open_error: str = "",
        most: int = 1000,
        enable_chunked_prefill: bool = True,
        **options: Any,
    ) -> None:
        print("INFO: a line of no matter to anybody")  # on stdout, where messages are
        if open_error:
            print(f"(EngineCore pid=7) ERROR 11-29 [core.py:1] ValueError: {open_error}", file=sys.stderr)
            raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        scheduler = SimpleNamespace(enable_chunked_prefill=enable_chunked_prefill)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(scheduler_config=scheduler))
        self.most = most
        helper = subprocess.Popen(["sleep", "600"])
        with Path(trace).open("a") as file:
            file.write(f"{os.getpid()} {helper.pid} {model} {dtype} {sorted(options)}\n")

    def generate(self, prompts: list[Any], sampling: list[SamplingParams], use_tqdm: bool) -> list[_Output]:
        """One output a prompt."""
        return [self._output(prompt["prompt_token_ids"], said) for prompt, said in zip(prompts, sampling, strict=True)]

    def _output(self, ids: list[int], said: SamplingParams) -> _Output:
        if len(ids) > self.most:
            raise ValueError(f"The decoder prompt (length {len(ids)}) is longer than the maximum of {self.most}.")
        if ids[0] == 99:
            time.sleep(60)
        if said.prompt_logprobs is not None:
            return _Output([], [None, *({each: _Logprob(-each / 8)} for each in ids[1:])])
        text = f" {ids} by {said.seed}" + ("</s> and on" if ids[0] != 98 else "")
        cut = said.ignore_eos or ids[0] == 98
        return _Output([_Text(text, [5] * len(ids), "length" if cut else "stop")], [])
