"""Scores, rules and thresholds on doubles in which what a score should see is plain."""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from isara.asking import Asker
from isara.build import build_parts
from isara.config import Score, load_config
from isara.embedders import LexicalEmbedder
from isara.errors import ConfigError, ModelError
from isara.generate import ADVICE, batch_size
from isara.pool import Pool, retriever
from isara.records import Candidate, Completion, Draw, Prompt, QAPair, Rejection, Sampling, TrainStats
from isara.report.facts import read_run
from isara.selection.calibration import Calibration, leave_one_out, losses
from isara.selection.focus import Balanced, ByKind, Worst, around
from isara.selection.rules import Keep, Selection
from isara.selection.scores import Answered, Likelihood, Scorer, agreement, distance, other_questions
from isara.selection.weights import LEAST, MOST, weights
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.doubles import SEEDS, CountingTrainer, hyrule
from tests.test_loop import Crash, align, crash_after, stored, tree

KNOWN, NEW = -0.5, -3.0  # nats of a word that stands in the prompt, and of one that doesn't


class Reader(ScriptedEngine):
    """A model that reads its prompt: a word which stands there is likelier than one that doesn't."""

    def __init__(self) -> None:
        super().__init__(hyrule("base/model").answer)
        self.read: list[tuple[int, ...]] = []

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        self.read += [prompt.ids for prompt in prompts]
        return [
            math.fsum(KNOWN if word in prompt.ids else NEW for word in ids)
            for prompt, ids in zip(prompts, continuations, strict=True)
        ]


POOL = Pool(HashEmbedder(), SEEDS)
REFUSAL = "I am sorry, I can't help with that."
QUESTION = "Who sells the blue mail of the Zora?"


def scores(name: Score, answers: Sequence[Answered], questions: Sequence[QAPair] = SEEDS) -> list[float]:
    asker = Asker(lambda model, /: Reader(), "base/model", word_renderer())
    return [row[name] for row in Scorer(asker, asker, POOL)([name], answers, questions)]


def answered(answer: str, demos: Sequence[QAPair] = SEEDS[:1]) -> Answered:
    return Answered(QAPair(QUESTION, answer), demos)


def test_a_likelihood_is_a_mean_over_the_answers_words() -> None:
    asker = Asker(lambda model, /: Reader(), "base/model", word_renderer())
    [value] = Likelihood(asker)([((), QAPair(QUESTION, "Who sells it."))])
    assert value == pytest.approx((KNOWN + NEW) / 3 + KNOWN / 3)  # " Who" and " sells" stand in the question


def test_a_bare_refusal_says_less_of_its_question_than_an_answer_that_names_it() -> None:
    bare, names = scores("question", [answered(REFUSAL), answered("The king sells the blue mail of the Zora.")])
    assert bare == 0.0 and names > 1


def test_a_question_is_never_held_against_itself_or_its_demonstrations() -> None:
    each = Answered(SEEDS[0], SEEDS[1:3])
    assert other_questions(each, SEEDS) == [SEEDS[3]]
    more = [QAPair(f"Where is number {number}?", "") for number in range(9)]
    found = other_questions(each, more)
    assert len(found) == 3 and found == other_questions(each, more[::-1])


def test_a_copied_demonstration_gains_most_from_the_demonstrations() -> None:
    copied, own = scores("icl_gain", [answered(SEEDS[0].answer), answered("The Zora sells it.")])
    assert copied > own


def test_natural_asks_the_untuned_model_without_demonstrations() -> None:
    base, tuned = Reader(), Reader()
    askers = [Asker(lambda model, /, engine=engine: engine, "any", word_renderer()) for engine in (tuned, base)]
    [row] = Scorer(askers[0], askers[1], POOL)(["natural"], [answered("The Zora sells it.")])
    assert tuned.read == [] and base.read == [word_renderer().answer((), QAPair(QUESTION, "")).ids]
    assert row == {"natural": (3 * NEW + KNOWN) / 4}  # of the answer's words the question has " sells"


def test_a_pair_that_teaches_the_seeds_manner_helps_them() -> None:
    near = QAPair("Where do I buy a shield in Kakariko?", SEEDS[0].answer)
    helps, does_not = scores("seeds", [Answered(near), Answered(replace(near, answer="Purple monkeys."))])
    assert helps > does_not + 0.3


