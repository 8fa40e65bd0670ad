"""The run folder: what lies on disk, how it is replayed, and what makes it whole.

    runs/<name>/  isara.yaml  environment.json  seeds.jsonl  heldout.jsonl  log.txt
                  iteration-00/ eval.json                     (the base model, before anything)
                  iteration-01/ candidates.jsonl  accepted.jsonl  stats.json  model/  eval.json  DONE
                  final/  report files

Every file but `candidates.jsonl` and `log.txt` is written aside and renamed, so it is whole or absent.
`candidates.jsonl` grows by whole batches, and a torn last batch is cut off when the run is resumed. Times go to
`log.txt` alone.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isara.data import QAPair
from isara.errors import RunError

log = logging.getLogger("isara")

# They don't change what a finished part of a run holds, so a run may be resumed with other values.
FREE_KEYS = {"out", "iterations", "max_batches", "min_yield", "patience", "tokens_per_batch", "child_process"}
# What a run that was cut off in its first moments may have left behind.
_FIRST_FILES = {".lock", "log.txt"} | {
    name + end for name in ("seeds.jsonl", "heldout.jsonl", "environment.json", "isara.yaml") for end in ("", ".tmp")
}
# What they name is compared by content, so files may have moved.
NAME_KEYS = {"model", "seeds", "heldout"}
# Entries of environment.json that must not change within a run; the others are versions, and are only remarked on.
DECIDING = {"weights": "the hash of the base model's weights was", "embedder": "the embedder was"}


@dataclass(frozen=True, slots=True)
class Iteration:
    """The folder of one iteration."""

    folder: Path
    number: int

    @property
    def candidates(self) -> Path:
        """Every generated row, in batches, with what made it and what became of it."""
        return self.folder / "candidates.jsonl"

    @property
    def accepted(self) -> Path:
        """The rows that passed, as pairs; its existence means that generation is over."""
        return self.folder / "accepted.jsonl"

    @property
    def model(self) -> Path:
        """The model trained in this iteration."""
        return self.folder / "model"

    @property
    def trained(self) -> bool:
        """Whether training is over: its statistics are written after its model."""
        return (self.folder / "train.json").exists()

    @property
    def done(self) -> bool:
        """Whether everything of this iteration is on disk."""
        return (self.folder / "DONE").exists()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds one whole batch of candidates in one write."""
        with _disk_errors(self.candidates), self.candidates.open("ab") as file:
            file.write(_lines(rows).encode())
            file.flush()
            os.fsync(file.fileno())

    def replay(self) -> list[dict[str, Any]]:
        """The candidates on disk up to the last whole batch; what follows it is cut off the file."""
        if not self.candidates.exists():
            return []
        whole: list[dict[str, Any]] = []
        batch: list[dict[str, Any]] = []
        end = position = 0
        with _disk_errors(self.candidates), self.candidates.open("rb+") as file:
            for line in file:
                position += len(line)
                row = parse_row(line)
                if row is None:
                    break
                batch.append(row)
                if len(batch) == row["batch_size"]:
                    whole += batch
                    batch, end = [], position
            file.truncate(end)
        return whole

    def write_accepted(self, pairs: Iterable[Mapping[str, Any]]) -> None:
        """Writes the accepted pairs and so closes the generation of this iteration."""
        write_text(self.accepted, _lines(pairs))

    def read_accepted(self) -> list[QAPair]:
        """The accepted pairs of a closed generation."""
        return [QAPair.from_json(row) for row in read_rows(self.accepted)]

    def remove_model(self) -> None:
        """Removes the model folder, where there is one."""
        if self.model.exists():
            with _disk_errors(self.model):
                shutil.rmtree(self.model)

    def sync_model(self) -> None:
        """Sees to it that the model is on the disk before anything says so, whatever the power supply does."""
        with _disk_errors(self.model):
            for path in self.model.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes one of the small result files ("stats.json", "eval.json")."""
        write_text(self.folder / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of one of the small result files, or None where it is not there yet."""
        path = self.folder / name
        return read_json(path) if path.exists() else None

    def finish(self) -> None:
        """Marks the iteration as whole; nothing in its folder is written after this."""
        write_text(self.folder / "DONE", "")


