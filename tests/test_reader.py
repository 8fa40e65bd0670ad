"""The reader: the base model, tuned on the seeds to read demonstrations, answers in the place of the last model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isara.build import build_parts
from isara.config import load_config
from isara.errors import ConfigError, RunError
from isara.evaluate.verdict import Verdict, judge, sentence
from isara.folder import stage_folder
from isara.loop import generate_pairs, run
from isara.parts import Parts
from isara.records import READER, SEEDS_ONLY, GivenAnswer, HeldoutRow, QAPair, TrainStats
from isara.report import terminal
from isara.report.facts import read_run
from isara.report.page.content import content
from isara.report.publish import final_files
from isara.testing import HashEmbedder, ScriptedEngine
from isara.training.rows import make_rows
from tests.doubles import CountingTrainer, hyrule
from tests.test_loop import Crash, align, crash_after, parts, stored, tree
from tests.test_report import shown
from tests.test_seeds_only import BITS, RIGHT, village

FROM = "answers.from=reader"


class Reading(CountingTrainer):
    """What tunes the reader: another trainer than the run's, by its key."""

    def key(self) -> dict[str, str]:
        return {"kind": "reading"}


def test_the_reader_is_trained_once_on_the_seeds_and_answers_in_every_iteration(tmp_path: Path) -> None:
    reading, engines = Reading(), dict[str, ScriptedEngine]()

    def watched(model: str) -> ScriptedEngine:
        return engines.setdefault(model.removeprefix(f"{tmp_path}/run/"), hyrule(model))

    align(tmp_path / "run", FROM, reader=reading, engine=watched, heldout=(), evaluator=None)
    assert reading.calls == [(4, "base/model")]
    asked = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Question:")}
    replied = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Answer:")}
    assert asked == {"base/model", "iteration-01/train/model"} and replied == {"reader/train/model"}
    key = json.loads((tmp_path / "run/iteration-01/generate/key.json").read_text())
    row = stored(tmp_path / "run", 1)[0]
    assert key["weights"] == row["weights"] != key["question weights"] == row["question_weights"]


def test_questions_and_filters_are_as_without_a_reader(tmp_path: Path) -> None:
    plain, own = tmp_path / "plain", tmp_path / "own"
    align(plain, "iterations=1")
    align(own, "iterations=1", FROM, reader=Reading())
    asked = [[row["question_draw"]["text"] for row in stored(path, 1)] for path in (plain, own)]
    shared = min(map(len, asked))
    assert asked[0][:shared] == asked[1][:shared]
    answers = [[row["answer"] for row in stored(path, 1)] for path in (plain, own)]
    assert answers[0][:shared] != answers[1][:shared]


@pytest.mark.parametrize("calls", [3, 25, 60])
def test_a_run_with_a_reader_that_crashed_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path, calls: int) -> None:
    align(tmp_path / "whole", FROM, "questions.from=base", reader=Reading())
    with pytest.raises(Crash):
        align(tmp_path / "run", FROM, "questions.from=base", reader=Reading(), engine=crash_after(calls))
    align(tmp_path / "run", FROM, "questions.from=base", reader=Reading())
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_generation_alone_has_the_reader_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    first, then = Reading(), Reading()
    made = parts(tmp_path / "run", FROM, reader=first)
    generate_pairs(made)
    run(replace(made, reader=then))
    assert first.calls and not then.calls


def test_the_reader_of_runs_sees_its_training(tmp_path: Path) -> None:
    align(tmp_path / "run", FROM, reader=Reading())
    found = read_run(tmp_path / "run").reader
    assert found is not None and found.training is not None and found.training.stats.rows == 4
    align(tmp_path / "other")
    assert read_run(tmp_path / "other").reader is None
    assert not stage_folder(tmp_path / "other", READER, "train").exists()


def reading(out: Path, bits: float, *settings: str) -> Parts:
    """A run whose reader finds the held-out answers so dear; the last iteration's model takes 1 bit a word."""
    return village_with_reader(out, {**BITS, "reader": bits}, *settings)


