"""The records that pass through the loop: a pair, a draw of the engine, a candidate on its way, why it was dropped."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Finish: TypeAlias = Literal["stop", "length"]
# Stands where the number of an iteration does: the model that is fine-tuned on the seeds alone.
SEEDS_ONLY = -1
# The model that has learnt from the seeds to read demonstrations, and answers in the place of M_{t-1} where wanted.
READER = -2
# The model that has learnt the seeds' questions, and asks in the place of M_{t-1} where wanted.
QUESTIONER = -3
# The model that is fine-tuned on the seeds alone before any pair is made, and gives the second answers where wanted.
CHECKER = -4
# What is trained beside the iterations, by what its folder and its stages are called.
BESIDE = {SEEDS_ONLY: "seeds-only", READER: "reader", QUESTIONER: "questioner", CHECKER: "checker"}


@dataclass(frozen=True, slots=True)
class QAPair:
    """A question with its answer, and where it came from.

    Attributes:
        question: What is asked; in a dialogue, its last question.
        answer: What is answered; empty while a candidate's question is being filtered.
        iteration: The iteration that made the pair; 0 is a seed pair.
        demo_ids: Ids of the demonstrations in the prompt that made the answer, in prompt order (nearest last).
        before: The dialogue's earlier turns, each a question with its answer; empty for a pair that stands alone.
        edited_from: Id of the generated pair that a person wrote this one out of; empty where nobody did.
        weight: What its loss counts where another generated pair's counts once (`train.weights`).
        untrained: Places in `before` whose answers are shown and not trained on.
    """

    question: str
    answer: str
    iteration: int = 0
    demo_ids: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    edited_from: str = ""
    weight: float = 1.0
    untrained: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of the texts: equal texts have equal ids."""
        texts: list[Any] = [self.question, self.answer]
        if self.before:
            texts.append(self.before)
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """All questions of the dialogue with their answers, this one last."""
        return (*self.before, (self.question, self.answer))

    @property
    def asked(self) -> str:
        """All questions of the dialogue, a line each: what nearness is measured on."""
        return "\n".join(question for question, _ in self.turns)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with the id first; what is usually empty only where it says something."""
        lists = {
            "demo_ids": list(self.demo_ids),
            "before": list(map(list, self.before)),
            "untrained": list(self.untrained),
        }
        row = {"id": self.id, **asdict(self), **lists}
        silent = {"before": [], "edited_from": "", "weight": 1.0, "untrained": []}
        return {name: value for name, value in row.items() if name not in silent or value != silent[name]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "QAPair":
        """The pair that `to_json` wrote; keys that are not fields are ignored."""
        return cls(
            row["question"],
            row["answer"],
            row.get("iteration", 0),
            tuple(row.get("demo_ids", ())),
            tuple((question, answer) for question, answer in row.get("before", ())),
            row.get("edited_from", ""),
            row.get("weight", 1.0),
            tuple(row.get("untrained", ())),
        )


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
class Prompt:
    """What an engine is asked, made by a `Renderer` and by nothing else.

    Attributes:
        text: For people: it is stored with what it brought forth.
        ids: For the engine: the text's tokens, with the special tokens that the model expects before them.
    """

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine made of one prompt.

    Attributes:
        text: The generated text, without stop string and without special tokens; not stripped.
        tokens: How many tokens were generated (the stop included).
        finish: "stop" for a stop string, an end-of-sequence token or any other special token, "length" when
            max_new_tokens ran out.
    """

    text: str
    tokens: int
    finish: Finish


