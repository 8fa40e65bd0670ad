"""Rows that hold turns of a dialogue, in the forms of OpenAI, TRL and ShareGPT."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from isara.data.faults import fault, is_blank, kind, listed
from isara.data.texts import plain_text
from isara.errors import SeedError
from isara.marks import clean
from isara.records import QAPair

DIALOGUE_NAMES = ("messages", "conversations", "conversation")
SYSTEM_NOTE = "system messages are not used, since no instruction enters a prompt"
_OPENING_NOTE = "what the assistant says before the first question is not used"
_OPEN_NOTE = "a last question without an answer is not used"
_JOINED_NOTE = "turns of one speaker in a row are joined"
_UNTRAINED_NOTE = "what comes after the last answer with another weight than 0 is not used"
_THOUGHTS_NOTE = "thoughts beside an answer (reasoning_content, thinking) are not used"
_USER = {"user", "human", "prompter"}
_ASSISTANT = {"assistant", "gpt", "model", "bot", "chatgpt"}
_SYSTEM = {"system", "developer"}
_TOOLS = {"tool", "function", "function_call", "tool_call", "tool_response", "observation", "ipython", "environment"}
_NAMES = (("role", "content"), ("from", "value"))


class Turn(NamedTuple):
    """What somebody says: "user", "assistant" or "system"; and whether it is to be trained on, if it is an answer."""

    role: str
    text: str
    trained: bool = True


class UntrainedError(SeedError):
    """A dialogue of whose answers none is to be trained on: it may be left out where there are others."""


def dialogue_column(row: Mapping[str, Any]) -> str | None:
    """The name of the row's column with turns, or None."""
    for usual in DIALOGUE_NAMES:
        for name in row:
            if str(name).strip().lower() == usual and (
                _is_sideways(row[name]) or isinstance(_unpacked(row[name]), list)
            ):
                return name
    return None


def is_dialogue(value: Any) -> bool:
    """Whether a value is a list of turns."""
    return _is_sideways(value) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _is_sideways(value: Any) -> bool:
    """Whether roles and texts are lists of their own, as `datasets` gave lists of objects before version 4."""
    return (
        isinstance(value, Mapping)
        and any(name in value for name, _ in _NAMES)
        and all(isinstance(part, list) for part in value.values())
    )


def read_turns(value: Any, column: str, where: str) -> tuple[list[Turn], list[str]]:
    """The turns of a dialogue in order, and notes of what beside them is not used.

    Raises:
        SeedError: Something in it is no turn of a user, an assistant or a system.
    """
    turns = _unpacked(value)
    if _is_sideways(turns):
        turns = [dict(zip(turns, parts, strict=False)) for parts in zip(*turns.values(), strict=False)]
    if not isinstance(turns, list):
        raise fault(where, f"a list of turns in `{column}`", kind(value), "put one there or drop the row")
    notes = [
        _THOUGHTS_NOTE
        for turn in turns
        if isinstance(turn, Mapping) and any(turn.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    ]
    return [_turn(turn, where) for turn in turns], notes[:1]


def exchanges(turns: Sequence[Turn], where: str) -> tuple[QAPair, tuple[str, ...]]:
    """The pair of a dialogue (its last exchange, with those before it), and notes of what is not used.

    The last exchange is the last whose answer is trained on: what follows is in no prompt.

    Raises:
        SeedError: No question of it is answered.
        UntrainedError: No answer of it is trained on.
    """
    pairs, trained, notes = _paired(turns, where)
    if not trained:
        advice = "give an answer that is to be learnt the weight 1, or drop the row"
        raise UntrainedError(str(fault(where, "an answer to train on", "the weight 0 at each", advice)))
    last = trained[-1]
    notes[_UNTRAINED_NOTE] = last < len(pairs) - 1
    shown = tuple(place for place in range(last) if place not in trained)
    pair = QAPair(*pairs[last], before=tuple(pairs[:last]), untrained=shown)
    return pair, tuple(note for note, holds in notes.items() if holds)


def earlier(turns: Sequence[Turn], where: str) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...]]:
    """The exchanges before a row's own question, and the places of those whose answers are not trained on.

    Raises:
        SeedError: No question of them is answered.
    """
    pairs, trained, _ = _paired(turns, where)
    return tuple(pairs), tuple(place for place in range(len(pairs)) if place not in trained)


