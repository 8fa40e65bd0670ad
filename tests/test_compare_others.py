"""Other methods as arms, in a small world: the one part that each changes, and that nothing else of the loop does."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isara.asking import Asker
from isara.compare.arms import find_arms
from isara.compare.compare import compare
from isara.compare.others import GENERATED_TAG, HUMPBACK, ISHEEP, SEED_TAG, SelfScore
from isara.compare.prompts import PRINCIPLES, TASKS, URIAL, Preamble, Tagged, TaskList, tagged
from isara.config import Config
from isara.parts import Parts
from isara.pool import Pool
from isara.records import Candidate, Draw, Prompt, QAPair
from isara.render import PromptFormat
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.compare_world import Crash, Fuse, Smith, World, figures, lay_out, recipe, scores, stored, trained_on
from tests.doubles import SEEDS

CHAT = PromptFormat("chat", "<user> ", "</user> <bot> ", "</bot> <user> ", "", "</bot>", False)
SHOWN = [QAPair("Who guards it?", "Nobody.")]
ASKED = QAPair("Who sells arrows?", "")


def answer_prompts(out: Path, arm: str, t: int = 1) -> list[str]:
    return [draw["prompt"] for row in stored(out, arm, t) for draw in row["answer_draws"]]


def question_prompts(out: Path, arm: str, t: int = 1) -> list[str]:
    return [row["question_draw"]["prompt"] for row in stored(out, arm, t)]


def test_a_preamble_stands_before_the_demonstrations_of_an_answer_alone() -> None:
    plain = Preamble(word_renderer(), "Be kind.")
    expected = "Be kind.\n\nQuestion: Who guards it?\nAnswer: Nobody.\n\nQuestion: Who sells arrows?\nAnswer:"
    assert plain.answer(SHOWN, ASKED).text == expected
    assert plain.question(SHOWN) == word_renderer().question(SHOWN)
    chat = Preamble(word_renderer(fmt=CHAT), "Be kind.")
    assert chat.answer((), ASKED).text == "<user> Be kind.\n\nWho sells arrows?</user> <bot> "
    assert plain.key() != word_renderer().key() != Preamble(word_renderer(), "Be rude.").key() != plain.key()


def test_a_task_list_is_a_header_and_numbers() -> None:
    plain = TaskList(word_renderer())
    assert plain.question([*SHOWN, *SEEDS[:1]]).text == (
        "Come up with a series of tasks:\n1. Who guards it?\n2. Where do I buy arrows in Kakariko?\n3."
    )
    assert plain.format.question_stops[0] == "\n" and set(plain.format.answer_stops) < set(plain.format.question_stops)
    chat = TaskList(word_renderer(fmt=CHAT))
    expected = "<user> Come up with a series of tasks:</user> <bot> 1. Who guards it?\n2."
    assert chat.question(SHOWN).text == expected
    assert plain.answer(SHOWN, ASKED) == word_renderer().answer(SHOWN, ASKED)


def test_urial_answers_after_a_preamble_and_the_same_pairs(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "icl-fixed,urial")
    rows = {arm: scores(tmp_path / "out", arm) for arm in ("icl-fixed", "urial")}
    assert [row["demo_ids"] for row in rows["urial"]] == [row["demo_ids"] for row in rows["icl-fixed"]]
    after = [prompt for prompt in world.asked if prompt.startswith(URIAL)]
    assert len(after) == 9 + 3 and not any(URIAL in prompt for prompt in world.asked if prompt not in after)
    # Without the preamble, the two are one.
    assert {prompt.removeprefix(URIAL).strip() for prompt in after} <= set(world.asked)
    assert not world.trained


def test_ssd_trains_on_zero_shot_answers_without_the_seeds(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,ssd")
    assert {tuple(row["demo_ids"]) for row in stored(tmp_path / "out", "ssd", 1)} == {()}
    [(pairs, start)] = trained_on(world, "ssd")
    assert len(pairs) == 12 and not set(pairs) & set(SEEDS) and start == str(tmp_path / "recipe/base")


def test_self_instruct_goes_on_from_a_list_with_generated_tasks(tmp_path: Path) -> None:
    lay_out(tmp_path, "isara,self-instruct", (0,), "questions.per_prompt=2")
    prompts = question_prompts(tmp_path / "out", "self-instruct")
    assert all(prompt.startswith(TASKS + "\n1. ") and prompt.endswith("\n5.") for prompt in prompts)
    assert prompts[0] == prompts[1] and len(set(prompts)) > 2
    rows = stored(tmp_path / "out", "self-instruct", 1)
    batches = {row["batch"]: row["question_draw"]["demo_ids"] for row in rows}
    seeds = {pair.id for pair in SEEDS}
    assert set(batches[0]) <= seeds and len(set(batches[1]) - seeds) == 2
    made = {row["id"] for row in rows if row["accepted"] and row["batch"] == 0}
    assert set(batches[1]) - seeds <= made
    assert set(answer_prompts(tmp_path / "out", "self-instruct")) == {
        f"Question: {row['question']}\nAnswer:" for row in rows if row["answer_draws"]
    }


def test_self_align_shows_principles_while_it_generates_and_at_no_other_time(tmp_path: Path) -> None:
    _, world = lay_out(tmp_path, "isara,self-align")
    own, loops = (answer_prompts(tmp_path / "out", arm) for arm in ("self-align", "isara"))
    assert all(prompt.startswith(PRINCIPLES) for prompt in own) and not any(PRINCIPLES in prompt for prompt in loops)
    # First questions and demonstrations are ISARA's own.
    assert question_prompts(tmp_path / "out", "self-align")[:8] == question_prompts(tmp_path / "out", "isara")[:8]
    assert {prompt.removeprefix(PRINCIPLES).strip() for prompt in own[:4]} & set(loops)
    tests = [prompt for prompt in world.asked if "in house" in prompt]
    assert tests and not any(PRINCIPLES in prompt for prompt in tests)
    assert all(PRINCIPLES not in pair.question for pairs, _ in trained_on(world, "self-align") for pair in pairs)


class Critic:
    """Opens engines of the world that find a grade likelier the nearer it is to what a pair is worth: odd years 9."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.forms: list[str] = []

    def key(self) -> str:
        return "critic"

    def __call__(self, model: str, /) -> "ScriptedEngine":
        engine, forms = self._engine(model), self.forms

        class Grading(ScriptedEngine):
            def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
                digits = {word_renderer().answer_ids(prompts[0], str(n)): n for n in range(10)}
                found = []
                for prompt, ids in zip(prompts, continuations, strict=True):
                    forms.append(prompt.text)
                    years = [word.strip(".") for word in prompt.text.split() if word.strip(".").isdigit()]
                    worth = 9 if any(int(year) % 2 for year in years if int(year) > 10) else 1
                    worth = 5 if any(pair.answer in prompt.text for pair in SEEDS) else worth
                    found.append(-float(abs(digits.get(tuple(ids), 0) - worth)))
                return found

        return Grading(engine.answer)