def village_with_reader(out: Path, bits: dict[str, float], *settings: str) -> Parts:
    made = village(out, FROM, "evaluate.reader=true", *settings, bits=bits, right={**RIGHT, "reader": 1.0})
    return replace(made, reader=Reading())


@pytest.mark.parametrize(
    ("bits", "begins", "ends"),
    [
        (0.2, "Iteration 2 is the best without pairs before the question", "the reader is better: "),
        (5.0, "Iteration 2 is the best, by bits per byte", " (95 % intervals of paired differences)."),
    ],
)
def test_a_run_measures_its_reader_after_demonstrations(tmp_path: Path, bits: float, begins: str, ends: str) -> None:
    made = reading(tmp_path / "run", bits)
    result = run(made)
    assert result.best == 2 and result.verdict is not None and result.verdict.helped
    said = sentence(result.verdict)
    assert said.startswith(begins) and ends in said and "over the reader after demonstrations" in said
    assert result.evaluations[READER].keys() == {"pairs", "bits_per_byte_demos", "bits_per_byte_demos_se"}
    assert result.evaluations[READER]["bits_per_byte_demos"] == pytest.approx(
        result.evaluations[2]["bits_per_byte"] * bits / BITS["iteration-02"]
    )
    found = read_run(tmp_path / "run")
    heads = shown(terminal.summary(found)).splitlines()[2].split("┃")[1:-1]
    assert [cell.strip() for cell in heads] == ["iteration", "base", "seeds only", "reader", "1", "2"]
    assert "better than reader, demos by [95 %]" in shown(terminal.summary(found))
    card = final_files(made.config, "base/model", tmp_path / "run", result.best)["README.md"]
    assert "| reader, after demonstrations |" in card
    page = content(found, HashEmbedder())
    assert {"t": READER, "name": "reader, after demonstrations"} in page["models"]
    assert all(by["bits"] > 0 for pair in page["heldout"] for by in pair["by"] if by["t"] == READER)
    assert any(gain["rival"] == READER and len(gain["pairs"]) == 24 for gain in page["gains"])


def test_where_the_loop_does_not_help_the_reader_may_still(tmp_path: Path) -> None:
    bits = {**BITS, "seeds-only": 0.4, "reader": 0.2}
    result = run(village_with_reader(tmp_path / "run", bits))
    assert result.best == SEEDS_ONLY and result.verdict is not None
    said = sentence(result.verdict)
    assert "not shown to be better than the seeds-only model and the reader after demonstrations" in said
    assert said.endswith("the reader is better: `isara answer --model RUN --reader`.")


def scored_rows(*right: Callable[[int], bool]) -> list[list[GivenAnswer]]:
    """Answers of several models to 24 questions, right where a function of the place says so."""
    return [[GivenAnswer("a", False, 0.5, {"right": float(rule(place))}) for place in range(24)] for rule in right]


def verdict_on(ours: Callable[[int], bool], alone: Callable[[int], bool]) -> Verdict:
    """Of a run whose base model is right in 3 questions and whose reader in all."""
    base, seeds_only, iteration, reader = scored_rows(lambda place: place < 3, alone, ours, lambda _: True)
    rows = [HeldoutRow(str(place), 10, 20.0, 20.0, ("s",)) for place in range(24)]
    found = judge(
        {
            0: [replace(row, given=one, given_demos=one) for row, one in zip(rows, base, strict=True)],
            SEEDS_ONLY: [replace(row, given=one) for row, one in zip(rows, seeds_only, strict=True)],
            READER: [replace(row, given_demos=one) for row, one in zip(rows, reader, strict=True)],
            1: [replace(row, given=one) for row, one in zip(rows, iteration, strict=True)],
        },
        1,
    )
    assert found is not None
    return found


def test_a_scored_reader_is_held_against_the_iteration_by_its_answers() -> None:
    gain = verdict_on(lambda place: place < 8, lambda place: place < 8).gains[-1]
    assert (gain.over, gain.measure, gain.n, gain.worse) == ("reader", "score", 24, True)
    assert gain.mean == pytest.approx(-2 / 3)


