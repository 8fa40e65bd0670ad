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
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with _disk_errors(self.candidates), self.candidates.open("ab") as file:
            file.write(text.encode())
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
                row = _row(line)
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
        write_text(self.accepted, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))

    def read_accepted(self) -> list[QAPair]:
        """The accepted pairs of a closed generation."""
        return [QAPair.from_json(json.loads(line)) for line in self.accepted.read_text("utf-8").splitlines()]

    def remove_model(self) -> None:
        """Removes the model folder, where there is one."""
        if self.model.exists():
            with _disk_errors(self.model):
                shutil.rmtree(self.model)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes one of the small result files ("stats.json", "eval.json")."""
        write_text(self.folder / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of one of the small result files, or None where it is not there yet."""
        path = self.folder / name
        return json.loads(path.read_text("utf-8")) if path.exists() else None

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
        if self._log is not None:
            log.removeHandler(self._log)
            self._log.close()
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
        elif leftovers := sorted(p.name for p in self.path.iterdir() if p.name not in {".lock", "log.txt"}):
            if not set(leftovers) <= {"seeds.jsonl", "heldout.jsonl", "environment.json"}:
                raise RunError(
                    f"{self.path} is not empty and is no run folder (it holds {leftovers[0]}): "
                    "give another folder with --out"
                )
        write_pairs = {"seeds.jsonl": seeds, "heldout.jsonl": heldout}
        for name, pairs in write_pairs.items():
            write_text(self.path / name, _lines(pairs))
        if not old_config.exists():
            write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
        # Last, because its existence is what makes the folder a run.
        write_text(old_config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        self._open_log()

    def _open_log(self) -> None:
        """Sends the package's log to log.txt, the one place where times are written."""
        with _disk_errors(self.path):
            self._log = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
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
            if (self.path / name).read_text("utf-8") != _lines(pairs):
                differences.append(f"the pairs in {name} are others")
        old = json.loads((self.path / "environment.json").read_text("utf-8"))
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

    def exported(self) -> int | None:
        """The iteration whose model lies in final/, or None."""
        mark = self.path / "final" / "isara.json"
        return int(json.loads(mark.read_text("utf-8"))["iteration"]) if mark.exists() else None

    def export(self, iteration: Iteration, files: Mapping[str, str]) -> Path:
        """Copies the model of an iteration to final/, together with the given text files; the folder's path."""
        final, aside = self.path / "final", self.path / "final.tmp"
        with _disk_errors(final):
            shutil.rmtree(aside, ignore_errors=True)
            # Hard links where the disk allows them: the weights of a large model need not lie there twice.
            shutil.copytree(iteration.model, aside, copy_function=_link)
            for name, text in files.items():
                (aside / name).unlink(missing_ok=True)
                write_text(aside / name, text)
            write_text(aside / "isara.json", json.dumps({"iteration": iteration.number}) + "\n")
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
    config = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(config, dict):
        raise RunError(f"{path} holds no config: it was changed by hand; put the run's own back")
    return config


def iterations(run: Path) -> list[Iteration]:
    """The iterations that a run folder holds, the base model's folder left out, in order."""
    folders = sorted(run.glob("iteration-[0-9][0-9]"))
    return [Iteration(folder, number) for folder in folders if (number := int(folder.name[-2:]))]


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


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"can't write {path} ({error.strerror or error}): free some space or mend the rights, "
            "then run the same command again; nothing that was finished is lost"
        ) from error


def _row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("batch_size"), int) else None


def _lines(pairs: Iterable[QAPair]) -> str:
    return "".join(json.dumps(pair.to_json(), ensure_ascii=False) + "\n" for pair in pairs)


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