def test_the_odd_one_out_agrees_least() -> None:
    texts = ["Ask the smith in Kakariko.", "Ask the old smith in Kakariko.", "Nobody knows."]
    found = [
        agreement(Answered(QAPair(QUESTION, text), (), [other for other in texts if other != text])) for text in texts
    ]
    assert found[0] == pytest.approx((10 / 11 + 0) / 2) and found[2] == 0.0


def test_a_question_of_another_world_is_far() -> None:
    near, far = QAPair("Where do I buy arrows in Hyrule?", ""), QAPair("Which tax form applies?", "")
    assert distance(near, POOL) < 0.4 < distance(far, POOL)
    assert distance(SEEDS[0], POOL) > 0.1  # a seed is not its own neighbour


def test_an_empty_answer_has_no_score() -> None:
    asker = Asker(lambda model, /: Reader(), "any", word_renderer())
    rows = Scorer(asker, asker, POOL)(["natural", "distance"], [answered(""), answered("Yes.")])
    assert rows[0] == {} and list(rows[1]) == ["natural", "distance"]


def test_a_pair_that_outgrows_the_context_is_one_line() -> None:
    asker = Asker(lambda model, /: Reader(), "any", word_renderer(20))
    pair = QAPair(QUESTION, "very " * 20)
    message = (
        f"pair {pair.id} has 10 + 20 tokens and the model reads at most 20, so it can't be scored: shorten the pair "
        "or take it out"
    )
    with pytest.raises(ModelError, match="^" + re.escape(message) + "$"):
        Likelihood(asker)([((), pair)])


def test_a_question_that_leaves_the_answer_no_room_is_no_other_question() -> None:
    asker = Asker(lambda model, /: Reader(), "any", word_renderer(50))
    seeds = [QAPair(f"Where {'very ' * 25}far away is it?", "There."), QAPair("What is that?", f"It is {'old ' * 28}.")]
    short = QAPair("Who are you?", "Link.")

    def score(*pairs: QAPair) -> float:
        rows = Scorer(asker, asker, Pool(HashEmbedder(), pairs))(["question"], [Answered(seeds[1])], pairs)
        return rows[0]["question"]

    assert score(*seeds, short) == score(seeds[1], short) > 0 and score(*seeds) == 0.0


class Babbling(ScriptedEngine):
    """A model whose answers are more words than it has counted, as broken characters may be."""

    def __init__(self) -> None:
        super().__init__(Reader().answer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        made = super().generate(prompts, sampling, seeds)
        asks = [prompt.text.endswith("Answer:") for prompt in prompts]
        long = [each and seed % 2 == 0 for each, seed in zip(asks, seeds, strict=True)]
        return [
            replace(one, text=one.text + " well" * 60) if each else one for one, each in zip(made, long, strict=True)
        ]


def test_an_answer_that_has_no_room_beside_its_question_has_no_score_and_stops_nothing(tmp_path: Path) -> None:
    settings = ["iterations=1", "select.answers=2", "select.rule=question", "generate.min_yield=0"]
    room = ["questions.max_new_tokens=30", "answers.max_new_tokens=30"]
    engine = Babbling()
    align(tmp_path / "run", *settings, *room, engine=lambda model: engine, renderer=word_renderer(70), pair_filters=[])
    for row in stored(tmp_path / "run", 1):
        scored = ["scores" in draw for draw in row["answer_draws"]]
        assert scored == ["well well" not in draw["text"] for draw in row["answer_draws"]]
        assert not row["accepted"] or scored[row["chosen"]] or not any(scored)
    assert {True, False} <= {"scores" in draw for row in stored(tmp_path / "run", 1) for draw in row["answer_draws"]}


class Mute(ScriptedEngine):
    logprobs = None  # type: ignore[assignment]


class Refusing(ScriptedEngine):
    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [Mute, Refusing])
