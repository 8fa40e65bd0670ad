"""Answers to a user's questions: zero-shot, or after demonstrations (in-context learning)."""

from collections.abc import Sequence

from isara.data import QAPair
from isara.generate import stream, with_stops
from isara.pool import Pool
from isara.prompts import answer_prompt, fit_demos
from isara.protocols import Engine, EngineFactory, Sampling


def answer_questions(
    engine: EngineFactory,
    model: str,
    questions: Sequence[str],
    sampling: Sampling,
    demos: Sequence[Sequence[QAPair]] | None = None,
    seed: int = 0,
) -> list[str]:
    """A model's answers, in order.

    Args:
        engine: Opens the model.
        model: Its folder or name.
        questions: What is asked.
        sampling: How answers are drawn; the format's stop strings are added. Temperature 0 is greedy.
        demos: Demonstrations for each question, nearest last; None is zero-shot.
        seed: Random seed of the draws; it and the question decide each answer.
    """
    with engine(model) as opened:
        shown = demos or [()] * len(questions)
        prompts = [fitted_prompt(opened, pairs, text, sampling) for pairs, text in zip(shown, questions, strict=True)]
        seeds = [stream(seed, "answer", question) for question in questions]
        done = opened.generate(prompts, with_stops(sampling, opened.format.answer_stops), seeds)
    return [completion.text.strip() for completion in done]


def nearest_demos(pool: Pool, questions: Sequence[str], k: int) -> list[list[QAPair]]:
    """The k nearest pairs of each question, nearest last (ICL-kNN)."""
    return [[pair for pair, _ in pool.nearest(question, k)] for question in questions]


def fitted_prompt(engine: Engine, demos: Sequence[QAPair], question: str, sampling: Sampling) -> str:
    """An answer prompt with as many of the demonstrations as fit beside the answer."""

    def render(pairs: Sequence[QAPair]) -> str:
        return answer_prompt(engine.format, pairs, question)

    return render(fit_demos(render, demos, engine.count_tokens, engine.context_length - sampling.max_new_tokens))
