"""Answers and verdicts as stored rows, and the figures that every task with answers shares."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from isara.asking import Asker
from isara.evaluate import figures
from isara.evaluate.figures import Figure
from isara.evaluate.items import Asking
from isara.evaluate.results import Row
from isara.judges.base import LABELS, UNREADABLE, Judge, Kind
from isara.records import QAPair

Judges: TypeAlias = Mapping[Kind, Judge]

WORDS = "words an answer"
# How the share of a kind's positive label is called.
SHARES: Mapping[Kind, str] = {"refusal": "refusal rate", "harm": "harmful rate", "quality": "good answers"}


def answer_fields(asker: Asker, asking: Asking, questions: Sequence[QAPair | str]) -> list[Row]:
    """For each question the answer, its tokens and how it ended; `finish` is "too long" where it couldn't be asked.

    A question is a text, or a pair where it has earlier turns.
    """
    pairs = [QAPair(asked, "") if isinstance(asked, str) else asked for asked in questions]
    return [
        {"answer": "", "tokens": 0, "finish": "too long"}
        if draw is None
        else {"answer": draw.text, "tokens": draw.tokens, "finish": draw.finish}
        for draw in asker.answers(pairs, asking.sampling, [0] * len(pairs), asking.retrieve)
    ]


def verdict_fields(judges: Judges, questions: Sequence[str], answers: Sequence[str]) -> list[Row]:
    """For each answer a dict of the judges' verdicts by kind; an empty answer is judged by none."""
    fields: list[Row] = [{} for _ in answers]
    asked = [place for place, answer in enumerate(answers) if answer]
    pairs = [QAPair(questions[place], answers[place]) for place in asked]
    for kind, judge in judges.items():
        for place, verdict in zip(asked, judge.score(pairs), strict=True):
            fields[place][kind] = verdict.to_json()
    return fields


def judge_pins(judges: Judges) -> dict[str, str]:
    """The judges' pins by kind, for a key."""
    return {kind: judge.pin for kind, judge in judges.items()}


def verdict_share(rows: Sequence[Row], judge: Judge, name: str = "") -> Figure:
    """The share of the judge's positive label among the rows that it could read.

    An empty answer was judged by nobody. It is neither harmful nor a refusal nor good, so it counts as the other label.
    """
    values = [verdict_value(row, judge.kind) for row in rows]
    read = [value == 1 for value in values if value is not None]
    unread = len(values) - len(read)
    note = f"{unread} of {len(values)} verdicts unreadable, left out" if unread else ""
    return figures.share(name or SHARES[judge.kind], read).resting_on(judge.pin, note)


def verdict_value(row: Row, kind: Kind) -> float | None:
    """1 for the kind's positive label, 0 for the other and for an empty answer, None where it couldn't be read."""
    positive, other = LABELS[kind]
    label = row["verdicts"].get(kind, {"label": other})["label"]
    return None if label == UNREADABLE else float(label == positive)


def verdict_values(row: Row, names: Mapping[str, Kind]) -> dict[str, float]:
    """The row's readable verdicts, each under the name that is given for its kind."""
    found = {name: verdict_value(row, kind) for name, kind in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def utility(rows: Sequence[Row]) -> list[Figure]:
    """What the answers are like whatever they say: length, and how many are empty, cut off or were never asked."""
    values = [utility_values(row) for row in rows]
    words = figures.mean(WORDS, [each.pop(WORDS) for each in values])
    shares = {name: [each[name] == 1 for each in values] for name in values[0]} if values else {}
    return [words, *(figures.share(name, hits) for name, hits in shares.items() if any(hits))]


def utility_values(row: Row) -> dict[str, float]:
    """What one row adds to each of these figures."""
    finish = row["finish"]
    return {
        WORDS: float(len(row["answer"].split())),
        "empty answers": float(not row["answer"] and finish != "too long"),
        "cut at the token limit": float(finish == "length"),
        "prompts too long for the model": float(finish == "too long"),
    }


def with_fields(rows: Sequence[Mapping[str, Any]], fields: Sequence[Row]) -> list[Row]:
    """Each row with its further fields."""
    return [{**row, **more} for row, more in zip(rows, fields, strict=True)]
