"""The held-out questions, asked greedily; every answer lies under the key of what made it, so none is asked twice."""

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isara.asking import Asker, no_demos
from isara.compare.arms import Arm, Shown
from isara.errors import ModelError
from isara.evaluate.results import ResultFile
from isara.files import value_hash
from isara.generate import stream
from isara.keys import part_key
from isara.parts import Parts
from isara.pool import Pool, Retrieve, pool_key, retriever
from isara.records import QAPair, Sampling
from isara.stages import Model

CHUNK = 64  # questions that are asked at a time: what a kill can cost


def ask(
    parts: Parts,
    arm: Arm,
    model: Model,
    tests: Sequence[QAPair],
    folder: Path,
    likelihood: bool = False,
    begin: Callable[[int], None] = lambda missing: None,
) -> list[dict[str, Any]]:
    """A model's greedy answers to the test questions, in order; what an earlier call has stored isn't asked again.

    Args:
        parts: Whose seed pairs, prompts and engine are taken.
        arm: Says which demonstrations are shown.
        model: Is asked; it is opened only where an answer is missing.
        tests: The questions.
        folder: Where the answers lie.
        likelihood: Whether to measure, too, what the held-out answer costs in bits after the same demonstrations.
        begin: Is told how many answers are missing, where any is.
    """
    retrieve, shown = shown_pairs(parts, arm)
    key = {
        "weights": model.weights,
        "prompt format": part_key(parts.renderer),
        "engine": part_key(parts.engine),
        "max_new_tokens": parts.config.answers.max_new_tokens,
        "shown": shown,
        "likelihood": likelihood,
    }
    file = ResultFile(folder / f"{value_hash(key)[:16]}.jsonl", key)
    done = file.rows()
    if missing := sum(pair.id not in done for pair in tests):
        begin(missing)
    with parts.asker(model.path) as asker:
        for start in range(0, len(tests), CHUNK):
            chunk = tests[start : start + CHUNK]
            if all(pair.id in done for pair in chunk):
                continue
            # Whole chunks, even where a kill has left some of their rows: what a model says may depend on its company.
            rows = _rows(asker, chunk, retrieve, parts.config.answers.max_new_tokens, likelihood)
            file.append([row for row in rows if row["id"] not in done])
            done |= {row["id"]: row for row in rows if row["id"] not in done}
    return [done[pair.id] for pair in tests]


def shown_pairs(parts: Parts, arm: Arm) -> tuple[Retrieve, dict[str, Any] | None]:
    """What gives each question the demonstrations that the arm shows, and what says in a key which these are."""
    pool, demos, seed = Pool(parts.embedder, parts.seeds), parts.config.answers.demos, parts.config.seed
    return _retrieve(arm.shown, pool, demos, seed), _shown_key(arm.shown, pool, demos, seed)


def _rows(
    asker: Asker, pairs: Sequence[QAPair], retrieve: Retrieve, tokens: int, likelihood: bool
) -> list[dict[str, Any]]:
    seeds = [stream(0, "answer", pair.question) for pair in pairs]
    draws = asker.answers(pairs, Sampling(0.0, 1.0, tokens), seeds, retrieve)
    costs = _bits(asker, pairs, retrieve) if likelihood else [None] * len(pairs)
    rows = []
    for pair, draw, bits in zip(pairs, draws, costs, strict=True):
        row: dict[str, Any] = {"id": pair.id, "question": pair.question}
        if draw is None:
            row |= {"answer": "", "tokens": 0, "finish": "too long", "demo_ids": []}
        else:
            shown = list(draw.demo_ids)
            row |= {"answer": draw.text, "tokens": draw.tokens, "finish": draw.finish, "demo_ids": shown}
        rows.append(row if bits is None else {**row, "bits": bits})
    return rows


def _bits(asker: Asker, pairs: Sequence[QAPair], retrieve: Retrieve) -> list[float]:
    """-log2 of the probability of each pair's answer after its question and the demonstrations that leave it room."""
    prompts, texts = [], []
    for pair in pairs:
        text = asker.renderer.answer_ids(asker.renderer.answer((), pair), pair.answer)
        found = asker.prompt(pair, asker.renderer.context_length - len(text), retrieve(pair))
        if found is None:
            raise ModelError(
                f"held-out pair {pair.id} does not fit into the model's context of {asker.renderer.context_length} "
                "tokens: shorten the pair or take it out"
            )
        prompts.append(found[0])
        texts.append(text)
    return [-logprob / math.log(2) for logprob in asker.logprobs(prompts, texts)]


def _retrieve(shown: Shown, pool: Pool, demos: int, seed: int) -> Retrieve:
    match shown:
        case "none":
            return no_demos
        case "fixed":
            drawn = pool.sample(demos, random.Random(stream(seed, "fixed demonstrations")))
            return partial(_always, [(pair, 0.0) for pair in drawn])
        case "nearest" | "random":
            return retriever(pool, shown, demos, seed)


def _always(drawn: Sequence[tuple[QAPair, float]], pair: QAPair) -> Sequence[tuple[QAPair, float]]:
    return drawn


def _shown_key(shown: Shown, pool: Pool, demos: int, seed: int) -> dict[str, Any] | None:
    """What decides which demonstrations stand before the questions; None where there are none."""
    if shown == "none" or not demos:
        return None
    drawn = {} if shown == "nearest" else {"seed": seed}
    return {"demonstrations": shown, "demos": demos, "pool": pool_key(pool), **drawn}
