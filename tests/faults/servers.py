"""Kills a run whose pairs a real server makes, the server, or both, at random moments, and resumes it.

    python -m tests.faults.servers --kills 6 --serve "PYTHON tests/llama_server.py -m {gguf} --port {port}"
    python -m tests.faults.servers --kills 6 --serve "vllm serve {model} --port {port} --max-model-len 1024"

Two iterations of `recipes/shop` each time. A server that dies ends the run with one line, and the same command goes on
from there. What is left in the end has to be whole, and no process may stay. A server is not exact: how many of the
accepted pairs are those of the unbroken run is told, and asked for with `--same`.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it has no types of its own

from isara.report.facts import read_run

RECIPE = Path(__file__).parents[2] / "recipes" / "shop"
SETTINGS = [
    *("iterations=2", "generate.accept=8", "generate.batch=8", "generate.min_yield=0", "heldout=0.05"),
    *("evaluate.seeds_only=false", "evaluate.score=null", "retrieve.embedder=lexical", "train.max_steps=2"),
    *("questions.demos=3", "answers.demos=2", "questions.max_new_tokens=32", "answers.max_new_tokens=48"),
    *("filters.truncated=false", "filters.agreement=null", "answers.from=last", "engine.kind=server"),
]
_MARK = "ISARA_FAULTS_SERVERS"  # in the environment of an attempt and of all that it starts
_LONGEST = 1800.0  # seconds of an attempt
_PATIENCE = 40.0  # until what a killed run has started is gone


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes of an attempt."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def servers(mark: str) -> list[psutil.Process]:
    """Those of them that serve: the command itself, not the process that watches it."""
    found = []
    for process in marked(mark):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "--port" in words and not any(Path(word).name == "watchdog.py" for word in words[:3]):
            found.append(process)
    return found


def attempt(command: list[str], limit: float | None, victim: str) -> tuple[int, str, list[str]]:
    """Gives the command and kills after `limit` seconds; the exit code, what it said, and what stayed behind."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command,
        env={**os.environ, _MARK: mark, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=limit or _LONGEST)[1]
    except subprocess.TimeoutExpired:
        if limit is None:
            raise
        if victim != "isara":
            ends = time.monotonic() + _LONGEST
            while not (found := servers(mark)) and process.poll() is None and time.monotonic() < ends:
                time.sleep(0.1)  # between two models there is none
            for server in found:
                with suppress(psutil.NoSuchProcess):
                    server.send_signal(signal.SIGKILL)
        if victim != "server":
            process.kill()
        said = process.communicate(timeout=_LONGEST)[1]
    ends = time.monotonic() + _PATIENCE
    while (left := [" ".join(each.cmdline()[:4]) for each in marked(mark)]) and time.monotonic() < ends:
        time.sleep(0.5)
    return process.returncode, said, left


def lines_of(said: str) -> list[str]:
    """What ISARA said of itself."""
    return [line for line in said.splitlines() if line.startswith("isara: ")]


def accepted(folder: Path) -> list[str]:
    """The accepted pairs of a finished run, which is read with all its checks."""
    found = read_run(folder)
    rows = [row for facts in found.iterations for row in facts.pairs]
    return [f"{row.question}\n{row.answer}" for row in rows]


def main() -> None:
    """Reads the arguments, runs the test and exits with 1 if a run ended wrongly or a process stayed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the command, as in `engine.serve`")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", default="isara,server,both", help="who is killed, one of them drawn each time")
    parser.add_argument("--same", action="store_true", help="the accepted pairs have to be those of an unbroken run")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder, rng = Path(place) / "run", random.Random(given.seed)
        command = [sys.executable, "-m", "isara", "run", str(RECIPE), "--model", given.model, "--out", str(folder)]
        for setting in (*SETTINGS, f"engine.serve={given.serve}", *given.settings):
            command += ["--set", setting]
        begun = time.monotonic()
        code, said, left = attempt(command, None, "")
        length = time.monotonic() - begun
        if code or left:
            sys.exit(f"the unbroken run ended with {code}, left {left or 'nothing'} and said: {said[-800:]}")
        expected, usual = accepted(folder), set(lines_of(said))
        print(f"unbroken: {length:.0f} s, {len(expected)} pairs", flush=True)
        killed, codes, runs, equal = 0, Counter[str](), 0, 0
        while killed < given.kills:
            folder = folder.rename(Path(place) / f"done-{runs}").with_name("run")
            code = 1
            while code:
                victim = rng.choice(given.victims.split(","))
                limit = rng.uniform(0.05, 0.6) * length if killed < given.kills else None
                code, said, left = attempt(command, limit, victim)
                lines = [line for line in lines_of(said) if line not in usual]
                faults += [f"{victim} killed: stayed {each}" for each in left]
                if code:
                    killed += 1
                    codes[f"{victim}: {code}"] += 1
                    if victim == "server" and (code != 1 or len(lines) != 1):
                        faults.append(f"server killed: exit code {code}, said {said[-400:]}")
                    print(f"{victim} killed after {limit or length:.0f} s: {code}, {lines[-1:]}", flush=True)
                if "Traceback" in said:
                    faults.append(f"{victim} killed: {said[-800:]}")
            found = accepted(folder)
            runs += 1
            equal += sum(pair in expected for pair in found)
            if len(found) != len(expected) or (given.same and found != expected):
                faults.append(
                    f"a resumed run has {len(found)} pairs, {len(expected)} expected; equal: {found == expected}"
                )
            print(f"resumed to the end, {len(found)} pairs, the same: {found == expected}", flush=True)
        print(f"{killed} kills {dict(codes)}, {runs} runs whole, {equal} of {runs * len(expected)} pairs as unbroken")
    print(f"{len(faults)} faults", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
