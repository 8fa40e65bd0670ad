"""The one way to ask a model: retrieve, fit, render, generate, strip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from isara.errors import ModelError
from isara.protocols import Engine, EngineFactory, Retrieve, TokenEngine
from isara.records import Completion, Draw, HeldoutRow, Prompt, QAPair, Sampling
from isara.render import Renderer

_LEAST_PROMPT = 16  # tokens; with less room, no question fits, let alone a demonstration


def no_demos(pair: QAPair) -> Sequence[tuple[QAPair, float]]:
    """Retrieves nothing: zero-shot."""
    return ()


class Asker:
    """A model that can be asked. It is opened when something is first asked, and closed with the `with` block.

    Args:
        engine: Opens the model.
        model: Its folder or name.
        renderer: Makes its prompts.
    """

    def __init__(self, engine: EngineFactory, model: str, renderer: Renderer) -> None:
        self.renderer = renderer
        self.model = model
        self._factory = engine
        self._engine: Engine | None = None

    def questions(
        self, demos: Sequence[Sequence[QAPair]], sampling: Sampling, seeds: Sequence[int], room: int
    ) -> list[Draw]:
        """The next question after each list of demonstrations, as many of which are shown as `room` tokens hold."""
        asked = [self._fitted(self.renderer.question, shown, room) for shown in demos]
        prompts, shown = [prompt for prompt, _ in asked], [kept for _, kept in asked]
        done = self.generate(prompts, self.with_stops(sampling, self.renderer.format.question_stops), seeds)
        rows = zip(done, prompts, seeds, shown, strict=True)
        return [_draw(completion, prompt, seed, kept) for completion, prompt, seed, kept in rows]

    def answers(
        self,
        pairs: Sequence[QAPair],
        sampling: Sampling,
        seeds: Sequence[int],
        retrieve: Retrieve = no_demos,
    ) -> list[Draw | None]:
        """An answer to each pair's question after the demonstrations that are retrieved for it.

        None for a question that does not fit into the context even without demonstrations. The farthest are left out
        where not all fit beside the longest answer.
        """
        room = self.renderer.context_length - sampling.max_new_tokens
        asked = [self.prompt(pair, room, retrieve(pair)) for pair in pairs]
        fitting = [found for found in asked if found is not None]
        done = iter(
            self.generate(
                [prompt for prompt, _ in fitting],
                self.with_stops(sampling, self.renderer.format.answer_stops),
                [seed for seed, found in zip(seeds, asked, strict=True) if found is not None],
            )
        )
        return [
            None
            if found is None
            else _draw(next(done), found[0], seed, [demo for demo, _ in found[1]], [near for _, near in found[1]])
            for found, seed in zip(asked, seeds, strict=True)
        ]

    def prompt(
        self, pair: QAPair, room: int, found: Sequence[tuple[QAPair, float]] = ()
    ) -> tuple[Prompt, Sequence[tuple[QAPair, float]]] | None:
        """The prompt of a pair's question with the demonstrations in it; None where it has more than `room` tokens.

        Args:
            pair: Its question is asked, after its earlier turns.
            room: Most tokens.
            found: Demonstrations with their similarities, nearest last; the farthest are left out where not all fit.
        """
        fitted = self.renderer.fit(partial(self._answer, pair), [demo for demo, _ in found], room)
        return None if fitted is None else (fitted[0], found[len(found) - len(fitted[1]) :])

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """What the engine makes of prompts; it is not opened for none."""
        return self._opened().generate(prompts, sampling, seeds) if prompts else []

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt.

        Raises:
            ModelError: The engine gives none.
        """
        if not prompts:
            return []
        engine = self._opened()
        if not callable(getattr(engine, "logprobs", None)):
            raise _gives_none(engine)
        try:
            return engine.logprobs(prompts, continuations)
        except NotImplementedError as error:
            raise _gives_none(engine) from error

    def token_logprobs(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]
    ) -> list[list[float]] | None:
        """Natural-log probability of each token of each continuation; None where the engine can't tell them apart."""
        if not prompts:
            return []
        engine = self._opened()
        return engine.token_logprobs(prompts, continuations) if isinstance(engine, TokenEngine) else None

    def with_stops(self, sampling: Sampling, stops: tuple[str, ...]) -> Sampling:
        """The sampling with the format's stop strings after the user's own."""
        return replace(sampling, stop=(*sampling.stop, *stops))

    def room(self, sampling: Sampling, stage: str) -> int:
        """Tokens that a prompt may have beside the longest completion.

        Raises:
            ModelError: They are too few for any prompt.
        """
        length = self.renderer.context_length
        room = length - sampling.max_new_tokens
        least = max(_LEAST_PROMPT, len(self.renderer.question([]).ids))  # what opens a chat may be longer
        if room < least:
            raise ModelError(
                f"expected room for a prompt of at least {least} tokens, found {max(room, 0)}: of the model's "
                f"context of {length} tokens {stage}.max_new_tokens has {sampling.max_new_tokens}; lower it"
            )
        return room

    def _answer(self, pair: QAPair, demos: Sequence[QAPair]) -> Prompt:
        return self.renderer.answer(demos, pair)

    def _fitted(
        self, render: Callable[[Sequence[QAPair]], Prompt], demos: Sequence[QAPair], room: int
    ) -> tuple[Prompt, Sequence[QAPair]]:
        fitted = self.renderer.fit(render, demos, room)
        assert fitted is not None, "room() sees to it"
        return fitted

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = self._factory(self.model).__enter__()
        return self._engine

    def close(self) -> None:
        """Closes the model, if it is open; it is opened again when something more is asked."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.__exit__(kind, error, trace)


def _gives_none(engine: Engine) -> ModelError:
    return ModelError(
        f"expected an engine with a method `logprobs`, found {type(engine).__name__} without it: held-out "
        "likelihoods, `select`, `questions.focus: worst` and local judges need one; add it, or leave these out"
    )


class Evaluator(Protocol):
    """Measures a model between iterations.

    One that can `measure` pair by pair, too, is an `ItemEvaluator`: from its rows the run tells whether it has helped.
    """

    def key(self) -> Mapping[str, Any]:
        """What the figures depend on beside the model, JSON-ready."""
        ...

    def __call__(self, asker: Asker) -> dict[str, float]:
        """Figures by name; "bits_per_byte" is the one that decides which iteration is best (lower is better)."""
        ...


@runtime_checkable
class ItemEvaluator(Protocol):
    """Measures a model pair by pair."""

    def measure(self, asker: Asker, base: bool) -> tuple[list[HeldoutRow], dict[str, float]]:
        """What each held-out pair has shown, and the figures.

        Args:
            asker: The model.
            base: Whether it is M_0, of which more is measured: what the others are held against.
        """
        ...


@runtime_checkable
class AnsweringEvaluator(Protocol):
    """Has a model answer questions, and knows how many before."""

    def count_answers(self, base: bool) -> int:
        """How many answers it has a model write."""
        ...


def _draw(
    completion: Completion, prompt: Prompt, seed: int, demos: Sequence[QAPair], near: Sequence[float] = ()
) -> Draw:
    # Half a character, which an engine of the user's own may give, is in no file: it becomes one that filters know.
    text = "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in completion.text)
    return Draw(
        text=text.strip(),
        tokens=completion.tokens,
        finish=completion.finish,
        prompt=prompt.text,
        seed=seed,
        demo_ids=tuple(demo.id for demo in demos),
        similarities=tuple(near),
    )
