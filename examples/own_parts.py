"""ISARA with parts of one's own: a filter, an embedder, an evaluator, on the model that ships with the package.

    python examples/own_parts.py

Every part is an object with the methods that `isara.protocols` names; nothing is inherited and nothing is registered.
"""

from pathlib import Path

from isara import QAPair, self_align
from isara.data import read_pairs
from isara.embedders import LexicalEmbedder
from isara.engines.transformers import TransformersEngine
from isara.filters import default_filters
from isara.generate import Generation
from isara.loop import Loop
from isara.models import embedded_model, weights_hash
from isara.pool import Pool
from isara.protocols import Candidate, Engine, Rejection, Sampling
from isara.trainers import SupervisedTrainer


class NoWell:
    """A filter: keeps answers that don't begin with "Well"."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """The reason to drop the candidate, or None."""
        first = candidate.pair.answer.split()[:1]
        return Rejection("starts_with_well", first[0], "another word") if first == ["Well,"] else None


class AnswerLength:
    """An evaluator: mean words of greedy answers, and no likelihood, so that the last iteration counts as the best."""

    def __init__(self, questions: list[str]) -> None:
        self.questions = questions

    def __call__(self, engine: Engine) -> dict[str, float]:
        """Figures by name."""
        prompts = [f"Question: {question}\nAnswer:" for question in self.questions]
        done = engine.generate(prompts, Sampling(0.0, 1.0, 64, engine.format.answer_stops), [0] * len(prompts))
        return {"words": sum(len(completion.text.split()) for completion in done) / len(done)}


def main() -> None:
    """Aligns the embedded model to the safety recipe's pairs in one small iteration."""
    seeds: list[QAPair] = read_pairs(Path(__file__).parents[1] / "recipes" / "safety" / "seeds.jsonl")
    question_filters, pair_filters = default_filters(novelty=0.6)
    result = self_align(
        seeds,
        str(embedded_model()),
        "runs/own-parts",
        engine=TransformersEngine,
        embedder=LexicalEmbedder(),
        trainer=SupervisedTrainer(learning_rate=1e-3, num_train_epochs=1),
        question_filters=question_filters,
        pair_filters=[*pair_filters, NoWell()],
        evaluate=AnswerLength([pair.question for pair in seeds[:8]]),
        generation=Generation(accept=16, batch=32, answer_sampling=Sampling(0.5, 0.95, 96)),
        loop=Loop(iterations=1),
        weights=weights_hash,
    )
    print(f"{len(result.accepted)} pairs; words an answer before and after: {result.evaluations}")


if __name__ == "__main__":
    main()
