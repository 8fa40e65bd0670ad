"""What a part is to a resumed run."""

import functools
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from isara.build import OwnEngine
from isara.errors import ConfigError
from isara.filters import Contamination, Novelty
from isara.keys import part_key
from isara.own import load_part
from isara.pool import Pool
from isara.records import Candidate, Rejection


def drop_long(candidate: Candidate, kept: Pool, most: int = 9) -> Rejection | None:
    return Rejection("long") if len(candidate.pair.answer) > most else None


@dataclass
class DropShort:
    least: int
    _seen: int = 0


def test_a_function_is_its_name_its_defaults_and_its_file() -> None:
    key = part_key(drop_long)
    assert key["part"] == "tests.test_keys.drop_long" and key["with"] == {"default 0": 9}
    assert re.fullmatch("[0-9a-f]{16}", key["source"])


def test_what_a_function_closes_over_counts() -> None:
    def most(limit: int) -> object:
        return lambda candidate, kept: len(candidate.pair.answer) > limit

    assert part_key(most(3)) != part_key(most(4))
    assert part_key(most(3)) == part_key(most(3))


class WithPrivateLimit:
    name = "limit"  # a filter's name says nothing of what it does

    def __init__(self, limit: int) -> None:
        self._limit = limit


def only_by_keyword(candidate: Candidate, kept: Pool, *, limit: int = 3) -> None:
    return None


def test_everything_that_decides_counts() -> None:
    assert part_key(DropShort(3)) != part_key(DropShort(4))
    assert part_key(WithPrivateLimit(3)) == part_key(WithPrivateLimit(3)) != part_key(WithPrivateLimit(4))
    words = [f"word{number}" for number in range(100)]
    patterns = [re.compile("|".join(words)), re.compile("|".join(words[:-1]))]
    arrays = [np.zeros(5000), np.concatenate([np.zeros(4999), [1e-9]])]
    for one, other in (patterns, arrays, [{frozenset(words)}, {frozenset(words[1:])}]):
        assert part_key(Holds(one)) == part_key(Holds(one)) != part_key(Holds(other))
    two = [lambda candidate, kept: 1, lambda candidate, kept: 2]
    assert part_key(two[0]) != part_key(two[1])
    assert part_key(only_by_keyword)["with"] == {"limit": 3}


class Holds:
    def __init__(self, value: object) -> None:
        self.value = value


class HoldsItself:
    def __init__(self) -> None:
        self.rule = self.check

    def check(self) -> None:
        return None


class Slotted:
    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit


def test_parts_that_hold_themselves_or_have_slots_are_known() -> None:
    assert part_key(HoldsItself()) == part_key(HoldsItself())
    assert part_key(Slotted(3)) != part_key(Slotted(4))


def test_an_engine_of_the_users_keeps_the_name_that_older_runs_know() -> None:
    key = part_key(OwnEngine(drop_long, {"least": 2, "stops": (1, 2)}))
    assert key == {
        "part": "isara.build.OwnEngine",
        "with": {"make": part_key(drop_long), "options": {"least": 2, "stops": [1, 2]}},
    }


def test_a_key_that_json_cannot_hold_is_one_line() -> None:
    class Odd:
        def key(self) -> object:
            return {"path": object()}

    with pytest.raises(ConfigError, match=r"^expected a `key\(\)` of .* that JSON can hold, found one that it can't"):
        part_key(Odd())


def test_a_partial_is_its_function_with_its_arguments() -> None:
    assert part_key(functools.partial(drop_long, most=3)) != part_key(functools.partial(drop_long, most=4))


def test_the_projects_own_filters_are_known_by_their_options() -> None:
    assert part_key(Novelty(0.7)) == {"part": "isara.filters.novelty.Novelty", "with": {"novelty": 0.7}}
    assert part_key(Novelty(0.6)) != part_key(Novelty(0.7))


def test_the_text_of_a_contamination_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "bench.txt"
    keys = []
    for text in (
        "Which of the six sages wakes first of all in the temple?\n",
        "Who wakes the last of the sages there?\n",
    ):
        path.write_text(text)
        keys.append(part_key(Contamination([path], 4)))
    assert keys[0] != keys[1]


def test_a_part_that_says_its_key_is_believed() -> None:
    class Cut:
        def key(self) -> dict[str, int]:
            return {"cut": 3}

    assert part_key(Cut()) == {"cut": 3}


def test_a_part_that_cannot_be_known_again_is_refused() -> None:
    class Waiting:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    with pytest.raises(ConfigError) as caught:
        part_key(Waiting())
    assert str(caught.value) == (
        "expected a part that a resumed run can know again, found `test_a_part_that_cannot_be_known_again_is_refused."
        "<locals>.Waiting`, which holds a lock: give it a method `key()` that returns what it depends on"
    )


def test_a_part_without_source_is_refused() -> None:
    scope: dict[str, object] = {"__name__": "typed_in"}
    exec("def no_source(candidate, kept): return None", scope)
    with pytest.raises(ConfigError) as caught:
        part_key(scope["no_source"])
    assert str(caught.value) == (
        "expected a part whose source can be read, found `no_source`: put it into a file, or give it a method `key()` "
        "that returns what it depends on"
    )


def test_a_changed_file_is_another_part_and_a_moved_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    text = "def no_prices(candidate, kept):\n    return None\n"
    keys = []
    for folder, content in (("a", text), ("b", text), ("b", text + "# changed\n")):
        path = tmp_path / folder / "my_filters.py"
        path.write_text(content)
        keys.append(part_key(load_part(f"{path}:no_prices", "filters")))
    assert keys[0] == keys[1] != keys[2]


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    cases = {
        f"{path}:x": f"`filters`: expected a module that can be imported, found '{path}' (ZeroDivisionError: division "
        "by zero): put the file beside the config, or install its package",
        "no_such_module:x": "`filters`: expected a module that can be imported, found 'no_such_module' "
        "(ModuleNotFoundError: No module named 'no_such_module'): put the file beside the config, or install its "
        "package",
        "json:no_such_name": "`filters`: expected 'no_such_name' in json, found no such name: name a function or class "
        "that it has",
    }
    for place, message in cases.items():
        with pytest.raises(ConfigError, match="^" + re.escape(message) + "$"):
            load_part(place, "filters")
