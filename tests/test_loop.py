import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isara.config import load_config
from isara.errors import ConfigError, ModelError, RunError, YieldError
from isara.evaluate.figures import mean
from isara.evaluate.runner import SimpleTask
from isara.filters import Balance, Copied, Form, NearDuplicate, OffDomain, UnsupportedContacts
from isara.folder import RunFolder, is_done, iteration_numbers, model_hash, open_shelf, stage_folder
from isara.generate import funnel
from isara.loop import Result, best_iteration, generate_pairs, run
from isara.own import load_part
from isara.parts import Parts
from isara.pool import Pool
from isara.protocols import Filter
from isara.records import Candidate, QAPair, Rejection, Sampling
from isara.shelf import Shelf
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from isara.vectors import Vectors
from isara.verbs import answer, evaluate, train
from tests.doubles import PLACES, SEEDS, CountingTrainer, DropKnown, DropOddYears, ScriptedEvaluator, hyrule

SMALL = [
    "generate.accept=12",
    "generate.batch=8",
    "questions.demos=3",
    "questions.per_prompt=2",
    "answers.demos=2",
    "iterations=2",
    "evaluate.seeds_only=false",
]


class Named:
    """An engine factory of a test's own that is the same part as `hyrule` to a resumed run."""

    def __init__(self, make: Callable[[str], ScriptedEngine]) -> None:
        self.make = make

    def key(self) -> str:
        return "hyrule"

    def __call__(self, model: str, /) -> ScriptedEngine:
        return self.make(model)


def parts(out: Path, *settings: str, **changed: Any) -> Parts:
    made = Parts(
        config=load_config(None, [*SMALL, *settings], out=str(out)),
        seeds=SEEDS,
        model="base/model",
        renderer=word_renderer(),
        engine=Named(hyrule),
        embedder=HashEmbedder(),
        trainer=CountingTrainer(),
        question_filters=[DropKnown()],
        pair_filters=[DropOddYears()],
        weights=lambda model: "3d5a",
    )
    if "engine" in changed:
        changed["engine"] = Named(changed["engine"])
    return replace(made, **changed)


def align(out: Path, *settings: str, shelf: Shelf | None = None, **changed: Any) -> Result:
    return run(parts(out, *settings, **changed), shelf=shelf)


def tree(run: Path) -> dict[str, str]:
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in {"log.txt", ".lock"})
    # The folder's own place stands in its config.
    texts = {path: path.read_bytes().replace(str(run).encode(), b"RUN") for path in files}
    return {str(path.relative_to(run)): hashlib.sha256(text).hexdigest() for path, text in texts.items()}


def stored(run: Path, number: int) -> list[dict[str, Any]]:
    path = stage_folder(run, number, "generate") / "candidates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_iteration_accepts_exactly_n_and_trains_on_seeds_and_all_accepted(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    result = align(tmp_path / "run", trainer=trainer)
    assert len(result.accepted) == 24
    assert trainer.calls == [(4 + 12, "base/model"), (4 + 24, "base/model")]
    assert [is_done(stage_folder(tmp_path / "run", t, "evaluate")) for t in (1, 2)] == [True, True]
    assert (result.final / "weights.json").exists()


