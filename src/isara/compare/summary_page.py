"""report.html of several comparisons on other pairs: the arms over held-out categories, or over numbers of seeds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from isara.compare.arms import BASELINE, REFERENCE
from isara.compare.comparison import in_short
from isara.compare.summary import FILE_NAME as SUMMARY
from isara.errors import RunError
from isara.files import read_json, write_text
from isara.report.page.html import FILE_NAME, page, refreshing


def is_summary(folder: Path) -> bool:
    """Whether a folder holds several comparisons with what they say together."""
    return (folder / SUMMARY).is_file() and (folder / "summary.md").is_file()


def write_page(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of several comparisons; its path. The same comparisons give the same bytes.

    Args:
        folder: Theirs, in which one is finished at least.
        out: The file; None for report.html in the folder, where alone it leads on to the pages of the comparisons.

    Raises:
        RunError: What they say together is damaged, or the page can't be written.
    """
    path = folder / FILE_NAME if out is None else out
    data = content(folder, linked=path.resolve().parent == folder.resolve())
    write_text(path, page("summary", data, f"{folder.resolve().name} · ISARA"))
    return path


def refresh_page(folder: Path) -> None:
    """Writes report.html; where that fails, a line in the log says why, and the comparisons go on."""
    with refreshing(folder):
        write_page(folder)


def content(folder: Path, linked: bool = True) -> dict[str, Any]:
    """Everything that the page shows, JSON-ready.

    Args:
        folder: Of the comparisons.
        linked: Whether the page lies in that folder, so that it can name the pages of the comparisons by their place.

    Raises:
        RunError: What they say together is damaged.
    """
    found = read_json(folder / SUMMARY)
    try:
        return _content(folder, found, linked)
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise RunError(
            f"{folder / SUMMARY} is damaged or of another version: run the same `isara compare` again, which asks no "
            "question twice"
        ) from None


def _content(folder: Path, found: Mapping[str, Any], linked: bool) -> dict[str, Any]:
    first = next(iter(found["comparisons"].values()))
    return {
        "name": folder.resolve().name,
        "model": first["model"],
        "score": first["score"],
        "percent": first["percent"],
        "training_seeds": first["seeds"],
        "figures": list(dict.fromkeys(name for line in first["arms"] for name in line["columns"])),
        "baseline": BASELINE,
        "reference": REFERENCE,
        "arms": found["arms"],
        "counts": found["pooled"] is None,
        "comparisons": [
            {
                "name": name,
                "about": each["about"],
                "seed_pairs": each["seed_pairs"],
                "page": _page(folder, name) if linked else None,
                "lines": _lines(each["arms"]),
                "contaminated": each["contamination"]["arms"],
                "yields": dict(_yields(each)),
            }
            for name, each in found["comparisons"].items()
        ],
        "pooled": None if found["pooled"] is None else _lines(found["pooled"]),
        "missing": list(_missing(folder, found, linked)),
    }


def _page(folder: Path, name: str) -> str | None:
    return quote(f"{name}/{FILE_NAME}") if (folder / name / FILE_NAME).is_file() else None


def _lines(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """By arm its figures, its difference to the baseline and p."""
    return {
        line["arm"]: {"figures": line["columns"], "difference": line["difference"], "p": line["adjusted"]}
        for line in lines
    }


def _yields(comparison: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """By arm the share of candidates that was accepted, and accepted pairs for each seed pair; means over the runs."""
    for arm, costs in comparison["costs"].items():
        made = [each for each in costs if each["candidates"]]
        if made:
            accepted = sum(each["accepted"] for each in made)
            share = accepted / sum(each["candidates"] for each in made)
            yield arm, [share, accepted / len(made) / comparison["seed_pairs"]]


def _missing(folder: Path, found: Mapping[str, Any], linked: bool) -> Iterator[str]:
    """A sentence for all that a reader may look for and not find."""
    for name, about in found["planned"].items():
        if name not in found["comparisons"]:
            yield f"{name} ({about}) is not finished: the command that began it goes on."
    for name, each in found["comparisons"].items():
        for failure in each["failures"]:
            message = in_short(failure["message"])
            yield f"{name}: {failure['arm']} failed with training seed {failure['seed']}: {message}"
        if linked and _page(folder, name) is None:
            yield f"{name} has no page: `isara report` with its folder writes it."
    if found["pooled"] is not None:
        pooled = {line["arm"] for line in found["pooled"]}
        left = [arm["name"] for arm in found["arms"] if arm["name"] not in pooled]
        if left:
            yield f"Not counted over all questions, since not every comparison has it: {', '.join(left)}."
