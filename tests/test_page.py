"""report.html: what it says of a run, that no text of a model gets out of its place, and what a browser makes of it."""

import base64
import dataclasses
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
from isara.evaluate.verdict import LEAST_PAIRS, Gain
from isara.files import json_lines, read_json, write_json, write_text
from isara.folder import stage_folder
from isara.kinds import OTHER, Kinds, KindShare
from isara.loop import run as run_loop
from isara.records import SEEDS_ONLY, QAPair, Rejection
from isara.report.facts import Example, Run, read_run
from isara.report.page import refresh_page, write_page
from isara.report.page.answers import _gain, heldout
from isara.report.page.content import content
from isara.report.page.html import page, safe_json
from isara.report.page.places import chosen, lay_out
from isara.report.page.rows import pieces
from isara.statistics import Interval
from tests.browser import Browser
from tests.test_loop import align, tree
from tests.test_report import SEEDS, made, make_run
from tests.test_seeds_only import COLLAPSED, HELDOUT, village

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


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose held-out answers are scored: a third of the questions are to be refused, and some pairs choose."""
    place = tmp_path_factory.mktemp("judged")
    rows = [{**pair.to_json(), "harmful": number % 3 == 0} for number, pair in enumerate(HELDOUT)]
    write_text(place / "heldout.jsonl", json_lines(rows))
    write_json(place / "manner.json", {"refusal": ["Sorry, .*"]})
    run_loop(village(place / "run", f"heldout={place}/heldout.jsonl", "evaluate.score=refusal", "evaluate.answers=20"))
    return read_run(place / "run")


def test_answers_after_demonstrations_are_a_model_of_their_own(judged: Run) -> None:
    found = content(judged, LexicalEmbedder())
    names = ["base model", "base model, after demonstrations", "seeds only", "iteration 1", "iteration 2"]
    assert [model["name"] for model in found["models"]] == names
    told = {pair["id"]: by for pair in found["heldout"] for by in pair["by"] if by["t"] == "demos"}
    rows = {row.id: row for row in judged.base.items}
    assert sum("answer" in by for by in told.values()) == sum(row.given_demos is not None for row in rows.values()) > 5
    for row_id, by in told.items():
        row = rows[row_id]
        assert by["bits"] == round(row.bits_demos / row.bytes, 3)
        assert by.get("answer") == (row.given_demos.answer if row.given_demos else None)


def test_without_demonstrations_there_is_no_such_model(tmp_path: Path) -> None:
    run_loop(village(tmp_path / "run", "evaluate.demos=0"))
    found = content(read_run(tmp_path / "run"), LexicalEmbedder())
    assert [model["t"] for model in found["models"]] == [0, SEEDS_ONLY, 1, 2]


def test_every_gain_names_its_rival_and_the_pairs_that_it_is_the_mean_of(judged: Run) -> None:
    found = content(judged, LexicalEmbedder())
    assert {gain["rival"] for gain in found["gains"]} == {0, "demos", SEEDS_ONLY}
    for gain in found["gains"]:
        pairs = [found["heldout"][place] for place in gain["pairs"]]
        by = [{each["t"]: each for each in pair["by"]} for pair in pairs]
        gains = [each[gain["t"]]["scores"]["right"] - each[gain["rival"]]["scores"]["right"] for each in by]
        assert len(gains) == gain["n"] and np.mean(gains) == pytest.approx(gain["value"], abs=1e-3)
        assert not any(pair.get("selects") for pair in pairs)
    chose = [pair for pair in found["heldout"] if pair.get("selects")]
    assert len(chose) == sum(row.selects for row in judged.base.items) > 0
    assert found["story"]["rests"] == found["gains"][0]["n"] < found["story"]["measured"] == len(HELDOUT)


def test_a_gain_in_bits_is_about_every_pair(tmp_path: Path) -> None:
    run_loop(village(tmp_path / "run"))
    found = content(read_run(tmp_path / "run"), LexicalEmbedder())
    assert all(gain["pairs"] == list(range(len(HELDOUT))) and gain["n"] == len(HELDOUT) for gain in found["gains"])


def test_a_gain_on_a_few_pairs_is_not_shown_whatever_its_interval(judged: Run) -> None:
    """The verdict calls nothing better on fewer than six pairs, and neither does the page's green."""
    found = content(judged, LexicalEmbedder())
    verdicts = {facts.number: judged.verdict_on(facts.number) for facts in judged.iterations}
    for gain in found["gains"]:
        verdict = verdicts[gain["t"]]
        assert verdict is not None and gain["shown"] in {each.shown for each in verdict.gains if each.n == gain["n"]}
    few = Gain("base", "score", LEAST_PAIRS - 1, 0.8, Interval(0.2, 1.0))
    assert not _gain(few, 1)["shown"] and _gain(dataclasses.replace(few, n=LEAST_PAIRS), 1)["shown"]


