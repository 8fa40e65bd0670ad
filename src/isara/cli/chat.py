"""`isara chat`: the base model's answer and the aligned model's, side by side."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.cli.options import Overrides, console, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from isara.parts import Parts
    from isara.records import Draw, QAPair

_MOST_SHOWN = 240  # characters of a demonstration's question or answer
_WIDE = 100  # columns from which on answers stand side by side


def chat(
    run: Annotated[Path, typer.Argument(help="A run folder with an exported model.")],
    demos: Annotated[
        int,
        typer.Option(min=0, help="Also the base model's answer after so many nearest seed pairs; /demos shows them."),
    ] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Softmax temperature; 0 is greedy.")] = 0.0,
    overrides: Overrides = None,
) -> None:
    """Ask a run's base model and its aligned model the same question, and see both answers.

    A line is a question and stands alone: no earlier one is sent with it. Lines may come from a pipe; Ctrl-D ends.
    """
    from dataclasses import replace

    from isara.build import build_run
    from isara.models import find_model
    from isara.render import open_renderer
    from isara.verbs import ask, nearest

    aligned = build_run(run, overrides or (), retrieves=bool(demos))
    config = aligned.config
    base = find_model(config.model)
    renderer = open_renderer(base, config.prompt_format, config.engine.trust_remote_code)
    before = replace(aligned, model=base, renderer=renderer)
    for line in _opening(before, run, demos):
        typer.echo(line, err=True)
    found = nearest(before, demos)
    last: Draw | None = None
    with before.asker(base) as untuned, aligned.asker(aligned.model) as tuned:
        while (question := _question()) is not None:
            if question == "/demos":
                console().print(_demonstrations(last, before.seeds))
                continue
            answers = {"base": ask(untuned, before, [question], temperature=temperature)[0]}
            if demos:
                [last] = ask(untuned, before, [question], found, temperature)
                answers[f"base after {len(last.demo_ids) if last else 0} pairs"] = last
            answers["aligned"] = ask(tuned, aligned, [question], temperature=temperature)[0]
            console().print(_side_by_side(answers, console().width if sys.stdout.isatty() else 0))


def _opening(before: "Parts", run: Path, demos: int) -> list[str]:
    """What to know before the first question."""
    from isara.evaluate.verdict import model_name
    from isara.files import read_json
    from isara.folder import read_environment

    lines = ["A line is a question and stands alone: no earlier one is sent with it. Ctrl-D ends."]
    if demos:
        lines.append("/demos shows the pairs that stood before the last question.")
    best = read_json(run / "final" / "isara.json").get("iteration")
    if isinstance(best, int):
        alike = ": both answers are one model's" if best == 0 else ""
        lines.append(f"The aligned model is {model_name(best)}{alike}.")
    if before.weights(before.model) != read_environment(run)["parts"].get("hash of the base model's weights"):
        lines.append("The base model's weights are others than those that the run began with.")
    return lines


def _question() -> str | None:
    """The next line that says something; None at the end of the input."""
    while True:
        if sys.stdin.isatty():
            typer.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            if sys.stdin.isatty():
                say("")
            return None
        if line.strip():
            return line.strip()


def _side_by_side(answers: "Mapping[str, Draw | None]", width: int) -> "RenderableType":
    """The answers as columns where there is room, else one below the other."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from isara.report.terminal import plain

    texts = {
        name: plain(draw.text) if draw else Text("the question does not fit into the model's context", "italic")
        for name, draw in answers.items()
    }
    if width < _WIDE:
        return Group(*(Text.assemble((f"{name}: ", "bold"), text) for name, text in texts.items()))
    table = Table(expand=True)
    for name in texts:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*texts.values())
    return table


def _demonstrations(draw: "Draw | None", seeds: "Sequence[QAPair]") -> "RenderableType":
    """The pairs that stood before the last question, the nearest first."""
    from rich.text import Text

    from isara.marks import clean

    if draw is None or not draw.demo_ids:
        return Text("no pairs stood before a question yet: ask one, with --demos 5 or so")
    pairs = {pair.id: pair for pair in seeds}
    lines = []
    for pair_id, cosine in reversed(list(zip(draw.demo_ids, draw.similarities, strict=True))):
        pair = pairs[pair_id]
        lines.append(f"{cosine:.2f} {clean(pair.question, _MOST_SHOWN)}\n  → {clean(pair.answer, _MOST_SHOWN)}")
    return Text("\n".join(lines))
