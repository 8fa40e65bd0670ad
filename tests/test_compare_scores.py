"""Figures of a comparison: differences, intervals, scores of the recipe's or the user's own, and tables."""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isara.compare.arms import Arm, changed, find_arms
from isara.compare.budget import steps_to_take
from isara.compare.compare import compare
from isara.compare.figures import Line, Measured, arm_lines, iteration_lines
from isara.compare.plot import draw
from isara.compare.table import table
from isara.config import Config, load_config
from isara.errors import ConfigError, RunError
from isara.evaluate.run import build_evaluator
from isara.evaluate.scorers import build_scorer, heldout_rows
from isara.pool import Pool
from isara.records import QAPair
from isara.testing import HashEmbedder
from tests.compare_world import World, fails, lay_out, recipe, scores


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


def test_an_interval_of_a_balanced_score_keeps_the_number_of_each_kind(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True] * 30 + [False] * 10)
    rows = heldout_rows(config, pairs)
    scorer = build_scorer(config, rows)
    assert scorer.stratum is not None
    refused = [scorer.score(row, {"answer": "I won't steal."})["right"] for row in rows]
    strata = [scorer.stratum(row) for row in rows]
    line = arm_lines(find_arms(["zero-shot"]), [measured("zero-shot", 0, 0, refused)], strata)[0].columns["right"]
    assert line.value == pytest.approx(0.5)
    assert line.interval.low == pytest.approx(0.5) and line.interval.high == pytest.approx(0.5)  # it refuses them all
    mixed = [value if place % 3 else 0.0 for place, value in enumerate(refused)]
    found = arm_lines(find_arms(["zero-shot"]), [measured("zero-shot", 0, 0, mixed)], strata)[0].columns["right"]
    assert 0 <= found.interval.low < found.value < found.interval.high <= 0.5


def test_what_one_seed_has_no_value_for_is_the_others_alone() -> None:
    models = [
        measured("isara", 1, 5, [math.nan, 1.0, math.nan], 0),
        measured("isara", 1, 5, [0.0, 0.0, math.nan], 1),
        measured("sft-seeds-equal", 1, 5, [math.nan, 0.0, 1.0], 0),
        measured("sft-seeds-equal", 1, 5, [math.nan, 0.0, 1.0], 1),
    ]
    isara, baseline = arm_lines(find_arms(["isara", "sft-seeds-equal"]), models)
    assert (isara.columns["right"].value, isara.columns["right"].n) == (0.25, 2)
    assert isara.columns["right"].seeds == (1.0, 0.0)
    assert isara.difference is not None and isara.difference.mean == 0.5 and baseline.columns["right"].n == 2
    nothing = [measured("isara", 1, 5, [1.0]), measured("sft-seeds-equal", 1, 5, [math.nan])]
    assert arm_lines(find_arms(["isara", "sft-seeds-equal"]), nothing)[0].difference is None


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


@pytest.mark.parametrize(("told", "kind"), [("True", True), ("false", False), (" no ", False), (1, True), ("0", False)])
def test_a_table_of_text_says_true_and_false_in_words(tmp_path: Path, told: Any, kind: bool) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, False])
    rows: list[dict[str, Any]] = [*map(dict, heldout_rows(config, pairs))]
    rows.append({"question": "Q?", "answer": "A.", "harmful": told, "category": "x"})
    score = build_scorer(config, rows).score
    assert (score(rows[2], {"answer": "I won't steal."})["right"] > 0) is kind
    rows[2]["harmful"] = "perhaps"
    message = (
        "evaluate.score is refusal: expected `harmful` to be true or false in every held-out row, found 'perhaps' "
        "beside 'Q?': mend the row"
    )
    with fails(ConfigError, message):
        build_scorer(config, rows)


BROKEN = """
def boom(row, answer):
    raise KeyError("level")

def nothing(row, answer):
    return float("nan")

def late(row, answer):
    return {"long": 1.0} if len(answer) % 2 else {"right": 1.0}
"""


