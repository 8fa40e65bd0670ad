"""The model card: fixed text from card.md, tables from the figures of the other steps."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pretraining.sources import SOURCES
from pretraining.train import shards

Figures = dict[str, Any]
GRAMMAR_LICENCE = "written for this model, Apache-2.0"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(values: Sequence[float]) -> str:
    """The mean in percent, with the range over seeds where there is one."""
    mean, low, high = (round(100 * v) for v in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} %" if low == high else f"{mean} % ({low}-{high})"


def token_counts(rows: Path, tokens: int) -> Counter[str]:
    """Tokens of each source that a run of that many tokens saw: whole shards in their order, the last one in part."""
    files = shards(rows)
    counts: Counter[str] = Counter()
    number, again = 0, len(files) // 3
    while tokens > 0:
        shard = Counter(json.loads(files[number].with_suffix(".json").read_text(encoding="utf-8")))
        share = min(1.0, tokens / shard.total())
        counts.update({source: round(share * count) for source, count in shard.items()})
        tokens -= shard.total()
        number = number + 1 if number + 1 < len(files) else again
    return counts


def sources_table(counts: Counter[str], losses: Figures) -> str:
    """What the model saw, under which licence, and its held-out loss on it."""
    licences = {source.name: source.licence for source in SOURCES}
    rows = []
    for source, count in counts.most_common():
        loss, share = losses.get(source, {}), 100 * count / counts.total()
        row = (source, licences.get(source, GRAMMAR_LICENCE), f"{count / 1e6:.2f}", f"{share:.1f} %")
        rows.append((*row, loss.get("loss", "-"), loss.get("answers", "-")))
    return table(("source", "licence", "M tokens", "share", "loss", "loss on answers"), rows)


def manner_table(runs: Sequence[Figures], part: str) -> str:
    """Share of greedy answers in the demonstrated manner, and of zero-shot answers in it."""
    rows = [
        (manner, *(percent([run[part][arm].get(manner, 0.0) for run in runs]) for arm in ("zero-shot", manner)))
        for manner in runs[0][part]
        if manner != "zero-shot"
    ]
    return table(("manner", "zero-shot", "5 demonstrations of it"), rows)


def shop_table(runs: Sequence[Figures]) -> str:
    """Right rules by arm, with the share of prompts that hold a pair with the right rule."""
    rows = [
        (arm, percent([run[arm]["right"] for run in runs]), percent([run[arm]["rule_in_prompt"] for run in runs]))
        for arm in runs[0]
    ]
    return table(("demonstrations", "right rule", "right rule among them"), rows)


def refusal_table(runs: Sequence[Figures]) -> str:
    """Answers in the form of the safety recipe, on harmful and on harmless questions."""
    rows = [(arm, *(percent([run[arm][kind] for run in runs]) for kind in ("harmful", "harmless"))) for arm in runs[0]]
    return table(("demonstrations", "harmful questions", "harmless questions"), rows)


def icl_table(curves: Figures) -> str:
    """Bits per byte of the answer by number of demonstrations."""
    rows = []
    for name, kinds in curves.items():
        for kind, by_count in kinds.items():
            rows.append((name, kind, *(f"{mean:.2f} ± {error:.2f}" for mean, error in by_count.values())))
    return table(("held-out groups", "demonstrations", "0", "1", "2", "4", "8"), rows)


def generation_table(runs: Sequence[Figures]) -> str:
    """Form, novelty and ends of generated questions and answers."""
    names = {"well_formed": "questions that are well-formed", "novel": "questions that are well-formed and novel",
             "answers_end": "answers that end by themselves"}  # fmt: skip
    return table(("", "share"), [(text, percent([run[key] for run in runs])) for key, text in names.items()])


def raw_text(run: Figures) -> str:
    """Twenty raw questions, and twenty pairs of kept questions with their answers, as they came."""
    questions = "\n".join(f"{n}. {text}" for n, (text, _) in enumerate(run["raw"], 1))
    pairs = "\n\n".join(f"> **{q}**\n> {a}" for q, a in run["pairs"])
    return f"{questions}\n\nThe first twenty that passed form and novelty, with their answers:\n\n{pairs}"


def render(template: str, rows: Path, run: Path, figures: Figures, losses: Figures) -> str:
    """The card's text."""
    last = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["progress"]["log"][-1]
    counts = token_counts(rows, last["tokens"])
    licences = {source.name for source in SOURCES}
    synthetic = sum(count for source, count in counts.items() if source not in licences) / counts.total()
    values = {
        "tokens": f"{last['tokens'] / 1e6:.1f}", "steps": f"{last['step']:,}", "minutes": round(last["seconds"] / 60),
        "validation": f"{last['validation']:.3f}", "synthetic": f"{100 * synthetic:.0f}",
        "sources": sources_table(counts, losses), "manners_recipe": manner_table(figures["manners"], "recipe"),
        "manners_grammar": manner_table(figures["manners"], "grammar"), "shop": shop_table(figures["shop"]),
        "refusals": refusal_table(figures["refusals"]), "icl": icl_table(figures["icl"]),
        "new_shops": table(list(figures["new shops"]), [[percent([v]) for v in figures["new shops"].values()]]),
        "generation": generation_table(figures["generation"]), "raw": raw_text(figures["generation"][0]),
    }  # fmt: skip
    for name, value in values.items():
        template = template.replace(f"<{name}>", str(value))
    return template


def main(argv: Sequence[str] | None = None) -> None:
    """Write the card beside the model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True, help="what pretraining.evaluate wrote")
    parser.add_argument("--losses", type=Path, required=True, help="what pretraining.losses printed")
    parser.add_argument("--out", type=Path, default=Path("src/isara/embedded/model/README.md"))
    args = parser.parse_args(argv)
    figures, losses = (json.loads(path.read_text(encoding="utf-8")) for path in (args.figures, args.losses))
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    args.out.write_text(render(template, args.rows, args.run, figures, losses), encoding="utf-8")


if __name__ == "__main__":
    main()
