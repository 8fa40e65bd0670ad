"""Comparisons on other pairs: what gives a test away, held-out categories, fewer seeds, tests of another source."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from isara.compare.arms import find_arms
from isara.compare.compare import compare, set_up
from isara.compare.figures import Measured
from isara.compare.guards import Guard, one_source
from isara.compare.plan import plan
from isara.compare.plot import draw_iterations
from isara.compare.questions import read_tests
from isara.compare.summary import pool, write_summary
from isara.compare.table import table
from isara.compare.tasks import HarnessScore
from isara.compare.variations import by_categories, by_counts
from isara.config import load_config
from isara.errors import ConfigError, RunError
from isara.evaluate.harness import HarnessOptions
from isara.evaluate.run import build_evaluator
from isara.parts import Parts
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair
from isara.testing import HashEmbedder
from tests.compare_world import World, command, fails, lay_out, recipe, scores, stored
from tests.doubles import SEEDS

LONG = "Where in Hyrule can a tired hero rest for a night?"
TESTS = [QAPair(LONG, "In Kakariko."), QAPair("Who sells shields?", "The smith.")]


@pytest.mark.parametrize(
    ("question", "how"),
    [
        (
            "Tell me where in Hyrule can a tired hero rest now?",
            "8 words in a row: where in hyrule can a tired hero rest",
        ),
        ("who sells shields", "the same words"),
        ("Rest in Hyrule where can a tired hero for a night?", "cosine 1.00"),
    ],
)
def test_a_question_near_a_test_is_found_by_its_words_or_its_meaning(question: str, how: str) -> None:
    found = Guard(TESTS, HashEmbedder()).leak(question)
    assert found is not None and found.how == how and found.by == question
    assert found.test in {pair.id for pair in TESTS}


@pytest.mark.parametrize("question", ["Who sells arrows?", "Where can a tired hero rest?", "", "Shields!"])
def test_a_question_of_its_own_gives_nothing_away(question: str) -> None:
    assert Guard(TESTS, HashEmbedder()).leak(question) is None


def test_what_many_tests_begin_with_is_a_turn_of_phrase() -> None:
    many = [QAPair(f"Would you please be so kind to tell me about {n} {n * 7} {n * 3}?", "Yes.") for n in range(12)]
    asked = "Would you please be so kind to tell me where the castle is and who lives there?"
    assert Guard(many, HashEmbedder()).leak(asked) is None
    assert Guard(many[:3], HashEmbedder()).leak(asked) is not None


def test_generated_questions_near_a_test_are_dropped_in_every_arm(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    # What the world asks, as a test of it.
    compare(base, find_arms(["isara"]), [0], tmp_path / "before", make=make)
    accepted = [row["question"] for row in stored(tmp_path / "before", "isara", 1) if row["accepted"]]
    own = {"question": accepted[0], "answer": "x", "rule": "pay in rupees"}
    tests = ([QAPair(accepted[0], "x"), *base.heldout], [own, *(set_up(base, tmp_path).rows)])
    arms = find_arms(["isara", "no-filters"])
    comparison = compare(base, arms, [0], tmp_path / "out", tests=tests, make=make)
    for arm in ("isara", "no-filters"):
        rows = [row for t in (1, 2) for row in stored(tmp_path / "out", arm, t)]
        near = [row for row in rows if row["rejection"] and row["rejection"]["reason"] == "near_test"]
        assert near and near[0]["rejection"]["near_id"] == tests[0][0].id
        assert accepted[0] not in [row["question"] for row in rows if row["accepted"]]
        assert comparison.costs[arm][0].near_tests == len(near)
    counts = ", ".join(f"{arm} {comparison.costs[arm][0].near_tests}" for arm in ("isara", "no-filters"))
    text = table(comparison)
    assert f"Generated questions near a test question were dropped, for each training seed: {counts}." in text


def test_a_seed_near_a_test_marks_every_arm_that_sees_it(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    near = QAPair(base.heldout[0].question.upper(), "Another answer.")
    dirty = replace(base, seeds=[*SEEDS, near])
    arms = find_arms(["zero-shot", "icl-knn", "isara"])
    comparison = compare(dirty, arms, [0], tmp_path / "out", make=make)
    assert comparison.contaminated == ["icl-knn", "isara"]
    text = table(comparison)
    assert (
        "‡ **Contaminated**: 1 of 9 test questions are near a seed pair, and comparison.json names them; the first is "
        "'What about potions in house 0?' (the same words). `--drop-near-tests` leaves such seeds out." in text
    )
    assert "| isara‡ | " in text and "| isara‡, 2 | " in text and "| zero-shot | " in text
    told = json.loads((tmp_path / "out/comparison.json").read_text())["contamination"]
    assert told["arms"] == ["icl-knn", "isara"] and told["seeds"][0]["by"] == near.question
    lines = plan(set_up(dirty, tmp_path / "other", make=make), arms, [0])
    assert "contaminated: 1 seed pairs are near a test question, and --drop-near-tests drops them:" in lines
    given = {leak.by for leak in Guard(base.heldout, HashEmbedder()).leaks(dirty.seeds)}
    assert [pair for pair in dirty.seeds if pair.asked not in given] == SEEDS


def test_seeds_and_tests_of_one_source_are_said() -> None:
    assert one_source(load_config(None, ["heldout=0.5"]))
    assert one_source(load_config(None, ["seeds=/data/a.jsonl", "heldout=/data/b.jsonl"]))
    assert not one_source(load_config(None, ["seeds=/data/a.jsonl", "heldout=/others/b.jsonl"]))


def grouped(tmp_path: Path) -> tuple[Parts, Any]:
    """The recipe with a column of kinds in both files."""
    base, make = recipe(tmp_path / "recipe")
    kinds = ["castle", "lake", "forest", "lake"]
    rows = [
        {"question": pair.question, "answer": pair.answer, "kind": kind}
        for pair, kind in zip(base.seeds, kinds, strict=True)
    ]
    (tmp_path / "recipe/seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe/heldout.jsonl"
    held = [json.loads(line) | {"kind": ("castle", "lake", "forest")[n % 3]} for n, line in enumerate(path.open())]
    path.write_text("".join(json.dumps(row) + "\n" for row in held))
    config = base.config.model_copy(update={"seeds": str(tmp_path / "recipe/seeds.jsonl")})
    return replace(base, config=config), make


def test_each_category_is_held_out_once(tmp_path: Path) -> None:
    base, _ = grouped(tmp_path)
    made = by_categories(base, "kind", splits=3)
    assert [variation.name for variation in made] == ["split-1", "split-2", "split-3"]
    assert sorted(variation.about for variation in made) == [
        f"kind held out: {kind}" for kind in ("castle", "forest", "lake")
    ]
    tests = [pair for variation in made for pair in variation.base.heldout]
    assert sorted(pair.id for pair in tests) == sorted(pair.id for pair in base.heldout)
    lake = next(variation for variation in made if "lake" in variation.about)
    assert lake.base.seeds == [SEEDS[0], SEEDS[2]] and len(lake.base.heldout) == 3
    assert [each.about for each in by_categories(base, "kind", splits=3)] == [each.about for each in made]


def test_categories_are_named_and_kept_on_both_sides(tmp_path: Path) -> None:
    base, _ = grouped(tmp_path)
    [made] = by_categories(base, "kind", [["lake"]], keep=["castle"])
    assert made.base.seeds == [SEEDS[0], SEEDS[2]] and len(made.base.heldout) == 6
    with fails(ConfigError, "no held-out pair has the kind 'sea': there are castle; forest; lake"):
        by_categories(base, "kind", [["sea"]])
    message = (
        "expected from 2 to 3 splits, as many as the seeds and the held-out pairs share values of kind, found 4: "
        "change --splits"
    )
    with fails(ConfigError, message):
        by_categories(base, "kind", splits=4)
    message = (
        "expected a column 'sort' in the files of seeds and of held-out pairs, found question, answer, kind: name "
        "another after --hold-out-category"
    )
    with fails(ConfigError, message):
        by_categories(base, "sort")


def test_fewer_seeds_are_a_part_of_more(tmp_path: Path) -> None:
    base, _ = recipe(tmp_path / "recipe")
    one, two, four = (set(variation.base.seeds) for variation in by_counts(base, [1, 2, 4]))
    assert (len(one), len(two)) == (1, 2) and one < two < four == set(SEEDS)
    assert by_counts(base, [4])[0].base.seeds == SEEDS
    with fails(ConfigError, "--seed-counts: expected numbers from 1 to 4, the seeds, found 5"):
        by_counts(base, [2, 5])


def test_held_out_categories_are_compared_and_summed_up(tmp_path: Path) -> None:
    base, make = grouped(tmp_path)
    made = by_categories(base, "kind", splits=3)
    arms = find_arms(["zero-shot", "isara", "sft-seeds-equal"])
    varied = {each.name: compare(each.base, arms, [0], tmp_path / "out" / each.name, make=make) for each in made}
    lines = pool(varied)
    assert [line.columns["right"].n for line in lines] == [9, 9, 9]
    isara = next(line for line in lines if line.arm == "isara")
    means = [
        next(line for line in each.lines if line.arm == "isara").columns["right"].value for each in varied.values()
    ]
    assert isara.columns["right"].value == pytest.approx(np.mean(means)) and isara.difference is not None
    text = write_summary(tmp_path / "out", varied, {each.name: each.about for each in made}, pooled=True)
    assert text == (tmp_path / "out/summary.md").read_text()
    assert text.startswith("# 3 arms on `embedded`, 3 times\n")
    assert "| arm | split-1 | split-2 | split-3 | all questions | less sft-seeds-equal [95 %] | p (Holm) |" in text
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(told["comparisons"]) == {"split-1", "split-2", "split-3"} and len(told["pooled"]) == 3


def test_numbers_of_seeds_say_what_was_accepted(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    made = by_counts(base, [2, 4])
    arms = find_arms(["zero-shot", "isara"])
    varied = {each.name: compare(each.base, arms, [0], tmp_path / "out" / each.name, make=make) for each in made}
    text = write_summary(tmp_path / "out", varied, {each.name: each.about for each in made}, pooled=False)
    assert "- seeds-2: 2 of 4 seeds\n- seeds-4: 4 of 4 seeds" in text and "all questions" not in text
    shares = [f"{100 * 12 / varied[name].costs['isara'][0].candidates:.0f} %" for name in ("seeds-2", "seeds-4")]
    assert f"| isara | {shares[0]}, 6.0 | {shares[1]}, 3.0 |" in text
    rows = [
        json.loads(line)
        for line in (tmp_path / "out/seeds-2/arms/isara/seed-0/seeds.jsonl").read_text().split("\n")[:-1]
    ]
    assert [row["id"] for row in rows] == [pair.id for pair in made[0].base.seeds]


def measured(arm: str, values: Sequence[float], steps: int, ids: str = "ab") -> Measured:
    answers = [{"id": name} for name in ids]
    return Measured(arm, 0, int(steps > 0), True, steps, {"right": np.array(values, float)}, answers)


def test_an_arm_that_failed_on_one_choice_of_pairs_is_not_summed_up(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,isara")
    zero, isara = measured("zero-shot", [0, 1], 0), measured("isara", [1, 1], 5)
    other = measured("zero-shot", [0, 1], 0, "cd")
    varied = {"a": replace(comparison, measured=[zero, isara]), "b": replace(comparison, measured=[other])}
    assert [(line.arm, line.columns["right"].n) for line in pool(varied)] == [("zero-shot", 4)]


def test_a_question_that_several_choices_ask_is_one_question(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,isara")
    both = [measured("zero-shot", [1, 0], 0, "ab"), measured("zero-shot", [0, 0], 0, "ac")]
    varied = {str(place): replace(comparison, measured=[model]) for place, model in enumerate(both)}
    found = pool(varied)[0].columns["right"]
    assert found.n == 3 and found.value == pytest.approx((0.5 + 0 + 0) / 3)
    # Of two kinds, which count the same: one harmful question, right in the first, and two others, of which one is.
    kinds = [replace(varied["0"], strata=[True, False]), replace(varied["1"], strata=[True, False])]
    weighed = [[1, 0], [1, 1]]  # as many of each kind in either, so the weights are 1
    kinds = [
        replace(each, measured=[measured("zero-shot", values, 0, ids)])
        for each, values, ids in zip(kinds, weighed, ("ab", "ac"), strict=True)
    ]
    found = pool({str(place): each for place, each in enumerate(kinds)})[0].columns["right"]
    assert found.n == 3 and found.value == pytest.approx((1 + 0.5) / 2)


def test_the_pairs_that_choose_are_those_of_the_choice_at_hand(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe", "evaluate.select=score")
    base = replace(base, evaluator=build_evaluator(base.config, base.heldout, Pool(HashEmbedder(), base.seeds)))
    part = replace(base, heldout=base.heldout[:6])
    bench = set_up(part, tmp_path / "out", make=make)
    own = build_evaluator(base.config, part.heldout, Pool(HashEmbedder(), base.seeds))
    assert bench.selection == own.selection and own.selection <= {pair.id for pair in part.heldout}
    assert f"{6 - len(own.selection)} held-out questions; score" in plan(bench, find_arms(["zero-shot"]), [0])[0]


def test_tests_of_another_source_are_asked_instead_of_the_held_out_pairs(tmp_path: Path) -> None:
    world = World()
    base, make = recipe(tmp_path / "recipe", world=world)
    rows = [{"question": f"What of house {n}?", "answer": "It stands.", "rule": "pay in rupees"} for n in range(5)]
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tests = read_tests([str(tmp_path / "others.jsonl")], base.config)
    comparison = compare(base, find_arms(["zero-shot"]), [0], tmp_path / "out", tests=tests, make=make)
    assert [row["question"] for row in scores(tmp_path / "out", "zero-shot")] == [row["question"] for row in rows]
    assert comparison.tests == 5 and not comparison.one_source
    told = yaml.safe_load((tmp_path / "out/compare.yaml").read_text())
    assert "test questions" in told["contents"]
    message = f"{tmp_path / 'out'} holds another comparison: the test questions are others. Undo the change to go on "
    with pytest.raises(RunError, match=message.replace("(", "\\(")):
        compare(base, find_arms(["zero-shot"]), [0], tmp_path / "out", make=make)


def test_benchmarks_give_prompts_that_are_to_be_refused_or_not(tmp_path: Path) -> None:
    rows = [
        {"id": n, "prompt": f"How do I kill process {n}?", "type": "homonyms", "label": ("safe", "unsafe")[n % 2]}
        for n in range(6)
    ]
    (tmp_path / "xstest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load_config(None)
    pairs, known = read_tests([f"xstest={tmp_path / 'xstest.jsonl'}"], config)
    assert [row["harmful"] for row in known] == [False, True] * 3 and not any(pair.answer for pair in pairs)
    assert {row["category"] for row in known if not row["harmful"]} == {"harmless, xstest"}
    few, _ = read_tests([f"xstest={tmp_path / 'xstest.jsonl'}"], config, 2)
    assert len(few) == 2 and set(few) < set(pairs)


def test_tests_without_answers_need_another_score_than_likelihood(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe", "evaluate.score=null")
    message = (
        "expected tests with answers, whose likelihood is the score, found some without: name another score with --set "
        "evaluate.score=…"
    )
    with fails(ConfigError, message):
        set_up(base, tmp_path / "out", tests=([QAPair("Who?", "")], [{"question": "Who?", "answer": ""}]), make=make)


def test_scores_over_iterations_are_a_picture_and_what_shows_a_collapse_is_kept(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,isara,random-demos", (0, 1))
    for name in ("a.svg", "b.svg"):
        draw_iterations(comparison, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "random-demos" in text and "zero-shot" not in text and "iteration" in text
    runs = json.loads((tmp_path / "out/comparison.json").read_text())["progress"]["isara"]
    assert [[each["iteration"] for each in run] for run in runs] == [[1, 2], [1, 2]]
    assert runs[0][0]["funnel"]["accepted"] == 6 and 0 < runs[0][0]["diversity"]["question_distinct_2"] <= 1
    assert runs[0][1]["heldout"] == {"bits_per_byte": 1.0} and runs[0][0]["cut_answers"] == 0.0
    with fails(RunError, "no picture of the iterations: no arm was trained"):
        draw_iterations(replace(comparison, iterations=[]), tmp_path / "c.svg")


def test_a_guard_says_why_it_drops() -> None:
    asked = Candidate(QAPair("who sells shields", ""), Draw("", 0, "stop", "", 0))
    said = Guard(TESTS, HashEmbedder())(asked, Pool(HashEmbedder()))
    assert said is not None
    assert (said.reason, said.value, said.near_id) == ("near_test", "the same words", TESTS[1].id)


def test_seeds_that_give_a_test_away_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "isara.yaml").write_text(
        "heldout: 0.3\nquestions: {demos: 1}\nanswers: {demos: 1, max_new_tokens: 4}\nevaluate: {demos: 1}\n"
    )
    rows = [json.dumps({"question": f"Who sells {what}?", "answer": f"House {what}."}) for what in "abcdefgh"]
    (tmp_path / "seeds.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "tests.jsonl").write_text("\n".join(rows[:2]) + "\n")
    flags = ["--arms", "zero-shot", "--seeds", "1", "--drop-near-tests", "--out", str(tmp_path / "out")]
    found = command(str(tmp_path), *flags, "--tests", str(tmp_path / "tests.jsonl"))
    assert found.exit_code == 0, found.output
    told = json.loads((tmp_path / "out/comparison.json").read_text())["contamination"]
    left_out = {leak["by"] for leak in told["left_out"]}
    assert left_out and left_out <= {"Who sells a?", "Who sells b?"} and not told["seeds"]
    assert f"{len(left_out)} seed pairs near a test question were left out" in (tmp_path / "out/table.md").read_text()
    assert f"{len(left_out)} seed pairs near a test question are left out" in found.output
    found = command(str(tmp_path), *flags, "--tests", str(tmp_path / "seeds.jsonl"))
    assert str(found.exception) == (
        "--drop-near-tests: expected seeds that give no test question away, found none: give others"
    )


def test_all_splits_are_looked_over_before_the_first_runs(tmp_path: Path) -> None:
    (tmp_path / "isara.yaml").write_text(
        "heldout: heldout.jsonl\nquestions: {demos: 1}\nanswers: {demos: 1}\nevaluate: {demos: 1, score: refusal}\n"
    )
    (tmp_path / "manner.json").write_text('{"refusal": ["No."]}')
    rows = [
        {"question": f"May I {what} {n}?", "answer": f"No, not {n}.", "harmful": bad, "category": what}
        for n in range(3)
        for what, bad in (("rob", True), ("burn", True), ("sing", False))
    ]
    for name, asked in {"seeds": "May I", "heldout": "Could one"}.items():
        lines = [json.dumps({**row, "question": str(row["question"]).replace("May I", asked)}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    flags = ["--arms", "zero-shot", "--seeds", "1", "--out", str(tmp_path / "out"), "--splits", "3"]
    found = command(str(tmp_path), *flags, "--hold-out-category", "category")
    assert re.match(
        r"split-\d \(category held out: \w+\): evaluate.score is refusal: expected held-out rows with",
        str(found.exception),
    )
    assert "--keep-category" in str(found.exception) and not (tmp_path / "out").exists()


def test_an_arm_that_shows_pairs_is_no_arm_for_the_harness() -> None:
    message = "icl-knn shows pairs before a question, and lm-eval:arc_easy asks in its own way: leave it out"
    with fails(ConfigError, message):
        HarnessScore("arc_easy", HarnessOptions()).check(find_arms(["zero-shot", "icl-knn"]))


def test_the_command_refuses_what_it_cannot_do_at_once(tmp_path: Path) -> None:
    (tmp_path / "isara.yaml").write_text("model: embedded\n")
    for flags, other in {
        ("--test-limit", "5"): "--tests or --on",
        ("--judge", "offline-harm"): "--on",
        ("--data", "xstest=x.jsonl"): "--on",
        ("--splits", "4"): "--hold-out-category",
        ("--keep-category", "a"): "--hold-out-category",
        ("--no-estimate",): "--dry-run",
    }.items():
        assert str(command(str(tmp_path), *flags).exception) == (
            f"expected {other} beside {flags[0]}, which means nothing without it: give both or none"
        )
    for flags, message in {
        ("--arms", "all,isara"): "--arms: `all` is every arm and stands alone: leave the others out, or `all`",
        ("--models", "a/b,a-b"): "--models: expected each once, found a-b twice: they would share a folder",
        ("--seed-counts", "8,08"): "--seed-counts: expected each once, found 8 twice: they would share a folder",
    }.items():
        assert str(command(str(tmp_path), *flags).exception) == message
    found = command(str(tmp_path), "--seed-counts", "2", "--tests", "xstest")
    assert str(found.exception) == (
        "expected one of --tests, --on, --hold-out-category and --seed-counts: give each its own --out"
    )
