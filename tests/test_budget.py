from dataclasses import replace
from pathlib import Path

import pytest

from isara.budget import Budgeted
from isara.config import BudgetConfig
from isara.errors import Paused
from isara.loop import run
from isara.report.facts import read_run
from isara.watching import SILENT
from tests.doubles import Preferring
from tests.test_loop import parts, tree


def test_a_run_within_its_budget_ends_as_one_without(tmp_path: Path) -> None:
    run(parts(tmp_path / "free"))
    run(parts(tmp_path / "run"), Budgeted(SILENT, BudgetConfig(minutes=60, tokens=10**6)))
    assert tree(tmp_path / "run") == tree(tmp_path / "free")


def test_tokens_that_are_spent_stop_at_the_end_of_a_batch_and_lose_nothing(tmp_path: Path) -> None:
    run(parts(tmp_path / "free"))
    stops = []
    for _ in range(100):
        try:
            run(parts(tmp_path / "run"), Budgeted(SILENT, BudgetConfig(tokens=1)))
            break
        except Paused as stop:
            stops.append(str(stop))
    assert tree(tmp_path / "run") == tree(tmp_path / "free")
    batches = {
        (place, line.partition('"batch": ')[2].partition(",")[0])
        for place in (tmp_path / "free").rglob("candidates.jsonl")
        for line in place.read_text().splitlines()
    }
    assert len(stops) == len(batches) > 2  # one stop a batch, since each command makes one
    assert stops[0].endswith(
        "generated tokens, and budget.tokens is 1: every finished batch and stage is kept, and the same command goes "
        "on with a new budget"
    )


def test_time_that_is_spent_stops_before_a_stage(tmp_path: Path) -> None:
    now = iter(range(0, 10_000, 50))
    with pytest.raises(Paused, match=r"stopped after 1\.67 minutes, and budget.minutes is 1.5: every"):
        run(parts(tmp_path / "run"), Budgeted(SILENT, BudgetConfig(minutes=1.5), lambda: next(now)))
    assert not (tmp_path / "run" / "final").exists()


def test_own_answers_of_the_preference_step_count_and_stop_at_the_end_of_a_batch(tmp_path: Path) -> None:
    settings = ("prefer.method=dpo", "iterations=1", "generate.batch=4")
    run(parts(tmp_path / "free", *settings, preference=Preferring()))
    [facts] = read_run(tmp_path / "free").iterations
    counted = Budgeted(SILENT, BudgetConfig(tokens=10**6))
    run(parts(tmp_path / "counted", *settings, preference=Preferring()), counted)
    made = sum(draw.tokens for stored in facts.candidates for draw in stored.candidate.draws)
    assert counted._tokens == made + facts.alone > made
    # With what the candidates take, and one token more, the first batch of own answers is the last one.
    with pytest.raises(Paused):
        run(
            parts(tmp_path / "run", *settings, preference=Preferring()), Budgeted(SILENT, BudgetConfig(tokens=made + 1))
        )
    assert len((tmp_path / "run/iteration-01/prefer/contrast.jsonl").read_text().splitlines()) == 4
    again = Budgeted(SILENT, BudgetConfig(tokens=10**6))
    run(parts(tmp_path / "run", *settings, preference=Preferring()), again)
    assert 0 < again._tokens < facts.alone and tree(tmp_path / "run") == tree(tmp_path / "free")


def test_a_second_answer_counts(tmp_path: Path) -> None:
    made = parts(tmp_path / "run", "filters.agreement=0.01")
    counted = Budgeted(SILENT, BudgetConfig(tokens=10**6))
    run(replace(made), counted)
    plain = Budgeted(SILENT, BudgetConfig(tokens=10**6))
    run(parts(tmp_path / "plain"), plain)
    assert counted._tokens > 1.3 * plain._tokens
