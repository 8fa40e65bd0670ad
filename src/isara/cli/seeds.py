"""`isara seeds`: what is wrong with seed pairs and held-out pairs, without a run."""

from pathlib import Path
from typing import Annotated

import typer

from isara.cli.options import say

app = typer.Typer(help="Seed pairs: what is wrong with them.", no_args_is_help=True)


@app.callback()
def seeds() -> None:
    """Keeps `check` a verb of its own while it is the only one."""


@app.command("check")
def check(
    config: Annotated[
        Path | None, typer.Argument(help="An isara.yaml, or the folder that holds one.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, whose tokens decide what is too long.")] = None,
    seeds: Annotated[str | None, typer.Option(help="The seed pairs: a data file, a folder, or a hub name.")] = None,
    heldout: Annotated[str | None, typer.Option(help="A share of the seeds, or a file of other pairs.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one value.")
    ] = None,
) -> None:
    """Name all that is wrong with the pairs, and the held-out answers that nobody could infer from the seeds."""
    from isara.config import load_config
    from isara.errors import SeedError
    from isara.models import find_model
    from isara.render import open_renderer
    from isara.seeds import check_seeds

    share = _number(heldout)
    settings = load_config(
        config, overrides or (), model=model, seeds=seeds, heldout=heldout if share is None else share
    )
    renderer = open_renderer(find_model(settings.model), settings.prompt_format, settings.engine.trust_remote_code)
    kept, aside, problems, strange = check_seeds(settings, renderer)
    for problem in [*problems, *strange]:
        say(f"{problem.severity}: {problem}")
    say(
        f"{len(kept)} seed pairs, {len(aside)} held out; {len(strange)} of their answers say nothing that could be "
        "inferred from the seeds"
    )
    if errors := sum(problem.severity == "error" for problem in problems):
        raise SeedError(f"{errors} of these must be mended before a run can start")


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
