"""Documents become rows of tokens, filled to the last place so that no step computes on padding."""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretraining import mix
from pretraining.sources import Document, OpenData
from pretraining.text import upper
from pretraining.tokenizer import load_tokenizer, train_tokenizer

# Loss weights in hundredths. Answers are what the demonstrations determine; a question is one of millions, so most of
# its loss is noise of the grammar, and it is learnt at a lower weight.
ANSWER_WEIGHT, QUESTION_WEIGHT, TEXT_WEIGHT = 100, 40, 100
# A key (a shop's rule, a code) is the few words that had to be looked up: it weighs more where an earlier answer holds
# it, and little where nothing does, as does the first answer in a manner that was drawn for the document.
FOUND_WEIGHT, FREE_WEIGHT = 300, 20
Tokens = list[int]


def segments(document: Document) -> list[tuple[str, int]]:
    """The document's text in pieces, each with its loss weight; joined they are exactly a prompt of the package."""
    if document.text:
        return [(document.text, TEXT_WEIGHT)]
    pieces = []
    seen: set[str] = set()
    for number, (question, answer) in enumerate(document.pairs):
        marker = "\n\nQuestion:" if number else "Question:"
        pieces += [(f"{marker} {question}", QUESTION_WEIGHT), ("\nAnswer:", QUESTION_WEIGHT)]
        first = document.drawn and number == 0 and len(document.pairs) > 2
        weight = FREE_WEIGHT if first else ANSWER_WEIGHT
        key = key_of(answer, document.keys)
        if not key:
            pieces.append((f" {answer}", weight))
            continue
        head, _, tail = f" {answer}".partition(f" {key}")
        known = FOUND_WEIGHT if key.lower() in seen else FREE_WEIGHT
        pieces += [(text, w) for text, w in ((head, weight), (f" {key}", known), (tail, weight)) if text]
        seen.add(key.lower())
    return pieces


def key_of(answer: str, keys: frozenset[str]) -> str:
    """The longest key that the answer holds, as it stands there (with a capital perhaps), or an empty text."""
    held = (form for key in keys for form in (key, upper(key)) if f" {form}" in f" {answer}")
    return max(held, key=len, default="")


def render(document: Document) -> str:
    """The document as one text."""
    return "".join(text for text, _ in segments(document))


def encode(tokenizer: Any, documents: Sequence[Document]) -> Iterator[tuple[Tokens, Tokens]]:
    """Token ids and loss weights of each document, from BOS to EOS."""
    cut = [segments(document) for document in documents]
    flat = [text for pieces in cut for text, _ in pieces]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    for pieces in cut:
        ids, weights = [int(tokenizer.bos_token_id)], [0]
        for _, weight in pieces:
            piece = next(encoded)
            ids += piece
            weights += [weight] * len(piece)
        # What follows the last answer is its end: weighed like the answer it belongs to.
        yield [*ids, int(tokenizer.eos_token_id)], [*weights, weights[-1]]


def pack(
    documents: Iterator[Document], tokenizer: Any, rows: int, length: int
) -> tuple[NDArray[np.uint16], Counter[str]]:
    """Fill rows with documents; what does not fit at the end of a row is cut off, never the beginning.

    Returns:
        An array (rows, 2, length + 1) of token ids and loss weights, and the number of tokens of each source.
    """
    packed = np.zeros((rows, 2, length + 1), dtype=np.uint16)
    counts: Counter[str] = Counter()
    row = place = 0
    while row < rows:
        batch = [next(documents) for _ in range(256)]
        for document, (ids, weights) in zip(batch, encode(tokenizer, batch), strict=True):
            if row == rows:
                break
            taken = min(len(ids), length + 1 - place)
            packed[row, 0, place : place + taken] = ids[:taken]
            packed[row, 1, place : place + taken] = weights[:taken]
            counts[document.source] += taken
            place += taken
            if place == length + 1:
                row, place = row + 1, 0
    return packed, counts


def ease(shard: int, late: int) -> float:
    """The curriculum: worlds of few families in the first six shards, and, less so, in the ten from `late` on."""
    return max(0.1, 1.0 - 0.15 * shard) if shard < late else max(0.1, 0.7 - 0.06 * (shard - late))


def main(argv: Sequence[str] | None = None) -> None:
    """Train the tokenizer, then write a shard of validation rows and those of training rows; what is there stays."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--recipes", type=Path, default=Path("recipes"), help="texts that the mix must not hold")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument(
        "--long", type=int, default=768, help="length of the rows of the later shards and of validation"
    )
    parser.add_argument("--long-from", type=int, default=6, help="the first shard of long rows")
    parser.add_argument("--worlds-from", type=int, default=5, help="the first shard with the mix of many worlds")
    parser.add_argument("--late-from", type=int, default=13, help="the first shard with the mix of kinds of things")
    parser.add_argument(
        "--strange-from", type=int, default=8, help="the first shard with phrases to copy letter by letter"
    )
    parser.add_argument("--tokens", type=int, default=1_000_000, help="tokens of a shard")
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--tokenizer-documents", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    contamination = mix.Contamination(sorted(args.recipes.glob("*/*.jsonl")))
    open_data = OpenData(args.data)
    if not (args.out / "tokenizer.json").exists():
        sample = mix.documents(args.seed, open_data, contamination, 0.3)
        texts = (render(next(sample)) for _ in range(args.tokenizer_documents))
        train_tokenizer(texts, args.vocabulary).save_pretrained(args.out)
    tokenizer = load_tokenizer(args.out)
    if not (args.out / "validation.npy").exists():
        held_out = mix.documents(args.seed, OpenData(args.data, part="validation"), contamination, 0.1, validation=True)
        _write(args.out / "validation", *pack(held_out, tokenizer, max(8, args.tokens // 8 // args.long), args.long))
    for shard in range(args.shards):
        if (args.out / f"shard-{shard:03d}.npy").exists():
            continue
        length = args.long if shard >= args.long_from else args.length
        shares = mix.BROAD if shard < args.worlds_from else mix.WORLDS if shard < args.late_from else mix.LATE
        easiness, strange = ease(shard, args.late_from), 0.6 if shard >= args.strange_from else 0.0
        documents = mix.documents(
            args.seed + 1 + shard, open_data, contamination, easiness, shares=shares, strange=strange
        )
        packed, counts = pack(documents, tokenizer, args.tokens // length, length)
        packed = packed[random.Random(shard).sample(range(len(packed)), len(packed))]
        _write(args.out / f"shard-{shard:03d}", packed, counts)
    print(f"dropped {contamination.dropped} pairs or texts that share {mix.NGRAM} words with a recipe")


def _write(path: Path, packed: NDArray[np.uint16], counts: Counter[str]) -> None:
    """Rows first under another name, so that a trainer that waits for a shard never sees half of it."""
    path.with_suffix(".json").write_text(json.dumps(dict(counts.most_common()), indent=1) + "\n", encoding="utf-8")
    part = path.with_suffix(".part.npy")
    np.save(part, packed)
    part.rename(path.with_suffix(".npy"))
    print(f"{path.name}: {packed.shape[0]} rows, {packed[:, 0].size:,} tokens", flush=True)


if __name__ == "__main__":
    main()
