"""Bits per byte of held-out answers, on engines whose costs are known."""

import json
import math
import re
from collections.abc import Sequence

import pytest

from isara.asking import Asker
from isara.errors import ModelError, SeedError
from isara.evaluate.domain import HeldoutEvaluator, summarise
from isara.pool import Pool
from isara.records import Prompt, QAPair
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer

SEEDS = [
    QAPair("How do I hold a violin bow?", "Loosely, thumb bent."),
    QAPair("How do I hold a cello bow?", "Like the violin's, lower."),
    QAPair("What does rosin do?", "It makes the hair grip the string."),
]
HELDOUT = [
    QAPair("How do I hold a viola bow?", "As for the violin."),
    QAPair("Does rosin go bad?", "Après dix ans, oui."),
]


class CountingEngine(ScriptedEngine):
    """Costs 3 bits a byte without demonstrations, and 1 bit less for each of them."""

    sizes = {word_renderer().text(f" {pair.answer}").ids: len(pair.answer.encode()) for pair in HELDOUT}

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        self.prompts += [prompt.text for prompt in prompts]
        bits = [4 - len(re.findall("Question:", prompt.text)) for prompt in prompts]
        sizes = [self.sizes[tuple(ids)] for ids in continuations]
        return [-math.log(2) * bit * size for bit, size in zip(bits, sizes, strict=True)]


def no_answer(prompt: str, seed: int) -> str:
    raise AssertionError("held-out answers are scored, not generated")


def asker_of(engine: ScriptedEngine, context_length: int = 2048) -> Asker:
    return Asker(lambda model, /: engine, "m", word_renderer(context_length))


def test_one_bit_a_word() -> None:
    figures = HeldoutEvaluator(HELDOUT, Pool(HashEmbedder(), SEEDS), demos=2)(asker_of(ScriptedEngine(no_answer)))
    expected = (4 + 4) / (18 + 20)
    assert figures == {
        "pairs": 2,
        "bits_per_byte": pytest.approx(expected),
        "bits_per_byte_se": pytest.approx(figures["bits_per_byte_demos_se"]),
        "bits_per_byte_demos": pytest.approx(expected),
        "bits_per_byte_demos_se": pytest.approx(4 / 19 / 19),
    }


def test_demonstrations_are_the_nearest_and_scored_apart() -> None:
    engine = CountingEngine(no_answer)
    evaluator = HeldoutEvaluator(HELDOUT, Pool(HashEmbedder(), SEEDS), demos=1)
    figures = evaluator(asker_of(engine))
    assert (figures["bits_per_byte"], figures["bits_per_byte_demos"]) == pytest.approx((3, 2))
    assert (figures["bits_per_byte_se"], figures["bits_per_byte_demos_se"]) == pytest.approx((0, 0))
    assert engine.prompts[1] == "Question: Does rosin go bad?\nAnswer:"
    assert engine.prompts[3] == (
        "Question: What does rosin do?\nAnswer: It makes the hair grip the string.\n\n"
        "Question: Does rosin go bad?\nAnswer:"
    )
    assert [item.demo_ids for item in evaluator.items(asker_of(engine))][1] == (SEEDS[2].id,)


def test_figures_are_micro_averaged() -> None:
    long = QAPair("Who made this cello?", "Nobody knows. " * 40)

    class Uneven(ScriptedEngine):
        def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
            return [-math.log(2) * 100 for _ in prompts]

    figures = HeldoutEvaluator([HELDOUT[0], long], Pool(HashEmbedder()), demos=3)(asker_of(Uneven(no_answer)))
    assert figures["bits_per_byte"] == pytest.approx(200 / (18 + 14 * 40))


def test_a_held_out_pair_is_never_its_own_demonstration() -> None:
    evaluator = HeldoutEvaluator(HELDOUT, Pool(HashEmbedder(), HELDOUT), demos=5)
    assert [item.demo_ids for item in evaluator.items(asker_of(CountingEngine(no_answer)))] == [
        (HELDOUT[1].id,),
        (HELDOUT[0].id,),
    ]


def test_far_demonstrations_go_where_the_context_is_short() -> None:
    asker = asker_of(CountingEngine(no_answer), context_length=26)
    items = HeldoutEvaluator(HELDOUT, Pool(HashEmbedder(), SEEDS), demos=3).items(asker)
    assert [len(item.demo_ids) for item in items] == [1, 1]
    assert items[0].demo_ids == (SEEDS[0].id,) or items[0].demo_ids == (SEEDS[1].id,)


def test_a_pair_that_does_not_fit_is_named() -> None:
    evaluator = HeldoutEvaluator(HELDOUT, Pool(HashEmbedder()), demos=1)
    with pytest.raises(ModelError) as caught:
        evaluator(asker_of(ScriptedEngine(no_answer), context_length=10))
    assert str(caught.value) == (
        f"held-out pair {HELDOUT[0].id} has 9 + 4 tokens and the model reads at most 10: "
        "shorten the pair or take it out"
    )


def test_nothing_held_out() -> None:
    with pytest.raises(SeedError) as caught:
        HeldoutEvaluator([], Pool(HashEmbedder()), demos=1)
    assert str(caught.value) == (
        "expected at least one held-out pair, found none: raise the hold-out share or name a file with --heldout"
    )


def test_an_empty_answer() -> None:
    pair = QAPair("Is this a violin?", "")
    with pytest.raises(SeedError) as caught:
        HeldoutEvaluator([pair], Pool(HashEmbedder()), demos=1)
    assert str(caught.value) == f"held-out pair {pair.id} has an empty answer: write one or take the pair out"


def test_one_pair_has_no_standard_error() -> None:
    figures = summarise(
        HeldoutEvaluator(HELDOUT[:1], Pool(HashEmbedder()), 1).items(asker_of(CountingEngine(no_answer)))
    )
    assert "bits_per_byte_se" not in figures


def test_earlier_turns_stand_before_a_held_out_question() -> None:
    engine = CountingEngine(no_answer)
    pair = QAPair("And a viola bow?", "As for the violin.", before=(("How do I hold a violin bow?", "Loosely."),))
    HeldoutEvaluator([pair], Pool(HashEmbedder()), demos=0)(asker_of(engine))
    assert engine.prompts == [
        "Question: How do I hold a violin bow?\nAnswer: Loosely.\n\nQuestion: And a viola bow?\nAnswer:"
    ]


def test_the_key_names_what_decides_the_figures() -> None:
    def key(heldout: Sequence[QAPair], pairs: Sequence[QAPair], demos: int) -> object:
        return HeldoutEvaluator(heldout, Pool(HashEmbedder(), pairs), demos).key()

    keys = [key(HELDOUT, SEEDS, 1), key(HELDOUT[:1], SEEDS, 1), key(HELDOUT, SEEDS[:1], 1), key(HELDOUT, SEEDS, 2)]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])
    assert key(HELDOUT, SEEDS, 1) == keys[0] == json.loads(json.dumps(keys[0]))