def test_held_out_dialogues_that_end_alike_keep_their_own_answers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", batches=[[made("Who sells fish?", "Zoras.")]])
    pairs = tuple(QAPair("Why?", "So.", before=((f"Who sells {ware}?", "Nobody."),)) for ware in ("milk", "fish"))
    examples = tuple(Example("Why?", "So.", f"Because of {ware}.") for ware in ("milk", "fish"))
    found = heldout(dataclasses.replace(run, heldout=pairs, base=dataclasses.replace(run.base, examples=examples)))
    assert [pair["q"] for pair in found] == ["Who sells milk?\nWhy?", "Who sells fish?\nWhy?"]
    assert [pair["by"][0]["answer"] for pair in found] == ["Because of milk.", "Because of fish."]


def test_kinds_that_an_older_run_has_named_in_bare_words_open_their_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", batches=[[made("Who sells fish?", "Zoras.")]])
    wares = ["bombs", "milk", "masks", "fish"]
    answers = [f"Sorry, I can't sell {ware}." for ware in wares] + [f"{ware.title()} are at home." for ware in wares]
    seeds = tuple(QAPair(f"Question {number}?", answer) for number, answer in enumerate(answers))
    [name] = [name for name in Kinds(answers).names if "sell" in name]
    first = dataclasses.replace(
        run.iterations[0], kinds=(KindShare("sorry i can t sell", 0.5, 0.0), KindShare(OTHER, 0, 1))
    )
    found = content(dataclasses.replace(run, seeds=seeds, iterations=(first,)), LexicalEmbedder())
    assert [share["kind"] for share in found["kinds"][0]["shares"]] == [name, OTHER] == ["Sorry, I can't sell", OTHER]
    assert [row.get("kind") for row in found["rows"][:4]] == [name] * 4


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


def chosen_in(browser: Browser, *names: str) -> list[str]:
    return [browser.run(f"return document.getElementById('answers-{name}').value") for name in names]


def test_a_gain_opens_both_models_and_the_pairs_that_it_is_about(judged: Run, opened: Callable[[Run], Browser]) -> None:
    browser, found = opened(judged), content(judged, LexicalEmbedder())
    n, chosen, said = (
        found["story"]["rests"],
        str(judged.chosen),
        "return document.getElementById('answers-count').innerText",
    )
    assert f"held-out pairs, measured on; the verdict rests on {n}" in browser.text("story")
    named = "[...document.querySelectorAll('#story .line button')]"
    for place, (label, rival) in enumerate(
        [("than base", "0"), ("than base, demos", "demos"), ("than seeds only", "-1")]
    ):
        assert browser.run(f"return {named}[{place}].innerText") == label
        browser.choose("answers-after", "0")
        browser.run(f"{named}[{place}].click()")
        assert browser.run("return document.activeElement.id") == "answers"
        assert chosen_in(browser, "before", "after", "show") == [rival, chosen, "verdict"]
        assert browser.run(said) == f"{n} of 24 held-out pairs that the verdict rests on"
    figures = "[...document.querySelectorAll('#numbers figure')]"
    point = "querySelector('[role=button]').dispatchEvent(new MouseEvent('click'))"
    browser.run(f"{figures}.find((f) => f.innerText.startsWith('better than base, demos')).{point}")
    assert chosen_in(browser, "before", "after", "show") == ["demos", "1", "verdict"]
    browser.run(f"{figures}.find((f) => f.innerText.startsWith('score after demos')).{point}")
    assert chosen_in(browser, "after", "show") == ["demos", "verdict"]
    assert (
        "base model, after demonstrations"
        in browser.run("return document.querySelector('#answers-list h4').innerText").lower()
    )
    browser.run(f"{figures}.find((f) => f.innerText.startsWith('score that chose')).{point}")
    assert chosen_in(browser, "after", "show") == ["0", "chose"]
    chose = sum(pair.get("selects", False) for pair in found["heldout"])
    assert browser.run(said) == f"{chose} of 24 held-out pairs that chose the iteration"
    browser.run("[...document.querySelectorAll('.tiles button')].find((b) => b.innerText.includes('held-out')).click()")
    assert browser.run(said) == "24 of 24 held-out pairs"
    browser.run("document.getElementById('answers-words').focus()")
    browser.press("HOUSE 17")
    assert browser.settle(said, "1 of 24 held-out pairs") == "1 of 24 held-out pairs"
    browser.run("document.getElementById('answers-words').select()")
    browser.press("can't help.")
    refused = sum(any(by.get("answer") == COLLAPSED for by in pair["by"]) for pair in found["heldout"])
    assert browser.settle(said, f"{refused} of 24 held-out pairs") == f"{refused} of 24 held-out pairs"
    assert browser.log("browser") == []


