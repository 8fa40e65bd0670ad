"""Disks that fail: full ones (a real tmpfs where one may be mounted), and calls that are answered with an error.

    python -m tests.faults.disks --faults 300
    python -m tests.faults.disks --tmpfs 40          # as root

A command that meets the fault must end in one line; given again on a sound disk, it ends with the bytes of a command
that never met it.
"""

import argparse
import contextlib
import errno
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isara.errors import IsaraError
from tests.faults.worlds import World, content, small_worlds

# What a disk answers when it is full, broken, over quota, or suddenly read-only.
ANSWERS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
_CALLS = [(os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "link"), (os, "unlink"), (io, "open")]


class Disk:
    """Counts the calls that reach a folder, and answers one of them with an error.

    Args:
        folder: The folder.
        fails_at: The number of the call that fails, from 0; None counts alone.
        code: The error.
    """

    def __init__(self, folder: Path, fails_at: int | None = None, code: int = errno.ENOSPC) -> None:
        self.folder, self.fails_at, self.code = str(folder), fails_at, code
        self.calls = 0
        self.failed = ""

    @contextlib.contextmanager
    def __call__(self) -> Iterator["Disk"]:
        """Watches the calls meanwhile."""
        true = [(module, name, getattr(module, name)) for module, name in _CALLS]
        for module, name, function in true:
            setattr(module, name, self._watched(name, function))
        try:
            yield self
        finally:
            for module, name, function in true:
                setattr(module, name, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = self._path(arguments[0])
            # A model that is opened is the engine's to read: the double reads its memory from a file.
            reads = name == "open" and path.endswith("weights.json") and "r" in (*arguments[1:2], "r")[0]
            if path.startswith(self.folder) and not path.endswith("log.txt") and not reads:
                self.calls += 1
                if self.calls - 1 == self.fails_at:
                    self.failed = f"{name} {path}"
                    raise OSError(self.code, os.strerror(self.code), path)
            return function(*arguments, **options)

        return call

    def _path(self, given: Any) -> str:
        if isinstance(given, int):
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/self/fd/{given}")
            return ""
        return os.fspath(given) if isinstance(given, str | os.PathLike) else ""


def fault_test(world: World, faults: int, seed: int, place: Path) -> list[str]:
    """What went wrong where a call failed: another end than one line, or other bytes after it was mended."""
    folder, rng, wrong = place / "work", random.Random(seed), []
    with Disk(folder)() as disk:
        world.command(folder)
    whole, calls = content(folder), disk.calls
    for number in sorted(rng.sample(range(calls), min(faults, calls))):
        shutil.rmtree(folder)
        said = ""
        with Disk(folder, number, rng.choice(ANSWERS))() as disk:
            try:
                world.command(folder)
            except IsaraError as error:
                said = "in more than a line" if "\n" in str(error) else ""
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        if said:
            wrong.append(f"{world.name}, call {number} ({disk.failed}): {said}")
        wrong += _mended(world, folder, whole, f"{world.name}, call {number} ({disk.failed})")
    print(
        f"{world.name}: {min(faults, calls)} of {calls} calls failed once each, {len(wrong)} ended wrongly", flush=True
    )
    return wrong


def full_disk_test(world: World, sizes: int, seed: int, place: Path) -> list[str]:
    """What went wrong on disks of random sizes, which are then enlarged."""
    disk, rng, wrong, full = place / "disk", random.Random(seed), [], 0
    disk.mkdir(exist_ok=True)
    _mount(disk, "64m")
    try:
        world.command(disk / "work")
        whole = content(disk / "work")
        used = sum(path.lstat().st_blocks * 512 for path in (disk / "work").rglob("*"))
    finally:
        subprocess.run(["umount", disk], check=True)
    for number in range(sizes):
        _mount(disk, f"{rng.randrange(8, used // 1024 + 8)}k")
        try:
            try:
                world.command(disk / "work")
            except IsaraError as error:
                full += 1
                if "\n" in str(error):
                    wrong.append(f"{world.name}, disk {number}: {error!r}")
            except Exception as error:
                wrong.append(f"{world.name}, disk {number}: {type(error).__name__}: {error}")
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            wrong += _mended(world, disk / "work", whole, f"{world.name}, disk {number}")
        finally:
            subprocess.run(["umount", disk], check=True)
    print(f"{world.name}: {full} of {sizes} disks were full, {len(wrong)} ended wrongly", flush=True)
    return wrong


def can_mount(place: Path) -> bool:
    """Whether a tmpfs may be mounted here."""
    disk = place / "trial"
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(_mounting(disk, "1m"), capture_output=True).returncode:
        return False
    subprocess.run(["umount", disk], check=True)
    return True


def _mount(disk: Path, size: str) -> None:
    subprocess.run(_mounting(disk, size), check=True)


def _mounting(disk: Path, size: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]


def _mended(world: World, folder: Path, whole: dict[str, bytes], what: str) -> list[str]:
    """What is wrong after the command was given again on a sound disk."""
    try:
        world.command(folder)
    except Exception as error:
        return [f"{what}: not resumed: {type(error).__name__}: {error}"]
    found = content(folder)
    different = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
    return [f"{what}: other bytes in {different[:3]}"] if different else []


def main() -> None:
    """Reads the arguments, runs the tests and exits with 1 if anything ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=0, help="calls that fail, in each small world")
    parser.add_argument("--tmpfs", type=int, default=0, help="full disks, in each small world")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for world in small_worlds(place):
            if options.faults:
                wrong += fault_test(world, options.faults, options.seed, place)
                shutil.rmtree(place / "work")
            if options.tmpfs:
                wrong += full_disk_test(world, options.tmpfs, options.seed, place)
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
