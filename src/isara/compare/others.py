"""What other methods do where ISARA's loop generates: each is the loop's own step with its prompts or filters changed.

A generation of one's own is a class that is called like `isara.generate.make_pairs`, and ends in calling it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from isara.asking import Asker
from isara.compare.prompts import PRINCIPLES, URIAL, Like, Preamble, Tagged, TaskList
from isara.compare.trainers import TaggedSources
from isara.generate import Making, make_pairs, stream, whole_batches
from isara.parts import Parts
from isara.pool import Pool
from isara.records import Candidate, Draw, Prompt, QAPair, Rejection, Sampling
from isara.render import Renderer
from isara.watching import Watcher

GENERATED_TASKS = 2  # "6 human + 2 machine" of the 8 in a prompt


class _Opened:
    """An engine that asks through an asker, so that the same opened model can be asked with other prompts."""

    exact = True  # nobody asks it; the asker's own engine says it

    def __init__(self, asker: Asker) -> None:
        self.generate, self.logprobs = asker.generate, asker.logprobs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The asker closes its engine itself."""


def through(asker: Asker, renderer: Renderer) -> Asker:
    """The same opened model, asked with other prompts."""
    return Asker(lambda model: _Opened(asker), asker.model, renderer)


@dataclass(frozen=True)
class AfterPrinciples:
    """Generation whose answers follow a preamble; nothing else ever does, so the model is trained without it."""

    preamble: str

    def __call__(self, asker: Asker, making: Making, watcher: Watcher, folder: Path) -> None:
        """The work of generate."""
        make_pairs(through(asker, Preamble(asker.renderer, self.preamble)), making, watcher, folder)


class TaskAsker(Asker):
    """Asks for questions as Self-Instruct does; among those of a prompt are some of the accepted ones.

    Args:
        asker: The model.
        folder: Of the stage: what its whole batches hold as accepted is what has been generated.
        seed: Of the draws.
    """

    def __init__(self, asker: Asker, folder: Path, seed: int) -> None:
        super().__init__(lambda model: _Opened(asker), asker.model, TaskList(asker.renderer))
        self._folder, self._seed = folder, seed

    def questions(
        self, demos: Sequence[Sequence[QAPair]], sampling: Sampling, seeds: Sequence[int], room: int
    ) -> list[Draw]:
        """The next question of a list; two of the list are generated ones, as soon as there are any."""
        rows = whole_batches(self._folder / "candidates.jsonl")
        made = [QAPair.from_json(row) for row in rows if row["accepted"]]
        mixed: dict[int, Sequence[QAPair]] = {}  # one list serves several prompts, and they share their prefill
        for shown, seed in zip(demos, seeds, strict=True):
            if id(shown) not in mixed:
                rng = random.Random(stream(self._seed, "generated tasks", seed))
                drawn = rng.sample(made, min(GENERATED_TASKS, len(made), len(shown) - 1))
                listed = [*shown[len(drawn) :], *drawn]
                rng.shuffle(listed)
                mixed[id(shown)] = listed
        return super().questions([mixed[id(shown)] for shown in demos], sampling, seeds, room)


@dataclass(frozen=True)
class TaskLists:
    """Generation whose questions continue Self-Instruct's list."""

    def __call__(self, asker: Asker, making: Making, watcher: Watcher, folder: Path) -> None:
        """The work of generate."""
        make_pairs(TaskAsker(asker, folder, making.config.seed), making, watcher, folder)


