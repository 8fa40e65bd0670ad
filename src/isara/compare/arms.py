"""The arms of a comparison: each is the recipe's own run with one part changed, said in a few words."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

from isara.compare import others
from isara.compare.trainers import ShuffledAnswers
from isara.config import SEVERAL, Config, load_config
from isara.errors import ConfigError
from isara.parts import Parts
from isara.sizes import settings_for

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
        grid: Values to try, by dotted key: what a part of the training pairs, held out, likes best is trained with.
    """

    name: str
    about: str
    overrides: Mapping[str, Setting] = field(default_factory=dict)
    shown: Shown = "none"
    steps_of: str | None = None
    part: Callable[[Parts], Parts] | None = None
    instructions: bool = False
    grid: Mapping[str, Callable[[Config], Sequence[Any]]] = field(default_factory=dict)

    @property
    def sees_seeds(self) -> bool:
        """Whether seed pairs are shown to its models, or trained on."""
        return self.shown != "none" or self.overrides.get("iterations") != 0

    def settings(self, base: Config) -> dict[str, Any]:
        """The overrides as values for this recipe."""
        return {key: value(base) if callable(value) else value for key, value in self.overrides.items()}

    def choices(self, config: Config) -> list[dict[str, Any]]:
        """The settings to try, for a config of this arm; none where nothing is tuned."""
        values = [[(key, value) for value in choose(config)] for key, choose in self.grid.items()]
        return [dict(settings) for settings in product(*values)] if values else []

    def config(self, base: Config, seed: int, out: Path) -> Config:
        """The config of the arm's run with one training seed.

        Raises:
            ConfigError: An override is no key of a config, or has no meaning.
        """
        # An iteration more or less is another budget, so no run stops early. The seeds-only model and the reader are
        # arms of their own, and every model is asked by the comparison itself, so a run need ask only where answers
        # choose the iteration.
        # And a person who changed one arm's rows would be a part of what is compared.
        common: dict[str, Any] = {
            **{"evaluate.patience": None, "evaluate.seeds_only": False, "evaluate.reader": False},
            "review.before_training": 0,
        }
        common |= {} if base.evaluate.by_score else {"evaluate.answers": 0}
        return changed(base, {**common, **self.settings(base), "seed": seed, "out": str(out)})


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


def _epochs(config: Config) -> list[float]:
    """The recipe's, and three times as many."""
    usual = config.train.num_train_epochs or settings_for(None).num_train_epochs
    return [usual * factor for factor in (1, 3)]


def _rates(config: Config) -> list[float]:
    """The recipe's, its half and its double."""
    usual = config.train.learning_rate or settings_for(None, config.train.method).learning_rate
    return [usual * factor for factor in (0.5, 1, 2)]


def _scores(config: Config) -> tuple[str, ...]:
    """The recipe's scores and that of the question's part."""
    return tuple(dict.fromkeys((*config.select.scores, "question")))


def _not_greedy(config: Config) -> float | None:
    """The recipe's temperature of answers, where they are not all the same by it."""
    return SEVERAL if config.answers.temperature == 0 else config.answers.temperature


def _best_of_four(score: str) -> dict[str, Setting]:
    """Four answers a question, of which the one with the highest score is taken."""
    drawn: dict[str, Setting] = {"select.answers": 4, "answers.temperature": _not_greedy}
    return {**drawn, "select.rule": score, "select.weights": {}}


