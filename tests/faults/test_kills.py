"""The short form of the kill test: commands that are killed many times end with the bytes of unbroken ones."""

import re
import subprocess
import sys
from pathlib import Path


def killed(*arguments: str) -> str:
    # A process of its own: it forks, which a process that has run torch must not.
    command = [sys.executable, "-m", "tests.faults.kills", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fifty_kills_in_small_worlds_change_nothing() -> None:
    said = killed("--kills", "50")
    assert re.findall(r"(\w+): 0 files differ", said) == ["run", "evaluation", "comparison"]
    assert sum(map(int, re.findall(r": (\d+) kills", said))) >= 50


def test_a_real_run_ends_with_the_bytes_of_an_unbroken_one(tiny_llama: Path) -> None:
    assert killed("--kills", "3", "--model", str(tiny_llama), "--lenient").endswith(": 0 files differ\n")
