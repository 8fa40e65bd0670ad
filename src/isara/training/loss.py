"""The loss on labelled tokens alone: what is not scored gets no logits, and a vocabulary is held once.

It is imported where a training begins: it needs torch at its head.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

_ROWS = 64  # positions whose logits are in fp32 at a time
# Probabilities below are 0 in the gradient, where all of a vocabulary of 2^20 add up to less than fp32 can tell from 0:
# products of numbers below 10^-38 take a hundred times as long on some processors (docs/training.md).
_LEAST = 2.0**-64


def labelled_logits(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Logits of the positions before each labelled token, shape (labelled, vocabulary), and the model's output.

    Everything from the embeddings to the last scaling of the logits is the model's own forward; the input of its head
    alone is cut down to these positions.

    Args:
        model: A causal language model, with or without an adapter.
        inputs: What it is called with, without labels.
        labels: Ids, shape (rows, tokens); -100 where a token carries no loss.
    """
    before = torch.zeros_like(labels, dtype=torch.bool)
    before[:, :-1] = labels[:, 1:] != -100

    def keep(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden, *rest = arguments
        return (hidden[before][None], *rest) if hidden.shape[:2] == before.shape else None

    whole = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    head = whole.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(keep)
    try:
        output = model(**inputs, use_cache=False)
    finally:
        if handle is not None:
            handle.remove()
    logits = output.logits
    # A model that calls its head in another way has made them all.
    return logits[before] if logits.shape[:2] == before.shape else logits[0], output


def token_logprobs(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Natural-log probabilities of the tokens `index` (positions, n) under `logits` (positions, vocabulary), in fp32.

    What is kept for the backward pass is the logits themselves, and they become their own gradient there: a large
    vocabulary is in memory once. So nothing else may use them.
    """
    found: torch.Tensor = _TokenLogprobs.apply(logits, index)  # type: ignore[no-untyped-call]  # torch's has no types
    return found


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        sums = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, _ROWS)])
        ctx.save_for_backward(logits, index, sums)
        return logits.gather(-1, index).float() - sums[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, index, sums = ctx.saved_tensors
        logits = logits.detach()
        # d log p_j / d z = 1[j] - softmax(z)
        for start in range(0, len(logits), _ROWS):
            rows = slice(start, start + _ROWS)
            part = logits[rows].float().sub_(sums[rows, None]).exp_()
            torch.nn.functional.threshold(part, _LEAST, 0.0, inplace=True)
            part.mul_(-gradient[rows].sum(-1, keepdim=True)).scatter_add_(-1, index[rows], gradient[rows])
            logits[rows] = part
        return logits, None
