"""report.html: what it says of a run, that no text of a model gets out of its place, and what a browser makes of it."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isara.cli import main as cli
from isara.decisions import Decision, review_file, write_decisions
from isara.embedders import LexicalEmbedder
from isara.errors import RunError
from isara.loop import run as run_loop
from isara.records import QAPair, Rejection
from isara.report.facts import Run, read_run
from isara.report.page import refresh_page, write_page
from isara.report.page.content import content
from isara.report.page.html import page, safe_json
from isara.report.page.places import chosen, lay_out
from isara.report.page.rows import pieces
from tests.browser import Browser
from tests.test_loop import align, tree
from tests.test_report import SEEDS, made, make_run
from tests.test_seeds_only import village

HOSTILE = [
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'> <svg onload=window.hit=1><a href='javascript:window.hit=1'>x</a></svg>",
    "<!--<script> --> ]]> {{SCRIPT}} ${window.hit = 1} \u2028\u2029 &lt;b&gt; \\u003c/script>",
    "safe \u202egnissim si eman ruoY\u202c \u200b\u2066hidden\u2069 \U000e0041 \x07",
    "Zelda " * 180_000,
]


def data_of(text: str) -> dict[str, Any]:
    """What a page holds, as its own script reads it."""
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)  # type: ignore[no-any-return]


def hostile_run(place: Path) -> Run:
    rows = [made(f"{number} {text}", f"Answer {text}") for number, text in enumerate(HOSTILE)]
    rows += [made(f"Who hides {text}?", "", Rejection(text[:200], text[:50], 1.0, "no-id")) for text in HOSTILE[:3]]
    return make_run(place, batches=[rows])


def test_a_page_says_what_the_run_holds(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = content(run, LexicalEmbedder())
    assert found["story"]["seeds"] == 2 and found["story"]["candidates"] == 6
    assert found["story"]["accepted"] == sum(len(facts.accepted) for facts in run.iterations) == 3
    [first, second] = found["funnel"]
    assert (first["candidates"], first["accepted"]) == (4, 1)
    assert dict(first["reasons"]) == {"novelty": 1, "truncated": 1, "max_answer_tokens": 1}
    assert second["reasons"] == []
    fates = [row["fate"] for row in found["rows"]]
    assert fates == ["seed"] * 2 + ["accepted"] + ["dropped"] * 3 + ["accepted"] * 2
    near = found["rows"][3]
    assert (near["reason"], near["value"], near["threshold"], near["near"]) == ("novelty", "0.72", "0.7", 0)


def test_every_count_of_the_funnel_is_the_count_of_its_rows(tmp_path: Path) -> None:
    found = content(make_run(tmp_path / "run"), LexicalEmbedder())
    for it in found["funnel"]:
        for reason, count in it["reasons"]:
            assert sum(row["t"] == it["t"] and row.get("reason") == reason for row in found["rows"]) == count


def test_a_prompt_in_pieces_is_the_prompt(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = content(run, LexicalEmbedder())["rows"]
    whole = [stored for facts in run.iterations for stored in facts.candidates]
    referred = 0
    for row, stored in zip(rows[len(run.seeds) :], whole, strict=True):
        drawn = [stored.candidate.question, *stored.candidate.answers]
        for shown, draw in zip([row["question"], *row.get("answers", [])], drawn, strict=True):
            texts = [
                piece if isinstance(piece, str) else rows[piece >> 1]["a" if piece & 1 else "q"]
                for piece in shown["prompt"]
            ]
            assert "".join(texts) == draw.prompt
            referred += sum(isinstance(piece, int) for piece in shown["prompt"])
    assert referred > 10


def test_a_prompt_without_its_demonstrations_stays_text() -> None:
    pairs = [QAPair("Who is the Happy Mask Salesman?", "No one knows.")]
    assert pieces("Something else entirely", [0, "gone"], pairs) == ["Something else entirely"]
    assert pieces("", [0], pairs) == []


@pytest.mark.parametrize("text", HOSTILE[:4])
def test_no_text_ends_the_data(text: str) -> None:
    shown = page("run", {"name": text, "rows": [{"q": text}]}, text)
    assert data_of(shown) == {"name": text, "rows": [{"q": text}]}
    assert shown.count("<script") == shown.count("</script>") == 2
    assert not set("\u2028\u2029") & set(shown)


def test_half_a_surrogate_pair_can_be_written() -> None:
    assert json.loads(safe_json({"q": "\ud83d"})) == {"q": "\ud83d"}
    safe_json({"q": "\ud83d"}).encode()


def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else(tmp_path: Path) -> None:
    shown = page("run", {"name": "run"}, "run")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', shown)
    [style] = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    script = shown.rpartition("<script>")[2].partition("</script>")[0]
    hashes = ["sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert policy.startswith(f"default-src 'none'; script-src '{hashes[0]}'; style-src '{hashes[1]}'; ")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", shown)


def test_near_questions_are_near_on_the_map_and_it_is_the_same_each_time() -> None:
    texts = ["Who sells bombs?", "Who sells bombs here?", "Where does Epona graze today?", "Where does Epona graze?"]
    places, share = lay_out(LexicalEmbedder(), texts)
    assert (places, share) == lay_out(LexicalEmbedder(), texts)
    assert np.hypot(*np.subtract(places[0], places[1])) < 0.5 * np.hypot(*np.subtract(places[0], places[2]))
    assert 0.5 < share <= 1 and np.abs(places).max() == 1


class Flat:
    """Puts every text in the same place."""

    name = "flat"

    def encode(self, texts: Any) -> NDArray[np.float32]:
        return np.ones((len(texts), 1), dtype=np.float32)


def test_a_map_of_nothing_is_no_error() -> None:
    assert lay_out(Flat(), ["a", "b", "c"]) == ([(0.0, 0.0)] * 3, 0.0)
    assert lay_out(LexicalEmbedder(), ["a"]) == ([(0.0, 0.0)], 0.0)
    assert chosen(3) == [0, 1, 2] and chosen(10, 4) == [0, 2, 5, 7]


def test_a_run_writes_its_page_after_each_stage_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    seen: list[int] = []

    def show(run: Path) -> None:
        refresh_page(LexicalEmbedder(), run)
        seen.append(len(data_of((run / "report.html").read_text())["models"]))

    align(tmp_path / "run", page=show)
    # The base model's evaluation, three stages of each iteration, and the end.
    assert len(seen) == 8 and seen == sorted(seen) and seen[-1] == 3
    before = tree(tmp_path / "run")
    (tmp_path / "run/report.html").write_bytes(b"\xff torn")
    align(tmp_path / "run", page=show)  # a damaged page is written again, and harms nothing
    assert tree(tmp_path / "run") == before
    align(tmp_path / "plain")
    before.pop("report.html")
    assert tree(tmp_path / "plain") == before


def test_a_page_that_cant_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run").path
    (run / "report.html").mkdir()
    refresh_page(LexicalEmbedder(), run)
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"{run}/report.html was not written (RunError: ")
    assert said.endswith(f"; `isara report {run}` writes it again")


def test_report_writes_a_page_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run").path
    monkeypatch.setattr("sys.argv", ["isara", "report", str(run), "--out", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert data_of((tmp_path / "page.html").read_text())["name"] == "run"
    assert not (run / "report.html").exists()
    assert capsys.readouterr().out == f"{tmp_path}/page.html opens in any browser, without a network: 8 rows.\n"


def test_report_of_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder"):
        write_page(read_run(tmp_path), LexicalEmbedder())


# ---- in a real browser


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Callable[[Run], Browser]:
    return lambda run: browser.alone(write_page(run, LexicalEmbedder()))


def status(browser: Browser) -> str:
    return browser.text("rows-count")


def test_a_search_a_filter_and_a_number_lead_to_their_rows(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    browser = opened(make_run(tmp_path / "run"))
    assert status(browser) == "8 of 8 rows"
    browser.run("document.getElementById('rows-words').focus()")
    browser.press("BOMBS hyrule")
    said = "return document.getElementById('rows-count').textContent"
    assert browser.settle(said, "2 of 8 rows") == "2 of 8 rows"
    browser.run("[...document.querySelectorAll('#rows button')].find((b) => b.textContent === 'All rows').click()")
    assert status(browser) == "8 of 8 rows"
    browser.choose("rows-fate", "dropped")
    assert status(browser) == "3 of 8 rows"
    browser.run("[...document.querySelectorAll('#funnel button')].find((b) => b.textContent === 'novelty').click()")
    assert status(browser) == "1 of 8 rows"
    assert browser.run("return document.activeElement.id") == "rows"
    browser.run("document.querySelector('#rows-list button').click()")
    shown = browser.text("row")
    assert "Who sells bombs in all of Hyrule?" in shown and "value 0.72" in shown and SEEDS[0].question in shown
    browser.run("[...document.querySelectorAll('#row summary')].forEach((s) => s.click())")
    wanted = f"Question: {SEEDS[1].question}\nAnswer: {SEEDS[1].answer}\n\nQuestion:"
    assert browser.settle("const p = document.querySelector('#row pre'); return p && p.textContent", wanted) == wanted
    browser.press("\ue00c")  # Escape
    assert browser.settle("return document.getElementById('row').open", False) is False
    assert browser.log("browser") == []


def test_an_interval_of_the_verdict_opens_the_answers_behind_it(
    tmp_path: Path, opened: Callable[[Run], Browser]
) -> None:
    run_loop(village(tmp_path / "run"))
    browser = opened(read_run(tmp_path / "run"))
    named = "[...document.querySelectorAll('#story .line button')]"
    assert browser.run(f"return {named}.map((b) => b.textContent)")[0] == "than base"
    browser.choose("answers-after", "0")
    browser.run(f"{named}[0].click()")
    assert browser.run("return document.activeElement.id") == "answers"
    assert browser.run("return document.getElementById('answers-after').value") == "2"


def test_the_map_is_walked_with_the_keys(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    browser = opened(make_run(tmp_path / "run"))
    browser.run("document.querySelector('#map .plot > svg').focus()")
    browser.press("\ue014")  # right
    here = browser.run("return document.querySelector('.here-line').innerText")
    assert here.startswith("dropped")
    browser.press("\ue007")  # Enter
    assert browser.run("return document.getElementById('row').open") is True


def test_hostile_rows_are_text(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    browser = opened(hostile_run(tmp_path / "run"))
    opening = "openRow(arguments[0]); return document.getElementById('row').innerText"
    for number, text in enumerate(HOSTILE):
        shown = browser.run(opening, len(SEEDS) + number)
        if number < 2:
            assert f"Answer {text}" in shown
    assert "Show all 1,080,007 characters" in shown
    assert "⟨202E⟩gnissim si eman ruoY⟨202C⟩ ⟨200B⟩⟨2066⟩hidden⟨2069⟩ ⟨E0041⟩ ⟨0007⟩" in browser.run(opening, 5)
    assert browser.run("return document.querySelectorAll('img, iframe, a[href^=javascript], #row svg').length") == 0
    assert browser.run("return window.hit === undefined && document.scripts.length") == 2
    assert browser.log("browser") == []


def test_tens_of_thousands_of_rows_stay_quick(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    rows = [
        made(f"How heavy is stone {number} of Death Mountain?", f"It weighs {number} pounds.")
        for number in range(20_000)
    ]
    run = make_run(tmp_path / "run", batches=[rows])
    browser = opened(run)
    took = browser.run(
        "const t = performance.now(); filter.words = 'stone 19999'; drawRows(); return performance.now() - t"
    )
    assert status(browser) == "1 of 20,002 rows"
    assert took < 3000
    assert browser.run("return document.querySelectorAll('*').length") < 8000


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tmp_path: Path, opened: Callable[[Run], Browser], width: int) -> None:
    assert opened(make_run(tmp_path / "run")).fits(width)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_has_no_serious_finding(tmp_path: Path, opened: Callable[[Run], Browser], dark: bool) -> None:
    assert opened(make_run(tmp_path / "run")).serious(dark, f"openRow({len(SEEDS)})") == []


def test_what_a_person_decided_stands_on_the_page(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    path = make_run(tmp_path / "run").path
    pair = read_run(path).iterations[0].accepted[0]
    write_decisions(review_file(path, 1), [Decision(pair.id, "edit", "Who sells fish?", "<b>Zoras</b>", "shorter")])
    browser = opened(read_run(path))
    browser.run("[...document.querySelectorAll('.tiles button')].find((b) => b.innerText.includes('1 edited')).click()")
    assert status(browser) == "1 of 8 rows decided by a person"
    browser.run("document.querySelector('#rows-list button').click()")
    row = browser.text("row")
    assert "edited by a person: shorter" in row and "Who sells fish?" in row and "<b>Zoras</b>" in row
