import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isara.data import QAPair
from isara.errors import ModelError, RunError, YieldError
from isara.generate import Generation
from isara.loop import Loop, Result, best_iteration, funnel, self_align
from isara.pool import Pool
from isara.protocols import Candidate, Rejection, Sampling
from isara.run import Iteration, RunFolder, iterations
from isara.testing import HashEmbedder, ScriptedEngine
from tests.doubles import SEEDS, CountingTrainer, DropKnown, DropOddYears, ScriptedEvaluator, hyrule

SMALL = Generation(accept=12, batch=8, question_demos=3, answer_demos=2, per_prompt=2)


def align(out: Path, **changed: Any) -> Result:
    parts: dict[str, Any] = {
        "engine": hyrule,
        "embedder": HashEmbedder(),
        "trainer": CountingTrainer(),
        "question_filters": [DropKnown()],
        "pair_filters": [DropOddYears()],
        "generation": SMALL,
        "loop": Loop(iterations=2),
        "weights": lambda model: "/".join(Path(model).parts[-2:]),
    }
    return self_align(SEEDS, "base/model", out, **{**parts, **changed})


def tree(run: Path) -> dict[str, str]:
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in {"log.txt", ".lock"})
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored(run: Path, number: int) -> list[dict[str, Any]]:
    path = run / f"iteration-{number:02d}" / "candidates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_iteration_accepts_exactly_n_and_trains_on_seeds_and_all_accepted(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    result = align(tmp_path / "run", trainer=trainer)
    assert len(result.accepted) == 24
    assert trainer.calls == [(4 + 12, "base/model"), (4 + 24, "base/model")]
    assert [step.done for step in iterations(tmp_path / "run")] == [True, True]
    assert (result.final / "weights.json").exists()


