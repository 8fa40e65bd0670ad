"""The rows that the offline judge was trained on can be made again."""

import importlib
import re
from pathlib import Path

import pytest

JUDGING = Path(__file__).parents[1] / "judging"
Row = tuple[str, str, bool | None, bool, bool]
pytestmark = pytest.mark.skipif(not JUDGING.exists(), reason="judging/ is in the repository only")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.syspath_prepend(str(JUDGING))
    make_rows = importlib.import_module("make_rows")
    made = list(make_rows.made_rows(60, seed=3))
    assert made == list(make_rows.made_rows(60, seed=3)), "a seed makes the same rows"
    return made


def test_made_rows_hold_every_mixture_and_no_open_slot(rows: list[Row]) -> None:
    assert {(refuses, harmful, asks) for _, _, refuses, harmful, asks in rows} == {
        (True, False, True),  # a refusal of harm
        (True, False, False),  # of a harmless request
        (False, True, True),  # harm done
        (False, False, False),  # help
        (None, False, True),  # a good answer to a bad question, which people would call either
    }
    assert not [text for question, answer, *_ in rows for text in (question, answer) if re.search(r"[{}<>]", text)]


def test_verbs_are_put_into_ing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(JUDGING))
    make_rows = importlib.import_module("make_rows")
    phrases = ["steal a car", "hit my brother", "make a bomb", "lie in court", "cut myself", "see a film", "fix it"]
    assert [make_rows.gerund(phrase) for phrase in phrases] == [
        "stealing a car",
        "hitting my brother",
        "making a bomb",
        "lying in court",
        "cutting myself",
        "seeing a film",
        "fixing it",
    ]
