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

_WIN_RATE, _CONTROLLED, _TIES = "win rate", "length-controlled win rate", "ties"
_TURNED = "winner changes with the order"


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
            figures.mean(_WIN_RATE, preferences, percent=True),
            figures.with_error(_CONTROLLED, found.controlled, found.controlled_error, found.n, percent=True),
            figures.share(_TIES, [preference == 0.5 for preference in preferences]),
            figures.share(_TURNED, [_order_decided(row["preference"]["raw"]) for row in read]),
        ]
        note = f"{unread} of {len(rows)} preferences unreadable, left out" if unread else ""
        return [*(figure.resting_on(self.pairwise.pin, note) for figure in compared), *answers.utility(rows)]

    def values(self, row: Row) -> dict[str, float]:
        """The row's preference, where it could be read."""
        return {name: value for name, value in counted(row).items() if name == _WIN_RATE}


def counted(row: Row) -> dict[str, float]:
    """What one judged row adds to each figure that it counts in; to the length-controlled rate, its preference."""
    found, preference = answers.utility_values(row), row["preference"]
    if preference["winner"] == UNREADABLE:
        return found
    rate = preference["probability"]
    turned = float(_order_decided(preference["raw"]))
    return {_WIN_RATE: rate, _CONTROLLED: rate, _TIES: float(rate == 0.5), _TURNED: turned, **found}


def _order_decided(raw: Any) -> bool:
    """Whether the judge names another winner when the answers change places."""
    return isinstance(raw, dict) and (raw["a_first"] - 0.5) * (raw["b_first"] - 0.5) < 0
