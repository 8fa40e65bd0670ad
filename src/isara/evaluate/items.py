"""The items that tasks are made of, which of them a limit takes, and how their questions are put to a model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from isara.asking import no_demos
from isara.pool import Pool, Retrieve, pool_key, retriever
from isara.records import Sampling


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


@dataclass(frozen=True, slots=True)
class Asking:
    """How a task's questions are put to a model; answers are greedy.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        retrieve: Gives each question's demonstrations; zero-shot by default.
        retrieved: What says in a key which demonstrations those are.
    """

    max_new_tokens: int = 256
    retrieve: Retrieve = no_demos
    retrieved: Mapping[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        return Sampling(temperature=0.0, max_new_tokens=self.max_new_tokens)

    def key(self) -> dict[str, Any]:
        """What an answer depends on beside model and question."""
        return {"max_new_tokens": self.max_new_tokens, "retrieved": self.retrieved}


def asking_nearest(max_new_tokens: int, pool: Pool, demos: int) -> Asking:
    """Asks after the nearest pairs of a pool, as many as `demos`; the farthest are left out where not all fit."""
    return Asking(max_new_tokens, retriever(pool, "nearest", demos, seed=0), {"demos": demos, "pool": pool_key(pool)})