@dataclass(frozen=True)
class Rating:
    """How a model is asked to rate a pair: a prompt with a place for each, and the grades from the worst.

    A grade is one digit, so that all cost as many tokens.
    """

    prompt: str
    grades: tuple[int, ...]

    def __call__(self, asker: Asker, pairs: Sequence[QAPair]) -> list[float]:
        """The mean grade of each pair, weighted by the model's probabilities of the grades (G-Eval, 2303.16634)."""
        prompts: list[Prompt] = []
        texts: list[tuple[int, ...]] = []
        for pair in pairs:
            form = self.prompt.format(question=pair.question, answer=pair.answer)
            prompt = asker.renderer.answer((), QAPair(form, ""))
            prompts += [prompt] * len(self.grades)
            texts += [asker.renderer.answer_ids(prompt, str(grade)) for grade in self.grades]
        logs = np.array(asker.logprobs(prompts, texts)).reshape(len(pairs), len(self.grades))
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        return [float(mean) for mean in (shares * self.grades).sum(axis=1) / shares.sum(axis=1)]


class SelfScore:
    """Drops pairs that their own model rates below most of the seeds.

    Args:
        asker: The model.
        rating: How it is asked.
        seeds: The seed pairs; a quarter of them would be dropped.
    """

    def __init__(self, asker: Asker, rating: Rating, seeds: Sequence[QAPair]) -> None:
        self._asker, self._rating = asker, rating
        self.least = round(float(np.quantile(rating(asker, seeds), 0.25)), 6)

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the grade and the least that passes."""
        [grade] = self._rating(self._asker, [candidate.pair])
        return Rejection("self_score", round(grade, 6), self.least) if round(grade, 6) < self.least else None


@dataclass(frozen=True)
class SelfScored:
    """Generation with a filter more: what the model thinks of its own pairs."""

    rating: Rating

    def __call__(self, asker: Asker, making: Making, watcher: Watcher, folder: Path) -> None:
        """The work of generate."""
        seeds = [pair for pair in making.demonstrations.pairs if not pair.iteration]
        # Without what an arm puts around its questions: the form stands by itself.
        check = SelfScore(through(asker, Like(asker.renderer)), self.rating, seeds)
        make_pairs(asker, replace(making, pair_filters=[*making.pair_filters, check]), watcher, folder)


# In the manner of I-SHEEP (2408.08072), which has grades up to 10 and keeps from 8, and of Humpback (2308.06259), which
# has 5 and keeps 4 or 5. The words are ours, and what passes is read off the seeds: a small model's grades mean little
# by themselves.
ISHEEP = Rating(
    "Here is an instruction with a response.\nInstruction: {question}\nResponse: {answer}\nHow good is the response, "
    "and how well does it follow the instruction? Reply with one digit, from 0 (useless) to 9 (perfect).",
    tuple(range(10)),
)
HUMPBACK = Rating(
    "Below are a question of a user and a candidate answer. Say on a scale of 5 points whether the answer is a good "
    "example of how an AI assistant should respond: 1 is incomplete or off the topic, 3 is helpful but not written as "
    "an assistant would, 5 is a perfect answer.\nQuestion: {question}\nAnswer: {answer}\nReply with the digit alone.",
    tuple(range(1, 6)),
)
SEED_TAG = "Answer in the style of the examples."
GENERATED_TAG = "Answer with what you have written yourself."


def after_urial(parts: Parts) -> Parts:
    """The parts whose every answer follows URIAL's preamble."""
    return replace(parts, renderer=Preamble(parts.renderer, URIAL))


def after_principles(parts: Parts) -> Parts:
    """The parts that generate after principles, and do nothing else after them."""
    return replace(parts, make=AfterPrinciples(PRINCIPLES))


def by_task_lists(parts: Parts) -> Parts:
    """The parts that make questions as Self-Instruct does."""
    return replace(parts, make=TaskLists())


def self_scored(parts: Parts) -> Parts:
    """The parts that keep what the model thinks well of."""
    return replace(parts, make=SelfScored(ISHEEP))


def curated(parts: Parts) -> Parts:
    """The parts with Humpback's curation, and with its tags: of the seeds wherever an answer is asked for."""
    return replace(
        parts,
        make=SelfScored(HUMPBACK),
        renderer=Tagged(parts.renderer, SEED_TAG),
        trainer=TaggedSources(parts.trainer, SEED_TAG, GENERATED_TAG),
    )
