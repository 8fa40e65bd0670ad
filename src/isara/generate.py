"""One batch of candidates: questions, their filters, answers from the nearest demonstrations, the pairs' filters."""

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from isara.data import QAPair
from isara.errors import ModelError
from isara.pool import Pool, sample_neighbours
from isara.prompts import PromptFormat, answer_prompt, fit_demos, question_prompt
from isara.protocols import Candidate, Completion, Engine, Filter, Rejection, Sampling

LEAST_PROMPT = 16  # tokens; with less room, no question fits, let alone a demonstration


@dataclass(frozen=True, slots=True)
class Generation:
    """How candidates are made. What the paper does not state is our choice; docs/algorithm.md gives the reasons.

    Attributes:
        accept: N, pairs to accept in an iteration.
        batch: Questions asked for at a time; what is on disk grows by whole batches.
        max_batches: Batches after which an iteration gives up; None is 12 times what would do if every row passed.
        min_yield: Share of accepted rows, after two batches, below which an iteration gives up.
        question_demos: Demonstrations in a question prompt.
        question_choice: "sampled" draws them at random, "neighbours" one at random and its nearest.
        per_prompt: Questions sampled from one prompt.
        question_sampling: How questions are drawn.
        answer_demos: k, the nearest pairs shown before a question.
        answer_sampling: How answers are drawn.
        seed: The run's random seed.
    """

    accept: int = 256
    batch: int = 64
    max_batches: int | None = None
    min_yield: float = 0.02
    question_demos: int = 8
    question_choice: Literal["sampled", "neighbours"] = "sampled"
    per_prompt: int = 4
    question_sampling: Sampling = field(default_factory=partial(Sampling, 1.0, 0.95, 96))
    answer_demos: int = 5
    answer_sampling: Sampling = field(default_factory=partial(Sampling, 0.5, 0.95, 256))
    seed: int = 0

    @property
    def most_batches(self) -> int:
        """Batches after which an iteration gives up."""
        return self.max_batches or 12 * math.ceil(self.accept / self.batch)


@dataclass(slots=True)
class Row:
    """One candidate with everything that made it; a line of candidates.jsonl."""

    batch: int
    batch_size: int
    iteration: int
    weights: str
    question: str
    question_prompt: str
    question_demo_ids: tuple[str, ...]
    question_seed: int
    question_completion: Completion
    answer: str = ""
    answer_prompt: str | None = None
    demo_ids: tuple[str, ...] = ()
    demo_similarities: tuple[float, ...] = ()
    answer_seed: int | None = None
    answer_completion: Completion | None = None
    rejection: Rejection | None = None

    @property
    def pair(self) -> QAPair:
        """The candidate as a pair; its answer is empty while there is none."""
        return QAPair(self.question, self.answer, self.iteration, self.demo_ids)

    @property
    def candidate(self) -> Candidate:
        """What a filter gets to see."""
        return Candidate(self.pair, self.question_completion, self.answer_completion)

    def to_json(self) -> dict[str, Any]:
        """The row as it is stored; the completions' texts are left out, being the question and the answer."""
        row = {"id": self.pair.id, "accepted": self.rejection is None, **asdict(self)}
        for name in ("question_completion", "answer_completion"):
            completion = row.pop(name)
            prefix = name.removesuffix("completion")
            row[prefix + "tokens"] = completion["tokens"] if completion else None
            row[prefix + "finish"] = completion["finish"] if completion else None
        return row


def generate_batch(
    engine: Engine,
    *,
    weights: str,
    demonstrations: Pool,
    retrieval: Pool,
    kept: Pool,
    iteration: int,
    batch: int,
    need: int,
    options: Generation,
    question_filters: Sequence[Filter],
    pair_filters: Sequence[Filter],
) -> list[Row]:
    """The rows of one batch, accepted and rejected; accepted pairs are added to `kept`.

    Args:
        engine: M_{t-1}, opened.
        weights: Hash of its weights, stored with each row.
        demonstrations: D_{t-1}, from which question demonstrations are drawn.
        retrieval: Where the nearest demonstrations for an answer are looked up.
        kept: Seeds and everything accepted so far.
        iteration: t, from 1.
        batch: Number of the batch within the iteration, from 0.
        need: How many pairs are still to be accepted; passing rows beyond it are rejected as "surplus".
        options: How candidates are made.
        question_filters: Run before an answer is paid for.
        pair_filters: Run on question and answer.
    """
    rows = ask(engine, weights, demonstrations, iteration, batch, options)
    filter_questions(rows, kept, question_filters)
    show_demonstrations([row for row in rows if row.rejection is None], engine, retrieval, options)
    answer([row for row in rows if row.rejection is None], engine, options, batch)
    _resolve_near_ids(rows)
    filter_pairs([row for row in rows if row.rejection is None], kept, pair_filters, need)
    return rows


def ask(
    engine: Engine, weights: str, demonstrations: Pool, iteration: int, batch: int, options: Generation
) -> list[Row]:
    """Step 1: the model goes on with the next question after demonstrations drawn from D_{t-1}."""
    prompts, demos = draw_question_prompts(engine, demonstrations, iteration, batch, options)
    seeds = [stream(options.seed, iteration, "question", batch, index) for index in range(options.batch)]
    completions = engine.generate(prompts, with_stops(options.question_sampling, engine.format.question_stops), seeds)
    return [
        Row(
            batch=batch,
            batch_size=len(prompts),
            iteration=iteration,
            weights=weights,
            question=completion.text.strip(),
            question_prompt=prompt,
            question_demo_ids=tuple(pair.id for pair in shown),
            question_seed=seed,
            question_completion=completion,
        )
        for prompt, shown, seed, completion in zip(prompts, demos, seeds, completions, strict=True)
    ]


