"""What a comparison leaves beside its runs and answers, and whose folder it is.

comparisons/<name>/  compare.yaml                     what is compared, on what
                     arms/<arm>/seed-0/               a run folder
                     shelf/                           stages that arms share
                     answers/                         what each model answered, by the key of what made it
                     scores.jsonl                     every answer with its values
                     comparison.json  table.md  arms.svg
                     report.html                      all of it as one page
                     log.txt                          the one place with times
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from isara.compare.arms import Arm
from isara.compare.comparison import Comparison
from isara.compare.figures import Measured
from isara.compare.table import table
from isara.config import changes
from isara.errors import RunError
from isara.files import damaged, json_lines, read_text, value_hash, write_json, write_text
from isara.marks import told_apart
from isara.parts import Parts
from isara.records import QAPair
from isara.yaml_text import YamlError, parse_yaml

FILE_NAME = "compare.yaml"
_MOST_SHOWN = 120  # characters of a value in an error message
# What a comparison that was cut off in its first moments may have left behind.
_FIRST_FILES = {".lock", "log.txt", f"{FILE_NAME}.tmp"}


def claim(
    out: Path,
    base: Parts,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    tests: Sequence[QAPair],
    task: str | None = None,
) -> None:
    """Makes the folder the comparison on these parts, or checks that it is; arms and seeds may be others each time.

    Raises:
        RunError: It holds something else.
    """
    config = base.config.model_dump(mode="json")
    contents = {
        "weights of the base model": base.weights(base.model),
        "seed pairs": _hash(base.seeds),
        "held-out pairs": _hash(base.heldout),
    }
    if tests is not base.heldout:
        contents["test questions"] = _hash(tests)
    if task is not None:
        contents["task"] = task
    path = out / FILE_NAME
    if path.exists():
        _check(path, config, contents)
    elif foreign := sorted(file.name for file in out.iterdir() if file.name not in _FIRST_FILES):
        raise RunError(
            f"{out} is not empty and is no comparison (it holds {foreign[0]}): give another folder with --out"
        )
    record = {
        "arms": {arm.name: _declared(arm, base) for arm in arms},
        "seeds": list(seeds),
        "contents": contents,
        "config": config,
    }
    write_text(path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=120))


def write(comparison: Comparison, measured: Sequence[Measured]) -> None:
    """Writes scores.jsonl, comparison.json and table.md.

    Raises:
        RunError: They can't be written.
    """
    write_text(comparison.out / "scores.jsonl", json_lines(_scores(measured)))
    write_json(comparison.out / "comparison.json", comparison.to_json())
    write_text(comparison.out / "table.md", table(comparison))


def _declared(arm: Arm, base: Parts) -> dict[str, Any]:
    """The arm as compare.yaml tells it."""
    settings = arm.settings(base.config)
    return {
        "about": arm.about,
        "overrides": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        "shown": arm.shown,
        "steps_of": arm.steps_of,
        "part": arm.part.__qualname__ if arm.part else None,
        "instructions": arm.instructions,
        **({"grid": arm.choices(base.config)} if arm.grid else {}),
    }


def _hash(pairs: Sequence[QAPair]) -> str:
    """Of the pairs in their order, and of which turns of a dialogue are shown only."""
    return value_hash([[pair.id, list(pair.untrained)] if pair.untrained else pair.id for pair in pairs])


def _check(path: Path, config: Mapping[str, Any], contents: Mapping[str, str]) -> None:
    try:
        old = parse_yaml(read_text(path))
    except YamlError:
        raise damaged(path) from None
    if not isinstance(old, dict) or not all(isinstance(old.get(name), dict) for name in ("config", "contents")):
        raise damaged(path)
    differences = [
        "{} was {} and is {}".format(key, *told_apart(str(was), str(now), _MOST_SHOWN))
        for key, was, now in changes(old["config"], config)
    ]
    names = {**old["contents"], **contents}
    differences += [f"the {name} are others" for name in names if old["contents"].get(name) != contents.get(name)]
    if differences:
        raise RunError(
            f"{path.parent} holds another comparison: {'; '.join(differences)}. Undo the change to go on with it, or "
            "give another folder with --out"
        )


def _scores(measured: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """A row for each answer of each model."""
    for model in measured:
        for place, answer in enumerate(model.answers):
            values = {name: float(column[place]) for name, column in model.values.items()}
            yield {
                "arm": model.arm,
                "seed": model.seed,
                "iteration": model.iteration,
                "exported": model.exported,
                "steps": model.steps,
                **answer,
                "values": {name: value for name, value in values.items() if not math.isnan(value)},
            }
