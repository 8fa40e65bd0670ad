"""Pairs as rows of other trainers' formats."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from isara.records import QAPair


def to_rows(pairs: Iterable[QAPair], form: str) -> list[dict[str, Any]]:
    """The rows of pairs in one of `FORMATS`; dialogues keep all of their turns."""
    return [FORMATS[form](pair) for pair in pairs]


def _prompt_completion(pair: QAPair) -> dict[str, Any]:
    # Turns, not texts: TRL puts a text prompt and its completion together with nothing between them.
    turns = _messages(pair)
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _messages_row(pair: QAPair) -> dict[str, Any]:
    return {"messages": _messages(pair)}


def _openai(pair: QAPair) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [*_messages(pair)]
    for place in pair.untrained:
        messages[2 * place + 1]["weight"] = 0
    return {"messages": messages}


def _sharegpt(pair: QAPair) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in _messages(pair)]}


def _alpaca(pair: QAPair) -> dict[str, Any]:
    row: dict[str, Any] = {"instruction": pair.question, "input": "", "output": pair.answer}
    return {**row, "history": _lists(pair.before)} if pair.before else row


def _messages(pair: QAPair) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in pair.turns for role, text in zip(roles, turn, strict=True)]


def _lists(turns: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [list(turn) for turn in turns]


FORMATS: Mapping[str, Callable[[QAPair], dict[str, Any]]] = {
    "trl-prompt-completion": _prompt_completion,
    "trl-messages": _messages_row,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "openai": _openai,
}
