"""How much faster several workers are than one, each with one thread, and whether they make the same rows.

    python benchmarks/workers.py --model smollm2-135m --prompts 64 --rounds 2
    python benchmarks/workers.py --model smollm2-135m --prompts 64 --rounds 2 --launcher ray

Both generate the same ISARA answer prompts in float32, in turns; opening is not counted. The machine is best idle.
With Ray a cluster of this machine alone is started and ended.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

from isara.build import build_engine
from isara.config import load_config
from isara.models import find_model
from isara.records import Completion, QAPair, Sampling
from isara.render import open_renderer

SEEDS = Path(__file__).parents[1] / "recipes" / "shop" / "seeds.jsonl"
DEMONSTRATIONS = 5


def main() -> None:
    """Prints one line a call, then the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--launcher", default="python", choices=["python", "ray"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = [QAPair.from_json(json.loads(line)) for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    model, rng = find_model(given.model), random.Random(0)
    renderer = open_renderer(model)
    draws = [rng.sample(pairs, DEMONSTRATIONS + 1) for _ in range(given.prompts)]
    prompts = [renderer.answer(demos, last) for *demos, last in draws]
    sampling, seeds = Sampling(1.0, 0.95, given.new_tokens), list(range(given.prompts))
    seconds: dict[int, list[float]] = {1: [], given.workers: []}
    rows: dict[int, list[Completion]] = {}
    for number in range(given.rounds):
        for workers in seconds:
            launch = ["engine.launcher=ray", "engine.address=local"] if given.launcher == "ray" and workers > 1 else []
            settings = [f"engine.workers={workers}", "engine.device=cpu", "engine.dtype=float32", *launch]
            with build_engine(load_config(None, settings))(model) as engine:
                begun = time.perf_counter()
                rows[workers] = engine.generate(prompts, sampling, seeds)
                seconds[workers].append(time.perf_counter() - begun)
            tokens = sum(row.tokens for row in rows[workers])
            speed = tokens / seconds[workers][-1]
            print(f"round {number + 1}: {workers} workers, {tokens} tokens, {speed:.0f} tokens/s", flush=True)
    ratio = statistics.median(seconds[1]) / statistics.median(seconds[given.workers])
    print(f"{given.workers} workers are {ratio:.2f} times as fast as one; same rows: {rows[1] == rows[given.workers]}")


if __name__ == "__main__":
    main()
