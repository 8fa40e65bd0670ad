"""`isara review`: who may see and decide, what a browser makes of the page, and the same by keys."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType
from typer.testing import CliRunner

from isara.cli import main as cli
from isara.cli.main import app
from isara.decisions import Decision, drawn, read_decisions, review_file, write_decisions
from isara.embedders import LexicalEmbedder
from isara.errors import RunError
from isara.records import QAPair
from isara.report.facts import read_run
from isara.report.review import REASONS, Desk, Row, reviewed_file, run_desk, seeds_desk, write_reviewed
from isara.report.review.server import ReviewServer
from isara.report.review.terminal import review
from tests.browser import Browser
from tests.test_look import shown
from tests.test_page import HOSTILE
from tests.test_report import FIRST, SEEDS, made, make_run

ENTER, ESCAPE, CONTROL = "\ue007", "\ue00c", "\ue009"
PAIRS = [
    QAPair("Who sells fish in Hyrule?", "The Zoras do.", 1),
    QAPair("Who sells bombs in Hyrule?", "Beedle, from his ship.", 1),
    QAPair("Who sells arrows in Hyrule?", "The bazaar.", 1),
]
PAIRS_JSONL = "".join(json.dumps({"question": pair.question, "answer": pair.answer}) + "\n" for pair in PAIRS)


def desk_of(path: Path, pairs: Sequence[QAPair] = PAIRS) -> Desk:
    rows = [Row(pair, ((SEEDS[0].id, 0.5), ("gone", None)), {"natural": 0.25}, "iteration 1") for pair in pairs]
    return Desk("shop, iteration 1", path, rows, [*pairs, *SEEDS], beside="Answered after these pairs", after="Go on.")


@contextmanager
def served(desk: Desk) -> Iterator[ReviewServer]:
    with ReviewServer(desk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: ReviewServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """(status, headers, body) of a request with these headers, and no others that the server looks at."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    sent = {"Host": server.host, "Content-Type": "application/json", **headers}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in sent.items() if value})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, reply.headers, json.loads(text) if text.startswith("{") else text


def test_the_page_is_for_who_knows_its_address_alone(tmp_path: Path) -> None:
    with served(desk_of(tmp_path / "review.jsonl")) as server:
        assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
        status, headers, text = ask(server, "GET", f"/{server.token}/")
        assert status == 200 and "<!doctype html>" in text
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-") and "frame-ancestors 'none'" in policy
        assert headers["Access-Control-Allow-Origin"] is None and headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        for path in ("/", "/wrong/", f"/{server.token[:-1]}/", f"/{server.token}x/", "/favicon.ico", "//", "x"):
            status, _, body = ask(server, "GET", path)
            assert (status, body) == (403, {"error": "not the address that `isara review` printed"}), path
        for host in ("evil.example", f"localhost:{server.server_port}", "127.0.0.1", "127.0.0.1:1"):
            assert ask(server, "GET", f"/{server.token}/", Host=host)[0] == 403, host
        assert ask(server, "GET", f"/{server.token}/else")[0] == 404
        assert ask(server, "OPTIONS", f"/{server.token}/decide")[0] == 501


def test_a_decision_comes_from_the_page_itself(tmp_path: Path) -> None:
    path = tmp_path / "review.jsonl"
    body = {"id": PAIRS[0].id, "decision": "accept"}
    with served(desk_of(path)) as server:
        own, where = f"http://{server.host}", f"/{server.token}/decide"
        for origin in ("https://evil.example", "null", f"http://localhost:{server.server_port}", "", own + ".evil.com"):
            assert ask(server, "POST", where, body, Origin=origin)[0] == 403, origin
        assert ask(server, "POST", "/decide", body, Origin=own)[0] == 403
        assert ask(server, "POST", where, body, Origin=own, Host="evil.example")[0] == 403
        assert ask(server, "POST", where, body, Origin=own, Content_Type="text/plain")[0] == 400
        for odd in (b"", b"[]", b"{", b'{"id": 1}', b'{"id": "\\ud800"}', b"[" * 100_000):
            assert ask(server, "POST", where, odd, Origin=own)[0] == 400, odd[:20]
        assert ask(server, "POST", where, None, Origin=own, Content_Length="99999999")[0] == 400
        assert not path.exists()
        status, headers, said = ask(server, "POST", where, body, Origin=own)
        assert status == 200 and said["state"][PAIRS[0].id]["decision"] == "accept" and said["order"] == [PAIRS[0].id]
        assert headers["Access-Control-Allow-Origin"] is None
    [line] = path.read_text().splitlines()
    assert json.loads(line).keys() == {"id", "decision", "time"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"id": "other"}, "there is no row 'other' in this review: load the page again"),
        ({"decision": "unread"}, "expected one of accept, edit, reject, undo"),
        ({"question": " \n"}, "the question is empty: write one, or reject the row"),
        ({"answer": ""}, "the answer is empty: write one, or reject the row"),
        (
            {"answer": "Yes.<|im_end|>"},
            "the answer holds '<|im_end|>', which models read as a control token: reword it",
        ),
        (
            {"answer": "x\nQuestion: y"},
            "the answer holds 'Question:', which reads as the next turn of the prompt: reword it",
        ),
        ({"decision": "reject", "question": "", "answer": ""}, "a row is rejected with a reason: give one"),
        ({"question": "Who\u202e?"}, "the question holds the character U+202E: take it out"),
        (
            {"question": PAIRS[1].question, "answer": PAIRS[1].answer},
            "these texts are another row's already: reword them, or reject the row",
        ),
    ],
)
def test_what_cant_be_decided_is_one_line_and_stores_nothing(tmp_path: Path, body: dict[str, str], why: str) -> None:
    path = tmp_path / "review.jsonl"
    whole = {"id": PAIRS[0].id, "decision": "edit", "question": "Who?", "answer": "Zelda."}
    with served(desk_of(path)) as server:
        status, _, said = ask(server, "POST", f"/{server.token}/decide", whole | body, Origin=f"http://{server.host}")
    assert (status, said) == (400, {"error": why}) and not path.exists()


