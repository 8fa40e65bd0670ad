"""`isara report`: a run or a comparison as one page."""

from pathlib import Path
from typing import Annotated

import typer

from isara.cli.options import say
from isara.errors import RunError


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, finished or not, or the folder of a comparison.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file; by default report.html in that folder.", show_default=False)
    ] = None,
) -> None:
    """Write a run as one page: the verdict, the funnel, a map of the questions, and every row to search and open.

    Every run writes it after each stage; this writes it anew. Of a comparison: the arms, and every answer.
    """
    from isara.compare.page import is_comparison

    if is_comparison(folder):
        say(_comparison(folder, out))
    elif (folder / "isara.yaml").is_file():
        say(_run(folder, out))
    else:
        raise RunError(
            f"expected a run folder with an isara.yaml or a comparison with a compare.yaml at {folder}, found neither: "
            "give the --out of a run or of a comparison"
        )


def _comparison(folder: Path, out: Path | None) -> str:
    from isara.compare.page import write_page

    return f"{write_page(folder, out)} opens in any browser, without a network."


def _run(run: Path, out: Path | None) -> str:
    from isara.embedders import find_embedder
    from isara.errors import ModelError
    from isara.report.facts import read_run
    from isara.report.page import write_page

    found = read_run(run)
    try:
        embedder = find_embedder(found.config.retrieve.embedder)
    except ModelError:  # a run may be looked at where its embedder is not; the map says what it is laid out by
        embedder = find_embedder("lexical")
    path = write_page(found, embedder, out)
    return f"{path} opens in any browser, without a network: {len(found.texts())} rows."
