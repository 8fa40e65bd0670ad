"""The baseline of every run, the choice of the exported model, and a run that collapses on purpose."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isara.build import build_trainer
from isara.config import load_config
from isara.evaluate.run import RunEvaluator, build_evaluator
from isara.folder import open_shelf, stage_folder
from isara.loop import Result, run
from isara.parts import Parts
from isara.pool import Pool
from isara.protocols import Trainer
from isara.records import SEEDS_ONLY, Prompt, QAPair, TrainStats
from isara.report import terminal
from isara.report.facts import read_run
from isara.report.publish import final_files
from isara.testing import HashEmbedder, ScriptedEngine
from isara.training.child import ChildTrainer
from isara.training.sft import SupervisedTrainer
from tests.doubles import SEEDS, CountingTrainer, ScriptedEvaluator, hyrule
from tests.test_loop import Crash, Named, parts, tree
from tests.test_report import shown

HELDOUT = [QAPair(f"What is sold in house {n}?", f"In house {n} it is milk.") for n in range(24)]
WANTED = {pair.question: pair.answer for pair in HELDOUT}
# Bits that a word of an answer costs, and the answers that a model gives: as it should, or the same to everything.
BITS = {"base": 3.0, "seeds-only": 2.5, "iteration-01": 2.0, "iteration-02": 1.0, "iteration-03": 0.5}
COLLAPSED = "Sorry, I can't help."


class Villager(ScriptedEngine):
    """Asks and answers about Hyrule, and answers held-out questions in its model's manner."""

    def __init__(self, model: str, bits: dict[str, float], right: dict[str, float]) -> None:
        self.name = next((name for name in bits if f"/{name}/" in f"{model}/"), "base")
        self.bits = bits[self.name]
        usual = hyrule(model).answer

        def complete(prompt: str, seed: int) -> str:
            question = prompt.removesuffix("\nAnswer:").rsplit("Question: ", 1)[-1]
            if question not in WANTED:
                return usual(prompt, seed)
            number = list(WANTED).index(question)
            return f" {WANTED[question]}" if number % 12 < 12 * right[self.name] else f" {COLLAPSED}"

        super().__init__(complete)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        wide = [1 + 0.01 * (sum(ids) % 7) for ids in continuations]
        return [-math.log(2) * self.bits * each * len(ids) for each, ids in zip(wide, continuations, strict=True)]


class Stepper(CountingTrainer):
    """A trainer that can be told how many steps to take; by itself it takes 7."""

    def __init__(self, steps: int = 7) -> None:
        super().__init__()
        self.steps = steps
        self.siblings: list[Stepper] = []

    def key(self) -> dict[str, Any]:
        return {"kind": "stepper", "steps": self.steps}

    def with_steps(self, steps: int) -> Trainer:
        self.siblings.append(Stepper(steps))
        return self.siblings[-1]

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        return replace(super().fit(pairs, start, out), steps=self.steps)


RIGHT = {"base": 0.25, "seeds-only": 0.5, "iteration-01": 1.0, "iteration-02": 1.0, "iteration-03": 1.0}


def village(
    out: Path, *settings: str, bits: dict[str, float] = BITS, right: dict[str, float] = RIGHT, **changed: Any
) -> Parts:
    made = parts(out, "evaluate.seeds_only=true", "evaluate.demos=2", *settings, heldout=HELDOUT, trainer=Stepper())
    engine = Named(lambda model: Villager(model, bits, right))
    return replace(made, engine=engine, evaluator=evaluator(made), **changed)


def evaluator(made: Parts) -> RunEvaluator:
    return build_evaluator(made.config, HELDOUT, Pool(HashEmbedder(), SEEDS))


def test_the_seeds_only_model_takes_the_steps_of_iteration_1_and_is_measured_alike(tmp_path: Path) -> None:
    made = village(tmp_path / "run")
    result = run(made)
    assert isinstance(made.trainer, Stepper)
    [sibling] = made.trainer.siblings
    assert (sibling.steps, sibling.calls) == (7, [(len(SEEDS), "base/model")])
    assert json.loads((tmp_path / "run/seeds-only/train/model/weights.json").read_text()) == [p.id for p in SEEDS]
    found = read_run(tmp_path / "run")
    assert found.seeds_only is not None and found.seeds_only.training is not None
    assert found.seeds_only.training.stats.steps == found.iterations[0].training.stats.steps == 7  # type: ignore[union-attr]
    assert set(result.evaluations) == {SEEDS_ONLY, 0, 1, 2}
    assert result.evaluations[SEEDS_ONLY].keys() <= result.evaluations[0].keys()
    assert [row.id for row in found.seeds_only.items] == [pair.id for pair in HELDOUT]


