"""Runs tasks on a model: answers first, then judges when the model is gone, then figures; every item is kept."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from isara.asking import Asker
from isara.errors import ConfigError, ModelError
from isara.evaluate.figures import Figure
from isara.evaluate.items import choose
from isara.evaluate.results import Result, ResultFile, Row, read_seconds, reading, write_result
from isara.files import locked, write_sealed
from isara.keys import part_key

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

    def answer(self, asker: Asker, items: Sequence[Any], /) -> list[Row]:
        """What the model gives for each item; a row depends on its item alone."""
        ...

    def judge(self, rows: Sequence[Row], /) -> list[Row]:
        """The rows with what judges and references say of them."""
        ...

    def figures(self, rows: Sequence[Row], /) -> list[Figure]:
        """The figures over all judged rows."""
        ...

    def values(self, row: Row) -> dict[str, float]:
        """What one judged row adds to each figure that it counts in, for comparing models item by item."""
        ...


@dataclass(frozen=True, slots=True)
class SimpleTask:
    """A task of a user's own, without judges.

    Attributes:
        name: What it is called; also its folder.
        items: Its items, each with an `id`; pairs will do.
        answer: Gives a row for each item, with the item's `id` and whatever the figures are made from.
        figures: Gives the figures over all rows.
    """

    name: str
    items: Sequence[Any]
    answer: Callable[[Asker, Sequence[Any]], list[Row]]
    figures: Callable[[Sequence[Row]], list[Figure]]

    def key(self) -> dict[str, Any]:
        """What answers, with the hash of the file that it is written in: other code doesn't go on from old rows."""
        return {"answer": part_key(self.answer)}

    def judge_key(self) -> dict[str, Any]:
        """No judge is asked."""
        return {}

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """The rows as they are."""
        return list(rows)

    def values(self, row: Row) -> dict[str, float]:
        """The row's numbers."""
        return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}


@dataclass(frozen=True, slots=True)
class _Work:
    """A task with its chosen items and its two files."""

    task: Task
    chosen: list[Any]
    folder: Path
    answers: ResultFile
    judged: ResultFile


def run_tasks(
    asker: Asker,
    tasks: Sequence[Task],
    out: Path,
    *,
    weights: str,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    watch: _Watch = lambda task, stage, done, total: None,
    finished: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Measures a model on tasks; what an earlier call with the same arguments left in `out` is not done again.

    Args:
        asker: The model; it is opened only where an answer is missing, and closed before anything is judged.
        tasks: What to measure.
        out: The folder for rows and figures, a folder in it for each task.
        weights: Hash of the model's weights, a part of the rows' key, as is how its prompts are made.
        settings: What else the answers depend on (dtype), a part of the key, too.
        limit: Most items of each task, chosen by hash; None for all.
        watch: Told of progress: task, "answer" or "judge", items done, items to do.
        finished: Told of each task whose figures are written.

    Raises:
        RunError: `out` holds another evaluation's rows, is in use, is damaged, or can't be written.
        ModelError: The model can't be opened, or none of its answers to a task says anything.
    """
    base = {"weights": weights, **asker.renderer.key(), **(settings or {})}
    with locked(out):
        works = [_work(task, out / task.name, base, limit) for task in tasks]
        with asker:
            for work in works:
                _answer(asker, work, watch)
        results = []
        for work in works:
            results.append(_judge(asker.model, work, watch))
            finished(results[-1])
        return results


def _work(task: Task, folder: Path, base: Mapping[str, Any], limit: int | None) -> _Work:
    key = {"task": task.name, **base, **task.key()}
    return _Work(
        task,
        choose(task.items, limit),
        folder,
        ResultFile(folder / "answers.jsonl", key),
        ResultFile(folder / "items.jsonl", {**key, "judges": dict(task.judge_key())}),
    )


def _answer(asker: Asker, work: _Work, watch: _Watch) -> None:
    """Completes a task's answers."""
    done = work.answers.rows()
    missing = [item for item in work.chosen if item.id not in done]
    for place, chunk in _chunks(missing):
        watch(work.task.name, "answer", len(work.chosen) - len(missing) + place, len(work.chosen))
        with timed(work.folder):
            rows = work.task.answer(asker, chunk)
            _check_ids(work.task.name, chunk, rows)
            work.answers.append(rows)


def _judge(model: str, work: _Work, watch: _Watch) -> Result:
    """Completes a task's verdicts and writes its figures."""
    answered = work.answers.rows()
    rows = [answered[item.id] for item in work.chosen]
    _check_answers(model, work.task.name, rows)
    done = work.judged.rows()
    missing = [row for row in rows if row["id"] not in done]
    for place, chunk in _chunks(missing):
        watch(work.task.name, "judge", len(rows) - len(missing) + place, len(rows))
        with timed(work.folder):
            work.judged.append(work.task.judge(chunk))
    judged = work.judged.rows()
    with reading(work.judged.path, work.task.name):
        figures = work.task.figures([judged[item.id] for item in work.chosen])
    result = Result(
        work.task.name,
        figures,
        len(rows),
        len(choose(work.task.items, None)),
        read_seconds(work.folder),
        work.folder,
        tuple(item.id for item in work.chosen),
    )
    write_result(result)
    return result


def _check_ids(task: str, items: Sequence[Any], rows: Sequence[Row]) -> None:
    """Raises ConfigError where a task doesn't say which row belongs to which item."""
    expected, found = [item.id for item in items], [row.get("id") for row in rows]
    if expected != found:
        raise ConfigError(
            f"`{task}` was asked for {len(expected)} items and its `answer` gave {len(found)} rows with other ids: "
            'give one row an item, in order, with its "id"'
        )


def _check_answers(model: str, task: str, rows: Sequence[Row]) -> None:
    """Stops before judges are paid for where no answer says anything."""
    answers = [row for row in rows if "answer" in row]
    if not answers or any(row["answer"] for row in answers):
        return
    too_long = sum(row.get("finish") == "too long" for row in answers)
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
def timed(folder: Path) -> Iterator[None]:
    """Adds what the block takes to the seconds of a task's folder."""
    before, begun = read_seconds(folder), time.monotonic()
    yield
    write_sealed(folder / "time.json", {"seconds": round(before + time.monotonic() - begun, 3)})
