"""Stops commands with SIGINT and SIGTERM at random moments, imports included, and reads what they say.

    python -m tests.faults.stops --stops 12                     # small commands: a tenth of a second to a few seconds
    python -m tests.faults.stops --stops 12 --seeds FILE        # also a run, an evaluation and a comparison of --model

A stopped command ends with 130 or 143, says one line of what is kept, and shows no traceback. The signal goes to the
whole group of processes, as a terminal sends it, or to the command alone.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.kills import LENIENT, QUICK

# What a start of the interpreter takes on an idle machine: before that the command is not there to be asked.
EARLIEST = 0.05


def stop(command: list[str], where: Path, seconds: float, number: signal.Signals, group: bool) -> tuple[int, str]:
    """Gives a command and stops it after some seconds; its exit code and what it wrote to stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "isara", *command],
        cwd=where,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, number)
    return process.wait(60), process.communicate()[1]


def _hear() -> None:
    # A harness that a shell has put into the background ignores Ctrl-C, and its children would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wrong(code: int, said: str, number: signal.Signals) -> str | None:
    """What is wrong with the end of a stopped command; None if nothing is, or it had come to its end before."""
    lines = [line for line in said.splitlines() if line.startswith("isara: stopped; ")]
    if "Traceback" in said or "Exception ignored" in said:
        # Before the command's first line Python is alone: what it says while it starts is not ours.
        ours = f"{os.sep}isara{os.sep}" in said or not re.search("<frozen (site|runpy|importlib)", said)
        return f"a traceback: {said[-900:]}" if ours else None
    if code in (0, 1) and not lines:
        return None
    if code == -number and not said:
        return None  # Python had not begun
    if code != 128 + number:
        return f"exit code {code}: {said[:200]} … {said[-200:]}"
    return None if len(lines) == 1 else f"{len(lines)} lines of its own: {said[:200]} … {said[-200:]}"


def commands(model: str | None, seeds: Path | None, place: Path) -> dict[str, tuple[list[str], float]]:
    """What is stopped, and the latest moment of each in seconds."""
    found: dict[str, tuple[list[str], float]] = {
        "help": (["--help"], 1.0),
        "judges": (["judge", "list"], 2.0),
        "check": (["seeds", "check", "--seeds", str(seeds)], 6.0),
        "preview": (["preview", "--seeds", str(seeds), "--no-estimate", "--rows", "2"], 12.0),
    }
    if seeds is None or model is None:
        return {name: found[name] for name in ("help", "judges")}
    overrides = [word for value in [*QUICK, *LENIENT] for word in ("--set", value)]
    shared = ["--model", model, "--seeds", str(seeds)]
    (place / "isara.yaml").write_text(f"model: {model}\nseeds: {seeds}\nheldout: 0.2\n")
    few = [word for value in ["iterations=1", "generate.accept=8", *QUICK[2:]] for word in ("--set", value)]
    found["run"] = ["run", *shared, "--out", "run", "--heldout", "0.2", *overrides], 20.0
    found["evaluate"] = ["evaluate", model, "--heldout", str(seeds), "--pairs", str(seeds), "--out", "measured"], 20.0
    found["compare"] = ["compare", "isara.yaml", "--seeds", "1", "--arms", "zero-shot,sft-seeds,isara", *few], 20.0
    return found


def main() -> None:
    """Reads the arguments, stops every command and exits with 1 if any ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=12, help="of each command")
    parser.add_argument("--seeds", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--only", help="one of the commands")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        seeds = options.seeds.resolve() if options.seeds else None
        for verb, (command, latest) in commands(options.model, seeds, Path(name)).items():
            if options.only not in (None, verb):
                continue
            codes: Counter[int] = Counter()
            begun = time.monotonic()
            for count in range(options.stops):
                # As many stops while the libraries load as in all the time after that.
                seconds = rng.uniform(EARLIEST, latest if count % 2 else min(latest, 2.0))
                number = rng.choice([signal.SIGINT, signal.SIGTERM])
                code, said = stop(command, Path(name), seconds, number, rng.random() < 0.5)
                codes[code] += 1
                if problem := wrong(code, said, number):
                    failed += 1
                    print(f"{verb}, {number.name} after {seconds:.2f} s: {problem}", flush=True)
            print(f"{verb}: {dict(codes)}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{failed} ended wrongly")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
