"""The stages of a run: what each depends on, the work that makes it, and what is read from it when it is done."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from isara.asking import AnsweringEvaluator, Asker, ItemEvaluator
from isara.config import Config
from isara.evaluate.run import RunEvaluator
from isara.files import damaged, json_lines, read_json, read_rows, value_hash, write_json, write_text
from isara.folder import RunFolder, model_hash, stage_folder
from isara.generate import Making, stream, whole_batches
from isara.keys import leaves, part_key
from isara.parts import Parts
from isara.pool import Pool, ids_hash, other_retriever, retriever
from isara.preference import ask_alone, check_enough, read_preferences
from isara.protocols import SteppedTrainer, TaughtTrainer, Trainer
from isara.records import READER, HeldoutRow, Preference, QAPair, Sampling
from isara.selection.weights import weights
from isara.training.anchors import FILE as ANCHORS
from isara.watching import Watcher

log = logging.getLogger("isara")

EXAMPLES = 3  # held-out questions that every model answers, for a reader to judge by himself


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the run: where it lies, and the hash of what lies there."""

    path: str
    weights: str


@dataclass(frozen=True, slots=True)
class PreferenceStep:
    """What the preference step of an iteration learns from.

    Attributes:
        t: The iteration, from 1.
        pairs: Questions with the answers to prefer.
        opponent: The model whose own answers to them are not preferred.
        earlier: Preferences of earlier iterations.
    """

    t: int
    pairs: Sequence[QAPair]
    opponent: Model
    earlier: Sequence[Preference] = ()


class Keys:
    """The keys of a run's stages: everything that a stage's files depend on, JSON-ready.

    Args:
        parts: What the run is made of.
        parts_keys: `parts.keys()`.
    """

    def __init__(self, parts: Parts, parts_keys: Mapping[str, Any]) -> None:
        self.parts, self.config, self._keys = parts, parts.config, parts_keys
        self.weights = str(parts_keys["hash of the base model's weights"])

    def evaluate(self, model: Model, *, shown: bool = False) -> dict[str, Any]:
        """Of the figures of a model; of one that is asked after demonstrations alone, which is `shown` them."""
        return {
            **({"after demonstrations": True} if shown else {}),
            "weights": model.weights,
            **self._of("prompt format", "engine", "evaluator"),
            **({"engine": self._keys["evaluation engine"]} if "evaluation engine" in self._keys else {}),
            "examples": [pair.id for pair in self.parts.heldout[:EXAMPLES]],
            "max_new_tokens": self.config.answers.max_new_tokens,
        }

    def generate(self, making: Making) -> dict[str, Any]:
        """Of the pairs of an iteration."""
        config = self.config
        return {
            "iteration": making.t,
            "weights": making.weights,
            **self._of("prompt format", "engine", "embedder", "question filters", "pair filters"),
            "seed": config.seed,
            "questions": config.questions.model_dump(),
            "answers": config.answers.model_dump(),
            "accept": config.generate.accept,
            "batch": config.generate.batch,
            "select": config.select.model_dump(),
            "seeds": ids_hash(making.seeds),
            "base": self.weights if making.base is not None and reads_base(config) else None,
            "question weights": making.question_weights,
            **({"checker weights": making.checker_weights} if making.checker_weights is not None else {}),
            "demonstrations": ids_hash(making.demonstrations),
            "retrieval": ids_hash(making.source),
            **({"generation": self._keys["generation"]} if "generation" in self._keys else {}),
        }

    def train(
        self, data: Sequence[QAPair], start: Model, trainer: Trainer | None = None, teacher: Model | None = None
    ) -> dict[str, Any]:
        """Of a fine-tuned model; None for the run's own trainer, and for a teacher that is the start."""
        weighed = any(pair.weight != 1.0 for pair in data)
        shown = {pair.id: pair.untrained for pair in data if pair.untrained}
        return {
            "start": start.weights,
            "pairs": [pair.id for pair in data],
            **({"answers that are not trained on": shown} if shown else {}),
            **({"weights of pairs": [pair.weight for pair in data]} if weighed else {}),
            **({} if teacher is None else {"teacher": teacher.weights}),
            **self._of("trainer", "prompt format"),
            **({} if trainer is None else {"trainer": part_key(trainer)}),
        }

    def prefer(self, step: "PreferenceStep", start: Model) -> dict[str, Any]:
        """Of a model that was trained on preferences."""
        return {
            "start": start.weights,
            "iteration": step.t,
            "pairs": [pair.id for pair in step.pairs],
            "answered alone by": step.opponent.weights,
            "earlier": value_hash([each.to_json() for each in step.earlier]),
            "seed": self.config.seed,
            "sampling": asdict(self.config.answers.sampling),
            "batch": self.config.generate.batch,
            **self._of("preference", "prompt format", "engine"),
        }

    def _of(self, *names: str) -> dict[str, Any]:
        return {name: self._keys[name] for name in names}


