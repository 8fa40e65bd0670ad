"""What tuning found, for people and for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isara.marks import clean
from isara.statistics import bootstrap, paired_difference
from isara.tune.likelihood import Choice
from isara.tune.tune import DRAWN, Tuned, said

_MOST_SHOWN = 60  # characters of a name
_SETTINGS = ("answers.demos", "answers.retrieve", "retrieve.embedder", "prompt_format", "seeds")


def show(found: Tuned) -> RenderableType:
    """The tables, what they say, and the settings that follow."""
    return Group(_likelihoods(found), _texts(found), *map(Text, ["", *found.findings, *advice(found)]))


def advice(found: Tuned) -> Iterator[str]:
    """Lines with the settings that beat the config's own, as they can be typed."""
    if not found.suggested:
        yield "no setting beats those of the config beyond chance: leave them as they are"
        return
    yield "settings that beat those of the config beyond chance:"
    yield " ".join(flags(found))


def flags(found: Tuned) -> list[str]:
    """`--set KEY=VALUE` for each suggestion."""
    return [f"--set {key}={value}" for key, value in found.suggested.items()]


def to_json(found: Tuned) -> dict[str, Any]:
    """Every figure, JSON-ready."""
    return {
        "model": found.model,
        "seeds": found.seeds,
        "measured": list(found.measured),
        "current": dict(found.current),
        "suggested": dict(found.suggested),
        "findings": found.findings,
        "kinds": {
            embedder: {"groups": [list(group) for group in probe.groups], "accuracy": probe.accuracy}
            for embedder, probe in found.kinds.items()
        },
        "likelihood": [
            {"setting": each.setting, "value": each.value, "tokens": each.tokens, **_mean(each.bits), "bits": each.bits}
            for each in found.choices
        ],
        "generated": [
            {
                "setting": each.setting,
                "value": each.value,
                "n": len(each.passed),
                "share": each.share,
                "interval": [each.interval.low, each.interval.high],
                "passed": list(each.passed),
                "scores": list(each.scores),
            }
            for each in found.sampled
        ],
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    interval = bootstrap(np.mean, values)
    return {"n": len(values), "mean": float(np.mean(values)), "interval": [interval.low, interval.high]}


def _likelihoods(found: Tuned) -> Table:
    title = f"Bits per byte of {len(found.measured)} seeds' answers, each after other seeds (less is better)"
    table = Table(title=title, title_justify="left")
    for name in ("setting", "value", "bits/byte", "more than the best"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for setting in _SETTINGS:
        choices = found.of(setting)
        if len(choices) < 2:
            continue
        least = min(choices, key=lambda choice: choice.mean)
        for place, choice in enumerate(choices):
            table.add_row(
                Text(setting if not place else ""),
                Text(_value(choice, found)),
                f"{choice.mean:.3f}",
                "" if choice is least else Text(said(choice.less(least))),
                end_section=choice is choices[-1],
            )
    return table


def _value(choice: Choice, found: Tuned) -> str:
    now = " (now)" if choice.value == found.current[choice.setting] else ""
    return clean(str(choice.value), _MOST_SHOWN) + now


def _texts(found: Tuned) -> Table:
    table = Table(title="Generated texts", title_justify="left")
    for name in ("setting", "value", "n", "pass the filters", "nearness", "less than the nearest"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for setting in DRAWN:
        sampled = found.texts_of(setting)
        most = max(sampled, key=lambda each: sum(each.scores))
        for place, each in enumerate(sampled):
            now = " (now)" if each.value == found.current[setting] else ""
            low, high = each.interval.low, each.interval.high
            table.add_row(
                Text(setting if not place else ""),
                Text(f"{each.value:g}{now}"),
                str(len(each.passed)),
                Text(f"{each.share:.0%} [{low:.0%}, {high:.0%}]"),
                f"{np.mean(each.scores):.3f}",
                "" if each is most else Text(said(paired_difference(most.scores, each.scores))),
                end_section=each is sampled[-1],
            )
    table.caption = "nearness: of questions the cosine with the nearest seed, of answers ROUGE-L with the seed's own"
    table.caption_justify = "left"
    return table