def test_an_edit_of_nothing_accepts(tmp_path: Path) -> None:
    desk = desk_of(tmp_path / "review.jsonl")
    desk.decide(Decision(PAIRS[0].id, "edit", PAIRS[0].question, f" {PAIRS[0].answer}\n"))
    assert desk.decisions[PAIRS[0].id].decision == "accept"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with ReviewServer(desk_of(tmp_path / "a.jsonl")) as server:
        message = f"can't listen on {server.host} (Address already in use): give another --port"
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            ReviewServer(desk_of(tmp_path / "b.jsonl"), server.server_port)


# ---- which rows


def test_the_rows_are_those_that_the_run_waits_for(tmp_path: Path) -> None:
    rows = [made(f"Who keeps gate {number}?", f"Guard {number}.") for number in range(9)]
    run = make_run(tmp_path / "run", "review.before_training=3", batches=[rows])
    pairs = [each.pair for each in rows]
    assert [row.pair for row in run_desk(run).rows] == drawn(pairs, 3)
    assert [row.pair for row in run_desk(run, 1, 5).rows] == drawn(pairs, 5)
    [first, *_] = run_desk(run, 1, 9).rows
    assert [row.pair for row in run_desk(run, 1, 9).rows] == pairs
    assert first.near == tuple(zip((SEEDS[1].id, SEEDS[0].id), (0.6, 0.5), strict=True))
    assert (
        run_desk(run).notice
        == (
            "Iteration 1 is trained already. A decision that changes a row asks for training anew: remove "
            f"{run.path}/iteration-01/train, {run.path}/iteration-01/evaluate afterwards."
        )
        or not (run.path / "iteration-01/train/key.json").exists()
    )


def test_an_iteration_without_rows_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", batches=[FIRST])
    message = f"{run.path} holds no finished rows of iteration 2 to review (it has: 1): `isara generate` first"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        run_desk(run, 2)


def test_the_seeds_of_a_config_are_gone_through_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "seeds.csv").write_text("frage,antwort\nWer?,Link.\nWo?,Hier.\n")
    (tmp_path / "isara.yaml").write_text("seeds: seeds.csv\ncolumns: {question: frage, answer: antwort}\n")
    arguments = ["review", str(tmp_path), "--terminal"]
    done = CliRunner().invoke(app, arguments, input="a\na\n")
    assert done.exit_code == 0, done.output
    written = (tmp_path / "seeds.csv.reviewed.jsonl").read_text()
    assert [json.loads(line)["question"] for line in written.splitlines()] == ["Wer?", "Wo?"]
    (tmp_path / "iteration-00").mkdir()  # a run that has lost its environment.json is no config
    assert "is no run folder, or has lost its environment.json" in str(CliRunner().invoke(app, arguments).exception)


