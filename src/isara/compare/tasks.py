"""An evaluation task as the score: the tasks of `isara evaluate`, each item asked after the arm's demonstrations."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isara.compare.answers import shown_pairs
from isara.compare.arms import Arm
from isara.errors import ConfigError
from isara.evaluate.harness import PREFIX, HarnessOptions, check_task, run_harness
from isara.evaluate.items import Asking, choose
from isara.evaluate.results import read_results
from isara.evaluate.runner import Task, run_tasks
from isara.files import value_hash
from isara.keys import part_key
from isara.parts import Parts
from isara.records import QAPair
from isara.stages import Model
from isara.statistics import Floats

_TEXTS = ("question", "prompt", "instruction")  # what the items of tasks call what they ask
# What of a harness row is no metric.
_NO_METRICS = {"id", "task", "doc_id", "filter", "arguments", "resps", "target"}


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A task that arms are scored by.

    Attributes:
        task: The task; of one that puts questions to the model, how it does so is the arm's matter.
        limit: Most items, chosen by hash; None for all.
    """

    task: Task
    limit: int | None = None

    @property
    def about(self) -> str:
        """What the columns are, in a line."""
        return f"each figure of the task `{self.task.name}`, the first one first"

    def questions(self) -> list[QAPair]:
        """The items' texts, for what training must not have seen."""
        items = choose(self.task.items, self.limit)
        texts = [next((t for name in _TEXTS if isinstance(t := getattr(item, name, None), str)), "") for item in items]
        return [QAPair(text, "") for text in texts if text]

    def measure(
        self, parts: Parts, arm: Arm, model: Model, folder: Path
    ) -> tuple[dict[str, Floats], list[dict[str, Any]]]:
        """The values of each item by figure, nan where an item has none, and the items' rows.

        Args:
            parts: Of the arm's run.
            arm: Says which demonstrations are shown.
            model: Is asked, where its answers don't lie there.
            folder: Where answers and verdicts lie, by the key of what made them.

        Raises:
            ModelError: None of the answers says anything.
            RunError: Something there is damaged, or can't be written.
        """
        retrieve, shown = shown_pairs(parts, arm)
        task = _asked_as(self.task, Asking(parts.config.answers.max_new_tokens, retrieve, shown))
        settings = {"engine": part_key(parts.engine)}
        key = [model.weights, part_key(parts.renderer), settings, dict(task.key()), dict(task.judge_key())]
        place = folder / f"{task.name}-{value_hash(key)[:16]}"
        with parts.asker(model.path) as asker:
            run_tasks(asker, [task], place, weights=model.weights, settings=settings, limit=self.limit)
        found = {row["id"]: row for row in read_results(place / task.name / "items.jsonl")}
        rows = [found[item.id] for item in choose(task.items, self.limit)]
        return columns([task.values(row) for row in rows]), rows


@dataclass(frozen=True, slots=True)
class HarnessScore:
    """A task of lm-evaluation-harness that arms are scored by: it asks in its own way, so no arm can show pairs.

    Attributes:
        name: The task's name in the harness.
        options: How it is run.
    """

    name: str
    options: HarnessOptions

    @property
    def about(self) -> str:
        """What the columns are, in a line."""
        return f"each metric of `{PREFIX}{self.name}`, the first one first"

    def check(self, arms: Sequence[Arm]) -> None:
        """Looks over what can be known before anything runs.

        Raises:
            ConfigError: An arm shows pairs, or lm-eval is not installed or has no such task.
        """
        for arm in arms:
            self._check_arm(arm)
        check_task(self.name, self.options)

    def _check_arm(self, arm: Arm) -> None:
        if arm.shown != "none":
            raise ConfigError(
                f"{arm.name} shows pairs before a question, and {PREFIX}{self.name} asks in its own way: leave it out"
            )

    def measure(
        self, parts: Parts, arm: Arm, model: Model, folder: Path
    ) -> tuple[dict[str, Floats], list[dict[str, Any]]]:
        """As `TaskScore.measure`.

        Raises:
            ConfigError: The arm shows pairs or changes prompts, or lm-eval is not installed or has no such task.
            ModelError: It can't run the task on this model.
        """
        self._check_arm(arm)
        place = folder / f"{value_hash([PREFIX, self.name, model.weights, self.options.limit])[:16]}"
        result = run_harness(model.path, self.name, place, model.weights, self.options)
        rows = read_results(result.folder / "items.jsonl")
        return columns([_metrics(row) for row in rows]), rows


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    """Values a row as a column each, nan where a row has none; the first row's first column first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}


def _asked_as(task: Task, asking: Asking) -> Task:
    """The task with its questions put in this way; one that doesn't say how it puts them stays as it is."""
    if not hasattr(task, "asking"):
        return task
    own = copy.copy(task)
    own.asking = asking
    return own


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value) for name, value in row.items() if name not in _NO_METRICS and isinstance(value, int | float)
    }
