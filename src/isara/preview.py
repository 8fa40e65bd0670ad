"""A few rows through the whole pipeline, before a run: as they would come out, and thrown away."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from isara.asking import Asker
from isara.errors import YieldError
from isara.generate import Making, make_pairs, whole_batches
from isara.helpers import helped, helper_trainer
from isara.parts import Parts
from isara.pool import Pool
from isara.records import BESIDE, Candidate, QAPair
from isara.stages import Model, steps
from isara.temporary import temporary_folder
from isara.watching import SILENT


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows that were made and are nowhere stored.

    Attributes:
        candidates: All of them, each with its draws and its fate.
        seeds: The pairs that their demonstrations are of.
        unchecked: Whether a run would ask a model tuned on the seeds, too, and drop pairs on which the two differ.
    """

    candidates: Sequence[Candidate]
    seeds: Sequence[QAPair]
    unchecked: bool = False

    @property
    def accepted(self) -> int:
        """How many passed."""
        return sum(each.rejection is None for each in self.candidates)

    def texts(self) -> dict[str, QAPair]:
        """Seeds and candidates by id."""
        return {pair.id: pair for pair in (*(each.pair for each in self.candidates), *self.seeds)}


def preview(parts: Parts, asker: Asker, rows: int = 8) -> Preview:
    """One small batch of the first iteration, through questions, filters, retrieval, answers and filters.

    Each question has demonstrations of its own, so that a few rows show as much as they can; a run asks for
    `questions.per_prompt` questions after each. Who checks (`filters.agreement_with: seeds`) is left out: it would have
    to be trained as long as the run's first iteration.

    Args:
        parts: What the run would be made of; its folder is not touched.
        asker: The base model.
        rows: How many candidates.

    Raises:
        ModelError: The context has no room for a prompt.
    """
    config = parts.config
    options = config.generate.model_copy(update={"accept": rows, "batch": rows, "max_batches": 1})
    questions = config.questions.model_copy(update={"per_prompt": 1})
    small = replace(parts, config=config.model_copy(update={"generate": options, "questions": questions}))
    unchecked = parts.checker_steps is not None
    if unchecked:
        filters = config.filters.model_copy(update={"agreement": None})
        small = replace(small, config=small.config.model_copy(update={"filters": filters}), checker_steps=None)
    making = steps(small, 1, Model(parts.model, ""), Pool(parts.embedder, parts.seeds))
    with temporary_folder() as folder:
        with suppress(YieldError):  # that one batch does not bring what a run wants is no mistake here
            _make(small, asker, making, Path(folder))
        stored = whole_batches(Path(folder) / "candidates.jsonl")
    return Preview([Candidate.from_json(row) for row in stored], parts.seeds, unchecked)


def _make(parts: Parts, asker: Asker, making: Making, folder: Path) -> None:
    """The candidates in the folder, by the models that a run would have; those tuned on the seeds are trained."""

    def model_of(number: int) -> Model | None:
        trainer = helper_trainer(parts, number)
        if trainer is None:
            return None
        place = folder / BESIDE[number]
        trainer.fit(parts.seeds, parts.model, place)
        return Model(str(place), "")

    with helped(parts, making, (asker, ""), model_of) as (answering, made):
        make_pairs(answering, made, SILENT, folder)
