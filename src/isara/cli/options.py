"""What several verbs share: their options, the config that these make, and where they speak."""

from pathlib import Path
from typing import Annotated, Any

import typer

from isara.marks import visible

ConfigPath = Annotated[
    Path | None, typer.Argument(help="An isara.yaml, or the folder that holds one.", show_default=False)
]
Model = Annotated[
    str | None,
    typer.Option(help="A folder, hub name, .gguf file or packaged model (`isara models list`); else the embedded."),
]
Seeds = Annotated[str | None, typer.Option(help="The seed pairs: a data file, a folder, or a hub name.")]
Out = Annotated[str | None, typer.Option(help="The run folder.")]
Heldout = Annotated[str | None, typer.Option(help="A share of the seeds, or a file of other pairs, for evaluation.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one value, such as train.lora_r=8.")
]


def configured(
    path: Path | None,
    model: str | None,
    seeds: str | None,
    out: str | None,
    heldout: str | None,
    overrides: list[str] | None,
    **values: Any,
) -> Any:
    """The config of a verb: its file, its options, and --set over both."""
    from isara.config import load_config

    share = _number(heldout)
    settings = load_config(
        path, overrides or (), model=model, seeds=seeds, out=out, heldout=heldout if share is None else share, **values
    )
    if path is None and model is None and settings.model == "embedded":
        say("no --model was given: taking the small embedded model")
    return settings


def needed(context: typer.Context, present: object, other: str, **flags: str) -> None:
    """Refuses flags that mean nothing without another one.

    Args:
        context: The verb at work.
        present: Whether that one is given.
        other: Its name.
        flags: Theirs, by the verb's parameters.

    Raises:
        ConfigError: One of them is given.
    """
    from isara.errors import ConfigError

    for parameter, flag in flags.items():
        source = context.get_parameter_source(parameter)
        if not present and source is not None and source.name != "DEFAULT":
            raise ConfigError(f"expected {other} beside {flag}, which means nothing without it: give both or none")


def console(stderr: bool = False) -> Any:
    """Where tables and panels go."""
    from rich.console import Console

    return Console(stderr=stderr)


def say(text: str, err: bool = False) -> None:
    """Prints a line, or several, to stdout or stderr; whatever they quote, a terminal shows it and obeys nothing."""
    typer.echo(visible(text), err=err)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
