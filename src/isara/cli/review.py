"""`isara review`: a person goes through rows before they are trained on."""

import contextlib
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.cli.options import console, say
from isara.errors import RunError

if TYPE_CHECKING:
    from isara.report.review import Desk


def review(
    what: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, a config or its folder, or a file of seed pairs.")
    ],
    iteration: Annotated[
        int | None, typer.Option(min=1, help="Rows of this iteration; by default the last that is made.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="How many, drawn at random; by default those that the run waits for, or all."),
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="By keys in the terminal instead of a page.")] = False,
    accept_rest: Annotated[
        bool, typer.Option("--accept-rest", help="Let the undecided rows pass unread, and end.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is served; 0 takes a free port.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser, too.")] = False,
) -> None:
    """Go through rows before they are trained on: accept, edit, reject with a reason, undo.

    On a page that this machine alone can open, or with --terminal by keys. Each decision is on the disk before the next
    row is shown; Ctrl-C or the page's Done button ends, and the same command goes on.
    """
    what = what.expanduser()
    if accept_rest:
        go_through: Callable[[Desk], None] = _pass_unread
    else:
        go_through = _in_terminal if terminal else partial(_serve, port=port, open_page=open_page)
    is_config = what.suffix in (".yaml", ".yml") or ((what / "isara.yaml").is_file() and not _is_run(what))
    if what.is_dir() and not is_config:
        _review_run(what, iteration, rows, go_through)
    elif iteration is not None or rows is not None:
        raise RunError("--iteration and --rows are of a run: a file of pairs is gone through as a whole")
    elif is_config:
        from isara.config import load_config

        config = load_config(what)
        _review_seeds(Path(config.seeds), go_through, config.columns.question, config.columns.answer)
    else:
        _review_seeds(what, go_through)


def _is_run(folder: Path) -> bool:
    """Whether a folder with an isara.yaml is a run's, perhaps one that has lost a part, and not a config's."""
    return (folder / "environment.json").exists() or (folder / "iteration-00").exists()


def _review_run(run: Path, iteration: int | None, rows: int | None, go_through: "Callable[[Desk], None]") -> None:
    from isara.files import locked
    from isara.folder import read_config
    from isara.report.facts import read_run
    from isara.report.review import run_desk

    read_config(run)  # before a lock file is left in a folder that is no run
    with locked(run):
        desk = run_desk(read_run(run), iteration, rows)
        if desk.notice:
            typer.echo(desk.notice, err=True)
        go_through(desk)
    say(f"{desk.said()} in {desk.path}")
    if left := len(desk.undecided):
        say(f"still undecided: {left}. The same command shows them; with --accept-rest they pass unread.")
    else:
        say(desk.after)


def _review_seeds(
    source: Path, go_through: "Callable[[Desk], None]", question: str | None = None, answer: str | None = None
) -> None:
    from isara.embedders import find_embedder
    from isara.report.review import seeds_desk, write_reviewed

    desk = seeds_desk(source, find_embedder("lexical"), question, answer)
    go_through(desk)
    say(f"{desk.said()} in {desk.path}")
    out = write_reviewed(desk, source)
    say(f"{len(desk.pairs())} pairs are in {out}: give it as the seeds")


def _pass_unread(desk: "Desk") -> None:
    from isara.decisions import Decision

    desk.decide(*(Decision(row.pair.id, "unread") for row in desk.undecided))


def _in_terminal(desk: "Desk") -> None:
    from isara.report.review.terminal import review as go_through

    with _ctrl_c_ends_it():
        go_through(desk, console().print, _line)


def _line(prompt: str) -> str | None:
    """A line of the input without its end; None where it has ended."""
    if sys.stdin.isatty():
        typer.echo(prompt, nl=False)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _serve(desk: "Desk", port: int, open_page: bool) -> None:
    """Shows the desk as a page until Done is pressed there or Ctrl-C here."""
    from isara.report.review.server import ReviewServer

    with ReviewServer(desk, port) as server, _ctrl_c_ends_it():
        say(f"{desk.said()}. Go on at {server.url}")
        say("The address is a secret of this machine's; Ctrl-C here or Done there ends.")
        if open_page:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        server.serve_forever(poll_interval=0.2)


@contextlib.contextmanager
def _ctrl_c_ends_it() -> Iterator[None]:
    """Ctrl-C ends what is going on and not the command: what was decided is still to be told and written."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("")
    finally:
        signal.signal(signal.SIGINT, before)
