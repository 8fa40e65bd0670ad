"""The command line: one verb a stage. Heavy libraries are imported inside the verbs, so that `--help` is instant."""

import contextlib
import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isara.cli.chat import chat
from isara.cli.compare import compare
from isara.cli.evaluate import evaluate
from isara.cli.export import export
from isara.cli.guard import guarded
from isara.cli.judge import app as judge_app
from isara.cli.models import app as models_app
from isara.cli.options import ConfigPath, Heldout, Model, Out, Overrides, Seeds, configured, console, say
from isara.cli.preview import preview
from isara.cli.report import report
from isara.cli.review import review
from isara.cli.seeds import app as seeds_app
from isara.cli.stop import Stop
from isara.cli.tune import tune
from isara.errors import ConfigError, IsaraError, Paused, RunError
from isara.marks import clean, visible

if TYPE_CHECKING:
    from isara.config import Config
    from isara.parts import Parts
    from isara.watching import Watcher

_MOST_SHOWN = 5000  # characters of an error
_SPINS = "3000"  # tenths of a millisecond: longer than between two products, shorter than another process's turn

app = typer.Typer(
    name="isara",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from isara import __version__

        say(f"isara {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def isara(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Align a language model to a new domain from fewer than a hundred question-answer pairs."""
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command()
def run(
    config: ConfigPath = None,
    model: Model = None,
    seeds: Seeds = None,
    out: Out = None,
    heldout: Heldout = None,
    iterations: Annotated[int | None, typer.Option(help="T, the most iterations.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first prompts and an estimate of time and memory, then stop.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read finished stages again and compare their bytes.")
    ] = True,
) -> None:
    """Generate, filter, train, evaluate, repeat.

    The same command goes on where it was cut off.
    """
    from isara import loop
    from isara.build import build_parts
    from isara.report.facts import read_run
    from isara.report.terminal import before_and_after, summary

    settings = configured(config, model, seeds, out, heldout, overrides, iterations=iterations)
    if dry_run:
        from isara.estimate import dry_run as look

        parts = build_parts(settings)
        for note in parts.notes:
            say(note, err=True)
        console().print(look(parts))
        return
    with _watched(settings, settings.iterations) as (parts, watcher):
        result = loop.run(parts, watcher, verify=verify)
    found = read_run(result.out, verify=False)  # the run has just checked it
    console().print(summary(found), before_and_after(found))
    say(f"The aligned model is in {result.final}; `isara show {result.out}` shows what it was made from.")


@app.command()
def generate(
    config: ConfigPath = None,
    model: Model = None,
    seeds: Seeds = None,
    out: Out = None,
    heldout: Heldout = None,
    overrides: Overrides = None,
) -> None:
    """Make and filter pairs only.

    These are the pairs of the first iteration; `isara run` with the same values goes on from there.
    """
    from isara import loop
    from isara.stages import read_accepted

    settings = configured(config, model, seeds, out, heldout, overrides)
    with _watched(settings, 1) as (parts, watcher):
        folder = loop.generate_pairs(parts, watcher)
    count = len(read_accepted(folder))
    say(f"{count} pairs are in {folder / 'accepted.jsonl'}, all candidates with their fate beside them.")


@app.command()
def train(
    pairs: Annotated[list[str], typer.Argument(help="Files of pairs to train on, such as seeds and accepted.jsonl.")],
    out: Annotated[Path, typer.Option(help="The folder for the trained model; it must not exist yet.")],
    model: Model = None,
    overrides: Overrides = None,
) -> None:
    """Fine-tune a model on pairs, with loss on the answers only."""
    from isara import verbs
    from isara.build import assemble
    from isara.cli.progress import Bars
    from isara.models import find_model
    from isara.render import open_renderer
    from isara.seeds import load_pairs

    if out.exists():
        raise RunError(f"expected a new folder for the trained model, found {out}: give another --out")
    settings = configured(None, model, pairs[0], None, None, overrides)
    start = find_model(settings.model)
    renderer = open_renderer(start, settings.prompt_format, settings.engine.trust_remote_code)
    rows = [pair for source in pairs for pair in load_pairs(source, settings, renderer)]
    with Bars(console(stderr=True), 1) as bars:
        stats = verbs.train(assemble(settings, start, renderer, rows, watcher=bars, retrieves=False), rows, out)
    say(f"trained on {stats.rows} pairs in {stats.steps} steps, loss {stats.first_loss:.3f} → {stats.last_loss:.3f}")
    say(f"the model is in {out}")


@app.command()
def answer(
    questions: Annotated[list[str], typer.Argument(help="The questions.")],
    model: Annotated[str | None, typer.Option(help="A model's folder or hub name, or a run folder.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Pairs to show as demonstrations, with --demos.")] = None,
    demos: Annotated[
        int, typer.Option(min=0, help="Demonstrations to show: the nearest (ICL-kNN); 0 is zero-shot.")
    ] = 0,
    reader: Annotated[
        bool, typer.Option("--reader", help="Ask a run's reader, after as many pairs as it was tuned to read.")
    ] = False,
    temperature: Annotated[float, typer.Option(min=0, help="Softmax temperature; 0 is greedy.")] = 0.0,
    overrides: Overrides = None,
) -> None:
    """Answer questions, zero-shot or after demonstrations.

    A run answers with its exported model, as it was made: prompt format, number format and seeds are the run's own.
    """
    from rich.text import Text

    from isara import verbs
    from isara.report.terminal import plain

    parts = _answering(model, seeds, demos, overrides, reader)
    given = verbs.answer(parts, questions, demos or (parts.config.answers.demos if reader else 0), temperature)
    for question, draw in zip(questions, given, strict=True):
        text = plain(draw.text) if draw else Text("the question does not fit into the model's context", "italic")
        console().print(Text.assemble(("Question: ", "bold"), plain(question), ("\nAnswer: ", "bold"), text))


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    row: Annotated[
        str | None, typer.Option(help="Where this row came from; the first digits of its id will do.")
    ] = None,
    iteration: Annotated[
        int | None, typer.Option(help="Samples and drops of this iteration; by default the last.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="How many accepted pairs to print.")] = 3,
    dropped: Annotated[int, typer.Option(min=0, help="How many dropped rows to print, nearest to passing first.")] = 8,
    read: Annotated[
        int | None, typer.Option(min=1, help="Read so many accepted rows beside the pairs they were made from.")
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="With --read: dropped rows and why.")] = False,
) -> None:
    """Show what a run made and why.

    The funnel, samples, drops near their threshold; with --row, where one row came from; with --read, rows to read
    before anything is trained on them.
    """
    from isara.report import terminal as shown
    from isara.report.facts import read_run

    found = read_run(run)

    if row is not None:
        console().print(shown.provenance(found, row))
        return
    if read is not None or rejected:
        from isara.report.reading import read_rows

        console().print(read_rows(found, read or samples, iteration, rejected))
        return
    console().print(shown.summary(found), shown.before_and_after(found))
    if shown.has_candidates(found):
        console().print(shown.samples(found, iteration, samples), shown.near_threshold(found, iteration, dropped))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the new domain; it must be new or empty.")],
    model: Annotated[str, typer.Option(help="A model's folder or hub name.")] = "embedded",
) -> None:
    """Write a commented config and example seeds for a new domain."""
    from isara.scaffold import write_scaffold

    write_scaffold(folder, model)
    named = shlex.quote(str(folder))
    say(
        f"wrote {folder}: put your pairs into its seeds.jsonl, find settings with `isara tune {named}`, look with "
        f"`isara preview {named}`, then start with `isara run {named}`"
    )


app.command()(chat)
app.command()(preview)
app.command()(report)
app.command()(review)
app.command()(tune)
app.command()(evaluate)
app.command()(compare)
app.command()(export)
app.add_typer(judge_app, name="judge")
app.add_typer(models_app, name="models")
app.add_typer(seeds_app, name="seeds")


def main() -> None:
    """The command line, for a caller that has imported it."""
    guarded(command_line, Stop())


def command_line() -> None:
    """Runs the command line; what a user can mend ends in one line and exit code 1, a bug keeps its traceback."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # what is no text, or can't be shown, is replaced
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Children and libraries read these; nothing here phones home.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _wait_briefly()
    # Typer carries its own copy of click's exceptions, so its base class is taken from one that it exports.
    usage_error: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    try:
        with _log_to_stderr():
            status = app(prog_name="isara", standalone_mode=False)
    except Paused as stop:
        say(clean(str(stop), _MOST_SHOWN))
        sys.exit(0)
    except IsaraError as error:
        sys.exit(_fail(str(error)))
    except PermissionError as error:  # wherever it comes from, it is the user's to mend
        sys.exit(_fail(f"{error.filename or 'a file'} may not be read or written by this user: mend its rights"))
    except usage_error as error:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "isara"
        if type(error).__name__ == "NoArgsIsHelpError":  # a group of verbs without a verb, as `isara` alone
            say(error.format_message())
            sys.exit(0)
        sys.exit(_fail(f"{error.format_message().rstrip('.')}; `{where} --help` lists its options"))
    sys.exit(status if isinstance(status, int) else 0)


def _wait_briefly() -> None:
    """Has OpenMP's threads sleep soon while they wait for each other, unless the user has said how they wait.

    GNU's spin 300,000 times by default, some milliseconds that other processes could have; the spins that are left
    last as long as the next product takes to come. Its library and LLVM's read this when torch loads them.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT=_SPINS)


@contextlib.contextmanager
def _watched(settings: "Config", iterations: int) -> "Iterator[tuple[Parts, Watcher]]":
    """The parts of a run and who watches it: bars, the tracker and the budget; the notes are said."""
    from isara.budget import Budgeted
    from isara.build import build_parts
    from isara.cli.progress import Bars
    from isara.tracking import tracked

    with Bars(console(stderr=True), iterations, settings.generate.batch) as bars, tracked(bars, settings) as tracker:
        watcher = Budgeted(tracker, settings.budget)
        parts = build_parts(settings, watcher)
        for note in parts.notes:
            say(note, err=True)
        yield parts, watcher


def _answering(
    model: str | None, seeds: str | None, demos: int, overrides: list[str] | None, reader: bool = False
) -> Any:
    """The parts that answer: of a run as it was made, or of a model; and with --seeds those pairs."""
    from dataclasses import replace

    from isara.build import assemble, build_run
    from isara.config import changes
    from isara.folder import read_config
    from isara.models import find_model
    from isara.render import open_renderer
    from isara.seeds import load_pairs

    run = Path(model).expanduser() if model else None
    if run is not None and (run / "isara.yaml").is_file():
        for override in overrides or ():
            if (key := override.partition("=")[0].strip()) in ("model", "seeds", "heldout"):
                raise ConfigError(f"--set {key}: a run answers with its own model and pairs: name another with --model")
        parts = build_run(run, overrides or (), retrieves=bool(demos) or reader, reader=reader)
        for key, was, now in changes(read_config(run), parts.config.model_dump(mode="json")):
            say(f"isara: {key}={now} was given, and the run was made with {was}", err=True)
    else:
        if reader:
            raise ConfigError("--reader: expected a run folder, which has one, as --model: name it")
        if demos and not seeds:
            raise ConfigError(f"--demos {demos} needs pairs to show, and none were given: name them with --seeds")
        settings = configured(None, model, seeds, None, None, overrides)
        found = find_model(settings.model)
        renderer = open_renderer(found, settings.prompt_format, settings.engine.trust_remote_code)
        parts = assemble(settings, found, renderer, (), retrieves=bool(demos))
    if seeds is None or not (demos or reader):
        return parts
    return replace(parts, seeds=load_pairs(seeds, parts.config, parts.renderer))


class _Printable(logging.Formatter):
    """A line that quotes what it likes: a terminal obeys nothing of it."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Printable("isara: %(message)s"))
    logging.getLogger("isara").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("isara").removeHandler(handler)


def _fail(message: str) -> int:
    say(f"isara: {clean(message, _MOST_SHOWN)}", err=True)
    return 1


if __name__ == "__main__":
    main()
