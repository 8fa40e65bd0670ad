"""What a config leaves open: values that follow the model's size, or the seeds."""

from collections.abc import Sequence
from pathlib import Path

from isara.config import Config, EngineConfig, sized
from isara.files import read_text
from isara.filters.agreement import AUTO, repeated_share
from isara.hardware import device_memory, find_device, find_dtype
from isara.records import QAPair
from isara.sizes import count_weights, shown_count
from isara.yaml_text import YamlError, parse_yaml

# Of `filters.agreement: auto`: it is on where as many of the seeds repeat each other, unless they are too few to tell.
_REPEATED = 0.5
_FEWEST_SEEDS = 16
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
            "models of this size seldom gained from the loop where it was measured, and one got worse (docs/which.md): "
            "read the run's verdict, and see `isara compare`"
        )
    return config, notes


def settled_by_seeds(
    config: Config, model: str, seeds: Sequence[QAPair], began: Path | None = None
) -> tuple[Config, list[str]]:
    """The config with a value for `filters.agreement: auto`, so that a run records it; and a line that says so.

    Args:
        config: The config as it was written.
        model: What `find_model` returned.
        seeds: The seed pairs of the loop.
        began: The record of what may have begun with a value already and goes on with it: a run's isara.yaml or a
            comparison's compare.yaml.
    """
    if config.filters.agreement != "auto":
        return config, []
    value, line = _agreement(config, model, seeds)
    if began is not None and began.is_file():
        value, line = _recorded(began, otherwise=value), None
    filters = config.filters.model_copy(update={"agreement": value})
    return config.model_copy(update={"filters": filters}), [line] if line else []


def _agreement(config: Config, model: str, seeds: Sequence[QAPair]) -> tuple[float | None, str | None]:
    """What `auto` is, and the line."""
    if not config.generate.accept or len(seeds) < _FEWEST_SEEDS:
        return None, None
    share = repeated_share([pair.answer for pair in seeds], [pair.question for pair in seeds])
    if share < _REPEATED:
        return None, None
    head = f"{share:.0%} of the seeds' answers say what another one says, so filters.agreement"
    if config.filters.agreement_with == "demonstrations":
        return AUTO, f"{head} is {AUTO:g}: pairs are kept where other demonstrations lead to the same answer"
    if why := _hindered(config.engine, model):
        return None, f"{head} would be {AUTO:g}, but {why}"
    return AUTO, f"{head} is {AUTO:g}: pairs are kept where the model tuned on the seeds alone says the same"


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


def _recorded(record: Path, otherwise: float | None) -> float | None:
    """The value that a record has; what is wrong with it is told by who goes on with it."""
    try:
        tree = parse_yaml(read_text(record))
    except YamlError:
        return otherwise
    settings = tree.get("config", tree) if isinstance(tree, dict) else {}
    filters = settings.get("filters") if isinstance(settings, dict) else None
    value = filters.get("agreement", otherwise) if isinstance(filters, dict) else otherwise
    return float(value) if isinstance(value, int | float) else None
