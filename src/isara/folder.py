"""The run folder: what lies on disk, and the stages that it is made of.

    runs/<name>/  isara.yaml  environment.json  seeds.jsonl  heldout.jsonl  log.txt
                  iteration-00/evaluate/                                      (the base model, before anything)
                  iteration-01/generate/  train/  evaluate/
                  iteration-01/prefer/                                        (where prefer.method is not none)
                  seeds-only/train/  evaluate/                                (the baseline)
                  reader/train/                                               (where answers.from is reader)
                  final/

A stage is inputs → key → folder. Its key.json holds what everything in it depends on; its DONE, written last, names
each of its files with size and SHA-256, so a stage is whole, or it is seen what is wrong with it. Every file but
candidates.jsonl, contrast.jsonl and log.txt is written aside and renamed. Times go to log.txt alone.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from isara.config import changes
from isara.errors import RunError
from isara.files import (
    damaged,
    disk_errors,
    json_lines,
    link_or_copy,
    locked,
    make_folder,
    read_json,
    read_text,
    remove,
    stored_hash,
    sync_folder,
    value_hash,
    write_json,
    write_text,
)
from isara.hardware import peak_memory, reset_peak_memory
from isara.marks import clean, told_apart
from isara.records import BESIDE, QAPair
from isara.shelf import Shelf
from isara.watching import StageName
from isara.yaml_text import YamlError, parse_yaml

log = logging.getLogger("isara")

FORMAT = 2  # of the folder; runs of format 1 had no stages and no key
_MOST_SHOWN = 120  # characters of a value in a message
_MOST_NAMED = 6  # differences
# Whole batches of these are taken over by a stage that goes on.
_GROWING = {"candidates.jsonl", "candidates.sums", "contrast.jsonl", "contrast.sums"}
# What a run that was cut off in its first moments may have left behind.
_FIRST_FILES = {".lock", "log.txt"} | {
    name + end for name in ("seeds.jsonl", "heldout.jsonl", "environment.json", "isara.yaml") for end in ("", ".tmp")
}


class RunFolder:
    """One run on disk. Use it as a context manager: it is locked against a second process meanwhile.

    Args:
        path: The folder, made where it is absent.
        shelf: Finished stages of sibling runs, from which one of the same key is borrowed; None for a run by itself.
        verify: Whether the bytes of finished stages are read and compared; sizes always are.
        show: Is called with the folder when a stage was finished.
    """

    def __init__(
        self,
        path: Path,
        shelf: Shelf | None = None,
        verify: bool = True,
        show: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = path
        self.verify = verify
        self._shelf = shelf
        self._show = show
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "RunFolder":
        self._stack.enter_context(locked(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def claim(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        seeds: Sequence[QAPair],
        heldout: Sequence[QAPair],
    ) -> None:
        """Makes the folder this run's, or checks that it already is.

        Args:
            config: The whole config, as it is dumped.
            environment: {"parts": what decides beside the config, by name, "versions": what is only remarked on}.
            seeds: The seed pairs.
            heldout: The held-out pairs.

        Raises:
            RunError: The folder holds something else, or a run with another config, other pairs, parts or weights.
        """
        old_config = self.path / "isara.yaml"
        if old_config.exists():
            self._check(config, environment, seeds, heldout)
        elif foreign := sorted(path.name for path in self.path.iterdir() if path.name not in _FIRST_FILES):
            raise RunError(
                f"{self.path} is not empty and is no run folder (it holds {foreign[0]}): give another folder with --out"
            )
        for name, pairs in (("seeds.jsonl", seeds), ("heldout.jsonl", heldout)):
            write_text(self.path / name, _pair_lines(pairs))
        if not old_config.exists():
            record = {"format": FORMAT, **environment}
            write_json(self.path / "environment.json", {**record, "sha256": value_hash(record)})
        # Last, because its existence is what makes the folder a run.
        write_text(old_config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        self._stack.enter_context(_logging_to(self.path / "log.txt"))
        if not self.verify:
            log.warning("finished stages are checked by their sizes alone, as --no-verify says")

    def stage(self, t: int, name: StageName, key: Mapping[str, Any], work: Callable[[Path], None]) -> Path:
        """The folder of a finished stage: as it lies there, borrowed from the shelf, or made by `work`.

        Args:
            t: The iteration.
            name: The stage.
            key: What everything in it depends on, JSON-ready.
            work: Makes the files in the folder it is given; where it was cut off, it finds there what it had made.

        Raises:
            RunError: The folder holds a stage of another key, or one that is damaged.
        """
        folder = stage_folder(self.path, t, name)
        _no_links(self.path, folder)
        key = _stored(key)
        if (folder / "key.json").exists():
            self._check_key(folder, key)
        if is_done(folder):
            check_stage(folder, self.verify)
            if self._shelf is not None:  # where a kill came between the two
                self._shelf.keep(value_hash(key), folder)
            return folder
        if self._shelf is not None and self._shelf.lend(value_hash(key), folder):
            log.info("%s: %s is taken from a run with the same key", _shown_number(t), name)
            check_stage(folder, self.verify)
            self.show()
            return folder
        make_folder(folder)
        for path in sorted(folder.iterdir()):  # what is not known to be whole is made anew
            if path.name not in _GROWING:
                remove(path)
        write_json(folder / "key.json", key)
        reset_peak_memory()
        work(folder)
        if peak := peak_memory():
            log.info("%s: %s had at most %.2f GiB of memory in this process", _shown_number(t), name, peak / 2**30)
        seal(folder)
        if self._shelf is not None:
            self._shelf.keep(value_hash(key), folder)
        self.show()
        return folder

    def has(self, t: int, name: StageName, key: Mapping[str, Any]) -> bool:
        """Whether a stage of this key is finished."""
        folder = stage_folder(self.path, t, name)
        return is_done(folder) and read_json(folder / "key.json") == _stored(key)

    def show(self) -> None:
        """Shows the folder as it stands to whoever looks on."""
        if self._show is not None:
            self._show(self.path)

    @property
    def finished(self) -> int:
        """Iterations that are trained and measured: what is done stays done."""
        return sum(is_done(stage_folder(self.path, t, "evaluate")) for t in iteration_numbers(self.path))

    def export(
        self, model: Path, iteration: int, files: Mapping[str, str], said: Mapping[str, Any] | None = None
    ) -> Path:
        """Copies a model to final/, together with the given text files; the folder's path.

        Does nothing where they lie there unchanged.

        Args:
            model: Its folder.
            iteration: Whose model it is; 0 is the base model.
            files: Text files by name.
            said: What isara.json says of it beside that, JSON-ready.
        """
        mark = {"iteration": iteration, **(said or {})}
        final, aside = self.path / "final", self.path / "final.tmp"
        if (final / "isara.json").exists():
            if _exported_as(final, mark, files):
                return final
            log.info("final/ is made anew: it was another model's, or was changed")
        remove(aside)
        with disk_errors(final):
            # Hard links for a trained model's weights alone, which were checked a moment ago: they need not lie there
            # twice. Everything else is a copy, so that who changes it changes no record, and nobody's base model.
            leave = shutil.ignore_patterns(".*", "isara.json")
            shutil.copytree(model, aside, copy_function=_link_weights if iteration else shutil.copyfile, ignore=leave)
        for name, text in files.items():
            make_folder((aside / name).parent)
            write_text(aside / name, text)
        write_json(aside / "isara.json", {**mark, "files": file_table(aside)})
        remove(final)
        with disk_errors(final):
            aside.rename(final)
        return final

    def _check(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        seeds: Sequence[QAPair],
        heldout: Sequence[QAPair],
    ) -> None:
        old = read_environment(self.path)
        differences = [
            f"{clean(key, _MOST_SHOWN)} {_changed(was, now)}"
            for key, was, now in changes(read_config(self.path), config)
        ]
        for name, pairs in (("seeds.jsonl", seeds), ("heldout.jsonl", heldout)):
            if read_text(self.path / name) != _pair_lines(pairs):
                differences.append(f"the pairs in {name} are others")
        parts: Mapping[str, Any] = json.loads(json.dumps(environment["parts"], default=str))
        for name in {**old["parts"], **parts}:
            was, now = old["parts"].get(name), parts.get(name)
            if was != now:
                if isinstance(was, list) and isinstance(now, list):  # of many parts those that differ, where any do
                    was, now = _without(was, now) or was, _without(now, was) or now
                differences.append(f"the {name} {_changed(was, now)}")
        if differences:
            raise _other_run(self.path, differences)
        for name, version in environment["versions"].items():
            if (was := old["versions"].get(name)) != version:
                log.warning("this run began with %s %s and goes on with %s", name, _shown(was), version)

    def _check_key(self, folder: Path, key: Mapping[str, Any]) -> None:
        old = read_json(folder / "key.json")
        if old != key:
            names = [clean(name, _MOST_SHOWN) for name in {**old, **key} if old.get(name) != key.get(name)]
            differences = [f"{folder.parent.name}/{folder.name} was made with another {name}" for name in names]
            raise _other_run(self.path, differences[:_MOST_NAMED])


def stage_folder(run: Path, t: int, name: StageName) -> Path:
    """Where a stage of an iteration, or of a model beside them, lies."""
    return run / BESIDE.get(t, f"iteration-{t:02d}") / name


def model_stage(run: Path, t: int) -> Path:
    """Where the stage lies that has made the model of an iteration: its preference step, or its training."""
    preference = stage_folder(run, t, "prefer")
    return preference if is_done(preference) else stage_folder(run, t, "train")


def is_done(folder: Path) -> bool:
    """Whether everything of a stage is on disk."""
    return (folder / "DONE").exists()


def iteration_numbers(run: Path) -> list[int]:
    """The iterations that a run folder holds, from 1, in order."""
    names = (folder.name.removeprefix("iteration-") for folder in run.glob("iteration-*"))
    return sorted(int(name) for name in names if name.isdecimal() and int(name))


def seal(folder: Path) -> None:
    """Writes DONE: each file of the stage with its size and hash. Nothing in the folder is written after this."""
    sync_folder(folder)
    write_json(folder / "DONE", file_table(folder))


def file_table(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file in a folder, by its path in it, in order; DONE and files aside left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DONE")
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": stored_hash(path)}
        for path in paths
        if not path.name.endswith(".tmp")
    }


def check_stage(folder: Path, verify: bool = True) -> dict[str, dict[str, Any]]:
    """The files of a finished stage, as its DONE says, each of which has been looked at.

    Raises:
        RunError: One is missing, changed, cut, foreign, or a link.
    """
    table = read_json(folder / "DONE")
    for name, facts in table.items():
        path = folder / name
        if not isinstance(facts, dict) or not name or ".." in Path(name).parts or Path(name).is_absolute():
            raise _spoilt(folder, folder / "DONE", "is damaged")
        if path.is_symlink():
            raise _spoilt(folder, path, "is a link")
        if not path.is_file():
            raise _spoilt(folder, path, "is missing")
        if path.stat().st_size != facts.get("bytes"):
            raise _spoilt(folder, path, f"has {path.stat().st_size} bytes instead of {facts.get('bytes')}")
        if verify and stored_hash(path) != facts.get("sha256"):
            raise _spoilt(folder, path, "was changed")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != "DONE" and name not in table and (path.is_symlink() or path.is_file()):
            raise _spoilt(folder, path, "does not belong there")
    return table


def _stored(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it is read again."""
    found: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return found


