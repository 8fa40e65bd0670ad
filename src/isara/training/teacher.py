"""The demonstrated distribution: what the start model says after demonstrations, for the model without them to learn.

It is imported where a training begins: it needs torch at its head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isara.pool import Retrieve
from isara.records import TrainingRow
from isara.render import Renderer
from isara.training.loss import labelled_logits, token_logprobs

TOP = 32  # tokens of a distribution that are kept; all others are one bucket
MOST_NATS = 10.0  # a token's divergence is clipped here
_NEVER = -1e4  # log-probability of a token that is no target; finite, so that 0 times it is 0


@dataclass(frozen=True, slots=True)
class Target:
    """The target distribution of each answer token of a row, on the CPU.

    Attributes:
        ids: Shape (tokens, TOP).
        logprobs: Their natural-log probabilities, shape (tokens, TOP).
        most: Nats at which a token's divergence is clipped.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    most: float


def targets(
    model: Any, rows: Sequence[TrainingRow], renderer: Renderer, retrieve: Retrieve, micro: int
) -> dict[tuple[int, ...], Target]:
    """The target of each row, by its ids.

    A generated pair's is what the model says of each of its tokens after the retrieved demonstrations, the question and
    the answer so far. A seed's is the seed itself, all probability on its token: nothing is better known.

    Args:
        model: The start model, before anything is trained.
        rows: The training rows.
        renderer: Makes the teacher's prompts.
        retrieve: Gives a question its demonstrations.
        micro: Rows of a pass.
    """
    found = {row.ids: _itself(row) for row in rows if not row.pair.iteration}
    taught = sorted((row for row in rows if row.ids not in found), key=lambda row: len(row.ids))
    for start in range(0, len(taught), micro):
        batch = taught[start : start + micro]
        prompts = [_prompt(row, renderer, retrieve) for row in batch]
        found |= zip((row.ids for row in batch), _said(model, prompts, [row.answer for row in batch]), strict=True)
    return found


def divergences(logits: torch.Tensor, wanted: Sequence[Target]) -> torch.Tensor:
    """Forward Kullback-Leibler divergence of each position from its target, in nats, clipped; shape (positions,).

    Sum over the target's top tokens of p (log p - log q), and the same of all other tokens as one bucket.

    Args:
        logits: The student's, shape (positions, vocabulary).
        wanted: Targets of the rows that the positions belong to, in their order.
    """
    ids = torch.cat([target.ids for target in wanted]).to(logits.device)
    top = torch.cat([target.logprobs for target in wanted]).to(logits.device)
    most = torch.cat([torch.full((len(target.ids),), target.most) for target in wanted]).to(logits.device)
    student = token_logprobs(logits, ids)
    # Beside a seed's token there are only others of probability 0, which may name one token many times.
    counted = top > _NEVER
    rest = (1 - top.exp().sum(-1)).clamp(min=0.0)
    other = (1 - (student.exp() * counted).sum(-1)).clamp(min=1e-6)
    tail = torch.where(rest > 1e-6, rest * (rest.clamp(min=1e-6).log() - other.log()), 0.0)
    return ((top.exp() * (top - student)).sum(-1) + tail).minimum(most)


def _itself(row: TrainingRow) -> Target:
    ids = torch.zeros(len(row.answer), TOP, dtype=torch.long)
    logprobs = torch.full(ids.shape, _NEVER)
    ids[:, 0], logprobs[:, 0] = torch.tensor(row.answer), 0.0
    return Target(ids, logprobs, torch.inf)


def _prompt(row: TrainingRow, renderer: Renderer, retrieve: Retrieve) -> tuple[int, ...]:
    """The row's question after demonstrations, the farthest left out where the context can't hold all."""
    demos = [demo for demo, _ in retrieve(row.pair)]
    room = renderer.context_length - len(row.answer)
    fitted = renderer.fit(lambda shown: renderer.answer(shown, row.pair), demos, room)
    assert fitted is not None, "the row fits without demonstrations"
    return fitted[0].ids


def _said(model: Any, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> list[Target]:
    """What the model says of each answer's tokens after its prompt."""
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[place, :end], mask[place, :end] = torch.tensor(prompt + answer), 1
        labels[place, len(prompt) : end] = torch.tensor(answer)
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    with torch.no_grad():
        logits, _ = labelled_logits(model, inputs, labels.to(model.device))
    tokens = logits.topk(TOP).indices
    logprobs = token_logprobs(logits, tokens).cpu()
    sizes = [len(answer) for answer in answers]
    return [
        Target(row_ids, row_logprobs, MOST_NATS)
        for row_ids, row_logprobs in zip(torch.split(tokens.cpu(), sizes), torch.split(logprobs, sizes), strict=True)
    ]
