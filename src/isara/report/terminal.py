"""What `isara show` prints about a run folder. Texts of a model are untrusted and are never read as markup."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isara.errors import RunError
from isara.folder import Iteration, exported, iterations, parse_row, read_config, read_json, read_rows
from isara.loop import best_iteration, funnel
from isara.records import QAPair

# Rejections whose value and threshold are numbers can be sorted by how near they were to passing.
_NUMBER = (int, float)


def summary(run: Path) -> RenderableType:
    """The funnel, training and held-out likelihood of each iteration, as tables.

    Raises:
        RunError: The folder is no run folder.
    """
    read_config(run)
    base, steps = Iteration(run / "iteration-00", 0), iterations(run)
    columns = [_column(step) for step in [base, *steps]]
    table = Table(title=plain(f"Run {run}"), title_justify="left")
    table.add_column("iteration")
    for step in [base, *steps]:
        table.add_column(str(step.number) if step.number else "base", justify="right")
    for name in dict.fromkeys(name for column in [*columns[1:], *columns] for name in column):
        table.add_row(plain(name), *(column.get(name, "") for column in columns))
    evaluations = {0: base.read_json("eval.json") or {}}
    evaluations |= {step.number: step.read_json("eval.json") or {} for step in steps if step.done}
    unfinished = "No iteration is finished yet: run the same command again to go on."
    best = exported(run) or best_iteration(evaluations)
    verdict = _verdict(best, evaluations) if len(evaluations) > 1 else unfinished
    legend = (
        "bits/byte: what held-out answers cost, zero-shot and with demonstrations, ± standard error; less is better"
    )
    return Group(table, Text(legend), Text(verdict))


def samples(run: Path, number: int | None = None, count: int = 5) -> RenderableType:
    """The first accepted pairs of an iteration (the last one with any by default)."""
    step = _step(run, number)
    rows = [row for row in candidates(step) if row["accepted"]][:count]
    return Group(Text(f"Accepted in iteration {step.number}:"), *(_pair_panel(row) for row in rows))


def near_threshold(run: Path, number: int | None = None, count: int = 10) -> RenderableType:
    """The dropped rows that were nearest to passing, with reason, value and threshold."""
    step = _step(run, number)
    rows = [row for row in candidates(step) if row["rejection"]]
    measured = [row for row in rows if isinstance(row["rejection"]["value"], _NUMBER)]
    measured = [row for row in measured if isinstance(row["rejection"]["threshold"], _NUMBER)]
    table = Table(title=f"Dropped in iteration {step.number}, nearest to passing first", title_justify="left")
    for name in ("id", "reason", "value", "threshold", "question", "near to"):
        table.add_column(name, overflow="fold")
    for row in sorted(measured, key=_distance)[:count]:
        drop = row["rejection"]
        values = (row["id"], drop["reason"], f"{drop['value']:.4g}", f"{drop['threshold']:.4g}", row["question"])
        table.add_row(*map(plain, values), plain(drop["near_id"] or ""))
    return table


def provenance(run: Path, row_id: str) -> RenderableType:
    """Where a row came from: its demonstrations with similarity, seeds, weights, and the stored prompts.

    Raises:
        RunError: No row, or more than one, begins with this id.
    """
    rows = {row["id"]: row for step in iterations(run) for row in candidates(step)}
    found = [row for key, row in rows.items() if key.startswith(row_id)]
    if len(found) != 1:
        raise RunError(
            f"expected one row of {run} whose id begins with {row_id!r}, found {len(found)}: "
            "take an id from candidates.jsonl or from `isara show`"
        )
    row = found[0]
    pairs = {pair.id: pair for pair in _pairs(run)}
    demos = Table("similarity", "id", "demonstration", title="Demonstrations, nearest last", title_justify="left")
    for pair_id, similarity in zip(row["demo_ids"], row["demo_similarities"], strict=True):
        shown = pairs.get(pair_id)
        demos.add_row(f"{similarity:.4f}", plain(pair_id), plain(shown.question if shown else "not in this folder"))
    facts = {
        "iteration": row["iteration"],
        "batch": row["batch"],
        "weights": row["weights"],
        "question seed": row["question_seed"],
        "answer seed": row["answer_seed"],
        "fate": _fate(row["rejection"]),
    }
    parts: list[RenderableType] = [
        _pair_panel(row),
        plain("\n".join(f"{name}: {value}" for name, value in facts.items())),
    ]
    if row["answer_prompt"]:
        parts += [demos, Panel(plain(row["answer_prompt"]), title="Prompt of the answer", title_align="left")]
    parts.append(Panel(plain(row["question_prompt"]), title="Prompt of the question", title_align="left"))
    return Group(*parts)


def before_and_after(run: Path) -> RenderableType:
    """The base model's and the aligned model's answers to the same held-out questions, where the run stored them."""
    path = run / "examples.json"
    if not path.exists():
        return Text("")
    panels = []
    for row in read_json(path)["rows"]:
        text = Text.assemble(
            ("before  ", "bold"), plain(row["before"]), ("\nafter   ", "bold"), plain(row["after"]),
            ("\nwanted  ", "bold"), plain(row["wanted"]),
        )  # fmt: skip
        panels.append(Panel(text, title=plain(row["question"]), title_align="left"))
    return Group(Text("Held-out questions, answered greedily and zero-shot:"), *panels)


def has_candidates(run: Path) -> bool:
    """Whether anything was generated yet."""
    return any(candidates(step) for step in iterations(run))


def candidates(step: Iteration) -> list[dict[str, Any]]:
    """The stored candidates of an iteration, read without touching the file."""
    if not step.candidates.exists():
        return []
    return [row for row in map(parse_row, step.candidates.read_bytes().splitlines(keepends=True)) if row]


def _column(step: Iteration) -> dict[str, str]:
    """What happened in an iteration, by the name of the table's row, in the order of the stages."""
    counts = funnel(candidates(step))
    made = counts.pop("candidates"), counts.pop("accepted")
    column = {"candidates": f"{made[0]}", **{f"  {reason}": f"-{count}" for reason, count in counts.items()}}
    column["accepted"] = f"{made[1]}"
    if train := step.read_json("train.json"):
        column["trained on"] = f"{train['rows']}"
        column["steps"] = f"{train['steps']}"
        column["loss"] = f"{train['first_loss']:.2f} → {train['last_loss']:.2f}"
    for name, label in (("bits_per_byte", "bits/byte"), ("bits_per_byte_demos", "bits/byte, demos")):
        figures = step.read_json("eval.json") or {}
        column[label] = _figure(figures, name)
    return column if step.number else {name: text for name, text in column.items() if name.startswith("bits/byte")}


