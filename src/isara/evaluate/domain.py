"""The user's own domain: what held-out answers cost a model in bits per byte, and how near its own come to them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isara.data import QAPair
from isara.errors import ModelError, SeedError
from isara.evaluate import answers, figures
from isara.evaluate.figures import Figure
from isara.evaluate.items import Asking, pool_key
from isara.evaluate.results import Row
from isara.evaluate.statistics import ratio_error
from isara.filters.text import rouge_l, tokenize
from isara.pool import Pool
from isara.prompts import answer_prompt, answer_text, fit_demos
from isara.protocols import Engine


@dataclass(frozen=True, slots=True)
class HeldoutItem:
    """What one held-out answer costs.

    Attributes:
        id: The pair's id.
        bytes: UTF-8 bytes of the answer.
        bits: Bits that the answer costs after its question alone (-log2 of its probability).
        bits_demos: The same with demonstrations before the question.
        demo_ids: Those demonstrations, nearest last.
    """

    id: str
    bytes: int
    bits: float
    bits_demos: float
    demo_ids: tuple[str, ...]


class HeldoutEvaluator:
    """Bits per byte of held-out answers, zero-shot and with the nearest pairs of a pool as demonstrations.

    Args:
        heldout: Pairs that no training has seen.
        pool: Where demonstrations are retrieved from.
        demos: Demonstrations a prompt; the farthest are dropped where they don't fit the context.

    Raises:
        SeedError: There are no held-out pairs, or one has no answer.
    """

    def __init__(self, heldout: Sequence[QAPair], pool: Pool, demos: int) -> None:
        if not heldout:
            raise SeedError(
                "expected at least one held-out pair, found none: raise the hold-out share or name a file "
                "with --heldout"
            )
        for pair in heldout:
            if not pair.answer:
                raise SeedError(f"held-out pair {pair.id} has an empty answer: write one or take the pair out")
        self.heldout = heldout
        self.pool = pool
        self.demos = demos

    def __call__(self, engine: Engine) -> dict[str, float]:
        """Figures over all pairs, as `summarise` gives them."""
        return summarise(self.items(engine))

    def items(self, engine: Engine) -> list[HeldoutItem]:
        """What each held-out answer costs, in the order of the pairs.

        Raises:
            ModelError: A question with its answer doesn't fit the model's context.
        """
        fmt = engine.format
        texts = [answer_text(fmt, pair.answer) for pair in self.heldout]
        plain = [answer_prompt(fmt, (), pair.question) for pair in self.heldout]
        self._check_lengths(engine, plain, texts)
        rooms = [engine.context_length - tokens for tokens in engine.count_tokens(texts)]
        chosen = [self._demos(engine, pair, room) for pair, room in zip(self.heldout, rooms, strict=True)]
        shown = [answer_prompt(fmt, demos, pair.question) for pair, demos in zip(self.heldout, chosen, strict=True)]
        # One call for both, so that the engine can batch equal lengths together; none twice where nothing is shown.
        prompts = plain if shown == plain else plain + shown
        scored = texts if shown == plain else texts + texts
        bits = [-logprob / math.log(2) for logprob in engine.logprobs(prompts, scored)]
        rows = zip(self.heldout, bits[: len(plain)], bits[-len(plain) :], chosen, strict=True)
        return [
            HeldoutItem(pair.id, len(pair.answer.encode()), zero, shot, tuple(demo.id for demo in demos))
            for pair, zero, shot, demos in rows
        ]

    def _demos(self, engine: Engine, pair: QAPair, room: int) -> Sequence[QAPair]:
        """The pair's nearest demonstrations, as many as leave room for its answer."""
        nearest = [demo for demo, _ in self.pool.nearest(pair.question, self.demos, leave_out=[pair.id])]
        return fit_demos(
            lambda demos: answer_prompt(engine.format, demos, pair.question), nearest, engine.count_tokens, room
        )

    def _check_lengths(self, engine: Engine, prompts: Sequence[str], answers: Sequence[str]) -> None:
        sizes = zip(engine.count_tokens(prompts), engine.count_tokens(answers), strict=True)
        for pair, (question, answer) in zip(self.heldout, sizes, strict=True):
            if question + answer > engine.context_length:
                raise ModelError(
                    f"held-out pair {pair.id} has {question} + {answer} tokens and the model reads at most "
                    f"{engine.context_length}: shorten the pair or take it out"
                )