def test_a_better_reader_alone_does_not_make_the_loop_a_failure() -> None:
    verdict = verdict_on(lambda place: place < 12, lambda place: place > 12)
    assert not verdict.helped and min(gain.mean for gain in verdict.gains[:-1]) > 0 > verdict.gains[-1].mean
    assert sentence(verdict).startswith("It is not shown that the loop helps: ")


def test_the_reader_is_measured_where_it_is_wanted(tmp_path: Path) -> None:
    for name, setting in (("off", "evaluate.reader=false"), ("none", "evaluate.demos=0")):
        result = run(reading(tmp_path / name, 0.2, setting))
        assert READER not in result.evaluations and not stage_folder(tmp_path / name, READER, "evaluate").exists()
    run(reading(tmp_path / "off", 0.2))  # and may be asked for afterwards
    run(reading(tmp_path / "whole", 0.2))
    assert tree(tmp_path / "off/reader") == tree(tmp_path / "whole/reader")


def test_no_model_is_open_while_the_reader_is_trained(tmp_path: Path) -> None:
    """What is open holds memory: all of a GPU's, where a server or vLLM has taken it."""
    opened: list[str] = []

    class Held(ScriptedEngine):
        def __enter__(self) -> "Held":
            opened.append(tmp_path.name)
            return self

        def __exit__(self, *_: object) -> None:
            opened.pop()

    class Alone(Reading):
        def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
            assert not opened
            return super().fit(pairs, start, out)

    reading, asked = Alone(), (QAPair("Who guards the spring?", "A fairy."),)  # asking that opens the base model
    align(tmp_path / "run", FROM, reader=reading, engine=lambda model: Held(hyrule(model).answer), heldout=asked)
    assert reading.calls and not opened


def seeds_file(folder: Path) -> Path:
    rows = [{"question": f"Where is the keeper of gate {n}?", "answer": f"Behind wall {n}."} for n in range(9)]
    path = folder / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def built(folder: Path, *settings: str) -> Any:
    usual = ("retrieve.embedder=lexical", "heldout=0.2", "questions.demos=2", FROM)
    return build_parts(load_config(None, [*usual, *settings], seeds=seeds_file(folder), out=folder / "run"))


def test_each_seed_is_learnt_after_its_nearest_others(tmp_path: Path) -> None:
    made = built(tmp_path, "answers.demos=2", "answers.reader_epochs=2")
    assert (made.reader.num_train_epochs, made.reader.max_steps) == (2, None)
    assert made.reader.learning_rate == made.trainer.learning_rate / 2
    rows = make_rows(made.seeds, made.renderer, 512, 10**6, made.reader.retrieve)
    for row in rows:
        prompt = made.renderer.answer([pair for pair, _ in made.reader.retrieve(row.pair)], row.pair)
        assert row.prompt == prompt.ids and prompt.text.count("Answer:") == 3
        assert row.pair.answer not in prompt.text  # never its own demonstration
    assert made.keys()["reader"] != made.keys()["trainer"]
    assert built(tmp_path, "answers.from=last").reader is None


def test_nobody_is_trained_to_make_no_pairs(tmp_path: Path) -> None:
    nothing = built(tmp_path, "generate.accept=0", "questions.from=seeds")
    assert nothing.reader is None and nothing.questioner is None
    assert built(tmp_path, "generate.accept=0", "train.loss=distil").reader is not None  # who teaches


@pytest.mark.parametrize("setting", ["answers.demos=0", "answers.retrieve=none"])
def test_a_reader_without_demonstrations_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"answers.from is reader: expected demonstrations to read"):
        built(tmp_path, setting)


