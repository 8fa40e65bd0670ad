"""`isara tune`: which settings a model wants, by nothing but the seeds."""

from pathlib import Path
from typing import Annotated

import typer

from isara.cli.options import ConfigPath, Heldout, Model, Overrides, Seeds, configured, console, say


def tune(
    config: ConfigPath = None,
    model: Model = None,
    seeds: Seeds = None,
    heldout: Heldout = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder for tune.json and tune.svg; else the run folder's name and -tune.")
    ] = None,
    most: Annotated[int, typer.Option(min=4, help="Most seeds whose answers are measured.")] = 48,
    rows: Annotated[int, typer.Option(min=4, help="Texts to draw at each temperature.")] = 16,
) -> None:
    """Which settings a model wants, by nothing but the seeds.

    Each seed's answer is measured after its nearest other seeds, and a few texts are drawn: how many demonstrations,
    which embedder and prompt format, how many seeds still help, which temperatures; and whether the model reads
    demonstrations at all.
    """
    from isara.build import build_parts
    from isara.cli.progress import Counter
    from isara.errors import RunError
    from isara.files import make_folder, write_json
    from isara.tune import report
    from isara.tune.plot import draw
    from isara.tune.tune import tune as measure

    settings = configured(config, model, seeds, None, heldout, overrides)
    folder = out or Path(f"{settings.out}-tune")
    parts = build_parts(settings)
    make_folder(folder)  # better known now than after minutes
    with Counter(console(stderr=True), "measuring prompts") as counter:
        found = measure(parts, counter, most, rows)
    write_json(folder / "tune.json", report.to_json(found))
    console().print(report.show(found))
    say(f"every figure is in {folder / 'tune.json'}")
    try:
        draw(found, folder / "tune.svg")
    except RunError as error:
        say(f"isara: {error}", err=True)
