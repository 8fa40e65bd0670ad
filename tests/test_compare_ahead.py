"""How long a comparison will take: every arm by the steps of its runs, and what arms share once."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isara.compare.ahead import Ahead, look_ahead, sentences
from isara.compare.arms import changed, find_arms
from isara.compare.compare import Bench, compare, set_up
from isara.compare.plan import plan
from isara.compare.tasks import TaskScore
from isara.config import Config
from isara.estimate import Rates
from isara.parts import Parts
from tests.compare_world import recipe
from tests.doubles import Preferring
from tests.test_reader import Reading

TRAINING = Rates(1e12, 0.0, 0.0, 2.0, 7.0)  # only trainings take time: 2 s a step, and 7 s beside
GROWING = ("train.max_steps=null", "train.num_train_epochs=2", "train.per_device_train_batch_size=2")
WRITING = Rates(1e12, 0.0, 1.0, 0.0, 0.0)  # only writing does: a second a token


def ahead(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, names: Sequence[str], rates: Rates, seeds: Sequence[int] = (0,)
) -> dict[str, Ahead]:
    monkeypatch.setattr("isara.compare.ahead.measure", lambda parts, asker: rates)
    return {each.arm: each for each in look_ahead(bench, find_arms(names), seeds)}


def training(parts: Parts, rows: int) -> float:
    """Seconds of a training on so many rows, each as long as a seed's."""
    return 7.0 + 2.0 * parts.config.train.steps(rows)


def test_trainings_take_the_steps_of_their_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe", *GROWING)
    bench = set_up(base, tmp_path / "out", make=make)
    known, accept = len(base.seeds), base.config.generate.accept
    found = ahead(monkeypatch, bench, ["icl-knn", "sft-seeds", "isara", "sft-seeds-equal"], TRAINING, [0, 1])
    assert list(found) == ["icl-knn", "sft-seeds", "isara", "sft-seeds-equal"]  # as they are run
    assert found["icl-knn"].added == pytest.approx(0.0, abs=1e-6) and found["icl-knn"].runs == 2
    assert found["sft-seeds"].added == pytest.approx(2 * training(base, known))
    equal = sum(training(base, known + t * accept) for t in (1, 2))
    assert found["sft-seeds-equal"].added == pytest.approx(2 * equal)  # seeds alone, isara's steps
    assert found["isara"].added == pytest.approx(2 * equal, rel=0.3)  # what is made is nearly as long as a seed
    assert not (tmp_path / "out").exists()


def test_what_arms_share_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe")
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, ["zero-shot", "icl-random", "isara", "pool-all"], WRITING, [0, 1])
    assert found["zero-shot"].added == pytest.approx(found["zero-shot"].alone / 2)  # one base model, asked once
    assert found["icl-random"].alone > found["icl-random"].added > found["icl-random"].alone / 2  # others each seed
    apart, shared = (found[name].alone - found[name].added for name in ("isara", "pool-all"))
    assert shared > 2 * apart  # beside the base model's evaluation the pairs of iteration 1
    assert found["pool-all"].added > 0


def test_a_reader_is_trained_once_a_seed_whoever_it_answers_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, make = recipe(tmp_path / "recipe")
    base = replace(base, reader=Reading())
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, ["isara", "pool-all"], TRAINING, [0])
    assert found["pool-all"].alone - found["pool-all"].added > 7.0
    assert found["isara"].alone == found["isara"].added


def test_what_is_done_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe")
    names = ["icl-knn", "isara", "sft-seeds-equal"]
    compare(base, find_arms(names), [0], tmp_path / "out", make=make)
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, names, TRAINING)
    assert sentences(list(found.values())) == ["every run is done"]
    more = ahead(monkeypatch, bench, [*names, "pool-all"], WRITING)
    assert more["pool-all"].alone > more["pool-all"].added > 0  # the pairs of iteration 1 are there
    assert [each.runs for each in more.values()] == [0, 0, 1, 0]


def test_times_are_said_arm_by_arm(tmp_path: Path) -> None:
    lines = sentences([Ahead("isara", 3, 600.0, 600.0), Ahead("pool-all", 1, 300.0, 100.0), Ahead("icl-knn")])
    assert lines == [
        "isara: 3 runs, 10 min",
        "pool-all: 1 run, 2 min, 5 min if it shared nothing",
        "all: 12 min, at the speed of just now",
    ]


