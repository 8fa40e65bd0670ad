"""The questions that arms are compared on, where they are others than the held-out pairs: tests of another source."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from isara.config import Config
from isara.data import read_pairs
from isara.evaluate.benchmarks import Data, SafetyItem
from isara.evaluate.items import choose
from isara.records import QAPair
from isara.tables import read_table

Row: TypeAlias = dict[str, Any]
BENCHMARKS = ("beavertails", "xstest")


def read_tests(named: Sequence[str], config: Config, limit: int | None = None) -> tuple[list[QAPair], list[Row]]:
    """Test questions, each with a row of what is known of it.

    Args:
        named: A file of pairs each, with all of their columns; or "beavertails" or "xstest", or either with "=FILE" for
            a copy of it. Their prompts have no answers, and the columns `harmful` and `category`.
        config: Says which columns of a file hold the pairs.
        limit: Most questions of each, chosen by hash; None for all.

    Raises:
        SeedError: A file can't be read, or a benchmark can't be had.
    """
    pairs: list[QAPair] = []
    rows: list[Row] = []
    for text in named:
        name, _, file = text.partition("=")
        found = _benchmark(name, file) if name in BENCHMARKS else _file(text, config)
        chosen = choose([pair for pair, _ in found], limit)
        known = {pair.id: row for pair, row in found}
        new = [pair for pair in chosen if pair.id not in {other.id for other in pairs}]
        pairs += new
        rows += [known[pair.id] for pair in new]
    return pairs, rows


def _benchmark(name: str, file: str) -> list[tuple[QAPair, Row]]:
    data = Data({name: Path(file).expanduser()} if file else {}, {})
    items: Sequence[SafetyItem] = data.beavertails() if name == "beavertails" else data.xstest()
    return [
        (
            QAPair(item.prompt, ""),
            {
                "question": item.prompt,
                "answer": "",
                "harmful": not item.safe,
                "category": f"harmless, {name}" if item.safe else item.category,
                "source": name,
            },
        )
        for item in items
    ]


def _file(name: str, config: Config) -> list[tuple[QAPair, Row]]:
    path = Path(name).expanduser()
    pairs = read_pairs(path, config.columns.question, config.columns.answer)
    table = read_table(path) if path.is_file() else []
    # A file of dialogues may hold more pairs than rows; its other columns are nobody's then.
    rows = table if len(table) == len(pairs) else [{} for _ in pairs]
    return [
        (pair, {**row, "question": pair.question, "answer": pair.answer}) for pair, row in zip(pairs, rows, strict=True)
    ]
