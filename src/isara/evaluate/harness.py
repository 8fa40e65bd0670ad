"""Any task of lm-evaluation-harness by its name, in its own prompts and metrics: what alignment cost elsewhere."""

# lm_eval has no types, and may be absent.
# mypy: disable-error-code="import-untyped, import-not-found"

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isara.errors import ConfigError, ModelError
from isara.evaluate.figures import Figure, with_error
from isara.evaluate.items import content_id
from isara.evaluate.results import Result, ResultFile, Row, read_result, read_seconds, write_result
from isara.evaluate.runner import timed
from isara.files import locked, stored_hash, value_hash
from isara.hardware import find_device

PREFIX = "lm-eval:"
_STORED = ("doc_id", "filter", "arguments", "resps", "target")


@dataclass(frozen=True, slots=True)
class HarnessOptions:
    """How lm-evaluation-harness is run.

    Attributes:
        limit: Most documents of each of a task's tasks, chosen by the hash of their number; None for all.
        dtype: As lm-evaluation-harness takes it; "auto" is what the checkpoint says.
        device: A torch device; "auto" is the best that is there.
        trust_remote_code: Runs code that comes with the model.
        own: A folder of task files to take instead of the harness's.
    """

    limit: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    own: Path | None = None


def run_harness(model: str, task: str, out: Path, weights: str, options: HarnessOptions) -> Result:
    """Runs one task or group of tasks of lm-evaluation-harness; a finished one is read from `out`.

    Args:
        model: A model folder or name that transformers loads.
        task: The task's name in the harness, without "lm-eval:".
        out: The folder for results; the task gets a folder in it.
        weights: Hash of the model's weights.
        options: How it is run.

    Raises:
        ConfigError: lm-eval is not installed, or has no such task.
        ModelError: It can't run the task on this model.
        RunError: `out` holds another evaluation's rows, is in use, is damaged, or can't be written.
    """
    folder = out / (PREFIX + task).replace(":", "-").replace("/", "-")
    with locked(out):
        key = {"task": PREFIX + task, "weights": weights, "limit": options.limit, "dtype": options.dtype}
        own = {} if options.own is None else {"task files": _files_hash(options.own)}
        rows = ResultFile(folder / "items.jsonl", {**key, "version": _version(), **own})
        # The figures are written last. Where the rows are gone, those figures may be another model's.
        if not ((folder / "summary.json").exists() and rows.path.exists()):
            with timed(folder):
                found = _evaluate(model, task, options)
            samples = list(_rows(found["samples"]))
            rows.replace(samples)
            write_result(
                Result(
                    task=PREFIX + task,
                    figures=_figures(found),
                    items=sum(counts["effective"] for counts in found["n-samples"].values()),
                    available=sum(counts["original"] for counts in found["n-samples"].values()),
                    seconds=read_seconds(folder),
                    folder=folder,
                    ids=tuple(row["id"] for row in samples),
                )
            )
        return read_result(folder)


def check_task(task: str, options: HarnessOptions) -> None:
    """Says whether there is such a task.

    Raises:
        ConfigError: lm-eval is not installed, or has no such task.
    """
    _version()
    _check_name(task, _tasks(options).all_tasks)


def _tasks(options: HarnessOptions) -> Any:
    """The harness's index of tasks; reading it, with its thousands of them, takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager() if options.own is None else TaskManager(include_path=str(options.own), include_defaults=False)


def _evaluate(model: str, task: str, options: HarnessOptions) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate

    limit = options.limit
    manager = _tasks(options)
    _check_name(task, manager.all_tasks)
    device = find_device(options.device)
    arguments = {"pretrained": model, "dtype": options.dtype, "trust_remote_code": options.trust_remote_code}
    try:
        samples = None if limit is None else _slices(manager.load([task])["tasks"], limit)
        found: Mapping[str, Any] = simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=[task],
            task_manager=manager,
            samples=samples,
            device=device,
        )
    except Exception as error:  # the harness, datasets and transformers each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"lm-evaluation-harness can't run {task} on {model} ({reason}): check that the model loads and that the "
            "task's data are on this machine or to be had from the hub"
        ) from error
    return found


def _files_hash(folder: Path) -> str:
    """Changes whenever a task's file, or data that lie beside it, do."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return value_hash({name: stored_hash(path) for name, path in files.items() if "__pycache__" not in name})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lm_eval")
    except PackageNotFoundError:
        raise ConfigError("`lm-eval:TASK` needs lm-evaluation-harness: pip install lm-eval") from None


def _check_name(task: str, known: list[str]) -> None:
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm_eval ls tasks` lists them"
        raise ConfigError(f"lm-evaluation-harness has no task {task!r}: {hint}")


def _slices(tasks: Mapping[str, Any], limit: int) -> dict[str, list[int]]:
    """For each task the numbers of the documents whose SHA-256 (of task and number) are the smallest."""

    def rank(name: str, number: int) -> str:
        return hashlib.sha256(f"{name}/{number}".encode()).hexdigest()

    return {
        name: sorted(sorted(range(len(task.eval_docs)), key=lambda number: rank(name, number))[:limit])
        for name, task in tasks.items()
    }


def _rows(samples: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[Row]:
    """A row for each document (and filter): what was asked, what the model gave, and each metric."""
    for task, documents in samples.items():
        for sample in documents:
            metrics = {name: sample[name] for name in sample.get("metrics", ())}
            stored = {name: sample[name] for name in _STORED}
            row = {"id": content_id(task, sample["doc_id"], sample["filter"]), "task": task, **stored, **metrics}
            yield json.loads(json.dumps(row, default=float), parse_constant=lambda _: None)


def metrics(row: Row) -> dict[str, float]:
    """What a stored row adds to the figures of its task, by their names."""
    values = {name: row[name] for name in row if name not in ("id", "task", *_STORED)}
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {_label(row["task"], name, row["filter"]): value for name, value in numbers.items()}


def _label(task: str, metric: str, chosen: str) -> str:
    return f"{task} {metric}" + ("" if chosen == "none" else f" ({chosen})")


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    """Each metric of each task and group, named `task metric (filter)`."""
    figures = {}
    for task, metrics in {**found["results"], **found.get("groups", {})}.items():
        n = found["n-samples"].get(task, {}).get("effective", 0)
        for name, value in metrics.items():
            metric, comma, chosen = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{chosen}")
            label = _label(task, metric, chosen)
            error = float(error) if isinstance(error, int | float) and math.isfinite(error) else math.nan
            # A perplexity is infinite where one token has no probability, and JSON has no infinity.
            number, note = (math.nan, "infinite") if math.isinf(value) else (float(value), "")
            figures[label] = replace(with_error(label, number, error, n), note=note)
    return list(figures.values())
