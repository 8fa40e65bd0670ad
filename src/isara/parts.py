"""Everything that a run is made of, as one value: `dataclasses.replace(parts, engine=mine)` reaches every verb."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from isara.asking import Asker, Evaluator
from isara.config import Config
from isara.data import as_pairs
from isara.generate import Making, make_pairs
from isara.keys import part_key
from isara.models import weights_hash
from isara.protocols import Embedder, EngineFactory, Filter, PreferenceTrainer, Trainer
from isara.records import QAPair
from isara.render import Renderer
from isara.watching import Watcher

# Gives the text files (by name) that go into final/ beside the model of an iteration.
Cards: TypeAlias = Callable[[Path, int], Mapping[str, str]]
# The work of an iteration's generation, as `isara.generate.make_pairs` does it.
Make: TypeAlias = Callable[[Asker, Making, Watcher, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run is made of.

    Attributes:
        config: Every option.
        seeds: D_0, the seed pairs; dicts with `question` and `answer` will do.
        model: M_0, a model folder or name that `engine` and `trainer` understand.
        renderer: Makes its prompts.
        engine: Opens a model for generation.
        embedder: Gives the vectors for retrieval; wrap it in `CachedEmbedder` unless it is cheap.
        trainer: Fine-tunes a model on pairs.
        heldout: The pairs that are measured on, likewise; the loop never sees them otherwise.
        evaluator: Measures M_0 and each M_t; its "bits_per_byte" picks the best and stops the run. None: the last is
            best.
        question_filters: Applied to questions before they are answered.
        pair_filters: Applied to pairs.
        weights: Gives the hash of M_0's weights.
        cards: Gives what goes into final/ beside the model.
        versions: Of libraries; a run that goes on with others only remarks on it.
        page: Writes what people look at into the run folder, as it stands.
        reader: Tunes M_0 on the seeds, each after its nearest others, to read demonstrations; what it makes answers in
            the place of M_{t-1} then. None: M_{t-1} answers.
        questioner: Tunes M_0 on the seeds to go on with the next pair; what it makes asks in the place of M_{t-1} then.
            None: M_{t-1} asks, or who the config says.
        checker_steps: Optimiser steps that `trainer` takes on the seeds alone for the model that gives second answers.
            None: there are none, or who gave the first gives them.
        preference: Trains each iteration's model on preferences, after its fine-tuning. None: it stays as it is.
        notes: Lines for the log, such as which settings follow the model's size.
        make: Makes an iteration's pairs. What isn't the loop's own is a part of the key.
        measured_by: Opens a model for evaluation, where that isn't `engine`.
    """

    config: Config
    seeds: Sequence[QAPair]
    model: str
    renderer: Renderer
    engine: EngineFactory
    embedder: Embedder
    trainer: Trainer
    heldout: Sequence[QAPair] = ()
    evaluator: Evaluator | None = None
    question_filters: Sequence[Filter] = ()
    pair_filters: Sequence[Filter] = ()
    weights: Callable[[str], str] = weights_hash
    cards: Cards | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    make: Make = make_pairs
    reader: Trainer | None = None
    questioner: Trainer | None = None
    checker_steps: int | None = None
    preference: PreferenceTrainer | None = None
    page: Callable[[Path], None] | None = None
    measured_by: EngineFactory | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "heldout"):
            object.__setattr__(self, name, as_pairs(getattr(self, name)))

    @property
    def out(self) -> Path:
        """The run folder."""
        return Path(self.config.out)

    def asker(self, model: str) -> Asker:
        """A model of this run that can be asked; nothing is loaded before it is."""
        return Asker(self.engine, model, self.renderer)

    def measurer(self, model: str) -> Asker:
        """The same for evaluation."""
        return Asker(self.measured_by or self.engine, model, self.renderer)

    def keys(self) -> dict[str, Any]:
        """What decides beside config and pairs, by the name of the part.

        Raises:
            ConfigError: A part of the user's that a resumed run could not know again.
        """
        own = {} if self.make is make_pairs else {"generation": part_key(self.make)}
        return {
            "hash of the base model's weights": self.weights(self.model),
            "prompt format": part_key(self.renderer),
            "engine": part_key(self.engine),
            "embedder": part_key(self.embedder),
            "trainer": part_key(self.trainer),
            "question filters": [part_key(check) for check in self.question_filters],
            "pair filters": [part_key(check) for check in self.pair_filters],
            "evaluator": part_key(self.evaluator) if self.evaluator else None,
            **({"reader": part_key(self.reader)} if self.reader else {}),
            **({"questioner": part_key(self.questioner)} if self.questioner else {}),
            **({"checker": self.checker_steps} if self.checker_steps else {}),
            **({"preference": part_key(self.preference)} if self.preference else {}),
            **({"evaluation engine": part_key(self.measured_by)} if self.measured_by else {}),
            **own,
        }