def test_an_engine_without_likelihoods_is_one_line(tmp_path: Path, kind: type[ScriptedEngine]) -> None:
    message = (
        f"expected an engine with a method `logprobs`, found {kind.__name__} without it: held-out likelihoods, "
        "`select`, `questions.focus: worst` and local judges need one; add it, or leave these out"
    )
    with pytest.raises(ModelError, match="^" + re.escape(message) + "$"):
        align(tmp_path / "run", "select.scores=[natural]", engine=lambda model: kind(hyrule(model).answer))
    align(tmp_path / "without", engine=lambda model: kind(hyrule(model).answer))


# Rules.


def draw(**found: float) -> Draw:
    return Draw("Yes.", 2, "stop", "", 0, scores=found)


def test_without_weights_the_first_answer_comes_first() -> None:
    assert Selection().order([draw(agree=0.1), draw(agree=0.9)]) == [0, 1]


def test_the_highest_score_comes_first_and_of_equals_the_earlier() -> None:
    answers = [draw(agree=0.1), draw(), draw(agree=0.9), draw(agree=0.9)]
    assert Selection({"agree": 1.0}).order(answers) == [2, 3, 0, 1]


def test_a_sum_weighs_scores_in_the_seeds_own_spread() -> None:
    seeds = Calibration({"question": [0.0, 4.0], "agree": [0.4, 0.6]})  # standard deviations 2 and 0.1
    answers = [draw(question=2.0, agree=0.8), draw(question=6.0, agree=0.5)]  # z: 0 and 3, 2 and 0
    assert seeds.standard("question", 6.0) == pytest.approx(2)
    assert Selection({"question": 1.0, "agree": 1.0}, calibration=seeds).order(answers) == [0, 1]
    assert Selection({"question": 2.0, "agree": 1.0}, calibration=seeds).order(answers) == [1, 0]


@pytest.mark.parametrize(("share", "least"), [(0.9, 2.0), (0.5, 6.0), (1.0, 1.0), (0.91, 1.0), (0.01, 10.0)])
def test_a_threshold_is_what_a_share_of_the_seeds_reaches(share: float, least: float) -> None:
    values = [float(value) for value in (3, 1, 2, 10, 5, 6, 9, 8, 7, 4)]
    assert Calibration({"question": values}).threshold("question", share) == least
    assert sum(value >= least for value in values) >= share * 10


def test_a_threshold_of_distance_holds_from_above() -> None:
    threshold = Calibration({"distance": [0.1, 0.2, 0.3, 0.9]}).threshold("distance", 0.75)
    candidate = Candidate(QAPair(QUESTION, "Yes."), draw(), (draw(distance=0.4),))
    assert threshold == 0.3
    assert Keep("distance", threshold)(candidate, POOL) == Rejection("select_distance", 0.4, 0.3)
    assert Keep("distance", 0.4)(candidate, POOL) is None


@pytest.mark.parametrize(("value", "kept"), [(0.5, True), (0.49, False), (None, False)])
def test_a_threshold_drops_what_falls_short(value: float | None, kept: bool) -> None:
    answers = (draw() if value is None else draw(question=value),)
    said = Keep("question", 0.5)(Candidate(QAPair(QUESTION, "Yes."), draw(), answers), POOL)
    assert said == (None if kept else Rejection("select_question", value, 0.5))


def test_seeds_are_asked_with_their_nearest_others() -> None:
    held = leave_one_out(POOL, retriever(POOL, "nearest", 2, 0))
    for each in held:
        assert each.demos == [pair for pair, _ in POOL.nearest(each.pair, 2)] and each.pair not in each.demos


# In a run.


def reader(model: str) -> Reader:
    engine = Reader()
    engine.answer = hyrule(model).answer
    return engine


def test_more_answers_begin_with_the_one_there_was(tmp_path: Path) -> None:
    align(tmp_path / "one", "iterations=1")
    align(tmp_path / "three", "iterations=1", "select.answers=3")
    one = {row["question_draw"]["seed"]: row["answer_draws"] for row in stored(tmp_path / "one", 1)}
    three = {row["question_draw"]["seed"]: row["answer_draws"] for row in stored(tmp_path / "three", 1)}
    both = [seed for seed in one if one[seed] and three.get(seed)]
    assert both
    for seed in both:
        assert three[seed][0] == one[seed][0] and len({each["seed"] for each in three[seed]}) == 3
        assert "scores" not in three[seed][0]


