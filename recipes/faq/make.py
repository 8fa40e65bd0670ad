"""Writes this recipe's pairs from the installed package `zaragoza-construction-faq`; none of its texts is kept here.

    pip install zaragoza-construction-faq
    python recipes/faq/make.py            # English; --language sv for Swedish

64 seeds come from some categories, the 100 held-out pairs from others: whole categories are unseen.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

SEEDS = 64
# Which categories are held out: the first of all, ordered by the hash of their names, that hold this many pairs.
HELD_OUT = 100


def main() -> None:
    """Writes the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", choices=("en", "sv"), default="en", help="of the pairs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder that gets the two files")
    options = parser.parse_args()
    try:
        from zaragoza_construction_faq import load
    except ImportError:
        sys.exit("expected the package zaragoza-construction-faq, found none: pip install zaragoza-construction-faq")
    seeds, heldout = split(load(lang=options.language))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("seeds", seeds), ("heldout", heldout)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        categories = len({row["category"] for row in rows})
        sys.stdout.write(f"{options.out / f'{name}.jsonl'}: {len(rows)} pairs of {categories} categories\n")


def split(rows: Iterable[Mapping[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Seeds and held-out pairs of different categories, the same ones for both languages: ids decide, not texts."""
    ordered = sorted(rows, key=lambda row: _hash(row["id"]))
    names = sorted({row["category"] for row in ordered}, key=_hash)
    heldout: list[Mapping[str, str]] = []
    while len(heldout) < HELD_OUT:
        name = names.pop()
        heldout += [row for row in ordered if row["category"] == name]
    loop = [row for row in ordered if row["category"] in names]
    return [_pair(row) for row in loop[:SEEDS]], [_pair(row) for row in heldout[:HELD_OUT]]


def _pair(row: Mapping[str, str]) -> dict[str, str]:
    return {"question": row["q"], "answer": row["a"], "category": row["category"], "id": row["id"]}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
