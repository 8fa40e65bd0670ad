"""What a person decided stands, survives a crash, is what is trained on, and can be taken back."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from isara.cli import main as cli
from isara.compare.arms import ARMS
from isara.config import load_config
from isara.decisions import Decision, applied, counts, drawn, made_after, read_decisions, review_file, write_decisions
from isara.errors import Paused, RunError
from isara.files import read_json
from isara.folder import stage_folder
from isara.loop import generate_pairs, run
from isara.records import QAPair, TrainStats
from isara.report.cards import data_card, model_card
from isara.report.facts import read_run
from isara.report.publish import final_files
from isara.report.reading import read_rows
from isara.report.terminal import provenance, summary
from isara.stages import read_accepted
from tests.doubles import CountingTrainer
from tests.test_look import shown
from tests.test_loop import Crash, align, crash_after, parts, tree

STOP = "review.before_training=4"


def accepted(out: Path, t: int = 1) -> list[QAPair]:
    return read_accepted(stage_folder(out, t, "generate"))


def decide(out: Path, kinds: str = "aer", t: int = 1) -> list[QAPair]:
    """Decides on the rows that wait: accept, edit and reject in turn; the rows."""
    rows = drawn(accepted(out, t), 4)
    for place, pair in enumerate(rows):
        kind = kinds[place % len(kinds)]
        made = {
            "a": Decision(pair.id, "accept"),
            "e": Decision(pair.id, "edit", pair.question, f"Ask Impa. {pair.answer}"),
            "r": Decision(pair.id, "reject", reason="not our tone"),
        }[kind]
        write_decisions(review_file(out, t), [made])
    return rows


def test_a_run_stops_before_training_and_goes_on_with_what_was_decided(tmp_path: Path) -> None:
    out, trainer = tmp_path / "run", CountingTrainer()
    message = (
        f"stopped before training: 4 of 4 rows wait to be read. Read them with `isara review {out}`, then run the same "
        f"command again; `isara review {out} --accept-rest` lets them pass unread"
    )
    for _ in range(2):  # it waits as long as it takes
        with pytest.raises(Paused, match="^" + re.escape(message) + "$"):
            align(out, STOP, trainer=trainer)
    assert trainer.calls == []
    first, edited, rejected, last = decide(out)
    result = align(out, STOP, trainer=trainer)
    assert trainer.calls == [(4 + 11, "base/model"), (4 + 23, "base/model")]
    ids = json.loads((out / "iteration-01/train/model/weights.json").read_text())
    new = next(pair for pair in result.accepted if pair.edited_from)
    assert (new.edited_from, new.answer) == (edited.id, f"Ask Impa. {edited.answer}")
    assert {first.id, last.id, new.id} <= set(ids) and not {edited.id, rejected.id} & set(ids)
    assert read_json(out / "iteration-01/train/key.json")["pairs"] == ids
    # What a person took out is in no later prompt either.
    later = (out / "iteration-02/generate/candidates.jsonl").read_text()
    assert rejected.id not in later and edited.id not in later and new.id in later


def test_only_the_rows_that_were_decided_are_no_longer_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Paused):
        align(out, STOP)
    rows = drawn(accepted(out), 4)
    write_decisions(review_file(out, 1), [Decision(pair.id, "accept") for pair in rows[1:]])
    write_decisions(review_file(out, 1), [Decision(rows[2].id, "undo")])
    with pytest.raises(Paused, match="2 of 4 rows wait"):
        align(out, STOP)
    align(out, "review.before_training=0")  # the option may change, as nothing on disk depends on it


def test_accepted_rows_train_as_if_nobody_had_looked(tmp_path: Path) -> None:
    align(tmp_path / "plain")
    with pytest.raises(Paused):
        align(tmp_path / "run", STOP)
    decide(tmp_path / "run", "a")
    align(tmp_path / "run", STOP)
    found, plain = tree(tmp_path / "run"), tree(tmp_path / "plain")
    found.pop("iteration-01/review.jsonl")
    assert {name for name in plain if plain[name] != found[name]} == {"isara.yaml"}


@pytest.mark.parametrize("calls", [3, 14])
def test_a_crash_after_a_review_ends_with_the_same_bytes(tmp_path: Path, calls: int) -> None:
    for name in ("whole", "run"):
        with pytest.raises(Paused):
            align(tmp_path / name, STOP)
        decide(tmp_path / name)
    align(tmp_path / "whole", STOP)
    with pytest.raises(Crash):
        align(tmp_path / "run", STOP, engine=crash_after(calls))
    align(tmp_path / "run", STOP)
    whole, found = tree(tmp_path / "whole"), tree(tmp_path / "run")
    for files in (whole, found):
        files.pop("iteration-01/review.jsonl")  # it says when
    assert found == whole


def test_decisions_after_training_name_what_to_remove(tmp_path: Path) -> None:
    out = tmp_path / "run"
    align(out)
    row = accepted(out)[0]
    write_decisions(review_file(out, 1), [Decision(row.id, "reject")])
    names = ["iteration-01/train", "iteration-01/evaluate", "iteration-02"]
    message = (
        f"{out}/iteration-01/review.jsonl changed since iteration 1 was trained: undo that with `isara review {out}`, "
        f"or remove {', '.join(f'{out}/{name}' for name in names)} and run the same command again"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(out)
    before = tree(out)
    write_decisions(review_file(out, 1), [Decision(row.id, "undo")])
    align(out)
    assert {name for name, digest in tree(out).items() if before[name] != digest} == {"iteration-01/review.jsonl"}
    write_decisions(review_file(out, 1), [Decision(row.id, "reject")])
    for path in made_after(out, 1):
        shutil.rmtree(path)
    align(out)
    assert row.id not in json.loads((out / "iteration-02/train/model/weights.json").read_text())


class DiesBeforeTraining(CountingTrainer):
    """A trainer that is killed at once: the stage has begun, and nothing was trained."""

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        raise Crash


def test_a_training_that_only_began_is_no_training(tmp_path: Path) -> None:
    out, trainer = tmp_path / "run", CountingTrainer()
    with pytest.raises(Crash):
        align(out, trainer=DiesBeforeTraining())
    assert (out / "iteration-01/train/key.json").exists()
    with pytest.raises(Paused):  # the review that is asked for now still comes before it
        align(out, STOP, trainer=trainer)
    decide(out)
    align(out, STOP, trainer=trainer)
    assert trainer.calls == [(4 + 11, "base/model"), (4 + 23, "base/model")]


def test_a_torn_last_line_is_no_decision_and_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "review.jsonl"
    write_decisions(path, [Decision("a", "accept")])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "decision": "rej')
    assert list(read_decisions(path)) == ["a"]
    write_decisions(path, [Decision("c", "reject", reason="too\u2028long")])
    assert path.read_bytes().startswith(whole + b'{"id": "c", ')
    assert {row: made.decision for row, made in read_decisions(path).items()} == {"a": "accept", "c": "reject"}


def test_the_last_decision_wins_and_undo_is_one(tmp_path: Path) -> None:
    path, pair = tmp_path / "review.jsonl", QAPair("Who is Midna?", "A princess.", 1, ("demo",))
    write_decisions(path, [Decision(pair.id, "reject"), Decision(pair.id, "edit", "Who is Midna?", "The Twilight's.")])
    [edited] = applied(read_decisions(path), [pair])
    assert edited == QAPair("Who is Midna?", "The Twilight's.", 1, ("demo",), edited_from=pair.id)
    assert QAPair.from_json(edited.to_json()) == edited
    write_decisions(path, [Decision(pair.id, "undo")])
    assert applied(read_decisions(path), [pair]) == [pair] and "edited_from" not in pair.to_json()


@pytest.mark.parametrize(
    "line",
    [
        b"accept",
        b'{"id": "a"}',
        b'{"id": "a", "decision": "praise"}',
        b'{"id": "a", "decision": "edit", "question": "Who?"}',
        b'{"id": "a", "decision": "accept", "answer": "Zelda"}',
        b'{"id": 7, "decision": "accept"}',
        b'{"id": "a", "decision": "accept", "mood": "good"}',
        b"\xff\xfe",
        b"",
    ],
)
def test_a_line_that_is_no_decision_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "review.jsonl"
    path.write_bytes(b'{"id": "a", "decision": "accept"}\n' + line + b"\n")
    message = f"{path}:2 is no decision of a review: mend that line, or take it out"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_decisions(path)


def test_a_decision_about_another_row_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Paused):
        align(out, STOP)
    write_decisions(review_file(out, 1), [Decision("0123456789ab", "accept")])
    message = f"{review_file(out, 1)}:1 decides about '0123456789ab', which is no accepted row: take that line out"
    for read in (lambda: align(out, STOP), lambda: read_run(out)):
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            read()


def test_rows_are_drawn_as_show_draws_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    generate_pairs(parts(out))
    text = shown(read_rows(read_run(out), 4))
    assert all(pair.id in text for pair in drawn(accepted(out), 4))


def test_every_face_says_what_a_person_did(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Paused):
        align(out, STOP)
    _, edited, rejected, _ = decide(out)
    unread = next(pair for pair in accepted(out) if pair.id not in read_decisions(review_file(out, 1)))
    write_decisions(review_file(out, 1), [Decision(unread.id, "unread")])
    align(out, STOP)
    found = read_run(out)
    assert found.decided() == counts(found.iterations[0].decisions)
    assert found.decided() == {"accepted": 2, "edited": 1, "rejected": 1, "unread": 1}
    [new] = [pair for pair in found.iterations[0].pairs if pair.edited_from]
    assert len(found.iterations[0].pairs) == 11 and found.texts()[new.id] == new
    table = shown(summary(found))
    assert "accepted by a person" in table and "edited by a person" in table and "rejected by a person" in table
    for row_id in (edited.id, new.id):
        text = shown(provenance(found, row_id))
        assert new.answer in text and edited.answer in text and "review: edited by a person" in text
    assert "review: rejected by a person: not our tone" in shown(provenance(found, rejected.id))
    assert "rejected by a person: not our tone" in shown(read_rows(found, 4, 1))
    for card in (model_card(found, 2), data_card(found, 2)):
        assert "a person accepted 2, edited 1, rejected 1 of them and has not read the other 20" in card
    lines = final_files(found.config, "base/model", out, 2)["pairs.jsonl"].splitlines()
    assert [row.get("edited_from") for row in map(json.loads, lines) if row["id"] == new.id] == [edited.id]


def test_the_command_line_calls_a_stop_no_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(prog_name: str, standalone_mode: bool) -> None:
        raise Paused("stopped before training: 4 of 4 rows wait to be read")

    monkeypatch.setattr(cli, "app", stop)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == "stopped before training: 4 of 4 rows wait to be read\n"


def test_a_comparison_waits_for_nobody(tmp_path: Path) -> None:
    base = load_config(None, [STOP])
    assert {arm.config(base, 0, tmp_path).review.before_training for arm in ARMS} == {0}


def test_a_run_that_is_trained_already_stops_no_more(tmp_path: Path) -> None:
    align(tmp_path / "run")
    before = tree(tmp_path / "run")
    run(parts(tmp_path / "run", STOP))
    after = tree(tmp_path / "run")
    assert {name for name in before if before[name] != after[name]} == {"isara.yaml"}
