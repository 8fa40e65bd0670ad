"""The parts that the loop is made of. Anything with these methods will do; nothing has to be inherited."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from isara.data import QAPair
from isara.pool import Pool
from isara.prompts import PromptFormat


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn; names and meanings are those of transformers.

    Attributes:
        temperature: Softmax temperature; 0 is greedy decoding.
        top_p: Nucleus mass in (0, 1].
        max_new_tokens: Most tokens to generate.
        stop: Generation ends before the first of these strings; the string is not part of the completion.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine made of one prompt.

    Attributes:
        text: The generated text, without stop string and without special tokens; not stripped.
        tokens: How many tokens were generated (the stop included).
        finish: "stop" for a stop string or end-of-sequence token, "length" when max_new_tokens ran out.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generated pair on its way through the filters.

    Attributes:
        pair: The pair; its answer is "" while the question filters run.
        question: The completion that gave the question.
        answer: The completion that gave the answer; None while the question filters run.
    """

    pair: QAPair
    question: Completion
    answer: Completion | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate was dropped.

    Attributes:
        reason: Name of the filter parameter that decided ("novelty", "max_question_tokens", ...).
        value: What was measured.
        threshold: What it was held against.
        near_id: For nearness, the id of the pair that it was too near to.
    """

    reason: str
    value: float | str | None = None
    threshold: float | str | None = None
    near_id: str | None = None


@dataclass(frozen=True, slots=True)
class TrainStats:
    """What a training run did.

    Attributes:
        rows: Pairs trained on.
        steps: Optimiser steps.
        first_loss: Loss of the first logged step, nats per answer token.
        last_loss: Loss of the last logged step.
        tokens: Tokens seen, prompts and all epochs included.
        answer_tokens: Those that carry loss.
        micro_batch: Rows a forward pass held at the end (smaller than configured after running out of memory).
        parameters: Parameters trained.
    """

    rows: int
    steps: int
    first_loss: float
    last_loss: float
    tokens: int
    answer_tokens: int
    micro_batch: int
    parameters: int


class Engine(Protocol):
    """A loaded causal language model: a context manager whose weights are gone after the `with` block."""

    @property
    def format(self) -> PromptFormat:
        """How pairs become text for this model."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens that prompt and completion may have together."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt, the special tokens that the tokenizer adds by itself included."""
        ...

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i depends on prompt i, sampling and seed i alone."""
        ...

    def logprobs(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Natural-log probability of each continuation after its prompt, summed over its tokens."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EngineFactory(Protocol):
    """Opens a model; a class whose constructor takes a model folder or name is one."""

    def __call__(self, model: str, /) -> Engine:
        """An engine for the model; nothing need be loaded before its `with` block is entered."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), each row of length 1 (or all zero where a text has nothing to embed)."""
        ...


class Filter(Protocol):
    """Decides on one candidate."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """The reason to drop the candidate, or None to keep it; `kept` holds seeds and all accepted so far."""
        ...


class Trainer(Protocol):
    """Fine-tunes a model on pairs."""

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains the model at `start` on `pairs` and leaves in `out` a folder that transformers can load."""
        ...


class Evaluator(Protocol):
    """Measures a model between iterations."""

    def __call__(self, engine: Engine) -> dict[str, float]:
        """Figures by name; "bits_per_byte" is the one that decides which iteration is best (lower is better)."""
        ...