def test_newest_data_and_last_start(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    align(tmp_path / "run", "train.start=last", "train.data=newest", trainer=trainer)
    assert trainer.calls[1] == (4 + 12, str(tmp_path / "run/iteration-01/train/model"))


def test_prompts_hold_demonstrations_and_the_question_and_nothing_else(tmp_path: Path) -> None:
    result = align(tmp_path / "run", "retrieve.pool=all")
    pairs = {pair.id: pair for pair in [*SEEDS, *result.accepted]}
    for row in stored(tmp_path / "run", 1) + stored(tmp_path / "run", 2):
        shown = [
            f" {pairs[i].question}\nAnswer: {pairs[i].answer}\n\nQuestion:" for i in row["question_draw"]["demo_ids"]
        ]
        assert row["question_draw"]["prompt"] == "Question:" + "".join(shown)
        for draw in row["answer_draws"]:
            shown = [f" {pairs[i].question}\nAnswer: {pairs[i].answer}\n\nQuestion:" for i in row["demo_ids"]]
            assert draw["prompt"] == "Question:" + "".join(shown) + f" {row['question']}\nAnswer:"


def test_a_row_is_never_its_own_demonstration_and_the_nearest_comes_last(tmp_path: Path) -> None:
    align(tmp_path / "run")
    rows = [row for row in stored(tmp_path / "run", 1) if row["demo_ids"]]
    assert rows
    for row in rows:
        assert row["id"] not in row["demo_ids"]
        similarities = row["answer_draws"][0]["similarities"]
        assert len(similarities) == 2 and similarities == sorted(similarities)


def test_only_seeds_are_retrieved_unless_the_pool_is_all(tmp_path: Path) -> None:
    seeds = {pair.id for pair in SEEDS}
    align(tmp_path / "seeds")
    assert {i for row in stored(tmp_path / "seeds", 2) for i in row["demo_ids"]} <= seeds
    align(tmp_path / "all", "retrieve.pool=all")
    assert not {i for row in stored(tmp_path / "all", 2) for i in row["demo_ids"]} <= seeds


def test_question_demonstrations_come_from_everything_known(tmp_path: Path) -> None:
    align(tmp_path / "run", "questions.demos=8", "questions.choice=neighbours")
    seeds = {pair.id for pair in SEEDS}
    assert {i for row in stored(tmp_path / "run", 1) for i in row["question_draw"]["demo_ids"]} <= seeds
    assert not {i for row in stored(tmp_path / "run", 2) for i in row["question_draw"]["demo_ids"]} <= seeds


def test_every_drop_keeps_its_reason_and_the_row_it_was_near_to(tmp_path: Path) -> None:
    align(tmp_path / "run", "generate.accept=24", "generate.batch=16")
    rows = stored(tmp_path / "run", 1)
    assert all((row["rejection"] is None) == row["accepted"] for row in rows)
    ids = {row["id"] for row in rows} | {pair.id for pair in SEEDS}
    near = [row["rejection"]["near_id"] for row in rows if row["rejection"] and row["rejection"]["reason"] == "known"]
    assert near and set(near) <= ids
    stats = json.loads((tmp_path / "run/iteration-01/generate/stats.json").read_text())
    assert sum(stats["funnel"].values()) == 2 * len(rows) - 0
    assert stats["funnel"]["odd_year"] == sum((row["rejection"] or {}).get("reason") == "odd_year" for row in rows)


def test_questions_that_fail_are_not_answered(tmp_path: Path) -> None:
    engines: list[ScriptedEngine] = []

    def watched(model: str) -> ScriptedEngine:
        engines.append(hyrule(model))
        return engines[-1]

    align(tmp_path / "run", "iterations=1", engine=watched)
    rows = stored(tmp_path / "run", 1)
    asked = [prompt for engine in engines for prompt in engine.prompts if prompt.endswith("Answer:")]
    assert len(asked) == sum(bool(row["answer_draws"]) for row in rows) < len(rows)


def test_the_best_iteration_is_exported_and_the_run_stops_when_it_no_longer_helps(tmp_path: Path) -> None:
    result = align(tmp_path / "run", "iterations=5", evaluator=ScriptedEvaluator([2.0, 1.5, 1.6, 1.0]))
    assert result.best == 1
    assert sorted(result.evaluations) == [0, 1, 2]
    assert json.loads((result.final / "isara.json").read_text())["iteration"] == 1


def test_without_patience_every_iteration_runs(tmp_path: Path) -> None:
    evaluator = ScriptedEvaluator([2.0, 1.5, 1.6, 1.0])
    result = align(tmp_path / "run", "iterations=3", "evaluate.patience=null", evaluator=evaluator)
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
    align(tmp_path / "longer", "iterations=3")
    align(tmp_path / "run")
    align(tmp_path / "run", "iterations=3")
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


@pytest.mark.parametrize("calls", [20, 45])
def test_filters_that_follow_the_kept_pairs_go_on_as_in_an_unbroken_run(tmp_path: Path, calls: int) -> None:
    settings = ["generate.min_yield=0", "generate.max_batches=40", "iterations=1"]
    seeds = [
        *(QAPair(f"Who in {place} helps me?", f"Ask the keeper of {place} about it; she knows.") for place in PLACES),
        *(
            QAPair(f"Is {place} the place to dance?", f"Sorry, {place} is closed until the morning.")
            for place in PLACES
        ),
    ]

    def changed() -> dict[str, Any]:
        follow: list[Filter] = [Balance(0.1), Copied(0.9), UnsupportedContacts("auto")]
        return {"seeds": seeds, "pair_filters": follow, "question_filters": [DropKnown(), OffDomain(0.8)]}

    align(tmp_path / "whole", *settings, **changed())
    with pytest.raises(Crash):
        align(tmp_path / "run", *settings, engine=crash_after(calls), **changed())
    align(tmp_path / "run", *settings, **changed())
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")
    reasons = {row["rejection"]["reason"] for row in stored(tmp_path / "run", 1) if row["rejection"]}
    assert {"balance", "off_domain"} <= reasons, reasons


@pytest.mark.parametrize("choice", ["sampled", "neighbours"])
def test_a_run_whose_pool_is_large_has_the_bytes_of_one_whose_pool_is_small_also_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    settings = ["retrieve.pool=all", f"questions.choice={choice}"]

    def near() -> dict[str, Any]:
        return {"question_filters": [NearDuplicate(0.9)]}

    align(tmp_path / "small", *settings, **near())
    monkeypatch.setattr(Pool, "large", 5)
    monkeypatch.setattr(Vectors, "block", 3)
    with pytest.raises(Crash):
        align(tmp_path / "large", *settings, engine=crash_after(40), **near())
    align(tmp_path / "large", *settings, **near())
    assert tree(tmp_path / "large") == tree(tmp_path / "small")
    assert any(row["rejection"] for row in stored(tmp_path / "small", 2))


@pytest.mark.parametrize("torn", [b'{"batch": 1, "batch', b'{"batch_size": 8, "batch": 9}\n', b"\x00\x00\n"])
def test_a_torn_last_batch_is_redone(tmp_path: Path, torn: bytes) -> None:
    align(tmp_path / "whole")
    with pytest.raises(Crash):
        align(tmp_path / "run", engine=crash_after(20))
    with (tmp_path / "run/iteration-01/generate/candidates.jsonl").open("ab") as file:
        file.write(torn)
    align(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["generate", "train", "evaluate"])
def test_a_stage_whose_end_was_not_recorded_is_made_again(tmp_path: Path, lost: str) -> None:
    align(tmp_path / "whole")
    align(tmp_path / "run")
    (tmp_path / "run/iteration-02" / lost / "DONE").unlink()
    align(tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_a_changed_option_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run)
    message = (
        f"{run} holds another run: answers.demos was 2 and is 4. Undo the change to resume it, "
        "or start a new run with --out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(run, "answers.demos=4")


def test_seeds_may_be_dicts(tmp_path: Path) -> None:
    align(tmp_path / "pairs")
    align(tmp_path / "dicts", seeds=[{"question": pair.question, "answer": pair.answer} for pair in SEEDS])
    assert tree(tmp_path / "dicts") == tree(tmp_path / "pairs")


def test_a_long_value_is_shown_where_it_differs(tmp_path: Path) -> None:
    align(tmp_path / "run", f"filters.drop_matching=[{'a' * 400}]")
    with pytest.raises(RunError) as caught:
        align(tmp_path / "run", f"filters.drop_matching=[{'a' * 400}b]")
    said = str(caught.value)
    assert "b']. Undo" in said and "a']" in said and len(said) < 600


def test_other_seeds_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run)
    message = (
        f"{run} holds another run: the pairs in seeds.jsonl are others. Undo the change to resume it, "
        "or start a new run with --out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(run, seeds=SEEDS[:3])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    align(run)
    message = (
        f"{run} holds another run: the hash of the base model's weights was 3d5a and is 77ff. "
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
        filters: dict[str, Any] = {"question_filters": [], "pair_filters": []}
        result = align(tmp_path / "run", seeds=seeds, engine=engine, **filters)
    assert len(result.accepted) == 24 and any("\u2028" in pair.answer for pair in result.accepted)


def test_a_question_that_outgrows_the_context_is_dropped(tmp_path: Path) -> None:
    def narrow(model: str) -> ScriptedEngine:
        engine = hyrule(model)
        complete = engine.answer
        # Every other question goes on and on.
        engine.answer = lambda prompt, seed: (
            complete(prompt, seed) if seed % 2 or prompt.endswith("Answer:") else " And is it" + " very" * 60 + " far?"
        )
        return engine

    settings = ["iterations=1", "generate.min_yield=0", "questions.demos=1", "questions.max_new_tokens=70"]
    settings += ["answers.max_new_tokens=60"]
    align(tmp_path / "run", *settings, engine=narrow, renderer=word_renderer(100), question_filters=[])
    dropped = [row for row in stored(tmp_path / "run", 1) if row["rejection"] and not row["answer_draws"]]
    assert {row["rejection"]["reason"] for row in dropped} == {"context_length"}
    assert {row["rejection"]["threshold"] for row in dropped} == {40}


def test_a_completion_that_leaves_no_room_for_a_prompt_is_an_error(tmp_path: Path) -> None:
    message = (
        "expected room for a prompt of at least 16 tokens, found 8: of the model's context of 2048 tokens "
        "answers.max_new_tokens has 2040; lower it"
    )
    with pytest.raises(ModelError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run", "answers.max_new_tokens=2040")


def test_a_chat_whose_opening_fills_the_room_is_an_error(tmp_path: Path) -> None:
    long = replace(word_renderer().format, start="You are here to help. " * 10)
    message = "expected room for a prompt of at least 50 tokens, found 30: .*answers.max_new_tokens has 70; lower it"
    with pytest.raises(ModelError, match=message):
        align(
            tmp_path / "run",
            "questions.max_new_tokens=20",
            "answers.max_new_tokens=70",
            renderer=word_renderer(100, long),
        )


def test_a_filter_may_measure_with_numpy(tmp_path: Path) -> None:
    class Far:
        def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
            nearest = kept.similarities(candidate.pair.question).max()
            return Rejection("far", nearest, 0.2) if nearest < 0.2 else None

    align(tmp_path / "run", "iterations=1", question_filters=[Far()], pair_filters=[])
    values = [row["rejection"]["value"] for row in stored(tmp_path / "run", 1) if row["rejection"]]
    assert all(isinstance(value, float | None) for value in values)


def test_a_longer_run_has_the_cards_of_a_longer_run(tmp_path: Path) -> None:
    def cards(run: Path, best: int) -> dict[str, str]:
        return {"README.md": f"{best} of {len(iteration_numbers(run))}"}

    def figures() -> ScriptedEvaluator:
        return ScriptedEvaluator([2.0, 1.0, 1.5, 1.6])

    settings = ["evaluate.patience=null", "iterations=3"]
    align(tmp_path / "run", settings[0], "iterations=1", cards=cards, evaluator=figures())
    align(tmp_path / "run", *settings, cards=cards, evaluator=ScriptedEvaluator([1.5, 1.6]))
    align(tmp_path / "whole", *settings, cards=cards, evaluator=figures())
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_fewer_iterations_take_nothing_back(tmp_path: Path) -> None:
    align(tmp_path / "run", evaluator=ScriptedEvaluator([2.0, 1.5, 1.0]))
    result = align(tmp_path / "run", "iterations=1", evaluator=ScriptedEvaluator([]))
    assert result.best == 2 and len(result.accepted) == 24


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seeds.jsonl", None),
        ("environment.json", b"{"),
        ("iteration-01/evaluate/DONE", b"{"),
        ("iteration-01/generate/key.json", b"{\n"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    align(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink() if content is None else path.write_bytes(content)
    message = f"{path} is missing or damaged: put it back, or remove {path.parent} and run the same command again"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run")


def test_a_folder_with_a_config_and_no_record_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "my-domain").mkdir()
    (tmp_path / "my-domain/isara.yaml").write_text("iterations: 2\n")
    (tmp_path / "my-domain/seeds.jsonl").write_text("")
    message = (
        f"{tmp_path / 'my-domain'} holds an isara.yaml and is no run folder, or has lost its environment.json: "
        "give the --out of a run"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "my-domain")


def test_a_spoilt_stage_on_the_shelf_is_made_anew(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path / "shelf")
    align(tmp_path / "a", "iterations=1", shelf=shelf)
    for path in (tmp_path / "shelf").rglob("accepted.jsonl"):
        path.unlink()  # a name of its own: the run's file stays
        path.write_text("{}")
    align(tmp_path / "b", "iterations=1", shelf=shelf)
    assert stored(tmp_path / "b", 1) == stored(tmp_path / "a", 1)


def test_an_embedder_that_counts_does_not_refuse_its_own_run(tmp_path: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.calls += 1
            return HashEmbedder().encode(texts)

    whole = align(tmp_path / "run", embedder=Counting())
    assert align(tmp_path / "run", embedder=Counting()).accepted == whole.accepted


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for out in (tmp_path / "run", tmp_path / "run" / "deeper"):
        message = f"expected a folder at {out}, found a file: give another folder with --out"
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            align(out)


def test_a_low_yield_stops_with_what_took_the_rows_and_what_to_turn(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(YieldError) as caught:
        align(run, "generate.accept=400", "generate.min_yield=0.9")
    rows = stored(run, 1)
    took = funnel(rows)
    reasons = ", ".join(f"{reason} took {took[reason]}" for reason in took if reason not in {"candidates", "accepted"})
    first = next(reason for reason in took if reason not in {"candidates", "accepted"})
    assert str(caught.value) == (
        f"iteration 1: {took['accepted']} of the 400 pairs wanted were accepted out of 16 candidates in 2 batches; "
        f"{reasons}. Everything so far is kept in {run / 'iteration-01/generate'}. Look at the rows dropped by {first} "
        "(generate.max_batches and generate.min_yield may be changed in the same run, the rest only in a new --out)"
    )


def test_a_limit_of_batches_that_no_filter_is_to_blame_for(tmp_path: Path) -> None:
    settings = ["generate.accept=40", "generate.max_batches=2"]
    with pytest.raises(YieldError) as caught:
        align(tmp_path / "run", *settings, question_filters=[], pair_filters=[])
    assert str(caught.value) == (
        "iteration 1: 16 of the 40 pairs wanted were accepted out of 16 candidates in 2 batches. Everything so far is "
        f"kept in {tmp_path / 'run/iteration-01/generate'}. Raise generate.max_batches (generate.max_batches and "
        "generate.min_yield may be changed in the same run, the rest only in a new --out)"
    )


def test_a_lower_floor_goes_on_after_a_low_yield(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(YieldError):
        align(run, "generate.accept=40", "generate.min_yield=0.9")
    result = align(run, "generate.accept=40")
    assert len(result.accepted) == 80


def test_demonstrations_that_do_not_fit_are_left_out_farthest_first(tmp_path: Path) -> None:
    settings = ["iterations=1", "questions.max_new_tokens=40", "answers.max_new_tokens=40", "answers.demos=4"]
    align(tmp_path / "run", *settings, renderer=word_renderer(90))
    align(tmp_path / "wide", *settings)
    wide = {row["question"]: row["demo_ids"] for row in stored(tmp_path / "wide", 1) if row["demo_ids"]}
    cut = [row for row in stored(tmp_path / "run", 1) if 0 < len(row["demo_ids"]) < 4 and row["question"] in wide]
    assert cut
    for row in cut:
        assert row["demo_ids"] == wide[row["question"]][-len(row["demo_ids"]) :]
        assert len(row["answer_draws"][0]["prompt"].split()) <= 50


def test_a_stored_row_names_everything_that_made_it(tmp_path: Path) -> None:
    align(tmp_path / "run")
    row = next(row for row in stored(tmp_path / "run", 2) if row["accepted"])
    assert row["weights"] == model_hash(tmp_path / "run/iteration-01/train")
    engine, [draw] = hyrule(str(tmp_path / "run/iteration-01/train/model")), row["answer_draws"]
    assert engine.answer(draw["prompt"], draw["seed"]).split("\n")[0].strip() == draw["text"] == row["answer"]
    assert QAPair(row["question"], row["answer"]).id == row["id"]


def test_a_model_is_opened_once_for_its_evaluation_and_the_next_generation(tmp_path: Path) -> None:
    opened: list[str] = []

    def counted(model: str) -> ScriptedEngine:
        opened.append(str(Path(model)))
        return hyrule(model)

    align(tmp_path / "run", "iterations=3", engine=counted, heldout=[QAPair("Is the Cucco calm?", "It is.")])
    assert len(opened) == len(set(opened)) == 4


def test_no_iterations_measure_the_base_model_and_export_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"hidden_size": 2}')
    result = align(tmp_path / "run", "iterations=0", model=str(base), evaluator=ScriptedEvaluator([2.0]))
    assert (result.best, result.evaluations) == (0, {0: {"bits_per_byte": 2.0}})
    assert (result.final / "config.json").read_text() == '{"hidden_size": 2}'


def test_accepting_none_trains_on_the_seeds_alone(tmp_path: Path) -> None:
    trainer = CountingTrainer()

    def no_engine(model: str) -> ScriptedEngine:
        raise AssertionError("nothing is generated")

    result = align(tmp_path / "run", "iterations=1", "generate.accept=0", trainer=trainer, engine=no_engine)
    assert trainer.calls == [(4, "base/model")] and result.accepted == [] and result.best == 1


@pytest.mark.parametrize(("kind", "shown"), [("nearest", 2), ("random", 2), ("none", 0)])
def test_retrieval_is_a_value_that_an_arm_changes_alone(tmp_path: Path, kind: str, shown: int) -> None:
    align(tmp_path / "run", "iterations=1", f"answers.retrieve={kind}")
    rows = [row for row in stored(tmp_path / "run", 1) if row["answer_draws"]]
    assert {len(row["demo_ids"]) for row in rows} == {shown}


def test_random_demonstrations_are_others_than_the_nearest_and_the_same_again(tmp_path: Path) -> None:
    demos = {}
    for name, kind in (("a", "random"), ("b", "random"), ("c", "nearest")):
        align(tmp_path / name, "iterations=1", f"answers.retrieve={kind}")
        demos[name] = [row["demo_ids"] for row in stored(tmp_path / name, 1) if row["answer_draws"]]
    assert demos["a"] == demos["b"] != demos["c"]


class OtherEmbedder(HashEmbedder):
    def key(self) -> str:
        return "another"


def drop_nothing(candidate: Candidate, kept: Pool) -> Rejection | None:
    return None


@pytest.mark.parametrize(
    ("name", "part", "difference"),
    [
        ("embedder", OtherEmbedder(), "the embedder was hash-256 and is another"),
        ("pair_filters", [], "the pair filters was [{'part': 'tests.doubles.DropOddYears', 'source': '"),
        ("question_filters", [drop_nothing], "the question filters was [{'part': 'tests.doubles.DropKnown'"),
    ],
)
def test_a_run_is_not_resumed_with_another_part(tmp_path: Path, name: str, part: Any, difference: str) -> None:
    align(tmp_path / "run", "iterations=1")
    with pytest.raises(RunError) as caught:
        align(tmp_path / "run", **{name: part})
    assert str(caught.value).startswith(f"{tmp_path / 'run'} holds another run: {difference}")
    assert str(caught.value).endswith("Undo the change to resume it, or start a new run with --out ANOTHER_FOLDER")


def test_a_filter_that_returns_something_else_is_named_with_what_it_returned(tmp_path: Path) -> None:
    def is_short(candidate: Candidate, kept: Pool) -> bool:
        return len(candidate.pair.answer) < 400

    message = (
        "expected a Rejection or None from the filter `test_a_filter_that_returns_something_else_is_named_with_what_it_"
        'returned.<locals>.is_short`, found True: return Rejection("its_name", value, threshold) for a pair to drop '
        "and None for one to keep"
    )
    with pytest.raises(ConfigError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run", pair_filters=[is_short])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (Rejection(None, 1, None), "the name None"),  # type: ignore[arg-type]
        (Rejection("", 1), "the name ''"),
        (Rejection("a\nb", 1), r"the name 'a\nb'"),
        (Rejection("x", {}), "the value {}"),  # type: ignore[arg-type]
        (Rejection("x", 1, float("nan")), "the threshold nan"),
        (Rejection("x", np.zeros(3)), "the value array([0., 0., 0.])"),  # type: ignore[arg-type]
        (Rejection("x", 1, 2, 7), "the id of a near pair 7"),  # type: ignore[arg-type]
        (Rejection("x", "half \ud800"), r"the value 'half \ud800'"),
        (Rejection("x", 1, 2, "\udfff"), r"the id of a near pair '\udfff'"),
        (Rejection("accepted", 1), "the name 'accepted', which counts something else"),
        (Rejection("candidates", 1), "the name 'candidates', which counts something else"),
        (Rejection("surplus", 1), "the name 'surplus', which counts something else"),
    ],
)
def test_a_rejection_that_cant_be_stored_is_told_before_it_is(tmp_path: Path, said: Rejection, found: str) -> None:
    class Odd:
        def key(self) -> str:
            return "odd"

        def __call__(self, candidate: Candidate, kept: Pool) -> Rejection:
            return said

    with pytest.raises(ConfigError) as caught:
        align(tmp_path / "run", question_filters=[Odd()])
    assert 'expected Rejection("its_name", value, threshold) from the filter `' in str(caught.value)
    assert f"Odd`, its name being a line of text and the others a number, text or None, found {found}: mend" in str(
        caught.value
    )
    assert not (tmp_path / "run/iteration-01/generate/candidates.jsonl").exists()


def test_a_filter_that_fails_is_named_with_its_line_and_the_candidate(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def drop_long(candidate, kept):\n    return measure(candidate)\n\n\n"
        "def measure(candidate):\n    return 1 / (len(candidate.pair.question) * 0)\n"
    )
    check = load_part(f"{tmp_path}/mine.py:drop_long", "filters")
    with pytest.raises(ConfigError) as caught:
        align(tmp_path / "run", question_filters=[check])
    message = (
        r"expected a Rejection or None from the filter `drop_long`, found that it fails on the candidate [0-9a-f]{12} "
        rf"\('[^']+'\) at {tmp_path}/mine.py:6: ZeroDivisionError: [\w ]*division by zero: mend the filter; a run's "
        "finished batches are kept"
    )
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_a_fault_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Form, candidate: Candidate, kept: Pool) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Form, "__call__", fail)
    with pytest.raises(ZeroDivisionError):
        align(tmp_path / "run", question_filters=[Form()])


def test_sibling_runs_share_what_has_the_same_key_and_nothing_else(tmp_path: Path) -> None:
    shelf, opened = open_shelf(tmp_path / "shelf"), []

    def counted(model: str) -> ScriptedEngine:
        opened.append(model)
        return hyrule(model)

    first = align(tmp_path / "a", "iterations=1", shelf=shelf, engine=counted)
    assert len(opened) == 1
    trainer = CountingTrainer()
    longer = align(tmp_path / "b", "iterations=2", shelf=shelf, engine=counted, trainer=trainer)
    assert longer.accepted[:12] == first.accepted and trainer.calls == [(28, "base/model")]
    alone = tmp_path / "a/iteration-01/generate/candidates.jsonl"
    assert os.path.samefile(alone, tmp_path / "b/iteration-01/generate/candidates.jsonl")
    align(tmp_path / "c", "iterations=1", "answers.retrieve=random", shelf=shelf, engine=counted)
    assert stored(tmp_path / "c", 1) != stored(tmp_path / "a", 1)


def test_a_run_of_an_earlier_version_is_refused_with_one_line(tmp_path: Path) -> None:
    align(tmp_path / "run", "iterations=1")
    (tmp_path / "run/environment.json").write_text('{\n  "python": "3.11.2",\n  "weights": "3d5a"\n}\n')
    message = (
        f"{tmp_path / 'run'} was made by an earlier version of ISARA, whose folders this one does not read: "
        "start a new run with --out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run", "iterations=1")


def test_dialogues_are_shown_whole_retrieved_by_all_their_questions_and_stored(tmp_path: Path) -> None:
    talk = QAPair(
        "And how much is it for a horse?",
        "Ten rupees a night, hay included.",
        before=(("What does a bed at the inn cost?", "Twenty rupees a night."),),
    )
    result = align(tmp_path / "run", "iterations=1", "questions.demos=5", seeds=[*SEEDS, talk])
    shown = (
        " What does a bed at the inn cost?\nAnswer: Twenty rupees a night.\n\n"
        "Question: And how much is it for a horse?\nAnswer: Ten rupees a night, hay included.\n\nQuestion:"
    )
    for row in stored(tmp_path / "run", 1):
        for draw in [row["question_draw"], *row["answer_draws"]]:
            assert (talk.id in draw["demo_ids"]) == (shown in draw["prompt"])
    assert any(talk.id in row["question_draw"]["demo_ids"] for row in stored(tmp_path / "run", 1))
    assert json.loads((tmp_path / "run/seeds.jsonl").read_text().splitlines()[-1]) == talk.to_json()
    assert QAPair.from_json(talk.to_json()) == talk and talk.id != replace(talk, before=()).id
    assert len(result.accepted) == 12


def test_replacing_an_engine_reaches_every_verb(tmp_path: Path) -> None:
    asked: list[str] = []

    def mine(model: str) -> ScriptedEngine:
        asked.append(model)
        return hyrule(model)

    made = parts(tmp_path / "run", "iterations=1", engine=mine)
    generate_pairs(made)
    run(made)
    task = SimpleTask(
        name="words",
        items=SEEDS,
        answer=lambda asker, items: [
            {"id": item.id, "words": len(draw.text.split()) if draw else 0}
            for item, draw in zip(items, asker.answers(items, Sampling(0.0), [0] * len(items)), strict=True)
        ],
        figures=lambda rows: [mean("words", [row["words"] for row in rows])],
    )
    before = len(asked)
    [result] = evaluate(made, [task], tmp_path / "words")
    assert result.figures[0].value > 0
    [draw] = answer(made, ["Where is Impa?"])
    assert draw is not None and draw.text.startswith("Ask the keeper of")
    stats = train(made, [{"question": "Where is Navi?", "answer": "Behind you."}, *SEEDS], tmp_path / "trained")
    assert stats.rows == 5 and len(asked) == before + 2


def test_the_log_says_how_much_memory_each_stage_had(tmp_path: Path) -> None:
    align(tmp_path / "run")
    log = (tmp_path / "run/log.txt").read_text()
    for stage in ("generate", "train", "evaluate"):
        assert re.search(rf"iteration 1: {stage} had at most \d+\.\d\d GiB of memory in this process", log)
