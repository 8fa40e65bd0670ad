"""Accepted pairs a minute, from end to end: the same pipeline over ISARA's engine and over `model.generate`.

    python benchmarks/peers/pairs.py --model smollm2-135m --recipe recipes/safety --rows 64 --rounds 1

One batch of the recipe's first iteration, from questions to filtered pairs, by the model as it is (give the folder of a
tuned one for answers as they are in a run). The plain engine is what a good user writes: batches of 16 sorted by
length, padded on the left, each row ended at its stop string. Filters, retrieval and prompts are ours on both sides, so
what differs is the engine; a script whose novelty filter is a loop over `rouge_score` loses more (`../novelty.py`).
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara.build import build_parts
from isara.config import load_config
from isara.hardware import find_dtype
from isara.preview import preview
from isara.records import Completion, Prompt, Sampling

BATCH = 16


class PlainEngine:
    """`model.generate`, a batch at a time.

    Args:
        model: A model folder.
        dtype: Of its weights.
    """

    exact = False

    def __init__(self, model: str, dtype: str) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt; a call has one random stream."""
        torch.manual_seed(seeds[0])
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids))
        done: dict[int, Completion] = {}
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            texts = self._batch([prompts[place].ids for place in places], sampling)
            done |= zip(places, texts, strict=True)
        return [done[place] for place in range(len(prompts))]

    def _batch(self, rows: Sequence[Sequence[int]], sampling: Sampling) -> list[Completion]:
        width = max(map(len, rows))
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        stops = {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer} if sampling.stop else {}
        output = self.model.generate(
            input_ids=torch.tensor([[0] * (width - len(row)) + list(row) for row in rows]),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=0,
            **(drawn if sampling.temperature else {"do_sample": False}),
            **stops,
        )
        return [self._read(ids[width:].tolist(), sampling) for ids in output]

    def _read(self, ids: list[int], sampling: Sampling) -> Completion:
        """Cut at the first stop string or end of sequence."""
        ends = [place for place, token in enumerate(ids) if token in self.tokenizer.all_special_ids]
        tokens = ends[0] + 1 if ends else len(ids)
        text = self.tokenizer.decode(ids[:tokens], skip_special_tokens=True)
        cuts = [place for place in map(text.find, sampling.stop) if place >= 0]
        ended = bool(ends or cuts)
        return Completion(text[: min(cuts, default=len(text))], tokens, "stop" if ended else "length")

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Not measured here."""
        raise NotImplementedError("a recipe that needs likelihoods has more to do than this compares")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self.model


def main() -> None:
    """Prints a line for each engine and round, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--recipe", default="recipes/safety")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default=str(find_dtype("auto", "cpu")).removeprefix("torch."))
    parser.add_argument("--out", type=Path, help="a JSON file for the raw figures")
    options = parser.parse_args()
    settings = [f"model={options.model}", f"engine.dtype={options.dtype}", "questions.from=last", "answers.from=last"]
    parts = build_parts(load_config(options.recipe, settings))
    plain = replace(parts, engine=lambda model: PlainEngine(model, options.dtype))
    found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for _ in range(options.rounds):
        for name, each in (("ours", parts), ("plain", plain)):
            with each.asker(each.model) as asker:
                asker.generate([asker.renderer.question(each.seeds[:1])], Sampling(max_new_tokens=2), [0])
                begun = time.perf_counter()
                seen = preview(each, asker, options.rows)
                seconds = time.perf_counter() - begun
            tokens = sum(draw.tokens for row in seen.candidates for draw in row.draws)
            row = {"accepted": seen.accepted, "candidates": len(seen.candidates), "tokens": tokens, "seconds": seconds}
            found[name].append(row)
            print(name, json.dumps(row), f"{seen.accepted / seconds * 60:.1f} accepted pairs a minute", flush=True)
    if options.out:
        options.out.write_text(json.dumps({**vars(options), "out": None, "rounds": found}, indent=1) + "\n")
    print(f"ours makes {speed(found['ours']) / speed(found['plain']):.2f} times as many accepted pairs a minute")


def speed(rounds: Sequence[dict[str, float]]) -> float:
    """Accepted pairs a second, the median over the rounds."""
    return median(row["accepted"] / row["seconds"] for row in rounds)


if __name__ == "__main__":
    main()
