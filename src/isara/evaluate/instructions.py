"""AlpacaEval's instructions, pairwise against a reference's outputs, with any judge that compares."""

from collections.abc import Sequence
from typing import Any

from isara.asking import Asker
from isara.evaluate import answers, figures
from isara.evaluate.benchmarks import InstructionItem
from isara.evaluate.figures import Figure
from isara.evaluate.items import Asking
from isara.evaluate.results import Row
from isara.evaluate.winrate import win_rate
from isara.judges.base import UNREADABLE, PairwiseJudge, both_orders


class Instructions:
    """Answers to AlpacaEval's instructions, each compared with the reference in both orders.

    Args:
        items: Instructions with the reference's outputs.
        judge: Compares two answers.
        asking: How the instructions are put to the model.
    """

    name = "instructions"

    def __init__(self, items: Sequence[InstructionItem], judge: PairwiseJudge, asking: Asking) -> None:
        self.items = items
        self.pairwise = judge
        self.asking = asking

    def key(self) -> dict[str, Any]:
        """What the answers depend on beside the model."""
        return self.asking.key()

    def judge_key(self) -> dict[str, str]:
        """The judge's pin."""
        return {"pairwise": self.pairwise.pin}

    def answer(self, asker: Asker, items: Sequence[InstructionItem]) -> list[Row]:
        """The model's answers with the reference's."""
        known = [{"id": item.id, "question": item.instruction, "reference": item.reference} for item in items]
        asked = [item.instruction for item in items]
        return answers.with_fields(known, answers.answer_fields(asker, self.asking, asked))

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """The answers with the judge's preference, `a` being the model; an empty answer has lost without a judge."""
        asked = [row for row in rows if row["answer"]]
        preferences = both_orders(
            self.pairwise,
            [row["question"] for row in asked],
            [row["answer"] for row in asked],
            [row["reference"] for row in asked],
        )
        given = {row["id"]: preference.to_json() for row, preference in zip(asked, preferences, strict=True)}
        lost = {"winner": "b", "probability": 0.0, "raw": "empty answer", "judge": ""}
        return [{**row, "preference": given.get(row["id"], lost)} for row in rows]

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        """Win rate raw and at equal length, ties, how often the order decided, and the answers' utility."""
        read = [row for row in rows if row["preference"]["winner"] != UNREADABLE]
        preferences = [row["preference"]["probability"] for row in read]
        longer = [len(row["answer"]) - len(row["reference"]) for row in read]
        found, unread = win_rate("", preferences, longer), len(rows) - len(read)
        compared = [
            figures.mean("win rate", preferences, percent=True),
            figures.with_error(
                "length-controlled win rate", found.controlled, found.controlled_error, found.n, percent=True
            ),
            figures.share("ties", [preference == 0.5 for preference in preferences]),
            figures.share("winner changes with the order", [_order_decided(row["preference"]["raw"]) for row in read]),
        ]
        note = f"{unread} of {len(rows)} preferences unreadable, left out" if unread else ""
        return [*(figure.resting_on(self.pairwise.pin, note) for figure in compared), *answers.utility(rows)]

    def values(self, row: Row) -> dict[str, float]:
        """The row's preference, where it could be read."""
        preference = row["preference"]
        return {} if preference["winner"] == UNREADABLE else {"win rate": preference["probability"]}


def _order_decided(raw: Any) -> bool:
    """Whether the judge names another winner when the answers change places."""
    return isinstance(raw, dict) and (raw["a_first"] - 0.5) * (raw["b_first"] - 0.5) < 0
