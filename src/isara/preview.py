"""A few rows through the whole pipeline, before a run: as they would come out, and thrown away."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from isara.asking import Asker, no_demos
from isara.errors import YieldError
from isara.generate import Making, make_pairs, whole_batches
from isara.parts import Parts
from isara.pool import Pool
from isara.records import Candidate, QAPair
from isara.stages import Model, checking, read_by, steps
from isara.temporary import temporary_folder
from isara.watching import SILENT


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows that were made and are nowhere stored.

    Attributes:
        candidates: All of them, each with its draws and its fate.
        seeds: The pairs that their demonstrations are of.
    """

    candidates: Sequence[Candidate]
    seeds: Sequence[QAPair]

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
    `questions.per_prompt` questions after each.

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
    making = steps(small, 1, Model(parts.model, ""), Pool(parts.embedder, parts.seeds))
    with temporary_folder() as folder:
        with suppress(YieldError):  # that one batch does not bring what a run wants is no mistake here
            _make(parts, asker, making, Path(folder))
        stored = whole_batches(Path(folder) / "candidates.jsonl")
    return Preview([Candidate.from_json(row) for row in stored], parts.seeds)


def _make(parts: Parts, asker: Asker, making: Making, folder: Path) -> None:
    """The candidates in the folder, by the models that a run would have; those tuned on the seeds are trained."""
    with ExitStack() as opened:
        if parts.reader is not None:
            reader = Model(str(folder / "reader"), "")
            parts.reader.fit(parts.seeds, parts.model, Path(reader.path))
            making = read_by(making, reader, (asker, ""))
            asker = opened.enter_context(parts.asker(reader.path))
        if parts.questioner is not None:
            place = folder / "questioner"
            parts.questioner.fit(parts.seeds, parts.model, place)
            making = replace(making, questions_by=opened.enter_context(parts.asker(str(place))), question_weights="")
        if (checker := checking(parts)) is not None:
            place = folder / "checker"
            checker.fit(parts.seeds, parts.model, place)
            other = opened.enter_context(parts.asker(str(place)))
            making = replace(making, checked_by=other, checker_weights="", retrieve_others=no_demos)
        make_pairs(asker, making, SILENT, folder)
