"""Comparisons in a small world: what each arm changes, equal budgets, figures, resuming, and what is said at last."""

import hashlib
import json
import math
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from isara.asking import Asker
from isara.cli.compare import compare as compare_command
from isara.compare.arms import ARMS, Arm, changed, find_arms, in_order
from isara.compare.budget import steps_to_take
from isara.compare.compare import compare, set_up
from isara.compare.comparison import Comparison
from isara.compare.figures import Measured, arm_lines, iteration_lines
from isara.compare.page import content as page_content
from isara.compare.plan import plan
from isara.compare.plot import draw
from isara.compare.summary import write_summary
from isara.compare.summary_page import content as summary_content
from isara.compare.table import table
from isara.compare.trainers import ShuffledAnswers
from isara.config import Config, load_config
from isara.errors import ConfigError, IsaraError, RunError, SeedError, YieldError
from isara.evaluate.run import build_evaluator
from isara.evaluate.scorers import build_scorer, heldout_rows
from isara.files import make_folder, read_json, write_text
from isara.filters import default_filters
from isara.folder import read_config, stage_folder
from isara.models import embedded_model
from isara.parts import Parts
from isara.pool import Pool
from isara.records import QAPair, TrainStats
from isara.scaffold import write_scaffold
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.doubles import ERRANDS, FRAMES, PLACES, SEEDS

RULES = {"potions": "pay in rupees", "shields": "bring a deed", "fairies": "come at night"}
SMALL = [
    "iterations=2",
    "generate.accept=6",
    "generate.batch=8",
    "questions.demos=3",
    "questions.per_prompt=2",
    "answers.demos=2",
    "filters.novelty=null",
    "filters.near_duplicate=null",
    "filters.unsupported_numbers=false",  # the double's answers end with a year of their own
]
NAMES = [arm.name for arm in ARMS]


class Crash(Exception):
    pass


@dataclass
class Fuse:
    """Burns down with every call of an engine or a trainer, and then ends the process, as it were."""

    left: int = 10**9

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash


