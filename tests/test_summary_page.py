"""report.html of several comparisons: the arms over splits and numbers of seeds, and what a browser makes of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from isara.cli.report import report
from isara.compare.arms import find_arms
from isara.compare.compare import compare
from isara.compare.comparison import Failure
from isara.compare.guards import Leak
from isara.compare.summary import write_summary
from isara.compare.summary_page import content, is_summary, refresh_page, write_page
from isara.compare.variations import Variation, by_categories, by_counts
from isara.errors import RunError
from isara.files import read_json, write_json
from tests.browser import Browser
from tests.compare_world import recipe
from tests.test_compare_pairs import grouped
from tests.test_page import HOSTILE, data_of

ARMS = find_arms(["zero-shot", "urial", "isara", "sft-seeds-equal"])


def lay_out(out: Path, variations: list[Variation], make: Any, pooled: bool) -> Path:
    """The comparisons, each with its summary as the command leaves it."""
    about = {each.name: each.about for each in variations}
    done = {}
    for each in variations:
        done[each.name] = compare(each.base, ARMS, [0], out / each.name, make=make)
        write_summary(out, done, about, pooled)
        refresh_page(out)
    return out


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("splits")
    base, make = grouped(place)
    return lay_out(place / "out", by_categories(base, "kind", splits=3), make, pooled=True)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("counts")
    base, make = recipe(place / "recipe")
    return lay_out(place / "out", by_counts(base, [2, 4]), make, pooled=False)


def test_the_page_says_what_the_comparisons_say(splits: Path) -> None:
    found = content(splits)
    assert [each["name"] for each in found["comparisons"]] == ["split-1", "split-2", "split-3"]
    assert found["missing"] == [] and not found["counts"]
    for each in found["comparisons"]:
        told = read_json(splits / each["name"] / "comparison.json")
        assert {name: line["figures"] for name, line in each["lines"].items()} == {
            line["arm"]: line["columns"] for line in told["arms"]
        }
        assert each["page"] == f"{each['name']}/report.html" and (splits / each["page"]).is_file()
    assert found["pooled"]["isara"]["figures"]["right"]["n"] == 9
    share, times = found["comparisons"][0]["yields"]["isara"]
    assert 0 < share <= 1 and times == 12 / found["comparisons"][0]["seed_pairs"]


def test_numbers_of_seeds_are_not_counted_together(counts: Path) -> None:
    found = content(counts)
    assert found["counts"] and found["pooled"] is None
    assert [each["seed_pairs"] for each in found["comparisons"]] == [2, 4]


def test_the_same_comparisons_give_the_same_bytes(splits: Path, tmp_path: Path) -> None:
    first = (splits / "report.html").read_bytes()
    assert write_page(splits).read_bytes() == first
    assert data_of(first.decode()) == json.loads(json.dumps(content(splits)))
    elsewhere = data_of(write_page(splits, tmp_path / "page.html").read_text())
    assert [each["page"] for each in elsewhere["comparisons"]] == [None] * 3 and elsewhere["missing"] == []


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    comparison = compare(base, find_arms(["zero-shot", "isara"]), [0], tmp_path / "out/split-1", make=make)
    failed = replace(comparison, lines=comparison.lines[:1], failures=[Failure("isara", 0, "too few pairs")])
    failed = replace(failed, measured=[each for each in failed.measured if each.arm == "zero-shot"])
    text = write_summary(tmp_path / "out", {"split-1": failed}, {"split-1": "lakes", "split-2": "forests"}, pooled=True)
    assert "- split-1: lakes\n- split-2: forests (not finished)" in text
    (tmp_path / "out/split-1/report.html").unlink()
    assert content(tmp_path / "out")["missing"] == [
        "split-2 (forests) is not finished: the command that began it goes on.",
        "split-1: isara failed with training seed 0: too few pairs",
        "split-1 has no page: `isara report` with its folder writes it.",
        "Not counted over all questions, since not every comparison has it: isara.",
    ]


def test_what_one_comparison_gives_away_marks_what_all_say_together(tmp_path: Path) -> None:
    base, make = recipe(tmp_path / "recipe")
    clean = compare(base, find_arms(["zero-shot", "isara"]), [0], tmp_path / "out/split-1", make=make)
    leaking = replace(clean, out=tmp_path / "out/split-2", leaks=[Leak("0", "Who sells milk?", "Who sells milk?", "")])
    about = {"split-1": "lakes", "split-2": "forests"}
    text = write_summary(tmp_path / "out", {"split-1": clean, "split-2": leaking}, about, pooled=True)
    [titles, isara, alone] = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.split("Accepted pairs")[0].splitlines()
        if line.startswith(("| arm", "| isara |", "| zero-shot |"))
    ][:3]
    isara, alone = (isara, alone) if isara[0] == "isara" else (alone, isara)
    assert titles[:4] == ["arm", "split-1", "split-2", "all questions"]
    assert [cell.endswith("‡") for cell in isara[1:4]] == [False, True, True]
    assert not any("‡" in cell for cell in alone)
    assert "‡ Contaminated: these models have seen a seed pair that gives a test question away." in text


def test_report_of_several_comparisons(splits: Path, tmp_path: Path) -> None:
    assert is_summary(splits) and not is_summary(splits / "split-1")
    app = typer.Typer()
    app.command()(report)
    written = CliRunner().invoke(app, [str(splits), "--out", str(tmp_path / "page.html")])
    assert written.output == f"{tmp_path}/page.html opens in any browser, without a network.\n"
    assert len(data_of((tmp_path / "page.html").read_text())["comparisons"]) == 3


def test_a_summary_of_another_version_is_named(splits: Path, tmp_path: Path) -> None:
    found = read_json(splits / "summary.json")
    del found["planned"]
    write_json(tmp_path / "summary.json", found)
    with pytest.raises(RunError) as error:
        write_page(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/summary.json is damaged or of another version: run the same `isara compare` again, which asks no "
        "question twice"
    )


# ---- in a real browser


@pytest.fixture
def opened(browser: Browser) -> Callable[[Path], Browser]:
    return lambda folder: browser.alone(write_page(folder))


def test_a_number_leads_to_the_answers_behind_it(splits: Path, opened: Callable[[Path], Browser]) -> None:
    browser = opened(splits)
    assert browser.run("return document.querySelectorAll('#plots svg').length") == len(ARMS)
    assert browser.run("return document.querySelectorAll('#arms tbody tr').length") == len(ARMS)
    assert "missing" not in browser.text("nav").lower()
    where = browser.run("return document.querySelectorAll('#arms tbody tr')[1].querySelectorAll('a')[1].href")
    assert where == f"{(splits / 'split-2/report.html').as_uri()}#arm-urial"
    browser.open(where)
    assert browser.run("return document.querySelector('.card.focus').innerText").startswith("urial†")
    assert browser.run("return document.activeElement.id") == "answers"
    assert browser.log("browser") == []


def test_a_point_leads_there_too(counts: Path, opened: Callable[[Path], Browser]) -> None:
    browser = opened(counts)
    assert browser.run("return document.querySelectorAll('#plots .way').length") == len(ARMS)
    browser.run("document.querySelectorAll('#plots [role=button]')[1].focus()")
    browser.press("\ue007")  # Enter
    wanted = f"{(counts / 'seeds-4/report.html').as_uri()}#arm-zero-shot"
    # The page that opens takes the name of the section to which it jumps for no address of its own.
    assert browser.settle("return document.getElementById('answers') && location.href", wanted) == wanted


def test_hostile_texts_are_text(splits: Path, tmp_path: Path, opened: Callable[[Path], Browser]) -> None:
    found = read_json(splits / "summary.json")
    found["planned"][HOSTILE[0]] = HOSTILE[1]
    found["arms"][0]["about"] = HOSTILE[2]
    first = found["comparisons"]["split-1"]
    first["about"], first["model"] = HOSTILE[3], HOSTILE[1]
    first["failures"] = [{"arm": "isara", "seed": 1, "message": HOSTILE[4]}]
    (tmp_path / "<b>out").mkdir()
    write_json(tmp_path / "<b>out/summary.json", found)
    browser = opened(tmp_path / "<b>out")
    assert HOSTILE[0] in browser.text("missing") and "<svg onload=window.hit=1>" in browser.text("story")
    assert "⟨202E⟩gnissim si eman" in browser.text("arms")
    assert (
        browser.run("return document.querySelectorAll('img, iframe, a[href^=javascript], b:not([class])').length") == 0
    )
    assert browser.run("return window.hit === undefined && document.scripts.length") == 2
    assert browser.log("browser") == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(splits: Path, opened: Callable[[Path], Browser], width: int) -> None:
    assert opened(splits).fits(width)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_has_no_serious_finding(splits: Path, counts: Path, opened: Callable[[Path], Browser], dark: bool) -> None:
    assert opened(splits).serious(dark) == []
    assert opened(counts).serious(dark) == []