def claim(folder: RunFolder, parts: Parts) -> Keys:
    """Makes the folder the run of these parts, or checks that it is; the keys of its stages.

    Raises:
        RunError: The folder holds something else.
    """
    keys = parts.keys()
    record = {"parts": keys, "versions": dict(parts.versions)}
    folder.claim(parts.config.model_dump(mode="json"), record, parts.seeds, parts.heldout)
    for note in parts.notes:
        log.info("%s", note)
    return Keys(parts, keys)


def reads_base(config: Config) -> bool:
    """Whether pairs depend on the base model beside the one that answers."""
    return config.questions.from_ == "base" or "natural" in config.select.measured


def steps(parts: Parts, t: int, model: Model, pool: Pool, base: tuple[Asker, str] | None = None) -> Making:
    """What the candidates of iteration t are made with, from M_{t-1} and D_{t-1}.

    Args:
        parts: What the run is made of.
        t: The iteration, from 1.
        model: M_{t-1}.
        pool: D_{t-1}.
        base: M_0 and the hash of its weights; None where M_{t-1} is M_0.
    """
    config, answers, asks = parts.config, parts.config.answers, parts.config.questions.from_ == "base"
    source = Pool(parts.embedder, parts.seeds) if config.retrieve.pool == "seeds" else pool
    return Making(
        t,
        model.weights,
        pool,
        source,
        retriever(source, answers.retrieve, answers.demos, config.seed),
        config,
        parts.question_filters,
        parts.pair_filters,
        base[0] if base else None,
        base[0] if base and asks else None,
        base[1] if base and asks else None,
        parts.seeds,
        other_retriever(source, answers.retrieve, answers.demos, config.seed)
        if config.filters.least_agreement
        else None,
    )


def measure(parts: Parts, asker: Asker, t: int, watcher: Watcher, folder: Path) -> None:
    """The work of evaluate: figures of M_t, what each held-out pair has shown, answers to a few held-out questions.

    Of the READER, what it shows after demonstrations.
    """
    if parts.measured_by is not None:
        with parts.measurer(asker.model) as other:
            return measure(replace(parts, engine=parts.measured_by, measured_by=None), other, t, watcher, folder)
    evaluator, figures = parts.evaluator, dict[str, float]()
    if t == READER:
        assert isinstance(evaluator, RunEvaluator), "who measures the reader"
        watcher.stage(t, "evaluate", evaluator.count_shown())
        items, figures = evaluator.measure_shown(asker)
        write_text(folder / "items.jsonl", json_lines(map(asdict, items)))
        write_json(folder / "eval.json", figures)
        write_json(folder / "examples.json", {"rows": []})  # it isn't meant to be asked alone
        return None
    if evaluator is not None:
        watcher.stage(
            t, "evaluate", evaluator.count_answers(t == 0) if isinstance(evaluator, AnsweringEvaluator) else 0
        )
    if isinstance(evaluator, ItemEvaluator):
        items, figures = evaluator.measure(asker, base=t == 0)
        write_text(folder / "items.jsonl", json_lines(map(asdict, items)))
    elif evaluator is not None:
        figures = evaluator(asker)
    write_json(folder / "eval.json", figures)
    shown = parts.heldout[:EXAMPLES]
    sampling = Sampling(0.0, 1.0, parts.config.answers.max_new_tokens)
    draws = asker.answers(shown, sampling, [stream(0, "answer", pair.question) for pair in shown])
    rows = [
        {"question": pair.question, "wanted": pair.answer, "answer": draw.text if draw else ""}
        for pair, draw in zip(shown, draws, strict=True)
    ]
    write_json(folder / "examples.json", {"rows": rows})


def fit(trainer: Trainer, t: int, data: Sequence[QAPair], start: Model, watcher: Watcher, folder: Path) -> None:
    """The work of train: model/ and train.json."""
    watcher.stage(t, "train", 0)
    write_json(folder / "train.json", asdict(trainer.fit(data, start.path, folder / "model")))
    anchors = folder / "model" / ANCHORS
    if anchors.exists():  # no part of the model that is exported
        anchors.rename(folder / ANCHORS)


