"""The stages of a run: what each depends on, the work that makes it, and what is read from it when it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isara.asking import Asker
from isara.files import damaged, read_json, read_rows, write_json
from isara.folder import RunFolder, model_hash
from isara.generate import Making, stream
from isara.parts import Parts
from isara.pool import Pool, ids_hash, retriever
from isara.records import QAPair, Sampling
from isara.training.anchors import FILE as ANCHORS
from isara.watching import Watcher

EXAMPLES = 3  # held-out questions that every model answers, for a reader to judge by himself


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the run: where it lies, and the hash of what lies there."""

    path: str
    weights: str


class Keys:
    """The keys of a run's stages: everything that a stage's files depend on, JSON-ready.

    Args:
        parts: What the run is made of.
        parts_keys: `parts.keys()`.
    """

    def __init__(self, parts: Parts, parts_keys: Mapping[str, Any]) -> None:
        self.parts, self.config, self._keys = parts, parts.config, parts_keys
        self.weights = str(parts_keys["hash of the base model's weights"])

    def evaluate(self, model: Model) -> dict[str, Any]:
        """Of the figures of a model."""
        return {
            "weights": model.weights,
            **self._of("prompt format", "engine", "evaluator"),
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
            "demonstrations": ids_hash(making.demonstrations),
            "retrieval": making.retrieved_from,
        }

    def train(self, data: Sequence[QAPair], start: Model) -> dict[str, Any]:
        """Of a fine-tuned model."""
        return {
            "start": start.weights,
            "pairs": [pair.id for pair in data],
            **self._of("trainer", "prompt format"),
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
    return Keys(parts, keys)


def steps(parts: Parts, t: int, model: Model, pool: Pool) -> Making:
    """What the candidates of iteration t are made with, from M_{t-1} and D_{t-1}."""
    config, answers = parts.config, parts.config.answers
    source = Pool(parts.embedder, parts.seeds) if config.retrieve.pool == "seeds" else pool
    return Making(
        t,
        model.weights,
        pool,
        retriever(source, answers.retrieve, answers.demos, config.seed),
        ids_hash(source),
        config,
        parts.question_filters,
        parts.pair_filters,
    )


def measure(parts: Parts, asker: Asker, t: int, watcher: Watcher, folder: Path) -> None:
    """The work of evaluate: eval.json with the figures of M_t, and its answers to a few held-out questions."""
    if parts.evaluator is not None:
        watcher.stage(t, "evaluate", 0)
    write_json(folder / "eval.json", parts.evaluator(asker) if parts.evaluator is not None else {})
    shown = parts.heldout[:EXAMPLES]
    sampling = Sampling(0.0, 1.0, parts.config.answers.max_new_tokens)
    draws = asker.answers(shown, sampling, [stream(0, "answer", pair.question) for pair in shown])
    rows = [
        {"question": pair.question, "wanted": pair.answer, "answer": draw.text if draw else ""}
        for pair, draw in zip(shown, draws, strict=True)
    ]
    write_json(folder / "examples.json", {"rows": rows})


def fit(parts: Parts, t: int, data: Sequence[QAPair], start: Model, watcher: Watcher, folder: Path) -> None:
    """The work of train: model/ and train.json."""
    watcher.stage(t, "train", 0)
    write_json(folder / "train.json", asdict(parts.trainer.fit(data, start.path, folder / "model")))
    anchors = folder / "model" / ANCHORS
    if anchors.exists():  # no part of the model that is exported
        anchors.rename(folder / ANCHORS)


def trained(folder: Path) -> Model:
    """The model of a finished training."""
    return Model(str(folder / "model"), model_hash(folder))


def read_accepted(folder: Path) -> list[QAPair]:
    """The accepted pairs of a finished generation."""
    return [QAPair.from_json(row) for row in read_rows(folder / "accepted.jsonl")]


def read_figures(folder: Path) -> dict[str, float]:
    """The figures of a finished evaluation."""
    figures = read_json(folder / "eval.json")
    if not all(isinstance(value, int | float) for value in figures.values()):
        raise damaged(folder / "eval.json")
    return {name: float(value) for name, value in figures.items()}
