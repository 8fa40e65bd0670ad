"""Small real doubles of the protocols, for tests of the package and of its users' own parts.

In their world a token is a word with the space before it: `word_renderer` makes prompts of words, `ScriptedEngine`
reads them, and both count alike.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isara.keys import part_key
from isara.records import Completion, Prompt, Sampling
from isara.render import PromptFormat, Renderer, plain_format

_WORD = re.compile(r"\s*\S+")


def word_renderer(context_length: int = 2048, fmt: PromptFormat | None = None) -> Renderer:
    """A renderer whose tokens are words, so that it needs no tokenizer; a word's id is its checksum.

    Args:
        context_length: Most words that prompt and completion may have together.
        fmt: The prompt format; plain with the end "</s>" by default.
    """

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [[zlib.crc32(word.encode()) for word in _WORD.findall(text)] for text in texts]

    return Renderer(fmt or plain_format("</s>"), encode, context_length, lambda: "words")


class ScriptedEngine:
    """An engine whose completions come from a function of prompt and seed; a token is a word.

    Args:
        answer: Gives the completion's text for a prompt's text and a seed.
    """

    exact = True

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self.answer = answer
        self.prompts: list[str] = []

    def key(self) -> dict[str, Any]:
        """What completions depend on beside prompt, sampling and seed: the function."""
        return {"kind": "scripted", "answer": part_key(self.answer)}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """The function's texts, cut at stop strings and at max_new_tokens words, as a real engine would."""
        self.prompts += [prompt.text for prompt in prompts]
        return [self._complete(prompt.text, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """-ln 2 a token: every continuation costs one bit a word."""
        return [-float(np.log(2)) * len(ids) for _, ids in zip(prompts, continuations, strict=True)]

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """`logprobs` of each continuation, shared out evenly among its tokens."""
        totals = self.logprobs(prompts, continuations)
        return [[total / len(ids)] * len(ids) for total, ids in zip(totals, continuations, strict=True)]

    def _complete(self, prompt: str, sampling: Sampling, seed: int) -> Completion:
        text = self.answer(prompt, seed)
        for stop in sampling.stop:
            text = text.split(stop)[0]
        words = _WORD.findall(text)
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
    """Bag-of-words vectors by feature hashing: texts that share words are near; needs no model and no fitting.

    Attributes:
        name: Says in a key which vectors these are.
    """

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim
        self.name = f"hash-{dim}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), rows of length 1 (zero for a text without words)."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dim] += 1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, norms, out=vectors, where=norms > 0)
        return vectors
