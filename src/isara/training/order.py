"""The order of rows where several processes share a step. It is imported where a training begins: it needs torch."""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


class SharedOrder(Sampler[int]):
    """The rows in the order of one process, with blank ones at the end, so that each process has as many passes.

    It has no generator of its own: as in one process, rows are shuffled by torch's, which has the same state in each.

    Args:
        lengths: Tokens of each row; the blank row's index comes after theirs.
        in_step: Rows of an optimiser step, which are of like lengths.
        in_pass: Rows of a forward pass of all processes.
    """

    def __init__(self, lengths: Sequence[int], in_step: int, in_pass: int) -> None:
        self.lengths, self._in_step, self._in_pass = list(lengths), in_step, in_pass

    def __len__(self) -> int:
        return len(self.lengths) + self._blank

    def __iter__(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        order = get_length_grouped_indices(self.lengths, self._in_step)  # type: ignore[no-untyped-call]  # no types
        return iter([*order, *[len(self.lengths)] * self._blank])

    @property
    def _blank(self) -> int:
        return -len(self.lengths) % self._in_pass
