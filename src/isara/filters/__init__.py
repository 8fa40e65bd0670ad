"""Filters: what is dropped, why, and in which order.

`default_filters` gives those of the `filters:` section of a config. Anything that is called with a candidate and the
kept pairs and returns a `Rejection` or None can stand beside them.
"""

from isara.config import FiltersConfig
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


def default_filters(options: FiltersConfig) -> tuple[list[Filter], list[Filter]]:
    """Question filters and pair filters, each in the order in which they are asked; None, False or () is off.

    The cheap ones come first, since the first reason is the last one asked for. The user's own are not among them.

    Args:
        options: The `filters:` section of a config, which says what each value means.

    Raises:
        ConfigError: A value has no meaning.
        SeedError: A benchmark file can't be read.
    """
    # One object serves questions and answers: it looks at the newest text of the candidate.
    switched: list[tuple[bool, Filter]] = [
        (options.truncated, Truncated()),
        (options.form, Form()),
        (options.run_on, RunOn()),
    ]
    anywhere = [check for on, check in switched if on]
    texts: list[Filter] = [Language()] if options.language else []
    if options.drop_matching:
        texts.append(DropMatching(options.drop_matching))
    if options.contamination:
        texts.append(Contamination(options.contamination, options.contamination_ngram))
    questions = [*anywhere, QuestionLength(options.min_question_tokens, options.max_question_tokens), *texts]
    answers = [*anywhere, AnswerLength(options.min_answer_tokens, options.max_answer_tokens), *texts]
    if options.novelty is not None:
        questions.append(Novelty(options.novelty))
    if options.near_duplicate is not None:
        questions.append(NearDuplicate(options.near_duplicate))
    if options.repetition is not None:
        answers.append(Repetition(options.repetition))
    if options.echo is not None:
        answers.append(Echo(options.echo))
    if options.copied is not None:
        answers.append(Copied(options.copied))
    return questions, answers