def link_stage(source: Path, folder: Path) -> None:
    """The work of a stage that a finished one of the same key has done already."""
    own = shutil.ignore_patterns("DONE", "key.json")
    with disk_errors(folder):
        shutil.copytree(source, folder, copy_function=link_or_copy, ignore=own, dirs_exist_ok=True)


def open_shelf(path: Path) -> Shelf:
    """A shelf of finished stages, each of which is looked at before it is lent."""

    def is_whole(stage: Path) -> bool:
        try:
            check_stage(stage)
        except RunError:
            return False
        return True

    return Shelf(path, is_whole)


def model_hash(train: Path) -> str:
    """A hex digest of the model that a finished training left, from the hashes of its files."""
    table = read_json(train / "DONE")
    return value_hash({name: facts for name, facts in table.items() if name.startswith("model/")})


def read_environment(run: Path) -> dict[str, Any]:
    """What the run was made with: {"format", "parts", "versions"}.

    Raises:
        RunError: The folder is no run of this format, or its record is damaged.
    """
    path = run / "environment.json"
    if not path.is_file():
        if not (run / "isara.yaml").is_file():
            raise _no_run(run)
        raise RunError(
            f"{run} holds an isara.yaml and is no run folder, or has lost its environment.json: give the --out of a run"
        )
    found = read_json(path)
    if "format" not in found:
        raise RunError(
            f"{run} was made by an earlier version of ISARA, whose folders this one does not read: "
            "start a new run with --out ANOTHER_FOLDER"
        )
    if found["format"] != FORMAT:
        raise RunError(
            f"{run} is a run folder of format {_shown(found['format'])}, and this version of ISARA reads format "
            f"{FORMAT}: use the version that made it"
        )
    if found.pop("sha256", None) != value_hash(found):
        raise damaged(path)
    return found


