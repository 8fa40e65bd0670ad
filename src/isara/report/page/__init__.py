"""report.html: a run as one page that opens from disk, in which every number leads to the rows behind it."""

from pathlib import Path

from isara.files import write_text
from isara.pool import Embedder
from isara.report.facts import Run, read_run
from isara.report.page.content import content
from isara.report.page.html import FILE_NAME, page, refreshing


def write_page(run: Run, embedder: Embedder, out: Path | None = None) -> Path:
    """Writes the page of a run; its path. The same run gives the same bytes.

    Args:
        run: The run, as far as it has come.
        embedder: Lays out the map of the questions.
        out: The file; None for report.html in the run folder.

    Raises:
        RunError: It can't be written.
    """
    path = run.path / FILE_NAME if out is None else out
    write_text(path, page("run", content(run, embedder), f"{run.path.name} · ISARA"))
    return path


def refresh_page(embedder: Embedder, run: Path) -> None:
    """Writes report.html as the run stands; where that fails, a line in the log says why, and the run goes on."""
    with refreshing(run):
        write_page(read_run(run, verify=False), embedder)  # the loop itself compares the bytes of what it reads
