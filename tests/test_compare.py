"""Comparisons in a small world: what is shared, resuming, errors, and the command."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from isara.compare.arms import Arm, find_arms, in_order
from isara.compare.compare import compare, set_up
from isara.compare.page import content as page_content
from isara.compare.plan import plan
from isara.compare.summary import write_summary
from isara.compare.summary_page import content as summary_content
from isara.compare.table import table
from isara.config import Config, load_config
from isara.errors import ConfigError, IsaraError, RunError, SeedError, YieldError
from isara.files import read_json
from isara.models import embedded_model
from isara.parts import Parts
from isara.scaffold import write_scaffold
from isara.watching import Silent, StageName
from tests.compare_world import NAMES, Crash, Fuse, World, command, fails, figures, lay_out, recipe, scores, stored


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


def test_it_tells_of_test_questions_that_are_still_to_be_answered(tmp_path: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.stages: list[tuple[int, str, int]] = []

        def stage(self, iteration: int, name: StageName, total: int) -> None:
            self.stages.append((iteration, name, total))

    for expected in ([(0, "test", 9), (1, "test", 9), (2, "test", 9)], []):
        told, (base, make) = Told(), recipe(tmp_path / "recipe")
        compare(base, find_arms(["zero-shot", "isara"]), [0], tmp_path / "out", make=make, watcher=told)
        assert [stage for stage in told.stages if stage[1] == "test"] == expected


ALL = "zero-shot,icl-random,icl-knn,sft-seeds-equal,isara,one-shot,no-filters,shuffled-answers"


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