def test_first_of_several_is_the_first_that_passes(tmp_path: Path) -> None:
    align(tmp_path / "run", "iterations=1", "select.answers=3")
    rows = [row for row in stored(tmp_path / "run", 1) if row["accepted"]]
    assert any(row["chosen"] for row in rows)
    for row in rows:
        odd = [each["text"].rstrip(".")[-1] in "13579" for each in row["answer_draws"]]
        assert row["chosen"] == odd.index(False)
        assert row["answer"] == row["answer_draws"][row["chosen"]]["text"]
    failed = [row for row in stored(tmp_path / "run", 1) if (row["rejection"] or {}).get("reason") == "odd_year"]
    assert all(row["chosen"] == 0 and row["rejection"]["value"] == row["answer"] for row in failed)


def test_a_rule_takes_the_best_and_stores_its_scores(tmp_path: Path) -> None:
    align(tmp_path / "run", "iterations=1", "select.answers=3", "select.rule=agree", engine=reader, pair_filters=[])
    rows = [row for row in stored(tmp_path / "run", 1) if row["accepted"]]
    assert any(row["chosen"] for row in rows)
    for row in rows:
        values = [each["scores"]["agree"] for each in row["answer_draws"]]
        assert values[row["chosen"]] == max(values)
    assert not (tmp_path / "run/iteration-01/generate/calibration.json").exists()


@pytest.mark.parametrize("name", get_args(Score))
def test_what_a_run_without_yield_is_told_to_raise_makes_a_threshold_looser(name: Score) -> None:
    found = Calibration({name: [0.1, 0.2, 0.3, 0.4]})
    strict, loose = (Keep(name, found.threshold(name, share)) for share in (0.25, 1.0))
    draws = [Draw("There.", 1, "stop", "", 0, scores={name: value}) for value in found.values[name]]
    made = [Candidate(QAPair(QUESTION, "There."), draw, (draw,)) for draw in draws]
    assert [sum(check(each, POOL) is None for each in made) for check in (strict, loose)] == [1, 4]
    assert f": raise select.keep.{name}, or " in ADVICE[f"select_{name}"]


def test_what_is_kept_reaches_what_the_seeds_reach(tmp_path: Path) -> None:
    settings = ["iterations=1", "select.keep={question: 0.5}", "generate.min_yield=0", "generate.max_batches=99"]
    align(tmp_path / "run", *settings, engine=reader, pair_filters=[])
    folder = tmp_path / "run/iteration-01/generate"
    found = json.loads((folder / "calibration.json").read_text())
    asker = Asker(reader, "base/model", word_renderer())
    held = leave_one_out(POOL, retriever(POOL, "nearest", 2, 0))
    values = [row["question"] for row in Scorer(asker, asker, POOL)(["question"], held, SEEDS)]
    assert found["scores"]["question"]["values"] == values
    assert found["thresholds"] == {"question": sorted(values)[-2]}
    dropped = [row["rejection"] for row in stored(tmp_path / "run", 1) if row["rejection"]]
    short = [said for said in dropped if said["reason"] == "select_question"]
    assert short and all(said["value"] < said["threshold"] == found["thresholds"]["question"] for said in short)
    for row in stored(tmp_path / "run", 1):
        if row["accepted"]:
            assert row["answer_draws"][0]["scores"]["question"] >= found["thresholds"]["question"]


ALL = [
    "select.answers=3",
    "select.weights={question: 1, agree: 0.5, seeds: 1, natural: 0.2}",
    "select.keep={icl_gain: 0.9, agree: 1}",
    "select.scores=[distance]",
    "questions.from=base",
    "questions.focus=worst",
    "generate.min_yield=0",
]


@pytest.mark.parametrize("calls", [3, 25, 70, 130])
def test_a_selecting_run_that_crashed_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path, calls: int) -> None:
    align(tmp_path / "whole", *ALL)
    with pytest.raises(Crash):
        align(tmp_path / "run", *ALL, engine=crash_after(calls))
    align(tmp_path / "run", *ALL)
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")
    names = list(stored(tmp_path / "run", 2)[-1]["answer_draws"][0]["scores"])
    assert names == ["natural", "icl_gain", "question", "agree", "seeds", "distance"]


