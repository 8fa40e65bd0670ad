"""`isara compare`: is it worth it against what else could be done with the same pairs and model?"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.errors import ConfigError, RunError

if TYPE_CHECKING:
    from isara.compare.arms import Arm
    from isara.compare.comparison import Comparison
    from isara.parts import Parts

DEFAULT_ARMS = "zero-shot,icl-knn,sft-seeds-equal,isara"

Recipe = Annotated[Path, typer.Argument(help="An isara.yaml, or the folder that holds one.", show_default=False)]
Arms = Annotated[str, typer.Option(help="The arms, by commas, or `all`; docs/compare.md lists them.")]
Seeds = Annotated[int, typer.Option(min=1, help="Training seeds: each arm is run with each of them, from 0.")]
Models = Annotated[str | None, typer.Option(help="Models, by commas; by default the recipe's.")]
Out = Annotated[
    Path | None, typer.Option(help="The comparison's folder; by default comparisons/ and the recipe's name.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one value of the recipe.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what will run and what arms share, then stop.")]


def compare(
    recipe: Recipe,
    arms: Arms = DEFAULT_ARMS,
    seeds: Seeds = 3,
    models: Models = None,
    out: Out = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Compare the recipe with baselines at the same budget, on its held-out questions.

    The same command goes on where it was cut off; more arms and seeds may be added to a comparison.
    """
    from isara.compare.arms import ARMS, find_arms, in_order

    chosen = list(ARMS) if arms == "all" else find_arms(_names(arms))
    in_order(chosen)
    folder = out or Path("comparisons") / _recipe_name(recipe)
    names = _names(models) if models is not None else [None]
    found = []
    for name in names:
        base = _base(recipe, overrides or [], name)
        place = folder if len(names) == 1 else folder / re.sub(r"[^\w.-]+", "-", base.config.model).strip("-")
        if dry_run:
            _plan(base, chosen, range(seeds), place)
        else:
            found.append(_compare(base, chosen, range(seeds), place))
    if any(comparison.failures for comparison in found):
        raise RunError("some arms failed, as the table says; the same command tries them again")


def _compare(base: "Parts", arms: "list[Arm]", seeds: range, out: Path) -> "Comparison":
    from functools import partial

    from rich.console import Console

    from isara.cli.progress import Bars
    from isara.compare.compare import cell_parts
    from isara.compare.compare import compare as run_all
    from isara.compare.plot import draw
    from isara.compare.table import table

    with Bars(Console(stderr=True), base.config.iterations) as bars:
        make = partial(cell_parts, watcher=bars)
        comparison = run_all(base, arms, seeds, out, make=make, watcher=bars, tell=_tell)
    typer.echo(table(comparison))
    try:
        draw(comparison, out / "arms.svg")
    except RunError as error:
        typer.echo(str(error))
    typer.echo(f"{out / 'table.md'} holds this table, scores.jsonl beside it every answer.")
    return comparison


def _plan(base: "Parts", arms: "list[Arm]", seeds: range, out: Path) -> None:
    from isara.compare.compare import set_up
    from isara.compare.plan import plan

    for line in plan(set_up(base, out), arms, seeds):
        typer.echo(line)


def _base(recipe: Path, overrides: list[str], model: str | None) -> "Parts":
    """The recipe's parts."""
    from isara.build import build_parts
    from isara.config import load_config

    return build_parts(load_config(recipe, overrides, model=model))


def _names(text: str) -> list[str]:
    """What stands between the commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"expected names with commas between them, found {text!r}: name one at least")
    return names


def _recipe_name(recipe: Path) -> str:
    path = Path(recipe).expanduser().absolute()
    return path.name if path.is_dir() else path.parent.name if path.stem == "isara" else path.stem


def _tell(line: str) -> None:
    typer.echo(line, err=True)
