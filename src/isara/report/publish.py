"""The files that go into final/ beside the exported model: its card, and the pairs it was trained on with theirs."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from isara.config import Config
from isara.converted import card_value
from isara.files import json_lines
from isara.folder import model_stage
from isara.marks import clean
from isara.report.cards import data_card, model_card
from isara.report.facts import Run, read_run

log = logging.getLogger("isara")

_ADAPTER = "adapter/adapter_config.json"


def final_files(config: Config, model: str, run: Path, best: int) -> Mapping[str, str]:
    """Text of README.md (the model card) and, where pairs were generated, of data_card.md and pairs.jsonl.

    Args:
        config: The run's config, as it is at hand.
        model: The folder or name of the base model.
        run: The run folder.
        best: The iteration whose model is exported; 0 is the base model.
    """
    # The loop has compared the bytes of each stage a moment ago.
    found = replace(read_run(run, verify=False), config=config)
    license = model_license(model)
    pairs = [pair for facts in found.behind(best) for pair in facts.pairs]
    files = {"README.md": model_card(found, best, license)}
    if pairs:
        files["data_card.md"] = data_card(found, best, license)
        files["pairs.jsonl"] = json_lines(pair.to_json() for pair in pairs)
    return {**files, **_adapter_config(found, best)}


def model_license(model: str) -> str | None:
    """The licence that a model folder's own card names, or None; whatever is wrong with that card."""
    try:
        return card_value(Path(model), "license")
    except Exception as error:  # foreign YAML and foreign disks make the libraries raise anything, after all training
        log.warning(
            "the licence of the base model is not known: its README.md can't be read (%s)", clean(str(error), 200)
        )
        return None


def _adapter_config(run: Run, best: int) -> dict[str, str]:
    """The adapter's config where its base is a model of this run, with that model's absolute path.

    The stage's own names it as seen from the adapter, so that a run's bytes don't depend on where it lies; but peft
    takes a relative path from the working directory.
    """
    training = run.at(best).made
    config = (training.adapter if training else None) or {}
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or PurePosixPath(base).parts[:1] != ("..",):
        return {}
    # By names alone: both folders are the run's own, where no link is followed.
    there = os.path.abspath(model_stage(run.path, best) / "model" / "adapter" / base)
    text = json.dumps({**config, "base_model_name_or_path": there}, indent=2, sort_keys=True)
    return {_ADAPTER: text + "\n"}