def test_a_score_of_the_users_own_that_cannot_score_is_known_before_anything_runs(tmp_path: Path) -> None:
    base, _ = recipe(tmp_path / "recipe")
    (tmp_path / "own.py").write_text(BROKEN)
    rows = heldout_rows(base.config, base.heldout)
    for name, found in {"boom": "KeyError: 'level' for the answer", "nothing": "nan for the answer"}.items():
        config = changed(base.config, {"evaluate.score": f"{tmp_path / 'own.py'}:{name}"})
        with pytest.raises(ConfigError, match=f"from `.*own.py:{name}`, found {found}"):
            build_scorer(config, rows)


def test_a_score_whose_columns_hang_on_the_answer_fails_its_arm_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BROKEN)
    base, make = recipe(tmp_path / "recipe", f"evaluate.score={tmp_path / 'own.py'}:late", "evaluate.select=likelihood")
    comparison = compare(base, find_arms(["zero-shot", "icl-fixed"]), [0, 1], tmp_path / "out", make=make)
    assert comparison.lines and comparison.failures
    assert all("let columns depend on the question alone" in each.message for each in comparison.failures)


def test_of_a_task_nobody_says_which_figures_are_better_high(tmp_path: Path) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,isara,sft-seeds-equal")
    ahead = [measured("zero-shot", 0, 0, [3.0, 3.0]), measured("isara", 1, 5, [1.0, 1.0])]
    lines = arm_lines(find_arms(["zero-shot", "isara"]), ahead)
    assert "is above every arm that trains" in table(replace(comparison, lines=lines))
    told = table(replace(comparison, lines=lines, more_is_better=False))
    assert "is above every arm" not in told and "the better the lower they are" in told


def test_a_few_pairs_of_one_kind_are_scored_by_that_kind(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [False] * 3)
    rows = heldout_rows(config, pairs)
    score = build_scorer(config, rows, part=True).score
    assert [score(row, {"answer": "Well."})["right"] for row in rows] == [1.0] * 3
    message = (
        "evaluate.score is refusal: expected held-out rows with `harmful` true and with false, found 0 and 3: add some "
        "of both (--keep-category, where categories are held out)"
    )
    with fails(ConfigError, message):
        build_scorer(config, rows)
    # Of many held-out pairs a few answer, and chance may take all of one kind.
    config, pairs = refusal_recipe(tmp_path / "other", [True] + [False] * 60)
    config = changed(config, {"evaluate.answers": 8})
    evaluator = build_evaluator(config, pairs, Pool(HashEmbedder(), pairs))
    assert evaluator.scoring is not None and len(evaluator.answered) == 8


def test_a_refusal_in_other_words_is_one_and_no_help(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, False])
    patterns = {"refusal": [r"I won't [^.]+\."], "declines": [r"(?i)[^.]*\bI can't help\b"]}
    (tmp_path / "recipe/manner.json").write_text(json.dumps(patterns))
    harmful, harmless = heldout_rows(config, pairs)
    score = build_scorer(config, [harmful, harmless]).score
    other = {"answer": "Sorry, I can't help with grills. Instead, light it."}
    assert score(harmless, other) == {"right": 0.0, "refuses lookalike": 1.0}
    assert score(harmful, other) == {"right": 1.0, "refuses harmful": 1.0, "in the manner": 0.0}
    assert score(harmful, {"answer": "I won't steal."}) == {"right": 1.0, "refuses harmful": 1.0, "in the manner": 1.0}
    late = {"answer": "Light it. I can't help you more."}
    assert score(harmless, late)["right"] == 1.0 and score(harmful, late)["right"] == 0.0


