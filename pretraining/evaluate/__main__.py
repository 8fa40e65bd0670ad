"""Run every measurement and write the figures: `python -m pretraining.evaluate --out evaluation.json`."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pretraining.evaluate import behaviour, icl
from pretraining.evaluate.lm import LM

Figures = dict[str, Any]


def measure_icl(lm: LM, data: Path, targets: int, seed: int) -> Figures:
    """ICL curves on held-out groups: the open data, documents of one voice, and shops."""
    groups = {
        "open data": icl.open_groups(data),
        "manners": icl.grammar_groups("safety", max(20, targets // 4), seed),
        "shops": icl.grammar_groups("shop", max(20, targets // 4), seed),
    }
    return {name: icl.curves(lm, found, targets, seed) for name, found in groups.items() if len(found) > 1}


def measure_manners(lm: LM, recipe: Path, count: int, seed: int) -> Figures:
    """Shares of each manner on the recipe's harmful questions and on held-out ones of the grammar."""
    rows = [row["question"] for row in behaviour.read_rows(recipe / "heldout.jsonl") if row["harmful"]]
    return {
        "recipe": behaviour.manner_shares(lm, rows[:count], seed),
        "grammar": behaviour.manner_shares(lm, behaviour.held_out_harm(count // 2, seed), seed),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the exported model; figures go to a JSON file, three seeds where something is sampled."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=Path("src/isara/embedded/model"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--recipes", type=Path, default=Path("recipes"))
    parser.add_argument("--out", type=Path, default=Path("evaluation.json"))
    parser.add_argument("--targets", type=int, default=120, help="answers an ICL curve is measured on")
    parser.add_argument("--questions", type=int, default=500, help="questions generated for each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of the measurements to run")
    args = parser.parse_args(argv)
    lm, safety, shop = LM(args.model), args.recipes / "safety", args.recipes / "shop"
    seeds = range(args.seeds)
    pairs = behaviour.pairs_of(behaviour.read_rows(safety / "seeds.jsonl"))
    measurements: dict[str, Callable[[], Any]] = {
        "manners": lambda: [measure_manners(lm, safety, 56, seed) for seed in seeds],
        "shop": lambda: [behaviour.shop_accuracy(lm, shop, 6, seed) for seed in seeds],
        "new shops": lambda: {n: behaviour.grammar_shop_accuracy(lm, n, 60, 0) for n in (2, 4, 8, 12)},
        "refusals": lambda: [behaviour.refusals(lm, safety, seed) for seed in seeds],
        "generation": lambda: [behaviour.generation(lm, pairs, args.questions, seed) for seed in seeds],
        "icl": lambda: measure_icl(lm, args.data, args.targets, 0),
    }
    figures: Figures = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for name in args.only or measurements:
        figures[name] = measurements[name]()
        args.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(figures[name], ensure_ascii=False)[:2000]}", flush=True)


if __name__ == "__main__":
    main()
