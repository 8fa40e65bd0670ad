"""Harmlessness and what it costs: harm, refusal, over-refusal and the utility of the answers, side by side."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from isara.asking import Asker
from isara.errors import ConfigError
from isara.evaluate import answers
from isara.evaluate.benchmarks import SafetyItem
from isara.evaluate.figures import Figure
from isara.evaluate.items import Asking
from isara.evaluate.results import Row
from isara.judges.base import Judge, Kind


class Safety:
    """Answers to BeaverTails' unsafe prompts and to XSTest's safe and unsafe ones, read by judges.

    Args:
        items: The prompts.
        judges: By kind. "harm" gives harmful rates, "refusal" refusal and over-refusal, "quality" the utility beside
            them; at least one of the first two.
        asking: How the prompts are put to the model.

    Raises:
        ConfigError: There is neither a harm judge nor a refusal judge.
    """

    name = "safety"

    def __init__(self, items: Sequence[SafetyItem], judges: answers.Judges, asking: Asking) -> None:
        if not {"harm", "refusal"} & set(judges):
            raise ConfigError("`safety` needs a judge of harm or of refusal, found none: name one with --judge")
        self.items = items
        self.judges = judges
        self.asking = asking

    def key(self) -> dict[str, Any]:
        """What the answers depend on beside the model."""
        return self.asking.key()

    def judge_key(self) -> dict[str, str]:
        """The judges' pins."""
        return answers.judge_pins(self.judges)

    def answer(self, asker: Asker, items: Sequence[SafetyItem]) -> list[Row]:
        """The model's answers with what is known of their prompts."""
        known = [
            {
                "id": item.id,
                "question": item.prompt,
                "source": item.source,
                "category": item.category,
                "safe": item.safe,
            }
            for item in items
        ]
        return answers.with_fields(known, answers.answer_fields(asker, self.asking, [item.prompt for item in items]))

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """The answers with their verdicts."""
        verdicts = answers.verdict_fields(
            self.judges, [row["question"] for row in rows], [row["answer"] for row in rows]
        )
        return answers.with_fields(rows, [{"verdicts": verdict} for verdict in verdicts])

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        """Harm overall and by category, refusal where it is wanted and where it isn't, and the answers' utility."""
        beavertails = [row for row in rows if row["source"] == "beavertails"]
        xstest = [row for row in rows if row["source"] == "xstest"]
        figures: list[Figure] = []
        if harm := self.judges.get("harm"):
            figures += _harm(beavertails, harm)
        if refusal := self.judges.get("refusal"):
            figures += _refusals(beavertails, xstest, refusal)
        if quality := self.judges.get("quality"):
            figures.append(answers.verdict_share(rows, quality, "utility: good answers"))
        return figures + answers.utility(rows)

    def values(self, row: Row) -> dict[str, float]:
        """The row's verdicts under the names of the figures that they count in, and the answer's length."""
        return {name: value for name, value in counted(row, self.judges).items() if name in _COMPARED}


# Of the figures, those that two models are compared by.
_COMPARED = (
    "harmful rate, BeaverTails",
    "refusal rate, BeaverTails",
    "refusal rate, XSTest unsafe",
    "over-refusal rate, XSTest safe",
    "utility: good answers",
    answers.WORDS,
)


def counted(row: Row, kinds: Collection[Kind]) -> dict[str, float]:
    """What one judged row adds to each figure that it counts in."""
    names: dict[str, Kind] = (
        {
            "harmful rate, BeaverTails": "harm",
            f"harmful: {row['category']}": "harm",
            "refusal rate, BeaverTails": "refusal",
        }
        if row["source"] == "beavertails"
        else {"over-refusal rate, XSTest safe" if row["safe"] else "refusal rate, XSTest unsafe": "refusal"}
    )
    named = {name: kind for name, kind in {**names, "utility: good answers": "quality"}.items() if kind in kinds}
    return answers.verdict_values(row, named) | answers.utility_values(row)


def _harm(beavertails: Sequence[Row], judge: Judge) -> Iterator[Figure]:
    groups = {"harmful rate, BeaverTails": list(beavertails)}
    for category in sorted({row["category"] for row in beavertails}):
        groups[f"harmful: {category}"] = [row for row in beavertails if row["category"] == category]
    return (answers.verdict_share(rows, judge, name) for name, rows in groups.items() if rows)


def _refusals(beavertails: Sequence[Row], xstest: Sequence[Row], judge: Judge) -> Iterator[Figure]:
    groups = {
        "refusal rate, BeaverTails": beavertails,
        "refusal rate, XSTest unsafe": [row for row in xstest if not row["safe"]],
        "over-refusal rate, XSTest safe": [row for row in xstest if row["safe"]],
    }
    return (answers.verdict_share(rows, judge, name) for name, rows in groups.items() if rows)
