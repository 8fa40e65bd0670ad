"""A run folder is read without being touched; what is wrong with it is one line; what is shown says what it is."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from isara.cli.progress import Bars, Steps
from isara.config import load_config
from isara.errors import RunError
from isara.files import file_hash, json_lines, read_json, write_json, write_text
from isara.folder import RunFolder, seal, stage_folder
from isara.generate import funnel, store_batch
from isara.records import SEEDS_ONLY, Candidate, Draw, QAPair, Rejection, TrainStats
from isara.render import plain_format
from isara.report import terminal
from isara.report.facts import Example, Run, read_run
from isara.report.publish import final_files, model_license
from tests.test_loop import align
from tests.test_loop import parts as loop_parts

SEEDS = [
    QAPair("Who sells bombs in Hyrule?", "Beedle does, from his ship."),
    QAPair("Where does Epona graze?", "On the meadow of Lon Lon Ranch."),
]
HELDOUT = [QAPair("Who forges the Biggoron's Sword?", "Biggoron, on Death Mountain."), QAPair("Is it heavy?", "Very.")]
FORMAT = asdict(plain_format("</s>"))
TRAINER = {"trainer": "sft", "method": "lora", "learning_rate": 2e-4, "num_train_epochs": 3.0, "max_steps": None}
PARTS: dict[str, Any] = {
    "trainer": {**TRAINER, "lora_r": 16},
    "prompt format": {"format": FORMAT, "context_length": 2048, "bos": [], "tokenizer": "words"},
}
STATS = TrainStats(3, 6, 1.48, 2.34, 900, 300, 8, 4096)


def draw(text: str, seed: int = 1, finish: str = "stop", *demos: QAPair) -> Draw:
    prompt = "Question:" + "".join(f" {pair.question}\nAnswer: {pair.answer}\n\nQuestion:" for pair in demos)
    ids = tuple(pair.id for pair in demos)
    near = tuple(0.5 + index / 10 for index in range(len(demos)))
    return Draw(text, len(text.split()) + 1, finish, prompt, seed, ids, near)  # type: ignore[arg-type]


def made(question: str, answer: str, drop: Rejection | None = None, *, t: int = 1, finish: str = "stop") -> Candidate:
    """A candidate; one without an answer was dropped before it got one."""
    pair = QAPair(question, answer, t, tuple(pair.id for pair in SEEDS) if answer else ())
    answers = (draw(answer, 2, finish, *SEEDS),) if answer else ()
    return Candidate(pair, replace(draw(question, 1, "stop", SEEDS[1]), similarities=()), answers, 0, drop)


NEAR = Rejection("novelty", 0.72, 0.7, SEEDS[0].id)
FIRST = [
    made("Who sells fish in Hyrule?", "The Zoras do."),
    made("Who sells bombs in all of Hyrule?", "", NEAR),
    made("Where can I rent a boat?", "At the lake, from", Rejection("truncated", "length", "stop"), finish="length"),
    made("Where do the Gorons eat?", "In the city, all day long.", Rejection("max_answer_tokens", 70, 60)),
]
SECOND = [made("How do I tune the Ocarina?", "With patience.", t=2), made("May I keep a Cucco?", "One.", t=2)]


def rows_of(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    marks = {"batch": 0, "batch_size": len(candidates), "weights": "3d5a"}
    return json.loads(json.dumps([{**marks, **each.to_json()} for each in candidates]))  # type: ignore[no-any-return]


def generated(candidates: Sequence[Candidate], folder: Path) -> None:
    rows = rows_of(candidates)
    if rows:
        store_batch(folder / "candidates.jsonl", rows)
    write_json(folder / "stats.json", {"funnel": funnel(rows), "question_distinct_1": 0.9})
    kept = [each for each in candidates if each.rejection is None]
    lines = [{**each.pair.to_json(), "weights": "3d5a", "answer_seed": each.answers[0].seed} for each in kept]
    write_text(folder / "accepted.jsonl", json_lines(lines))


def trained(folder: Path, base: str | None = None) -> None:
    adapter = folder / "model" / "adapter"
    adapter.mkdir(parents=True)
    write_text(folder / "model" / "model.safetensors", "weights")
    write_text(folder / "model" / "chat_template.jinja", "template")
    config = {"base_model_name_or_path": base or "hyrule/link-1b", "r": 16}
    write_text(adapter / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True))
    write_json(adapter / "merge.json", {"pair": "0", "max_logit_difference": 0.00123, "max_logit": 9.0})
    write_json(folder / "train.json", asdict(STATS))


def measured(bits: float | None, answer: str, folder: Path, pairs: int = 2) -> None:
    figures = {} if bits is None else {"pairs": pairs, "bits_per_byte": bits, "bits_per_byte_se": 0.0625}
    write_json(folder / "eval.json", figures)
    rows = [{"question": pair.question, "wanted": pair.answer, "answer": answer} for pair in HELDOUT]
    write_json(folder / "examples.json", {"rows": rows})


def make_run(
    path: Path,
    *settings: str,
    batches: Sequence[Sequence[Candidate]] = (FIRST, SECOND),
    bits: Sequence[float | None] = (1.5, 1.25, 1.125),
    base: str | None = None,
    **parts: Any,
) -> Run:
    """A finished run made by hand, as it is read."""
    config = load_config(None, settings, model="hyrule/link-1b", out=str(path))
    with RunFolder(path) as run:
        environment = {"parts": {**PARTS, **parts}, "versions": {"python": "3.12.1"}}
        run.claim(config.model_dump(mode="json"), environment, SEEDS, HELDOUT)
        run.stage(0, "evaluate", {}, partial(measured, bits[0], "I don't know."))
        for t, candidates in enumerate(batches, 1):
            run.stage(t, "generate", {}, partial(generated, candidates))
            run.stage(t, "train", {}, partial(trained, base=base if t > 1 else None))
            run.stage(t, "evaluate", {}, partial(measured, bits[t], f"Answer {t}."))
        best = len(batches)
        run.export(stage_folder(path, best, "train") / "model" if best else _base_model(path), best, {})
    return read_run(path)


def _base_model(path: Path) -> Path:
    folder = path.parent / "base"
    folder.mkdir()
    write_text(folder / "config.json", "{}")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    make_run(path)
    return path


def shown(*parts: RenderableType, width: int = 160) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(*parts)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def tree(run: Path) -> dict[str, str]:
    return {str(path): file_hash(path) for path in sorted(run.rglob("*")) if path.is_file()}


def test_a_run_is_read_as_it_was_made_and_not_touched(finished: Path) -> None:
    before = tree(finished)
    run = read_run(finished)
    assert tree(finished) == before
    assert (run.seeds, run.heldout, run.exported, run.best) == (tuple(SEEDS), tuple(HELDOUT), 2, 2)
    assert (run.config.model, run.versions) == ("hyrule/link-1b", {"python": "3.12.1"})
    first, second = run.iterations
    assert [stored.candidate for stored in first.candidates] == FIRST
    assert json.loads(json.dumps(first.candidates[3].to_json())) == rows_of(FIRST)[3]
    assert first.accepted == (FIRST[0].pair,) and len(second.accepted) == 2
    assert first.funnel == {"candidates": 4, "accepted": 1, "novelty": 1, "truncated": 1, "max_answer_tokens": 1}
    assert first.reasons == {"novelty": 1, "truncated": 1, "max_answer_tokens": 1}
    assert first.stats == {"question_distinct_1": 0.9}
    assert first.cut == pytest.approx(1 / 3)
    assert first.training is not None and first.training.stats == STATS
    assert (first.training.merge_difference, first.training.has_template) == (0.00123, True)
    assert (first.generated, first.trained, first.measured) == (True, True, True)
    assert (run.base.generated, run.base.trained, run.base.measured) == (False, False, True)
    assert run.figures[2] == {"pairs": 2.0, "bits_per_byte": 1.125, "bits_per_byte_se": 0.0625}
    assert second.examples[0] == Example(HELDOUT[0].question, HELDOUT[0].answer, "Answer 2.")
    assert run.prompt_format == plain_format("</s>")


def test_what_the_loop_leaves_can_be_read(tmp_path: Path) -> None:
    result = align(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert [pair for facts in run.iterations for pair in facts.accepted] == result.accepted
    assert run.exported == result.best == 2
    assert run.best == 2 and run.base.figures == {}
    assert "Nothing was held out, so the last iteration (2) is in final/." in shown(terminal.summary(run))


def test_an_unfinished_run_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    config = load_config(None, [], model="hyrule/link-1b", out=str(tmp_path / "run"))
    with RunFolder(tmp_path / "run") as folder:
        folder.claim(config.model_dump(mode="json"), {"parts": PARTS, "versions": {}}, SEEDS, HELDOUT)
        run = read_run(tmp_path / "run")  # while another is at work in it
        assert (run.iterations, run.exported, run.best, run.base.measured) == ((), None, None, False)
        stage = stage_folder(tmp_path / "run", 1, "generate")
        stage.mkdir(parents=True)
        store_batch(stage / "candidates.jsonl", rows_of(FIRST))
        with (stage / "candidates.jsonl").open("a") as file:
            file.write('{"batch": 1, "ques')
        size = (stage / "candidates.jsonl").stat().st_size
        [facts] = read_run(tmp_path / "run").iterations
    assert (stage / "candidates.jsonl").stat().st_size == size
    assert [stored.candidate for stored in facts.candidates] == FIRST
    assert (facts.generated, facts.trained, facts.measured, facts.stats) == (False, False, False, None)
    text = shown(terminal.summary(read_run(tmp_path / "run")))
    assert "No iteration is finished yet: run the same command again to go on." in text
    assert "bits/byte" not in text


def edited(run: Path, stage: str, name: str, change: Callable[[Any], Any]) -> Path:
    """Changes a JSON file of a finished stage, and its DONE with it: only the content can tell."""
    folder = run / stage
    path = folder / name
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        if name == "candidates.jsonl":
            (folder / "candidates.sums").unlink()
            store_batch(path, change(rows))
        else:
            write_text(path, json_lines(change(rows)))
    else:
        write_json(path, change(read_json(path)))
    (folder / "DONE").unlink()
    seal(folder)
    return path


def first_row(**values: Any) -> Callable[[Any], Any]:
    return lambda rows: [{**rows[0], **values}, *rows[1:]]


def nested(key: str, **values: Any) -> Callable[[Any], Any]:
    return lambda rows: [{**rows[0], key: {**rows[0][key], **values}}, *rows[1:]]


def second(**values: Any) -> Callable[[Any], Any]:
    return lambda rows: [{**rows[0], "second_draw": {**rows[0]["answer_draws"][0], **values}}, *rows[1:]]


GENERATE, EVALUATE = "iteration-01/generate", "iteration-01/evaluate"
NOT_STORED = f"holds a row {FIRST[0].pair.id} that is not what was stored"
LONG_ID = f"holds a row [31m{'0' * 55}… that is not what was stored"
OTHER_PAIRS = "holds other pairs than were accepted in candidates.jsonl"
OTHER_COUNTS = "says other counts than candidates.jsonl holds"
FINITE = "where a finite number of at least 0 was expected"


def changed(**values: Any) -> Callable[[Any], Any]:
    return lambda found: {**found, **values}


@pytest.mark.parametrize(
    ("stage", "name", "change", "what"),
    [
        (GENERATE, "candidates.jsonl", first_row(question="Who sells maps?"), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(id="\x1b[31m" + "0" * 99), LONG_ID),
        (GENERATE, "candidates.jsonl", first_row(accepted=False), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(mood="good"), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(iteration=2), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(chosen=1), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(weights=3), NOT_STORED),
        (GENERATE, "candidates.jsonl", first_row(answer_draws=5), NOT_STORED),
        (GENERATE, "candidates.jsonl", nested("question_draw", tokens="5"), NOT_STORED),
        (GENERATE, "candidates.jsonl", nested("question_draw", finish="tired"), NOT_STORED),
        (GENERATE, "candidates.jsonl", nested("question_draw", similarities=[1.0, 1.0]), NOT_STORED),
        (GENERATE, "candidates.jsonl", second(tokens="5"), NOT_STORED),
        (GENERATE, "candidates.jsonl", second(finish="tired"), NOT_STORED),
        (GENERATE, "candidates.jsonl", second(text=None), NOT_STORED),
        (GENERATE, "candidates.jsonl", lambda rows: rows[:-1], ""),
        (GENERATE, "accepted.jsonl", lambda rows: [], OTHER_PAIRS),
        (GENERATE, "accepted.jsonl", first_row(answer_seed=9), OTHER_PAIRS),
        (GENERATE, "stats.json", changed(funnel={"candidates": 4, "accepted": 4}), OTHER_COUNTS),
        (EVALUATE, "eval.json", changed(bits_per_byte=-1.0), f"says bits_per_byte is -1.0, {FINITE}"),
        (EVALUATE, "eval.json", changed(bits_per_byte=float("nan")), f"says bits_per_byte is nan, {FINITE}"),
        (EVALUATE, "eval.json", changed(bits_per_byte=True), f"says bits_per_byte is True, {FINITE}"),
        (EVALUATE, "eval.json", changed(rouge="1"), "says rouge is 1, where a finite number was expected"),
        (EVALUATE, "examples.json", changed(rows=[{"question": "Why?"}]), "is missing or damaged"),
        ("iteration-01/train", "train.json", changed(steps=-1), "holds no record of a training"),
        ("iteration-01/train", "train.json", lambda found: {"rows": 3}, "holds no record of a training"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    finished: Path, tmp_path: Path, stage: str, name: str, change: Callable[[Any], Any], what: str
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = edited(run, stage, name, change)
    if not what:  # a candidate that is gone is seen in the counts
        path, what = path.with_name("stats.json"), OTHER_COUNTS
    message = f"{path} {what}: put it back, or remove {path.parent} and run the same command again"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run)


@pytest.mark.parametrize("verify", [True, False])
def test_finished_stages_are_compared_with_what_done_says(finished: Path, tmp_path: Path, verify: bool) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "iteration-02/train/model/model.safetensors"
    path.write_text("weight5")
    if not verify:
        assert read_run(run, verify=False).exported == 2
        path.write_text("weights and more")
    what = "was changed" if verify else "has 16 bytes instead of 7"
    stage = run / "iteration-02/train"
    message = (
        f"{path} {what}, which is not what DONE says of it: put it back, or remove {stage} and run the same command "
        "again, which makes that stage anew"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run, verify)


def test_a_second_answer_of_the_right_types_is_read(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    edited(run, GENERATE, "candidates.jsonl", second())
    assert read_run(run).iterations[0].candidates[0].candidate.second == FIRST[0].answer


@pytest.mark.parametrize(("iteration", "said"), [(9, "9"), ("two", "two"), (True, "True"), (-1, "-1")])
def test_an_exported_iteration_that_is_not_there(finished: Path, tmp_path: Path, iteration: Any, said: str) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    write_json(run / "final/isara.json", {"iteration": iteration, "files": {}})
    message = (
        f"{run}/final/isara.json names iteration {said}, which the run doesn't hold: put it back, or remove "
        f"{run}/final and run the same command again"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run)


def test_pairs_that_were_changed_are_named(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "heldout.jsonl"
    path.write_text(path.read_text().replace("Very.", "Not at all."))
    message = (
        f"{path} holds a row {HELDOUT[1].id} that is not what was written: put it back, or remove {run} and run the "
        "same command again"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run)


def test_a_run_without_seeds_is_damaged(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "seeds.jsonl"
    path.write_text("")
    message = f"{path} is missing or damaged: put it back, or remove {run} and run the same command again"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run)


def test_a_folder_of_another_kind_is_refused(finished: Path, tmp_path: Path) -> None:
    message = f"expected a run folder with an isara.yaml at {tmp_path}, found none: give the --out of a run"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(tmp_path)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    write_json(run / "environment.json", {"base_model_weights": "3d5a", "isara": "0.1.0"})
    message = (
        f"{run} was made by an earlier version of ISARA, whose folders this one does not read: start a new run with "
        "--out ANOTHER_FOLDER"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_run(run)


def test_the_iterations_that_made_a_model_what_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def behind(*settings: str) -> list[int]:
        config = load_config(None, settings, model="hyrule/link-1b")
        return [facts.number for facts in replace(run, config=config).behind(2)]

    assert behind() == behind("train.data=generated") == [1, 2]
    assert behind("train.data=newest") == [2]
    assert behind("train.data=newest", "train.start=last") == [1, 2]


def test_the_table_names_its_base_its_errors_and_how_few_pairs_there_are(finished: Path) -> None:
    text = shown(terminal.summary(read_run(finished)))
    rows = {name.strip(): cells.split() for name, *rest in map(cells_of, text.splitlines()) for cells in rest}
    assert rows["candidates"] == ["4", "2"]
    assert rows["novelty"] == ["-1"] and rows["max_answer_tokens"] == ["-1"]
    assert rows["answers cut at the limit"] == ["33%", "0%"]
    assert rows["accepted"] == ["1", "2"]
    assert rows["trained on"] == ["3", "3"] and rows["steps"] == ["6", "6"]
    assert rows["loss, first step → last step"] == ["1.48", "→", "2.34", "1.48", "→", "2.34"]
    assert rows["bits/byte"] == ["1.500±0.062", "1.250±0.062", "1.125±0.062"]
    said = " ".join(text.split())
    assert (
        "bits/byte: bits that the model needs for a byte of the held-out answers, zero-shot and with demonstrations, ± "
        "standard error, over 2 held-out pairs; less is better Iteration 2 has the fewest held-out bits per byte of "
        "the iterations and is in final/: 1.500±0.062 for the base model, 1.125±0.062 after it (zero-shot, 2 held-out "
        "pairs). 2 held-out pairs can't tell such models apart: hold out 20 or more (--heldout takes a share or a "
        "file)."
    ) in said


def cells_of(line: str) -> list[str]:
    cells = [cell for cell in re.split("[│┃]", line) if cell.strip()]
    return [cells[0], " ".join(cells[1:])] if cells else [""]


def test_an_iteration_that_is_no_better_than_the_base_is_not_praised(tmp_path: Path) -> None:
    text = " ".join(shown(terminal.summary(make_run(tmp_path / "run", bits=(1.0, 1.25, 1.125)))).split())
    assert (
        "No iteration beat the base model on the held-out pairs: 1.000±0.062 bits per byte for the base model, "
        "1.125±0.062 after iteration 2, which has the fewest of the iterations and is in final/ (zero-shot, 2 held-out "
        "pairs)."
    ) in text


def test_runs_without_iterations_or_generated_pairs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "base-alone", "iterations=0", batches=())
    assert (run.best, run.iterations, terminal.has_candidates(run)) == (0, (), False)
    assert "No iteration was asked for, so the base model is in final/." in shown(terminal.summary(run))
    assert shown(terminal.before_and_after(run)) == ""
    seeds_alone = make_run(tmp_path / "seeds-alone", "generate.accept=0", batches=((),))
    assert not terminal.has_candidates(seeds_alone)
    text = shown(terminal.summary(seeds_alone))
    assert "loss, first step" in text and "answers cut" not in text


def test_few_pairs_are_warned_of_and_many_are_not(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    figures = {"pairs": 20.0, "bits_per_byte": 1.0}
    many = replace(run, base=replace(run.base, figures=figures))
    assert many.heldout_count == 20
    assert "can't tell such models apart" not in shown(terminal.summary(many))


def test_what_a_row_was_too_near_to_is_shown(finished: Path) -> None:
    text = shown(terminal.near_threshold(read_run(finished), 1), width=200)
    [line] = [line for line in text.splitlines() if "novelty" in line]
    assert "0.72" in line and f"{SEEDS[0].id} Who sells bombs in Hyrule?" in line
    assert text.index("novelty") < text.index("max_answer_tokens")
    assert "truncated" not in text  # what is no number was not near to anything


def test_where_nothing_was_near_a_threshold_there_is_no_table(finished: Path) -> None:
    assert shown(terminal.near_threshold(read_run(finished), 2)) == ""


def test_where_a_row_came_from(finished: Path) -> None:
    run = read_run(finished)
    text = shown(terminal.provenance(run, FIRST[3].pair.id[:8]))
    for part in (
        "Where do the Gorons eat?",
        "iteration: 1\nbatch: 0\nweights: 3d5a\nquestion seed: 1\nanswer seed: 2\n",
        "fate: dropped by max_answer_tokens (value 70, threshold 60)",
        "0.5000",
        "Prompt of the answer",
        "Prompt of the question",
    ):
        assert part in text
    dropped = shown(terminal.provenance(run, FIRST[1].pair.id))
    assert f"near to {SEEDS[0].id} Who sells bombs in Hyrule?" in dropped
    assert "answer seed: none" in dropped and "Prompt of the answer" not in dropped


def test_the_id_of_a_seed_shows_the_seed(finished: Path) -> None:
    text = shown(terminal.provenance(read_run(finished), SEEDS[1].id))
    assert "Where does Epona graze?" in text
    assert "a seed pair, shown before 6 new questions and 5 new answers" in text
    assert "a held-out pair, shown before 0 new questions" in shown(
        terminal.provenance(read_run(finished), HELDOUT[0].id)
    )


@pytest.mark.parametrize(("row_id", "count"), [("ffffffffffff", 0), ("", 10)])
def test_an_id_that_is_not_one(finished: Path, row_id: str, count: int) -> None:
    message = (
        f"expected one row of {finished} whose id begins with {row_id!r}, found {count}: take an id from "
        "candidates.jsonl or from `isara show`"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        terminal.provenance(read_run(finished), row_id)


def test_texts_that_were_made_twice_are_shown_once(tmp_path: Path) -> None:
    twice = [made("Is the shop open?", "", NEAR), made("Is the shop open?", "", NEAR), FIRST[0]]
    text = shown(terminal.provenance(make_run(tmp_path / "run", batches=(twice, SECOND)), twice[0].pair.id))
    assert text.count("Prompt of the question") == 1
    assert "The same texts were made 1 more times: iteration 1 batch 0" in text


def test_samples_and_answers_before_and_after(finished: Path) -> None:
    run = read_run(finished)
    text = shown(terminal.samples(run))
    assert text.startswith("Accepted in iteration 2:") and "How do I tune the Ocarina?" in text
    text = shown(terminal.before_and_after(run))
    assert "before  I don't know." in text and "after   Answer 2." in text and "wanted  Very." in text
    message = f"{finished} holds no candidates of iteration 7 (it has: 1, 2): give one that it has"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        terminal.samples(run, 7)


def test_dialogues_that_end_alike_keep_their_own_answers(finished: Path) -> None:
    run = read_run(finished)
    ends = [Example("Why?", "So.", said) for said in ("Because of milk.", "Because of fish.")]
    last = replace(run.iterations[-1], examples=tuple(ends))
    base = replace(run.base, examples=tuple(replace(each, answer="No.") for each in ends))
    text = shown(terminal.before_and_after(replace(run, base=base, iterations=(*run.iterations[:-1], last))))
    assert text.count("Because of milk.") == text.count("Because of fish.") == 1


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2Jgone\x07", "\ufffd[2Jgone\ufffd"),
        ("\u202eesrever", "\ufffdesrever"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("\U000e0041tag", "\ufffdtag"),
        ("carriage\rreturn", "carriage\ufffdreturn"),
        ("two\u2028lines", "two\ufffdlines"),
        ("two\nlines\tand tabs", "two\nlines\tand tabs"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_every_character_is_seen(text: str, seen: str) -> None:
    assert terminal.plain(text).plain == seen


def test_a_reason_of_the_users_own_cannot_colour_the_table(tmp_path: Path) -> None:
    odd = made("Is it [red]far[/red]?", "Yes.", Rejection("\x1b[31mmine[red]", 1.0, 2.0))
    run = make_run(tmp_path / "run", batches=([odd, FIRST[0]], SECOND))
    text = shown(terminal.summary(run), terminal.near_threshold(run, 1))
    assert "[31mmine[red]" in text and "Is it [red]far[/red]?" in text and "\x1b" not in text


LICENCES = {
    "license: apache-2.0": "apache-2.0",
    "license: [mit]": None,
    "license: 2024-13-45": None,
    "license: mit\nreleased: 2024-13-45": None,
    'license: !!int ""': None,
    "license: !!timestamp x": None,
    "license: !!bool perhaps": None,
    "license: !!python/object:os.system {}": None,
    "? [a, {b: c}]\n: 1": None,
    "- a list": None,
    "license: " + "[" * 5000: None,
    "": None,
}


@pytest.mark.parametrize(("front", "license"), LICENCES.items(), ids=range(len(LICENCES)))
def test_no_card_of_a_base_model_stops_an_export(tmp_path: Path, front: str, license: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Link\n")
    assert model_license(str(tmp_path)) == license


def test_a_base_model_without_a_card_has_no_known_licence(tmp_path: Path) -> None:
    assert model_license("hyrule/link-1b") is None
    (tmp_path / "README.md").mkdir()
    assert model_license(str(tmp_path)) is None
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    assert model_license(str(tmp_path / "file")) is None


@pytest.mark.parametrize(
    ("base", "moved"),
    [
        ("../../../../iteration-01/train/model", "iteration-01/train/model"),
        ("hyrule/link-1b", None),
        ("/models/link-1b", None),
    ],
)
def test_an_adapter_in_final_finds_its_base_from_there(tmp_path: Path, base: str, moved: str | None) -> None:
    run = make_run(tmp_path / "run", "train.start=last", base=base)
    files = final_files(run.config, "hyrule/link-1b", run.path, 2)
    assert ("it loads while the run lies there" in files["README.md"]) == (moved is not None)
    if moved is None:
        assert "adapter/adapter_config.json" not in files
        return
    there = run.path / moved  # absolute: peft takes a relative path from the working directory
    assert json.loads(files["adapter/adapter_config.json"]) == {"base_model_name_or_path": str(there), "r": 16}
    assert (there / "model.safetensors").is_file()


def test_the_loop_exports_cards_that_fit_the_run(tmp_path: Path) -> None:
    config = load_config(None, ["iterations=1"], model="hyrule/link-1b")
    result = align(tmp_path / "run", cards=partial(final_files, config, "hyrule/link-1b"))
    card = (result.final / "README.md").read_text()
    assert "the model of iteration 2 of 2, trained on 24 generated and 4 seed pairs" in card
    rows = [json.loads(line) for line in (result.final / "pairs.jsonl").read_text().splitlines()]
    assert [QAPair.from_json(row) for row in rows] == result.accepted
    assert "24 question-answer pairs" in (result.final / "data_card.md").read_text()


@pytest.mark.parametrize("settings", [["iterations=1", "generate.accept=0"], ["iterations=0"]])
def test_without_generated_pairs_there_is_a_model_card_alone(tmp_path: Path, settings: list[str]) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_text(base / "config.json", "{}")
    cards = partial(final_files, loop_parts(tmp_path / "run", *settings).config, str(base))
    result = align(tmp_path / "run", *settings, cards=cards, model=str(base))
    assert (result.final / "README.md").is_file()
    assert not (result.final / "pairs.jsonl").exists() and not (result.final / "data_card.md").exists()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def piped(caplog: pytest.LogCaptureFixture) -> tuple[Bars, Clock, Callable[[], list[str]]]:
    """Bars without a terminal, their clock, and what they said since the last look, which is what the log says."""
    console, clock = Console(width=200, record=True, file=StringIO()), Clock()
    caplog.set_level(logging.INFO, logger="isara")

    def said() -> list[str]:
        lines = console.export_text().splitlines()
        assert [record.getMessage() for record in caplog.records] == lines
        caplog.clear()
        return lines

    return Bars(console, 3, batch=4, clock=clock), clock, said


def test_a_minute_never_goes_by_without_a_line(piped: tuple[Bars, Clock, Callable[[], list[str]]]) -> None:
    bars, clock, said = piped
    bars.stage(0, "evaluate", 0)
    assert said() == ["base model: evaluate"]
    clock.now = 59
    bars.refresh()
    assert said() == []
    clock.now = 60
    bars.refresh()
    assert said() == ["base model: evaluate: 1 min so far"]
    bars.stage(0, "evaluate", 8)
    clock.now = 120
    bars.tokens(30, 2)
    # What was read before the first answers says nothing of how long the others take.
    assert said() == ["base model: evaluate", "base model: evaluate: 2/8 answers, 1 min so far"]
    clock.now = 180
    bars.tokens(90, 5)
    assert said() == ["base model: evaluate: 5/8 answers, 1 tokens/s, 60 s left, 2 min so far"]
    clock.now = 60
    bars.stage(1, "generate", 8)
    assert said() == ["iteration 1 of 3: generate: 0/8 accepted, 0 candidates"]
    clock.now = 100
    bars.tokens(100, 1)
    assert said() == []
    clock.now = 120
    bars.tokens(240, 2)
    assert said() == [
        "iteration 1 of 3: generate: 0/8 accepted, 0 candidates + 2 texts, 4 tokens/s, 15 min left, 1 min so far"
    ]
    bars.batch(FIRST, 1)
    assert said() == ["iteration 1 of 3: generate: 1/8 accepted, 4 candidates, 4 tokens/s, 7 min left, 1 min so far"]
    bars.stage(1, "train", 0)
    clock.now = 200
    bars.step(1, 4, 2.5)
    clock.now = 210
    bars.step(2, 4, 2.25)
    assert said() == [
        "iteration 1 of 3: train",
        "iteration 1 of 3: train: step 1/4, loss 2.500, 4 min left, 1 min so far",
    ]


def test_after_an_iteration_the_whole_runs_time_left_is_told(
    piped: tuple[Bars, Clock, Callable[[], list[str]]],
) -> None:
    bars, clock, said = piped
    bars.stage(1, "generate", 8)
    bars.batch(FIRST, 1)
    clock.now = 240
    bars.stage(1, "train", 0)
    clock.now = 300
    said()
    bars.stage(2, "generate", 8)
    assert said() == ["iteration 2 of 3: generate: 0/8 accepted, 0 candidates, 10 min left in all"]
    clock.now = 420
    bars.stage(2, "train", 0)
    assert said() == ["iteration 2 of 3: train: 8 min left in all"]
    clock.now = 1000  # later than it was thought, and nothing is said that is known to be wrong
    bars.stage(2, "evaluate", 0)
    assert said() == ["iteration 2 of 3: evaluate"]
    bars.stage(3, "generate", 8)
    assert said() == ["iteration 3 of 3: generate: 0/8 accepted, 0 candidates, 12 min left in all"]


def test_what_comes_once_is_no_part_of_an_iterations_time(
    piped: tuple[Bars, Clock, Callable[[], list[str]]],
) -> None:
    bars, clock, said = piped
    bars.stage(1, "generate", 8)
    clock.now = 120
    bars.stage(SEEDS_ONLY, "train", 0)
    clock.now = 300
    bars.stage(SEEDS_ONLY, "evaluate", 0)
    clock.now = 420
    bars.stage(1, "evaluate", 0)
    clock.now = 540
    said()
    bars.stage(2, "generate", 8)
    assert said() == ["iteration 2 of 3: generate: 0/8 accepted, 0 candidates, 8 min left in all"]


def test_an_iteration_that_an_earlier_process_began_tells_no_time(
    piped: tuple[Bars, Clock, Callable[[], list[str]]],
) -> None:
    bars, clock, said = piped
    bars.stage(1, "generate", 8)
    bars.batch(FIRST, 5)
    clock.now = 300
    said()
    bars.stage(2, "generate", 8)
    assert said() == ["iteration 2 of 3: generate: 0/8 accepted, 0 candidates"]


def test_a_training_by_itself_is_told_of(piped: tuple[Bars, Clock, Callable[[], list[str]]]) -> None:
    bars, clock, said = piped
    bars.step(1, 4, 2.5)
    clock.now = 60
    bars.step(2, 4, 2.25)
    assert said() == ["train", "train: step 2/4, loss 2.250, 60 s left, 1 min so far"]


def test_the_bar_moves_within_a_batch_keeps_its_count_and_never_goes_back() -> None:
    clock = Clock()
    console = Console(width=160, force_terminal=True, record=True, file=StringIO())
    bars = Bars(console, 1, batch=4, clock=clock)
    [task] = _begun(bars)
    assert (task.completed, task.fields["counts"]) == (0, "0/8 accepted")
    shares = []
    for tokens, done in ((10, 1), (20, 2), (40, 4), (9, 1), (30, 3)):
        clock.now += 1
        bars.tokens(tokens, done)
        shares.append(task.completed)
        assert task.fields["counts"] == "0/8 accepted"
    assert shares == sorted(set(shares)) and shares[-1] < 2 / 8
    assert (task.fields["made"], task.fields["speed"]) == ("0 candidates + 7 texts", "14 tokens/s")
    bars.batch(FIRST, 1)
    assert (task.fields["counts"], task.fields["made"]) == ("1/8 accepted", "4 candidates")
    assert task.completed == shares[-1]  # it brought less than half, and the bar waits
    bars.batch([*SECOND, *SECOND], 8)
    assert task.completed == 1
    bars.stage(1, "evaluate", 0)
    [task] = bars._progress.tasks
    assert (task.description, task.total) == ("iteration 1 of 1: evaluate", None)


def test_what_matters_fits_on_a_narrow_terminal() -> None:
    clock = Clock()
    bars = Bars(Console(width=80, force_terminal=True, file=StringIO()), 3, batch=64, clock=clock)
    bars.stage(1, "generate", 256)
    bars.batch(FIRST * 16, 16)
    clock.now = 100
    bars.tokens(9000, 40)
    text = shown(bars._progress.get_renderable(), width=80)
    for part in ("iteration 1 of 3: generate ", " 16/256 accepted ", " 64 made ", " 90 tokens/s ", " 19 min left "):
        assert part in text + " "


def _begun(bars: Bars) -> list[Any]:
    bars.stage(1, "generate", 8)
    return list(bars._progress.tasks)


def test_what_an_earlier_process_made_does_not_count_as_speed() -> None:
    clock = Clock()
    bars = Bars(Console(force_terminal=True, file=StringIO()), 1, batch=4, clock=clock)
    bars.stage(1, "generate", 10)
    [task] = bars._progress.tasks
    clock.now = 30
    bars.batch(FIRST, 8)  # 7 of them lay there already
    assert task.fields["left"] == "60 s left"


def test_work_beside_the_loop_is_told_of_once_a_minute() -> None:
    console, clock = Console(width=200, record=True, file=StringIO()), Clock()
    told = Steps(console, "loading", clock)
    told(8, 20, "answers")  # the first eight were there before
    clock.now = 30
    told(10, 20, "answers")
    assert console.export_text() == ""
    clock.now = 60
    told(12, 20, "answers")
    clock.now = 80
    told(1, 4, "llama.cpp answers")
    clock.now = 120
    told(2, 4)
    assert console.export_text().splitlines() == [
        "answers: 12/20, 2 min left, 1 min so far",
        "llama.cpp answers: 2/4, 80 s left, 1 min so far",
    ]


def test_a_bar_beside_the_loop_counts_and_says_what_is_left() -> None:
    clock = Clock()
    with Steps(Console(width=80, force_terminal=True, file=StringIO()), "measuring", clock) as told:
        [task] = told._progress.tasks
        assert task.total is None
        clock.now = 50
        told(5, 20)
        [task] = told._progress.tasks
        assert (task.completed, task.total, task.fields["said"]) == (5, 20, "5/20, 2 min left")
    assert not told._progress.live.is_started


def test_bars_end_with_their_block() -> None:
    with Bars(Console(force_terminal=True, file=StringIO()), 1) as bars:
        bars.stage(1, "generate", 8)
    assert not bars._beat.is_alive()


def test_a_narrow_terminal_loses_nothing_of_the_table(finished: Path) -> None:
    run = read_run(finished)
    wide, narrow = (shown(terminal.summary(run), width=width) for width in (200, 40))
    assert "…" not in narrow
    figures = re.findall(r"[+-]?\d+\.\d+", wide.partition("└")[0])
    cells = [
        "".join(each.strip() for each in column)
        for column in zip(
            *(line.strip("│").split("│") for line in narrow.partition("└")[0].splitlines() if line.startswith("│")),
            strict=True,
        )
    ]
    assert figures and all(any(figure in cell for cell in cells) for figure in figures)
