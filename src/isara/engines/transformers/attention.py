"""Attention on a CPU by matrix products, where torch's fused kernel is slow: of one token a row, and in bfloat16."""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "isara_cpu"
_QUERIES = 128  # of a prompt at a time; what lies in their future is left out of the products


def use_products(model: Any) -> None:
    """Has a model on the CPU whose attention is torch's fused one compute it by two matrix products instead.

    For one query a row the fused kernel takes 2.5 times as long as the two products in fp32, and 11 times in bf16. For
    a whole prompt it is the better one in fp32 and not in bf16.
    """
    if model.config.get_text_config()._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Output of shape (rows, new, heads, head_dim) for a query of shape (rows, heads, new, head_dim)."""
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    plain = kwargs.get("position_bias") is None
    if plain and query.shape[2] == 1:
        return _of_one_token(query, key, value, attention_mask, scale), None
    if plain and attention_mask is None and query.dtype == torch.bfloat16 and query.shape[2] == key.shape[2]:
        return _causal(query, key, value, scale), None
    fused: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )
    return fused


def _of_one_token(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    rows, heads, _, dim = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], dim)  # queries that share a key-value head
    scores = (grouped @ key.transpose(2, 3)).float() * scale
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    elif mask is not None:
        scores += mask
    output = torch.softmax(scores, -1).to(value.dtype) @ value
    return output.reshape(rows, 1, heads, value.shape[3])


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Of whole prompts, where each token sees those before it; row by row, whose scores then stay in the cache."""
    rows, heads, length, dim = query.shape
    groups, shared = key.shape[1], heads // key.shape[1]
    scaled = (query * scale).view(rows, groups, shared, length, dim)
    output = query.new_empty(rows, length, groups, shared, value.shape[3])
    future = torch.ones(_QUERIES, _QUERIES, dtype=torch.bool).triu(1)
    for row in range(rows):
        for first in range(0, length, _QUERIES):
            end = min(first + _QUERIES, length)
            new = end - first
            part = scaled[row, :, :, first:end].reshape(groups, shared * new, dim)
            scores = (part @ key[row, :, :end].transpose(1, 2)).view(groups, shared, new, end)
            scores[..., first:].masked_fill_(future[:new, :new], -torch.inf)
            weights = torch.softmax(scores, -1).view(groups, shared * new, end)
            found = (weights @ value[row, :, :end]).view(groups, shared, new, -1)
            output[row, first:end] = found.permute(2, 0, 1, 3)
    return output.view(rows, length, heads, value.shape[3])