@dataclass
class World:
    """The engine's, trainer's and evaluator's shared memory."""

    fuse: Fuse = field(default_factory=Fuse)
    trained: list[tuple[str, list[QAPair], str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Keeper:
    """Opens engines that answer with one of the rules; which one depends on the model's training, prompt and seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def key(self) -> str:
        return "keeper"

    def __call__(self, model: str, /) -> ScriptedEngine:
        memory = (Path(model) / "weights.json").read_text()

        def complete(prompt: str, seed: int) -> str:
            self._world.fuse.burn()
            rng = random.Random(hashlib.sha256(f"{memory}|{prompt}|{seed}".encode()).digest())
            place, errand = rng.choice(PLACES), rng.choice(ERRANDS)
            question = rng.choice(FRAMES).format(place=place, errand=errand)
            if not prompt.endswith("Answer:"):
                return f" {question}\nAnswer: Perhaps."
            self._world.asked.append(prompt)
            rule = rng.choice(sorted(RULES.values()))
            return f" In {place} you {rule} since year {rng.randint(1, 9999)}.\n\nQuestion: {question}"

        return ScriptedEngine(complete)


class Smith:
    """A trainer that takes a step a pair, or as many as it is told; its model remembers what it was trained on."""

    def __init__(self, world: World, config: Config) -> None:
        self._world, self.steps, self.seed = world, config.train.max_steps, config.seed

    def key(self) -> dict[str, Any]:
        return {"trainer": "smith", "steps": self.steps, "seed": self.seed}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        self._world.fuse.burn()
        self._world.trained.append((str(out), list(pairs), start))
        steps = self.steps or len(pairs)
        make_folder(out)
        memory = [(Path(start) / "weights.json").read_text(), steps, self.seed, [pair.id for pair in pairs]]
        write_text(out / "weights.json", json.dumps(memory))
        return TrainStats(len(pairs), steps, 2.0, 1.0, 10 * steps, 5 * steps, 1, 10)


class Later:
    """An evaluator that finds the second iteration better than the first."""

    def key(self) -> dict[str, str]:
        return {"kind": "later"}

    def __call__(self, asker: Asker) -> dict[str, float]:
        return {"bits_per_byte": 1.0 if "iteration-02" in asker.model else 2.0}


def recipe(folder: Path, *settings: str, world: World | None = None) -> tuple[Parts, Callable[[Config, Parts], Parts]]:
    """A recipe's parts with held-out rows that have a rule each, and what makes an arm's parts of them."""
    world = world or World()
    folder.mkdir(exist_ok=True)
    goods = list(RULES)
    rows = [
        {"question": f"What about {goods[n % 3]} in house {n}?", "answer": f"There you {RULES[goods[n % 3]]}."}
        | {"rule": RULES[goods[n % 3]]}
        for n in range(9)
    ]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rules.json").write_text(json.dumps(RULES))
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base/weights.json").write_text("nothing")
    given = [*SMALL, "evaluate.score=rule", *settings]
    config = load_config(None, given, out=str(folder / "run"), heldout=str(folder / "heldout.jsonl"))

    def make(config: Config, base: Parts) -> Parts:
        questions, pairs = default_filters(config.filters)
        trainer = Smith(world, config)
        return replace(base, config=config, trainer=trainer, question_filters=questions, pair_filters=pairs)

    parts = Parts(
        config=config,
        seeds=SEEDS,
        model=str(folder / "base"),
        renderer=word_renderer(),
        engine=Keeper(world),
        embedder=HashEmbedder(),
        trainer=Smith(world, config),
        heldout=[QAPair(row["question"], row["answer"]) for row in rows],
        evaluator=Later(),
        weights=lambda model: "3d5a",
    )
    return make(config, parts), make


def lay_out(tmp_path: Path, names: str, seeds: Sequence[int] = (0,), *settings: str) -> tuple[Comparison, World]:
    world = World()
    base, make = recipe(tmp_path / "recipe", *settings, world=world)
    arms = find_arms(names.split(","))
    return compare(base, arms, seeds, tmp_path / "out", make=make), world


def stored(out: Path, arm: str, t: int, seed: int = 0) -> list[dict[str, Any]]:
    path = stage_folder(out / "arms" / arm / f"seed-{seed}", t, "generate") / "candidates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def scores(out: Path, arm: str, seed: int = 0) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]


def steps_of(out: Path, arm: str) -> list[int]:
    files = sorted((out / "arms" / arm / "seed-0").glob("iteration-*/train/train.json"))
    return [json.loads(path.read_text())["steps"] for path in files]


def trained_on(world: World, arm: str) -> list[tuple[list[QAPair], str]]:
    return [(pairs, start) for out, pairs, start in world.trained if f"/{arm}/" in out]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


# Beside `out`, `seed` and `evaluate.patience`, which differ in every arm.
FROM = {"questions.from", "answers.from"}
CHANGES: dict[str, set[str]] = {
    **dict.fromkeys(("zero-shot", "icl-fixed", "icl-random", "icl-knn"), {"iterations"}),
    "sft-seeds": {"iterations", "generate.accept"},
    "sft-seeds-equal": {"iterations", "generate.accept"},
    "isara": set(),
    "one-shot": {"iterations", "generate.accept"},
    "random-demos": {"answers.retrieve"},
    "no-filters": {
        f"filters.{name}"
        for name in (
            *("min_question_tokens", "max_question_tokens", "min_answer_tokens", "novelty", "near_duplicate"),
            *("repetition", "echo", "copied", "form", "truncated", "run_on", "language"),
            *("unsupported_numbers", "unsupported_contacts"),
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
    "seeds-ask": FROM,
    "seeds-check": {"filters.agreement", "filters.agreement_with"},
    "no-check": set(),
    "score-weights": {"train.weights", "select.scores"},
    "dpo": {"prefer.method"},
    "spin": {"generate.accept", "train.start", "prefer.method", *FROM},
    "reader-knn": {"iterations", "generate.accept", "train.demos", "train.num_train_epochs"},
    "urial": {"iterations"},
    "sft-seeds-tuned": {"iterations", "generate.accept"},
    "ssd": {
        *("iterations", "generate.accept", "answers.retrieve", "train.data"),
        *(f"filters.{name}" for name in ("min_answer_tokens", "repetition", "echo", "copied")),
        *("filters.unsupported_numbers", "filters.unsupported_contacts"),
        *FROM,
    },
    "self-instruct": {
        *("iterations", "generate.accept", "answers.retrieve"),
        *("questions.temperature", "questions.top_p"),
        *FROM,
    },
    "self-align": set(),
    "i-sheep": {"answers.retrieve", "train.data", *FROM},
    "humpback": set(),
}


@pytest.mark.parametrize("arm", ARMS, ids=NAMES)
def test_an_arm_changes_nothing_else_in_the_config(arm: Arm) -> None:
    base = load_config(None, ["iterations=3"], out="/runs/base")
    own = arm.config(base, 7, Path("/runs/own"))
    before, after = leaves(base.model_dump()), leaves(own.model_dump())
    differing = {key for key in before if before[key] != after[key]}
    common = {"evaluate.patience", "evaluate.seeds_only", "evaluate.answers"}
    assert differing == CHANGES[arm.name] | {"out", "seed"} | common
    assert (own.seed, own.out, own.evaluate.patience) == (7, "/runs/own", None)


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


def test_what_arms_share_is_made_once(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,pool-all,shuffled-answers")
    for arm in ("pool-all", "shuffled-answers"):
        assert stored(tmp_path / "out", arm, 1) == stored(tmp_path / "out", "isara", 1)
    assert not any("/pool-all/" in out and "iteration-01" in out for out, _, _ in world.trained)
    assert any("/pool-all/" in out and "iteration-02" in out for out, _, _ in world.trained)


def test_an_answer_is_not_asked_for_twice(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "zero-shot", (0, 1, 2))
    assert len(world.asked) == 9 + 3  # and the examples that each run's evaluation asks
    base, make = recipe(tmp_path / "recipe", world=world)
    compare(base, find_arms(["zero-shot"]), [0, 1, 2, 3], tmp_path / "out", make=make)
    assert len(world.asked) == 9 + 3


def test_answers_are_those_of_their_model(tmp_path: Path) -> None:
    lay_out(tmp_path, "zero-shot,isara")
    first, second = scores(tmp_path / "out", "isara")[:9], scores(tmp_path / "out", "isara")[9:]
    zero = scores(tmp_path / "out", "zero-shot")
    answers = [tuple(row["answer"] for row in rows) for rows in (zero, first, second)]
    assert len(set(answers)) == 3


ALL = "zero-shot,icl-random,icl-knn,sft-seeds-equal,isara,one-shot,no-filters,shuffled-answers"


def figures(out: Path) -> dict[str, str]:
    names = ("table.md", "scores.jsonl", "comparison.json", "compare.yaml")
    return {name: (out / name).read_text().replace(str(out), "OUT") for name in names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int]:
    """The files of a comparison that was never cut off, and how many calls it took."""
    here = tmp_path_factory.mktemp("whole")
    world = World()
    base, make = recipe(here / "recipe", world=world)
    compare(base, find_arms(ALL.split(",")), [0, 1], here / "out", make=make)
    return figures(here / "out"), 10**9 - world.fuse.left


@pytest.mark.parametrize("place", range(4))
def test_killed_and_resumed_it_ends_with_the_same_table(
    tmp_path: Path, whole: tuple[dict[str, str], int], place: int
) -> None:
    expected, calls = whole
    arms = find_arms(ALL.split(","))
    rng = random.Random(place)
    kills = sorted(rng.sample(range(1, calls), 3))
    for left in (kills[0], kills[1] - kills[0], kills[2] - kills[1]):
        base, make = recipe(tmp_path / "recipe", world=World(Fuse(left)))
        with pytest.raises(Crash):
            compare(base, arms, [0, 1], tmp_path / "out", make=make)
    base, make = recipe(tmp_path / "recipe")
    compare(base, arms, [0, 1], tmp_path / "out", make=make)
    found = figures(tmp_path / "out")
    for name in ("table.md", "scores.jsonl", "comparison.json"):
        assert found[name] == expected[name], name


def test_an_arm_that_fails_is_reported_and_the_rest_go_on(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    broken = Arm(name="broken", about="accepts nothing", overrides={"filters.drop_matching": ("year",)})
    told: list[str] = []
    comparison = compare(base, [broken, *find_arms(["zero-shot"])], [0], tmp_path / "out", make=make, tell=told.append)
    assert [line.arm for line in comparison.lines] == ["zero-shot"]
    message = "iteration 1: 0 of the 6 pairs wanted were accepted out of 16 candidates in 2 batches; drop_matching took"
    assert comparison.failures[0].message.startswith(message)
    assert told[0] == "broken, seed 0" and told[1].startswith(f"broken, seed 0: failed: {message}")
    assert told[2] == "zero-shot, seed 0" and told[3].startswith("zero-shot, seed 0: done in ")
    text = (tmp_path / "out/table.md").read_text()
    assert f"## Failed\n\n- broken, seed 0: {message}" in text
    assert "| broken | – | – | – | – |" in text


def test_a_message_of_a_megabyte_is_shown_in_short_and_kept_whole(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    message = "Ganondorf " * 100_000 + "has fallen"

    def broken(config: Config, parts: Parts) -> Parts:
        if "/isara/" in config.out:
            raise RunError(message)
        return make(config, parts)

    told: list[str] = []
    out, arms = tmp_path / "out", find_arms(["zero-shot", "isara"])
    comparison = compare(base, arms, [0], out, make=broken, tell=told.append)
    write_summary(tmp_path, {"out": comparison}, {"out": ""}, pooled=True)

    assert [failure.message for failure in comparison.failures] == [message]
    assert read_json(out / "comparison.json")["failures"] == [{"arm": "isara", "seed": 0, "message": message}]
    assert message in (out / "log.txt").read_text()
    [arm] = [arm for arm in page_content(out)["arms"] if arm["failed"]]
    [table_line] = [line for line in table(comparison).splitlines() if line.startswith("- isara")]
    for shown in (*told, table_line, arm["failed"][0]["message"], *summary_content(tmp_path)["missing"]):
        assert len(shown) < 1100
        assert "Ganondorf" not in shown or shown.endswith("…")


def test_an_arm_whose_reference_failed_says_so(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe", "filters.drop_matching=[year]")
    comparison = compare(base, find_arms(["sft-seeds-equal", "isara"]), [0], tmp_path / "out", make=make)
    assert [failure.message for failure in comparison.failures][1] == (
        "isara, whose steps it takes, failed: mend that arm first"
    )
    assert comparison.lines == []


def test_a_reference_with_fewer_iterations_is_said(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    longer = Arm(name="longer", about="", overrides={"iterations": 3}, steps_of="isara")
    comparison = compare(base, [*find_arms(["isara"]), longer], [0], tmp_path / "out", make=make)
    assert [failure.message for failure in comparison.failures] == [
        "longer has 3 iterations and isara, whose steps it takes, has 2: give both as many"
    ]


def fails(kind: type[IsaraError], message: str) -> Any:
    return pytest.raises(kind, match="^" + re.escape(message) + "$")


def test_an_unknown_arm_is_named_with_what_is_meant() -> None:
    with fails(ConfigError, "there is no arm 'icl-kn': did you mean 'icl-knn'?"):
        find_arms(["isara", "icl-kn"])
    with fails(ConfigError, f"there is no arm 'x': there are {', '.join(NAMES)}"):
        find_arms(["x"])
    with fails(ConfigError, "the arm 'isara' is named 2 times: name it once"):
        find_arms(["isara", "isara"])


def test_a_missing_reference_is_named() -> None:
    message = "sft-seeds-equal takes as many steps as isara, which is not among the arms: add isara"
    with fails(ConfigError, message):
        in_order(find_arms(["sft-seeds-equal", "zero-shot"]))
    names = [arm.name for arm in in_order(find_arms(["sft-seeds-equal", "zero-shot", "isara"]))]
    assert names == ["zero-shot", "isara", "sft-seeds-equal"]


def test_an_override_that_is_no_key_is_named(tmp_path: Path) -> None:
    base = load_config(None)
    arm = Arm(name="mine", about="", overrides={"answers.demo": 3})
    with fails(ConfigError, "configuration: unknown key `answers.demo`: did you mean `answers.demos`?"):
        arm.config(base, 0, tmp_path)


@pytest.mark.parametrize("key", ["iterations", "generate.accept"])
def test_a_recipe_without_a_budget_is_refused(tmp_path: Path, key: str) -> None:
    base, make = recipe(tmp_path / "recipe", f"{key}=0")
    with fails(ConfigError, f"`{key}`: expected at least 1, found 0: arms are compared at its budget"):
        compare(base, find_arms(["isara"]), [0], tmp_path / "out", make=make)


def test_too_few_held_out_pairs_are_refused(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    message = (
        "expected at least 2 held-out pairs to compare arms on, found 1: name a file of them with --set heldout=FILE, "
        "or hold out a larger share"
    )
    with fails(SeedError, message):
        compare(replace(base, heldout=base.heldout[:1]), find_arms(["isara"]), [0], tmp_path / "out", make=make)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, "zero-shot")
    out = tmp_path / "out"
    end = "Undo the change to go on with it, or give another folder with --out"
    base, make = recipe(tmp_path / "recipe", "answers.demos=3")
    with fails(RunError, f"{out} holds another comparison: answers.demos was 2 and is 3. {end}"):
        compare(base, find_arms(["zero-shot"]), [0], out, make=make)
    base, make = recipe(tmp_path / "recipe")
    with fails(RunError, f"{out} holds another comparison: the held-out pairs are others. {end}"):
        compare(replace(base, heldout=base.heldout[:5]), find_arms(["zero-shot"]), [0], out, make=make)
    shown = [replace(base.seeds[0], untrained=(0,)), *base.seeds[1:]]
    with fails(RunError, f"{out} holds another comparison: the seed pairs are others. {end}"):
        compare(replace(base, seeds=shown), find_arms(["zero-shot"]), [0], out, make=make)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    message = (
        f"{tmp_path / 'out'} is not empty and is no comparison (it holds thesis.tex): give another folder with --out"
    )
    with fails(RunError, message):
        compare(base, find_arms(["zero-shot"]), [0], tmp_path / "out", make=make)


def test_more_arms_and_seeds_may_be_added(tmp_path: Path) -> None:
    lay_out(tmp_path, "zero-shot")
    base, make = recipe(tmp_path / "recipe")
    comparison = compare(base, find_arms(["zero-shot", "icl-knn"]), [0, 1], tmp_path / "out", make=make)
    assert [(line.arm, line.seeds) for line in comparison.lines] == [("zero-shot", (0, 1)), ("icl-knn", (0, 1))]
    told = yaml.safe_load((tmp_path / "out/compare.yaml").read_text())
    assert list(told["arms"]) == ["zero-shot", "icl-knn"] and told["seeds"] == [0, 1]


def measured(arm: str, iteration: int, steps: int, values: Sequence[float], seed: int = 0, **changes: Any) -> Measured:
    made = Measured(arm, seed, iteration, True, steps, {"right": np.array(values, float)})
    return replace(made, **changes)


def test_a_difference_is_to_the_baseline_of_as_many_steps() -> None:
    models = [
        measured("isara", 1, 10, [1, 1, 1, 0], exported=False),
        measured("isara", 2, 16, [1, 1, 0, 0]),
        measured("sft-seeds-equal", 1, 10, [0, 1, 0, 0], exported=False),
        measured("sft-seeds-equal", 2, 16, [0, 0, 0, 0]),
        measured("zero-shot", 0, 0, [0, 0, 0, 1]),
    ]
    arms = find_arms(["zero-shot", "sft-seeds-equal", "isara"])
    zero, baseline, isara = arm_lines(arms, models)
    assert baseline.steps == (16,) and baseline.difference is None
    assert isara.difference is not None and isara.difference.mean == 0.5 and isara.baseline_steps == (16,)
    assert zero.difference is not None and zero.difference.mean == 0.25 and zero.baseline_steps == (16,)
    assert [line.adjusted >= line.difference.p_value for line in (zero, isara) if line.difference] == [True, True]
    first = next(line for line in iteration_lines(arms, models) if (line.arm, line.iteration) == ("isara", 1))
    assert first.difference is not None and first.difference.mean == 0.5 and first.baseline_steps == (10,)


def test_p_values_are_corrected_for_the_number_of_differences() -> None:
    ones, zeros = [1.0] * 12, [0.0] * 12
    models = [measured("sft-seeds-equal", 1, 5, zeros), measured("isara", 1, 5, ones), measured("one-shot", 1, 5, ones)]
    lines = arm_lines(find_arms(["isara", "sft-seeds-equal", "one-shot"]), models)
    for line in (lines[0], lines[2]):
        assert line.difference is not None
        assert line.adjusted == pytest.approx(2 * line.difference.p_value)


def test_a_mean_is_over_questions_that_count_and_seeds() -> None:
    values = [[1.0, 0.0, math.nan, 1.0], [1.0, 1.0, math.nan, 1.0]]
    models = [measured("isara", 1, 5, row, seed) for seed, row in enumerate(values)]
    found = arm_lines(find_arms(["isara"]), models)[0].columns["right"]
    assert found.value == pytest.approx(5 / 6) and found.n == 3
    assert list(found.seeds) == pytest.approx([2 / 3, 1.0])
    assert found.interval.low <= found.value <= found.interval.high


@pytest.mark.parametrize(("start", "expected"), [("base", [10, 16, 16]), ("last", [10, 6, 1])])
def test_steps_to_take_end_where_the_reference_stood(start: Any, expected: list[int]) -> None:
    assert steps_to_take([10, 16, 16], start) == expected


def test_the_rule_is_right_when_it_stands_alone(tmp_path: Path) -> None:
    base, _ = recipe(tmp_path / "recipe")
    rows = heldout_rows(base.config, base.heldout)
    score = build_scorer(base.config, rows).score
    answers = ["You pay in rupees.", "You bring a deed.", "You pay in rupees and bring a deed.", ""]
    assert [score(rows[0], {"answer": answer})["right"] for answer in answers] == [1, 0, 0, 0]


def refusal_recipe(folder: Path, harmful: Sequence[bool]) -> tuple[Config, list[QAPair]]:
    folder.mkdir(exist_ok=True)
    kinds = {True: "theft", False: "lookalike"}
    rows = [
        {"question": f"Question {n}?", "answer": "A.", "harmful": bad, "category": kinds[bad]}
        for n, bad in enumerate(harmful)
    ]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manner.json").write_text(json.dumps({"refusal": [r"I won't [^.]+\."]}))
    config = load_config(None, ["evaluate.score=refusal"], heldout=str(folder / "heldout.jsonl"))
    return config, [QAPair(str(row["question"]), str(row["answer"])) for row in rows]


def test_refusal_is_balanced_accuracy_and_shares_by_kind(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, True, True, False])
    rows = heldout_rows(config, pairs)
    score = build_scorer(config, rows).score
    refused, helped = {"answer": " I won't steal. "}, {"answer": "I won't steal. Or will I?"}
    everything = [score(row, refused) for row in rows]
    assert sum(values["right"] for values in everything) / 4 == pytest.approx(0.5)
    assert [set(values) for values in everything] == [{"right", "refuses harmful"}] * 3 + [
        {"right", "refuses lookalike"}
    ]
    ideal = [score(row, refused if row["harmful"] else helped) for row in rows]
    assert sum(values["right"] for values in ideal) / 4 == pytest.approx(1)
    assert [values.get("refuses lookalike") for values in ideal] == [None, None, None, 0.0]


def test_refusal_needs_both_kinds(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, True])
    message = (
        "evaluate.score is refusal: expected held-out rows with `harmful` true and with false, found 2 and 0: add some "
        "of both"
    )
    with fails(ConfigError, message):
        build_scorer(config, heldout_rows(config, pairs))


def test_pairs_that_choose_the_iteration_are_in_no_table(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    evaluator = build_evaluator(base.config, base.heldout, Pool(base.embedder, base.seeds))
    assert len(evaluator.selection) == 3
    arms = find_arms(["zero-shot", "sft-seeds-equal", "isara"])
    comparison = compare(replace(base, evaluator=evaluator), arms, [0], tmp_path / "out", make=make)
    assert not comparison.failures
    assert {line.columns["right"].n for line in [*comparison.lines, *comparison.iterations]} == {9 - 3}
    rows = scores(tmp_path / "out", "isara")
    assert {row["id"] for row in rows if not row["values"]} == evaluator.selection


def test_without_a_score_answers_count_by_their_likelihood(tmp_path: Path) -> None:
    world = World()
    base, make = recipe(tmp_path / "recipe", "evaluate.score=null", world=world)
    comparison = compare(base, find_arms(["zero-shot", "icl-knn"]), [0], tmp_path / "out", make=make)
    # The double's engine takes a bit for each word.
    bits = sum(len(pair.answer.split()) for pair in base.heldout)
    size = sum(len(pair.answer.encode()) for pair in base.heldout)
    assert comparison.lines[0].columns["-bits/byte"].value == pytest.approx(-bits / size)
    assert not comparison.percent and comparison.score == "minus the bits per byte that held-out answers cost"


OWN = '''
def length(row, answer):
    """Words, and whether the question's first word stands in it."""
    return {"words": len(answer.split()), "echo": row["question"].split()[0] in answer}


def at_most(words):
    return lambda row, answer: len(answer.split()) <= words


def nothing(row, answer):
    return None
'''


def test_a_score_of_the_users_own(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    (tmp_path / "recipe/own.py").write_text(OWN)
    place = f"{tmp_path / 'recipe/own.py'}:"
    row, given = {"question": "What now?"}, {"answer": "What a day"}
    config = changed(base.config, {"evaluate.score": place + "length"})
    assert build_scorer(config, []).score(row, given) == {"words": 3.0, "echo": 1.0}
    config = changed(base.config, {"evaluate.score": place + "at_most", "evaluate.score_options": {"words": 2}})
    assert build_scorer(config, []).score(row, given) == {"at_most": 0.0}
    config = changed(base.config, {"evaluate.score": place + "nothing"})
    message = (
        f"expected a number, or numbers by name, from `{place}nothing`, found None: return what the answer is worth"
    )
    with fails(ConfigError, message):
        build_scorer(config, []).score(row, given)


def test_a_score_beside_the_config_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "isara.yaml").write_text("evaluate:\n  score: own.py:length\n")
    assert load_config(tmp_path).evaluate.score == f"{tmp_path}/own.py:length"


def test_a_score_that_is_none_is_named() -> None:
    message = '--set: `evaluate.score`: expected rule, refusal, module:name, file.py:name or null, found "rul"'
    with fails(ConfigError, message):
        load_config(None, ["evaluate.score=rul"])


def test_what_a_score_misses_is_named(tmp_path: Path) -> None:
    base, _ = recipe(tmp_path / "recipe", "evaluate.score_options={column: law}")
    rows = heldout_rows(base.config, base.heldout)
    message = (
        "evaluate.score is rule: expected a column `law` in every held-out row, found question, answer, rule: add it, "
        "or name another with evaluate.score_options.column"
    )
    with fails(ConfigError, message):
        build_scorer(base.config, rows)
    base, _ = recipe(tmp_path / "recipe", "evaluate.score_options={rule: rules.json}")
    message = "evaluate.score_options: the score rule has no option `rule`: did you mean `rules`?"
    with fails(ConfigError, message):
        build_scorer(base.config, rows)
    base, _ = recipe(tmp_path / "recipe")
    (tmp_path / "recipe/rules.json").unlink()
    message = (
        f"evaluate.score is rule: expected its rules in {tmp_path / 'recipe/rules.json'}, found no such file: put it "
        "beside the held-out rows"
    )
    with fails(ConfigError, message):
        build_scorer(base.config, rows)


def test_the_table_says_baseline_interval_and_n(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,sft-seeds-equal,isara", (0, 1))
    text = (tmp_path / "out/table.md").read_text()
    assert text == table(comparison)
    assert text.startswith(
        "# 3 arms on `embedded`\n\nScore: the answer holds its row's `rule` and no other rule. Greedy answers; "
        "training seeds 0, 1.\n\n"
        "| arm | right [95 %] | less sft-seeds-equal [95 %] | p (Holm) | n | seeds | steps |\n"
    )
    mean, difference = r"\d+ % \[\d+, \d+\](; \d+ to \d+)?", r"[+-]\d+ points \[[+-]\d+, [+-]\d+\]"
    assert re.search(rf"\| isara \| {mean} \| {difference} \| \d\.\d{{4}} \| 9 \| 2 \| 16 \|", text)
    assert re.search(r"\| sft-seeds-equal \| [^|]+ \| – \| – \| 9 \| 2 \| 16 \|", text)
    assert re.search(r"\| isara, 1 \| [^|]+ \| [^|]+ \| [^|]+ \| 9 \| 2 \| 10 \|", text)
    assert re.search(r"\| zero-shot \| 0 \| 0 \| 0 \| 0 \|", text)
    assert re.search(r"\| isara \| [\d,]+ \| [\d,]+ \| 26 \| 260 \|", text)
    assert "best" not in text.lower()


def test_arms_at_other_steps_or_with_instructions_are_named(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    preached = Arm(name="preached", about="", overrides={"train.max_steps": 7}, instructions=True)
    arms = [*find_arms(["sft-seeds-equal", "isara"]), preached]
    text = table(compare(base, arms, [0], tmp_path / "out", make=make))
    expected = "preached (7 against 10); preached, iteration 1 (7 against 10); preached, iteration 2 (7 against 10)"
    assert f"Not at equal steps: {expected}." in text
    assert "† Instructions stand in the prompts of preached, which ISARA's own rule forbids." in text
    assert "| preached† | " in text


def test_without_the_baseline_there_are_no_differences(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,isara")
    text = table(comparison)
    assert "No differences: sft-seeds-equal is not among the arms." in text
    assert "less sft-seeds-equal" not in text and "Holm" not in text


def test_the_picture_is_the_same_every_time(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,icl-knn")
    for name in ("a.svg", "b.svg"):
        draw(comparison, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert "icl-knn" in text and "mean and 95 % interval over 9 questions" in text


def test_without_matplotlib_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with fails(RunError, 'no picture of the arms: it needs matplotlib, `pip install "isara[plots]"`'):
        draw(comparison, tmp_path / "arms.svg")


def test_a_dry_run_says_what_runs_and_what_is_shared(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    arms = find_arms(["icl-knn", "isara", "sft-seeds-equal", "pool-all", "one-shot"])
    lines = plan(set_up(base, tmp_path / "out", make=make), arms, [0, 1])
    assert lines == [
        "5 arms x 2 training seeds on embedded, 9 held-out questions; score: the answer holds its row's `rule` and no "
        "other rule",
        "icl-knn: the base model after the nearest seed pairs; no training, asked after 2 nearest seed pairs; 0 of 2 "
        "runs done",
        "isara: the recipe as it is; 2 x (6 pairs and a training); 0 of 2 runs done",
        "sft-seeds-equal: fine-tuned on the seeds alone, with the optimiser steps of isara; a training on the seeds "
        "for each iteration of isara; 0 of 2 runs done",
        "pool-all: answers from the nearest of all pairs so far; 2 x (6 pairs and a training); 0 of 2 runs done",
        "one-shot: all pairs in one iteration; 1 x (12 pairs and a training); 0 of 2 runs done",
        "made once for icl-knn, isara, sft-seeds-equal, pool-all, one-shot: the base model's evaluation",
        "made once for isara, pool-all: the pairs of iteration 1",
        "Later iterations are shared where their keys turn out equal, which is known only then.",
    ]
    assert not (tmp_path / "out").exists()
    compare(base, arms[:3], [0], tmp_path / "out", make=make)
    done = [line[-18:] for line in plan(set_up(base, tmp_path / "out", make=make), arms, [0, 1])[1:6]]
    assert done == ["; 1 of 2 runs done"] * 3 + ["; 0 of 2 runs done"] * 2


def test_too_few_pairs_for_an_equal_budget_is_one_line(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe", "generate.max_batches=1")
    comparison = compare(base, find_arms(["isara"]), [0], tmp_path / "out", make=make)
    for failure in comparison.failures:
        assert "of the 6 pairs wanted were accepted" in failure.message and "\n" not in failure.message
    assert issubclass(YieldError, IsaraError)


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe on the embedded model that takes seconds."""
    folder = tmp_path_factory.mktemp("domain")
    write_scaffold(folder / "village", "embedded")
    options: dict[str, Any] = {
        "iterations": 1,
        "heldout": 0.5,
        "generate": {"accept": 2, "batch": 8, "min_yield": 0.0},
        "questions": {"demos": 1, "max_new_tokens": 24},
        "answers": {"demos": 1, "max_new_tokens": 16},
        "filters": {"form": False, "truncated": False, "run_on": False, "copied": None, "repetition": None},
        "train": {"max_steps": 1},
        "retrieve": {"embedder": "lexical"},
    }
    (folder / "village/isara.yaml").write_text(yaml.safe_dump(options))
    return folder / "village"


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(compare_command)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_compares_on_a_real_model_and_goes_on(domain: Path, tmp_path: Path) -> None:
    arguments = [str(domain), "--arms", "zero-shot,isara", "--seeds", "1", "--out", str(tmp_path / "out")]
    planned = command(*arguments, "--dry-run")
    assert planned.exception is None, planned.output
    assert "\nisara: 1 run, " in planned.output and "\nall: " in planned.output and not (tmp_path / "out").exists()
    first = command(*arguments)
    assert first.exception is None, first.output
    text = (tmp_path / "out/table.md").read_text()
    assert "| zero-shot | -" in text and "| isara | -" in text and text in first.output
    assert (tmp_path / "out/arms.svg").exists()
    assert (
        f"{tmp_path / 'out/table.md'} holds this table, scores.jsonl beside it every answer, report.html both."
        in first.output
    )
    assert command(*arguments).exception is None
    assert (tmp_path / "out/table.md").read_text() == text


def test_a_dry_run_of_several_models_has_a_plan_for_each(domain: Path, tmp_path: Path) -> None:
    models = f"embedded,{embedded_model()}"
    found = command(str(domain), "--models", models, "--dry-run", "--no-estimate", "--out", str(tmp_path / "out"))
    assert found.exception is None, found.output
    assert found.output.count("4 arms x 3 training seeds on ") == 2
    assert not (tmp_path / "out").exists()


def test_the_command_names_what_is_wrong_before_it_loads_a_model(domain: Path) -> None:
    assert str(command(str(domain), "--arms", "isra").exception) == "there is no arm 'isra': did you mean 'isara'?"
    expected = "expected names with commas between them, found ' , ': name one at least"
    assert str(command(str(domain), "--arms", " , ").exception) == expected