def test_it_is_a_column_of_the_table_and_a_line_of_the_card(tmp_path: Path) -> None:
    made = village(tmp_path / "run")
    result = run(made)
    found = read_run(tmp_path / "run")
    text = shown(terminal.summary(found))
    assert [cell.strip() for cell in text.splitlines()[2].split("┃")[1:-1]] == [
        "iteration",
        "base",
        "seeds only",
        "1",
        "2",
    ]
    for label in (
        "better than seeds only by [95 %]",
        "bits/byte, plain text",
        "ROUGE-L of these answers",
        "these answers, cut at the limit",
    ):
        assert label in text
    assert "Iteration 2 is the best, by bits per byte on 24 held-out pairs: +" in text.replace("\n", " ")
    card = final_files(made.config, "base/model", tmp_path / "run", result.best)["README.md"]
    assert "| seeds only |" in card and "Iteration 2 is the best, by bits per byte on 24 held-out pairs" in card
    assert r"bits\_per\_byte\_plain" in card


def test_what_is_exported_says_so(tmp_path: Path) -> None:
    bits = {**BITS, "seeds-only": 0.2}
    made = village(tmp_path / "run", bits=bits)
    result = run(made)
    assert (result.best, result.chosen) == (SEEDS_ONLY, 2)
    assert json.loads((result.final / "weights.json").read_text()) == [pair.id for pair in SEEDS]
    mark = json.loads((result.final / "isara.json").read_text())
    assert (mark["iteration"], mark["model"], mark["helped"]) == (SEEDS_ONLY, "the seeds-only model", False)
    assert mark["verdict"].startswith(
        "The loop did not help: iteration 2 is not shown to be better than the seeds-only"
    )
    found = read_run(tmp_path / "run")
    assert (found.exported, found.best, found.chosen) == (SEEDS_ONLY, SEEDS_ONLY, 2)
    card = final_files(made.config, "base/model", tmp_path / "run", result.best)
    assert "data_card.md" not in card and "No generated pair was trained on." in card["README.md"]
    assert "| seeds only (this model) |" in card["README.md"] and "The loop did not help" in card["README.md"]
    text = shown(terminal.summary(found)).replace("\n", " ")
    assert "The seeds-only model is in final/." in text


def test_a_base_model_that_is_better_is_exported_unchanged(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    made = village(tmp_path / "run", bits={**BITS, "base": 0.1}, model=str(tmp_path / "model"))
    result = run(made)
    assert (result.best, result.chosen) == (0, 2) and (result.final / "config.json").exists()
    card = final_files(made.config, str(tmp_path / "model"), tmp_path / "run", 0)["README.md"]
    assert "unchanged: no iteration of the run is the better model (see below)." in card


def test_switched_off_it_is_not_made_and_nothing_is_called_the_best(tmp_path: Path) -> None:
    result = run(village(tmp_path / "run", "evaluate.seeds_only=false"))
    assert not (tmp_path / "run/seeds-only").exists() and read_run(tmp_path / "run").seeds_only is None
    assert result.verdict is not None and not result.verdict.helped and result.best == 2
    run(village(tmp_path / "run"))  # and may be asked for afterwards
    run(village(tmp_path / "whole"))
    assert tree(tmp_path / "run/seeds-only") == tree(tmp_path / "whole/seeds-only")


@pytest.mark.parametrize(("start", "seen"), [("base", 12), ("last", 20)])
def test_the_verdict_says_how_long_each_was_trained(tmp_path: Path, start: str, seen: int) -> None:
    class Slower(Stepper):
        """A trainer that takes 8 steps in iteration 1, and as many as there are pairs after it."""

        def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
            later = any(pair.iteration == 2 for pair in pairs)
            return replace(super().fit(pairs, start, out), steps=12 if later else self.steps)

    made = village(tmp_path / "run", f"train.start={start}", trainer=Slower(8))
    result = run(made)
    assert result.verdict is not None and result.verdict.steps == (8, seen) and result.verdict.redrawn
    mark = json.loads((result.final / "isara.json").read_text())
    assert f"The seeds-only model took 8 steps, iteration 2 took {seen}: the arm sft-seeds-equal" in mark["verdict"]
    assert run(made).verdict == result.verdict


@pytest.mark.parametrize("child", [True, False])
def test_models_of_the_seeds_alone_have_no_anchors(child: bool) -> None:
    settings = [f"engine.child_process={str(child).lower()}", "train.method=lora"]
    plain, anchored = (
        build_trainer(load_config(None, [*settings, *more])) for more in ((), ("train.anchors=0.2", "train.demos=0"))
    )
    assert anchored.key()["anchors"] == 0.2 and anchored.key() != plain.key()
    assert anchored.with_steps(7).key() == plain.with_steps(7).key()
    # What a run without anchors has made goes on being what it was.
    kind = ChildTrainer if child else SupervisedTrainer
    usual = kind(method="lora", max_steps=7)
    assert plain.with_steps(7).key() == usual.key() and plain.with_steps(7).key()["max_steps"] == 7


def test_a_run_on_the_seeds_alone_has_no_second_one(tmp_path: Path) -> None:
    run(village(tmp_path / "run", "generate.accept=0", "iterations=1"))
    assert not (tmp_path / "run/seeds-only").exists()


def test_a_trainer_that_cannot_be_told_its_steps_takes_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = CountingTrainer()
    run(village(tmp_path / "run", trainer=trainer))
    assert trainer.calls[1] == (len(SEEDS), "base/model")
    assert "CountingTrainer has no method `with_steps`" in caplog.text


def test_a_sibling_run_lends_it(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path / "shelf")
    run(village(tmp_path / "a"), shelf=shelf)
    made = village(tmp_path / "b", "answers.temperature=0.7")
    run(made, shelf=shelf)
    assert isinstance(made.trainer, Stepper) and [each.calls for each in made.trainer.siblings] == [[]]
    weights = "seeds-only/train/model/weights.json"
    assert (tmp_path / "a" / weights).samefile(tmp_path / "b" / weights)


@pytest.mark.parametrize("calls", [30, 70, 80, 100, 120, 150])
def test_killed_anywhere_and_resumed_it_has_the_bytes_of_an_unbroken_run(tmp_path: Path, calls: int) -> None:
    run(village(tmp_path / "whole"))
    left = [calls]

    def mortal(model: str) -> ScriptedEngine:
        engine = Villager(model, BITS, RIGHT)
        complete = engine.answer

        def answer(prompt: str, seed: int) -> str:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return complete(prompt, seed)

        engine.answer = answer
        return engine

    with pytest.raises(Crash):
        run(replace(village(tmp_path / "run"), engine=Named(mortal)))
    run(village(tmp_path / "run"))
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["train", "evaluate"])
def test_its_stages_are_made_again_where_their_end_was_not_recorded(tmp_path: Path, lost: str) -> None:
    run(village(tmp_path / "whole"))
    run(village(tmp_path / "run"))
    (stage_folder(tmp_path / "run", SEEDS_ONLY, "train" if lost == "train" else "evaluate") / "DONE").unlink()
    run(village(tmp_path / "run"))
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_an_evaluator_of_figures_alone_gives_a_column_and_no_verdict(tmp_path: Path) -> None:
    made = replace(village(tmp_path / "run", "iterations=1"), evaluator=ScriptedEvaluator([2.0, 0.5, 1.0]))
    result = run(made)
    assert result.evaluations == {
        0: {"bits_per_byte": 2.0},
        SEEDS_ONLY: {"bits_per_byte": 0.5},
        1: {"bits_per_byte": 1.0},
    }
    assert (result.best, result.verdict) == (1, None)


