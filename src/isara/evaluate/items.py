"""The items that tasks are made of, which of them a limit takes, and what a model answers to them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from isara.errors import ModelError
from isara.pool import Pool
from isara.prompts import answer_prompt, fit_demos
from isara.protocols import Completion, Engine, Sampling


class Item(Protocol):
    """Something with an id that depends on its content alone."""

    @property
    def id(self) -> str:
        """12 hex digits; equal items have equal ids, wherever they were read from."""
        ...


T = TypeVar("T", bound=Item)


def content_id(*parts: object) -> str:
    """12 hex digits of the SHA-256 of JSON-ready values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def choose(items: Sequence[T], limit: int | None) -> list[T]:
    """The items without repeats, or the `limit` of them whose ids have the smallest SHA-256, in the order given.

    The choice depends on the items alone, so every model is measured on the same ones, and a larger limit adds to a
    smaller one's.
    """
    distinct = list({item.id: item for item in items}.values())
    if limit is None or limit >= len(distinct):
        return distinct
    ranked = sorted(distinct, key=lambda item: hashlib.sha256(item.id.encode()).hexdigest())
    taken = {item.id for item in ranked[:limit]}
    return [item for item in distinct if item.id in taken]


def pool_key(pool: Pool) -> str:
    """Changes whenever other demonstrations could be retrieved: with the pairs or with the embedder."""
    embedder = getattr(pool.embedder, "name", type(pool.embedder).__name__)
    return content_id(embedder, [pair.id for pair in pool.pairs])


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are put to a model: greedy, zero-shot or with the nearest pairs of a pool before each.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        demos: Demonstrations a prompt; the farthest are dropped where they don't fit.
        pool: Where they come from; None for zero-shot.
    """

    max_new_tokens: int = 256
    demos: int = 0
    pool: Pool | None = None

    def key(self) -> dict[str, object]:
        """What an answer depends on beside model and question."""
        retrieval = pool_key(self.pool) if self.pool and self.demos else None
        return {"max_new_tokens": self.max_new_tokens, "demos": self.demos, "retrieval": retrieval}

    def answers(self, engine: Engine, questions: Sequence[str]) -> list[Completion | None]:
        """An answer to each question, stripped; None for a question that the model's context can't hold."""
        prompts = [self._prompt(engine, question) for question in questions]
        sampling = Sampling(temperature=0.0, max_new_tokens=self.max_new_tokens, stop=engine.format.answer_stops)
        asked = [prompt for prompt in prompts if prompt is not None]
        given = iter(engine.generate(asked, sampling, [0] * len(asked)))
        return [None if prompt is None else _stripped(next(given)) for prompt in prompts]

    def _prompt(self, engine: Engine, question: str) -> str | None:
        pool = self.pool
        demos = [demo for demo, _ in pool.nearest(question, self.demos)] if pool and self.demos else []
        room = engine.context_length - self.max_new_tokens
        try:
            fitting = fit_demos(
                lambda shown: answer_prompt(engine.format, shown, question), demos, engine.count_tokens, room
            )
        except ModelError:
            return None
        return answer_prompt(engine.format, fitting, question)


def _stripped(completion: Completion) -> Completion:
    return Completion(completion.text.strip(), completion.tokens, completion.finish)