def test_a_reader_that_asks_learns_the_question_too_and_asks_for_the_pairs(tmp_path: Path) -> None:
    made = built(tmp_path, "answers.demos=2", "questions.from=reader")
    rows = make_rows(made.seeds, made.renderer, 512, 10**6, made.reader.retrieve, whole_pairs=made.reader.whole_pairs)
    for row, alone in zip(rows, make_rows(made.seeds, made.renderer, 512, 10**6, made.reader.retrieve), strict=True):
        shown = [pair for pair, _ in made.reader.retrieve(row.pair)]
        assert row.prompt == made.renderer.question(shown).ids and row.ids == alone.ids
    engines = dict[str, ScriptedEngine]()

    def watched(model: str) -> ScriptedEngine:
        return engines.setdefault(model.removeprefix(f"{tmp_path}/run/"), hyrule(model))

    align(tmp_path / "run", FROM, "questions.from=reader", reader=Reading(), engine=watched)
    assert {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Question:")} == {
        "reader/train/model"
    }


def test_a_reader_asks_only_where_it_answers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"questions.from is reader: expected answers.from reader"):
        built(tmp_path, "answers.from=last", "questions.from=reader")


@pytest.mark.parametrize("calls", [None, 25])
def test_who_learnt_the_seeds_asks_and_the_last_model_answers(tmp_path: Path, calls: int | None) -> None:
    asking, engines, settings = Reading(), dict[str, ScriptedEngine](), "questions.from=seeds"
    if calls:
        with pytest.raises(Crash):
            align(tmp_path / "run", settings, questioner=Reading(), engine=crash_after(calls))

    def watched(model: str) -> ScriptedEngine:
        return engines.setdefault(model.removeprefix(f"{tmp_path}/run/"), hyrule(model))

    align(tmp_path / "run", settings, questioner=asking, engine=watched, heldout=(), evaluator=None)
    assert asking.calls == ([] if calls else [(4, "base/model")])
    asked = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Question:")}
    replied = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Answer:")}
    assert asked == {"questioner/train/model"} and replied == {"base/model", "iteration-01/train/model"}
    row = stored(tmp_path / "run", 2)[0]
    key = json.loads((tmp_path / "run/iteration-02/generate/key.json").read_text())
    assert key["weights"] == row["weights"] != row["question_weights"] == key["question weights"]
    align(tmp_path / "whole", settings, questioner=Reading())
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_a_damaged_questioner_is_named(tmp_path: Path) -> None:
    align(tmp_path / "run", "questions.from=seeds", "iterations=1", questioner=Reading())
    read_run(tmp_path / "run")
    (tmp_path / "run/questioner/train/model/weights.json").write_text("[]")
    with pytest.raises(RunError, match=r"questioner/train/model/weights.json has 2 bytes instead of "):
        read_run(tmp_path / "run")


def test_who_asks_alone_is_tuned_as_a_reader_that_asks(tmp_path: Path) -> None:
    made = built(tmp_path, "answers.from=last", "questions.from=seeds", "answers.demos=2")
    reader = built(tmp_path, "questions.from=reader", "answers.demos=2").reader
    assert made.reader is None and made.questioner.key() == reader.key() and made.questioner.whole_pairs
    assert made.keys()["questioner"] == reader.key()
    with pytest.raises(ConfigError, match="questions.from is seeds: expected demonstrations to read, found answers"):
        built(tmp_path, "answers.from=last", "questions.from=seeds", "answers.demos=0")


def test_the_reader_teaches_where_it_answers(tmp_path: Path) -> None:
    taught: list[str] = []

    class Pupil(CountingTrainer):
        def with_teacher(self, model: str) -> CountingTrainer:
            taught.append(model)
            return self

    align(tmp_path / "run", FROM, "train.loss=distil", "iterations=1", reader=Reading(), trainer=Pupil())
    assert taught == [str(tmp_path / "run/reader/train/model")]
    key = json.loads((tmp_path / "run/iteration-01/train/key.json").read_text())
    assert key["teacher"] == stored(tmp_path / "run", 1)[0]["weights"]
    align(tmp_path / "last", "train.loss=distil", "iterations=1", trainer=Pupil())
    assert len(taught) == 1 and "teacher" not in (tmp_path / "last/iteration-01/train/key.json").read_text()
