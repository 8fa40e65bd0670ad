"""What a model is trained on: rows of ids out of pairs, and the look at the first batch before a step is taken."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from isara.errors import ModelError, TrainingError
from isara.pool import Retrieve
from isara.records import Preference, QAPair, TrainingRow
from isara.render import Renderer

log = logging.getLogger("isara")


def make_rows(
    pairs: Sequence[QAPair],
    renderer: Renderer,
    max_length: int,
    vocabulary: int,
    retrieve: Retrieve | None = None,
    seed_weight: float = 1.0,
    anchors: Sequence[QAPair] = (),
    whole_pairs: bool = False,
) -> list[TrainingRow]:
    """The rows of all pairs, without those of more than `max_length` tokens.

    Args:
        pairs: Pairs; a dialogue gives a row for each of its answers.
        renderer: Makes the rows, by the code that makes prompts.
        max_length: Most tokens of a row. Longer ones are left out and not cut: a cut answer teaches to break off.
        vocabulary: How many tokens the model knows.
        retrieve: Gives a row the demonstrations before its question; without, it has none.
        seed_weight: Weight of a seed's tokens where a generated pair's have its own, which is 1 where nothing else is
            said, before the mean is brought to 1.
        anchors: Pairs that are rows of weight 1 and without demonstrations, after all others.
        whole_pairs: Puts the question to what carries loss, in rows with demonstrations.

    Raises:
        TrainingError: There are none, one has no answer, or all are too long.
        ModelError: A row has a token that the model doesn't know.
    """
    if not pairs:
        raise TrainingError("expected pairs to train on, found none: give some, or lower the filters' thresholds")
    rows = [
        # Of a generated dialogue, each turn is generated.
        replace(
            row, pair=replace(row.pair, iteration=pair.iteration), weight=pair.weight if pair.iteration else seed_weight
        )
        for pair in pairs
        for row in renderer.training_rows(pair)
    ]
    for row in rows:
        if not row.pair.answer.strip():
            raise TrainingError(f"expected an answer in {row}, found none: write one or drop the pair")
    rows = _fitting(rows, max_length)
    kept = [row for pair in anchors for row in renderer.training_rows(pair) if len(row.ids) <= max_length]
    if retrieve is not None:
        rows = [_demonstrated(row, renderer, retrieve, max_length, whole_pairs) for row in rows]
    rows = _weighed([*rows, *kept])
    _check_known(rows, vocabulary)
    return rows


def make_preference_rows(
    preferences: Sequence[Preference], renderer: Renderer, max_length: int, vocabulary: int
) -> list[tuple[TrainingRow, TrainingRow]]:
    """The rows of the chosen and the rejected answer to each question, asked alone.

    A rejected answer that was cut has no end, since the model gave none. Of a dialogue the last answer counts.

    Args:
        preferences: The answers.
        renderer: Makes the rows, by the code that makes prompts.
        max_length: Most tokens of a row; where one of the two has more, both are left out.
        vocabulary: How many tokens the model knows.

    Raises:
        TrainingError: There are none, or all are too long.
        ModelError: A row has a token that the model doesn't know.
    """
    both = [(renderer.training_rows(each.pair)[-1], _rejected(each, renderer)) for each in preferences]
    fitting = [rows for rows in both if max(len(row.ids) for row in rows) <= max_length]
    if not fitting:
        raise TrainingError(
            f"expected preferences of at most {max_length} tokens an answer, found none among {len(both)}: raise "
            "train.max_length, or lower answers.max_new_tokens"
        )
    if len(fitting) < len(both):
        log.warning(
            "preferences leave out %d of %d pairs with more than %d tokens in one of their answers",
            *(len(both) - len(fitting), len(both), max_length),
        )
    _check_known([row for rows in fitting for row in rows], vocabulary)
    return fitting


def _rejected(preference: Preference, renderer: Renderer) -> TrainingRow:
    pair = replace(preference.pair, answer=preference.rejected.text)
    prompt = renderer.answer((), pair)
    if preference.rejected.finish == "length":
        return TrainingRow(pair, prompt.ids, renderer.answer_ids(prompt, pair.answer))
    return TrainingRow(pair, prompt.ids, renderer.continuation(prompt, renderer.ended(pair.answer)))


def _check_known(rows: Sequence[TrainingRow], vocabulary: int) -> None:
    for row in rows:
        if max(row.ids) >= vocabulary:
            raise ModelError(
                f"the tokenizer makes token {max(row.ids)} of {row}, and the model knows {vocabulary}: "
                "use the tokenizer that belongs to the model"
            )


def turns(pair: QAPair) -> list[QAPair]:
    """The pair that each row of a dialogue is made of: its question, after what was said before it."""
    return [QAPair(*turn, before=pair.turns[:place]) for place, turn in enumerate(pair.turns)]


def _weighed(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows with weights whose mean over all answer tokens is 1, so that the learning rate means the same."""
    tokens = sum(len(row.answer) for row in rows)
    mean = sum(row.weight * len(row.answer) for row in rows) / tokens
    return [replace(row, weight=row.weight / mean) for row in rows]


