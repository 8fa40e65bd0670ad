"""A pair as the trainer gets it: ids with their labels, and the check of both before a step is taken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isara.data import QAPair
from isara.errors import TrainingError
from isara.prompts import PromptFormat


@dataclass(frozen=True)
class TrainingRow:
    """A pair as ids: the prompt, and the answer with its end."""

    pair: QAPair
    prompt: list[int]
    answer: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole row."""
        return self.prompt + self.answer

    def __str__(self) -> str:
        return named(self.pair)


def named(pair: QAPair) -> str:
    """The pair in a message: its id and the beginning of its question."""
    question = " ".join(pair.question.split())
    return f"pair {pair.id} ({question[:40] + '…' if len(question) > 40 else question!r})"


def columns(row: TrainingRow) -> dict[str, list[int]]:
    """The row for TRL: its ids, and which of them are the answer."""
    # Newer versions of TRL take labels, older ones make them of the mask.
    blank = len(row.prompt)
    return {
        "input_ids": row.ids,
        "labels": [-100] * blank + row.answer,
        "completion_mask": [0] * blank + [1] * len(row.answer),
    }


def check_labels(batch: dict[str, Any], rows: Sequence[TrainingRow], tokenizer: Any, fmt: PromptFormat) -> None:
    """Looks at a collated batch, as the model is to get it: are all answers labelled, with their ends, and only they?

    Args:
        batch: What TRL's collator made: padded rows, or rows packed into one.
        rows: All rows, among which those of the batch are found by their ids.
        tokenizer: Decodes the labels.
        fmt: Says how an answer ends.

    Raises:
        TrainingError: A row has no label on its answer, one on its prompt, or none on its end.
    """
    by_ids = {tuple(row.ids): row for row in rows}
    for ids, labels in _segments(batch):
        row = by_ids[tuple(ids)]
        on_prompt = sum(label != -100 for label in labels[: len(row.prompt)])
        answer = [label for label in labels[len(row.prompt) :] if label != -100]
        if on_prompt:
            raise TrainingError(
                f"expected labels on the answer alone, found {on_prompt} on the prompt of {row}: "
                "install a version of trl from 0.24 to 1.16"
            )
        if not answer:
            raise TrainingError(
                f"expected labels on the answer, found none in {row}: install a version of trl from 0.24 to 1.16"
            )
        if not _ends(answer, tokenizer, fmt):
            raise TrainingError(
                f"expected the label {fmt.end.strip()!r} at the end of an answer, found "
                f"{tokenizer.decode(answer[-1:])!r} in {row}, so that no answer could learn to end: "
                "check the tokenizer's special tokens"
            )


def _segments(batch: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of each row in a collated batch, without padding."""
    if "attention_mask" in batch:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"].bool(), strict=True):
            yield ids[mask].tolist(), labels[mask].tolist()
        return
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    starts = [index for index, position in enumerate(batch["position_ids"][0].tolist()) if position == 0]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield ids[start:end], labels[start:end]


def _ends(labels: list[int], tokenizer: Any, fmt: PromptFormat) -> bool:
    end = fmt.end.strip()
    token = tokenizer.convert_tokens_to_ids(end)
    if token is not None and token != tokenizer.unk_token_id:
        if token not in labels:
            return False
        labels = labels[len(labels) - 1 - labels[::-1].index(token) :]  # a template may write a new line after it
    return str(tokenizer.decode(labels)).rstrip().endswith(end)