def _no_run(run: Path) -> RunError:
    return RunError(f"expected a run folder with an isara.yaml at {run}, found none: give the --out of a run")


def read_config(run: Path) -> dict[str, Any]:
    """The config that a run folder was started with.

    Raises:
        RunError: The folder is no run folder.
    """
    path = run / "isara.yaml"
    if not path.is_file():
        raise _no_run(run)
    try:
        config = parse_yaml(read_text(path))
    except YamlError:
        config = None
    if not isinstance(config, dict):
        raise RunError(f"{path} holds no config: it was changed by hand; put the run's own back")
    return config


class _LogFile(logging.FileHandler):
    """A log that a full disk makes incomplete, and nothing worse."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        """Drops the line: the run itself tells of the disk when it can't write what matters."""

    def close(self) -> None:
        """Closes the file, or gives up on its last lines."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Sends the package's log to log.txt, the one place where times are written."""
    with disk_errors(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _no_links(run: Path, folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path == run:
            return
        if path.is_symlink():
            raise RunError(f"{path} is a link, and a run is written into its own folder alone: put a folder there")


def _shown_number(t: int) -> str:
    return BESIDE.get(t, f"iteration {t}")


def _exported_as(final: Path, said: Mapping[str, Any], files: Mapping[str, str]) -> bool:
    try:
        mark = read_json(final / "isara.json")
        table = file_table(final)
        same = all(read_text(final / name) == text for name, text in files.items())
    except RunError:
        return False
    table.pop("isara.json")
    return bool(mark == {**said, "files": table} and same)


def _link_weights(source: str, target: str) -> None:
    (link_or_copy if source.endswith(".safetensors") else shutil.copyfile)(source, target)


def _spoilt(folder: Path, path: Path, what: str) -> RunError:
    return RunError(
        f"{path} {what}, which is not what DONE says of it: put it back, or remove {folder} and run the same command "
        "again, which makes that stage anew"
    )


def _other_run(run: Path, differences: Iterable[str]) -> RunError:
    return RunError(
        f"{run} holds another run: {'; '.join(differences)}. Undo the change to resume it, "
        "or start a new run with --out ANOTHER_FOLDER"
    )


def _without(some: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    return [each for each in some if each not in others]


def _pair_lines(pairs: Iterable[QAPair]) -> str:
    return json_lines(pair.to_json() for pair in pairs)


def _changed(was: object, now: object) -> str:
    one, other = ("not set" if value is None else str(value) for value in (was, now))
    one, other = told_apart(one, other, _MOST_SHOWN)
    return f"was {one} and is {other}"


def _shown(value: object) -> str:
    return "not set" if value is None else clean(str(value), _MOST_SHOWN)
