"""The arms of a comparison: what each one changes, and that it changes nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from isara.compare.arms import ARMS, Arm, find_arms
from isara.compare.trainers import ShuffledAnswers
from isara.config import load_config, sized
from isara.folder import read_config
from isara.pool import Pool
from isara.testing import HashEmbedder
from tests.compare_world import NAMES, Smith, World, lay_out, scores, steps_of, stored, trained_on
from tests.doubles import SEEDS


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


# Beside `out`, `seed` and `evaluate.patience`, which differ in every arm.
FROM = {"questions.from", "answers.from"}
CHECKS = {"filters.agreement", "filters.kind"}
CHANGES: dict[str, set[str]] = {
    **dict.fromkeys(("zero-shot", "icl-fixed", "icl-random", "icl-knn"), {"iterations"}),
    "sft-seeds": {"iterations", "generate.accept"},
    "sft-seeds-equal": {"iterations", "generate.accept"},
    "sft-seeds-knn": {"iterations", "generate.accept"},
    "isara": set(),
    "isara-knn": set(),
    "one-shot": {"iterations", "generate.accept"},
    "random-demos": {"answers.retrieve"},
    "no-filters": {
        f"filters.{name}"
        for name in (
            *("min_question_tokens", "max_question_tokens", "min_answer_tokens", "novelty", "near_duplicate"),
            *("repetition", "echo", "copied", "form", "truncated", "run_on", "language"),
            *("unsupported_numbers", "unsupported_contacts", "agreement", "kind"),
        )
    },
    "generated-only": {"train.data"},
    "shuffled-answers": set(),
    "start-last": {"train.start"},
    "data-newest": {"train.data"},
    "last-newest": {"train.start", "train.data"},
    "pool-all": {"retrieve.pool"},
    "seeds-pool": set(),
    "context-distillation": {"train.loss", *FROM},
    **dict.fromkeys(("reader", "reader-answers", "no-reader"), FROM),
    "reader-distillation": {"train.loss", *FROM},
    "in-context-tuned": {"train.demos"},
    "seeds-ask": FROM,
    "seeds-check": CHECKS,
    "kind-check": CHECKS,
    "by-kind": {"questions.focus", *CHECKS},
    "no-check": CHECKS,
    "no-kinds": {"filters.kind"},
    "base-asks": FROM,
    "worst-focus": {"questions.focus"},
    "balanced-focus": {"questions.focus"},
    **dict.fromkeys(
        ("select-natural", "select-icl-gain", "select-question", "select-agree", "select-seeds"),
        {"select.answers", "select.rule"},
    ),
    "anchors": {"train.anchors"},
    "seed-weight": {"train.seed_weight"},
    "score-weights": {"train.weights", "select.scores"},
    "dpo": {"prefer.method"},
    "spin": {"generate.accept", "train.start", "prefer.method", *FROM},
    "reader-knn": {"iterations", "generate.accept", "train.demos", "train.num_train_epochs"},
    "urial": {"iterations"},
    "sft-seeds-tuned": {"iterations", "generate.accept"},
    "ssd": {
        *("iterations", "generate.accept", "answers.retrieve", "train.data"),
        *(f"filters.{name}" for name in ("min_answer_tokens", "repetition", "echo", "copied")),
        *("filters.unsupported_numbers", "filters.unsupported_contacts", *CHECKS),
        *FROM,
    },
    "self-instruct": {
        *CHECKS,
        *("iterations", "generate.accept", "answers.retrieve"),
        *("questions.temperature", "questions.top_p"),
        *FROM,
    },
    "self-align": CHECKS,
    "i-sheep": {"answers.retrieve", "train.data", *CHECKS, *FROM},
    "humpback": CHECKS,
}


@pytest.mark.parametrize("arm", ARMS, ids=NAMES)
def test_an_arm_changes_nothing_else_in_the_config(arm: Arm) -> None:
    base = load_config(None, ["iterations=3"], out="/runs/base")
    own = arm.config(base, 7, Path("/runs/own"))
    before, after = leaves(base.model_dump()), leaves(own.model_dump())
    differing = {key for key in before if before[key] != after[key]}
    common = {"evaluate.patience", "evaluate.seeds_only", "evaluate.reader", "evaluate.answers"}
    assert differing == CHANGES[arm.name] | {"out", "seed"} | common
    assert (own.seed, own.out, own.evaluate.patience) == (7, "/runs/own", None)


@pytest.mark.parametrize("weights", [4_000_000, 135_000_000, 2_000_000_000])
def test_every_arm_can_be_run_at_every_size(weights: int) -> None:
    base, _ = sized(load_config(None, ["iterations=3"]), weights)
    for arm in ARMS:
        own = arm.config(base, 7, Path("/runs/own"))
        assert own.select.answers == 1 or own.answers.temperature, arm.name


def test_the_arms_that_break_the_rule_of_no_instructions_say_so() -> None:
    assert set(CHANGES) == set(NAMES)
    marked = {arm.name for arm in ARMS if arm.instructions}
    assert marked == {"urial", "self-instruct", "self-align", "i-sheep", "humpback"}


def test_zero_shot_asks_the_base_model_with_nothing_before_the_question(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "zero-shot")
    assert world.trained == []
    rows = scores(tmp_path / "out", "zero-shot")
    assert [(row["iteration"], row["exported"], row["steps"], row["demo_ids"]) for row in rows] == [
        (0, True, 0, [])
    ] * 9


def test_icl_fixed_shows_the_same_seed_pairs_to_every_question(tmp_path: Path) -> None:
    lay_out(tmp_path, "icl-fixed", (0, 1))
    shown = [{tuple(row["demo_ids"]) for row in scores(tmp_path / "out", "icl-fixed", seed)} for seed in (0, 1)]
    assert [len(each) for each in shown] == [1, 1] and shown[0] != shown[1]
    assert len(shown[0].pop()) == 2


def test_icl_random_draws_anew_for_each_question_and_seed(tmp_path: Path) -> None:
    lay_out(tmp_path, "icl-random", (0, 1))
    shown = [[row["demo_ids"] for row in scores(tmp_path / "out", "icl-random", seed)] for seed in (0, 1)]
    assert len(set(map(tuple, shown[0]))) > 2 and shown[0] != shown[1]


def test_icl_knn_shows_the_nearest_seed_pairs(tmp_path: Path) -> None:
    lay_out(tmp_path, "icl-knn")
    pool = Pool(HashEmbedder(), SEEDS)
    for row in scores(tmp_path / "out", "icl-knn"):
        assert row["demo_ids"] == [pair.id for pair, _ in pool.nearest(row["question"], 2)]


def test_a_trained_model_may_be_asked_after_the_nearest_seed_pairs_too(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,isara-knn,sft-seeds-equal,sft-seeds-knn")
    # Nothing is made or trained a second time for it: the arms differ in how their models are asked alone.
    assert {Path(out).relative_to(tmp_path / "out/arms").parts[0] for out, _, _ in world.trained} == {
        "isara",
        "sft-seeds-equal",
    }
    pool = Pool(HashEmbedder(), SEEDS)
    for asked, plain in (("isara-knn", "isara"), ("sft-seeds-knn", "sft-seeds-equal")):
        rows = scores(tmp_path / "out", asked)
        assert {(row["iteration"], row["steps"]) for row in rows} == {
            (row["iteration"], row["steps"]) for row in scores(tmp_path / "out", plain)
        }
        for row in rows:
            assert row["demo_ids"] == [pair.id for pair, _ in pool.nearest(row["question"], 2)]


def test_sft_on_the_seeds_trains_once_on_the_seeds_alone(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "sft-seeds")
    assert trained_on(world, "sft-seeds") == [(SEEDS, str(tmp_path / "recipe/base"))]


def test_sft_at_equal_steps_takes_the_steps_of_each_iteration(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "sft-seeds-equal,isara")
    assert trained_on(world, "sft-seeds-equal") == [(SEEDS, str(tmp_path / "recipe/base"))] * 2
    assert steps_of(tmp_path / "out", "isara") == [10, 16]
    for steps in (10, 16):
        run = tmp_path / f"out/arms/sft-seeds-equal/seed-0/steps-{steps}"
        assert read_config(run)["train"]["max_steps"] == steps
        assert json.loads((run / "iteration-01/train/train.json").read_text())["steps"] == steps
    rows = scores(tmp_path / "out", "sft-seeds-equal")[::9]
    assert [(row["iteration"], row["steps"], row["exported"]) for row in rows] == [(1, 10, False), (2, 16, True)]


def test_isara_is_the_recipe_itself(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara")
    assert [len(pairs) for pairs, _ in trained_on(world, "isara")] == [4 + 6, 4 + 12]
    rows = scores(tmp_path / "out", "isara")
    assert [(row["iteration"], row["exported"]) for row in rows] == [(1, False)] * 9 + [(2, True)] * 9


def test_one_shot_makes_all_pairs_in_one_iteration(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "one-shot", (0,), "generate.max_batches=5")
    assert [len(pairs) for pairs, _ in trained_on(world, "one-shot")] == [4 + 12]
    assert read_config(tmp_path / "out/arms/one-shot/seed-0")["generate"]["max_batches"] == 10


def test_random_demos_are_not_the_nearest(tmp_path: Path) -> None:
    lay_out(tmp_path, "isara,random-demos")
    pool = Pool(HashEmbedder(), SEEDS)

    def nearest(arm: str) -> set[bool]:
        rows = [row for row in stored(tmp_path / "out", arm, 1) if row["answer_draws"]]
        return {row["demo_ids"] == [pair.id for pair, _ in pool.nearest(row["question"], 2)] for row in rows}

    assert nearest("isara") == {True}
    assert False in nearest("random-demos")


def test_without_filters_every_candidate_is_accepted(tmp_path: Path) -> None:
    settings = ["filters.min_answer_tokens=12", "filters.drop_matching=[night]", "generate.min_yield=0"]
    lay_out(tmp_path, "isara,no-filters", (0,), *settings)

    def reasons(arm: str) -> set[str]:
        rows = [row for t in (1, 2) for row in stored(tmp_path / "out", arm, t)]
        return {row["rejection"]["reason"] for row in rows if row["rejection"]}

    assert reasons("isara") > {"drop_matching"}
    assert reasons("no-filters") == {"surplus"}


def test_without_filters_contamination_is_still_dropped() -> None:
    base = load_config(None, ["filters.contamination=[tests.jsonl]"])
    own = find_arms(["no-filters"])[0].config(base, 0, Path("/runs/own"))
    assert own.filters.contamination == base.filters.contamination != ()


def test_generated_only_trains_without_the_seeds_at_equal_steps(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,generated-only")
    assert [len(pairs) for pairs, _ in trained_on(world, "generated-only")] == [6, 12]
    assert not any(pair in SEEDS for pairs, _ in trained_on(world, "generated-only") for pair in pairs)
    assert steps_of(tmp_path / "out", "generated-only") == [10, 16]


def test_shuffled_answers_keep_the_questions_and_no_answer(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,shuffled-answers")
    right, wrong = trained_on(world, "isara")[0][0], trained_on(world, "shuffled-answers")[0][0]
    assert [pair.question for pair in right] == [pair.question for pair in wrong]
    assert sorted(pair.answer for pair in right) == sorted(pair.answer for pair in wrong)
    assert not any(one.answer == other.answer for one, other in zip(right, wrong, strict=True))
    # The pairs themselves are right: what is retrieved and generated from is no part of the change.
    assert stored(tmp_path / "out", "isara", 1) == stored(tmp_path / "out", "shuffled-answers", 1)


def test_shuffled_answers_go_round_anew_with_each_seed() -> None:
    trainers = [ShuffledAnswers(Smith(World(), load_config(None)), seed) for seed in (0, 1)]
    assert trainers[0].key() != trainers[1].key()


def test_start_last_goes_on_from_the_last_model_and_has_seen_as_many_steps(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,start-last")
    starts = [start for _, start in trained_on(world, "start-last")]
    assert starts == [
        str(tmp_path / "recipe/base"),
        str(tmp_path / "out/arms/start-last/seed-0/iteration-01/train/model"),
    ]
    assert steps_of(tmp_path / "out", "start-last") == [10, 6]
    assert {row["steps"] for row in scores(tmp_path / "out", "start-last")} == {10, 16}


def test_data_newest_leaves_out_older_pairs_at_equal_steps(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,data-newest")
    pairs = trained_on(world, "data-newest")[1][0]
    assert {pair.iteration for pair in pairs} == {0, 2} and len(pairs) == 10
    assert steps_of(tmp_path / "out", "data-newest") == [10, 16]


def test_last_newest_is_both(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,last-newest")
    pairs, start = trained_on(world, "last-newest")[1]
    assert {pair.iteration for pair in pairs} == {0, 2} and "iteration-01" in start
    assert steps_of(tmp_path / "out", "last-newest") == [10, 6]


@pytest.mark.parametrize(("arm", "of_seeds_alone"), [("pool-all", False), ("seeds-pool", True)])
def test_pools_decide_what_is_retrieved_from(tmp_path: Path, arm: str, of_seeds_alone: bool) -> None:
    lay_out(tmp_path, arm, (0,), f"retrieve.pool={'seeds' if arm == 'pool-all' else 'all'}")
    shown = {i for row in stored(tmp_path / "out", arm, 2) for i in row["demo_ids"]}
    assert (shown <= {pair.id for pair in SEEDS}) is of_seeds_alone