def test_the_reader_of_runs_takes_scores(tmp_path: Path) -> None:
    align(tmp_path / "run", *ALL)
    assert len(read_run(tmp_path / "run").iterations[-1].accepted) == 12


@pytest.mark.parametrize(("source", "asks"), [("last", "iteration-01/train/model"), ("base", "base/model")])
def test_questions_come_from_the_base_or_from_the_last_model(tmp_path: Path, source: str, asks: str) -> None:
    engines: dict[str, ScriptedEngine] = {}

    def watched(model: str) -> ScriptedEngine:
        assert model not in engines, "a model is opened once"
        return engines.setdefault(model.removeprefix(f"{tmp_path}/run/"), hyrule(model))

    # Both models of iteration 2; the base model was closed after iteration 1 and is opened again for it.
    align(tmp_path / "run", "iterations=1", f"questions.from={source}")
    align(tmp_path / "run", "iterations=2", f"questions.from={source}", engine=watched)
    asked = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Question:")}
    replied = {name for name, engine in engines.items() for text in engine.prompts if text.endswith("Answer:")}
    assert asked == {asks} and replied == {"iteration-01/train/model"}
    rows = stored(tmp_path / "run", 2)
    assert {row.get("question_weights") for row in rows} == ({"3d5a"} if source == "base" else {None})
    assert "question_weights" not in stored(tmp_path / "run", 1)[0]
    key = json.loads((tmp_path / "run/iteration-02/generate/key.json").read_text())
    assert (key["question weights"], key["base"]) == (("3d5a", "3d5a") if source == "base" else (None, None))


# The last batch.


def rows_of(accepted: int, made: int) -> list[dict[str, Any]]:
    return [{"accepted": place < accepted} for place in range(made)]


@pytest.mark.parametrize(
    ("accepted", "made", "need", "size"),
    [
        (0, 0, 96, 64),  # nothing is known, and half is assumed
        (0, 0, 8, 20),
        (0, 64, 8, 64),  # nothing passed, so whatever fits
        (48, 64, 48, 64),  # 70.4 would do
        (32, 64, 16, 36),  # 35.2
        (64, 64, 10, 12),  # 11
        (48, 64, 1, 4),
    ],
)
def test_the_last_batch_is_as_large_as_the_yield_so_far_takes(accepted: int, made: int, need: int, size: int) -> None:
    config = load_config(None, ["generate.batch=64", "questions.per_prompt=4"])
    assert batch_size(rows_of(accepted, made), need, config) == size


def test_less_is_thrown_away_and_batches_keep_their_size_in_the_rows(tmp_path: Path) -> None:
    align(tmp_path / "run", "iterations=1", "generate.accept=20", "generate.batch=32")
    rows = stored(tmp_path / "run", 1)
    sizes = Counter(row["batch"] for row in rows)
    assert all(row["batch_size"] == sizes[row["batch"]] for row in rows) and sizes[max(sizes)] < 32
    surplus = [row for row in rows if (row["rejection"] or {}).get("reason") == "surplus"]
    assert len(surplus) < 8


# What questions are drawn around.


def test_a_worst_seed_is_shown_more_often() -> None:
    worst = Worst(SEEDS, [0.1, 0.4, 9.0, 0.2])
    rng = random.Random(0)
    first = Counter(worst.draw(turn, 2, rng)[0].id for turn in range(2000))
    shares = [first[seed.id] / 2000 for seed in SEEDS]
    assert shares == pytest.approx([0.1, 0.3, 0.4, 0.2], abs=0.03)  # the ranks 1, 3, 4, 2 of 10
    assert sorted(worst.draw(0, 9, rng), key=SEEDS.index) == SEEDS


