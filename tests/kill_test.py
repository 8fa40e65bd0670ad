"""Kills a real run again and again and checks that what is left in the end equals an unbroken run, byte for byte.

    python tests/kill_test.py --kills 50          # the embedded model
    python tests/kill_test.py --kills 10 --model FOLDER --seeds FILE

Every attempt is a process of its own that gets SIGKILL at a random moment; the next attempt resumes what it left.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

QUICK = [
    "iterations=2",
    "generate.accept=12",
    "generate.batch=16",
    "generate.max_batches=40",
    "generate.min_yield=0",
    "questions.demos=4",
    "questions.max_new_tokens=32",
    "answers.demos=2",
    "answers.max_new_tokens=32",
    "evaluate.patience=null",
    "train.num_train_epochs=1",
    "train.lora_r=4",
    "retrieve.embedder=lexical",
    "engine.child_process=false",
]
# A random tiny model writes nonsense; with these off, its rows pass and every stage has something to do.
LENIENT = [
    "filters.novelty=null",
    "filters.near_duplicate=null",
    "filters.repetition=null",
    "filters.echo=null",
    "filters.copied=null",
    "filters.language=false",
    "filters.form=false",
    "filters.truncated=false",
    "filters.run_on=false",
]
NOT_COMPARED = {"log.txt", ".lock"}


def run_once(model: str, seeds: str, out: str, overrides: list[str]) -> None:
    """One attempt, in its own process."""
    from isara.build import build_parts
    from isara.config import load_config
    from isara.loop import run

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    run(build_parts(load_config(None, overrides, model=model, seeds=seeds, out=out, heldout=0.2)))


def tree(run: Path) -> dict[str, str]:
    """Hash of every file of a run folder, times and lock aside."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in NOT_COMPARED)
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def attempt(args: tuple[str, str, str, list[str]], seconds: float | None) -> tuple[bool, float]:
    """Runs one attempt and kills it after some seconds; whether it was done before, and how long it took."""
    # A fork of this process, which has the libraries loaded: an attempt begins at once.
    process = multiprocessing.get_context("fork").Process(target=run_once, args=args)
    begun = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        return False, time.monotonic() - begun
    if process.exitcode:
        sys.exit(f"an attempt failed by itself with exit code {process.exitcode}")
    return True, time.monotonic() - begun


def stage_of(run: Path) -> str:
    """Where a killed run stood: its newest stage without a DONE."""
    stages = [folder for folder in sorted(run.glob("iteration-*/*")) if folder.is_dir()]
    open_stages = [folder.name for folder in stages if not (folder / "DONE").exists()]
    return open_stages[-1] if open_stages else "between stages" if stages else "before the first stage"


def kill_test(model: str, seeds: str, kills: int, seed: int, folder: Path, overrides: list[str]) -> int:
    """Makes an unbroken run, then kills `kills` attempts; the number of differing files."""
    # The same folder for every run, because the run folder's path stands in its config.
    out, whole = folder / "run", folder / "whole"
    args = (model, seeds, str(out), overrides)
    _, length = attempt(args, None)
    out.rename(whole)
    expected, rng = tree(whole), random.Random(seed)
    killed = runs = differing = 0
    stages: dict[str, int] = {}
    print(f"unbroken run: {length:.1f} s, {len(expected)} files")
    while killed < kills:
        done = False
        while not done:
            limit = rng.uniform(0.02, 0.8) * length if killed < kills else None
            done, _ = attempt(args, limit)
            if not done:
                killed += 1
                stages[stage_of(out)] = stages.get(stage_of(out), 0) + 1
        runs += 1
        found = tree(out)
        wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        differing += len(wrong)
        print(f"run {runs}: {killed} kills so far, {len(wrong)} files differ {wrong[:4]}", flush=True)
        shutil.rmtree(out)
    print(f"{killed} kills over {runs} resumed runs, by stage {stages}: {differing} files differ")
    return differing


def main() -> None:
    """Reads the arguments, runs the test and exits with 1 if any file differs."""
    recipe = Path(__file__).parents[1] / "recipes" / "safety" / "seeds.jsonl"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", default=str(recipe))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lenient", action="store_true", help="switch the filters off, for a random tiny model")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import peft  # noqa: F401  (loaded before the forks)
    import transformers  # noqa: F401
    import trl  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        overrides = QUICK + (LENIENT if options.lenient else [])
        sys.exit(bool(kill_test(options.model, options.seeds, options.kills, options.seed, Path(folder), overrides)))


if __name__ == "__main__":
    main()
