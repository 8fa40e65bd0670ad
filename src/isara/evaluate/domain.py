"""The user's own domain: what held-out answers cost a model in bits per byte, and how near its own come to them."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isara.asking import Asker
from isara.errors import ModelError, SeedError
from isara.evaluate import answers, figures
from isara.evaluate.figures import Figure
from isara.evaluate.items import Asking
from isara.evaluate.results import Row
from isara.files import value_hash
from isara.judges.base import Kind
from isara.pool import Pool, pool_key, retriever
from isara.records import Prompt, QAPair
from isara.statistics import ratio_error
from isara.words import rouge_l, tokenize

_BITS = "bits per byte"
# The figures by the fields of a row that they are made of.
_COSTS = {_BITS: "bits", f"{_BITS}, demonstrations": "bits_demos"}
_NEARNESS = {"ROUGE-L to the reference": "rouge_l", "cosine to the reference": "cosine"}
MEAN_OVER_ITEMS = ", mean over items"  # follows the name of a figure that is no plain mean, where items are compared


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
        self.retrieve = retriever(pool, "nearest" if demos else "none", demos, seed=0)

    def key(self) -> dict[str, Any]:
        """What the figures depend on beside the model."""
        return {
            "heldout": value_hash([pair.id for pair in self.heldout]),
            "pool": pool_key(self.pool),
            "demos": self.demos,
        }

    def __call__(self, asker: Asker) -> dict[str, float]:
        """Figures over all pairs, as `summarise` gives them."""
        return summarise(self.items(asker))

    def items(self, asker: Asker) -> list[HeldoutItem]:
        """What each held-out answer costs, in the order of the pairs.

        Raises:
            ModelError: A question with its answer doesn't fit the model's context.
        """
        plain, shown, demo_ids = self.prompts(asker)
        # One call for both, so that the engine can batch equal lengths together; none twice where nothing is shown.
        prompts = plain if shown == plain else plain + shown
        pairs = [*self.heldout, *self.heldout][: len(prompts)]
        texts = [asker.renderer.answer_ids(prompt, pair.answer) for prompt, pair in zip(prompts, pairs, strict=True)]
        bits = [-logprob / math.log(2) for logprob in asker.logprobs(prompts, texts)]
        rows = zip(self.heldout, bits[: len(plain)], bits[-len(plain) :], demo_ids, strict=True)
        return [HeldoutItem(pair.id, len(pair.answer.encode()), zero, shot, ids) for pair, zero, shot, ids in rows]

    def prompts(self, asker: Asker) -> tuple[list[Prompt], list[Prompt], list[tuple[str, ...]]]:
        """Each pair's prompt alone, after its nearest demonstrations, and their ids.

        Raises:
            ModelError: A question with its answer doesn't fit the model's context.
        """
        plain = [asker.renderer.answer((), pair) for pair in self.heldout]
        return plain, *self._shown(asker, plain)

    def _shown(self, asker: Asker, plain: Sequence[Prompt]) -> tuple[list[Prompt], list[tuple[str, ...]]]:
        """Each pair's prompt after as many of its nearest as leave room for its answer, and their ids."""
        prompts, demo_ids = [], []
        for pair, prompt in zip(self.heldout, plain, strict=True):
            size, length = len(asker.renderer.answer_ids(prompt, pair.answer)), asker.renderer.context_length
            found = asker.prompt(pair, length - size, self.retrieve(pair))
            if found is None:
                raise ModelError(
                    f"held-out pair {pair.id} has {len(prompt.ids)} + {size} tokens and the model reads at most "
                    f"{length}: shorten the pair or take it out"
                )
            prompts.append(found[0])
            demo_ids.append(tuple(demo.id for demo, _ in found[1]))
        return prompts, demo_ids


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

    def answer(self, asker: Asker, items: Sequence[QAPair]) -> list[Row]:
        """What each answer costs, and the model's own."""
        costs = HeldoutEvaluator(items, self.pool, self.demos).items(asker)
        known = [
            {**asdict(cost), "demo_ids": list(cost.demo_ids), "question": pair.question, "reference": pair.answer}
            for cost, pair in zip(costs, items, strict=True)
        ]
        return answers.with_fields(known, answers.answer_fields(asker, self.asking, items))

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
        return [
            *(figures.ratio(name, [row[field] for row in rows], sizes) for name, field in self._costs().items()),
            *(figures.mean(name, [row[field] for row in rows]) for name, field in _NEARNESS.items()),
            *(answers.verdict_share(rows, judge) for judge in self.judges.values()),
            *answers.utility(rows),
        ]

    def values(self, row: Row) -> dict[str, float]:
        """The row's bits per byte (the figure weighs long answers more), nearness to the reference, and verdicts."""
        found = counted(row, self.judges)
        # A row of another folder may have been measured without demonstrations, and then holds no such figure.
        names = self._costs() if row["demo_ids"] else (_BITS,)
        costs = {f"{name}{MEAN_OVER_ITEMS}": found[name] for name in names}
        others = (*_NEARNESS, *(answers.SHARES[kind] for kind in self.judges))
        return costs | {name: found[name] for name in others if name in found}

    def _costs(self) -> dict[str, str]:
        """The fields with costs in bits, by the names of their figures."""
        return _COSTS if self.demos else {_BITS: _COSTS[_BITS]}


def counted(row: Row, kinds: Collection[Kind]) -> dict[str, float]:
    """What one judged row adds to each figure; to bits per byte its own, which the figure weighs by its bytes."""
    return {
        **{name: row[field] / row["bytes"] for name, field in _COSTS.items()},
        **{name: row[field] for name, field in _NEARNESS.items()},
        **answers.verdict_values(row, {answers.SHARES[kind]: kind for kind in kinds}),
        **answers.utility_values(row),
    }
