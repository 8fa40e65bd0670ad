"""A key-value cache for rows that come and go: written in place, all rows growing at the same column.

Every row ends at the column `end` and begins at its own `start`, so that one step writes one column for all rows
(no scatter), a finished row's place is taken by another, and nothing is copied while tokens are added. Where a row
lies among the columns means nothing: positions are in the keys already.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class RowCache:
    """Keys and values of up to `max_rows` rows in buffers of `columns` columns; rows 0 to `rows` - 1 are in use.

    Args:
        max_rows: Most rows.
        columns: Most columns.
        layers: Layers of the model.
    """

    def __init__(self, max_rows: int, columns: int, layers: int) -> None:
        self.max_rows, self.columns = max_rows, columns
        self.rows = 0
        self.low = 0  # the first column that any row uses
        self.end = 0  # the column that is written next
        self.layers = [_RowLayer(self) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))  # what the model's forward takes as `past_key_values`

    def insert(self, row: int, source: DynamicCache, source_row: int, length: int) -> None:
        """Copies the first `length` positions of a prefilled row to before `end`."""
        span = slice(self.end - length, self.end)
        for layer, filled in zip(self.layers, source.layers, strict=False):
            assert isinstance(filled, DynamicLayer)
            if filled.keys is not None and filled.values is not None:  # some models share a layer's keys with the next
                layer.allocate(filled.keys, filled.values)
                layer.keys[row, :, span] = filled.keys[source_row, :, :length]
                layer.values[row, :, span] = filled.values[source_row, :, :length]

    def copy(self, source: Sequence[int], rows: Sequence[int], start: int, length: int | None = None) -> None:
        """Copies columns from `start` on of the source rows to other rows: all, or `length` of them to before `end`."""
        taken = slice(start, self.end if length is None else start + length)
        given = taken if length is None else slice(self.end - length, self.end)
        for layer in self._filled():
            for buffer in (layer.keys, layer.values):
                buffer[list(rows), :, given] = buffer[list(source), :, taken]

    def shift(self, columns: int) -> None:
        """Moves everything to the left, over columns that no row uses any more."""
        for layer in self._filled():
            for buffer in (layer.keys, layer.values):
                buffer[: self.rows, :, : self.end - columns] = buffer[: self.rows, :, columns : self.end].clone()
        self.end -= columns
        self.low -= columns

    def _filled(self) -> "list[_RowLayer]":
        return [layer for layer in self.layers if layer.is_initialized]


class _RowLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # the library's hook for subclasses has no types
    """One layer's buffers, shape (max_rows, heads, columns, head_dim); the model sees the part that is in use."""

    keys: Any
    values: Any

    def __init__(self, owner: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the library's constructor has no types
        self.owner = owner

    def allocate(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Makes the buffers on first use; zeros, because masked columns still enter a product with weight 0."""
        if not self.is_initialized:
            size = self.owner.max_rows, self.owner.columns
            self.keys = keys.new_zeros(size[0], keys.shape[1], size[1], keys.shape[3])
            self.values = values.new_zeros(size[0], values.shape[1], size[1], values.shape[3])
            self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new columns and returns the used part of the buffers, as views."""
        self.allocate(key_states, value_states)
        end = self.owner.end + key_states.shape[2]
        self.keys[: self.owner.rows, :, self.owner.end : end] = key_states
        self.values[: self.owner.rows, :, self.owner.end : end] = value_states
        used = slice(0, self.owner.rows), slice(None), slice(self.owner.low, end)
        return self.keys[used], self.values[used]

    def get_seq_length(self) -> int:
        """Columns in use before the ones that are being written."""
        return self.owner.end - self.owner.low

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Columns that the model will see, and their offset."""
        # transformers 4 hands over the new positions themselves, transformers 5 their number
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.get_seq_length() + new, 0
