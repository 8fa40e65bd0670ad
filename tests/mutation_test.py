"""Damages run folders in every way and checks that a resumed run says so in one line, or ends as if nothing had been.

    python tests/mutation_test.py --mutations 5000

Each mutation hits one file of a finished or of an unfinished run (of the public doubles: no model is needed): a bit is
turned, bytes are cut, added or swapped, lines are lost, repeated or exchanged, a number in the JSON is changed, or the
file is emptied, lost, replaced by a link, a folder, or another file of the run. Then the run is resumed. Outcomes:

    named     an error of the project's own, one line
    healed    every file equals the unbroken run's (what was damaged could be made anew, and was)
    silent    anything else: another byte somewhere, and no word
    crashed   an error that is not the project's own
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
from tests.test_loop import align, tree

# What is not the run's result: times, the lock, and a note of how long things took.
IGNORED = {"log.txt", ".lock"}
SETTINGS = ["iterations=2"]


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


def mutate(run: Path, rng: random.Random) -> str:
    """Damages one file of the run; what was done to which."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name not in IGNORED)
    path = rng.choice(files)
    name = str(path.relative_to(run))
    kind: Any = rng.choice([*CONTENT, *CONTENT, "lose", "link", "folder", "other file", "extra"])
    if callable(kind):
        data = bytearray(path.read_bytes())
        kind(data, rng)
        path.write_bytes(data)
        return f"{kind.__name__} {name}"
    if kind == "extra" and path.parent == run:  # beside the stages there is room for a reader's own notes
        kind = "lose"
    if kind == "extra":
        path.with_name("extra.json").write_text("{}")
        return f"extra beside {name}"
    other = rng.choice(files).read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to(run.parent / "elsewhere.json")
    elif kind == "folder":
        path.mkdir()
    elif kind == "other file":
        path.write_bytes(other)
    return f"{kind} {name}"


def resumed(run: Path, whole: dict[str, str]) -> str:
    """How a resumed run ends."""
    try:
        align(run, *SETTINGS)
    except IsaraError as error:
        return "named" if "\n" not in str(error) else f"crashed in more than a line: {str(error)[:300]!r}"
    except Exception as error:
        return f"crashed {type(error).__name__}"
    found = tree(run)
    different = [name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name)]
    return f"silent {sorted(different)[:3]}" if different else "healed"


def starts(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """A finished run and unfinished ones, and what the finished one holds."""
    whole = folder / "whole"
    align(whole, *SETTINGS)
    runs = [whole]
    for number, lost in enumerate([["train", "evaluate"], ["evaluate"], ["generate", "train", "evaluate"]]):
        run = Path(shutil.copytree(whole, folder / f"unfinished-{number}"))
        shutil.rmtree(run / "final")
        for stage in lost:
            shutil.rmtree(run / "iteration-02" / stage)
        if "generate" in lost:  # in the middle of its first batch
            (run / "iteration-02/generate").mkdir()
            shutil.copy(whole / "iteration-02/generate/key.json", run / "iteration-02/generate")
            rows = (whole / "iteration-02/generate/candidates.jsonl").read_bytes().splitlines(keepends=True)
            (run / "iteration-02/generate/candidates.jsonl").write_bytes(b"".join(rows[:12]))
        runs.append(run)
    return runs, tree(whole)


def mutation_test(mutations: int, seed: int, say: Callable[[str], Any] = print) -> Counter[str]:
    """How often each outcome came."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "elsewhere.json").write_text("{}")
        runs, whole = starts(folder)
        begun = time.monotonic()
        for number in range(mutations):
            run = Path(shutil.copytree(rng.choice(runs), folder / "run", symlinks=True))
            done = mutate(run, rng)
            outcome = resumed(run, whole)
            outcomes[outcome.split()[0]] += 1
            if outcome.split()[0] in ("silent", "crashed"):
                say(f"{number}: {done}: {outcome}")
            shutil.rmtree(run)
        say(f"{mutations} mutations in {time.monotonic() - begun:.0f} s: {json.dumps(dict(outcomes))}")
    return outcomes


def main() -> None:
    """Reads the arguments, runs the test and exits with 1 if anything was silent or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = mutation_test(options.mutations, options.seed)
    sys.exit(bool(outcomes["silent"] + outcomes["crashed"]))


if __name__ == "__main__":
    main()
