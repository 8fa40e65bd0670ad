"""Log-probabilities of given continuations, several rows in one pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from isara.engines.transformers.model import LoadedModel, pad

_MOST_LOGITS = 2**26  # logits of one pass; 0.25 GB in fp32


@dataclass
class ScoredRow:
    """A prompt with the continuation whose log-probability is asked for."""

    index: int
    head: tuple[int, ...]
    tail: tuple[int, ...]
    scores: list[float] = field(default_factory=list)
    total: float = 0.0


def score(model: LoadedModel, rows: Sequence[ScoredRow]) -> None:
    """Gives each row the log-probabilities of its continuation's tokens and their sum, all rows in one pass."""
    cache = model.cache(len(rows))
    cache.restart(len(rows[0].head) - 1, room=max(len(row.tail) for row in rows))
    starts = [cache.end - len(row.head) + 1 for row in rows]
    model.read([row.head for row in rows], 0, cache, starts)
    inputs = pad([[row.head[-1], *row.tail[:-1]] for row in rows]).to(model.device)
    logits = model.forward(cache, inputs, torch.tensor(starts, device=model.device))
    for index, row in enumerate(rows):
        ids = torch.tensor(row.tail, device=model.device)
        scores = torch.log_softmax(logits[index, : len(ids)].float(), -1).gather(1, ids[:, None])
        row.scores, row.total = scores[:, 0].tolist(), float(scores.sum())
        if math.isnan(row.total):
            raise model.not_finite()


def scored_at_once(rows: Sequence[ScoredRow], budget: int, vocabulary: int) -> tuple[int, int]:
    """How many of the rows, longest prompt first, fit into one pass (at least one), and how many columns they take."""
    head, widest, count = len(rows[0].head), 0, 0
    for row in rows:
        tail = max(widest, len(row.tail))
        if count and ((count + 1) * (head + tail) > budget or (count + 1) * tail * vocabulary > _MOST_LOGITS):
            break
        widest, count = tail, count + 1
    return count, head + widest
