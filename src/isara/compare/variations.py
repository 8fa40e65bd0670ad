"""The same comparison several times, with other pairs: held-out categories, and more and fewer seeds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isara.compare.arms import changed
from isara.errors import ConfigError
from isara.evaluate.scorers import heldout_rows
from isara.parts import Parts
from isara.records import QAPair


@dataclass(frozen=True, slots=True)
class Variation:
    """A comparison on other pairs.

    Attributes:
        name: Its folder.
        about: What its pairs are, in a line.
        base: The recipe's parts with these pairs.
    """

    name: str
    about: str
    base: Parts


def by_categories(
    base: Parts, column: str, held: Sequence[Sequence[str]] = (), splits: int = 3, keep: Sequence[str] = ()
) -> list[Variation]:
    """Seeds of some categories, held-out pairs of the others; each category is held out once.

    Args:
        base: The recipe's parts.
        column: Holds the category, in the file of the seeds and in that of the held-out pairs.
        held: The categories that each variation holds out; none deals all of them out.
        splits: Into how many variations they are dealt, by hash.
        keep: Categories that stay on both sides.

    Raises:
        ConfigError: There is no such column or category, or there are fewer categories than splits.
    """
    config = base.config
    seeds = _categories(column, base.seeds, heldout_rows(changed(config, {"heldout": config.seeds}), base.seeds))
    tests = _categories(column, base.heldout, heldout_rows(config, base.heldout))
    known = sorted({*seeds.values()} & {*tests.values()} - {*keep}, key=_place)
    for name in (name for group in [*held, keep] for name in group):
        if name not in {*known, *keep} or name not in tests.values():
            raise ConfigError(
                f"no held-out pair has the {column} {name!r}: there are {'; '.join(sorted({*tests.values()}))}"
            )
    if not held:
        if not 1 < splits <= len(known):
            raise ConfigError(
                f"expected from 2 to {len(known)} splits, as many as the seeds and the held-out pairs share values of "
                f"{column}, found {splits}: change --splits"
            )
        held = [known[start::splits] for start in range(splits)]
    made = []
    for number, group in enumerate(held, 1):
        own = [pair for pair in base.seeds if seeds[pair.id] not in group]
        asked = [pair for pair in base.heldout if tests[pair.id] in {*group, *keep}]
        if not own:
            raise ConfigError(f"all seeds are of the {column} {', '.join(group)}: leave some to learn from")
        about = f"{column} held out: {'; '.join(group)}"
        made.append(Variation(f"split-{number}", about, replace(base, seeds=own, heldout=asked)))
    return made


def by_counts(base: Parts, counts: Sequence[int]) -> list[Variation]:
    """So many of the seeds, chosen by hash: a smaller choice is a part of each larger one.

    Raises:
        ConfigError: There are not so many seeds.
    """
    ranked = sorted(base.seeds, key=lambda pair: _place(pair.id))
    made = []
    for count in counts:
        if not 1 <= count <= len(ranked):
            raise ConfigError(f"--seed-counts: expected numbers from 1 to {len(ranked)}, the seeds, found {count}")
        chosen = {pair.id for pair in ranked[:count]}
        own = [pair for pair in base.seeds if pair.id in chosen]
        made.append(Variation(f"seeds-{count}", f"{count} of {len(ranked)} seeds", replace(base, seeds=own)))
    return made


def _categories(column: str, pairs: Sequence[QAPair], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The category of each pair, by id."""
    for row in rows:
        if column not in row:
            raise ConfigError(
                f"expected a column {column!r} in the files of seeds and of held-out pairs, found {', '.join(row)}: "
                "name another after --hold-out-category"
            )
    return {pair.id: str(row[column]) for pair, row in zip(pairs, rows, strict=True)}


def _place(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
