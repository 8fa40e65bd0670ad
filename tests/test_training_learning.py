"""What is learnt from, and how much: demonstrations before a training row, and the weight of the seeds."""

from pathlib import Path
from typing import Any

import pytest

from isara.build import build_trainer, training_demos
from isara.config import Config, TrainConfig
from isara.embedders import LexicalEmbedder
from isara.engines.transformers.engine import TransformersEngine
from isara.pool import Demonstrations, Pool
from isara.records import Prompt, QAPair, TrainingRow
from isara.render import open_renderer
from isara.training.child import ChildTrainer
from isara.training.rows import make_rows
from isara.training.sft import SupervisedTrainer

SEEDS = [
    QAPair("Who guards the Triforce of Courage?", "Link does, and he never says a word about it."),
    QAPair("Who guards the Triforce of Power?", "Ganondorf does, and he never shares it."),
    QAPair("Why is the sky blue?", "Air scatters blue light more than red light."),
    QAPair("How do I bake bread?", "Use flour, water, salt and patience."),
]
MADE = [QAPair("Who guards the Triforce of Wisdom?", "Zelda does, and she reads a lot.", iteration=1)]
VOCABULARY = 10**6


def nearest(k: int, seeds: list[QAPair] = SEEDS) -> Demonstrations:
    return Demonstrations(Pool(LexicalEmbedder(), seeds), "nearest", k, 0)


def fit(out: Path, start: Path, **arguments: Any) -> Any:
    defaults: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": 8, "device": "cpu"}
    return SupervisedTrainer(**defaults | arguments).fit([*SEEDS, *MADE], str(start), out)


def answer_loss(start: Path, rows: list[TrainingRow]) -> float:
    """The weighted mean over all answer tokens, as the engine scores them."""
    with TransformersEngine(str(start), device="cpu", dtype="float32") as engine:
        scores = engine.logprobs([Prompt("", row.prompt) for row in rows], [row.answer for row in rows])
    tokens = sum(len(row.answer) for row in rows)
    return -sum(row.weight * score for row, score in zip(rows, scores, strict=True)) / tokens


