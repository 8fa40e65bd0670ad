"""Forgetting as a number: what a plain text of everyday subjects, which no seed is about, costs a model."""

import math
from functools import cache
from pathlib import Path

from isara.asking import Asker
from isara.records import Prompt
from isara.render import Renderer

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
    rows = plain_rows(asker.renderer)
    size = sum(size for _, _, size in rows)
    total = sum(asker.logprobs([prompt for prompt, _, _ in rows], [ids for _, ids, _ in rows]))
    return -total / math.log(2) / size if size else None


def plain_rows(renderer: Renderer) -> list[tuple[Prompt, tuple[int, ...], int]]:
    """Each paragraph that fits the context: its first sentence, the ids of the rest, and the bytes of that."""
    found = []
    for first, rest in passages():
        prompt = renderer.text(first)
        ids = renderer.continuation(prompt, rest)
        if len(prompt.ids) + len(ids) <= renderer.context_length:
            found.append((prompt, ids, len(rest.encode())))
    return found
