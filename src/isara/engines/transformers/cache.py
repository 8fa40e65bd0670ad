"""A key-value cache for rows that come and go: written in place, all rows growing at the same column.

Every row ends at the column `end` and begins at its own start, so that one step writes one column for all rows (no
scatter), a finished row's place is taken by another, and adding a token copies nothing. Where a row lies among the
columns means nothing to the model: positions are in the keys already.

The model always sees whole buffers, since only those are dense in memory, which products in bf16 need to be fast. So
the buffers are little wider than what is in use, and once in `_SPARE` columns everything moves to new ones.
"""

from collections.abc import Sequence
from typing import Any
from weakref import proxy

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

_SPARE = 32


def token_bytes(config: Any, itemsize: int) -> int:
    """Bytes of keys and values that one token has in all layers.

    Args:
        config: The text model's.
        itemsize: Bytes of one number.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(heads) * int(dim) * itemsize


class RowCache:
    """Keys and values of up to `max_rows` rows; rows 0 to `rows` - 1 are in use.

    Args:
        max_rows: Most rows.
        layers: Layers of the model.
        spare: Columns that are made ahead.
    """

    def __init__(self, max_rows: int, layers: int, spare: int = _SPARE) -> None:
        self.max_rows = max_rows
        self.spare = spare
        self.rows = 0
        self.end = 0  # the column that is written next
        self.columns = 0
        self.layers = [_RowLayer(self) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))  # what the model's forward takes as `past_key_values`

    def restart(self, end: int, room: int | None = None) -> None:
        """Drops all rows; the next ones end at the column `end`, with room for so many new columns, or the spare."""
        for layer in self.layers:
            layer.is_initialized, layer.keys, layer.values = False, None, None
        self.rows, self.end, self.columns = 0, end, end + (self.spare if room is None else room)

    @property
    def is_full(self) -> bool:
        """Whether there is no column left to write."""
        return self.end == self.columns

    def move_left(self, unused: int) -> None:
        """Drops the columns on the left that no row uses, and makes room for new ones on the right."""
        self.columns = self.end - unused + self.spare
        for layer in self._filled():
            layer.keys = _moved(layer.keys, self.rows, slice(unused, self.end), self.columns)
            layer.values = _moved(layer.values, self.rows, slice(unused, self.end), self.columns)
        self.end -= unused

    def insert(self, row: int, source: DynamicCache, source_row: int, length: int) -> None:
        """Copies the first `length` positions of a prefilled row to before `end`."""
        span = slice(self.end - length, self.end)
        for layer, filled in zip(self.layers, source.layers, strict=False):
            assert isinstance(filled, DynamicLayer)
            if filled.keys is not None and filled.values is not None:  # some models share a layer's keys with the next
                layer.allocate(filled.keys, filled.values)
                layer.keys[row, :, span] = filled.keys[source_row, :, :length]
                layer.values[row, :, span] = filled.values[source_row, :, :length]

    def copy_prompt(self, source: int, row: int, start: int, length: int) -> None:
        """Copies `length` columns from `start` on of one row to another, to before `end`."""
        for layer in self._filled():
            for buffer in (layer.keys, layer.values):
                buffer[row, :, self.end - length : self.end] = buffer[source, :, start : start + length]

    def copy_rows(self, sources: Sequence[int], rows: Sequence[int]) -> None:
        """Copies whole rows to the places of others."""
        for layer in self._filled():
            for buffer in (layer.keys, layer.values):
                for source, row in zip(sources, rows, strict=True):
                    buffer[row].copy_(buffer[source])

    def _filled(self) -> "list[_RowLayer]":
        return [layer for layer in self.layers if layer.is_initialized]


class _RowLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # the library's hook for subclasses has no types
    """One layer's buffers, shape (max_rows, heads, columns, head_dim); the model sees the rows that are in use."""

    keys: Any
    values: Any

    def __init__(self, owner: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the library's constructor has no types
        self.owner: RowCache = proxy(
            owner
        )  # else both would wait for the garbage collector, with hundreds of megabytes

    def allocate(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Makes the buffers on first use; zeros, because masked columns still enter a product with weight 0."""
        if not self.is_initialized:
            rows, columns = self.owner.max_rows, self.owner.columns
            self.keys = keys.new_zeros(rows, keys.shape[1], columns, keys.shape[3])
            self.values = values.new_zeros(rows, values.shape[1], columns, values.shape[3])
            self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new columns and returns the buffers of the used rows, columns to be written later included."""
        self.allocate(key_states, value_states)
        rows, new = self.owner.rows, slice(self.owner.end, self.owner.end + key_states.shape[2])
        self.keys[:rows, :, new] = key_states
        self.values[:rows, :, new] = value_states
        return self.keys[:rows], self.values[:rows]

    def get_seq_length(self) -> int:
        """The column that is written next: what comes after it is masked as the future is."""
        return self.owner.end

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Columns that the model sees, and their offset."""
        return self.owner.columns, 0


def _moved(buffer: torch.Tensor, rows: int, used: slice, columns: int) -> torch.Tensor:
    wider = buffer.new_zeros(buffer.shape[0], buffer.shape[1], columns, buffer.shape[3])
    wider[:rows, :, : used.stop - used.start] = buffer[:rows, :, used]
    return wider
