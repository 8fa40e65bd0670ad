"""The one record that passes through every stage: a question-answer pair."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class QAPair:
    """A question with its answer, and where it came from.

    Attributes:
        question: What is asked.
        answer: What is answered; empty while a candidate's question is being filtered.
        iteration: The iteration that made the pair; 0 is a seed pair.
        demo_ids: Ids of the demonstrations in the prompt that made the answer, in prompt order (nearest last).
    """

    question: str
    answer: str
    iteration: int = 0
    demo_ids: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of question and answer: equal texts have equal ids."""
        return hashlib.sha256(json.dumps([self.question, self.answer]).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with the id first."""
        return {"id": self.id, **asdict(self), "demo_ids": list(self.demo_ids)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "QAPair":
        """The pair that `to_json` wrote; keys that are not fields are ignored."""
        return cls(row["question"], row["answer"], row.get("iteration", 0), tuple(row.get("demo_ids", ())))
