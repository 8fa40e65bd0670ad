"""Who asks, answers and checks in the place of M_{t-1}: the reader, the questioner and the checker."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from isara.asking import Asker, no_demos
from isara.generate import Making
from isara.parts import Parts
from isara.protocols import AloneTrainer, SteppedTrainer, Trainer
from isara.records import CHECKER, QUESTIONER, READER
from isara.stages import Model

HELPERS = (READER, QUESTIONER, CHECKER)


def helper_trainer(parts: Parts, number: int) -> Trainer | None:
    """What tunes M_0 on the seeds to be the READER, QUESTIONER or CHECKER; None where the run has none."""
    if number == READER:
        return parts.reader
    if number == QUESTIONER:
        return parts.questioner
    if parts.checker_steps is None:
        return None
    checker = with_steps(parts.trainer, parts.checker_steps)
    return checker.without_demos() if isinstance(checker, AloneTrainer) else checker  # it is asked alone


def with_steps(trainer: Trainer, steps: int) -> Trainer:
    """The trainer with so many optimiser steps, where it can be told."""
    return trainer.with_steps(steps) if isinstance(trainer, SteppedTrainer) else trainer


@contextmanager
def helped(
    parts: Parts, making: Making, last: tuple[Asker, str], model_of: Callable[[int], Model | None]
) -> Iterator[tuple[Asker, Making]]:
    """Who answers, and the making with everybody else in it; they are closed with the `with` block.

    Args:
        parts: What the run is made of.
        making: What candidates are made with where M_{t-1} does everything.
        last: M_{t-1} and the hash of its weights.
        model_of: Gives the READER, QUESTIONER or CHECKER, trained; None where the run has none.
    """
    asker, weights = last
    # All are trained before one is opened: what is open holds memory that a training needs.
    reader, questioner, checker = (model_of(number) for number in HELPERS)
    with ExitStack() as opened:
        answering = asker
        if reader is not None:
            if making.config.questions.from_ == "reader":
                asker.close()  # it holds memory and does nothing here, unless a score asks it
            answering = opened.enter_context(parts.asker(reader.path))
            making = replace(making, weights=reader.weights, base=making.base or asker)
            if making.config.questions.from_ != "reader":  # M_{t-1} or M_0 asks as before
                making = replace(
                    making,
                    questions_by=making.questions_by or asker,
                    question_weights=making.question_weights or weights,
                )
        if questioner is not None:
            asking = opened.enter_context(parts.asker(questioner.path))
            making = replace(making, questions_by=asking, question_weights=questioner.weights)
        if checker is not None:
            other = opened.enter_context(parts.asker(checker.path))
            making = replace(making, checked_by=other, checker_weights=checker.weights, retrieve_others=no_demos)
        yield answering, making
