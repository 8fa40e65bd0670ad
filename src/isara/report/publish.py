"""The files that go into final/ beside the exported model: its card, and the pairs it was trained on with theirs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from isara.config import Config
from isara.folder import Iteration, RunFolder, iterations, read_json, read_rows
from isara.generate import Generation
from isara.records import QAPair
from isara.report.cards import data_card, model_card


def final_files(
    config: Config, model: str, generation: Generation, seeds: Sequence[QAPair], run: RunFolder, best: Iteration
) -> Mapping[str, str]:
    """Text of README.md (the model card), data_card.md and pairs.jsonl for the model of the best iteration.

    Args:
        config: The run's config.
        model: The folder or name of the base model.
        generation: How the candidates were made.
        seeds: The seed pairs.
        run: The run folder.
        best: The iteration whose model is exported.
    """
    steps = [step for step in iterations(run.path) if step.accepted.exists()]
    used = [step for step in steps if _trained_on(config, step, best)]
    accepted = [pair for step in used for pair in step.read_accepted()]
    shared: dict[str, Any] = {
        "base_model": model,
        "seeds": len(seeds),
        "model_license": model_license(model),
        "seeds_license": config.licence,
    }
    card = model_card(
        name=run.path.name,
        iterations=len(steps),
        best=best.number,
        accepted=len(accepted),
        dropped=_dropped(used),
        prompt=_prompt(best),
        training=config.train.model_dump(),
        evaluation={step.number: step.read_json("eval.json") or {} for step in [run.iteration(0), *steps]},
        heldout=len(read_rows(run.path / "heldout.jsonl")),
        merge_difference=_merge_difference(best),
        **shared,
    )
    data = data_card(
        name=f"Pairs of {run.path.name}",
        accepted=[len(step.read_accepted()) for step in used],
        dropped=_dropped(used),
        sampling=asdict(generation),
        examples=accepted[:5],
        **shared,
    )
    rows = "".join(json.dumps(pair.to_json(), ensure_ascii=False) + "\n" for pair in accepted)
    return {"README.md": card, "data_card.md": data, "pairs.jsonl": rows, **_adapter_config(best)}


def model_license(model: str) -> str | None:
    """The licence that a model folder's own card names, or None."""
    card = Path(model) / "README.md"
    if not card.is_file():
        return None
    _, _, rest = card.read_text("utf-8", errors="replace").partition("---\n")
    try:
        front = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return licence if isinstance(licence, str) else None


def _trained_on(config: Config, step: Iteration, best: Iteration) -> bool:
    """Whether the best iteration's own training saw the pairs of this one."""
    return step.number <= best.number if config.train.data == "all" else step.number == best.number


def _dropped(steps: Sequence[Iteration]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for step in steps:
        total.update((step.read_json("stats.json") or {})["funnel"])
    return {reason: count for reason, count in total.most_common() if reason not in {"candidates", "accepted"}}


def _prompt(step: Iteration) -> str:
    rows = (row for row in step.replay() if row["answer_prompt"])
    return str(next(rows)["answer_prompt"])


def _adapter_config(step: Iteration) -> dict[str, str]:
    """The adapter's config where it names another iteration's model as its base: final/ lies one folder higher."""
    path = step.model / "adapter" / "adapter_config.json"
    config = read_json(path) if path.exists() else {}
    base = str(config.get("base_model_name_or_path", ""))
    if not base.startswith("../"):
        return {}
    text = json.dumps({**config, "base_model_name_or_path": base.removeprefix("../")}, indent=2, sort_keys=True)
    return {"adapter/adapter_config.json": text + "\n"}


def _merge_difference(step: Iteration) -> float | None:
    path = step.model / "adapter" / "merge.json"
    return float(json.loads(path.read_text("utf-8"))["max_logit_difference"]) if path.exists() else None
