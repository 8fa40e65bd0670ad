"""Files of the project's own: whole or absent, flushed to the disk, locked, and read without being changed.

Every error of the disk becomes one line that says what to do.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from isara.errors import RunError

log = logging.getLogger("isara")

_CHUNK = 2**20


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or none: aside, flushed to disk, then renamed.

    Raises:
        RunError: It can't be written.
    """
    aside = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        try:
            with aside.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Writes a whole JSON file or none, in the one form that `read_json` takes.

    Raises:
        RunError: It can't be written.
    """
    write_text(path, _json_text(value))


def without_nan(value: Any) -> Any:
    """The value with null for each nan in it, since JSON has no NaN."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain_number) + "\n"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSON Lines; numbers of numpy are written as what they are."""
    return "".join(json.dumps(row, ensure_ascii=False, default=_plain_number) + "\n" for row in rows)


def append_text(path: Path, text: str) -> None:
    """Adds text to a file in one write and flushes it to the disk.

    Raises:
        RunError: It can't be written.
    """
    with disk_errors(path), path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_bytes(path: Path) -> bytes:
    """The bytes of one of the project's own files.

    Raises:
        RunError: It is missing or can't be read.
    """
    try:
        return path.read_bytes()
    except OSError:
        raise damaged(path) from None


def read_text(path: Path) -> str:
    """The text of one of the project's own files.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise damaged(path) from None


def stored_hash(path: Path) -> str:
    """The SHA-256 of one of the project's own files.

    Raises:
        RunError: It can't be read.
    """
    try:
        return file_hash(path)
    except OSError as error:
        raise RunError(
            f"can't read {path} ({error.strerror or error}): mend the disk or the rights, then run the same command "
            "again; nothing that was finished is lost"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The content of one of the project's own JSON files, which is just what `write_json` wrote.

    Raises:
        RunError: It is missing or damaged: another byte is damage, even where it would mean the same.
    """
    text = read_text(path)
    value = parse_line(text)
    if value is None or _json_text(value) != text:
        raise damaged(path)
    return value


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file that holds its own hash, so that a value that was changed later shows.

    Raises:
        RunError: It can't be written.
    """
    write_json(path, {**value, "sha256": _seal(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a file that `write_sealed` wrote.

    Raises:
        RunError: It is missing, damaged, or was changed.
    """
    found = read_json(path)
    if found.pop("sha256", None) != _seal(found):
        raise damaged(path)
    return found


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json_text(value).encode()).hexdigest()


def append_batch(path: Path, rows: Iterable[Mapping[str, Any]], of: str = "") -> None:
    """Adds a batch of rows to a file, and then its size and hash to the file beside it: only both count.

    Args:
        path: The file of JSON Lines.
        rows: The batch.
        of: What the file belongs to (the hash of a key): its rows are no good beside another.

    Raises:
        RunError: They can't be written.
    """
    text = json_lines(rows)
    append_text(path, text)
    append_text(sums_file(path), f"{len(text.encode())} {_batch_hash(text.encode(), of)}\n")


def read_batches(path: Path, of: str = "") -> tuple[list[dict[str, Any]], int, int]:
    """The rows of all whole batches, the bytes that they take, and those of their sums; nothing is written.

    Raises:
        RunError: A batch is not what was written.
    """
    # The sums first: a reader beside a writer must not see a sum without its batch.
    noted = read_bytes(sums_file(path)) if sums_file(path).exists() else b""
    data = read_bytes(path) if path.exists() else b""
    end = taken = 0
    for line in noted.splitlines(keepends=True):
        size, _, digest = line.decode("ascii", "replace").rstrip("\n").partition(" ")
        if not line.endswith(b"\n"):  # a kill came between a batch and the end of its sum
            break
        batch = data[end : end + int(size)] if size.isdecimal() and len(size) < 20 else b""
        if not batch or str(len(batch)) != size or _batch_hash(batch, of) != digest:
            raise damaged(path)
        end, taken = end + len(batch), taken + len(line)
    rows = [parse_line(line) for line in data[:end].split(b"\n") if line]
    return [row for row in rows if row is not None], end, taken


def sums_file(path: Path) -> Path:
    """Where the sizes and hashes of a file's batches stand."""
    return path.with_suffix(".sums")


def _batch_hash(batch: bytes, of: str) -> str:
    return hashlib.sha256(of.encode() + batch).hexdigest()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one of the project's own JSON Lines files.

    Raises:
        RunError: The file is missing or damaged.
    """
    # Not splitlines(): a text may hold U+2028 and its kin, which JSON leaves as they are.
    rows = [parse_line(line) for line in read_text(path).split("\n") if line]
    if any(row is None for row in rows):
        raise damaged(path)
    return [row for row in rows if row is not None]


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """The object on one line of JSON, or None where it holds something else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def cut_to(path: Path, size: int) -> None:
    """Cuts what a kill has left behind the first `size` bytes of a file."""
    if path.exists() and path.stat().st_size > size:
        with disk_errors(path):
            os.truncate(path, size)


def damaged(path: Path) -> RunError:
    """The error for a file of the project's own that can't be read as what it is."""
    return RunError(
        f"{path} is missing or damaged: put it back, or remove {path.parent} and run the same command again"
    )


def make_folder(path: Path) -> None:
    """Makes the folder where it is absent.

    Raises:
        RunError: It can't be made.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Removes a file, a folder or a link (never what it points to); does nothing where there is none."""
    with disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sees to it that all files of a folder are on the disk, whatever the power supply does then."""
    with disk_errors(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())


def link_or_copy(source: str, target: str) -> None:
    """Gives a file a second name where the disk allows it, else a copy."""
    try:
        os.link(os.path.realpath(source), target)  # a hub's cache holds links, and a link to a link leads nowhere else
    except OSError:
        shutil.copy2(source, target)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """The SHA-256 in hex of a JSON-ready value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder, which is made where it is absent.

    Raises:
        RunError: Another process is at work there, or the folder can't be made.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / ".lock")
    with disk_errors(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:  # an OSError, too
            raise _in_use(folder) from None
    try:
        with _folder_itself(folder):
            yield
    finally:
        lock.release()


@contextlib.contextmanager
def _folder_itself(folder: Path) -> Iterator[None]:
    """Locks the folder beside its lock file, which somebody may delete, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows does not let an open lock file be deleted
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise _in_use(folder) from None
    except OSError:
        log.info("%s lies on a disk that locks files alone", folder)
    try:
        yield
    finally:
        os.close(handle)


def _in_use(folder: Path) -> RunError:
    return RunError(f"{folder} is in use by another process: wait for it, or give another folder with --out")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk objects into one line that names the path.

    Raises:
        RunError: Whatever happened.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"expected a folder at {path}, found a file: give another folder with --out") from None
    except FileNotFoundError as error:
        lacking = Path(os.fsdecode(error.filename) if error.filename else path).parent
        why = f"there is no folder {lacking}: make it" if not lacking.exists() else f"{error.filename} is gone: make it"
        raise RunError(f"can't write {path}: {why}, or give another place") from error
    except IsADirectoryError:
        raise RunError(f"expected a file at {path}, found a folder: give a file's name") from None
    except OSError as error:
        raise RunError(
            f"can't write {path} ({error.strerror or error}): free some space or mend the rights, "
            "then run the same command again; nothing that was finished is lost"
        ) from error


def _plain_number(value: Any) -> Any:
    """What a filter measured with numpy, as JSON knows it."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a row can't hold a {type(value).__name__}: give numbers or text to a Rejection")