class RunFolder:
    """One run on disk. Use it as a context manager: it is locked against a second process meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log: logging.FileHandler | None = None

    def __enter__(self) -> "RunFolder":
        from filelock import FileLock, Timeout

        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock")
        with _disk_errors(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:  # an OSError, too
                raise RunError(
                    f"{self.path} is in use by another process: wait for it, or give another folder with --out"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._log is not None:
                log.removeHandler(self._log)
                self._log.close()
        finally:
            self._lock.release()

    def claim(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        seeds: Sequence[QAPair],
        heldout: Sequence[QAPair],
    ) -> None:
        """Makes the folder this run's, or checks that it already is.

        Raises:
            RunError: The folder holds something else, or a run with another config, other pairs or other weights.
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
            write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
        # Last, because its existence is what makes the folder a run.
        write_text(old_config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        self._open_log()

    def _open_log(self) -> None:
        """Sends the package's log to log.txt, the one place where times are written."""
        with _disk_errors(self.path):
            self._log = _LogFile(self.path / "log.txt", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(self._log)
        log.setLevel(logging.INFO)

    def _check(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        seeds: Sequence[QAPair],
        heldout: Sequence[QAPair],
    ) -> None:
        differences = [
            f"{key} was {_shown(was)} and is {_shown(now)}" for key, was, now in changes(read_config(self.path), config)
        ]
        for name, pairs in (("seeds.jsonl", seeds), ("heldout.jsonl", heldout)):
            if _read(self.path / name) != _pair_lines(pairs):
                differences.append(f"the pairs in {name} are others")
        old = read_json(self.path / "environment.json")
        for name in sorted(old.keys() | environment.keys()):
            if (was := old.get(name)) == (now := environment.get(name)):
                continue
            if name in DECIDING:
                differences.append(f"{DECIDING[name]} {_shown(was)} and {_shown(now)} now")
            else:
                log.warning("this run began with %s %s and goes on with %s", name, _shown(was), _shown(now))
        if differences:
            raise RunError(
                f"{self.path} holds another run: {'; '.join(differences)}. Undo the change to resume it, "
                "or start a new run with --out ANOTHER_FOLDER"
            )

    def iteration(self, number: int) -> Iteration:
        """The folder of iteration `number` (0 for the base model), made where it is absent."""
        folder = self.path / f"iteration-{number:02d}"
        with _disk_errors(folder):
            folder.mkdir(exist_ok=True)
        return Iteration(folder, number)

    def export(self, iteration: Iteration, files: Mapping[str, str]) -> Path:
        """Copies the model of an iteration to final/, together with the given text files; the folder's path.

        Does nothing where the same model lies there with the same files.
        """
        final, aside = self.path / "final", self.path / "final.tmp"
        files = {**files, "isara.json": json.dumps({"iteration": iteration.number}) + "\n"}
        if all((final / name).is_file() and _read(final / name) == text for name, text in files.items()):
            return final
        with _disk_errors(final):
            shutil.rmtree(aside, ignore_errors=True)
            # Hard links where the disk allows them: the weights of a large model need not lie there twice.
            shutil.copytree(iteration.model, aside, copy_function=_link)
            for name, text in files.items():
                (aside / name).unlink(missing_ok=True)
                write_text(aside / name, text)
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
        return final


def read_config(run: Path) -> dict[str, Any]:
    """The config that a run folder was started with.

    Raises:
        RunError: The folder is no run folder.
    """
    path = run / "isara.yaml"
    if not path.is_file():
        raise RunError(f"expected a run folder with an isara.yaml at {run}, found none: give the --out of a run")
    try:
        config = yaml.safe_load(_read(path))
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        raise RunError(f"{path} holds no config: it was changed by hand; put the run's own back")
    return config


def exported(run: Path) -> int | None:
    """The iteration whose model lies in final/ of a run folder, or None."""
    mark = run / "final" / "isara.json"
    return int(read_json(mark)["iteration"]) if mark.exists() else None


def iterations(run: Path) -> list[Iteration]:
    """The iterations that a run folder holds, the base model's folder left out, in order."""
    names = (folder.name.removeprefix("iteration-") for folder in run.glob("iteration-*"))
    numbers = sorted(int(name) for name in names if name.isdecimal() and int(name))
    return [Iteration(run / f"iteration-{number:02d}", number) for number in numbers]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs and may not."""
    was, now = dict(_flat(old)), dict(_flat(new))
    keys = [key for key in {**was, **now} if key.split(".")[-1] not in FREE_KEYS | NAME_KEYS]
    return [(key, was.get(key), now.get(key)) for key in keys if was.get(key) != now.get(key)]


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or none: aside, flushed to disk, then renamed."""
    aside = path.with_name(path.name + ".tmp")
    with _disk_errors(path):
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one of the run's own JSON Lines files.

    Raises:
        RunError: The file is missing or damaged.
    """
    # Not splitlines(): a text may hold U+2028 and its kin, which JSON leaves as they are.
    return [_parse(path, line) for line in _read(path).split("\n") if line]


def read_json(path: Path) -> dict[str, Any]:
    """The content of one of the run's own JSON files.

    Raises:
        RunError: The file is missing or damaged.
    """
    return _parse(path, _read(path))


class _LogFile(logging.FileHandler):
    """A log that a full disk makes incomplete, and nothing worse."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        """Drops the line: the run itself tells of the disk when it can't write what matters."""

    def close(self) -> None:
        """Closes the file, or gives up on its last lines."""
        with contextlib.suppress(OSError):
            super().close()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        raise _damaged(path) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _damaged(path: Path) -> RunError:
    return RunError(
        f"{path} is missing or damaged: put it back, or remove {path.parent} and run the same command again"
    )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"expected a folder at {path}, found a file: give another folder with --out") from None
    except OSError as error:
        raise RunError(
            f"can't write {path} ({error.strerror or error}): free some space or mend the rights, "
            "then run the same command again; nothing that was finished is lost"
        ) from error


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The candidate on one line of candidates.jsonl; None for a torn one."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("batch_size"), int) else None


def _pair_lines(pairs: Iterable[QAPair]) -> str:
    return _lines(pair.to_json() for pair in pairs)


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, default=_plain_number) + "\n" for row in rows)


def _plain_number(value: Any) -> Any:
    """What a filter measured with numpy, as JSON knows it."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a row can't hold a {type(value).__name__}: give numbers or text to a Rejection")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
