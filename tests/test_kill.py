"""The short form of tests/kill_test.py: a real run, killed a few times, ends with the bytes of an unbroken one."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_test.py")


def test_a_killed_run_ends_with_the_bytes_of_an_unbroken_one(tiny_llama: Path) -> None:
    # A process of its own: it forks, which a process that has run torch must not.
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--model", str(tiny_llama), "--lenient"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(": 0 files differ")
