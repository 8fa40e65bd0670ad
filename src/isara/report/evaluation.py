"""report.html of an evaluation: its figures, what another model has beside them, and every item behind each number."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isara.evaluate.comparison import Kept, kept_comparison
from isara.evaluate.domain import MEAN_OVER_ITEMS
from isara.evaluate.harness import PREFIX
from isara.evaluate.results import Result, Row, broken, read_result, read_results, reading, rows_hash
from isara.evaluate.rows import ASKED, GIVEN, SHIPPED, WANTED, counted, said
from isara.evaluate.table import interval, notes, remark, shown
from isara.files import read_json, read_sealed, without_nan, write_sealed, write_text
from isara.report.page.html import FILE_NAME, page, refreshing

MODEL = "model.json"
_DIGITS = 6  # of a value behind the point
_PARTS = ("source", "category", "task")  # columns that say of which part of a task an item is
# What is shown in a place of its own, or of every row.
_PLACED = {"id", *ASKED, *GIVEN, *WANTED, *_PARTS, "safe", "verdicts", "preference", "finish", "tokens"}


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is what `isara evaluate` writes, finished or not."""
    return any(folder.glob("*/items.key.json"))


def name_model(folder: Path, model: str) -> None:
    """Writes down whose results a folder holds: the keys of the rows know the weights alone.

    Args:
        folder: The evaluation's.
        model: A hub name or a folder; a folder's path is nobody's business.

    Raises:
        RunError: It can't be written.
    """
    path = Path(model).expanduser()
    write_sealed(folder / MODEL, {"model": path.resolve().name if path.exists() else model})


def write_page(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of an evaluation; its path. The same results give the same bytes.

    Args:
        folder: The evaluation, of which some tasks may be unfinished.
        out: The file; None for report.html in the folder.

    Raises:
        RunError: A file of it is damaged, or the page can't be written.
    """
    path = folder / FILE_NAME if out is None else out
    write_text(path, page("evaluation", content(folder), f"{_name(folder)} · ISARA"))
    return path


def refresh_page(folder: Path) -> None:
    """Writes report.html; where that fails, a line in the log says why, and the evaluation goes on."""
    with refreshing(folder):
        write_page(folder)


def content(folder: Path) -> dict[str, Any]:
    """Everything that the page of an evaluation shows, JSON-ready.

    Raises:
        RunError: A file of it is damaged.
    """
    results = list(_results(folder))
    finished = {result.folder.name for result in results}
    kept = kept_comparison(folder)
    tasks, rows = [], []
    for place, result in enumerate(results):
        task, items = _task(result, place, kept)
        tasks.append(task)
        rows += items
    return {
        "name": _name(folder),
        "model": _model(folder),
        "tasks": tasks,
        "unfinished": sorted({path.parent.name for path in folder.glob("*/items.key.json")} - finished),
        "against": kept and {"model": _model(kept.folder) or kept.folder.name, "changed": kept.changed},
        "notes": notes(results),
        "rows": rows,
    }


def _results(folder: Path) -> Iterator[Result]:
    """The finished tasks: figures that are of other rows than lie there now are waiting to be made anew."""
    for path in sorted(folder.glob("*/summary.json")):
        if read_sealed(path).get("rows") == rows_hash(path.parent):
            yield read_result(path.parent)


def _name(folder: Path) -> str:
    """What an evaluation is called: in a run folder, as the run is."""
    path = folder.resolve()
    return path.parent.name if (path.parent / "isara.yaml").is_file() else path.name


def _model(folder: Path) -> str | None:
    path = folder / MODEL
    return str(read_sealed(path)["model"]) if path.is_file() else None


def _task(result: Result, place: int, kept: Kept | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is said of a task, and its items."""
    key = read_json(result.folder / "items.key.json")
    judges = key.get("judges")
    compared = [] if kept is None else [row for row in kept.figures if row["task"] == result.task]
    names = [*(each.name for each in result.figures), *(row["name"].removesuffix(MEAN_OVER_ITEMS) for row in compared)]
    read = _Reader(result.task, judges if isinstance(judges, Mapping) else {}, list(dict.fromkeys(names)))
    before = {}
    if kept and compared:
        before = dict(read.rows(kept.folder / result.folder.name))
    own = dict(read.rows(result.folder))
    try:
        rows = [own[item] for item in result.ids or own]
    except KeyError:
        raise broken(result.folder / "summary.json") from None
    for row in rows:
        row["t"] = place
        if row["id"] in before:
            row["b"] = {name: value for name, value in before[row["id"]].items() if name in ("a", "v", "j", "f")}
    task = {
        "name": result.task,
        "items": result.items,
        "available": result.available,
        "made": _made(key),
        "weights": str(key.get("weights", "")),
        "figures": [
            {**figure.to_json(), "said": shown(figure), "interval": interval(figure), "remark": remark(figure)}
            for figure in result.figures
        ],
        "compared": [{**row, "of": read.names[row["name"].removesuffix(MEAN_OVER_ITEMS)]} for row in compared],
        "names": list(read.names),
    }
    return task, rows


def _made(key: Mapping[str, Any]) -> str:
    """How the model was asked, of what the key of its rows says."""
    form = key.get("format")
    facts = {
        "weights": str(key.get("weights", ""))[:12],
        "format": form.get("name") if isinstance(form, Mapping) else None,
        "dtype": key.get("dtype"),
        "most tokens of an answer": key.get("max_new_tokens"),
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


class _Reader:
    """Reads the rows of a task, of one model or another; a value is known by the place of its name in `names`.

    Names are those of figures; of a task of a user's own each number has one: its figures may be called otherwise.
    """

    def __init__(self, task: str, judges: Mapping[str, Any], names: Sequence[str]) -> None:
        self.task, self.judges = task, judges
        self.own = task not in SHIPPED and not task.startswith(PREFIX)
        self.names = {name: place for place, name in enumerate(names)}

    def rows(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each stored row as the page shows it, by its id."""
        path = folder / "items.jsonl"
        for row in read_results(path):
            with reading(path, self.task):
                yield row["id"], self._shown(row)

    def _shown(self, row: Row) -> dict[str, Any]:
        found = counted(self.task, row, self.judges)
        values = {name: value for name, value in found.items() if self.own or name in self.names}
        known: dict[str, Any] = {
            "id": row["id"],
            "q": said(row, ASKED) or "",
            "v": {
                self.names.setdefault(name, len(self.names)): round(value, _DIGITS) for name, value in values.items()
            },
        }
        more = {name: _text(value) for name, value in row.items() if name not in _PLACED and name not in values}
        others = {
            "a": said(row, GIVEN),
            "w": said(row, WANTED),
            "p": _part(row) or None,
            "j": _verdicts(row) or None,
            "f": row.get("finish"),
            "n": row.get("tokens"),
            "more": more or None,
        }
        return known | {name: value for name, value in others.items() if value is not None}


def _part(row: Row) -> str:
    parts = [str(row[name]) for name in _PARTS if name in row]
    return " · ".join([*parts, *(["safe" if row["safe"] else "unsafe"] if "safe" in row else [])])


def _verdicts(row: Row) -> dict[str, list[Any]]:
    """What each judge said, how sure it was, and its own words."""
    verdicts = row.get("verdicts", {}).items()
    found = {kind: [each["label"], each["score"], _text(each["raw"])] for kind, each in verdicts}
    if preference := row.get("preference"):
        winner = {"a": "the model wins", "b": "the reference wins"}.get(preference["winner"], preference["winner"])
        found["pairwise"] = [winner, preference["probability"], _text(preference["raw"])]
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(without_nan(value), ensure_ascii=False)
