"""What a value of the config may be: named types, their checks, and what they are called in messages."""

import re
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

# What such a field takes, where its type does not say it; kept as the field's title.
SHARE_OR_FILE = "a share in [0, 1) or a file"
DEVICE = "auto, cpu, mps, cuda or cuda:N"
TABLE = "options by name"
OWN = "a list of {use: module:name, options: {…}}"
NAME = "a name or path, not empty and without NUL"
PLACE = "module:name or file.py:name, such as my_filters:no_prices"
# Scores of a generated answer (`isara.selection`); the last is one of its question alone, so it can't choose an answer.
AnswerScore: TypeAlias = Literal["natural", "icl_gain", "question", "agree", "seeds"]
Score: TypeAlias = Literal["natural", "icl_gain", "question", "agree", "seeds", "distance"]
WEIGHTS = f"numbers by score ({', '.join(get_args(AnswerScore))})"
SHARES = f"shares of the seeds in (0, 1] by score ({', '.join(get_args(Score))})"
SCORE_NAMES = f"a list of scores ({', '.join(get_args(Score))})"
SCORES = ("rule", "refusal")  # the exact rules that ship
SCORE = f"{', '.join(SCORES)}, module:name, file.py:name or null"
COMMAND = "a command with {port} and {model} or {gguf}, or null"
MOST_SEED = 2**32 - 1  # of numpy
# Changes nothing that a finished part of a run holds.
FREE: dict[str, JsonValue] = {"resume": "free"}
# Names something that is compared by its content, so that files may have moved.
BY_CONTENT: dict[str, JsonValue] = {"resume": "by content"}


def _share_or_file(value: float | str) -> float | str:
    if not (usable(value) if isinstance(value, str) else 0 <= value < 1):
        raise ValueError(SHARE_OR_FILE)
    return value


def _name(value: str) -> str:
    if not usable(value):
        raise ValueError(NAME)
    return value


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_name, values))


def usable(name: str) -> bool:
    """Whether the system takes it for a path: an empty one would mean the working directory, and none holds a NUL."""
    return bool(name.strip()) and "\0" not in name


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(DEVICE)
    return value


def _patterns(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"regular expressions ({error} in {value!r})") from error
    return values


def _place(value: str) -> str:
    if not _is_place(value):
        raise ValueError(PLACE)
    return value


def _is_place(value: str) -> bool:
    module, colon, name = value.rpartition(":")
    return bool(module.strip() and colon) and name.isidentifier()


def _score(value: str) -> str:
    if value not in SCORES and not _is_place(value):
        raise ValueError(SCORE)
    return value


def _command(value: str) -> str:
    """A command that starts a server of one model's weights."""
    if "{port}" not in value or not re.search(r"\{(model|gguf(:\w+)?)\}", value):
        raise ValueError(COMMAND)
    return value


Name = Annotated[str, AfterValidator(_name)]
Names = Annotated[tuple[str, ...], AfterValidator(_names)]
Place = Annotated[str, AfterValidator(_place)]
ShareOrFile = Annotated[float | str, AfterValidator(_share_or_file)]
Device = Annotated[str, AfterValidator(_device)]
Patterns = Annotated[tuple[str, ...], AfterValidator(_patterns)]
ScoreName = Annotated[str, AfterValidator(_score)]
Command = Annotated[str, AfterValidator(_command)]


class Section(BaseModel):
    """Options by name, no others, which don't change."""

    # Strict: `iterations: true` or `packing: 1` is a slip of the pen, not a value.
    # By alias: a key such as `from` is no name in Python.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)