def _demonstrated(
    row: TrainingRow, renderer: Renderer, retrieve: Retrieve, limit: int, whole_pair: bool
) -> TrainingRow:
    """The row with demonstrations before its question, the farthest left out where not all fit."""
    demos = [demo for demo, _ in retrieve(row.pair)]
    fitted = renderer.fit(lambda shown: renderer.answer(shown, row.pair), demos, limit - len(row.answer))
    assert fitted is not None, "the row fits without demonstrations"
    prompt, shown = fitted
    asked = len(renderer.question(shown).ids) if whole_pair and not row.pair.before else len(prompt.ids)
    return replace(row, prompt=prompt.ids[:asked], answer=prompt.ids[asked:] + row.answer)


def _fitting(rows: Sequence[TrainingRow], limit: int) -> list[TrainingRow]:
    long = [row for row in rows if len(row.ids) > limit]
    fitting = [row for row in rows if len(row.ids) <= limit]
    if not fitting:
        raise TrainingError(
            f"expected pairs of at most {limit} tokens, found none among {len(long)}, the shortest of which "
            f"has {min(len(row.ids) for row in long)}: raise max_length, or take a model with a longer context"
        )
    if long:
        log.warning(
            "training leaves out %d of %d pairs with more than %d tokens; the first is %s with %d",
            *(len(long), len(rows), limit, long[0], len(long[0].ids)),
        )
    return fitting


def check_labels(batch: dict[str, Any], rows: Sequence[TrainingRow], tokenizer: Any, end: str) -> None:
    """Looks at a collated batch, as the model is to get it: are all answers labelled, with their ends, and only they?

    Args:
        batch: What TRL's collator made: padded rows, or rows packed into one.
        rows: All rows, among which those of the batch are found by their ids.
        tokenizer: Decodes the labels.
        end: The text that an answer ends with.

    Raises:
        TrainingError: A row has no label on its answer, one on its prompt, or none on its end.
    """
    by_ids = {row.ids: row for row in rows}
    for ids, labels in segments(batch):
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
        if not _ends(answer, tokenizer, end.strip()):
            raise TrainingError(
                f"expected the label {end.strip()!r} at the end of an answer, found "
                f"{tokenizer.decode(answer[-1:])!r} in {row}, so that no answer could learn to end: "
                "check the tokenizer's special tokens"
            )


def end_token(tokenizer: Any, end: str) -> int | None:
    """The id of the text that ends an answer, or None where it is no single token."""
    token = tokenizer.convert_tokens_to_ids(end.strip())
    return None if token is None or token == tokenizer.unk_token_id else int(token)


def segments(batch: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of each row in a collated batch, without padding."""
    if "attention_mask" in batch:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"].bool(), strict=True):
            yield ids[mask].tolist(), labels[mask].tolist()
        return
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    starts = [index for index, position in enumerate(batch["position_ids"][0].tolist()) if position == 0]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield ids[start:end], labels[start:end]


def _ends(labels: list[int], tokenizer: Any, end: str) -> bool:
    token = end_token(tokenizer, end)
    if token is not None:
        if token not in labels:
            return False
        labels = labels[len(labels) - 1 - labels[::-1].index(token) :]  # a template may write a new line after it
    return str(tokenizer.decode(labels)).rstrip().endswith(end)
