"""What is learnt from, and how much: demonstrations before a training row, and the weight of the seeds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from isara.build import build_trainer
from isara.config import Config, TrainConfig
from isara.embedders import LexicalEmbedder
from isara.engines.transformers.engine import TransformersEngine
from isara.errors import ConfigError
from isara.pool import Demonstrations, Pool
from isara.records import Prompt, QAPair, TrainingRow
from isara.render import open_renderer
from isara.stages import Model
from isara.stages import fit as fit_stage
from isara.testing import ScriptedEngine, word_renderer
from isara.training.anchors import make_anchors, questions, wanted
from isara.training.child import ChildTrainer
from isara.training.loss import labelled_logits
from isara.training.rows import make_rows
from isara.training.sft import SupervisedTrainer, held_at_once
from isara.training.teacher import MOST_NATS, TOP, Target, divergences, targets
from isara.watching import SILENT

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
    key = build_trainer(config, None, pool).key()
    assert key["demonstrations"] == {**nearest(2).key()}
    assert nearest(2).key() != nearest(3).key() != nearest(3, SEEDS[:3]).key()
    drawn = Demonstrations(pool, "random", 2, 0)
    assert drawn.key() != Demonstrations(pool, "random", 2, 1).key()
    assert "demonstrations" not in build_trainer(Config()).key()


def demonstrations(config: Config) -> Any:
    """What the trainer of a config shows before a row."""
    trainer = build_trainer(config, None, Pool(LexicalEmbedder(), SEEDS))
    assert isinstance(trainer, SupervisedTrainer)
    return trainer.retrieve


@pytest.mark.parametrize(("changed", "kind"), [({}, "nearest"), ({"retrieve": "random"}, "random")])
def test_demonstrations_are_retrieved_as_answers_are(changed: dict[str, Any], kind: str) -> None:
    config = Config.model_validate({"train": {"demos": 2}, "answers": changed})
    found = demonstrations(config)
    assert found is not None and found.kind == kind
    assert len(found(MADE[0])) == 2


def test_no_demonstrations_where_none_are_wanted() -> None:
    assert demonstrations(Config()) is None
    assert demonstrations(Config.model_validate({"train": {"demos": 2}, "answers": {"retrieve": "none"}})) is None


def divergence(model: Any, rows: list[TrainingRow], wanted: dict[tuple[int, ...], Target]) -> float:
    """Mean over all answer tokens of the rows, row by row and without padding."""
    found = []
    for row in rows:
        labels = torch.tensor([[-100] * len(row.prompt) + list(row.answer)])
        with torch.no_grad():
            logits, _ = labelled_logits(model, {"input_ids": torch.tensor([row.ids])}, labels)
        found.append(divergences(logits, [wanted[row.ids]]))
    return float(torch.cat(found).mean())


def test_distil_lowers_the_divergence_from_the_demonstrated_distribution(tiny_llama: Path, tmp_path: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    rows = make_rows(MADE, renderer, 1024, VOCABULARY)
    start = AutoModelForCausalLM.from_pretrained(tiny_llama)
    wanted = targets(start, rows, renderer, nearest(2), 1)
    before = divergence(start, rows, wanted)
    options: dict[str, Any] = {"loss": "distil", "teach": nearest(2), "learning_rate": 1e-2, "max_steps": 10}
    stats = SupervisedTrainer(device="cpu", lora_dropout=0.0, **options).fit(MADE, str(tiny_llama), tmp_path / "model")
    assert stats.first_loss == pytest.approx(before, rel=1e-4)
    after = divergence(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), rows, wanted)
    assert 0 <= after < 0.5 * before


def test_a_target_is_what_the_start_says_after_demonstrations_and_a_seed_is_its_own(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = make_rows([*SEEDS, *MADE, *MADE], renderer, 1024, VOCABULARY)
    wanted = targets(model, rows, renderer, nearest(2), 8)
    row, prompt = rows[-1], renderer.answer([demo for demo, _ in nearest(2)(MADE[0])], MADE[0])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt.ids + row.answer])).logits[0, len(prompt.ids) - 1 : -1]
    top = logits.log_softmax(-1).topk(TOP)
    torch.testing.assert_close(wanted[row.ids].ids, top.indices)
    torch.testing.assert_close(wanted[row.ids].logprobs, top.values, atol=1e-4, rtol=1e-4)
    seed = rows[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([seed.ids])).logits[0, len(seed.prompt) - 1 : -1]
    likelihood = logits.log_softmax(-1).gather(-1, torch.tensor(seed.answer)[:, None])[:, 0]
    torch.testing.assert_close(divergences(logits, [wanted[seed.ids]]), -likelihood, atol=1e-5, rtol=1e-5)


def test_a_divergence_is_that_of_the_top_and_one_bucket_for_the_rest_and_is_clipped() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 200).log_softmax(-1), torch.randn(3, 200)
    top = teacher.topk(TOP)
    target = Target(top.indices, top.values, MOST_NATS)
    q = student.softmax(-1).gather(-1, top.indices)
    p = top.values.exp()
    rest, other = 1 - p.sum(-1), 1 - q.sum(-1)
    wanted = (p * (p / q).log()).sum(-1) + rest * (rest / other).log()
    torch.testing.assert_close(divergences(student.clone(), [target]), wanted)
    torch.testing.assert_close(divergences(teacher.clone(), [target]), torch.zeros(3), atol=1e-5, rtol=0)
    sure = torch.zeros(3, 200)
    sure[:, 0] = 1000.0
    assert divergences(sure, [target]).tolist() == [MOST_NATS] * 3


def test_distil_without_demonstrations(tiny_llama: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"train": {"loss": "distil"}, "answers": {"retrieve": "none"}})
    trainer = build_trainer(config, None, Pool(LexicalEmbedder(), SEEDS))
    for use in (trainer.key, lambda: trainer.fit(MADE, str(tiny_llama), tmp_path / "model")):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value) == (
            "expected demonstrations for the teacher of `loss: distil`, found none: set answers.retrieve to "
            "nearest or random and answers.demos to 1 or more, or `loss: sft`"
        )


def test_another_model_teaches_where_it_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    other.save_pretrained(tmp_path / "reader")
    for file in Path(tiny_llama).glob("*token*"):
        (tmp_path / "reader" / file.name).write_bytes(file.read_bytes())
    renderer = open_renderer(str(tiny_llama))
    rows = make_rows(MADE, renderer, 1024, VOCABULARY)
    start = AutoModelForCausalLM.from_pretrained(tiny_llama)
    wanted = divergence(start, rows, targets(other, rows, renderer, nearest(2), 1))
    options: dict[str, Any] = {"loss": "distil", "teach": nearest(2), "max_steps": 1, "device": "cpu"}
    trainer = SupervisedTrainer(lora_dropout=0.0, **options)
    stats = trainer.with_teacher(str(tmp_path / "reader")).fit(MADE, str(tiny_llama), tmp_path / "model")
    assert stats.first_loss == pytest.approx(wanted, rel=1e-4)
    assert stats.first_loss != pytest.approx(divergence(start, rows, targets(start, rows, renderer, nearest(2), 1)))
    assert "taught_by" not in trainer.key() and ChildTrainer(**options).with_teacher("m").key()["taught_by"] == "m"


def test_a_pair_counts_by_its_weight_and_a_seed_by_the_seeds(tiny_llama: Path) -> None:
    heavy, light = replace(MADE[0], weight=3.0), replace(MADE[0], question="Who else?", weight=0.5)
    rows = make_rows([*SEEDS, heavy, light], open_renderer(str(tiny_llama)), 1024, VOCABULARY, seed_weight=2.0)
    assert rows[4].weight == pytest.approx(6 * rows[5].weight) and rows[0].weight == pytest.approx(4 * rows[5].weight)


def test_a_child_has_the_same_teacher(tiny_llama: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "device": "cpu", "loss": "distil", "teach": nearest(2)}
    found = []
    for kind in (SupervisedTrainer, ChildTrainer):
        out = tmp_path / kind.__name__
        stats = kind(**options).fit([*SEEDS, *MADE], str(tiny_llama), out)
        found.append((stats, (out / "model.safetensors").read_bytes(), kind(**options).key()))
    assert found[0] == found[1]
    assert found[0][2]["teacher"] == nearest(2).key()


def test_everyday_questions_are_many_short_and_drawn_by_the_seed() -> None:
    drawn = questions(0)
    assert len(set(drawn)) == 64
    assert max(len(question.split()) for question in drawn) < 20
    assert drawn == questions(0) != questions(1)
    assert sorted(drawn) == sorted(questions(1))
    assert [wanted(share, 80) for share in (0.0, 0.2, 0.5)] == [0, 20, 80]


def test_anchors_are_the_models_own_answers_that_end() -> None:
    asked: list[str] = []

    def complete(prompt: str, seed: int) -> str:
        asked.append(prompt)
        return " word" * 200 if len(asked) % 2 else f" It depends.\n\nQuestion: {seed}"

    renderer = word_renderer()
    with ScriptedEngine(complete) as engine:
        anchors = make_anchors(engine, renderer, 6, seed=3)
    assert [pair.answer for pair in anchors] == ["It depends."] * 6
    assert asked[0] == renderer.answer((), QAPair(questions(3)[0], "")).text
    assert [pair.question for pair in anchors] == questions(3)[1:12:2]


def test_fewer_anchors_where_too_few_answers_end(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedEngine(lambda prompt, seed: " word" * 200) as engine:
        assert make_anchors(engine, word_renderer(), 6, seed=0) == []
    assert caplog.messages == ["0 anchors of the 6 wanted: the model ended so many of its 64 answers"]


def test_anchors_are_rows_of_weight_one_without_demonstrations(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    anchor = QAPair("Why do boats float?", "They push water aside.")
    *rows, last = make_rows([*SEEDS, *MADE], renderer, 1024, VOCABULARY, nearest(2), 4.0, [anchor])
    assert last.prompt == renderer.answer((), anchor).ids
    assert last.weight == rows[-1].weight < rows[0].weight


def test_a_training_with_anchors_leaves_them_beside_the_model_and_again(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        trainer = SupervisedTrainer(anchors=0.4, max_steps=1, device="cpu", dtype="float32")
        fit_stage(trainer, 1, [*SEEDS, *MADE], Model("embedded", ""), SILENT, tmp_path / name)
        found.append((tmp_path / name / "anchors.jsonl").read_bytes())
        assert not (tmp_path / name / "model" / "anchors.jsonl").exists(), "no part of what is exported"
    anchors = [QAPair.from_json(json.loads(line)) for line in found[0].splitlines()]
    assert found[0] == found[1]
    assert len(anchors) == 3
    assert json.loads((tmp_path / "one" / "train.json").read_text())["rows"] == 8
    assert {pair.question for pair in anchors} < set(questions(0))
    assert "made of anchors" in trainer.key()


def test_a_share_that_leaves_no_room_for_pairs() -> None:
    with pytest.raises(ConfigError) as caught:
        SupervisedTrainer(anchors=1.0)
    assert str(caught.value) == "expected anchors in [0, 1), found 1.0: name a share of the rows"


@pytest.mark.parametrize(
    ("longest", "sizes"), [(60, (8, 1)), (128, (8, 1)), (129, (4, 2)), (400, (2, 4)), (2000, (1, 8))]
)
def test_long_rows_share_a_step_among_more_passes(longest: int, sizes: tuple[int, int]) -> None:
    assert held_at_once(longest, 8, 1) == sizes


def test_a_step_of_several_passes_is_the_same_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_llama: Path
) -> None:
    whole = fit(tmp_path / "whole", tiny_llama, max_steps=3)
    monkeypatch.setattr("isara.training.sft.MOST_TOKENS", 1)
    parted = fit(tmp_path / "parted", tiny_llama, max_steps=3)
    assert (whole.micro_batch > 1, parted.micro_batch) == (True, 1)
    assert (parted.steps, parted.rows) == (whole.steps, whole.rows)
    assert parted.last_loss == pytest.approx(whole.last_loss, rel=1e-3)