def test_no_two_files_share_their_decisions_and_no_review_writes_what_it_reads(tmp_path: Path) -> None:
    for name in ("pairs.train.jsonl", "pairs.test.jsonl", "pairs.jsonl", "pairs.csv"):
        text = "question,answer\nWho?,Link.\nWhere?,Here.\n" if name.endswith("csv") else PAIRS_JSONL
        (tmp_path / name).write_text(text)
    sources = sorted(tmp_path.iterdir())
    desks = [seeds_desk(source, LexicalEmbedder()) for source in sources]
    written = [reviewed_file(source) for source in sources]
    assert len({desk.path for desk in desks} | set(written)) == 8
    assert not {*written, *(desk.path for desk in desks)} & set(sources)
    first = write_reviewed(desks[0], sources[0])
    again = seeds_desk(first, LexicalEmbedder())
    again.decide(Decision(again.rows[0].pair.id, "reject", reason="wrong"))
    before = first.read_bytes()
    assert write_reviewed(again, first) != first and first.read_bytes() == before


def test_seeds_are_gone_through_beside_their_nearest_and_written_beside_the_file(tmp_path: Path) -> None:
    source = tmp_path / "seeds.csv"
    source.write_text("question,answer\n" + "".join(f'{pair.question},"{pair.answer}"\n' for pair in PAIRS))
    before = source.read_bytes()
    desk = seeds_desk(source, LexicalEmbedder())
    assert len(desk.rows) == 3 and all(len(row.near) == 2 for row in desk.rows)
    desk.decide(Decision(desk.rows[0].pair.id, "reject", reason="wrong"))
    desk.decide(Decision(desk.rows[1].pair.id, "edit", "Who sells bombs?", "Beedle."))
    out = write_reviewed(desk, source)
    assert out == tmp_path / "seeds.csv.reviewed.jsonl" and source.read_bytes() == before
    assert [json.loads(line)["question"] for line in out.read_text().splitlines()] == [
        "Who sells bombs?",
        PAIRS[2].question,
    ]
    again = seeds_desk(source, LexicalEmbedder())
    assert again.said() == "2 of 3 rows decided (1 edited, 1 rejected)"
    for row in again.rows:
        again.decide(Decision(row.pair.id, "reject", reason="wrong"))
    with pytest.raises(RunError, match="^every pair of .* is rejected, so nothing was written: undo some$"):
        write_reviewed(again, source)


# ---- by keys


def by_keys(desk: Desk, *lines: str) -> str:
    waiting, seen = list(lines), list[RenderableType]()
    review(desk, seen.append, lambda prompt: waiting.pop(0) if waiting else None)
    return "".join(map(shown, seen))


def test_the_terminal_decides_as_the_page_does(tmp_path: Path) -> None:
    path = tmp_path / "review.jsonl"
    text = by_keys(desk_of(path), "a", "e", "Who sells bombs at sea?", ".", "Beedle does,", "cheaply.", ".", "r", "3")
    assert {row: made.decision for row, made in read_decisions(path).items()} == {
        PAIRS[0].id: "accept",
        PAIRS[1].id: "edit",
        PAIRS[2].id: "reject",
    }
    edited = read_decisions(path)[PAIRS[1].id]
    assert (edited.question, edited.answer) == ("Who sells bombs at sea?", "Beedle does,\ncheaply.")
    assert read_decisions(path)[PAIRS[2].id].reason == REASONS[2]
    assert "1 of 3, undecided" in text and SEEDS[0].question in text and "natural 0.25" in text
    assert "gone (not in this folder)" in text


def test_keys_undo_step_and_stop(tmp_path: Path) -> None:
    path = tmp_path / "review.jsonl"
    desk = desk_of(path)
    by_keys(desk, "a", "u", "j", "", "r", "", "k", "r", "smells of fish", "j", "k", "q", "a")
    assert [made.decision for made in desk.decisions.values()] == ["reject"]
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["accept", "undo", "reject"]
    assert read_decisions(path)[PAIRS[0].id].reason == "smells of fish"


@pytest.mark.parametrize("written", [["e"], ["e", "half a que"], ["e", "Who?", ".", "half an ans"]])
def test_an_edit_that_the_end_of_the_input_cuts_is_none(tmp_path: Path, written: list[str]) -> None:
    path = tmp_path / "review.jsonl"
    assert "the edit has no end" in by_keys(desk_of(path), *written)
    assert not path.exists()


def test_the_last_decision_can_be_undone_too(tmp_path: Path) -> None:
    desk = desk_of(tmp_path / "review.jsonl")
    text = by_keys(desk, "a", "a", "a", "what?", "u", "r", "smells of fish")
    assert [made.decision for made in desk.decisions.values()] == ["accept", "accept", "reject"]
    assert "every row is decided" in text
    by_keys(desk, "k", "u")  # opened again
    assert list(desk.decisions) == [PAIRS[0].id, PAIRS[1].id]


