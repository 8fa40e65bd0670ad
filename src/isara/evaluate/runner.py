"""Runs tasks on a model: answers first, then judges when the model is gone, then figures; every item is kept."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from isara.errors import ModelError
from isara.evaluate.figures import Figure
from isara.evaluate.items import choose
from isara.evaluate.results import ResultFile, Row, locked
from isara.protocols import Engine, EngineFactory
from isara.run import write_text

_Watch: TypeAlias = Callable[[str, str, int, int], None]

# Items that are answered, or judged, before their rows are written: what a kill can cost.
CHUNK = 64


class Task(Protocol):
    """Something a model is measured on. Answers and verdicts are rows that hold their item's `id`."""

    @property
    def name(self) -> str:
        """What it is called after `--on`; also its folder."""
        ...

    @property
    def items(self) -> Sequence[Any]:
        """Its items, each with an `id`."""
        ...

    def key(self) -> Mapping[str, Any]:
        """What the answers depend on beside model and item, JSON-ready."""
        ...

    def judge_key(self) -> Mapping[str, Any]:
        """What the verdicts depend on beside the answers: the judges' pins."""
        ...

    def answer(self, engine: Engine, items: Sequence[Any]) -> list[Row]:
        """What the model gives for each item; a row depends on its item alone."""
        ...

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with what judges and references say of them."""
        ...

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        """The figures over all judged rows."""
        ...

    def values(self, row: Row) -> dict[str, float]:
        """What one judged row adds to each figure that it counts in, for comparing models item by item."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """A finished task.

    Attributes:
        task: Its name.
        figures: Its figures.
        items: Items measured.
        available: Items that the task has.
        seconds: Work spent on it, in this call and in those that it resumed.
        folder: Where its rows lie.
    """

    task: str
    figures: list[Figure]
    items: int
    available: int
    seconds: float
    folder: Path


@dataclass(frozen=True, slots=True)
class _Work:
    """A task with its chosen items and its two files."""

    task: Task
    chosen: list[Any]
    folder: Path
    answers: ResultFile
    judged: ResultFile


def run_tasks(
    model: str,
    tasks: Sequence[Task],
    out: Path,
    *,
    engine: EngineFactory,
    weights: str,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    watch: _Watch = lambda task, stage, done, total: None,
) -> list[Result]:
    """Measures a model on tasks; what an earlier call with the same arguments left in `out` is not done again.

    Args:
        model: A model folder or name that `engine` understands.
        tasks: What to measure.
        out: The folder for rows and figures, a folder in it for each task.
        engine: Opens the model; not called where every item has its answer.
        weights: Hash of the model's weights, a part of the rows' key.
        settings: What else the answers depend on (prompt format, dtype), a part of the key, too.
        limit: Most items of each task, chosen by hash; None for all.
        watch: Told of progress: task, "answer" or "judge", items done, items to do.

    Raises:
        RunError: `out` holds another evaluation's rows, is in use, or can't be written.
        ModelError: The model can't be opened, or none of its answers to a task says anything.
    """
    with locked(out):
        works = [_work(task, out / task.name, {"weights": weights, **(settings or {})}, limit) for task in tasks]
        _answer_all(model, works, engine, watch)
        return [_judge(model, work, watch) for work in works]


def _work(task: Task, folder: Path, base: Mapping[str, Any], limit: int | None) -> _Work:
    key = {"task": task.name, **base, **task.key()}
    return _Work(
        task,
        choose(task.items, limit),
        folder,
        ResultFile(folder / "answers.jsonl", key),
        ResultFile(folder / "items.jsonl", {**key, "judges": dict(task.judge_key())}),
    )


def _answer_all(model: str, works: Sequence[_Work], engine: EngineFactory, watch: _Watch) -> None:
    """Completes each task's answers; the model is opened once, and only if something is missing."""
    with ExitStack() as stack:
        opened: Engine | None = None
        for work in works:
            done = work.answers.rows()
            missing = [item for item in work.chosen if item.id not in done]
            for place, chunk in _chunks(missing):
                watch(work.task.name, "answer", len(work.chosen) - len(missing) + place, len(work.chosen))
                if opened is None:
                    opened = stack.enter_context(engine(model))
                with _timed(work.folder):
                    work.answers.append(work.task.answer(opened, chunk))


def _judge(model: str, work: _Work, watch: _Watch) -> Result:
    """Completes a task's verdicts and writes its figures."""
    answered = work.answers.rows()
    rows = [answered[item.id] for item in work.chosen]
    _check_answers(model, work.task.name, rows)
    done = work.judged.rows()
    missing = [row for row in rows if row["id"] not in done]
    for place, chunk in _chunks(missing):
        watch(work.task.name, "judge", len(rows) - len(missing) + place, len(rows))
        with _timed(work.folder):
            work.judged.append(work.task.judge(chunk))
    judged = work.judged.rows()
    figures = work.task.figures([judged[item.id] for item in work.chosen])
    result = Result(
        work.task.name, figures, len(rows), len(choose(work.task.items, None)), _seconds(work.folder), work.folder
    )
    write_summary(result)
    return result


def write_summary(result: Result) -> None:
    """Writes a task's figures to `summary.json` in its folder."""
    summary = {
        "task": result.task,
        "items": result.items,
        "available": result.available,
        "figures": [figure.to_json() for figure in result.figures],
    }
    write_text(result.folder / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _check_answers(model: str, task: str, rows: Sequence[Row]) -> None:
    """Stops before judges are paid for where no answer says anything."""
    answers = [row for row in rows if "answer" in row]
    if not answers or any(row["answer"] for row in answers):
        return
    too_long = sum(row["finish"] == "too long" for row in answers)
    if too_long == len(answers):
        raise ModelError(
            f"{task}: none of the {too_long} prompts fits {model} beside the answer: lower --max-new-tokens, or take a "
            "model with a longer context"
        )
    raise ModelError(
        f"{task}: all {len(answers)} answers of {model} are empty: look whether the prompt format suits the model "
        "(--format), or show it demonstrations (--demos)"
    )


def _chunks(rows: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    return ((start, rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK))


@contextmanager
def _timed(folder: Path) -> Iterator[None]:
    begun = time.monotonic()
    yield
    total = _seconds(folder) + time.monotonic() - begun
    write_text(folder / "time.json", json.dumps({"seconds": round(total, 3)}) + "\n")


def _seconds(folder: Path) -> float:
    path = folder / "time.json"
    return float(json.loads(path.read_text("utf-8"))["seconds"]) if path.exists() else 0.0
