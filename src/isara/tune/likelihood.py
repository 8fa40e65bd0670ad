"""Leave-one-out likelihood: what each seed's answer costs after its nearest *other* seeds, in bits per byte."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from isara.asking import Asker
from isara.generate import stream
from isara.pool import Pool, RetrieveKind, retriever
from isara.protocols import Embedder
from isara.records import Prompt, QAPair
from isara.render import Renderer
from isara.statistics import Difference, paired_difference


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a setting, measured on seeds.

    Attributes:
        setting: The key of a config, or what is varied where no key says it.
        value: The value.
        bits: Bits per byte of each measured seed's answer, in the order of the seeds.
        tokens: Tokens of all prompts: what it costs.
        fewer: Prompts with fewer demonstrations than were retrieved, as the model's context has no room for all.
    """

    setting: str
    value: str | int | float
    bits: tuple[float, ...]
    tokens: int
    fewer: int = 0

    @property
    def mean(self) -> float:
        """Mean bits per byte: every seed counts alike, so that differences can be paired."""
        return float(np.mean(self.bits))

    def less(self, other: "Choice") -> Difference:
        """How many bits per byte it takes more (above 0) or less than another choice, over the same seeds."""
        return paired_difference(self.bits, other.bits)


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Measures choices, each seed's answer after demonstrations from the other seeds.

    Attributes:
        asker: The model.
        seeds: All seeds, which demonstrations are retrieved from.
        measured: The seeds whose answers are measured.
        seed: Of random draws.
        told: Is called with the number of prompts that have been measured.
    """

    asker: Asker
    seeds: Sequence[QAPair]
    measured: Sequence[QAPair]
    seed: int
    told: Callable[[int], None]

    def choice(
        self,
        setting: str,
        value: str | int | float,
        embedder: Embedder,
        demos: int,
        *,
        kind: RetrieveKind = "nearest",
        renderer: Renderer | None = None,
        within: int | None = None,
    ) -> Choice:
        """A value of a setting, measured.

        Args:
            setting: Which.
            value: Its value.
            embedder: Finds the nearest seeds.
            demos: k.
            kind: As `answers.retrieve`.
            renderer: Makes the prompts; None is the asker's.
            within: Retrieves from so many of the seeds, drawn at random; None from all.
        """
        rendered = renderer or self.asker.renderer
        pool = Pool(embedder, self.seeds)
        prompts, answers, fewer = [], [], 0
        for pair in self.measured:
            source = pool if within is None else Pool(embedder, self._some(pair, within))
            shown = [demo for demo, _ in retriever(source, kind if demos else "none", demos, self.seed)(pair)]
            prompt, fitting = _prompt(rendered, pair, shown)
            fewer += len(fitting) < len(shown)
            prompts.append(prompt)
            answers.append(rendered.answer_ids(prompt, pair.answer))
        found = self.asker.logprobs(prompts, answers)
        self.told(len(prompts))
        bits = [
            -each / math.log(2) / len(pair.answer.encode()) for each, pair in zip(found, self.measured, strict=True)
        ]
        return Choice(setting, value, tuple(bits), sum(len(prompt.ids) for prompt in prompts), fewer)

    def _some(self, pair: QAPair, count: int) -> list[QAPair]:
        """So many of the other seeds; fewer are among more, so that only their number changes."""
        others = [other for other in self.seeds if other.id != pair.id]
        rng = random.Random(stream(self.seed, "tune", pair.question))
        places = rng.sample(range(len(others)), len(others))[:count]
        return [others[place] for place in sorted(places)]


def sample(seeds: Sequence[QAPair], most: int, seed: int) -> list[QAPair]:
    """At most so many seeds, drawn at random, in their order."""
    places = random.Random(stream(seed, "tune", "sample")).sample(range(len(seeds)), min(most, len(seeds)))
    return [seeds[place] for place in sorted(places)]


def _prompt(renderer: Renderer, pair: QAPair, shown: Sequence[QAPair]) -> tuple[Prompt, Sequence[QAPair]]:
    size = len(renderer.answer_ids(renderer.answer((), pair), pair.answer))
    found = renderer.fit(partial(_rendered, renderer, pair), shown, renderer.context_length - size)
    assert found is not None, "the seeds were checked against the context"
    return found


def _rendered(renderer: Renderer, pair: QAPair, demos: Sequence[QAPair]) -> Prompt:
    return renderer.answer(demos, pair)
