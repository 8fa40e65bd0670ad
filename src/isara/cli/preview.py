"""`isara preview`: a few rows through the whole pipeline, and what the run would take."""

from typing import Annotated

import typer

from isara.cli.options import ConfigPath, Heldout, Model, Overrides, Seeds, configured, console, say


def preview(
    config: ConfigPath = None,
    model: Model = None,
    seeds: Seeds = None,
    heldout: Heldout = None,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to make.")] = 8,
    estimate: Annotated[
        bool, typer.Option("--estimate/--no-estimate", help="Measure speeds and say what the run would take.")
    ] = True,
) -> None:
    """Look first: a few rows through the whole pipeline, shown and thrown away, and what the run would take.

    Questions, filters, retrieved demonstrations, answers, filters, as in the first iteration. Nothing is written.
    """
    from isara import estimate as costs
    from isara.build import build_parts
    from isara.preview import preview as make
    from isara.report.reading import row_panel

    parts = build_parts(configured(config, model, seeds, None, heldout, overrides))
    for note in parts.notes:
        say(note, err=True)
    status = console(stderr=True).status
    with parts.asker(parts.model) as asker:
        trained = "training who asks or answers and " if parts.reader or parts.questioner else ""
        with status(f"{trained}making rows"):
            seen = make(parts, asker, rows)
        texts = seen.texts()
        console().print(*(row_panel(each, texts) for each in seen.candidates), sep="\n")
        if seen.unchecked:
            say(
                "not checked here by the model tuned on the seeds, which a run trains first: it will drop some of these"
            )
        if not estimate:
            return
        with status("measuring speeds: reading, writing, a few steps of training"):
            stages = costs.estimate(parts, asker, seen, costs.measure(parts, asker))
    console().print(costs.show(stages, parts, seen))