def with_critic(tmp_path: Path, names: str) -> tuple[World, list[str]]:
    world = World()
    base, make = recipe(tmp_path / "recipe", world=world)
    critic = Critic(base.engine)
    comparison = compare(replace(base, engine=critic), find_arms(names.split(",")), [0], tmp_path / "out", make=make)
    assert comparison.failures == []
    return world, critic.forms


def odd(rows: Sequence[dict[str, Any]]) -> set[bool]:
    return {int(row["answer"].rstrip(".").split()[-1]) % 2 == 1 for row in rows}


def test_i_sheep_keeps_what_the_model_rates_as_high_as_the_seeds(tmp_path: Path) -> None:
    world, forms = with_critic(tmp_path, "isara,i-sheep")
    rows = [row for t in (1, 2) for row in stored(tmp_path / "out", "i-sheep", t)]
    assert odd([row for row in rows if row["accepted"]]) == {True}
    dropped = [row for row in rows if row["rejection"] and row["rejection"]["reason"] == "self_score"]
    assert dropped and odd(dropped) == {False}
    assert all(row["rejection"]["value"] < row["rejection"]["threshold"] for row in dropped)
    assert {tuple(row["demo_ids"]) for row in rows} == {()}
    assert any(form.startswith("Question: Here is an instruction with a response.") for form in forms)
    assert [len(pairs) for pairs, _ in trained_on(world, "i-sheep")] == [4 + 6, 4 + 6]
    # Plain ISARA keeps both kinds.
    assert odd([row for row in stored(tmp_path / "out", "isara", 1) if row["accepted"]]) == {True, False}


def test_humpback_curates_and_tags_its_sources(tmp_path: Path) -> None:
    world, forms = with_critic(tmp_path, "humpback")
    rows = [row for t in (1, 2) for row in stored(tmp_path / "out", "humpback", t)]
    assert odd([row for row in rows if row["accepted"]]) == {True}
    assert not any(SEED_TAG in row["question"] or GENERATED_TAG in row["question"] for row in rows)
    assert not any(SEED_TAG in form for form in forms if form.startswith("Question: Below are a question"))
    pairs = trained_on(world, "humpback")[1][0]
    assert [pair.question for pair in pairs[:4]] == [f"{pair.question} {SEED_TAG}" for pair in SEEDS]
    assert len(pairs) == 4 + 12 and all(pair.question.endswith(GENERATED_TAG) for pair in pairs[4:])
    tests = [prompt for prompt in world.asked if "in house" in prompt]
    assert tests and all(prompt.endswith(f" {SEED_TAG}\nAnswer:") for prompt in tests)


