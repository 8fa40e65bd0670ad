"""Damages folders in every way and checks that the command says so in one line, or ends as if nothing had been.

    python -m tests.faults.mutations --mutations 5000
    python -m tests.faults.mutations --mutations 500 --only comparison

Each mutation hits one file of a finished or an unfinished run, evaluation or comparison (of the public doubles: no
model is needed): a bit is turned, bytes are cut, added or swapped, lines are lost, repeated or exchanged, a number or a
word is changed, or the file is emptied, lost, replaced by a link, a folder or another file, or changes places with one.
Then the command is given again. Outcomes:

    named     an error of the project's own, one line
    healed    every file equals the unbroken one's (what was damaged could be made anew, and was)
    unread    the damage is still there, and nothing had to read it: a stage on a comparison's shelf that nobody takes
    silent    anything else: another byte or another figure somewhere, and no word
    crashed   an error that is not the project's own, or of more than a line
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isara.errors import IsaraError
from tests.faults.worlds import World, content, copy, small_worlds, take_out

IGNORED = {"log.txt", ".lock"}
# Of all mutations; a comparison takes as long as four runs.
SHARES = {"run": 0.6, "evaluation": 0.3, "comparison": 0.1}


def flip(data: bytearray, rng: random.Random) -> None:
    """Turns one bit."""
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    """Loses the end."""
    del data[rng.randrange(len(data) + 1) :]


def grow(data: bytearray, rng: random.Random) -> None:
    """Gains bytes at the end."""
    data += rng.choice([b"\n", b"{}\n", b"\x00", b'{"id": "0"}\n', bytes(rng.randrange(256) for _ in range(9))])


def empty(data: bytearray, rng: random.Random) -> None:
    """Holds nothing any more."""
    data.clear()


def swap(data: bytearray, rng: random.Random) -> None:
    """Exchanges two lines, or two halves where there is one line."""
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        one, other = rng.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        data[:] = b"".join(lines)
    else:
        half = len(data) // 2
        data[:] = data[half:] + data[:half]


def drop_line(data: bytearray, rng: random.Random) -> None:
    """Loses a line in the middle."""
    lines = data.splitlines(keepends=True)
    if lines:
        del lines[rng.randrange(len(lines))]
    data[:] = b"".join(lines)


def repeat_line(data: bytearray, rng: random.Random) -> None:
    """Says a line twice."""
    lines = data.splitlines(keepends=True)
    if lines:
        place = rng.randrange(len(lines))
        lines.insert(place, lines[place])
    data[:] = b"".join(lines)


def other_number(data: bytearray, rng: random.Random) -> None:
    """Changes a number and leaves the file well-formed."""
    numbers = list(re.finditer(rb"\d+(\.\d+)?", bytes(data)))
    if numbers:
        found = rng.choice(numbers)
        data[found.start() : found.end()] = rng.choice([b"0", b"7", b"1e999", b"-3", b"12345678901234567890", b"null"])


def other_word(data: bytearray, rng: random.Random) -> None:
    """Changes a word and leaves the file well-formed."""
    words = list(re.finditer(rb"[A-Za-z]{3,}", bytes(data)))
    if words:
        found = rng.choice(words)
        data[found.start() : found.end()] = rng.choice([b"Ganondorf", b"true", b"nearest", b"", b"\xc3\xa9"])


CONTENT: list[Callable[[bytearray, random.Random], None]] = [
    flip, cut, grow, empty, swap, drop_line, repeat_line, other_number, other_word,
]  # fmt: skip


def mutate(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Damages one file of a folder; what was done, and to which file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in IGNORED)
    path = rng.choice(files)
    name = str(path.relative_to(folder))
    more = ["lose", "link", "folder", "other file", "exchange", "extra"]
    kind: Any = rng.choice([*CONTENT, *CONTENT, *more])
    if callable(kind):
        data = bytearray(path.read_bytes())
        kind(data, rng)
        path.write_bytes(data)
        return kind.__name__, name
    if kind == "extra":
        if (path.parent / "DONE").exists():  # elsewhere there is room for a reader's own notes
            path.with_name("extra.json").write_text("{}")
            return kind, name
        kind = "lose"
    other = rng.choice(files)
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to(folder.parent / "elsewhere.json")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("other file", "exchange"):
        path.write_bytes(theirs)
    if kind == "exchange":
        other.write_bytes(ours)
    return kind, name


def outcome(world: World, folder: Path, damaged: str, expected: tuple[Any, dict[str, bytes]]) -> str:
    """How the command ends on a damaged folder."""
    said, whole = expected
    try:
        says = world.command(folder)
    except IsaraError as error:
        return "named" if "\n" not in str(error) else f"crashed in more than a line: {str(error)[:300]!r}"
    except Exception as error:
        return f"crashed {type(error).__name__}: {error}"
    found = content(folder)
    different = [name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name)]
    if says != said:
        return f"silent, and says another thing: {str(says)[:300]}"
    if all(name.startswith(world.unread) for name in different) and different and world.unread:
        return "unread"
    return f"silent {sorted(different)[:3]}" if different else "healed"


def starts(world: World, folder: Path) -> tuple[list[Path], tuple[Any, dict[str, bytes]]]:
    """A finished folder and unfinished ones, and what the finished one says and holds."""
    work = folder / "work"
    said = world.command(work)
    whole = copy(work, folder / f"{world.name}-whole")
    found = [whole]
    for number, names in enumerate(world.unfinished):
        start = copy(whole, folder / f"{world.name}-unfinished-{number}")
        take_out(start, names)
        found.append(start)
    return found, (said, content(whole))


def mutation_test(
    mutations: int, seed: int, say: Callable[[str], Any] = print, only: str | None = None
) -> dict[str, Counter[str]]:
    """How often each outcome came, for each world, or for the only one that is named, which gets all mutations."""
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "elsewhere.json").write_text("{}")
        worlds = [world for world in small_worlds(place) if only in (None, world.name)]
        for world in worlds:
            counts[world.name] = Counter()
            folders, expected = starts(world, place)
            begun = time.monotonic()
            for number in range(mutations if only else round(mutations * SHARES[world.name])):
                start = rng.choice(folders)
                work = copy(start, place / "work")
                kind, damaged = mutate(work, rng)
                found = outcome(world, work, damaged, expected)
                word = re.split(r"[ ,:]", found)[0]
                counts[world.name][word] += 1
                if word in ("silent", "crashed"):
                    say(f"{number}: {kind} {damaged} of {start.name}: {found}")
            shutil.rmtree(place / "work")
            say(f"{world.name}: {time.monotonic() - begun:.0f} s: {json.dumps(dict(counts[world.name]))}")
    return counts


def main() -> None:
    """Reads the arguments, runs the test and exits with 1 if anything was silent or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SHARES)
    options = parser.parse_args()
    counts = mutation_test(options.mutations, options.seed, lambda line: print(line, flush=True), options.only)
    sys.exit(any(found["silent"] + found["crashed"] for found in counts.values()))


if __name__ == "__main__":
    main()
