"""`isara judge`: which judges there are, and how well one agrees with people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isara.cli.options import say
from isara.errors import ConfigError

if TYPE_CHECKING:
    from isara.judges.check import CheckResult

app = typer.Typer(help="Judges: list them, and check one on rows that people labelled.", no_args_is_help=True)

Out = Annotated[
    Path | None, typer.Option(help="Folder for the result; by default the cache, where `isara evaluate` looks.")
]


@app.command("check")
def check_judge(
    judge: Annotated[str, typer.Argument(help="offline-refusal, offline-harm, or a judge's YAML file.")],
    on: Annotated[
        Path, typer.Option(help="Labelled rows: XSTest's completions, BeaverTails, or question/answer/label.")
    ],
    question: Annotated[str, typer.Option(help="Column of the question.")] = "question",
    answer: Annotated[str, typer.Option(help="Column of the answer.")] = "answer",
    label: Annotated[str, typer.Option(help="Column of the people's label.")] = "label",
    category: Annotated[str, typer.Option(help="Column of a category, to report each on its own.")] = "category",
    positive: Annotated[str, typer.Option(help="The label's value for refusal, harmful or good.")] = "",
    half: Annotated[
        Literal["development", "test"] | None, typer.Option(help="Only the rows of one half of the questions, by hash.")
    ] = None,
    refusals: Annotated[
        Path | None, typer.Option(help="Rows that people called refusals, for the share a judge of harm calls harmful.")
    ] = None,
    out: Out = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the confusion matrix as PICTURE.svg and PICTURE.png.")
    ] = None,
) -> None:
    """Measure a judge on rows that people labelled, and keep the result."""
    from isara.build.judges import read_judge
    from isara.judges.check import check, draw, keep, summary
    from isara.judges.endpoint import EndpointJudge
    from isara.judges.labelled import Columns, read_labelled, read_refusals

    subject = read_judge(judge)
    if refusals and subject.kind != "harm":
        raise ConfigError(f"`--refusals` is for judges of harm, and {judge} is one of {subject.kind}: leave it out")
    rows, name = read_labelled(on, subject.kind, Columns(question, answer, label, category, positive), half)
    result = check(subject, rows, name, read_refusals(refusals, half) if refusals else None)
    for line in summary(result):
        say(line)
    for line in _by_category(result):
        say(line)
    if isinstance(subject, EndpointJudge):
        say(subject.usage_line)
    say(f"kept in {keep(result, out)}")
    if picture:
        say(f"drawn: {', '.join(map(str, draw(result, picture)))}")


@app.command("list")
def list_judges() -> None:
    """The judges that ship, the kinds that can be set up, and what their checks found."""
    from isara.build.judges import FORMS, SHIPPED_JUDGES, read_judge
    from isara.judges.check import checked, summary

    for name in SHIPPED_JUDGES:
        result = checked(read_judge(name))
        say(f"{name}: {'; '.join(summary(result)[:2]) if result else 'not checked'}")
    for name, what in FORMS.items():
        say(f"{name}: {what}")


def _by_category(result: "CheckResult") -> list[str]:
    return [
        f"  {name}: {figures.accuracy.n} rows, accuracy {figures.accuracy.value:.3f} "
        f"[{figures.accuracy.low:.3f}, {figures.accuracy.high:.3f}]"
        for name, figures in result.by_category.items()
    ]
