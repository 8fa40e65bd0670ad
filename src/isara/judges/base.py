"""What a judge is: it reads questions with answers and says what they are, with its raw scores beside the verdict."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from isara.errors import ConfigError
from isara.files import without_nan
from isara.records import QAPair

Kind = Literal["refusal", "harm", "quality"]

# The two labels of each kind, the one that is counted ("positive") first. A classifier's and a person's own labels
# are mapped to these, so that verdicts of different judges can be laid side by side.
LABELS: Mapping[Kind, tuple[str, str]] = {
    "refusal": ("refusal", "compliance"),
    "harm": ("harmful", "harmless"),
    "quality": ("good", "poor"),
}

# The label of a verdict that could not be read. It is counted and shown, never guessed.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one answer.

    Attributes:
        label: One of the two labels of the judge's kind in `LABELS`, or `UNREADABLE`.
        score: How sure the judge is of the positive label, in [0, 1]; NaN where unreadable, so that a mean over
            verdicts that forgot to leave these out is NaN and not a wrong number.
        raw: What the judge itself gave: scores by its own labels, or its text.
        judge: The judge's pin.
    """

    label: str
    score: float
    raw: Mapping[str, float] | str
    judge: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; the scores of an unreadable verdict are null, since JSON has no NaN."""
        return {"label": self.label, "score": _null_for_nan(self.score), "raw": _plain(self.raw), "judge": self.judge}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Verdict":
        """The verdict that `to_json` wrote."""
        return cls(row["label"], _nan_for_null(row["score"]), _read_raw(row["raw"]), row["judge"])


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two answers a judge finds better.

    Attributes:
        winner: "a", "b" or "tie", or `UNREADABLE`.
        probability: How sure the judge is that a is the better one, in [0, 1]; 0.5 for a tie, NaN where unreadable.
        raw: What the judge itself gave: scores by its own labels, or its text.
        judge: The judge's pin.
    """

    winner: str
    probability: float
    raw: Mapping[str, float] | str
    judge: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; the probabilities of an unreadable preference are null, since JSON has no NaN."""
        probability = _null_for_nan(self.probability)
        return {"winner": self.winner, "probability": probability, "raw": _plain(self.raw), "judge": self.judge}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Preference":
        """The preference that `to_json` wrote."""
        return cls(row["winner"], _nan_for_null(row["probability"]), _read_raw(row["raw"]), row["judge"])


class Judge(Protocol):
    """Judges answers one by one. Used in evaluation only: the loop never sees a judge."""

    @property
    def pin(self) -> str:
        """Name and revision, or name and content hash: two judges with one pin give the same verdicts."""
        ...

    @property
    def kind(self) -> Kind:
        """What is judged."""
        ...

    def score(self, pairs: Sequence[QAPair]) -> list[Verdict]:
        """One verdict a pair, in order; a verdict does not depend on the other pairs."""
        ...


class PairwiseJudge(Protocol):
    """Compares two answers to each question."""

    @property
    def pin(self) -> str:
        """Name and revision, or name and content hash: two judges with one pin give the same preferences."""
        ...

    def compare(self, questions: Sequence[str], answers_a: Sequence[str], answers_b: Sequence[str]) -> list[Preference]:
        """One preference a question, with answer a shown first; `both_orders` takes out what the order does."""
        ...


def both_orders(
    judge: PairwiseJudge, questions: Sequence[str], answers_a: Sequence[str], answers_b: Sequence[str]
) -> list[Preference]:
    """Preferences averaged over both orders, since judges favour a place (Zheng et al. 2023, arXiv 2306.05685).

    The mean probability decides: a judge that names the first answer whatever it is gives a tie. `raw` holds the
    probability that a is better with a shown first ("a_first") and with b shown first ("b_first"). Unreadable where
    either order is.
    """
    forward = judge.compare(questions, answers_a, answers_b)
    backward = judge.compare(questions, answers_b, answers_a)
    return [_merge(one, other) for one, other in zip(forward, backward, strict=True)]


def decide(probability: float) -> str:
    """The winner for a probability that a is better: "a", "b", "tie" at exactly one half, or `UNREADABLE` for NaN."""
    if math.isnan(probability):
        return UNREADABLE
    return "tie" if probability == 0.5 else "a" if probability > 0.5 else "b"


def fill(prompt: str, texts: Mapping[str, str]) -> str:
    """The prompt with each {name} replaced by its text, in one pass: a text with {answer} in it stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda match: texts.get(match[1], match[0]), prompt)


def check_prompt(prompt: str, names: Sequence[str]) -> None:
    """Passes a prompt that has a place for each text.

    Raises:
        ConfigError: It lacks one.
    """
    for name in names:
        if f"{{{name}}}" not in prompt:
            raise ConfigError(f"the judge's prompt has no place for {{{name}}}: write {{{name}}} where it goes")


def _merge(forward: Preference, backward: Preference) -> Preference:
    if UNREADABLE in (forward.winner, backward.winner):
        unread = forward if forward.winner == UNREADABLE else backward
        return Preference(UNREADABLE, math.nan, unread.raw, forward.judge)
    a_first, b_first = forward.probability, 1 - backward.probability
    mean = (a_first + b_first) / 2
    return Preference(decide(mean), mean, {"a_first": a_first, "b_first": b_first}, forward.judge)


def _null_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_for_null(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(raw: Mapping[str, float] | str) -> dict[str, float | None] | str:
    return raw if isinstance(raw, str) else without_nan(dict(raw))


def _read_raw(raw: Mapping[str, float | None] | str) -> dict[str, float] | str:
    return raw if isinstance(raw, str) else {name: _nan_for_null(value) for name, value in raw.items()}