def earlier_preferences(parts: Parts, t: int) -> list[Preference]:
    """The preferences of earlier iterations that iteration t learns from, too.

    With `spin` those of the last one, as in its authors' code; else those of all, as far as `train.data` has them.
    """
    config = parts.config
    first = t - 1 if config.prefer.method == "spin" else t if config.train.data == "newest" else 1
    folders = [stage_folder(parts.out, number, "prefer") for number in range(max(1, first), t)]
    return [each for folder in folders for each in read_preferences(folder)]


def prefer(parts: Parts, step: PreferenceStep, start: Model, watcher: Watcher, folder: Path) -> None:
    """The work of prefer: contrast.jsonl, then model/ and prefer.json."""
    assert parts.preference is not None, "the stage has a trainer"
    watcher.stage(step.t, "prefer", 0)
    with parts.asker(step.opponent.path) as asker:
        ask_alone(asker, step.pairs, parts.config, step.t, step.opponent.weights, watcher, folder)
    preferences = [*step.earlier, *read_preferences(folder)]
    check_enough(preferences, len(step.earlier) + len(step.pairs), step.t)
    watcher.stage(step.t, "prefer", 0)  # the training begins, unless a budget was spent on the answers
    write_json(folder / "prefer.json", asdict(parts.preference.prefer(preferences, start.path, folder / "model")))


def has_baseline(parts: Parts) -> bool:
    """Whether the seeds-only model is measured: it is wanted, it can be, and it isn't what iteration 1 is."""
    options = parts.config
    return options.evaluate.seeds_only and parts.evaluator is not None and options.generate.accept > 0


def has_measured_reader(parts: Parts) -> bool:
    """Whether the reader is measured: there is one, pairs are shown to it, and what measures can do so."""
    options = parts.config
    return (
        options.evaluate.reader
        and options.evaluate.demos > 0
        and parts.reader is not None
        and isinstance(parts.evaluator, RunEvaluator)
        and options.generate.accept > 0
    )


def taught(trainer: Trainer, teacher: Model) -> Trainer:
    """The trainer with another teacher than the start."""
    if isinstance(trainer, TaughtTrainer):
        return trainer.with_teacher(teacher.path)
    log.warning(
        "the model that answered does not teach `train.loss: distil`: %s has no method `with_teacher`",
        type(trainer).__qualname__,
    )
    return trainer


def stepped(trainer: Trainer, folder: Path) -> Trainer:
    """The trainer with as many optimiser steps as the finished training in a folder has taken."""
    if isinstance(trainer, SteppedTrainer):
        return trainer.with_steps(int(read_json(folder / "train.json")["steps"]))
    log.warning(
        "the seeds-only model is trained with the trainer's own number of steps: %s has no method `with_steps`",
        type(trainer).__qualname__,
    )
    return trainer


def trained(folder: Path) -> Model:
    """The model of a finished training."""
    return Model(str(folder / "model"), model_hash(folder))


def read_accepted(folder: Path, by: str = "none") -> list[QAPair]:
    """The accepted pairs of a finished generation, weighted by a score where there is one to weigh by."""
    pairs = [QAPair.from_json(row) for row in read_rows(folder / "accepted.jsonl")]
    if by == "none":
        return pairs
    rows = [row for row in whole_batches(folder / "candidates.jsonl") if row["accepted"]]
    scores = [row["answer_draws"][row["chosen"]].get("scores", {}).get(by) for row in rows]
    return [replace(pair, weight=weight) for pair, weight in zip(pairs, weights(scores), strict=True)]


def read_figures(folder: Path) -> dict[str, float]:
    """The figures of a finished evaluation."""
    figures = read_json(folder / "eval.json")
    if not all(isinstance(value, int | float) for value in figures.values()):
        raise damaged(folder / "eval.json")
    return {name: float(value) for name, value in figures.items()}


def stage_figures(path: Path) -> dict[str, float]:
    """Every number in a finished stage's record, by its dotted name."""
    numbers = ((name, value) for name, value in leaves(read_json(path)) if not isinstance(value, bool))
    return {name: float(value) for name, value in numbers if isinstance(value, int | float)}


def read_items(folder: Path) -> tuple[HeldoutRow, ...]:
    """What each held-out pair has shown in a finished evaluation; nothing where pairs were not measured one by one."""
    path = folder / "items.jsonl"
    if not path.exists():
        return ()
    try:
        return tuple(map(HeldoutRow.from_json, read_rows(path)))
    except ValueError:
        raise damaged(path) from None
