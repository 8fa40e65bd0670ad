"""What a name stands for: a file, a folder in one of the forms that people have, or a data set on the hub."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from isara.data.faults import Record, fault, listed, reason
from isara.data.formats import ENDINGS, FILE_ENDINGS, boundary, file_ending, file_records

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:((?P<config>[^/:]+)/)?(?P<split>[^/]+))?")
# What a folder says about its data, under an ending that data have.
_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLIT = re.compile(
    r"(?:^|[^a-z])(?:(?P<train>train(?:ing)?)|test(?:ing)?|eval(?:uation)?|val(?:id(?:ation)?)?|dev|held-?_?out)"
    r"(?:[^a-z]|$)"
)
# Where the files of a folder are looked for, the first that has any: a clone from the hub keeps them in data/.
_PLACES = (".", "data", "train", "data/train")


def find_records(source: str | Path) -> Iterator[Record]:
    """The records of a source.

    Raises:
        SeedError: There is no such source, or it can't be read.
    """
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _from_folder(path)
        if path.exists():
            return file_records(path)
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, ValueError, RuntimeError) as error:  # NUL in a name, no rights, no such user
        raise fault(source, "a file of question-answer pairs", reason(error), "check the path") from error
    hub = _HUB_NAME.fullmatch(str(source))
    if hub and not str(source).lower().endswith(FILE_ENDINGS):
        return _from_hub(hub)
    names = difflib.get_close_matches(path.name, beside, n=1)
    advice = f"did you mean {path.with_name(names[0])}?" if names else "check the path, or name hub data as owner/name"
    raise fault(source, "a file of question-answer pairs", "nothing", advice)


def _from_folder(path: Path) -> Iterator[Record]:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _from_saved(path)
    files = next((some for place in _PLACES if (some := _data_files(path / place))), [])
    if not files:
        below = sorted(str(file.relative_to(path)) for file in path.glob("*/*") if _is_data(file))
        found = f"none but {listed(below[:3])} below it" if below else "none"
        raise fault(path, f"a folder with data files ({ENDINGS})", found, "name the file itself")
    chosen, left = _chosen(files, path)
    note = f"of {path} {listed(file.name for file in chosen)} is read; left out: {listed(file.name for file in left)}"
    return _noted((record for file in chosen for record in file_records(file)), (note,) if left else ())


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _is_data(file)) if folder.is_dir() else []


def _is_data(file: Path) -> bool:
    name = file.name.lower()
    return bool(file_ending(file)) and not name.startswith((".", "_", "~")) and name not in _ABOUT and file.is_file()


def _chosen(files: list[Path], path: Path) -> tuple[list[Path], list[Path]]:
    """The files to read, and those that hold another split; where there are seeds, nothing else is meant."""
    if seeds := [file for file in files if file.name.lower().startswith("seeds.")]:
        return seeds, []
    splits = {file: match for file in files if (match := _SPLIT.search(file.name.lower()))}
    train = [file for file, match in splits.items() if match["train"]]
    chosen = train or [file for file in files if file not in splits]
    if not chosen and len(files) > 1:
        raise fault(path, "a train split", listed(file.name for file in files), "name the file that is meant")
    chosen = chosen or files
    # Beside a train split, a file without a split's name is another thing, too.
    return chosen, [file for file in files if file not in chosen]


def _noted(records: Iterator[Record], notes: tuple[str, ...]) -> Iterator[Record]:
    """The records, the first of them with notes about their source."""
    for record in records:
        yield replace(record, notes=(*notes, *record.notes))
        notes = ()


def _from_saved(path: Path) -> Iterator[Record]:
    """The rows of a folder that `datasets` saved; of several splits the one called train."""
    from datasets import DatasetDict, load_from_disk

    found: dict[str, Any] = {}

    def load() -> Iterator[Any]:
        yield load_from_disk(str(path))

    wanted = "a folder that datasets saved"
    (data,) = boundary(load, path, wanted, "{reason}", "save it again")
    if isinstance(data, DatasetDict):
        if "train" not in data and len(data) > 1:
            raise fault(path, "a split called train", listed(data), "name the folder of one split")
        found = dict(data)
        data = data["train"] if "train" in data else next(iter(data.values()))
    others = [name for name in found if name != "train"] if len(found) > 1 else []
    note = f"of the splits train is read; left out: {listed(others)}"
    rows = boundary(lambda: iter(data), path, wanted, "{reason}", "save it again")
    records = (Record(str(path), number, row) for number, row in enumerate(rows, start=1))
    return _noted(records, (note,) if others else ())


def _from_hub(source: re.Match[str]) -> Iterator[Record]:
    from datasets import load_dataset

    def rows() -> Iterator[Any]:
        yield from load_dataset(source["name"], source["config"], split=source["split"] or "train")

    advice = "check the name (owner/name:config/split) and the network, or download a file"
    found = boundary(rows, source[0], "a file, a folder or a data set on the hub", "none ({reason})", advice)
    return (Record(source[0], number, row) for number, row in enumerate(found, start=1))