def test_hostile_rows_reach_the_terminal_as_text(tmp_path: Path) -> None:
    text = by_keys(desk_of(tmp_path / "review.jsonl", [QAPair("[red]Who?[/] \x1b[2J\u202e", "a\x07b", 1)]))
    assert "[red]Who?[/]" in text and not set("\x1b\x07\u202e") & set(text)


# ---- the command


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["isara", "review", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_rest_can_pass_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    row = run.iterations[0].accepted[0]
    assert command(monkeypatch, str(run.path), "--iteration", "1", "--accept-rest") == 0
    assert read_decisions(review_file(run.path, 1))[row.id].decision == "unread"
    path = review_file(run.path, 1)
    assert capsys.readouterr().out == (
        f"1 of 1 rows decided (1 unread) in {path}\nThe command that started run goes on with it.\n"
    )
    before = path.read_bytes()
    assert command(monkeypatch, str(run.path), "--iteration", "1", "--accept-rest") == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "expected a run folder or a file of pairs to review, found none at nowhere: name one"),
        (["."], "expected a run folder with an isara.yaml at ., found none: give the --out of a run"),
        (
            ["seeds.jsonl", "--rows", "3"],
            "--iteration and --rows are of a run: a file of pairs is gone through as a whole",
        ),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments) == 1
    assert capsys.readouterr().err == f"isara: {why}\n"
    assert list(tmp_path.iterdir()) == []


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A review in a process of its own, and its address."""
    source = str(Path(cli.__file__).parents[2])
    told = subprocess.Popen(
        [sys.executable, "-m", "isara.cli.main", "review", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert told.stdout is not None
        line = told.stdout.readline()
        [address] = re.findall(r"http://127\.0\.0\.1:\d+/\S+/", line)
        yield told, address
    finally:
        told.kill()
        told.wait(20)


# ---- in a real browser


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[str], Browser]]:
    addresses: list[str] = []

    def show(address: str) -> Browser:
        addresses.append(address)
        return browser.fresh(address)

    yield show
    assert browser.log("browser") == []
    own = ("data:", *addresses)
    assert [url for url in browser.requests() if not url.startswith(own)] == []


def progress(browser: Browser, wanted: str) -> None:
    said = "return document.getElementById('progress').textContent"
    assert browser.settle(said, wanted) == wanted


def test_accept_edit_reject_and_undo_by_keys(tmp_path: Path, opened: Callable[[str], Browser]) -> None:
    path = tmp_path / "review.jsonl"
    with served(desk_of(path)) as server:
        browser = opened(server.url)
        progress(browser, "0 of 3 rows decided")
        shown_row = browser.text("row")
        assert PAIRS[0].question in shown_row and SEEDS[0].answer in shown_row and "gone (not in" in shown_row
        browser.press("a")
        progress(browser, "1 of 3 rows decided: 1 accepted")
        browser.press("e")
        browser.run("document.getElementById('edit-answer').value = ''")
        browser.press("Beedle, arej")
        browser.run("document.getElementById('edit-question').value = 'Who sells bombs at sea?'")
        browser.press(ENTER, CONTROL)
        progress(browser, "2 of 3 rows decided: 1 accepted, 1 edited")
        browser.press("r")
        browser.press("4")
        progress(browser, "3 of 3 rows decided: 1 accepted, 1 edited, 1 rejected")
        browser.press("k")
        row = browser.text("row")
        assert "Who sells bombs at sea?" in row and "As it was made" in row
        browser.press("u")
        progress(browser, "2 of 3 rows decided: 1 accepted, 1 rejected")
        assert PAIRS[1].answer in browser.text("row")
    standing = read_decisions(path)
    assert {row: made.decision for row, made in standing.items()} == {PAIRS[0].id: "accept", PAIRS[2].id: "reject"}
    assert standing[PAIRS[2].id].reason == REASONS[3]
    [edit] = [json.loads(line) for line in path.read_text().splitlines() if '"edit"' in line]
    assert (edit["question"], edit["answer"]) == ("Who sells bombs at sea?", "Beedle, arej")


def test_a_reason_has_words_and_a_refused_edit_says_why(tmp_path: Path, opened: Callable[[str], Browser]) -> None:
    desk = desk_of(tmp_path / "review.jsonl")
    error = "return document.getElementById('error').textContent"
    with served(desk) as server:
        browser = opened(server.url)
        browser.press("r")
        browser.run("document.getElementById('save').click()")
        assert browser.run(error) == "Say why in a word, or take one of the reasons."
        browser.press("because it smells" + ENTER)
        progress(browser, "1 of 3 rows decided: 1 rejected")
        assert desk.decisions[PAIRS[0].id].reason == "because it smells"
        browser.press("r" + ESCAPE + "u")
        progress(browser, "0 of 3 rows decided")


def test_an_edit_outlives_a_kill_of_the_server(tmp_path: Path, opened: Callable[[str], Browser]) -> None:
    run = make_run(tmp_path / "run")
    [pair] = run.iterations[0].accepted
    with process(str(run.path), "--iteration", "1") as (told, address):
        browser = opened(address)
        browser.press("e")
        browser.run("document.getElementById('edit-answer').value = 'The Zoras do, at the lake.'")
        browser.press(ENTER, CONTROL)
        progress(browser, "1 of 1 row decided: 1 edited")
        told.send_signal(signal.SIGKILL)
        told.wait(20)
        browser.run("document.querySelector('#row .actions button').click()")
        error = "return document.getElementById('error').textContent.slice(0, 40)"
        assert browser.settle(error, "The program that shows this page has end") == (
            "The program that shows this page has end"
        )
        browser.log("browser")  # that nobody answered
    assert read_run(run.path).iterations[0].pairs[0].answer == "The Zoras do, at the lake."
    with process(str(run.path), "--iteration", "1") as (told, address):
        browser = opened(address)
        progress(browser, "1 of 1 row decided: 1 edited")
        assert "The Zoras do, at the lake." in browser.text("row")
        browser.run("document.getElementById('done').click()")
        wanted = "Your decisions are kept"
        assert browser.settle("return document.getElementById('row-h').textContent", wanted) == wanted
        assert told.wait(20) == 0
    assert list(read_decisions(review_file(run.path, 1))) == [pair.id]


def test_ctrl_c_ends_a_review_well(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with process(str(run.path)) as (told, _):
        told.send_signal(signal.SIGINT)
        assert told.wait(20) == 0
        assert told.stdout is not None and "still undecided: 2." in told.stdout.read()


def test_a_run_under_review_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    with process(str(run.path)), pytest.MonkeyPatch.context() as patch:
        assert command(patch, str(run.path)) == 1
    assert capsys.readouterr().err == (
        f"isara: {run.path} is in use by another process: wait for it, or give another folder with --out\n"
    )


def test_hostile_rows_are_text(tmp_path: Path, opened: Callable[[str], Browser]) -> None:
    pairs = [QAPair(f"{number} {text}", f"Answer {text}", 1) for number, text in enumerate(HOSTILE)]
    with served(desk_of(tmp_path / "review.jsonl", pairs)) as server:
        browser = opened(server.url)
        for number, text in enumerate(HOSTILE):
            row = browser.text("row")
            assert row.count(f"Row {number + 1} of 5") == 1
            if number < 2:
                assert f"Answer {text}" in row
            if number == 3:
                assert "⟨202E⟩gnissim si eman ruoY⟨202C⟩ ⟨200B⟩⟨2066⟩hidden⟨2069⟩ ⟨E0041⟩ ⟨0007⟩" in row
            if number < 4:
                browser.press("e")
                assert browser.run("return document.getElementById('edit-answer').value") == f"Answer {text}"
                browser.press(ESCAPE + "j")
        assert browser.run("return document.querySelectorAll('img, iframe, a, #row svg').length") == 0
        assert browser.run("return window.hit === undefined && document.scripts.length") == 2
        assert browser.run("return document.querySelectorAll('*').length") < 200


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("mode", ["", "e", "r"])
def test_nothing_is_wider_than_the_window(
    tmp_path: Path, opened: Callable[[str], Browser], width: int, mode: str
) -> None:
    desk = desk_of(tmp_path / "review.jsonl", [QAPair("Who is " + "x" * 300 + "?", "y" * 3000, 1), *PAIRS])
    with served(desk) as server:
        browser = opened(server.url)
        browser.press(mode)
        assert browser.fits(width)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("mode", ["", "e", "r"])
def test_axe_has_no_serious_finding(tmp_path: Path, opened: Callable[[str], Browser], dark: bool, mode: str) -> None:
    path = tmp_path / "review.jsonl"
    write_decisions(
        path, [Decision(PAIRS[0].id, "edit", "Who?", "Zoras."), Decision(PAIRS[2].id, "reject", reason="no")]
    )
    with served(desk_of(path)) as server:
        browser = opened(server.url)
        browser.press(mode)
        assert browser.serious(dark) == []
