"""The preference step: what is preferred to what, its records, and what it does to a model."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from isara.build import build_parts, build_preference
from isara.compare.arms import find_arms
from isara.compare.compare import compare
from isara.config import Config, load_config
from isara.errors import ConfigError, RunError, TrainingError
from isara.files import sums_file
from isara.folder import model_stage, stage_folder
from isara.loop import run
from isara.preference import check_enough
from isara.records import Draw, Preference, QAPair, TrainingRow
from isara.render import open_renderer
from isara.report.cards import model_card
from isara.report.facts import read_run
from isara.testing import ScriptedEngine
from isara.training.child import ChildTrainer
from isara.training.rows import make_preference_rows
from isara.training.sft import SupervisedTrainer
from tests.compare_world import World as Comparing
from tests.compare_world import recipe, steps_of, trained_on
from tests.doubles import SEEDS, CountingTrainer, Preferring, hyrule
from tests.test_loop import Crash, align, crash_after, stored, tree
from tests.test_reader import FROM, Reading

DPO = "prefer.method=dpo"
# Eight seeds and more, so that they make a step.
MORE = [*SEEDS, *(QAPair(f"Is gate {n} open at night?", f"Gate {n} is; knock twice.") for n in range(6))]
SPIN = ("prefer.method=spin", "train.start=last", "generate.accept=0")


def contrast(run: Path, number: int) -> list[dict[str, Any]]:
    path = stage_folder(run, number, "prefer") / "contrast.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_accepted_answers_are_preferred_to_zero_shot_ones_of_the_model_that_gave_them(tmp_path: Path) -> None:
    preferring, engines = Preferring(), dict[str, ScriptedEngine]()

    def watched(model: str) -> ScriptedEngine:
        return engines.setdefault(model.removeprefix(f"{tmp_path}/run/"), hyrule(model))

    result = align(tmp_path / "run", DPO, preference=preferring, engine=watched)
    assert [(len(rows), start) for rows, start in preferring.calls] == [
        (12, str(tmp_path / "run/iteration-01/train/model")),
        (24, str(tmp_path / "run/iteration-02/train/model")),
    ]
    for row, accepted in zip(contrast(tmp_path / "run", 1), result.accepted, strict=False):
        draw = row["rejected_draw"]
        assert (row["id"], row["answer"]) == (accepted.id, accepted.answer)
        assert draw["demo_ids"] == [] and draw["prompt"] == f"Question: {accepted.question}\nAnswer:"
        again = hyrule("base/model").answer(draw["prompt"], draw["seed"]).split("\n\n")[0]
        assert draw["text"] == again.strip() != accepted.answer
    assert {row["weights"] for row in contrast(tmp_path / "run", 2)} == {stored(tmp_path / "run", 2)[0]["weights"]}
    # M_1 is the model of the step, which asks and answers next.
    assert "iteration-01/prefer/model" in engines and "iteration-01/train/model" not in engines
    assert model_stage(tmp_path / "run", 2).name == "prefer"
    assert (result.final / "weights.json").read_bytes() == (
        tmp_path / "run/iteration-02/prefer/model/weights.json"
    ).read_bytes()


def test_with_the_newest_pairs_alone_earlier_preferences_are_left_out(tmp_path: Path) -> None:
    preferring = Preferring()
    align(tmp_path / "run", DPO, "train.data=newest", preference=preferring)
    assert [len(rows) for rows, _ in preferring.calls] == [12, 12]


def test_where_the_reader_answers_its_own_answers_are_the_others(tmp_path: Path) -> None:
    align(tmp_path / "run", DPO, FROM, "iterations=1", reader=Reading(), preference=Preferring())
    [row, *_] = contrast(tmp_path / "run", 1)
    assert row["weights"] == stored(tmp_path / "run", 1)[0]["weights"]
    again = hyrule("reader/train/model").answer(row["rejected_draw"]["prompt"], row["rejected_draw"]["seed"])
    assert row["rejected_draw"]["text"] == again.split("\n\n")[0].strip()


def test_spin_prefers_the_seeds_to_the_answers_of_the_model_it_starts_from(tmp_path: Path) -> None:
    preferring, trainer = Preferring(), CountingTrainer()
    result = align(tmp_path / "run", *SPIN, "iterations=3", seeds=MORE, trainer=trainer, preference=preferring)
    assert trainer.calls == [(len(MORE), "base/model")]  # fine-tuned once
    run = tmp_path / "run"
    assert [start.removeprefix(f"{run}/") for _, start in preferring.calls] == [
        "iteration-01/train/model",
        "iteration-01/prefer/model",
        "iteration-02/prefer/model",
    ]
    # Those of the last iteration are learnt from again, as in SPIN's code.
    assert [len(rows) for rows, _ in preferring.calls] == [len(MORE), 2 * len(MORE), 2 * len(MORE)]
    assert {each.pair for rows, _ in preferring.calls for each in rows} == set(MORE)
    assert len({row["weights"] for number in (1, 2, 3) for row in contrast(run, number)}) == 3
    assert result.accepted == [] and not stage_folder(run, 2, "train").exists()


@pytest.mark.parametrize("calls", [18, 40, 58])
@pytest.mark.parametrize("settings", [(DPO, "generate.batch=4"), (*SPIN, "generate.batch=3")])
def test_a_run_with_preferences_that_crashed_ends_with_the_bytes_of_an_unbroken_one(
    tmp_path: Path, calls: int, settings: tuple[str, ...]
) -> None:
    def made(out: Path, **changed: Any) -> None:
        align(out, *settings, seeds=MORE, preference=Preferring(), **changed)

    made(tmp_path / "whole")
    if settings[0] == SPIN[0]:
        calls //= 3
    with pytest.raises(Crash):
        made(tmp_path / "run", engine=crash_after(calls))
    made(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_whole_batches_of_own_answers_are_not_asked_for_twice(tmp_path: Path) -> None:
    settings = (*SPIN, "generate.batch=3", "iterations=1")
    with pytest.raises(Crash):
        align(tmp_path / "run", *settings, seeds=MORE, preference=Preferring(), engine=crash_after(7))
    engine = hyrule("iteration-01/train/model")
    align(tmp_path / "run", *settings, seeds=MORE, preference=Preferring(), engine=lambda model: engine)
    assert len(engine.prompts) == len(MORE) - 6


def test_rows_of_another_model_are_refused(tmp_path: Path) -> None:
    settings = (*SPIN, "iterations=1")
    with pytest.raises(Crash):
        align(
            tmp_path / "run", *settings, "generate.batch=3", seeds=MORE, preference=Preferring(), engine=crash_after(7)
        )
    path = stage_folder(tmp_path / "run", 1, "prefer") / "contrast.jsonl"
    path.write_text(path.read_text().replace('"weights": "', '"weights": "0'))
    with pytest.raises(RunError, match=r"contrast.jsonl is missing or damaged"):
        align(tmp_path / "run", *settings, "generate.batch=3", seeds=MORE, preference=Preferring())
    assert sums_file(path).exists()


def test_equal_answers_are_no_preference_and_too_few_are_one_line(tmp_path: Path) -> None:
    def parrot(model: str) -> ScriptedEngine:
        engine, complete = hyrule(model), hyrule(model).answer
        if "iteration-01/prefer" in model:
            engine.answer = lambda prompt, seed: (
                " Nobody  knows.\n\nQuestion:" if prompt.endswith("Answer:") else complete(prompt, seed)
            )
        return engine

    def made(*settings: str) -> Any:
        changed: dict[str, Any] = {"pair_filters": [], "preference": Preferring(), "engine": parrot}
        return align(tmp_path / "run", DPO, "train.data=newest", *settings, **changed)

    with pytest.raises(TrainingError) as error:
        made()
    assert str(error.value) == (
        "iteration 2: expected at least 8 pairs whose answer differs from the model's own, found 0 of 12: its own are "
        "as good, so finish the run with --set iterations=1, or begin one with more pairs, with answers.temperature "
        "above 0, or with prefer.method none"
    )
    assert made("iterations=1").best == 1  # what that line names finishes the run


@pytest.mark.parametrize(
    ("left", "asked", "t", "said"),
    [
        (7, 12, 1, "found 7 of 12: its own are as good, so begin a run with more pairs, "),
        (5, 5, 1, "found 5 of 5: there are too few pairs, so begin a run with more pairs, "),
        (5, 6, 3, "found 5 of 6: there are too few pairs, so finish the run with --set iterations=2, or begin one "),
    ],
)
def test_why_there_are_too_few_and_what_can_be_finished(left: int, asked: int, t: int, said: str) -> None:
    with pytest.raises(TrainingError) as error:
        check_enough(some()[:left], asked, t)
    assert said in str(error.value)
    check_enough(some()[:8], 8, 1)


def test_facts_card_and_table_know_of_the_step(tmp_path: Path) -> None:
    align(tmp_path / "run", DPO, "iterations=1", preference=Preferring())
    found = read_run(tmp_path / "run")
    [facts] = found.iterations
    assert facts.preference is not None and facts.made is facts.preference
    assert (facts.steps, facts.preference.stats.rows) == (2, 12)
    assert facts.alone == sum(row["rejected_draw"]["tokens"] for row in contrast(tmp_path / "run", 1)) > 0
    assert "1 steps on 12 pairs of answers to prefer accepted answers to those that the model" in model_card(found, 1)


def test_a_step_may_not_be_resumed_with_another_beta(tmp_path: Path) -> None:
    align(tmp_path / "run", DPO, preference=Preferring())
    with pytest.raises(RunError, match="prefer.beta was 0.1 and is 0.3"):
        align(tmp_path / "run", DPO, "prefer.beta=0.3", preference=Preferring())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("prefer.method=spin",), "expected `generate.accept: 0` and `train.start: last` for `prefer.method: spin`"),
        ((DPO, "answers.demos=0"), "expected `answers.demos` above 0 and `answers.retrieve` nearest or random"),
        (
            (DPO, "generate.accept=7"),
            "expected `generate.accept` of at least 8 for `prefer.method: dpo`, whose optimiser step has as many rows "
            "(it is 7)",
        ),
        ((DPO, "answers.retrieve=none"), "expected `answers.demos` above 0 and `answers.retrieve` nearest or random"),
    ],
)
def test_settings_that_leave_nothing_to_prefer(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, settings)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert load_config(None, [DPO, "generate.accept=8"]) and load_config(None, [DPO, "generate.accept=0"])


def test_the_trainer_is_that_of_the_run_with_options_of_its_own() -> None:
    base = Config.model_validate({"train": {"method": "lora", "max_steps": 3, "anchors": 0.2, "lora_r": 4}})
    assert build_preference(base) is None
    config = base.model_copy(update={"prefer": base.prefer.model_copy(update={"method": "dpo", "beta": 0.2})})
    made = build_preference(config)
    assert isinstance(made, SupervisedTrainer)
    assert (made.loss, made.beta, made.learning_rate, made.num_train_epochs) == ("dpo", 0.2, 5e-5, 1)
    assert (made.max_steps, made.anchors, made.lora_r) == (None, 0, 4)
    assert made.key()["beta"] == 0.2 and "beta" not in SupervisedTrainer().key()
    full = config.model_copy(update={"train": config.train.model_copy(update={"method": "full"})})
    assert getattr(build_preference(full), "learning_rate", None) == 5e-6
    nothing = config.model_copy(update={"generate": config.generate.model_copy(update={"accept": 0})})
    assert build_preference(nothing) is None


def some(rejected: str = "Nobody knows, I fear.", finish: Any = "stop") -> list[Preference]:
    return [Preference(pair, Draw(rejected, 5, finish, "", 0)) for pair in MORE]


def margins(folder: Path, preferences: list[Preference]) -> list[float]:
    """log p(chosen) - log p(rejected), zero-shot, over all the rows of the vocabulary."""
    model = AutoModelForCausalLM.from_pretrained(folder)

    def logprob(row: TrainingRow) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, len(row.prompt) - 1 : -1]
        return float(logits.log_softmax(-1).gather(-1, torch.tensor(row.answer)[:, None]).sum())

    rows = make_preference_rows(preferences, open_renderer(str(folder)), 1024, 10**6)
    return [logprob(chosen) - logprob(rejected) for chosen, rejected in rows]


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_model_learns_to_prefer_and_its_loss_is_that_of_dpo(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, method: Any
) -> None:
    start = tiny_models[family]
    options: dict[str, Any] = {"loss": "dpo", "method": method, "device": "cpu", "lr_scheduler_type": "constant"}
    trainer = SupervisedTrainer(
        **options, learning_rate=3e-3, max_steps=2, per_device_train_batch_size=len(MORE), warmup_ratio=0
    )
    stats = trainer.prefer(some(), str(start), tmp_path / "model")
    # The model is its own reference before it has moved.
    assert stats.first_loss == pytest.approx(math.log(2), abs=1e-5)
    assert (stats.rows, stats.steps) == (len(MORE), 2)
    before, after = margins(start, some()), margins(tmp_path / "model", some())
    assert all(now > then for now, then in zip(after, before, strict=True))
    one = replace(trainer, max_steps=1)
    one.prefer(some(), str(start), tmp_path / "one")
    moved = [now - then for now, then in zip(margins(tmp_path / "one", some()), before, strict=True)]
    expected = sum(-math.log(1 / (1 + math.exp(-trainer.beta * gain))) for gain in moved) / len(moved)
    assert stats.last_loss == pytest.approx(expected, rel=2e-3)


def test_equal_steps_leave_equal_bytes_in_a_child_too_and_no_bar(
    tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"loss": "dpo", "method": "lora", "device": "cpu", "max_steps": 2, "learning_rate": 1e-3}
    found = []
    for kind, name in ((SupervisedTrainer, "one"), (SupervisedTrainer, "two"), (ChildTrainer, "child")):
        stats = kind(**options).prefer(some(), str(tiny_llama), tmp_path / name)
        found.append((stats, (tmp_path / name / "model.safetensors").read_bytes()))
    assert found[0] == found[1] == found[2]
    assert "reference log probs" not in capfd.readouterr().err and "TQDM_DISABLE" not in os.environ


def test_an_answer_that_was_cut_has_no_end(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    ended = make_preference_rows(some(), renderer, 1024, 10**6)[0]
    cut = make_preference_rows(some(finish="length"), renderer, 1024, 10**6)[0]
    assert ended[1].answer[: len(cut[1].answer)] == cut[1].answer and len(ended[1].answer) == len(cut[1].answer) + 1
    assert ended[0] == cut[0] == renderer.training_rows(MORE[0])[-1]
    assert ended[1].prompt == ended[0].prompt


def test_pairs_of_which_one_answer_is_too_long_are_left_out(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    renderer = open_renderer(str(tiny_llama))
    mixed = [*some()[:2], Preference(MORE[2], Draw("la " * 400, 400, "stop", "", 0))]
    assert len(make_preference_rows(mixed, renderer, 200, 10**6)) == 2
    assert "preferences leave out 1 of 3 pairs with more than 200 tokens in one of their answers" in caplog.text
    with pytest.raises(TrainingError, match="expected preferences of at most 9 tokens an answer, found none among 3"):
        make_preference_rows(mixed, renderer, 9, 10**6)


def test_a_trl_that_is_too_old_is_named_before_the_run(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isara.training.trl.version", lambda name: "0.24.0")
    SupervisedTrainer().check(str(tiny_llama))
    with pytest.raises(TrainingError) as error:
        SupervisedTrainer(loss="dpo").check(str(tiny_llama))
    assert str(error.value) == (
        "expected trl 0.29.1 or newer for the preferences of `prefer`, found 0.24.0: install it, or set prefer.method "
        "to none"
    )


def test_a_whole_run_of_a_tiny_model_with_preferences(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"question": pair.question, "answer": pair.answer} for pair in MORE]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        *SPIN,
        "iterations=2",
        "retrieve.embedder=lexical",
        "answers.max_new_tokens=8",
        "engine.child_process=false",
    ]
    settings += [
        "heldout=0.2",
        "evaluate.answers=0",
        "evaluate.patience=null",
        "train.method=lora",
        "train.lora_r=4",
        "train.num_train_epochs=1",
    ]
    config = load_config(None, settings, model=str(tiny_llama), seeds=tmp_path / "seeds.jsonl", out=tmp_path / "run")
    run(build_parts(config))
    adapter = json.loads((tmp_path / "run/iteration-02/prefer/model/adapter/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "../../../../iteration-01/prefer/model"
    assert read_run(tmp_path / "run").iterations[1].steps == 2


def test_arms_of_a_comparison(tmp_path: Path) -> None:
    world = Comparing()
    base, make = recipe(tmp_path / "recipe", "generate.accept=10", world=world)
    base = replace(base, seeds=MORE)
    preferring = Preferring()

    def prefers(config: Config, found: Any) -> Any:
        made = make(config, found)
        return replace(made, preference=preferring if config.prefer.method != "none" else None)

    found = compare(base, find_arms(["isara", "dpo", "spin"]), [0], tmp_path / "out", make=prefers)
    assert not found.failures
    # What comes before the step is made once.
    assert len(trained_on(world, "isara")) == 2 and len(trained_on(world, "dpo")) == 1
    assert len(trained_on(world, "spin")) == 1 and steps_of(tmp_path / "out", "spin") == [len(MORE)]
    assert [line.arm for line in found.lines] == ["isara", "dpo", "spin"]
    assert found.costs["dpo"][0].generated > found.costs["isara"][0].generated


def test_equal_steps_are_those_before_the_preference_step(tmp_path: Path) -> None:
    world = Comparing()
    base, make = recipe(tmp_path / "recipe", DPO, "generate.accept=10", world=world)

    def prefers(config: Config, found: Any) -> Any:
        return replace(make(config, found), preference=Preferring())

    base = replace(base, preference=Preferring())
    found = compare(base, find_arms(["isara", "generated-only"]), [0], tmp_path / "out", make=prefers)
    assert not found.failures
    # The arm has a step of preferences of its own behind them.
    assert steps_of(tmp_path / "out", "generated-only") == steps_of(tmp_path / "out", "isara") == [14, 24]
    assert [each.steps for each in found.measured if each.arm == "generated-only"] == [15, 25]


@pytest.mark.parametrize("name", ["shuffled-answers", "humpback", "i-sheep", "ssd", "self-instruct"])
def test_arms_whose_answers_are_not_to_be_preferred_have_no_such_step(tmp_path: Path, name: str) -> None:
    base = load_config(None, [DPO], out=str(tmp_path))
    assert find_arms([name])[0].config(base, 0, tmp_path / "arm").prefer.method == "none"
