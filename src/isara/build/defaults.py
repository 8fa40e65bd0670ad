"""What a config leaves open: values that follow the model's size, or the seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isara.config import Config, EngineConfig, sized
from isara.embedders import find_embedder
from isara.files import read_text
from isara.filters.agreement import AUTO, repeated_share
from isara.filters.kind import KindProbe
from isara.hardware import device_memory, find_device, find_dtype
from isara.records import QAPair
from isara.sizes import count_weights, shown_count
from isara.yaml_text import YamlError, parse_yaml

# Of `filters.kind: auto` and `filters.agreement: auto`: one is on where as many of the seeds repeat each other, unless
# they are too few to tell.
_REPEATED = 0.5
_FEWEST_SEEDS = 16
# Weights of models that learn too little from the seeds to check pairs: SmolLM2-135M's check kept pairs of three of the
# shop's eight rules, and the model had 26 % right, 43 with a check by kinds. Gemma-3-270m had 74 and 54, the embedded
# model 71 and 70 (docs/results.md).
_POOR_CHECKERS = (20e6, 200e6)
_SMALL = (20e6, 500e6)  # weights of models as they were measured; smaller ones are the embedded model's kind
_ROOM = 0.7  # of a device's memory, that two models may take; the rest is for caches (our choice)


def settled(config: Config, model: str) -> tuple[Config, list[str]]:
    """The config with values for what follows the model's size, so that a run records them; and a line that says so.

    Args:
        config: The config as it was written.
        model: What `find_model` returned.

    Raises:
        ModelError: A file of its weights is torn.
    """
    if not sized(config, None)[1]:
        return config, []  # all of it is written out, as in a run's own config
    weights = count_weights(model)
    config, found = sized(config, weights)
    size = "an unknown number of" if weights is None else shown_count(weights)
    said = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
    )
    notes = [f"settings of a model of {size} weights: {said}"]
    if weights is not None and _SMALL[0] <= weights < _SMALL[1] and config.iterations and config.generate.accept:
        notes.append(
            "models of this size gained from the loop in some domains and lost in others where it was measured "
            "(docs/which.md): read the run's verdict, and see `isara compare`"
        )
    return config, notes


def settled_by_seeds(
    config: Config, model: str, seeds: Sequence[QAPair], began: Path | None = None
) -> tuple[Config, list[str]]:
    """The config with values for `auto` of `filters.kind` and `filters.agreement`, so that a run records them; a line.

    Where the seeds' answers repeat each other, generated pairs are checked by a second model; or, if it would be too
    small to know better and the seeds' questions tell the kinds of answers, by these.

    Args:
        config: The config as it was written.
        model: What `find_model` returned.
        seeds: The seed pairs of the loop.
        began: The record of what may have begun with values already and goes on with them: a run's isara.yaml or a
            comparison's compare.yaml.

    Raises:
        ModelError: The embedder can't be had.
    """
    written = config.filters
    if written.kind != "auto" and written.agreement != "auto":
        return config, []
    found: dict[str, Any] = {}
    line = None
    if began is not None and (recorded := _recorded(began)) is not None:
        found = {"kind": recorded.get("kind", False) is True, "agreement": _number(recorded.get("agreement"))}
    else:
        found, line = _decided(config, model, seeds)
    update = {name: value for name, value in found.items() if getattr(written, name) == "auto"}
    return config.model_copy(update={"filters": written.model_copy(update=update)}), [line] if line else []


def _decided(config: Config, model: str, seeds: Sequence[QAPair]) -> tuple[dict[str, Any], str | None]:
    """What `auto` of either is, and the line."""
    kind, agreement = config.filters.kind is True, config.filters.least_agreement
    off = {"kind": kind, "agreement": agreement}
    if config.filters.agreement != "auto" or kind or not config.generate.accept or len(seeds) < _FEWEST_SEEDS:
        return off, None
    share = repeated_share([pair.answer for pair in seeds], [pair.question for pair in seeds])
    if share < _REPEATED:
        return off, None
    head = f"{share:.0%} of the seeds' answers say what another one says"
    if config.filters.kind == "auto" and (probe := _probe(config, model, seeds)) is not None:
        return {**off, "kind": True}, (
            f"{head}, their questions tell which ({len(probe.groups)} kinds, {probe.accuracy:.0%} of them by the "
            "others), and a model of this size learns too little from them to check pairs, so filters.kind is true: "
            "pairs are kept where the answer is of the kind that such questions have"
        )
    head += ", so filters.agreement"
    if config.filters.agreement_with == "demonstrations":
        return {**off, "agreement": AUTO}, (
            f"{head} is {AUTO:g}: pairs are kept where other demonstrations lead to the same answer"
        )
    if why := _hindered(config.engine, model):
        return off, f"{head} would be {AUTO:g}, but {why}"
    return {**off, "agreement": AUTO}, (
        f"{head} is {AUTO:g}: pairs are kept where the model tuned on the seeds alone says the same"
    )


def _probe(config: Config, model: str, seeds: Sequence[QAPair]) -> KindProbe | None:
    """What tells kinds of answers by the seeds' questions, for a model that is a poor checker itself.

    None for others, and where nothing tells kinds or most answers are of none.
    """
    weights = count_weights(model)
    if weights is None or not _POOR_CHECKERS[0] <= weights < _POOR_CHECKERS[1]:
        return None
    probe = KindProbe(find_embedder(config.retrieve.embedder), seeds)
    return probe if probe.tells and probe.named >= _REPEATED else None


def _hindered(engine: EngineConfig, model: str) -> str:
    """What speaks against a second model that is open beside the first one; nothing in most cases."""
    anyway = f"set it to {AUTO:g} to have it anyway"
    if engine.url and not engine.load:
        return "a server of engine.url has no weights but the base model's: use engine.serve or engine.load"
    if engine.serve or engine.kind == "vllm":
        return f"two models would be served at once, each with its share of the memory (docs/servers.md): {anyway}"
    if engine.use or engine.kind != "transformers" or engine.launcher:  # elsewhere, or nobody knows where
        return ""
    device = find_device(engine.device)
    size = 2 * (count_weights(model) or 0) * find_dtype(engine.dtype, device).itemsize
    processes = engine.workers if device == "cpu" else 1  # on GPUs they go on these in turn
    if size * processes > _ROOM * device_memory(device):
        return f"two models of this size are too much for the memory of {device}: {anyway}"
    return ""


def _recorded(record: Path) -> dict[str, Any] | None:
    """The filters that a record has; None where there is none. What is wrong with it is told by who goes on with it."""
    if not record.is_file():
        return None
    try:
        tree = parse_yaml(read_text(record))
    except YamlError:
        return None
    settings = tree.get("config", tree) if isinstance(tree, dict) else {}
    filters = settings.get("filters") if isinstance(settings, dict) else None
    return filters if isinstance(filters, dict) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