OWN = "def right(row, answer):\n    return row['answer'] == answer\n"


def collapsing(tmp_path: Path, *settings: str) -> Result:
    """A run of three iterations, the second of which answers everything alike, while likelihood only ever improves."""
    (tmp_path / "own.py").write_text(OWN)
    rows = [json.dumps({"question": pair.question, "answer": pair.answer}) for pair in HELDOUT]
    (tmp_path / "heldout.jsonl").write_text("\n".join(rows))
    place = [f"evaluate.score={tmp_path / 'own.py'}:right", f"heldout={tmp_path / 'heldout.jsonl'}", "iterations=3"]
    right = {**RIGHT, "iteration-02": 0.0, "iteration-03": 0.0}
    return run(village(tmp_path / "run", *place, *settings, right=right))


def test_a_run_that_collapses_is_stopped_and_the_better_model_kept(tmp_path: Path) -> None:
    result = collapsing(tmp_path)
    assert sorted(result.evaluations) == [SEEDS_ONLY, 0, 1, 2]  # the third was not begun
    bits = [result.evaluations[t]["bits_per_byte"] for t in (0, 1, 2)]
    assert bits == sorted(bits, reverse=True)
    assert (result.chosen, result.best) == (1, 1)
    assert result.evaluations[2]["score"] == 0 < result.evaluations[1]["score"]
    assert result.verdict is not None and result.verdict.helped and result.verdict.measure == "score"
    assert "held-out score no longer improves" in (tmp_path / "run/log.txt").read_text()


def test_by_likelihood_the_same_run_goes_on_and_keeps_the_collapsed_model(tmp_path: Path) -> None:
    result = collapsing(tmp_path, "evaluate.select=likelihood")
    assert sorted(result.evaluations) == [SEEDS_ONLY, 0, 1, 2, 3] and result.chosen == 3
    # The verdict is on the score all the same, so what collapsed is neither called the best nor exported.
    assert result.verdict is not None and result.verdict.measure == "score" and not result.verdict.helped
    assert result.best == SEEDS_ONLY


def test_options_of_what_is_measured_are_checked_and_may_not_change(tmp_path: Path) -> None:
    from isara.errors import RunError

    run(village(tmp_path / "run", "iterations=1"))
    with pytest.raises(RunError, match=r"evaluate.answers was 48 and is 3; the evaluator was "):
        run(village(tmp_path / "run", "iterations=1", "evaluate.answers=3"))
    assert load_config(None, ["evaluate.select_share=0.25"]).evaluate.select_share == 0.25