def test_second_answers_of_the_recipe_are_no_cost_of_an_arm_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generating(*settings: str) -> Any:
        base, make = recipe(tmp_path / f"recipe{len(settings)}", *settings)
        found = ahead(monkeypatch, set_up(base, tmp_path / "out", make=make), ["isara", "no-filters"], WRITING)
        return found["isara"].alone, found["no-filters"].alone

    plain, checked = generating(), generating("filters.agreement=0.5")
    assert checked[0] > plain[0]
    assert checked[1] <= plain[1] * 1.2


def test_an_arm_that_adds_second_answers_pays_for_them_and_shares_no_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, make = recipe(tmp_path / "recipe")
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, ["isara", "seeds-check"], WRITING)
    assert found["seeds-check"].alone > 1.2 * found["isara"].alone
    shared = found["seeds-check"].alone - found["seeds-check"].added
    assert shared < 0.3 * found["isara"].alone  # the base model's evaluation
    assert not any("pairs of iteration 1" in line for line in plan(bench, find_arms(["isara", "seeds-check"]), [0]))


def test_equal_steps_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe", *GROWING, "train.data=newest")
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, ["isara", "sft-seeds-equal"], TRAINING)
    rows = len(base.seeds) + base.config.generate.accept
    assert found["sft-seeds-equal"].added == pytest.approx(training(base, rows))


def test_models_that_go_on_from_the_last_have_seen_the_steps_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, make = recipe(tmp_path / "recipe", *GROWING, "train.start=last")
    bench = set_up(base, tmp_path / "out", make=make)
    found = ahead(monkeypatch, bench, ["isara", "sft-seeds-equal", "generated-only"], TRAINING)
    known, accept = len(base.seeds), base.config.generate.accept
    first, second = (base.config.train.steps(known + t * accept) for t in (1, 2))
    assert found["sft-seeds-equal"].added == pytest.approx(7.0 + 2.0 * first + 7.0 + 2.0 * (first + second))
    assert found["generated-only"].added == pytest.approx(14.0 + 2.0 * (first + second), rel=0.3)


def test_a_preference_step_counts_for_who_takes_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe", *GROWING, "iterations=1", "generate.accept=8")
    base = replace(base, config=changed(base.config, {"prefer.method": "dpo"}), preference=Preferring())

    def preferring(config: Config, parts: Parts) -> Parts:
        return replace(make(config, parts), preference=Preferring() if config.generate.accept else None)

    bench = set_up(base, tmp_path / "out", make=preferring)
    found = ahead(monkeypatch, bench, ["isara", "sft-seeds-equal"], TRAINING)
    accept, size = base.config.generate.accept, base.config.train.per_device_train_batch_size
    preferred = math.ceil(base.config.prefer.num_train_epochs * math.ceil(accept / size))
    fit = training(base, len(base.seeds) + accept)
    assert found["sft-seeds-equal"].added == pytest.approx(fit + 2.0 * preferred)
    assert found["isara"].added == pytest.approx(fit + 7.0 + 4.0 * preferred, rel=0.3)  # two answers a row


def test_every_choice_is_trained_and_the_chosen_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe")
    bench = set_up(base, tmp_path / "out", make=make)
    (arm,) = find_arms(["sft-seeds-tuned"])
    choices = arm.choices(arm.config(base.config, 0, tmp_path / "x"))
    rows = round(0.8 * len(base.seeds))
    tried = sum(7.0 + 2.0 * changed(base.config, choice).train.steps(rows) for choice in choices)
    found = ahead(monkeypatch, bench, ["sft-seeds-tuned"], TRAINING)
    assert found["sft-seeds-tuned"].added == pytest.approx(tried + training(base, len(base.seeds)))


def test_another_preamble_is_asked_for_itself_and_items_of_a_task_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, make = recipe(tmp_path / "recipe")
    bench = set_up(base, tmp_path / "out", make=make)
    asked = ahead(monkeypatch, bench, ["icl-fixed", "urial"], WRITING)
    assert asked["urial"].added == asked["urial"].alone
    task = TaskScore.__new__(TaskScore)  # nothing of it is looked at
    silent = ahead(monkeypatch, replace(bench, task=task), ["icl-fixed"], WRITING)["icl-fixed"].alone
    assert asked["icl-fixed"].alone / silent == pytest.approx((len(bench.tests) + 3) / 3)  # the run's own examples


def test_weights_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, make = recipe(tmp_path / "recipe")
    hashed: list[str] = []

    def weights(model: str) -> str:
        hashed.append(model)
        return "3d5a"

    base = replace(base, weights=weights)
    ahead(monkeypatch, set_up(base, tmp_path / "out", make=make), ["isara", "pool-all", "icl-knn"], TRAINING, [0, 1])
    assert len(hashed) == 1