def summarise(items: Sequence[HeldoutItem]) -> dict[str, float]:
    """Bits per byte over all items (all bits over all bytes), each with its standard error (delta method)."""
    sizes = [item.bytes for item in items]
    return (
        {"pairs": float(len(items))}
        | dict(_figures([item.bits for item in items], "bits_per_byte", sizes))
        | dict(_figures([item.bits_demos for item in items], "bits_per_byte_demos", sizes))
    )


def _figures(bits: Sequence[float], name: str, sizes: Sequence[int]) -> Iterator[tuple[str, float]]:
    yield name, sum(bits) / sum(sizes)
    if len(sizes) > 1:  # one pair says nothing of its error, and JSON has no NaN
        yield f"{name}_se", ratio_error(bits, sizes)


class Domain:
    """Held-out pairs: what their answers cost, how near the model's own come to them, and what judges say.

    Args:
        heldout: Pairs that no training has seen.
        pool: Demonstrations are drawn from it, and its embedder measures nearness.
        demos: Demonstrations for `bits per byte, demonstrations`; 0 leaves that figure out.
        asking: How questions are put to the model for an answer of its own.
        judges: Read those answers, by kind; may be empty.

    Raises:
        SeedError: There are no held-out pairs, or one has no answer.
    """

    name = "domain"

    def __init__(
        self, heldout: Sequence[QAPair], pool: Pool, demos: int, asking: Asking, judges: answers.Judges
    ) -> None:
        self.items = HeldoutEvaluator(heldout, pool, demos).heldout
        self.pool = pool
        self.demos = demos
        self.asking = asking
        self.judges = judges

    def key(self) -> dict[str, Any]:
        """What the rows depend on beside the model."""
        return {**self.asking.key(), "likelihood_demos": self.demos, "pool": pool_key(self.pool)}

    def judge_key(self) -> dict[str, str]:
        """The judges' pins."""
        return answers.judge_pins(self.judges)

    def answer(self, engine: Engine, items: Sequence[QAPair]) -> list[Row]:
        """What each answer costs, and the model's own."""
        costs = HeldoutEvaluator(items, self.pool, self.demos).items(engine)
        known = [
            {**asdict(cost), "demo_ids": list(cost.demo_ids), "question": pair.question, "reference": pair.answer}
            for cost, pair in zip(costs, items, strict=True)
        ]
        asked = [pair.question for pair in items]
        return answers.with_fields(known, answers.answer_fields(engine, self.asking, asked))

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with nearness to the reference and verdicts."""
        given, references = [row["answer"] for row in rows], [row["reference"] for row in rows]
        embed = self.pool.embedder.encode
        cosines = (embed(given) * embed(references)).sum(axis=1)
        verdicts = answers.verdict_fields(self.judges, [row["question"] for row in rows], given)
        fields = [
            {
                "rouge_l": rouge_l(tokenize(answer), tokenize(reference)),
                "cosine": float(cosine),
                "verdicts": verdict,
            }
            for answer, reference, cosine, verdict in zip(given, references, cosines, verdicts, strict=True)
        ]
        return answers.with_fields(rows, fields)

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        """Bits per byte, nearness to the reference, shares of verdicts, and the answers' utility."""
        sizes = [row["bytes"] for row in rows]
        means = {"ROUGE-L to the reference": "rouge_l", "cosine to the reference": "cosine"}
        return [
            *(figures.ratio(name, [row[field] for row in rows], sizes) for name, field in self._costs().items()),
            *(figures.mean(name, [row[field] for row in rows]) for name, field in means.items()),
            *(answers.verdict_share(rows, judge) for judge in self.judges.values()),
            *answers.utility(rows),
        ]

    def values(self, row: Row) -> dict[str, float]:
        """The row's bits per byte (the figure weighs long answers more), nearness to the reference, and verdicts."""
        shares = {answers.SHARES[kind]: kind for kind in self.judges}
        return {
            **{f"{name}, mean over items": row[field] / row["bytes"] for name, field in self._costs().items()},
            "ROUGE-L to the reference": row["rouge_l"],
            "cosine to the reference": row["cosine"],
            **answers.verdict_values(row, shares),
        }

    def _costs(self) -> dict[str, str]:
        """The fields with costs in bits, by the names of their figures."""
        return {"bits per byte": "bits"} | ({"bits per byte, demonstrations": "bits_demos"} if self.demos else {})
