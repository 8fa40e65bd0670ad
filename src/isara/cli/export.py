"""`isara export`: a run's model and rows in the forms in which others take them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.cli.options import console, needed, say
from isara.errors import RunError

if TYPE_CHECKING:
    from isara.export.llamacpp import Agreement
    from isara.parts import Parts
    from isara.records import QAPair
    from isara.report.facts import Run

_MOST_SHOWN = 300  # characters of an answer
_TOGETHER = 8  # questions of a call, so that a bar moves


def export(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="The new folder; with --rows, the new file.")],
    to: Annotated[
        str | None,
        typer.Option(help="safetensors, adapter, gguf or ollama; the last two also with :KIND, such as gguf:q4_k_m."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="The accepted pairs: trl-prompt-completion, trl-messages, sharegpt, alpaca or openai."),
    ] = None,
    with_seeds: Annotated[bool, typer.Option("--with-seeds", help="With --rows: the seed pairs, too, first.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME", help="Upload the folder to this repository, too.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Where the repository is made, make it public.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Ask a GGUF file held-out questions with llama.cpp.")
    ] = True,
    questions: Annotated[int, typer.Option(min=1, help="Most questions to ask it.")] = 64,
) -> None:
    """Take a run home: its model for transformers, llama.cpp or Ollama, or its rows for another trainer.

    A GGUF file is loaded by llama.cpp and asked the held-out questions, and its answers are compared with the model's.
    """
    if (to is None) == (rows is None):
        raise RunError("expected one of --to and --rows: --to takes the model, --rows its pairs")
    needed(context, to, "--to", push_to_hub="--push-to-hub")
    needed(context, push_to_hub, "--push-to-hub", public="--public")
    needed(context, rows, "--rows", with_seeds="--with-seeds")
    needed(
        context,
        to and to.startswith(("gguf", "ollama")),
        "--to gguf or ollama",
        check="--check",
        questions="--questions",
    )
    if rows is not None:
        _write_rows(run, rows, out, with_seeds)
        return
    from isara.build import build_run
    from isara.export.folders import find_form, write_folder
    from isara.report.facts import read_run

    form, kind = find_form(str(to))
    _say_what_is_open(read_run(run))
    # In float32, so that what is compared is the file: the rounding of bfloat16 turns most long answers by itself.
    parts = build_run(run, ["engine.dtype=float32"] if kind else (), retrieves=False)
    final, most = Path(parts.model), parts.config.answers.max_new_tokens
    made = write_folder(final, out, form, kind, run.resolve().name, most)
    say(f"{made} holds the model" + (f", {made.stat().st_size / 1e6:,.0f} MB" if kind else ""))
    if kind and check:
        _check(parts, made, questions)
    if push_to_hub is not None:
        from isara.export.hub import push

        say(f"pushed to {push(out, push_to_hub, private=not public)}")


def _say_what_is_open(run: "Run") -> None:
    """What the rows of a run and its model may not agree on."""
    from isara.decisions import late_decisions

    for facts in run.iterations:
        if late := late_decisions(run.path, facts.number, facts.accepted, facts.decisions):
            say(
                f"iteration {facts.number} was trained before {late} of its rows were decided about: its model knows "
                "nothing of that, its rows do",
                err=True,
            )
        if facts.candidates and facts.training is None:
            say(f"iteration {facts.number} is not trained yet: its rows are those so far", err=True)


def _write_rows(run: Path, form: str, out: Path, with_seeds: bool) -> None:
    from isara.export.rows import FORMATS, to_rows
    from isara.files import json_lines, write_text
    from isara.report.facts import read_run

    if form not in FORMATS:
        raise RunError(f"--rows: expected one of {', '.join(FORMATS)}, found {form!r}: choose one")
    if out.exists():
        raise RunError(f"expected a new file for the rows, found {out}: give another --out")
    found = read_run(run)
    _say_what_is_open(found)
    pairs = [pair for facts in found.iterations for pair in facts.pairs]
    pairs = [*(found.seeds if with_seeds else ()), *pairs]
    if not pairs:
        raise RunError(f"{run} holds no accepted pairs yet: finish it with the command that started it")
    write_text(out, json_lines(to_rows(pairs, form)))
    say(f"{len(pairs)} pairs are in {out}")


def _check(parts: "Parts", gguf: Path, questions: int) -> None:
    """Prints how llama.cpp answers beside the model, or that it can't be asked here."""
    from isara.export.llamacpp import INSTALL, has_llamacpp

    if not has_llamacpp():
        say(f"not checked with llama.cpp, which is not installed here: `{INSTALL}`, and export once more")
        return
    if not parts.heldout:
        say("the run holds no pairs out, so its seeds are asked")
    found = compare_answers(parts, gguf, (parts.heldout or parts.seeds)[:questions])
    say(str(found))
    if found.first:
        from isara.marks import clean

        question, model, other = (clean(text, _MOST_SHOWN) for text in found.first)
        say(f"the first that differs, after {question!r}: the model {model!r}, llama.cpp {other!r}")


def compare_answers(parts: "Parts", gguf: Path, pairs: "Sequence[QAPair]") -> "Agreement":
    """llama.cpp's greedy answers to the pairs' questions beside those of the model of `parts`.

    Raises:
        RunError: llama.cpp could not load the file, or no question fits into the model's context.
    """
    from isara.cli.progress import Steps
    from isara.export.folders import bos_text
    from isara.export.llamacpp import compare
    from isara.records import Sampling

    most, answered = parts.config.answers.max_new_tokens, []
    with Steps(console(stderr=True), "the model answers") as told:
        with parts.asker(parts.model) as asker:
            for start in range(0, len(pairs), _TOGETHER):
                asked = pairs[start : start + _TOGETHER]
                draws = asker.answers(asked, Sampling(0.0, 1.0, most), [0] * len(asked))
                answered += [(pair, draw.text) for pair, draw in zip(asked, draws, strict=True) if draw]
                told(start + len(asked), len(pairs))
        if not answered:
            raise RunError("no question fits into the model's context, so llama.cpp was asked none")
        return compare(
            gguf,
            [parts.renderer.answer((), pair) for pair, _ in answered],
            [text for _, text in answered],
            bos_text(Path(parts.model)),
            parts.renderer.format.answer_stops,
            most,
            lambda done: told(done, len(answered), "llama.cpp answers"),
        )
