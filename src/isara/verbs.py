"""What can be done with parts beside a whole run: fine-tune on pairs, answer questions, measure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isara.asking import Asker, no_demos
from isara.data import as_pairs
from isara.errors import RunError
from isara.evaluate.results import Result
from isara.evaluate.runner import Task, run_tasks
from isara.generate import stream
from isara.keys import part_key
from isara.parts import Parts
from isara.pool import Pool, Retrieve, RetrieveKind, retriever
from isara.records import Draw, QAPair, TrainStats


def train(parts: Parts, pairs: Sequence[QAPair | Mapping[str, Any]], out: str | Path) -> TrainStats:
    """Fine-tunes the model of `parts` on pairs and leaves it in the folder `out`.

    Raises:
        RunError: `out` is there already.
        TrainingError: The pairs can't be trained on.
    """
    folder = Path(out)
    if folder.exists():
        raise RunError(f"expected a new folder for the trained model, found {folder}: give another --out")
    return parts.trainer.fit(as_pairs(pairs), parts.model, folder)


def answer(
    parts: Parts, questions: Sequence[str], demos: int = 0, temperature: float = 0.0, model: str | None = None
) -> list[Draw | None]:
    """A model's answers in order, each with what made it; None for a question that its context can't hold.

    Args:
        parts: Whose engine, prompts and seed pairs are taken.
        questions: What is asked.
        demos: The nearest seed pairs shown before each question (ICL-kNN); 0 is zero-shot.
        temperature: Softmax temperature; 0 is greedy.
        model: Its folder or name; None is the model of `parts`.
    """
    with parts.asker(model or parts.model) as asker:
        return ask(asker, parts, questions, nearest(parts, demos), temperature)


def nearest(parts: Parts, demos: int) -> Retrieve:
    """What gives a question its so many nearest seed pairs; 0 is zero-shot."""
    kind: RetrieveKind = "nearest" if demos else "none"
    return retriever(Pool(parts.embedder, parts.seeds), kind, demos, parts.config.seed)


def ask(
    asker: Asker, parts: Parts, questions: Sequence[str], retrieve: Retrieve = no_demos, temperature: float = 0.0
) -> list[Draw | None]:
    """The same of a model that is open already.

    Args:
        asker: The model.
        parts: Whose sampling settings and random seed are taken.
        questions: What is asked.
        retrieve: Gives a question its demonstrations.
        temperature: Softmax temperature; 0 is greedy.
    """
    sampling = replace(parts.config.answers.sampling, temperature=temperature)
    seeds = [stream(parts.config.seed, "answer", question) for question in questions]
    return asker.answers([QAPair(question, "") for question in questions], sampling, seeds, retrieve)


def evaluate(parts: Parts, tasks: Sequence[Task], out: str | Path, limit: int | None = None) -> list[Result]:
    """Measures the model of `parts` on tasks; what an earlier call left in the folder `out` is not done again.

    Args:
        parts: Whose model, engine and prompts are taken.
        tasks: What to measure; `isara.evaluate.runner.SimpleTask` makes one of a few functions.
        out: The folder for rows and figures, a folder in it for each task.
        limit: Most items of each task, chosen by hash; None for all.

    Raises:
        RunError: `out` holds another evaluation's rows, is in use, or can't be written.
    """
    settings = {"engine": part_key(parts.engine)}
    asker = parts.asker(parts.model)
    return run_tasks(asker, tasks, Path(out), weights=parts.weights(parts.model), settings=settings, limit=limit)
