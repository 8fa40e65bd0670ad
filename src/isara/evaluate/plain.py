"""Forgetting as a number: what a plain text of everyday subjects, which no seed is about, costs a model."""

import math
from functools import cache
from pathlib import Path

from isara.asking import Asker
from isara.records import Prompt

_TEXT = Path(__file__).with_name("plain_text.txt")


@cache
def passages() -> tuple[tuple[str, str], ...]:
    """The text's paragraphs, each as its first sentence and the rest of it."""
    found = []
    for paragraph in _TEXT.read_text("utf-8").strip().split("\n\n"):
        end = paragraph.index(". ") + 1
        found.append((paragraph[:end], paragraph[end:]))
    return tuple(found)


def bits_per_byte_plain(asker: Asker) -> float | None:
    """Bits that a byte of the text costs, each paragraph after its own first sentence.

    A paragraph that is longer than the model's context is left out; None where all of them are.
    """
    prompts: list[Prompt] = []
    texts: list[tuple[int, ...]] = []
    size = 0
    for first, rest in passages():
        prompt = asker.renderer.text(first)
        ids = asker.renderer.continuation(prompt, rest)
        if len(prompt.ids) + len(ids) <= asker.renderer.context_length:
            prompts.append(prompt)
            texts.append(ids)
            size += len(rest.encode())
    return -sum(asker.logprobs(prompts, texts)) / math.log(2) / size if size else None