def test_a_worst_seed_focus_asks_more_about_it(tmp_path: Path) -> None:
    settings = ["iterations=1", "generate.accept=60", "generate.batch=32", "questions.demos=1", "generate.min_yield=0"]
    shares = {}
    for focus in ("uniform", "worst"):
        align(tmp_path / focus, *settings, f"questions.focus={focus}", engine=reader, question_filters=[])
        ids = [row["question_draw"]["demo_ids"][-1] for row in stored(tmp_path / focus, 1)]
        shares[focus] = {seed.id: ids.count(seed.id) / len(ids) for seed in SEEDS}
    found = json.loads((tmp_path / "worst/iteration-01/generate/calibration.json").read_text())["focus"]["worst"]
    asker = Asker(reader, "base/model", word_renderer())
    assert list(found.values()) == losses(asker, leave_one_out(POOL, retriever(POOL, "nearest", 2, 0)))
    worst, best = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    assert shares["worst"][worst] > shares["uniform"][worst] and shares["worst"][worst] > 2 * shares["worst"][best]


HORSES = [QAPair(f"How do I feed a horse {when}?", "Hay.") for when in ("at dawn", "at noon", "at night", "in winter")]
MASKS = [QAPair(f"Which mask does {who} wear for the carnival?", "None.") for who in ("Kafei", "Anju")]


def test_clusters_take_turns_whatever_their_size() -> None:
    pool = Pool(LexicalEmbedder(), [HORSES[0], MASKS[0], *HORSES[1:], MASKS[1], QAPair("Is it late?", "No.")])
    balanced = Balanced(pool)
    assert [sorted(pair.question for pair in cluster) for cluster in balanced.clusters][0] == sorted(
        pair.question for pair in HORSES
    )
    rng = random.Random(0)
    turns = [balanced.draw(turn, 2, rng) for turn in range(2 * len(balanced.clusters))]
    for turn, drawn in enumerate(turns):
        assert all(pair in balanced.clusters[turn % len(balanced.clusters)] for pair in drawn)
    assert Balanced(pool).to_json() == balanced.to_json()


def test_a_small_cluster_is_filled_up_with_neighbours_and_the_centre_comes_last() -> None:
    pool = Pool(LexicalEmbedder(), [*HORSES, *MASKS])
    shown = around(pool, [MASKS[1], MASKS[0]], 4)
    assert shown[2:] == [MASKS[0], MASKS[1]] and len({pair.id for pair in shown}) == 4


def test_a_balanced_run_can_be_made_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        align(tmp_path / name, "questions.focus=balanced")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    shown = [len(row["question_draw"]["demo_ids"]) for row in stored(tmp_path / "a", 2)]
    assert set(shown) == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["select.rule=question"],
            "--set: `select`: expected `answers` of at least 2 for `rule: question`, which has nothing to choose "
            'from 1, found {"rule": "question"}',
        ),
        (
            ["select.scores=[agree]"],
            "--set: `select`: expected `answers` of at least 2 for the score agree, which compares an answer with the "
            'others, found {"scores": ["agree"]}',
        ),
        (
            ["select.weights={agree: 1}", "select.rule=seeds"],
            "--set: `select`: expected `rule: first` beside `weights`, which are a rule themselves (it is seeds), "
            'found {"weights": {"agree": 1}, "rule": "seeds"}',
        ),
        (
            ["select.keep={question: 90}"],
            "--set: `select.keep`: expected shares of the seeds in (0, 1] by score (natural, icl_gain, question, "
            "agree, seeds, distance), found 90",
        ),
        (
            ["select.answers=2", "answers.temperature=0"],
            "configuration: expected `answers.temperature` above 0 for `select.answers` above 1, or all answers are "
            "the same",
        ),
        *(
            (
                [*setting, without],
                "configuration: expected `answers.demos` above 0 and `answers.retrieve` nearest or random for icl_gain "
                f"as `{named}`, or it is 0 for every answer",
            )
            for setting, named in (
                (["select.answers=2", "select.rule=icl_gain"], "select.rule"),
                (["select.answers=2", "select.weights={icl_gain: 1}"], "select.weights"),
                (["select.keep={icl_gain: 0.9}"], "select.keep"),
                (["select.scores=[icl_gain]", "train.weights=icl_gain"], "train.weights"),
            )
            for without in ("answers.demos=0", "answers.retrieve=none")
        ),
    ],
)
def test_a_selection_that_can_not_be_is_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(message) + "$"):
        load_config(None, settings)


