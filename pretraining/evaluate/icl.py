"""Does the model learn from its context? Bits per byte of an answer after 0 to 8 demonstrations of the same group."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretraining import mix, worlds
from pretraining.evaluate.lm import LM, Pair, answer_prompt, mean_and_error
from pretraining.sources import OpenData

COUNTS = (0, 1, 2, 4, 8)


def open_groups(data: Path) -> list[list[Pair]]:
    """Held-out pairs of the open data by task or topic, groups of nine and more."""
    held_out = OpenData(data, part="validation")
    return [pairs for groups in held_out.groups.values() for pairs in groups if len(pairs) > max(COUNTS)]


def grammar_groups(source: str, count: int, seed: int) -> list[list[Pair]]:
    """Documents of the grammar whose last question is held out; the last nine pairs of each."""
    rng = random.Random(f"icl/{source}/{seed}")
    groups: list[list[Pair]] = []
    while len(groups) < count:
        if source == "shop":
            pairs = worlds.shop_document(rng, 0.0, 14).pairs
        else:
            pairs = mix.manner_document(rng, source, 14).pairs
        kept = mix.split(pairs, validation=True)
        if len(kept) > max(COUNTS):
            groups.append(kept[-max(COUNTS) - 1 :])
    return groups


def curves(lm: LM, groups: Sequence[Sequence[Pair]], targets: int, seed: int) -> dict[str, Any]:
    """Mean bits per byte with 0, 1, 2, 4, 8 demonstrations of the target's own group and of random other groups."""
    rng = random.Random(seed)
    scores: dict[str, dict[int, list[float]]] = {kind: {k: [] for k in COUNTS} for kind in ("same", "random")}
    for number in range(targets):
        group = groups[number % len(groups)]
        *same, target = rng.sample(list(group), max(COUNTS) + 1) if len(group) > max(COUNTS) + 1 else list(group)
        others = [rng.choice(rng.choice([g for g in groups if g is not group])) for _ in same]
        for kind, demos in (("same", same), ("random", others)):
            # Nested: four demonstrations are the last four of the eight, so that the nearest stays the nearest.
            prompts = [answer_prompt(demos[len(demos) - k :], target[0]) for k in COUNTS]
            for k, bits in zip(COUNTS, lm.bits(prompts, [f" {target[1]}"] * len(COUNTS)), strict=True):
                scores[kind][k].append(bits)
    return {kind: {k: mean_and_error(values) for k, values in row.items()} for kind, row in scores.items()}