def test_a_row_has_its_nearest_seeds_before_its_question_and_never_itself(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    rows = make_rows([*SEEDS, *MADE], renderer, 1024, VOCABULARY, nearest(2))
    for row in rows:
        demos = [demo for demo, _ in nearest(2)(row.pair)]
        assert row.prompt == renderer.answer(demos, row.pair).ids
        assert row.pair not in demos
    assert {demo for demo, _ in nearest(2)(MADE[0])} == set(SEEDS[:2])
    assert [row.answer for row in rows] == [
        row.answer for row in make_rows([*SEEDS, *MADE], renderer, 1024, VOCABULARY)
    ]


def test_the_farthest_demonstrations_are_left_out_where_not_all_fit(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    retrieve = nearest(3)
    [whole] = make_rows(MADE, renderer, 1024, VOCABULARY, retrieve)
    [cut] = make_rows(MADE, renderer, len(whole.ids) - 1, VOCABULARY, retrieve)
    assert cut.prompt == renderer.answer([demo for demo, _ in retrieve(MADE[0])][1:], MADE[0]).ids
    [alone] = make_rows(MADE, renderer, 1024, VOCABULARY)
    [none] = make_rows(MADE, renderer, len(alone.ids), VOCABULARY, retrieve)
    assert none == alone


def test_each_answer_of_a_dialogue_has_the_demonstrations_of_its_own_question(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    dialogue = QAPair("Who guards it?", "Link.", before=(("Why is the sky so blue?", "Because of the air."),))
    first, second = make_rows([dialogue], renderer, 1024, VOCABULARY, nearest(1))
    assert first.prompt == renderer.answer([SEEDS[2]], QAPair("Why is the sky so blue?", "")).ids
    [(near, _)] = nearest(1)(dialogue)
    assert second.prompt == renderer.answer([near], dialogue).ids


def test_the_loss_is_on_the_answer_after_the_demonstrations(tiny_llama: Path, tmp_path: Path) -> None:
    rows = make_rows([*SEEDS, *MADE], open_renderer(str(tiny_llama)), 1024, VOCABULARY, nearest(2))
    stats = fit(tmp_path / "model", tiny_llama, retrieve=nearest(2))
    assert stats.first_loss == pytest.approx(answer_loss(tiny_llama, rows), rel=1e-4)
    assert stats.tokens == sum(len(row.ids) for row in rows)


def test_a_child_trains_with_the_same_demonstrations_and_weights(tiny_llama: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "device": "cpu", "retrieve": nearest(2), "seed_weight": 3.0}
    found = []
    for kind in (SupervisedTrainer, ChildTrainer):
        out = tmp_path / kind.__name__
        stats = kind(**options).fit([*SEEDS, *MADE], str(tiny_llama), out)
        found.append((stats, (out / "model.safetensors").read_bytes(), kind(**options).key()))
    assert found[0] == found[1]


def test_weights_have_a_mean_of_one_over_all_answer_tokens(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    plain = make_rows([*SEEDS, *MADE], renderer, 1024, VOCABULARY)
    assert {row.weight for row in plain} == {1.0}
    assert {row.weight for row in make_rows(SEEDS, renderer, 1024, VOCABULARY, seed_weight=5.0)} == {1.0}
    rows = make_rows([*SEEDS, *MADE], renderer, 1024, VOCABULARY, seed_weight=4.0)
    assert rows[0].weight == pytest.approx(4 * rows[-1].weight)
    assert sum(row.weight * len(row.answer) for row in rows) == pytest.approx(sum(len(row.answer) for row in rows))


def test_every_answer_of_a_generated_dialogue_weighs_as_a_generated_pair(tiny_llama: Path) -> None:
    dialogue = QAPair("And then?", "He rests.", iteration=2, before=(("What does Link do?", "He fights."),))
    rows = make_rows([*SEEDS, dialogue], open_renderer(str(tiny_llama)), 1024, VOCABULARY, seed_weight=2.0)
    assert rows[4].weight == rows[5].weight < rows[0].weight


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_weighs_the_seeds(tiny_llama: Path, tmp_path: Path, packing: bool) -> None:
    rows = make_rows([*SEEDS, *MADE], open_renderer(str(tiny_llama)), 1024, VOCABULARY, seed_weight=4.0)
    stats = fit(tmp_path / "model", tiny_llama, seed_weight=4.0, packing=packing)
    assert stats.first_loss == pytest.approx(answer_loss(tiny_llama, rows), rel=1e-4)


def test_the_key_names_where_demonstrations_come_from() -> None:
    config = Config(train=TrainConfig(demos=2))
    pool = Pool(LexicalEmbedder(), SEEDS)
    key = build_trainer(config, None, training_demos(config, pool)).key()
    assert key["demonstrations"] == {**nearest(2).key()}
    assert nearest(2).key() != nearest(3).key() != nearest(3, SEEDS[:3]).key()
    drawn = Demonstrations(pool, "random", 2, 0)
    assert drawn.key() != Demonstrations(pool, "random", 2, 1).key()
    assert "demonstrations" not in build_trainer(Config()).key()


@pytest.mark.parametrize(("changed", "kind"), [({}, "nearest"), ({"retrieve": "random"}, "random")])
def test_demonstrations_are_retrieved_as_answers_are(changed: dict[str, Any], kind: str) -> None:
    config = Config.model_validate({"train": {"demos": 2}, "answers": changed})
    found = training_demos(config, Pool(LexicalEmbedder(), SEEDS))
    assert found is not None and found.kind == kind
    assert len(found(MADE[0])) == 2


def test_no_demonstrations_where_none_are_wanted() -> None:
    pool = Pool(LexicalEmbedder(), SEEDS)
    assert training_demos(Config(), pool) is None
    assert training_demos(Config.model_validate({"train": {"demos": 2}, "answers": {"retrieve": "none"}}), pool) is None
