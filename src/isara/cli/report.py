"""`isara report`: a run, an evaluation or a comparison as one page."""

from pathlib import Path
from typing import Annotated

import typer

from isara.cli.options import say
from isara.errors import RunError


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a run, of an evaluation or of a comparison, finished or not."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file; by default report.html in that folder.", show_default=False)
    ] = None,
) -> None:
    """Write a run as one page: the verdict, the funnel, a map of the questions, and every row to search and open.

    Every run writes it after each stage; this writes it anew. Of an evaluation: the figures, and every item. Of a
    comparison: the arms, and every answer; of several on other pairs, what they say together.
    """
    from isara.compare import page as comparison
    from isara.compare import summary_page as summary
    from isara.report import evaluation

    if (folder / "isara.yaml").is_file():
        say(_run(folder, out))
        return
    if comparison.is_comparison(folder):
        path = comparison.write_page(folder, out)
    elif summary.is_summary(folder):
        path = summary.write_page(folder, out)
    elif evaluation.is_evaluation(folder):
        path = evaluation.write_page(folder, out)
    else:
        raise RunError(
            f"expected the folder of a run (isara.yaml), of an evaluation (a folder with items.jsonl for each task) or "
            f"of a comparison (compare.yaml, or summary.json for several) at {folder}, found none of them: give the "
            "--out of one"
        )
    say(f"{path} opens in any browser, without a network.")


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
