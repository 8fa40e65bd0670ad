"""Models that are made once from another form (a GGUF file, an adapter on its base) and kept in the user's cache."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import yaml

from isara.errors import ModelError
from isara.files import sync_folder
from isara.yaml_text import YamlError, parse_yaml

log = logging.getLogger("isara")

# Told what is done now, and which share of the whole is done before it.
Step: TypeAlias = Callable[[str, float], None]


def cache_folder() -> Path:
    """Where made models lie: `$ISARA_CACHE/models`, else `$XDG_CACHE_HOME/isara/models`, else below `~/.cache`."""
    if own := os.environ.get("ISARA_CACHE"):
        return Path(own).expanduser() / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isara" / "models"


def converted(key: str, title: str, make: Callable[[Path, Step], None]) -> Path:
    """The cached folder of a key, which is made where it is absent: whole or not at all, by one process at a time.

    Args:
        key: Changes whenever what is made would.
        title: Says on a terminal, beside a bar, what is being made.
        make: Fills an empty folder.

    Raises:
        ModelError: The cache can't be written. What `make` raises is passed on.
    """
    folder = cache_folder() / key
    if not _whole(folder):
        with _alone(folder):
            if not _whole(folder):  # another process may have made it meanwhile
                log.info("%s: once, into %s", title, folder)
                _make(folder, title, make)
    return folder


def front_matter(**values: object) -> str:
    """The head of a model card, from which licence and origin reach the cards of what is trained on the model."""
    known = {name: value for name, value in values.items() if value}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---\n"


def card_value(folder: Path, name: str) -> str | None:
    """A text in the front matter of a model folder's README.md, or None."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head, _, rest = card.read_text("utf-8-sig", errors="replace").partition("---\n")
    if head.strip():  # a rule further down, below which anything may stand
        return None
    try:
        front = parse_yaml(rest.partition("\n---")[0])
    except YamlError:
        return None
    value = front.get(name) if isinstance(front, dict) else None
    return value if isinstance(value, str) else None


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk or the writer of weights objects into one line.

    Raises:
        ModelError: Whatever happened.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ModelError(
            f"can't write the model folder {folder} ({why}): free some space or mend the rights, or set ISARA_CACHE to "
            "another folder"
        ) from error


def _whole(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _make(folder: Path, title: str, make: Callable[[Path, Step], None]) -> None:
    aside = folder.with_name(folder.name + ".tmp")
    try:
        with cache_errors(folder):
            shutil.rmtree(aside, ignore_errors=True)  # what a kill has left
            aside.mkdir()
        with _bar(title) as step:
            make(aside, step)
        with cache_errors(folder):
            for weights in aside.glob("*.safetensors"):
                shutil.copymode(aside / "config.json", weights)  # the library leaves them to the owner alone
            sync_folder(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for another process that makes the same folder."""
    from filelock import FileLock

    with cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bar(title: str) -> Iterator[Step]:
    """A bar on stderr where that is a terminal; keeps the libraries' own bars and remarks from the screen."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[info]}"))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=1.0, info="")
        yield lambda info, done: progress.update(task, completed=done, info=info)
