"""Filters: what is dropped, why, and in which order.

`default_filters` gives those of the `filters:` section of a config. Anything that is called with a candidate and the
kept pairs and returns a `Rejection` or None can stand beside them.
"""

from collections.abc import Sequence
from pathlib import Path

from isara.filters.answers import Copied, Echo, Repetition
from isara.filters.contamination import Contamination
from isara.filters.form import AnswerLength, DropMatching, Form, Language, QuestionLength, RunOn, Truncated
from isara.filters.novelty import NearDuplicate, Novelty
from isara.protocols import Filter

__all__ = [
    "AnswerLength",
    "Contamination",
    "Copied",
    "DropMatching",
    "Echo",
    "Form",
    "Language",
    "NearDuplicate",
    "Novelty",
    "QuestionLength",
    "Repetition",
    "RunOn",
    "Truncated",
    "default_filters",
]


def default_filters(
    *,
    min_question_tokens: int | None = 4,
    max_question_tokens: int | None = 128,
    min_answer_tokens: int | None = 2,
    max_answer_tokens: int | None = None,
    novelty: float | None = 0.7,
    near_duplicate: float | None = 0.95,
    repetition: float | None = 0.3,
    echo: float | None = 0.9,
    copied: float | None = 0.9,
    form: bool = True,
    truncated: bool = True,
    run_on: bool = True,
    language: bool = True,
    drop_matching: Sequence[str] = (),
    contamination: Sequence[str | Path] = (),
    contamination_ngram: int = 8,
) -> tuple[list[Filter], list[Filter]]:
    """Question filters and pair filters, each in the order in which they are asked; None, False or () is off.

    The cheap ones come first, since the first reason is the last one asked for.

    Args:
        min_question_tokens: Fewest generated tokens of a question, the stop included.
        max_question_tokens: Most.
        min_answer_tokens: Fewest generated tokens of an answer.
        max_answer_tokens: Most; None because max_new_tokens bounds it already.
        novelty: ROUGE-L F to a kept question from which on a question is not new, in (0, 1]; the paper's 0.7.
        near_duplicate: The same for the cosine of the questions' embeddings.
        repetition: Share of an answer that repeats its own 4-grams.
        echo: ROUGE-L F of an answer to its question.
        copied: ROUGE-L F of an answer to a demonstration's answer.
        form: Whether texts that are no texts are dropped: empty, without letters, with control characters.
        truncated: Whether texts that did not end by themselves are dropped.
        run_on: Whether texts that run on into the next pair are dropped.
        language: Whether texts in a script that no seed is written in are dropped.
        drop_matching: Regular expressions that no question and no answer may hold.
        contamination: Benchmark files whose text is kept out.
        contamination_ngram: Words in a row that count as benchmark text.

    Raises:
        ConfigError: A value has no meaning.
        SeedError: A benchmark file can't be read.
    """
    # One object serves questions and answers: it looks at the newest text of the candidate.
    switched: list[tuple[bool, Filter]] = [(truncated, Truncated()), (form, Form()), (run_on, RunOn())]
    anywhere = [check for on, check in switched if on]
    texts: list[Filter] = [Language()] if language else []
    if drop_matching:
        texts.append(DropMatching(drop_matching))
    if contamination:
        texts.append(Contamination(contamination, contamination_ngram))
    questions = [*anywhere, QuestionLength(min_question_tokens, max_question_tokens), *texts]
    answers = [*anywhere, AnswerLength(min_answer_tokens, max_answer_tokens), *texts]
    if novelty is not None:
        questions.append(Novelty(novelty))
    if near_duplicate is not None:
        questions.append(NearDuplicate(near_duplicate))
    if repetition is not None:
        answers.append(Repetition(repetition))
    if echo is not None:
        answers.append(Echo(echo))
    if copied is not None:
        answers.append(Copied(copied))
    return questions, answers
