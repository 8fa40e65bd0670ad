"""Validation loss by source, in nats per token, of an exported model."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from pretraining import mix
from pretraining.pack import ANSWER_WEIGHT, encode
from pretraining.sources import Document, OpenData
from pretraining.tokenizer import load_tokenizer


def collect(documents: int, open_data: OpenData, contamination: mix.Contamination) -> dict[str, list[Document]]:
    """Held-out documents of each source, drawn from the mix until that many came; at most 40 a source."""
    found: dict[str, list[Document]] = {}
    stream = mix.documents(7, open_data, contamination, 0.1, validation=True, shares=mix.LATE)
    for _ in range(documents):
        document = next(stream)
        found.setdefault(document.source, []).append(document)
    return {source: rows[:40] for source, rows in sorted(found.items())}


@torch.no_grad()
def loss_by_source(folder: Path, found: dict[str, list[Document]], length: int = 768) -> dict[str, dict[str, float]]:
    """Mean loss over all tokens of a source's documents, and over those of answers that can be known."""
    tokenizer = load_tokenizer(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.eval()
    table = {}
    for source, documents in found.items():
        losses, answers = [], []
        for ids, weights in encode(tokenizer, documents):
            tokens = torch.tensor(ids[: length + 1])
            logits = model(input_ids=tokens[None, :-1]).logits[0].float()
            nats = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
            losses.append(nats)
            answers.append(nats[torch.tensor(weights[1 : length + 1]) >= ANSWER_WEIGHT])
        every, of_answers = torch.cat(losses), torch.cat(answers)
        table[source] = {
            "tokens": len(every), "loss": round(every.mean().item(), 3), "answers": round(of_answers.mean().item(), 3)
        }  # fmt: skip
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Write the validation loss of each source as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=Path("src/isara/embedded/model"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--recipes", type=Path, default=Path("recipes"))
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("losses.json"))
    args = parser.parse_args(argv)
    contamination = mix.Contamination(sorted(args.recipes.glob("*/*.jsonl")))
    found = collect(args.documents, OpenData(args.data, part="validation"), contamination)
    args.out.write_text(json.dumps(loss_by_source(args.model, found), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