def test_newest_data_and_last_start(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    align(tmp_path / "run", trainer=trainer, loop=Loop(iterations=2, start="last", data="newest"))
    assert trainer.calls[1] == (4 + 12, str(tmp_path / "run" / "iteration-01" / "model"))


def test_prompts_hold_demonstrations_and_the_question_and_nothing_else(tmp_path: Path) -> None:
    result = align(tmp_path / "run", loop=Loop(iterations=2, pool="all"))
    pairs = {pair.id: pair for pair in [*SEEDS, *result.accepted]}
    for row in stored(tmp_path / "run", 1) + stored(tmp_path / "run", 2):
        shown = [f" {pairs[i].question}\nAnswer: {pairs[i].answer}\n\nQuestion:" for i in row["question_demo_ids"]]
        assert row["question_prompt"] == "Question:" + "".join(shown)
        if row["answer_prompt"]:
            shown = [f" {pairs[i].question}\nAnswer: {pairs[i].answer}\n\nQuestion:" for i in row["demo_ids"]]
            assert row["answer_prompt"] == "Question:" + "".join(shown) + f" {row['question']}\nAnswer:"


def test_a_row_is_never_its_own_demonstration_and_the_nearest_comes_last(tmp_path: Path) -> None:
    align(tmp_path / "run")
    rows = [row for row in stored(tmp_path / "run", 1) if row["demo_ids"]]
    assert rows
    for row in rows:
        assert row["id"] not in row["demo_ids"]
        assert row["demo_similarities"] == sorted(row["demo_similarities"])


def test_only_seeds_are_retrieved_unless_the_pool_is_all(tmp_path: Path) -> None:
    seeds = {pair.id for pair in SEEDS}
    align(tmp_path / "seeds")
    assert {i for row in stored(tmp_path / "seeds", 2) for i in row["demo_ids"]} <= seeds
    align(tmp_path / "all", loop=Loop(iterations=2, pool="all"))
    assert not {i for row in stored(tmp_path / "all", 2) for i in row["demo_ids"]} <= seeds


def test_question_demonstrations_come_from_everything_known(tmp_path: Path) -> None:
    align(tmp_path / "run", generation=Generation(12, 8, question_demos=8, question_choice="neighbours"))
    seeds = {pair.id for pair in SEEDS}
    assert {i for row in stored(tmp_path / "run", 1) for i in row["question_demo_ids"]} <= seeds
    assert not {i for row in stored(tmp_path / "run", 2) for i in row["question_demo_ids"]} <= seeds


def test_every_drop_keeps_its_reason_and_the_row_it_was_near_to(tmp_path: Path) -> None:
    align(tmp_path / "run", generation=Generation(24, 16, question_demos=3, answer_demos=2))
    rows = stored(tmp_path / "run", 1)
    assert all((row["rejection"] is None) == row["accepted"] for row in rows)
    ids = {row["id"] for row in rows} | {pair.id for pair in SEEDS}
    near = [row["rejection"]["near_id"] for row in rows if row["rejection"] and row["rejection"]["reason"] == "known"]
    assert near and set(near) <= ids
    stats = json.loads((tmp_path / "run/iteration-01/stats.json").read_text())
    assert sum(stats["funnel"].values()) == 2 * len(rows) - 0
    assert stats["funnel"]["odd_year"] == sum((row["rejection"] or {}).get("reason") == "odd_year" for row in rows)


def test_questions_that_fail_are_not_answered(tmp_path: Path) -> None:
    engines: list[ScriptedEngine] = []

    def watched(model: str) -> ScriptedEngine:
        engines.append(hyrule(model))
        return engines[-1]

    align(tmp_path / "run", engine=watched, loop=Loop(iterations=1))
    rows = stored(tmp_path / "run", 1)
    asked = [prompt for engine in engines for prompt in engine.prompts if prompt.endswith("Answer:")]
    assert len(asked) == sum(row["answer_prompt"] is not None for row in rows) < len(rows)


def test_the_best_iteration_is_exported_and_the_run_stops_when_it_no_longer_helps(tmp_path: Path) -> None:
    result = align(tmp_path / "run", loop=Loop(iterations=5), evaluate=ScriptedEvaluator([2.0, 1.5, 1.6, 1.0]))
    assert result.best == 1
    assert sorted(result.evaluations) == [0, 1, 2]
    assert json.loads((result.final / "isara.json").read_text()) == {"iteration": 1}


def test_without_patience_every_iteration_runs(tmp_path: Path) -> None:
    evaluate = ScriptedEvaluator([2.0, 1.5, 1.6, 1.0])
    result = align(tmp_path / "run", loop=Loop(iterations=3, patience=None), evaluate=evaluate)
    assert result.best == 3


def test_best_iteration_of_an_unmeasured_run_is_the_last() -> None:
    assert best_iteration({0: {}, 1: {}, 2: {}}) == 2


def test_a_finished_run_does_nothing_twice(tmp_path: Path) -> None:
    align(tmp_path / "run")
    before, trainer = tree(tmp_path / "run"), CountingTrainer()

    def no_engine(model: str) -> ScriptedEngine:
        raise AssertionError("a finished run needs no engine")

    align(tmp_path / "run", trainer=trainer, engine=no_engine)
    assert trainer.calls == [] and tree(tmp_path / "run") == before


def test_more_iterations_go_on_from_a_finished_run(tmp_path: Path) -> None:
    align(tmp_path / "longer", loop=Loop(iterations=3))
    align(tmp_path / "run")
    align(tmp_path / "run", loop=Loop(iterations=3))
    assert tree(tmp_path / "run") == tree(tmp_path / "longer")


class Crash(Exception):
    pass


def crash_after(calls: int) -> Callable[[str], ScriptedEngine]:
    """An engine factory that dies at the n-th generate call, counted over all engines."""
    left = [calls]

    def engine(model: str) -> ScriptedEngine:
        opened = hyrule(model)
        complete = opened.answer

        def answer(prompt: str, seed: int) -> str:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return complete(prompt, seed)

        opened.answer = answer
        return opened

    return engine


@pytest.mark.parametrize("calls", [0, 5, 9, 20, 33, 50])
def test_a_crashed_run_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path, calls: int) -> None:
    align(tmp_path / "whole")
    with pytest.raises(Crash):
        align(tmp_path / "run", engine=crash_after(calls))
    align(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


@pytest.mark.parametrize("torn", [b'{"batch": 1, "batch', b'{"batch_size": 8, "batch": 9}\n', b"\x00\x00\n"])
def test_a_torn_last_batch_is_redone(tmp_path: Path, torn: bytes) -> None:
    align(tmp_path / "whole")
    with pytest.raises(Crash):
        align(tmp_path / "run", engine=crash_after(20))
    with (tmp_path / "run/iteration-01/candidates.jsonl").open("ab") as file:
        file.write(torn)
    align(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["train.json", "eval.json", "DONE", "accepted.jsonl"])
def test_what_is_written_after_a_model_is_written_again(tmp_path: Path, lost: str) -> None:
    align(tmp_path / "whole")
    align(tmp_path / "run")
    (tmp_path / "run/iteration-02" / lost).unlink()
    align(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_a_changed_option_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run)
    message = (
        f"{run} holds another run: answer_demos was 2 and is 4. Undo the change to resume it, "
        "or start a new run with --out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(run, generation=Generation(12, 8, question_demos=3, answer_demos=4, per_prompt=2))


def test_other_seeds_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run)
    message = (
        f"{run} holds another run: the pairs in seeds.jsonl are others. Undo the change to resume it, "
        "or start a new run with --out ANOTHER_FOLDER"
    )
    parts: dict[str, Any] = {"engine": hyrule, "embedder": HashEmbedder(), "trainer": CountingTrainer()}
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        self_align(SEEDS[:3], "base/model", run, generation=SMALL, loop=Loop(2), **parts)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run, weights=lambda model: "3d5a")
    message = (
        f"{run} holds another run: the hash of the base model's weights was 3d5a and 77ff now. "
        "Undo the change to resume it, or start a new run with --out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(run, weights=lambda model: "77ff")


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    message = f"{tmp_path} is not empty and is no run folder (it holds thesis.tex): give another folder with --out"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    message = f"{run} is in use by another process: wait for it, or give another folder with --out"
    with RunFolder(run), pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(run)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    align(tmp_path / "whole")
    run, real, left = tmp_path / "run", Path.replace, [9]

    def replace(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RunError, match=r"can't write .* \(No space left on device\): free some space"):
            align(run)
    align(run)
    assert tree(run) == tree(tmp_path / "whole")


def test_a_crash_in_the_first_moments_leaves_a_folder_that_can_be_resumed(tmp_path: Path) -> None:
    align(tmp_path / "whole")
    (tmp_path / "run").mkdir()
    for name in ("seeds.jsonl.tmp", "heldout.jsonl.tmp", "environment.json", "isara.yaml.tmp"):
        (tmp_path / "run" / name).write_text("{")
    align(tmp_path / "run")
    assert {name: text for name, text in tree(tmp_path / "run").items() if not name.endswith(".tmp")} == tree(
        tmp_path / "whole"
    )


def test_a_log_on_a_full_disk_is_only_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.txt").symlink_to("/dev/full")
    assert len(align(tmp_path / "run").accepted) == 24
    assert "Logging error" not in capsys.readouterr().err


def test_line_separators_in_texts_do_not_tear_rows(tmp_path: Path) -> None:
    odd = "one\u2028two\u2029three\x85four"
    seeds = [*SEEDS, QAPair("Which signs end a line?", odd)]

    def engine(model: str) -> ScriptedEngine:
        opened = hyrule(model)
        complete = opened.answer
        opened.answer = lambda prompt, seed: complete(prompt, seed).replace("about it", f"about {odd}")
        return opened

    for _ in range(2):
        parts: dict[str, Any] = {"embedder": HashEmbedder(), "trainer": CountingTrainer(), "generation": SMALL}
        result = self_align(seeds, "m", tmp_path / "run", engine=engine, loop=Loop(2), **parts)
    assert len(result.accepted) == 24 and any("\u2028" in pair.answer for pair in result.accepted)


def test_a_question_that_outgrows_the_context_is_dropped(tmp_path: Path) -> None:
    def narrow(model: str) -> ScriptedEngine:
        engine = hyrule(model)
        complete = engine.answer
        # Every other question goes on and on.
        engine.answer = lambda prompt, seed: (
            complete(prompt, seed) if seed % 2 or prompt.endswith("Answer:") else " And is it" + " very" * 60 + " far?"
        )
        engine.context_length = 100
        return engine

    generation = Generation(12, 8, None, 0.0, 1, "sampled", 2, Sampling(1.0, 1.0, 70), 2, Sampling(0.5, 1.0, 60))
    align(tmp_path / "run", engine=narrow, generation=generation, loop=Loop(1), question_filters=[])
    dropped = [row for row in stored(tmp_path / "run", 1) if row["rejection"] and not row["answer_prompt"]]
    assert {row["rejection"]["reason"] for row in dropped} == {"context_length"}
    assert {row["rejection"]["threshold"] for row in dropped} == {40}


def test_a_completion_that_leaves_no_room_for_a_prompt_is_an_error(tmp_path: Path) -> None:
    generation = Generation(12, 8, answer_sampling=Sampling(0.5, 1.0, 2040))
    message = (
        "expected room for a prompt of at least 16 tokens, found 8: of the model's context of 2048 tokens "
        "answers.max_new_tokens has 2040; lower it"
    )
    with pytest.raises(ModelError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run", generation=generation)


def test_a_filter_may_measure_with_numpy(tmp_path: Path) -> None:
    class Far:
        def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
            nearest = kept.similarities(candidate.pair.question).max()
            return Rejection("far", nearest, 0.2) if nearest < 0.2 else None

    align(tmp_path / "run", question_filters=[Far()], pair_filters=[], loop=Loop(1))
    values = [row["rejection"]["value"] for row in stored(tmp_path / "run", 1) if row["rejection"]]
    assert all(isinstance(value, float | None) for value in values)


def test_a_longer_run_has_the_cards_of_a_longer_run(tmp_path: Path) -> None:
    def cards(run: RunFolder, best: Iteration) -> dict[str, str]:
        return {"README.md": f"{best.number} of {len(iterations(run.path))}"}

    def figures() -> ScriptedEvaluator:
        return ScriptedEvaluator([2.0, 1.0, 1.5, 1.6])

    align(tmp_path / "run", cards=cards, evaluate=figures(), loop=Loop(1, patience=None))
    align(tmp_path / "run", cards=cards, evaluate=ScriptedEvaluator([1.5, 1.6]), loop=Loop(3, patience=None))
    align(tmp_path / "whole", cards=cards, evaluate=figures(), loop=Loop(3, patience=None))
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_fewer_iterations_take_nothing_back(tmp_path: Path) -> None:
    align(tmp_path / "run", evaluate=ScriptedEvaluator([2.0, 1.5, 1.0]))
    result = align(tmp_path / "run", loop=Loop(1))
    assert result.best == 2 and len(result.accepted) == 24


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seeds.jsonl", None),
        ("environment.json", None),
        ("environment.json", b"{"),
        ("iteration-01/eval.json", b"{"),
        ("iteration-01/accepted.jsonl", b"{\n"),
        ("final/isara.json", b"\xff"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    align(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink() if content is None else path.write_bytes(content)
    message = f"{path} is missing or damaged: put it back, or remove {path.parent} and run the same command again"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for out in (tmp_path / "run", tmp_path / "run" / "deeper"):
        message = f"expected a folder at {out}, found a file: give another folder with --out"
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            align(out)


def test_a_low_yield_stops_with_what_took_the_rows_and_what_to_turn(tmp_path: Path) -> None:
    run = tmp_path / "run"
    generation = Generation(accept=400, batch=8, question_demos=3, answer_demos=2, min_yield=0.9)
    with pytest.raises(YieldError) as caught:
        align(run, generation=generation)
    rows = stored(run, 1)
    took = funnel(rows)
    reasons = ", ".join(f"{reason} took {took[reason]}" for reason in took if reason not in {"candidates", "accepted"})
    first = next(reason for reason in took if reason not in {"candidates", "accepted"})
    assert str(caught.value) == (
        f"iteration 1: {took['accepted']} of the 400 pairs wanted were accepted out of 16 candidates in 2 batches; "
        f"{reasons}. Everything so far is kept in {run / 'iteration-01'}. Look at the rows dropped by {first} "
        "(generate.max_batches and generate.min_yield may be changed in the same run, the rest only in a new --out)"
    )


def test_a_lower_floor_goes_on_after_a_low_yield(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(YieldError):
        align(run, generation=Generation(40, 8, question_demos=3, answer_demos=2, per_prompt=2, min_yield=0.9))
    result = align(run, generation=Generation(40, 8, question_demos=3, answer_demos=2, per_prompt=2))
    assert len(result.accepted) == 80


def test_demonstrations_that_do_not_fit_are_left_out_farthest_first(tmp_path: Path) -> None:
    def narrow(model: str) -> ScriptedEngine:
        engine = hyrule(model)
        engine.context_length = 90
        return engine

    sampling = Sampling(0.5, 0.95, 40)
    generation = Generation(
        12, 8, question_demos=3, question_sampling=sampling, answer_demos=4, answer_sampling=sampling
    )
    align(tmp_path / "run", engine=narrow, generation=generation, loop=Loop(1))
    align(tmp_path / "wide", generation=generation, loop=Loop(1))
    wide = {row["question"]: row["demo_ids"] for row in stored(tmp_path / "wide", 1) if row["demo_ids"]}
    cut = [row for row in stored(tmp_path / "run", 1) if 0 < len(row["demo_ids"]) < 4 and row["question"] in wide]
    assert cut
    for row in cut:
        assert row["demo_ids"] == wide[row["question"]][-len(row["demo_ids"]) :]
        assert len(row["answer_prompt"].split()) <= 50


def test_a_stored_row_names_everything_that_made_it(tmp_path: Path) -> None:
    align(tmp_path / "run", weights=lambda model: "w:" + model)
    row = next(row for row in stored(tmp_path / "run", 2) if row["accepted"])
    assert row["weights"] == "w:" + str(tmp_path / "run/iteration-01/model")
    engine = hyrule(str(tmp_path / "run/iteration-01/model"))
    assert engine.answer(row["answer_prompt"], row["answer_seed"]).split("\n")[0].strip() == row["answer"]
    assert QAPair(row["question"], row["answer"]).id == row["id"]
