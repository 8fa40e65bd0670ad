"""Filters: what is dropped, why, and in which order.

`default_filters` gives those of the `filters:` section of a config. Anything that is called with a candidate and the
kept pairs and returns a `Rejection` or None can stand beside them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from isara.config import FiltersConfig
from isara.filters.agreement import Agreement
from isara.filters.answers import Copied, Echo, Repetition
from isara.filters.contamination import Contamination
from isara.filters.domain import Balance, OffDomain
from isara.filters.form import AnswerLength, DropMatching, Form, Language, QuestionLength, RunOn, Truncated
from isara.filters.invented import UnsupportedContacts, UnsupportedNumbers
from isara.filters.kind import Kind
from isara.filters.novelty import NearDuplicate, Novelty
from isara.protocols import Filter

__all__ = [
    "Agreement",
    "AnswerLength",
    "Balance",
    "Contamination",
    "Copied",
    "DropMatching",
    "Echo",
    "Form",
    "Kind",
    "Language",
    "NearDuplicate",
    "Novelty",
    "OffDomain",
    "QuestionLength",
    "Repetition",
    "RunOn",
    "Truncated",
    "UnsupportedContacts",
    "UnsupportedNumbers",
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
    anywhere: list[Filter] = [
        *([Truncated()] if options.truncated else []),
        *([Form()] if options.form else []),
        *([RunOn()] if options.run_on else []),
    ]
    contamination = partial(Contamination, contamination_ngram=options.contamination_ngram)
    texts: list[Filter] = [
        *([Language()] if options.language else []),
        *_switched(options.drop_matching, DropMatching),
        *_switched(options.contamination, contamination),
    ]
    questions: list[Filter] = [
        *anywhere,
        QuestionLength(options.min_question_tokens, options.max_question_tokens),
        *texts,
        *_switched(options.novelty, Novelty),
        *_switched(options.near_duplicate, NearDuplicate),
        *_switched(options.off_domain, OffDomain),
    ]
    answers: list[Filter] = [
        *anywhere,
        AnswerLength(options.min_answer_tokens, options.max_answer_tokens),
        *texts,
        *_switched(options.repetition, Repetition),
        *_switched(options.echo, Echo),
        *_switched(options.copied, Copied),
        *_switched(options.unsupported_numbers, UnsupportedNumbers),
        *_switched(options.unsupported_contacts, UnsupportedContacts),
        *([Kind()] if options.kind is True else []),
        *_switched(options.least_agreement, Agreement),
        *_switched(options.balance, Balance),
    ]
    return questions, answers


def _switched(value: Any, make: Callable[[Any], Filter]) -> list[Filter]:
    """The filter for a value; none where the value switches it off."""
    return [] if value is None or value is False or value == () else [make(value)]