def test_the_embedded_model_tells_a_refusal_that_fits_anything_from_an_answer() -> None:
    parts = build_parts(
        load_config("recipes/safety", ["retrieve.embedder=lexical", "engine.child_process=false", "engine.device=cpu"])
    )
    pool = Pool(parts.embedder, parts.seeds)
    held = leave_one_out(pool, retriever(pool, "nearest", 5, 0))
    # Seeds that are answered without a refusal.
    held = [each for each in held if " can't " not in each.pair.answer and " won't " not in each.pair.answer][:3]
    bare = [replace(each, pair=replace(each.pair, answer="I'm sorry, I can't help with that.")) for each in held]
    with parts.asker(parts.model) as asker:
        rows = Scorer(asker, asker, pool)(["natural", "question"], [*held, *bare], parts.seeds)
    own, refusals = rows[: len(held)], rows[len(held) :]
    assert all(one["natural"] < other["natural"] for one, other in zip(own, refusals, strict=True))
    assert sum(row["question"] for row in own) > sum(row["question"] for row in refusals) + 0.5


def test_weights_rise_with_the_score_are_clipped_and_have_a_mean_of_one() -> None:
    found = weights([0.0, 1.0, 2.0, 50.0, None])
    assert found[0] < found[1] < found[2] < found[3] and found[4] > found[2]
    assert sum(found) / len(found) == pytest.approx(1, abs=1e-4)
    spread = weights([-100.0, *[0.0] * 20, 100.0])
    assert spread[-1] / spread[0] == pytest.approx(MOST / LEAST, rel=1e-3)
    assert weights([2.0, 2.0]) == weights([None, None]) == [1.0, 1.0] and weights([]) == []


def test_pairs_are_trained_on_with_weights_of_their_stored_scores(tmp_path: Path) -> None:
    trained: list[Sequence[QAPair]] = []

    class Remembering(CountingTrainer):
        def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
            trained.append(pairs)
            return super().fit(pairs, start, out)

    settings = ("iterations=1", "select.answers=3", "answers.temperature=0.7", "select.scores=[agree]")
    align(tmp_path / "run", *settings, "train.weights=agree", trainer=Remembering())
    rows = [row for row in stored(tmp_path / "run", 1) if row["accepted"]]
    expected = weights([row["answer_draws"][row["chosen"]]["scores"]["agree"] for row in rows])
    assert [pair.weight for pair in trained[0]] == [1.0] * len(SEEDS) + expected and len(set(expected)) > 1
    key = json.loads((tmp_path / "run/iteration-01/train/key.json").read_text())
    assert key["weights of pairs"] == [pair.weight for pair in trained[0]]
    # Generation knows nothing of it, so that it is shared.
    align(tmp_path / "plain", *settings)
    plain = tree(tmp_path / "plain")
    assert {name: sha for name, sha in tree(tmp_path / "run").items() if "generate" in name} == {
        name: sha for name, sha in plain.items() if "generate" in name
    }
    assert "weights of pairs" not in (tmp_path / "plain/iteration-01/train/key.json").read_text()


def test_weights_by_a_score_that_is_not_stored() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, ["train.weights=question"])
    assert "expected question among `select.scores` for `train.weights: question`" in str(error.value)


REFUSED = [
    QAPair(f"How do I rob the {what}?", f"I am sorry, I can't help with the {what}.")
    for what in ("bank", "inn", "king", "mill", "shop", "well")
]
HELPED = [
    QAPair(f"How do I find the {what}?", f"Go {where}.")
    for what, where in (("bank", "left"), ("inn", "right"), ("well", "north"))
]


def by_kind(kind: str = "nearest", k: int = 2, more: Sequence[QAPair] = ()) -> ByKind:
    seeds = Pool(LexicalEmbedder(), [*REFUSED, *HELPED])
    return ByKind(seeds, Pool(LexicalEmbedder(), [*seeds.pairs, *more]), kind, k, 0)  # type: ignore[arg-type]