def _verdict(best: int, evaluations: Mapping[int, Mapping[str, float]]) -> str:
    if "bits_per_byte" not in evaluations[best]:
        return f"Nothing was held out, so the last iteration ({best}) is in final/."
    before, after = evaluations[0]["bits_per_byte"], evaluations[best]["bits_per_byte"]
    if after >= before:
        return (
            f"No iteration beat the base model on the held-out pairs ({before:.3f} bits per byte before, {after:.3f} "
            f"after iteration {best}, which is in final/)."
        )
    return (
        f"Iteration {best} is the best and is in final/: held-out answers cost {before:.3f} bits per byte before and "
        f"{after:.3f} after, zero-shot."
    )


def _figure(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return ""
    error = figures.get(f"{name}_se")
    return f"{figures[name]:.3f}" + (f"±{error:.3f}" if error is not None else "")


def _step(run: Path, number: int | None) -> Iteration:
    read_config(run)
    steps = [step for step in iterations(run) if step.candidates.exists()]
    chosen = [step for step in steps if number in (None, step.number)]
    if not chosen:
        has = ", ".join(str(step.number) for step in steps) or "none"
        which = "any iteration" if number is None else f"iteration {number}"
        raise RunError(f"{run} holds no candidates of {which} (it has: {has}): give one that it has")
    return chosen[-1]


def _pairs(run: Path) -> list[QAPair]:
    seeds = [QAPair.from_json(row) for row in read_rows(run / "seeds.jsonl")]
    return seeds + [QAPair.from_json(row) for step in iterations(run) for row in candidates(step)]


def _pair_panel(row: Mapping[str, Any]) -> Panel:
    text = Text.assemble(("Question: ", "bold"), plain(row["question"]), ("\nAnswer: ", "bold"), plain(row["answer"]))
    return Panel(text, title=plain(row["id"]), title_align="left")


def _fate(rejection: Mapping[str, Any] | None) -> str:
    if rejection is None:
        return "accepted"
    near = f", near to {rejection['near_id']}" if rejection["near_id"] else ""
    return f"dropped by {rejection['reason']} (value {rejection['value']}, threshold {rejection['threshold']}{near})"


def _distance(row: Mapping[str, Any]) -> float:
    value, threshold = row["rejection"]["value"], row["rejection"]["threshold"]
    return float(abs(value - threshold) / max(abs(threshold), 1e-9))


def plain(text: str) -> Text:
    """Text without control characters: a model's output must not move the cursor or colour the terminal."""
    return Text(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text))
