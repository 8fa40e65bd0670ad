"""What a config leaves open: values that follow the model's size, or the seeds."""

from collections.abc import Sequence

from isara.config import Config, sized
from isara.filters.agreement import AUTO, repeated_share
from isara.records import QAPair
from isara.sizes import count_weights, shown_count

# Of `filters.agreement: auto`: it is on where as many of the seeds repeat each other, unless they are too few to tell.
_REPEATED = 0.5
_FEWEST_SEEDS = 16


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
    return config, [f"settings of a model of {size} weights: {said}"]


def settled_by_seeds(config: Config, seeds: Sequence[QAPair]) -> tuple[Config, list[str]]:
    """The config with a value for `filters.agreement: auto`, so that a run records it; and a line that says so.

    Args:
        config: The config as it was written.
        seeds: The seed pairs of the loop.
    """
    if config.filters.agreement != "auto":
        return config, []
    value: float | None = None
    said: list[str] = []
    if config.generate.accept and config.iterations and len(seeds) >= _FEWEST_SEEDS:
        share = repeated_share([pair.answer for pair in seeds], [pair.question for pair in seeds])
        if share >= _REPEATED:
            value, said = _agreement(config, share)
    filters = config.filters.model_copy(update={"agreement": value})
    return config.model_copy(update={"filters": filters}), said


def _agreement(config: Config, share: float) -> tuple[float | None, list[str]]:
    """What it is where seeds repeat themselves, and the line."""
    head = f"{share:.0%} of the seeds' answers say what another one says, so filters.agreement"
    if config.filters.agreement_with == "demonstrations":
        return AUTO, [f"{head} is {AUTO:g}: pairs are kept where other demonstrations lead to the same answer"]
    if config.engine.url and not config.engine.load:
        return None, [
            f"{head} would be {AUTO:g}, but a server of engine.url has no weights but the base model's: use "
            "engine.serve or engine.load, or set filters.agreement_with to demonstrations"
        ]
    return AUTO, [f"{head} is {AUTO:g}: pairs are kept where the model tuned on the seeds alone says the same"]
