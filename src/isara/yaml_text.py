"""The one place where text becomes YAML: whatever is wrong with it becomes one short line."""

import copy
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from isara.marks import clean

_MOST_CHARACTERS = 1_000_000
_MOST_VALUES = 100_000  # with every alias written out: a few lines of them can stand for billions
_MOST_SHOWN = 120


class YamlError(ValueError):
    """Text that is no YAML, or more of it than anybody writes; the message is one clean line, `line` is from 1."""

    def __init__(self, said: str, line: int | None = None) -> None:
        super().__init__(clean(said, _MOST_SHOWN))
        self.line = line


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The value of a YAML document; None where it is empty.

    Args:
        text: The document.
        loader: A safe loader.

    Raises:
        YamlError: It is none, or too much.
    """
    if len(text) > _MOST_CHARACTERS:
        raise YamlError(f"more than {_MOST_CHARACTERS:,} characters")
    try:
        return copy.deepcopy(_loaded(text, loader))  # type: ignore[arg-type]  # types are hashable
    except yaml.MarkedYAMLError as error:
        raise YamlError(str(error.problem), error.problem_mark.line + 1 if error.problem_mark else None) from None
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None
    except RecursionError:
        raise YamlError("nested too deep, or a part of itself") from None
    except YamlError:
        raise
    # A date that no calendar has, a number of too many digits, a key that is a list, a tag on a value of another kind.
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise YamlError(str(error)) from None


@lru_cache(maxsize=32)
def _loaded(text: str, loader: type[yaml.SafeLoader]) -> Any:
    # A comparison reads each of its runs' configs many times, and reading YAML was half of what that took.
    value = yaml.load(text, loader)
    if _values(value, {}) > _MOST_VALUES:
        raise YamlError(f"more than {_MOST_VALUES:,} values, its aliases written out")
    return value


def _values(value: Any, known: dict[int, int]) -> int:
    """How many values there are in one, as many times as it names them."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | set | tuple) else ()
    if id(value) not in known:
        known[id(value)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(value)]
