"""The arms of a comparison: each is the recipe's own run with one part changed, said in a few words."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from isara.compare.trainers import ShuffledAnswers
from isara.config import Config, load_config
from isara.errors import ConfigError
from isara.parts import Parts

Shown: TypeAlias = Literal["none", "nearest", "random", "fixed"]
# A value that depends on the recipe's own, such as the number of pairs of all iterations.
Setting: TypeAlias = Any | Callable[[Config], Any]

REFERENCE = "isara"
BASELINE = "sft-seeds-equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One row of a comparison.

    Attributes:
        name: What it is called.
        about: What it is, in a line.
        overrides: Config values that differ from the recipe's, by dotted key; a function is called with its config.
        shown: Which seed pairs stand before each question when it is tested, `answers.demos` of them; "fixed" are
            drawn once for all questions.
        steps_of: Each iteration's model has seen as many optimiser steps as that arm's model of the same iteration. An
            arm without pairs of its own is run once for each of those iterations.
        part: Changes a part that no config value changes.
        instructions: Whether its prompts hold instructions, which ISARA's never do.
    """

    name: str
    about: str
    overrides: Mapping[str, Setting] = field(default_factory=dict)
    shown: Shown = "none"
    steps_of: str | None = None
    part: Callable[[Parts], Parts] | None = None
    instructions: bool = False

    def settings(self, base: Config) -> dict[str, Any]:
        """The overrides as values for this recipe."""
        return {key: value(base) if callable(value) else value for key, value in self.overrides.items()}

    def config(self, base: Config, seed: int, out: Path) -> Config:
        """The config of the arm's run with one training seed.

        Raises:
            ConfigError: An override is no key of a config, or has no meaning.
        """
        # An iteration more or less is another budget, so no run stops early.
        return changed(base, {"evaluate.patience": None, **self.settings(base), "seed": seed, "out": str(out)})


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with other values, by dotted key.

    Raises:
        ConfigError: No such key, or a value that it doesn't take.
    """
    tree = config.model_dump()
    for key, value in settings.items():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return load_config(None, (), **tree)


def find_arms(names: Sequence[str]) -> list[Arm]:
    """The arms of these names, in the order of the names.

    Raises:
        ConfigError: There is no such arm, or one is named twice.
    """
    known = {arm.name: arm for arm in ARMS}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"there is no arm {name!r}: {hint}")
        if names.count(name) > 1:
            raise ConfigError(f"the arm {name!r} is named {names.count(name)} times: name it once")
    return [known[name] for name in names]


def in_order(arms: Sequence[Arm]) -> list[Arm]:
    """The arms so that each comes after the one whose steps it takes.

    Raises:
        ConfigError: That one is not among them.
    """
    names = [arm.name for arm in arms]
    for arm in arms:
        if arm.steps_of is not None and arm.steps_of not in names:
            raise ConfigError(
                f"{arm.name} takes as many steps as {arm.steps_of}, which is not among the arms: add {arm.steps_of}"
            )
    return sorted(arms, key=lambda arm: arm.steps_of is not None)


def check_budget(base: Config) -> None:
    """Whether the recipe has a budget that arms can be held to.

    Raises:
        ConfigError: It makes no iteration or no pairs.
    """
    for key, value in (("iterations", base.iterations), ("generate.accept", base.generate.accept)):
        if value < 1:
            raise ConfigError(f"`{key}`: expected at least 1, found {value}: arms are compared at its budget")


def _total(config: Config) -> int:
    return config.generate.accept * config.iterations


def _batches(config: Config) -> int | None:
    """The limit on the batches of an iteration, for those of all."""
    limit = config.generate.max_batches
    return None if limit is None else limit * config.iterations


_UNFILTERED: dict[str, Setting] = {
    **dict.fromkeys(("filters.min_question_tokens", "filters.max_question_tokens"), None),
    **dict.fromkeys(("filters.min_answer_tokens", "filters.max_answer_tokens"), None),
    **dict.fromkeys(("filters.novelty", "filters.near_duplicate", "filters.repetition"), None),
    **dict.fromkeys(("filters.echo", "filters.copied", "filters.off_domain", "filters.balance"), None),
    **dict.fromkeys(("filters.unsupported_numbers", "filters.unsupported_contacts"), False),
    **dict.fromkeys(("filters.form", "filters.truncated", "filters.run_on", "filters.language"), False),
    **dict.fromkeys(("filters.drop_matching", "filters.own_questions", "filters.own_pairs"), ()),
}

ARMS = (
    Arm(name="zero-shot", about="the base model, nothing before the question", overrides={"iterations": 0}),
    Arm(
        name="icl-fixed",
        about="the base model after the same seed pairs for every question",
        overrides={"iterations": 0},
        shown="fixed",
    ),
    Arm(
        name="icl-random",
        about="the base model after random seed pairs",
        overrides={"iterations": 0},
        shown="random",
    ),
    Arm(
        name="icl-knn",
        about="the base model after the nearest seed pairs",
        overrides={"iterations": 0},
        shown="nearest",
    ),
    Arm(
        name="sft-seeds",
        about="fine-tuned on the seeds alone, with the recipe's epochs",
        overrides={"iterations": 1, "generate.accept": 0},
    ),
    Arm(
        name=BASELINE,
        about="fine-tuned on the seeds alone, with the optimiser steps of isara",
        overrides={"iterations": 1, "generate.accept": 0},
        steps_of=REFERENCE,
    ),
    Arm(name=REFERENCE, about="the recipe as it is"),
    Arm(
        name="one-shot",
        about="all pairs in one iteration",
        overrides={"iterations": 1, "generate.accept": _total, "generate.max_batches": _batches},
    ),
    Arm(
        name="random-demos",
        about="answers from random instead of the nearest pairs",
        overrides={"answers.retrieve": "random"},
    ),
    Arm(name="no-filters", about="every candidate is accepted; contamination is still dropped", overrides=_UNFILTERED),
    Arm(
        name="generated-only",
        about="trained without the seeds",
        overrides={"train.data": "generated"},
        steps_of=REFERENCE,
    ),
    Arm(
        name="shuffled-answers",
        about="trained on questions with the answers of others",
        part=ShuffledAnswers.instead,
    ),
    Arm(
        name="start-last",
        about="each iteration goes on from the last one's model",
        overrides={"train.start": "last"},
        steps_of=REFERENCE,
    ),
    Arm(
        name="data-newest",
        about="trained on the seeds and the newest pairs alone",
        overrides={"train.data": "newest"},
        steps_of=REFERENCE,
    ),
    Arm(
        name="last-newest",
        about="goes on from the last model with the newest pairs",
        overrides={"train.start": "last", "train.data": "newest"},
        steps_of=REFERENCE,
    ),
    Arm(
        name="pool-all",
        about="answers from the nearest of all pairs so far",
        overrides={"retrieve.pool": "all"},
    ),
    Arm(name="seeds-pool", about="answers from the nearest of the seeds", overrides={"retrieve.pool": "seeds"}),
)