@dataclass(frozen=True, slots=True)
class Draw:
    """One completion with everything that made it.

    Attributes:
        text: What was generated, stripped.
        tokens: How many tokens that were (the stop included).
        finish: "stop" where it ended by itself, "length" when max_new_tokens ran out.
        prompt: The text of the prompt.
        seed: The sampling seed.
        demo_ids: Ids of the demonstrations in the prompt, in prompt order.
        similarities: Of the demonstrations to the question that they were retrieved for; empty where they were drawn.
        scores: Of an answer, by name (`isara.selection.scores`); only those that the run asks for.
    """

    text: str
    tokens: int
    finish: Finish
    prompt: str
    seed: int
    demo_ids: tuple[str, ...] = ()
    similarities: tuple[float, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `scores` stand in it only where there are any."""
        row = asdict(self)
        if not self.scores:
            del row["scores"]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Draw":
        """The draw that was stored."""
        return cls(**{**row, "demo_ids": tuple(row["demo_ids"]), "similarities": tuple(row["similarities"])})


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


@dataclass(slots=True)
class Candidate:
    """A generated pair on its way through the filters, with the draws that made it.

    Attributes:
        pair: The pair; its answer is "" while the question filters run.
        question: The draw that gave the question.
        answers: Draws of its answer, in the order they were made; empty while the question filters run.
        chosen: Which of them the pair holds.
        rejection: Why it was dropped; None while nothing objects.
        second: Draw of another answer to the question, to hold the pair's against; None where there is none.
    """

    pair: QAPair
    question: Draw
    answers: tuple[Draw, ...] = ()
    chosen: int = 0
    rejection: Rejection | None = None
    second: Draw | None = None

    @property
    def answer(self) -> Draw | None:
        """The draw that gave the pair's answer; None while the question filters run."""
        return self.answers[self.chosen] if self.answers else None

    @property
    def draws(self) -> tuple[Draw, ...]:
        """All that was drawn for it."""
        return (self.question, *self.answers, *((self.second,) if self.second else ()))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict: the pair's own keys, what became of it, and its draws."""
        return {
            **self.pair.to_json(),
            "accepted": self.rejection is None,
            "rejection": asdict(self.rejection) if self.rejection else None,
            "question_draw": self.question.to_json(),
            "answer_draws": [draw.to_json() for draw in self.answers],
            "chosen": self.chosen,
            **({"second_draw": self.second.to_json()} if self.second else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Candidate":
        """The candidate that `to_json` wrote; keys that are none of its are ignored."""
        return cls(
            QAPair.from_json(row),
            Draw.from_json(row["question_draw"]),
            tuple(map(Draw.from_json, row["answer_draws"])),
            row["chosen"],
            Rejection(**row["rejection"]) if row["rejection"] else None,
            Draw.from_json(row["second_draw"]) if "second_draw" in row else None,
        )


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to a question, of which the model is to learn the first.

    Attributes:
        pair: The question with the chosen answer.
        rejected: The draw of the other one.
    """

    pair: QAPair
    rejected: Draw

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict: the pair's own keys and the draw."""
        return {**self.pair.to_json(), "rejected_draw": self.rejected.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Preference":
        """The preference that `to_json` wrote; keys that are none of its are ignored."""
        return cls(QAPair.from_json(row), Draw.from_json(row["rejected_draw"]))


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A pair as ids: what the model is asked, which carries no loss, and the answer with its end, which does.

    Attributes:
        pair: The pair.
        prompt: Ids of the question, with what stands before it.
        answer: Ids of the answer with its end.
        weight: What the loss of its tokens is multiplied by.
    """

    pair: QAPair
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    weight: float = 1.0

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole row."""
        return self.prompt + self.answer

    def __str__(self) -> str:
        question = " ".join(self.pair.question.split())
        return f"pair {self.pair.id} ({question[:40] + '…' if len(question) > 40 else question!r})"


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


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A model's own greedy answer to a held-out question.

    Attributes:
        answer: Its text; empty where the question does not fit into the context.
        cut: Whether it ran into the limit of its length.
        rouge_l: ROUGE-L F with the answer that is wanted, in [0, 1].
        scores: What the recipe's scorer gives it, by column.
    """

    answer: str
    cut: bool
    rouge_l: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HeldoutRow:
    """What one held-out pair has shown of a model.

    Attributes:
        id: The pair's id.
        bytes: UTF-8 bytes of its answer.
        bits: Bits that the answer costs after its question alone (-log2 of its probability).
        bits_demos: The same after demonstrations.
        demo_ids: Those demonstrations, nearest last.
        selects: Whether the pair chooses the iteration; then it is not one of those that the verdict is about.
        token_bits: Of each token of the answer after the question alone; empty where the engine can't tell.
        token_weights: Of the base model alone: what each token says of content, in [0, 1]; empty where it can't tell.
        given: The model's own answer; None where it was not asked for.
        given_demos: Of the base model alone, where answers are scored: its own answer after demonstrations.
        stratum: The kind of the pair, where the score weighs kinds; None where it doesn't.
    """

    id: str
    bytes: int
    bits: float
    bits_demos: float
    demo_ids: tuple[str, ...]
    selects: bool = False
    token_bits: tuple[float, ...] = ()
    token_weights: tuple[float, ...] = ()
    given: GivenAnswer | None = None
    given_demos: GivenAnswer | None = None
    stratum: str | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "HeldoutRow":
        """The row that `asdict` made.

        Raises:
            ValueError: It is none; JSON can hold anything.
        """
        try:
            found = cls(
                **{
                    **row,
                    **{name: tuple(row[name]) for name in ("demo_ids", "token_bits", "token_weights")},
                    **{name: GivenAnswer(**row[name]) if row[name] else None for name in ("given", "given_demos")},
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no row of a held-out pair: {error}") from error
        if not _is_heldout_row(found):
            raise ValueError("no row of a held-out pair")
        return found


def _is_heldout_row(row: HeldoutRow) -> bool:
    """Whether each field is of its type and range."""
    given = [each for each in (row.given, row.given_demos) if each is not None]
    numbers = [row.bytes, row.bits, row.bits_demos, *row.token_bits, *row.token_weights]
    return (
        isinstance(row.stratum, str | None)
        and all(isinstance(text, str) for text in (row.id, *row.demo_ids, *(each.answer for each in given)))
        and all(_is_finite(number) and number >= 0 for number in numbers)
        and all(type(flag) is bool for flag in (row.selects, *(each.cut for each in given)))
        and all(_is_finite(each.rouge_l) and isinstance(each.scores, Mapping) for each in given)
        and all(_is_finite(value) for each in given for value in each.scores.values())
        and row.bytes > 0
        and len(row.token_weights) in (0, len(row.token_bits))
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
