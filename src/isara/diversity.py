"""Figures that show a collapse: how varied the accepted pairs are, and how long."""

from collections.abc import Mapping, Sequence
from typing import Any


def diversity(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Distinct-1 and distinct-2 of questions and answers, and their mean lengths in words.

    Distinct-n is the share of n-grams that are different (Li et al. 2016, arXiv 1510.03055, section 5); it falls as
    texts grow more alike, and also as there are more of them, so compare it between iterations of equal size.
    """
    figures: dict[str, float] = {}
    for name in ("question", "answer"):
        texts = [str(row[name]).lower().split() for row in rows]
        for n in (1, 2):
            grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
            figures[f"{name}_distinct_{n}"] = round(len(set(grams)) / max(1, len(grams)), 4)
        figures[f"{name}_words"] = round(sum(map(len, texts)) / max(1, len(texts)), 2)
    return figures
