"""Small real doubles of the protocols, for tests of the package and of its users' own parts."""

import hashlib
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from isara.prompts import PromptFormat, plain_format
from isara.protocols import Completion, Sampling


class ScriptedEngine:
    """An engine whose completions come from a function of prompt and seed; a token is a word.

    Args:
        answer: Gives the completion's text for a prompt and a seed.
        context_length: Most words that prompt and completion may have together.
        fmt: The prompt format; plain by default.
    """

    def __init__(
        self,
        answer: Callable[[str, int], str],
        *,
        context_length: int = 2048,
        fmt: PromptFormat | None = None,
    ) -> None:
        self.answer = answer
        self.context_length = context_length
        self.format = fmt or plain_format("</s>")
        self.prompts: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """The function's texts, cut at stop strings and at max_new_tokens words, as a real engine would."""
        self.prompts += prompts
        return [self._complete(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def logprobs(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """-ln 2 a byte: every continuation costs one bit per byte."""
        return [-float(np.log(2)) * len(text.encode()) for text in continuations]

    def _complete(self, prompt: str, sampling: Sampling, seed: int) -> Completion:
        text = self.answer(prompt, seed)
        for stop in sampling.stop:
            text = text.split(stop)[0]
        words = re.findall(r"\s*\S+", text)
        if len(words) > sampling.max_new_tokens:
            return Completion("".join(words[: sampling.max_new_tokens]), sampling.max_new_tokens, "length")
        return Completion(text, len(words) + 1, "stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class HashEmbedder:
    """Bag-of-words vectors by feature hashing: texts that share words are near; needs no model and no fitting."""

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), rows of length 1 (zero for a text without words)."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dim] += 1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, norms, out=vectors, where=norms > 0)
        return vectors