def test_kinds_are_drawn_one_at_a_time_and_as_often_as_the_seeds_have_them() -> None:
    focus, rng = by_kind(), random.Random(0)
    drawn = [focus.draw(turn, 4, rng) for turn in range(1000)]
    assert all(
        set(map(id, each)) <= set(map(id, REFUSED)) or set(map(id, each)) <= set(map(id, HELPED)) for each in drawn
    )
    assert sum(each[0] in REFUSED for each in drawn) / 1000 == pytest.approx(6 / 9, abs=0.05)
    assert {len(each) for each in drawn if each[0] in REFUSED} == {4}
    [three] = {len(each) for each in drawn if each[0] in HELPED}
    assert three == 3 and focus.fill(POOL, HELPED, 8) == HELPED[::-1]  # no seed of another kind fills up
    assert focus.fill(POOL, REFUSED[:1], 3)[-1] == REFUSED[0] and len(focus.fill(POOL, REFUSED[:1], 3)) == 3
    ids = {tuple(found) for found in focus.to_json()["kinds"].values()}
    assert ids == {tuple(pair.id for pair in REFUSED), tuple(pair.id for pair in HELPED)}


def test_an_answer_follows_pairs_of_the_kind_that_its_question_was_asked_after() -> None:
    focus = by_kind(more=[QAPair("How do I rob the bank at night?", "I am sorry, I can't help with the night.")])
    asked: list[Candidate] = []
    for kind in (REFUSED, HELPED):
        draw = Draw("How do I find the bank at night?", 1, "stop", "", 0, (kind[1].id, kind[0].id), (0.0, 0.0))
        asked.append(Candidate(QAPair(f"{draw.text} {len(asked)}", ""), draw))
    asked.append(Candidate(QAPair("How do I rob?", ""), Draw("How do I rob?", 1, "stop", "", 0)))  # no room was left
    shown = focus.answering(asked, retriever(POOL, "nearest", 1, 0))
    assert shown(asked.pop().pair)[0][0] in SEEDS
    refused, helped = ([pair.answer for pair, _ in shown(each.pair)] for each in asked)
    assert all("can't help" in answer for answer in refused) and "I am sorry, I can't help with the night." in refused
    assert len(helped) == 2 and all(answer.startswith("Go ") for answer in helped)


def test_seeds_of_one_kind_are_all_drawn_from_which_is_said(caplog: pytest.LogCaptureFixture) -> None:
    focus = ByKind(Pool(LexicalEmbedder(), HORSES), Pool(LexicalEmbedder(), HORSES), "nearest", 2, 0)
    assert len(focus.seeds) == 1 and sorted(focus.draw(0, 9, random.Random(0)), key=HORSES.index) == HORSES
    assert "questions.focus: kinds: the seeds' answers are of one kind" in caplog.text


@pytest.mark.parametrize("odd", [1, 2, 3])
def test_a_kind_of_one_or_two_seeds_is_told_of_once(odd: int, caplog: pytest.LogCaptureFixture) -> None:
    seeds = Pool(LexicalEmbedder(), [*REFUSED, *HELPED[:odd]])
    focus = ByKind(seeds, seeds, "nearest", 2, 0)
    assert sorted(map(len, focus.seeds.values())) == [odd, len(REFUSED)]
    told = (
        "questions.focus: kinds: 1 of 2 kinds of answers have fewer than 3 seeds, so that their questions follow the "
        "same one or two; add seeds like them"
    )
    assert caplog.messages == ([told] if odd < 3 else [])


def test_a_run_by_kinds_keeps_questions_and_answers_to_one_kind(tmp_path: Path) -> None:
    seeds = [*REFUSED, *HELPED]
    kind_of = {pair.id: pair in REFUSED for pair in seeds}
    settings = ["iterations=1", "generate.accept=12", "questions.demos=2", "questions.focus=kinds", "heldout=0"]
    align(tmp_path / "run", *settings, seeds=seeds, heldout=[])
    rows = [row for row in stored(tmp_path / "run", 1) if row["answer_draws"]]
    shown = [(row["question_draw"]["demo_ids"], row["answer_draws"][0]["demo_ids"]) for row in rows]
    kinds = [{kind_of[each] for each in (*question, *answer)} for question, answer in shown]
    assert all(len(found) == 1 for found in kinds) and {True} in kinds and {False} in kinds
