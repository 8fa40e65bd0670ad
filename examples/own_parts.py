"""ISARA with parts of one's own: a filter, an embedder, an evaluator, on the model that ships with the package.

    python examples/own_parts.py

Every part is an object with the methods that `isara.protocols` names; nothing is inherited and nothing is registered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isara import Candidate, Pool, QAPair, Rejection, build_parts, load_config, run
from isara.asking import Asker
from isara.embedders import LexicalEmbedder
from isara.records import Sampling


class NoWell:
    """A filter: keeps answers that don't begin with "Well"."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """The reason to drop the candidate, or None."""
        first = candidate.pair.answer.split()[:1]
        return Rejection("starts_with_well", first[0], "another word") if first == ["Well,"] else None


class AnswerLength:
    """An evaluator: mean words of greedy answers, and no likelihood, so that the last iteration counts as the best."""

    def __init__(self, pairs: Sequence[QAPair]) -> None:
        self.pairs = pairs

    def key(self) -> Mapping[str, Any]:
        """What the figures depend on beside the model: a run is not resumed with others."""
        return {"questions": [pair.question for pair in self.pairs]}

    def __call__(self, asker: Asker) -> dict[str, float]:
        """Figures by name."""
        draws = asker.answers(self.pairs, Sampling(temperature=0.0, max_new_tokens=64), [0] * len(self.pairs))
        return {"words": sum(len(draw.text.split()) for draw in draws if draw) / len(draws)}


def main() -> None:
    """Aligns the embedded model to the safety recipe's pairs in one small iteration."""
    recipe = Path(__file__).parents[1] / "recipes" / "safety"
    settings = ["iterations=1", "generate.accept=16", "generate.batch=32", "train.num_train_epochs=1"]
    parts = build_parts(load_config(recipe, settings, out="runs/own-parts"))
    parts = replace(
        parts,
        embedder=LexicalEmbedder(),
        pair_filters=[*parts.pair_filters, NoWell()],
        evaluator=AnswerLength(parts.seeds[:8]),
    )
    result = run(parts)
    print(f"{len(result.accepted)} pairs; words an answer before and after: {result.evaluations}")


if __name__ == "__main__":
    main()