def draw_question_prompts(
    engine: Engine, demonstrations: Pool, iteration: int, batch: int, options: Generation
) -> tuple[list[str], list[Sequence[QAPair]]]:
    """`options.batch` prompts, each repeated `per_prompt` times, and the demonstrations each of them shows."""
    prompts: list[str] = []
    shown: list[Sequence[QAPair]] = []
    budget = _room(engine, options.question_sampling, "questions")
    for index in range(math.ceil(options.batch / options.per_prompt)):
        rng = random.Random(stream(options.seed, iteration, "demonstrations", batch, index))
        draw = sample_neighbours if options.question_choice == "neighbours" else Pool.sample
        demos = draw(demonstrations, options.question_demos, rng)
        demos = fit_demos(partial(question_prompt, engine.format), demos, engine.count_tokens, budget)
        prompts += [question_prompt(engine.format, demos)] * options.per_prompt
        shown += [demos] * options.per_prompt
    return prompts[: options.batch], shown[: options.batch]


def filter_questions(rows: Sequence[Row], kept: Pool, filters: Iterable[Filter]) -> None:
    """Step 2: marks the rows whose question fails, against everything kept and the questions before it in the batch."""
    # A copy, so that a question whose answer fails later does not stay among the kept ones.
    pending = Pool(kept.embedder, kept.pairs)
    filters = list(filters)
    for row in rows:
        row.rejection = first_rejection(row, pending, filters)
        if row.rejection is None:
            pending.add([row.pair])


def show_demonstrations(rows: Sequence[Row], engine: Engine, retrieval: Pool, options: Generation) -> None:
    """Step 3a: gives each row the prompt of its answer, with its k nearest demonstrations, nearest last."""
    budget = _room(engine, options.answer_sampling, "answers")
    for row in rows:
        alone = engine.count_tokens([answer_prompt(engine.format, (), row.question)])[0]
        if alone > budget:
            row.rejection = Rejection("context_length", alone, budget)
            continue
        found = retrieval.nearest(row.question, options.answer_demos)
        render = partial(_answer_prompt, engine.format, row.question)
        demos = fit_demos(render, [pair for pair, _ in found], engine.count_tokens, budget)
        row.answer_prompt = render(demos)
        row.demo_ids = tuple(pair.id for pair in demos)
        row.demo_similarities = tuple(round(similarity, 6) for _, similarity in found[len(found) - len(demos) :])


def answer(rows: Sequence[Row], engine: Engine, options: Generation, batch: int) -> None:
    """Step 3b: answers the rows' prompts."""
    for row in rows:
        row.answer_seed = stream(options.seed, row.iteration, "answer", batch, row.question_seed)
    completions = engine.generate(
        [row.answer_prompt or "" for row in rows],
        with_stops(options.answer_sampling, engine.format.answer_stops),
        [row.answer_seed or 0 for row in rows],
    )
    for row, completion in zip(rows, completions, strict=True):
        row.answer, row.answer_completion = completion.text.strip(), completion


def filter_pairs(rows: Iterable[Row], kept: Pool, filters: Iterable[Filter], need: int) -> None:
    """Step 4: marks the rows whose pair fails and adds the others to `kept`, `need` of them at most."""
    filters = list(filters)
    for row in rows:
        row.rejection = first_rejection(row, kept, filters) if need else Rejection("surplus")
        if row.rejection is None:
            kept.add([row.pair])
            need -= 1


def first_rejection(row: Row, pool: Pool, filters: Iterable[Filter]) -> Rejection | None:
    """What the first filter that objects says, or None."""
    candidate = row.candidate
    return next((rejection for check in filters if (rejection := check(candidate, pool)) is not None), None)


def stream(*parts: int | str) -> int:
    """A 63-bit random seed that depends on nothing but its parts: each draw can be made again by itself."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def with_stops(sampling: Sampling, stops: tuple[str, ...]) -> Sampling:
    """The sampling with the format's stop strings after the user's own."""
    return Sampling(sampling.temperature, sampling.top_p, sampling.max_new_tokens, (*sampling.stop, *stops))


def _room(engine: Engine, sampling: Sampling, stage: str) -> int:
    """Tokens that a prompt may have beside the longest completion."""
    room = engine.context_length - sampling.max_new_tokens
    if room < LEAST_PROMPT:
        raise ModelError(
            f"expected room for a prompt of at least {LEAST_PROMPT} tokens, found {max(room, 0)}: of the model's "
            f"context of {engine.context_length} tokens {stage}.max_new_tokens has {sampling.max_new_tokens}; lower it"
        )
    return room


def _answer_prompt(fmt: PromptFormat, question: str, demos: Sequence[QAPair]) -> str:
    return answer_prompt(fmt, demos, question)


def _resolve_near_ids(rows: Sequence[Row]) -> None:
    """Lets rows that were too near to a question of their own batch name that question's pair, answer included."""
    named = {QAPair(row.question, "").id: row.pair.id for row in rows if row.rejection is None}
    for row in rows:
        if row.rejection and row.rejection.near_id in named:
            old = row.rejection
            row.rejection = Rejection(old.reason, old.value, old.threshold, named[old.near_id or ""])