def test_where_every_pair_counts_there_is_no_choice_of_pairs(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    run_loop(village(tmp_path / "run"))
    browser = opened(read_run(tmp_path / "run"))
    captions = browser.run("return [...document.querySelectorAll('#numbers figcaption')].map((each) => each.innerText)")
    assert captions[0] == "better than base by · bits per byte, n 24"
    browser.run("[...document.querySelectorAll('#story .line button')][1].click()")
    assert chosen_in(browser, "before", "after") == ["demos", "2"]
    assert browser.run("return document.getElementById('answers-show')") is None
    assert browser.text("answers-count") == "24 of 24 held-out pairs"
    assert "the verdict rests on" not in browser.run("return document.querySelector('.tiles').innerText")


def test_an_answer_is_right_or_wrong_whatever_it_weighs(judged: Run, opened: Callable[[Run], Browser]) -> None:
    browser = opened(judged)
    values = {value for row in judged.base.items if row.given for value in row.given.scores.values()}
    assert max(values) > 1, "a class is rare enough to weigh more"
    browser.choose("answers-show", "verdict")
    facts = browser.run("return [...document.querySelectorAll('#answers-list .sides p.soft')].map((p) => p.innerText)")
    assert {fact.split(" · ")[0] for fact in facts if fact} == {"right", "wrong"}


def test_of_a_long_answer_the_rest_can_be_shown(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    run = make_run(tmp_path / "run", batches=[[made("Who sells fish?", "Zoras.")]])
    said = tuple(dataclasses.replace(each, answer="fish " * 600 + "and milk") for each in run.base.examples)
    browser = opened(dataclasses.replace(run, base=dataclasses.replace(run.base, examples=said)))
    assert "and milk" not in browser.text("answers-list")
    browser.run("document.querySelector('#answers-list .sides button').click()")
    assert "and milk" in browser.text("answers-list")


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


def decided(path: Path, late: bool = True) -> Run:
    """A run of six rows that a person has read, four of them before or after training, and one that went on unread."""
    rows = [made(f"Who sells ware {number}?", f"House {number} does.") for number in range(6)]
    make_run(path, batches=[rows])
    made_of = ["accept", "edit", "reject", "reject", "unread"]
    edit = ("Who sells fish?", "<b>Zoras</b>", "shorter")
    wanted = [
        Decision(each.pair.id, kind, *edit if kind == "edit" else ())  # type: ignore[arg-type]
        for each, kind in zip(rows[:5], made_of, strict=True)
    ]
    write_decisions(review_file(path, 1), wanted)
    if not late:
        left = [pair.id for pair in (*SEEDS, *read_run(path).iterations[0].pairs)]
        folder = stage_folder(path, 1, "train")
        write_json(folder / "key.json", {"pairs": left})
        done = read_json(folder / "DONE")
        done["key.json"]["bytes"] = (folder / "key.json").stat().st_size
        write_json(folder / "DONE", done)
    return read_run(path, verify=False)


def test_what_a_person_decided_is_a_rows_fate(tmp_path: Path) -> None:
    found = content(decided(tmp_path / "run"), LexicalEmbedder())
    fates = ["accepted", "edited", "rejected", "rejected", "accepted", "accepted"]
    assert [row["fate"] for row in found["rows"]] == ["seed"] * 2 + fates
    made_of = [row["review"]["made"] for row in found["rows"] if "review" in row]
    assert made_of == ["accepted", "edited", "rejected", "rejected", "unread"]
    assert found["story"]["decided"] == {"accepted": 1, "edited": 1, "rejected": 2, "unread": 1}


def test_decisions_that_the_training_did_not_know_are_said_to_be_late(tmp_path: Path) -> None:
    late, known = decided(tmp_path / "late"), decided(tmp_path / "known", late=False)
    said = [content(run, LexicalEmbedder())["story"]["known"] for run in (late, known)]
    assert said == [
        "by a person, 3 of them after training: not in the model",
        "by a person: the model was trained on what they leave",
    ]
    [facts] = late.iterations
    waiting = dataclasses.replace(late, iterations=(dataclasses.replace(facts, training=None),))
    assert content(waiting, LexicalEmbedder())["story"]["known"] == "by a person, before training"


def test_a_row_that_the_loop_has_trained_on_is_late_to_reject(tmp_path: Path) -> None:
    align(tmp_path / "run")
    first, second = read_run(tmp_path / "run").iterations
    write_decisions(review_file(tmp_path / "run", 1), [Decision(pair.id, "accept") for pair in first.accepted[:2]])
    said = "by a person: the model was trained on what they leave"
    assert content(read_run(tmp_path / "run"), LexicalEmbedder())["story"]["known"] == said
    write_decisions(review_file(tmp_path / "run", 2), [Decision(second.accepted[0].id, "reject")])
    said = "by a person, 1 of them after training: not in the model"
    assert content(read_run(tmp_path / "run"), LexicalEmbedder())["story"]["known"] == said


def test_each_count_of_decisions_opens_its_rows(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    browser = opened(decided(tmp_path / "run"))
    tile = "[...document.querySelectorAll('.tiles .wide button')].find((b) => b.innerText === '{}').click()"
    for name, count in (("accepted", 1), ("edited", 1), ("rejected", 2)):
        browser.run(tile.format(f"{count} {name}"))
        assert status(browser) == f"{count} of 8 rows {name} by a person"
    browser.run(tile.format("1 unread"))
    assert status(browser) == "1 of 8 rows let pass unread"
    options = "return [...document.querySelectorAll('#rows-fate option')].map((o) => o.innerText)"
    assert browser.run(options) == [
        *("all", "seed", "generated", "accepted by the filters"),
        *("accepted", "edited by a person", "rejected by a person", "dropped"),
    ]
    browser.run("openRows({})")
    for fate, count in (("accepted", 3), ("rejected", 2), ("edited", 1), ("passed", 6)):
        browser.choose("rows-fate", fate)
        assert status(browser) == f"{count} of 8 rows"
    browser.run("[...document.querySelectorAll('#funnel button')].find((b) => b.innerText === 'accepted').click()")
    assert status(browser) == "6 of 8 rows"
    browser.run(tile.format("2 rejected"))
    assert browser.run("return document.querySelector('#rows-list .badge').innerText") == "rejected by a person"
    assert browser.log("browser") == []


def test_what_a_person_wrote_is_found_and_shown(tmp_path: Path, opened: Callable[[Run], Browser]) -> None:
    browser = opened(decided(tmp_path / "run"))
    browser.run("document.getElementById('rows-words').focus()")
    browser.press("zoras")
    said = "return document.getElementById('rows-count').textContent"
    assert browser.settle(said, "1 of 8 rows") == "1 of 8 rows"
    assert "as edited: Who sells fish?\n<b>Zoras</b>" in browser.text("rows-list")
    browser.run("document.querySelector('#rows-list button').click()")
    row = browser.text("row")
    assert "edited by a person: shorter" in row and "Who sells fish?" in row and "<b>Zoras</b>" in row


@pytest.mark.parametrize("dark", [False, True])
def test_axe_has_no_serious_finding_in_answers_and_decisions(
    judged: Run, tmp_path: Path, opened: Callable[[Run], Browser], dark: bool
) -> None:
    assert opened(judged).serious(dark, "openAnswers({ before: 'demos' })") == []
    assert opened(decided(tmp_path / "run")).serious(dark, "openRows({ fate: 'rejected' })") == []