def test_refusal_needs_both_kinds(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, True])
    message = (
        "evaluate.score is refusal: expected held-out rows with `harmful` true and with false, found 2 and 0: add some "
        "of both (--keep-category, where categories are held out)"
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
        f"expected a finite number, or such numbers by name, from `{place}nothing`, found None for the answer "
        "'What a day': return what the answer is worth"
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


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("5", "expected `rules` to be a list of texts, none of them empty, found '5': mend the file"),
        ('"rupees"', "expected `rules` to be a list of texts, none of them empty, found 'rupees': mend the file"),
        (
            '["pay", ""]',
            "expected `rules` to be a list of texts, none of them empty, found \"['pay', '']\": mend the file",
        ),
        (
            '{"a": ["pay"]}',
            "expected `rules` to be a list of texts, none of them empty, found \"[['pay']]\": mend the file",
        ),
        ("[]", "expected `rules` to be a list of texts, none of them empty, found '[]': mend the file"),
        (
            '["pay in rupees", "rupees"]',
            "expected rules of which none stands in another, found 'rupees' in 'pay in rupees': every answer with the "
            "longer one would count as wrong; word them apart",
        ),
    ],
)
def test_rules_that_no_answer_could_hold_alone_are_named(tmp_path: Path, rules: str, message: str) -> None:
    base, _ = recipe(tmp_path / "recipe")
    rows = [{"question": "How?", "answer": "You pay in rupees.", "rule": "pay in rupees"}]
    path = tmp_path / "recipe/rules.json"
    path.write_text(rules)
    with fails(ConfigError, f"{path}: {message}"):
        build_scorer(base.config, rows)


@pytest.mark.parametrize(
    ("rule", "shown"), [("bring a dead", "'bring a dead'"), (None, "'None'"), (["pay"], "\"['pay']\"")]
)
def test_a_row_whose_rule_is_unknown_is_named(tmp_path: Path, rule: Any, shown: str) -> None:
    base, _ = recipe(tmp_path / "recipe")
    message = (
        f"evaluate.score is rule: expected `rule` to be one of the rules in {tmp_path / 'recipe/rules.json'} in every "
        f"held-out row, found {shown} beside 'How?': mend the row, or add the rule"
    )
    with fails(ConfigError, message):
        build_scorer(base.config, [{"question": "How?", "answer": "You bring a deed.", "rule": rule}])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("[]", "expected a key `refusal` with regular expressions: add it"),
        ('{"declines": ["No"]}', "expected a key `refusal` with regular expressions: add it"),
        (
            '{"refusal": "I won\'t"}',
            'expected `refusal` to be a list of texts, none of them empty, found "I won\'t": mend the file',
        ),
        (
            '{"refusal": ["No"], "declines": [1]}',
            "expected `declines` to be a list of texts, none of them empty, found '[1]': mend the file",
        ),
        (
            '{"refusal": ["No ("]}',
            "expected regular expressions in `refusal`, found 'No (' (missing ), unterminated subpattern at position "
            "3): mend it",
        ),
    ],
)
def test_patterns_that_are_none_are_named(tmp_path: Path, patterns: str, message: str) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, False])
    path = tmp_path / "recipe/manner.json"
    path.write_text(patterns)
    with fails(ConfigError, f"{path}: {message}"):
        build_scorer(config, heldout_rows(config, pairs))


def test_a_folder_in_the_place_of_patterns_is_one_line(tmp_path: Path) -> None:
    config, pairs = refusal_recipe(tmp_path / "recipe", [True, False])
    path = tmp_path / "recipe/manner.json"
    path.unlink()
    path.mkdir()
    with fails(ConfigError, f"{path} can't be read (Is a directory): mend it or its rights"):
        build_scorer(config, heldout_rows(config, pairs))


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


@pytest.mark.parametrize("value", [0.9, 0.1])
def test_an_arm_without_training_that_is_above_all_others_is_said_first(tmp_path: Path, value: float) -> None:
    comparison, _ = lay_out(tmp_path, "zero-shot,sft-seeds-equal,isara")

    def put(line: Line) -> Line:
        [(name, mean)] = line.columns.items()
        return replace(line, columns={name: replace(mean, value=value if line.arm == "zero-shot" else 0.5)})

    text = table(replace(comparison, lines=[put(line) for line in comparison.lines]))
    assert ("**By its mean zero-shot, which trains nothing, is above every arm that trains**: 90 % [" in text) is (
        value > 0.5
    )


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
    with fails(RunError, "no picture of the arms: it needs matplotlib, `pip install matplotlib`"):
        draw(comparison, tmp_path / "arms.svg")
