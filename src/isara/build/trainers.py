"""What trains models, as a config says: the iterations', and those that are tuned on the seeds alone."""

from collections.abc import Sequence
from typing import Any

from isara.build.engines import in_child
from isara.config import Config
from isara.errors import ConfigError
from isara.pool import Demonstrations, Pool
from isara.protocols import Trainer
from isara.records import QAPair
from isara.sizes import settings_for
from isara.training.anchors import questions as everyday_questions
from isara.training.anchors import wanted
from isara.training.child import ChildTrainer
from isara.training.sft import SupervisedTrainer
from isara.watching import Watcher

# Learning rates of the preference step where the config says null (our choice, docs/training.md).
PREFERENCE_RATES = {"lora": 5e-5, "full": 5e-6}


def build_trainer(
    config: Config, watcher: Watcher | None = None, seeds: Pool | None = None, **own: Any
) -> SupervisedTrainer | ChildTrainer:
    """What fine-tunes a model, in this process or in a child; demonstrations for training come from the seeds.

    Args:
        config: Its train section has the options.
        watcher: Is told of steps.
        seeds: Where demonstrations come from; None is without.
        own: Options that no config has.
    """
    options = config.train.model_dump(exclude={"start", "data", "demos", "weights"}, exclude_none=True)
    if seeds is not None:
        options["retrieve"] = _demonstrations(config, seeds, config.train.demos)
        options["teach"] = _demonstrations(config, seeds, config.answers.demos * (config.train.loss == "distil"))
    options |= {
        "seed": config.seed,
        "prompt_format": config.prompt_format,
        "device": config.engine.device,
        "dtype": config.engine.dtype,
        "trust_remote_code": config.engine.trust_remote_code,
        **own,
    }
    kind = ChildTrainer if in_child(config) else SupervisedTrainer
    return kind(**options, on_step=watcher.step if watcher else None)


def _demonstrations(config: Config, seeds: Pool, k: int) -> Demonstrations | None:
    """What gives a pair k demonstrations as `answers.retrieve` says; None where it is to have none."""
    kind = config.answers.retrieve
    return Demonstrations(seeds, kind, k, config.seed) if k and kind != "none" else None


def build_reader(config: Config, watcher: Watcher | None, seeds: Pool) -> Trainer | None:
    """What tunes a model to read demonstrations (in-context tuning, arXiv 2110.07814 and 2110.15943), or None.

    Where nothing is generated it is wanted for `train.loss: distil` alone, whose teacher it is.

    Raises:
        ConfigError: No demonstrations are shown before an answer, or a reader asks that doesn't answer.
    """
    answers, asks = config.answers, config.questions.from_ == "reader"
    if answers.from_ != "reader":
        if asks:
            raise ConfigError(
                "questions.from is reader: expected answers.from reader, too, found last: set both, or questions.from"
            )
        return None
    reader = _tuned_on_seeds(config, watcher, seeds, "answers.from is reader", whole_pairs=asks)
    return reader if config.generate.accept or config.train.loss == "distil" else None


def build_questioner(config: Config, watcher: Watcher | None, seeds: Pool) -> Trainer | None:
    """What tunes a model to go on with the next pair, as it does a reader that asks, or None.

    Raises:
        ConfigError: No demonstrations are shown before an answer, so that there is nothing to go on from.
    """
    if config.questions.from_ != "seeds":
        return None
    questioner = _tuned_on_seeds(config, watcher, seeds, "questions.from is seeds", whole_pairs=True)
    return questioner if config.generate.accept else None


def _tuned_on_seeds(
    config: Config, watcher: Watcher | None, seeds: Pool, wanted: str, *, whole_pairs: bool
) -> SupervisedTrainer | ChildTrainer:
    """What tunes a model on the seeds alone, each after its nearest others."""
    answers = config.answers
    if answers.retrieve == "none" or not answers.demos:
        raise ConfigError(
            f"{wanted}: expected demonstrations to read, found answers.demos 0 or answers.retrieve none: "
            f"show some, or set {wanted.split()[0]} to last"
        )
    own = {"num_train_epochs": answers.reader_epochs, "max_steps": None, "demos": answers.demos}
    plain = {"loss": "sft", "anchors": 0.0}  # it learns from the seeds alone
    # At the whole rate of the training SmolLM2-135M's reader gave a third of its answers one rule (docs/log.md).
    rate = config.train.learning_rate or settings_for(None, config.train.method).learning_rate
    gentle = {"learning_rate": rate / 2}
    tuned = config.model_copy(update={"train": config.train.model_copy(update=own | plain | gentle)})
    return build_trainer(tuned, watcher, seeds, whole_pairs=whole_pairs)


def checker_steps(config: Config, seeds: Sequence[QAPair]) -> int | None:
    """Optimiser steps of the model that gives second answers; None where there is none.

    They are those that iteration 1 is going to take when as many pairs are accepted as are wanted, each one row, as it
    is without packing and over-long rows: then the seeds-only model of the run's table is the same one. Where iteration
    1 is trained without the seeds they count all the same, so that who checks is the same model. Anchors count, too,
    though neither of the two has any.

    Args:
        config: Every option.
        seeds: The seed pairs.
    """
    train = config.train
    if not config.filters.checked_by_seeds or not config.generate.accept:
        return None
    pairs = config.generate.accept + len(seeds)
    rows = config.generate.accept + sum(len(pair.turns) - len(pair.untrained) for pair in seeds)
    rows += min(len(everyday_questions(0)), wanted(train.anchors, pairs))
    return train.steps(rows)


def build_preference(config: Config, watcher: Watcher | None = None) -> SupervisedTrainer | ChildTrainer | None:
    """What trains a model on preferences, with the train section's options but for those of its own; None without."""
    method, told = config.prefer.method, config.prefer
    if method == "none" or method == "dpo" and not config.generate.accept:  # which nothing is preferred in
        return None
    rate = told.learning_rate or PREFERENCE_RATES[config.train.method or settings_for(None).method]
    own = {"learning_rate": rate, "num_train_epochs": told.num_train_epochs, "max_steps": None, "anchors": 0.0}
    tuned = config.model_copy(update={"train": config.train.model_copy(update={**own, "packing": False})})
    return build_trainer(tuned, watcher, loss="dpo", beta=told.beta)