def test_a_grade_is_the_mean_over_the_models_own_probabilities() -> None:
    critic = Critic(lambda model: ScriptedEngine(lambda prompt, seed: ""))
    with Asker(critic, "base", word_renderer()) as asker:
        high, low = ISHEEP(asker, [QAPair("When?", "In year 1991."), QAPair("When?", "In year 1992.")])
        assert 7 < high < 9 and 1 < low < 3
        check = SelfScore(asker, HUMPBACK, SEEDS)
        even = Candidate(QAPair("When?", "In year 1992."), Draw("", 0, "stop", "", 0))
        said = check(even, Pool(HashEmbedder()))
        assert said is not None and said.reason == "self_score" and said.threshold == check.least
        assert check(Candidate(SEEDS[0], even.question), Pool(HashEmbedder())) is None


def test_a_tag_stands_after_the_last_question_alone() -> None:
    renderer = Tagged(word_renderer(), "(now)")
    expected = "Question: Who guards it?\nAnswer: Nobody.\n\nQuestion: Who sells arrows? (now)\nAnswer:"
    assert renderer.answer(SHOWN, ASKED).text == expected
    assert renderer.answer((), ASKED) == word_renderer().answer((), tagged(ASKED, "(now)"))


class Rated(Smith):
    """A trainer whose model is best where the rate is as the recipe has it and the epochs are tripled."""

    def __init__(self, world: World, config: Config) -> None:
        super().__init__(world, config)
        self.epochs, self.rate = config.train.num_train_epochs, config.train.learning_rate

    def key(self) -> dict[str, Any]:
        return {**super().key(), "epochs": self.epochs, "rate": self.rate}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> Any:
        stats = super().fit(pairs, start, out)
        (out / "taste.json").write_text(json.dumps([self.epochs, self.rate]))
        return stats


class Taster:
    """Opens engines whose likelihoods are best after the training that suits them."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def key(self) -> str:
        return "taster"

    def __call__(self, model: str, /) -> ScriptedEngine:
        path = Path(model) / "taste.json"
        epochs, rate = json.loads(path.read_text()) if path.exists() else (0.0, 0.0)
        cost = abs(epochs - 9) + abs(rate - 1e-3) * 1000

        class Tasting(ScriptedEngine):
            def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
                return [-1.0 - cost for _ in prompts]

        return Tasting(self._engine(model).answer)


def test_tuned_sft_takes_what_a_part_of_the_seeds_likes_best(tmp_path: Path) -> None:
    world = World()
    base, usual = recipe(tmp_path / "recipe", "train.learning_rate=1e-3", world=world)

    def make(config: Config, base: Parts) -> Parts:
        return replace(usual(config, base), trainer=Rated(world, config))

    parts = replace(base, engine=Taster(base.engine))
    assert compare(parts, find_arms(["sft-seeds-tuned"]), [0], tmp_path / "out", make=make).failures == []
    stage = tmp_path / "out/arms/sft-seeds-tuned/seed-0/iteration-01/train"
    tuning = json.loads((stage / "tuning.json").read_text())
    assert [row["settings"] for row in tuning["tried"]] == [
        {"train.num_train_epochs": epochs, "train.learning_rate": rate}
        for epochs in (3.0, 9.0)
        for rate in (5e-4, 1e-3, 2e-3)
    ]
    assert tuning["best"] == 4 and json.loads((stage / "model/taste.json").read_text()) == [9.0, 1e-3]
    *tried, (pairs, _) = trained_on(world, "sft-seeds-tuned")
    assert pairs == SEEDS and len(tried) == 6 and not (stage / "tried").exists()
    # Neither the test questions nor what is held out are trained on while settings are chosen.
    assert all(len(some) == len(SEEDS) - tuning["heldout"] and set(some) < set(SEEDS) for some, _ in tried)


OTHERS = "urial,isara,ssd,self-instruct,self-align,sft-seeds-tuned,humpback"


@pytest.mark.parametrize("place", range(2))
def test_other_methods_killed_and_resumed_end_with_the_same_table(tmp_path: Path, place: int) -> None:
    world, arms = World(), find_arms(OTHERS.split(","))
    base, make = recipe(tmp_path / "whole-recipe", world=world)
    assert compare(base, arms, [0], tmp_path / "whole", make=make).failures == []
    calls = 10**9 - world.fuse.left
    expected = figures(tmp_path / "whole")
    first, second = sorted(random.Random(place).sample(range(1, calls), 2))
    for left in (first, second - first):
        base, make = recipe(tmp_path / "recipe", world=World(Fuse(left)))
        with pytest.raises(Crash):
            compare(base, arms, [0], tmp_path / "out", make=make)
    base, make = recipe(tmp_path / "recipe")
    compare(base, arms, [0], tmp_path / "out", make=make)
    found = figures(tmp_path / "out")
    for name in ("table.md", "scores.jsonl", "comparison.json"):
        assert found[name] == expected[name], name
