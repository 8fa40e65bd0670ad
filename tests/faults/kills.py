"""Kills a command again and again and checks that what is left in the end equals an unbroken one, byte for byte.

    python -m tests.faults.kills --kills 1000                        # run, evaluation and comparison in small worlds
    python -m tests.faults.kills --kills 50 --model embedded         # a run of a real model
    python -m tests.faults.kills --kills 10 --model FOLDER --seeds FILE

Every attempt is a process of its own that gets SIGKILL at a random moment; the next attempt resumes what it left.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.worlds import World, content, real_world, small_worlds

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


def attempt(world: World, folder: Path, seconds: float | None) -> tuple[bool, float]:
    """Gives the command and kills it after some seconds; whether it was done before, and how long it took."""
    # A fork of this process, which has the libraries loaded: an attempt begins at once.
    process = multiprocessing.get_context("fork").Process(target=_told, args=(world, folder))
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


def _told(world: World, folder: Path) -> None:
    try:
        world.command(folder)
    except BaseException:  # a fork must not go on with what its parent was doing
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def open_stage(folder: Path) -> str:
    """Where a killed run stood: its newest stage without a DONE."""
    stages = [path for path in sorted(folder.rglob("iteration-*/*")) if path.is_dir()]
    open_stages = [path.name for path in stages if not (path / "DONE").exists()]
    return open_stages[-1] if open_stages else "elsewhere" if stages else "at the start"


def kill_test(world: World, kills: int, seed: int, place: Path) -> int:
    """Makes an unbroken folder, then kills `kills` attempts; the number of differing files."""
    # The same folder for every run, because the run folder's path stands in its config.
    folder, rng = place / "work", random.Random(seed)
    _, length = attempt(world, folder, None)
    expected = content(folder)
    shutil.rmtree(folder)
    killed = finished = differing = 0
    stages: dict[str, int] = {}
    print(f"{world.name}: unbroken {length:.2f} s, {len(expected)} files", flush=True)
    while killed < kills:
        done = False
        while not done:
            limit = rng.uniform(0.02, 0.8) * length if killed < kills else None
            done, _ = attempt(world, folder, limit)
            if not done:
                killed += 1
                stage = open_stage(folder)
                stages[stage] = stages.get(stage, 0) + 1
        finished += 1
        found = content(folder)
        wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        differing += len(wrong)
        if wrong:
            print(f"after {killed} kills: {len(wrong)} files differ {sorted(wrong)[:4]}", flush=True)
        shutil.rmtree(folder)
    print(f"{world.name}: {killed} kills, {finished} resumed to the end, by stage {json.dumps(stages)}")
    print(f"{world.name}: {differing} files differ", flush=True)
    return differing


def main() -> None:
    """Reads the arguments, runs the test and exits with 1 if any file differs."""
    recipe = Path(__file__).parents[2] / "recipes" / "safety" / "seeds.jsonl"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", help="a real model; without one, the small worlds")
    parser.add_argument("--seeds", default=str(recipe))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lenient", action="store_true", help="switch the filters off, for a random tiny model")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if options.model:
            import peft  # noqa: F401  (loaded before the forks)
            import transformers  # noqa: F401
            import trl  # noqa: F401

            worlds = [real_world(options.model, options.seeds, QUICK + (LENIENT if options.lenient else []))]
        else:
            worlds = small_worlds(place)
        # A comparison takes as long as four runs.
        shares = [0.6, 0.25, 0.15] if len(worlds) == 3 else [1.0]
        each = [round(options.kills * share) for share in shares]
        wrong = [kill_test(world, count, options.seed, place) for world, count in zip(worlds, each, strict=True)]
    sys.exit(bool(sum(wrong)))


if __name__ == "__main__":
    main()
