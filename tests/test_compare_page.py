"""report.html of a comparison: its figures are those of its answers, and what a browser makes of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from isara.cli.report import report
from isara.compare.arms import find_arms
from isara.compare.compare import compare
from isara.compare.figures import Mean
from isara.compare.page import content, refresh_page, write_page
from isara.compare.plot import draw
from isara.errors import RunError
from isara.files import json_lines, read_json, read_rows, write_json, write_text
from isara.records import QAPair
from isara.statistics import Interval
from tests.browser import Browser
from tests.compare_world import lay_out, recipe
from tests.doubles import SEEDS
from tests.test_compare_tasks import ITEMS, safety
from tests.test_page import HOSTILE, data_of

ARMS = "zero-shot,icl-knn,urial,isara,sft-seeds-equal"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("comparison")
    lay_out(place, ARMS, (0, 1))
    return place / "out"


def copied(folder: Path, place: Path, change: Callable[[list[dict[str, Any]], dict[str, Any]], None]) -> Path:
    """What the page is made of, with other rows and figures."""
    rows, figures = read_rows(folder / "scores.jsonl"), read_json(folder / "comparison.json")
    change(rows, figures)
    place.mkdir()
    write_text(place / "scores.jsonl", json_lines(rows))
    write_json(place / "comparison.json", figures)
    write_text(place / "compare.yaml", (folder / "compare.yaml").read_text())
    return place


def mean(answers: Sequence[Sequence[Mapping[str, Any]]], models: Sequence[int]) -> float:
    return float(np.mean([[answer["v"][0] for answer in answers[model]] for model in models]))


def test_a_comparison_writes_its_page_and_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    first = (folder / "report.html").read_bytes()
    assert write_page(folder).read_bytes() == first
    assert data_of(first.decode()) == json.loads(json.dumps(content(folder)))
    assert data_of(write_page(folder, tmp_path / "page.html").read_text())["arms"][0]["runs"] == []


def test_the_pages_of_the_runs_are_linked_where_they_are(folder: Path, tmp_path: Path) -> None:
    place = copied(folder, tmp_path / "out", lambda rows, figures: None)
    for run in ("isara/seed-1", "sft-seeds-equal/seed-0/steps-10"):
        (place / "arms" / run).mkdir(parents=True)
        (place / "arms" / run / "report.html").touch()
    (place / "arms/isara/seed-1/isara.yaml").touch()
    runs = {arm["name"]: arm["runs"] for arm in content(place)["arms"] if arm["runs"]}
    assert runs == {
        "isara": [{"said": "seed 1", "href": "arms/isara/seed-1/report.html"}],
        "sft-seeds-equal": [{"said": "seed 0, steps 10", "href": "arms/sft-seeds-equal/seed-0/steps-10/report.html"}],
    }


def test_every_figure_is_the_mean_of_the_answers_that_it_opens(folder: Path) -> None:
    found = content(folder)
    held = 0
    for line in found["lines"]:
        assert mean(found["answers"], line["models"]) == pytest.approx(line["figures"]["right"]["value"])
        if line["difference"]:
            ours, theirs = (mean(found["answers"], side) for side in zip(*line["pairs"], strict=True))
            assert ours - theirs == pytest.approx(line["difference"]["mean"])
            held += 1
    assert held == 4 + 2  # all arms but the baseline, and isara's iterations
    assert [arm["name"] for arm in found["arms"] if arm["instructions"]] == ["urial"]
    assert found["questions"][0]["wanted"] == "There you pay in rupees."
    knn = next(place for place, model in enumerate(found["models"]) if model["arm"] == "icl-knn")
    assert all(demo in found["pairs"] for answer in found["answers"][knn] for demo in answer["demos"])


def test_a_page_that_cant_be_written_loses_nothing(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = copied(folder, tmp_path / "out", lambda rows, figures: None)
    (place / "report.html").mkdir()
    refresh_page(place)
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"{place}/report.html was not written (RunError: ")
    assert said.endswith(f"; `isara report {place}` writes it again")


def test_report_of_a_comparison(folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    written = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "page.html")])
    assert written.output == f"{tmp_path}/page.html opens in any browser, without a network.\n"


def test_a_tasks_items_are_its_questions_and_what_gives_them_away_is_named(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    base = replace(base, seeds=[*SEEDS, QAPair(ITEMS[0].prompt, "You don't.")])
    compare(base, find_arms(["icl-knn"]), [0], tmp_path / "out", tests=safety(), make=make)
    found = content(tmp_path / "out")
    assert {question["q"] for question in found["questions"]} == {item.prompt for item in ITEMS}
    [near] = [question for question in found["questions"] if "near" in question]
    assert near["q"] == ITEMS[0].prompt and near["near"].startswith(f"{ITEMS[0].prompt} (8 words in a row")
    assert found["arms"][0]["contaminated"] is True


def test_a_harness_question_is_what_the_harness_asked(folder: Path, tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        for row in rows:
            del row["question"], row["answer"]
            row |= {"id": f"doc {row['id']}", "arguments": [["Who?", " Link"]], "resps": [[-1.5, True]], "target": 0}

    found = content(copied(folder, tmp_path / "out", change))
    assert found["texts"] == ["[[-1.5, true]]"]
    assert [found["questions"][0][name] for name in ("q", "wanted")] == ['[["Who?", " Link"]]', "0"]


def test_files_that_dont_fit_together_are_named(folder: Path, tmp_path: Path) -> None:
    place = copied(folder, tmp_path / "out", lambda rows, figures: rows.__delitem__(-1))
    with pytest.raises(RunError) as error:
        write_page(place)
    assert str(error.value) == (
        f"the comparison.json, scores.jsonl and compare.yaml of {place} don't fit together: one is damaged or of "
        "another version; run the same `isara compare` again, which asks no question twice"
    )
    (place / "comparison.json").unlink()
    with pytest.raises(RunError) as error:
        write_page(place)
    assert str(error.value) == (
        f"expected a finished comparison with a comparison.json at {place}, found none: the `isara compare` that "
        "began it ends with one"
    )


def test_a_mean_that_rounding_puts_outside_its_interval_is_drawn(tmp_path: Path) -> None:
    """Every question of a kind has the same value: each resample has the same mean, added up in another order."""
    comparison, _ = lay_out(tmp_path, "zero-shot,icl-knn")
    mean = Mean(0.5000000000000001, Interval(0.5, 0.5), (0.5,), 21)
    lines = [replace(line, columns={"right": mean}) for line in comparison.lines]
    low = [replace(line, columns={"right": replace(mean, value=0.49999999999999994)}) for line in comparison.lines]
    for number, drawn in enumerate((lines, low)):
        draw(replace(comparison, lines=drawn), tmp_path / f"{number}.svg")
        assert "icl-knn" in (tmp_path / f"{number}.svg").read_text()


# ---- in a real browser


@pytest.fixture
def opened(browser: Browser) -> Callable[[Path], Browser]:
    return lambda folder: browser.alone(write_page(folder))


def status(browser: Browser) -> str:
    return browser.text("answers-count")


def test_a_number_a_search_and_a_filter_lead_to_their_answers(folder: Path, opened: Callable[[Path], Browser]) -> None:
    browser, found = opened(folder), content(folder)
    assert status(browser) == "9 of 9 questions"
    at = next(place for place, line in enumerate(found["lines"]) if line["arm"] == "isara" and line["t"] is None)
    line = found["lines"][at]
    gains = [
        np.mean([found["answers"][a][q]["v"][0] - found["answers"][b][q]["v"][0] for a, b in line["pairs"]])
        for q in range(9)
    ]
    browser.run(f"document.querySelectorAll('#arms tbody tr')[{at}].querySelectorAll('td button')[1].click()")
    assert browser.run("return document.activeElement.id") == "answers"
    assert browser.run("return document.querySelectorAll('#plot svg').length") == len(found["arms"])
    first = browser.run("return document.querySelector('#answers-list button').textContent")
    best = (np.argmin if line["difference"]["mean"] < 0 else np.argmax)(gains)
    assert first == found["questions"][int(best)]["q"]
    focus = browser.run("return document.querySelector('.card.focus').innerText")
    assert focus.startswith("isara") and found["texts"][found["answers"][line["models"][0]][int(best)]["a"]] in focus
    browser.choose("answers-show", "up")
    assert status(browser) == f"{sum(gain > 0 for gain in gains)} of 9 questions"
    browser.choose("answers-show", "all")
    browser.run("document.getElementById('answers-words').focus()")
    browser.press(found["questions"][3]["id"].upper())
    said = "return document.getElementById('answers-count').textContent"
    assert browser.settle(said, "1 of 9 questions") == "1 of 9 questions"
    browser.run("document.querySelector('#answers-list button').click()")
    shown = browser.text("question")
    assert shown.count("seed 1") == len(found["models"]) / 2 and "There you pay in rupees." in shown
    browser.press("\ue00c")  # Escape
    assert browser.settle("return document.getElementById('question').open", False) is False
    assert browser.log("browser") == []


def test_an_answer_is_right_or_wrong_where_its_value_is_a_weight(
    folder: Path, tmp_path: Path, opened: Callable[[Path], Browser]
) -> None:
    """As of the score `refusal`: a right answer to a rare kind of question counts more than one."""

    def change(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        rare = rows[0]["id"]
        for row in rows:
            row["values"] = {"right": (1.8 if row["id"] == rare else 0.9) * (row["seed"] == 0)}

    browser = opened(copied(folder, tmp_path / "out", change))
    browser.run("openAnswers(arms.find((index) => D.lines[index].arm === 'isara'), 0, 'given')")
    scores = browser.run("return [...document.querySelectorAll('#answers-list .score')].map((s) => s.innerText)")
    assert set(scores) == {"right with 1 of 2 seeds"}
    list_of = browser.text("answers-list")
    assert "seed 0: right" in list_of and "180 %" not in list_of and "points" not in list_of
    assert "isara: right as often as sft-seeds-equal" in list_of
    browser.run("openQuestion(0)")
    shown = browser.text("question")
    assert "\nright\n" in shown and "\nwrong\n" in shown and "%" not in shown


def test_what_opens_answers_is_said_and_no_more(folder: Path, opened: Callable[[Path], Browser]) -> None:
    browser = opened(folder)
    assert "A score, a difference or an arm's name opens the answers behind it." in browser.text("arms")
    assert "A number opens" not in browser.text("arms")


def test_hostile_answers_are_text(folder: Path, tmp_path: Path, opened: Callable[[Path], Browser]) -> None:
    def change(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        for row in rows:
            number = [each["id"] for each in rows].index(row["id"])
            row["question"] = row["answer"] = HOSTILE[number % len(HOSTILE)]
        figures["failures"] = [{"arm": "isara", "seed": 7, "message": HOSTILE[1]}]
        figures["model"] = HOSTILE[0]

    browser = opened(copied(folder, tmp_path / "<b>out", change))
    assert "<svg onload=window.hit=1>" in browser.text("story")
    for number, text in enumerate(HOSTILE[:2]):
        assert text in browser.run(
            "openQuestion(arguments[0]); return document.getElementById('question').innerText", number
        )
    assert "⟨202E⟩gnissim si eman" in browser.run(
        "openQuestion(3); return document.getElementById('question').innerText"
    )
    assert (
        browser.run("return document.querySelectorAll('img, iframe, a[href^=javascript], b:not([class])').length") == 0
    )
    assert browser.run("return window.hit === undefined && document.scripts.length") == 2
    assert browser.log("browser") == []


def test_where_every_arm_failed_the_page_says_why(
    folder: Path, tmp_path: Path, opened: Callable[[Path], Browser]
) -> None:
    def change(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        rows.clear()
        figures["arms"], figures["iterations"] = [], []
        figures["costs"] = dict.fromkeys(figures["costs"], [])
        figures["failures"] = [{"arm": "isara", "seed": 1, "message": "too few pairs pass"}]

    browser = opened(copied(folder, tmp_path / "out", change))
    assert "isara, seed 1: too few pairs pass" in browser.text("story")
    assert browser.run("return document.querySelectorAll('section').length") == 1


def test_tens_of_thousands_of_answers_stay_quick(
    folder: Path, tmp_path: Path, opened: Callable[[Path], Browser]
) -> None:
    def change(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
        rows[:] = [
            {**row, "id": f"{row['id']}-{copy}", "question": f"{row['question']} {copy}"}
            for row in rows
            for copy in range(300)
        ]

    browser = opened(copied(folder, tmp_path / "out", change))
    assert browser.run("return D.answers.length * D.questions.length") > 30_000
    asked = "Object.assign(state, { show: 'differ', order: 'up', words: 'house 299' })"
    assert browser.run(f"const t = performance.now(); {asked}; drawAnswers(); return performance.now() - t") < 3000
    assert browser.run("return document.querySelectorAll('*').length") < 2000


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(folder: Path, opened: Callable[[Path], Browser], width: int) -> None:
    assert opened(folder).fits(width)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_has_no_serious_finding(folder: Path, opened: Callable[[Path], Browser], dark: bool) -> None:
    assert opened(folder).serious(dark, "openQuestion(0)") == []