_NO_READER: dict[str, Setting] = {"questions.from": "last", "answers.from": "last"}
_NO_PREFERENCE: dict[str, Setting] = {"prefer.method": "none"}  # of answers that are wrong, or zero-shot themselves
_NO_CHECK: dict[str, Setting] = {"filters.agreement": None, "filters.kind": False}
# Methods of others ask about anything and take the first answer, which icl_gain can't rate without demonstrations.
_NO_SELECTION: dict[str, Setting] = {
    **{"select.answers": 1, "select.rule": "first", "select.weights": {}, "select.keep": {}, "select.scores": ()},
    **{"train.weights": "none", "questions.focus": "uniform"},
}
# The seeds alone: no pairs, and no answers of the model's own to everyday questions.
_SEEDS_ALONE: dict[str, Setting] = {"iterations": 1, "generate.accept": 0, "train.anchors": 0.0}
_ONE_SHOT: dict[str, Setting] = {"iterations": 1, "generate.accept": _total, "generate.max_batches": _batches}
_ANY_ANSWER: dict[str, Setting] = {
    **dict.fromkeys(("filters.min_answer_tokens", "filters.max_answer_tokens"), None),
    **dict.fromkeys(("filters.repetition", "filters.echo", "filters.copied", "filters.balance"), None),
    **_NO_CHECK,
    **dict.fromkeys(("filters.unsupported_numbers", "filters.unsupported_contacts"), False),
}
_UNFILTERED: dict[str, Setting] = {
    **_ANY_ANSWER,
    **dict.fromkeys(("filters.min_question_tokens", "filters.max_question_tokens"), None),
    **dict.fromkeys(("filters.novelty", "filters.near_duplicate", "filters.off_domain"), None),
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
        name="urial",
        about="the base model after a preamble and the same seed pairs for every question",
        overrides={"iterations": 0},
        shown="fixed",
        part=others.after_urial,
        instructions=True,
    ),
    Arm(
        name="sft-seeds",
        about="fine-tuned on the seeds alone, with the recipe's epochs",
        overrides=_SEEDS_ALONE,
    ),
    Arm(
        name=BASELINE,
        about="fine-tuned on the seeds alone, with the optimiser steps of isara",
        overrides=_SEEDS_ALONE,
        steps_of=REFERENCE,
    ),
    Arm(
        name="sft-seeds-knn",
        about="fine-tuned on the seeds alone as sft-seeds-equal, and asked after the nearest seed pairs",
        overrides=_SEEDS_ALONE,
        shown="nearest",
        steps_of=REFERENCE,
    ),
    Arm(
        name="sft-seeds-tuned",
        about="fine-tuned on the seeds alone, with the epochs and rate that a fifth of them, held out, likes best",
        overrides=_SEEDS_ALONE,
        grid={"train.num_train_epochs": _epochs, "train.learning_rate": _rates},
    ),
    Arm(name=REFERENCE, about="the recipe as it is"),
    Arm(name="isara-knn", about="the recipe as it is, asked after the nearest seed pairs", shown="nearest"),
    Arm(
        name="one-shot",
        about="all pairs in one iteration",
        overrides=_ONE_SHOT,
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
        overrides=_NO_PREFERENCE,
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
    Arm(
        name="context-distillation",
        about="trained towards the distribution of the base model after demonstrations, not towards one answer",
        overrides={**_NO_READER, "train.loss": "distil"},
    ),
    Arm(
        name="reader",
        about="questions and answers by the base model tuned on the seeds to read demonstrations",
        overrides={"questions.from": "reader", "answers.from": "reader"},
    ),
    Arm(
        name="reader-answers",
        about="answers by the reader to questions of the last iteration's model",
        overrides={"questions.from": "last", "answers.from": "reader"},
    ),
    Arm(name="no-reader", about="questions and answers by the last iteration's model", overrides=_NO_READER),
    Arm(
        name="reader-knn",
        about="the reader itself after the nearest seed pairs",
        overrides={
            "iterations": 1,
            "generate.accept": 0,
            "train.demos": lambda config: config.answers.demos,
            "train.num_train_epochs": lambda config: config.answers.reader_epochs,
            "train.max_steps": None,
        },
        shown="nearest",
    ),
    Arm(
        name="in-context-tuned",
        about="trained on the recipe's pairs, each after its nearest seed pairs, and asked after them, too",
        overrides={"train.demos": lambda config: config.answers.demos},
        shown="nearest",
    ),
    Arm(
        name="reader-distillation",
        about="trained towards the distribution of the reader, which asks and answers, after demonstrations",
        overrides={"questions.from": "reader", "answers.from": "reader", "train.loss": "distil"},
    ),
    Arm(
        name="seeds-ask",
        about="questions by the base model tuned on the seeds to go on with the next pair, answers by the last model",
        overrides={"questions.from": "seeds", "answers.from": "last"},
    ),
    Arm(
        name="seeds-check",
        about="answers are kept where the base model fine-tuned on the seeds alone says the same, asked without any",
        overrides={"filters.agreement": 0.5, "filters.agreement_with": "seeds", "filters.kind": False},
    ),
    Arm(
        name="no-check",
        about="answers are kept whatever a second answer says, and of whatever kind they are",
        overrides=_NO_CHECK,
    ),
    Arm(
        name="kind-check",
        about="answers are kept where they are of the kind that the seeds let expect of their questions, unasked twice",
        overrides={"filters.agreement": None, "filters.kind": True},
    ),
    Arm(
        name="by-kind",
        about="questions follow seeds of one kind of answer, and answers the nearest of that kind; pairs are kept "
        "where the seeds let expect that kind of the question",
        overrides={"questions.focus": "kinds", "filters.agreement": None, "filters.kind": True},
    ),
    Arm(
        name="base-asks",
        about="questions by the base model in every iteration, answers by the last model",
        overrides={"questions.from": "base", "answers.from": "last"},
    ),
    Arm(
        name="worst-focus",
        about="questions are drawn around the seeds that the model finds hardest",
        overrides={"questions.focus": "worst"},
    ),
    Arm(
        name="balanced-focus",
        about="questions are drawn around the seeds' clusters in turn",
        overrides={"questions.focus": "balanced"},
    ),
    Arm(
        name="select-natural",
        about="of four answers the one that the base model finds likeliest without demonstrations",
        overrides=_best_of_four("natural"),
    ),
    Arm(
        name="select-icl-gain",
        about="of four answers the one that demonstrations make likelier by most",
        overrides=_best_of_four("icl_gain"),
    ),
    Arm(
        name="select-question",
        about="of four answers the one that is most about its question",
        overrides=_best_of_four("question"),
    ),
    Arm(
        name="select-agree",
        about="of four answers the one that is most like the others",
        overrides=_best_of_four("agree"),
    ),
    Arm(
        name="select-seeds",
        about="of four answers the one that makes seeds' answers likeliest as a demonstration",
        overrides=_best_of_four("seeds"),
    ),
    Arm(
        name="anchors",
        about="one row in five of a training is the untuned model's own answer to an everyday question",
        overrides={"train.anchors": 0.2},
        steps_of=REFERENCE,
    ),
    Arm(
        name="seed-weight",
        about="a seed's answer counts four times as much in training as a generated one",
        overrides={"train.seed_weight": 4.0},
    ),
    Arm(
        name="no-kinds",
        about="questions follow seeds of any kind, and answers are kept of whatever kind they are",
        overrides={"questions.focus": "uniform", "filters.kind": False},
    ),
    Arm(
        name="score-weights",
        about="generated pairs count in training by how much their answers are about their questions",
        overrides={"train.weights": "question", "select.scores": _scores},
    ),
    Arm(
        name="dpo",
        about="the recipe, and after each fine-tuning accepted answers preferred to the model's own zero-shot ones",
        overrides={"prefer.method": "dpo"},
    ),
    Arm(
        name="spin",
        about="fine-tuned on the seeds once; then their answers are preferred to the last model's own, again and again",
        overrides={**_NO_READER, "generate.accept": 0, "train.start": "last", "prefer.method": "spin"},
    ),
    Arm(
        name="ssd",
        about="trained on raw zero-shot answers of the base model to the questions it makes, without the seeds",
        overrides={
            **_ONE_SHOT,
            **_ANY_ANSWER,
            **_NO_READER,
            **_NO_PREFERENCE,
            **_NO_SELECTION,
            "answers.retrieve": "none",
            "train.data": "generated",
        },
    ),
    Arm(
        name="self-instruct",
        about="all questions go on from a numbered list under a header, and are answered zero-shot",
        overrides={
            **_ONE_SHOT,
            **_NO_READER,
            "questions.choice": "sampled",
            "questions.demos": 8,
            "questions.temperature": 0.7,
            "questions.top_p": 0.5,
            **_NO_PREFERENCE,
            **_NO_CHECK,
            **_NO_SELECTION,
            "answers.retrieve": "none",
            "filters.novelty": 0.7,
        },
        part=others.by_task_lists,
        instructions=True,
    ),
    Arm(
        name="self-align",
        about="answers follow six principles and the nearest pairs; trained without the principles",
        overrides=_NO_CHECK,
        part=others.after_principles,
        instructions=True,
    ),
    Arm(
        name="i-sheep",
        about="answers zero-shot, keeps what the model itself rates high, trains on the newest",
        overrides={
            **_NO_READER,
            **_NO_PREFERENCE,
            **_NO_CHECK,
            **_NO_SELECTION,
            "answers.retrieve": "none",
            "train.data": "newest",
        },
        steps_of=REFERENCE,
        part=others.self_scored,
        instructions=True,
    ),
    Arm(
        name="humpback",
        about="keeps what the model itself rates high, with tags for seed and generated pairs",
        overrides={**_NO_PREFERENCE, **_NO_CHECK},
        part=others.curated,
        instructions=True,
    ),
)