def _paired(turns: Sequence[Turn], where: str) -> tuple[list[tuple[str, str]], list[int], dict[str, bool]]:
    """Questions with their answers, the places of those that are trained on, and which notes hold."""
    notes = {SYSTEM_NOTE: any(turn.role == "system" for turn in turns)}
    spoken, notes[_JOINED_NOTE] = _joined([turn for turn in turns if turn.role != "system"])
    notes[_OPENING_NOTE] = bool(spoken) and spoken[0].role == "assistant"
    asked = spoken[1:] if notes[_OPENING_NOTE] else spoken
    notes[_OPEN_NOTE] = len(asked) % 2 == 1
    pairs = [(asked[place].text, asked[place + 1].text) for place in range(0, len(asked) - 1, 2)]
    if not pairs:
        roles = listed(turn.role for turn in turns)
        wanted = "messages with a user and then an assistant turn"
        raise fault(where, wanted, f"the roles {roles}", "add the missing turn or drop the row")
    return pairs, [place for place in range(len(pairs)) if asked[2 * place + 1].trained], notes


def _joined(turns: Sequence[Turn]) -> tuple[list[Turn], bool]:
    """The turns with those of one speaker in a row made one, and whether there were such."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            trained = joined[-1].trained and turn.trained  # what has the weight 0 is in no case learnt
            joined[-1] = Turn(turn.role, f"{joined[-1].text}\n{turn.text}", trained)
        else:
            joined.append(turn)
    return joined, len(joined) < len(turns)


def _turn(turn: Any, where: str) -> Turn:
    for role, text in _NAMES:
        if isinstance(turn, Mapping) and role in turn and (text in turn or turn.get("tool_calls")):
            return _named_turn(turn, str(turn[role]).strip().lower(), text, where)
    found = listed(turn) if isinstance(turn, Mapping) else kind(turn)
    raise fault(where, "turns with role and content (or from and value)", found, "rename them")


def _named_turn(turn: Mapping[str, Any], role: str, column: str, where: str) -> Turn:
    wanted = "turns of a user and an assistant"
    if role in _TOOLS:
        raise fault(where, wanted, f"a turn of the role {role}", "rows with tools can't be used, drop them")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise fault(where, wanted, "a call of a tool", "rows with tools can't be used, drop them")
    for name, roles in (("user", _USER), ("assistant", _ASSISTANT), ("system", _SYSTEM)):
        if role in roles:
            # A system message is not read: whatever it holds, it is not used.
            text = "" if name == "system" else _content(turn[column], column, where)
            return Turn(name, text, name != "assistant" or _trained(turn.get("weight"), where))
    raise fault(where, wanted, f"a turn of the role {clean(role, 40)!r}", "name it user or assistant, or drop it")


def _trained(weight: Any, where: str) -> bool:
    """Whether an answer of this weight is trained on, as OpenAI's fine-tuning has it: 1 where none is given."""
    if is_blank(weight):
        return True
    if weight not in (0, 1):
        raise fault(where, "a weight of 0 or 1 at an assistant's turn", kind(weight), "write 0 or 1, or leave it out")
    return bool(weight)


def _content(value: Any, column: str, where: str) -> str:
    """The text of a turn, which may come in parts."""
    if not isinstance(value, list):
        return plain_text(value, column, where)
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            found = (
                f"a part of the type {clean(str(part.get('type')), 40)}" if isinstance(part, Mapping) else kind(part)
            )
            raise fault(where, f"parts of text in `{column}`", found, "only texts can be used, drop the row")
        texts.append(text)
    return plain_text("\n".join(texts), column, where)


def _unpacked(value: Any) -> Any:
    """The value, or the list that stands in it as JSON, as tables have it."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
