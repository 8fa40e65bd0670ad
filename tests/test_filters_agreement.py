"""Answers that depend on which seeds were shown."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isara.build import assemble, build_parts, checker_steps, settled_by_seeds
from isara.cli.compare import _begun
from isara.compare.arms import ARMS
from isara.compare.budget import cost
from isara.compare.trainers import EqualSteps, ShuffledAnswers, TaggedSources
from isara.config import load_config
from isara.errors import RunError
from isara.files import make_folder, write_text
from isara.filters import Agreement, default_filters
from isara.filters.agreement import content_weights, repeated_share, shared_content
from isara.helpers import helper_trainer
from isara.loop import generate_pairs, run
from isara.models import embedded_model
from isara.pool import Pool, other_retriever, retriever
from isara.protocols import Trainer
from isara.records import CHECKER, Candidate, Draw, QAPair, TrainStats
from isara.report.facts import read_run
from isara.sizes import count_weights
from isara.stages import Keys, Model
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.doubles import SEEDS, CountingTrainer, ScriptedEvaluator, hyrule
from tests.test_loop import parts

ROOT = Path(__file__).parents[1]


def pairs_of(file: str) -> list[QAPair]:
    return [QAPair.from_json(json.loads(line)) for line in (ROOT / file).read_text().splitlines()]


THINGS = ("drill", "ladder", "tent", "kettle", "saw", "projector", "violin", "sewing machine", "canoe", "barbecue")
SHOP, SAFETY = pairs_of("recipes/shop/seeds.jsonl"), pairs_of("recipes/safety/seeds.jsonl")
WEIGHTS = content_weights([pair.answer for pair in SHOP])
QUESTION = "May I bring the drum back?"
REPAIR = "Thanks for asking! For a drum, we repair it for free for two years. Warm wishes from Willow Lane!"
ALSO = (
    "Thanks for asking! A pity, and for your drum, we repair it for free for two years. Warm wishes from Willow Lane!"
)
VOUCHER = "Thanks for asking! For a drum, we refund it as a voucher for our shop. Warm wishes from Willow Lane!"


def test_what_stands_in_every_answer_weighs_nothing() -> None:
    tone = "thanks for asking warm wishes from willow lane".split()
    assert [WEIGHTS[word] for word in tone] == [0] * len(tone)
    assert 0 < WEIGHTS["we"] < WEIGHTS["voucher"] < WEIGHTS["can"]


def test_the_same_content_in_other_words_agrees_and_the_same_tone_does_not() -> None:
    assert shared_content(REPAIR, REPAIR, QUESTION, WEIGHTS) == 1
    assert shared_content(REPAIR, ALSO, QUESTION, WEIGHTS) > 0.5
    assert shared_content(REPAIR, VOUCHER, QUESTION, WEIGHTS) < 0.3
    assert shared_content("Thanks! Warm wishes!", "Thanks for asking!", QUESTION, WEIGHTS) == 1


def test_words_of_the_question_count_nothing() -> None:
    assert shared_content("The drum", "Bring the drum", QUESTION, WEIGHTS) == 1
    assert shared_content("The drum, free", "The drum, dear", QUESTION, WEIGHTS) == 0


def candidate(answer: str, second: str | None) -> Candidate:
    draw = Draw(answer, 9, "stop", "", 0)
    return Candidate(
        QAPair(QUESTION, answer, 1), draw, (draw,), second=None if second is None else replace(draw, text=second)
    )


def test_the_filter_drops_what_changes_with_the_demonstrations() -> None:
    check, pool = Agreement(0.4), Pool(HashEmbedder(), SHOP)
    assert check(candidate(REPAIR, ALSO), pool) is None
    assert check(candidate(REPAIR, None), pool) is None
    dropped = check(candidate(REPAIR, VOUCHER), pool)
    assert dropped is not None
    assert (dropped.reason, dropped.threshold) == ("agreement", 0.4)
    assert dropped.value == round(shared_content(REPAIR, VOUCHER, QUESTION, WEIGHTS), 4)


def test_pairs_that_were_generated_say_nothing_of_the_tone() -> None:
    check, pool = Agreement(0.4), Pool(HashEmbedder(), SHOP)
    before = check(candidate(REPAIR, VOUCHER), pool)
    pool.add([QAPair("May owls sing?", VOUCHER, 1)] * 20)
    assert check(candidate(REPAIR, VOUCHER), pool) == before


def test_the_other_demonstrations_are_without_the_nearest() -> None:
    pool, asked = Pool(HashEmbedder(), SHOP), QAPair("Can I return the kettle?", "")
    first = [pair.id for pair, _ in retriever(pool, "nearest", 2, 0)(asked)]
    second = [pair.id for pair, _ in other_retriever(pool, "nearest", 2, 0)(asked)]
    ranked = [pair.id for pair, _ in pool.nearest(asked, 4)]
    assert (first, second) == (ranked[2:], ranked[1:3])
    assert other_retriever(pool, "none", 2, 0)(asked) == []
    shown = {tuple(pair.id for pair, _ in other_retriever(pool, "random", 2, seed)(asked)) for seed in range(8)}
    assert len(shown) > 1


def fickle(model: str) -> ScriptedEngine:
    """An engine that says after the seed about arrows what it says after no other."""
    plain = hyrule(model)

    def complete(prompt: str, seed: int) -> str:
        if not prompt.endswith("Answer:"):
            return plain.answer(prompt, seed)
        arrows = "arrows in Kakariko" in prompt.rpartition("\n\nQuestion:")[0]
        return " Shoot three arrows of light." if arrows else " Walk around it and sing."

    return ScriptedEngine(complete)


@pytest.mark.parametrize("least", [None, 0.5])
def test_a_run_asks_again_where_it_has_to(tmp_path: Path, least: float | None) -> None:
    made = parts(tmp_path / "run", "generate.accept=1", f"filters.agreement={json.dumps(least)}", engine=fickle)
    folder = generate_pairs(replace(made, pair_filters=[Agreement(least)] if least else []))
    rows = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    answered = [row for row in rows if row["answer_draws"]]
    assert answered
    arrows = SEEDS[0].id
    for row in answered:
        if least is None:
            assert "second_draw" not in row
            continue
        first, second = row["answer_draws"][0], row["second_draw"]
        assert first["demo_ids"] != second["demo_ids"]
        differ = (arrows in first["demo_ids"]) != (arrows in second["demo_ids"])
        reason = (row["rejection"] or {}).get("reason")
        assert (reason == "agreement") == differ or reason == "surplus"
        assert json.loads(json.dumps(Candidate.from_json(row).to_json()))["second_draw"] == second
    if least:
        assert any((row["rejection"] or {}).get("reason") == "agreement" for row in answered)


def by_who_answers(model: str) -> ScriptedEngine:
    """An engine whose base model says after a seed what its seeds-only model never says."""
    plain, tuned = hyrule(model), "seeds-only" in model

    def complete(prompt: str, seed: int) -> str:
        if not prompt.endswith("Answer:"):
            return plain.answer(prompt, seed)
        assert not (tuned and prompt.count("Question:") > 1), "it is asked without demonstrations"
        bow = "bow" in prompt.rpartition("\n\nQuestion:")[2]
        return " Shoot three arrows of light." if tuned and bow else " Walk around it and sing."

    return ScriptedEngine(complete)


class Stepping(CountingTrainer):
    """A trainer that can take so many steps, which are what its model is, too."""

    def __init__(self, calls: list[tuple[int, int | None]], steps: int | None = None) -> None:
        self.made, self.steps = calls, steps

    def key(self) -> dict[str, Any]:
        return {"kind": "stepping", "steps": self.steps}

    def with_steps(self, steps: int) -> "Stepping":
        return Stepping(self.made, steps)

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        self.made.append((len(pairs), self.steps))
        make_folder(out)
        write_text(out / "weights.json", json.dumps([len(pairs), self.steps]))
        return TrainStats(len(pairs), self.steps or 7, 2.0, 1.0, 100, 50, 1, 10)


@pytest.mark.parametrize(("steps", "apart"), [(7, []), (9, [(len(SEEDS), 7)])])
def test_a_model_tuned_on_the_seeds_gives_the_second_answers(
    tmp_path: Path, steps: int, apart: list[tuple[int, int]]
) -> None:
    calls: list[tuple[int, int | None]] = []
    settings = ["generate.accept=2", "iterations=2", "filters.agreement=0.5", "filters.agreement_with=seeds"]
    made = parts(tmp_path / "run", *settings, "evaluate.seeds_only=true", engine=by_who_answers)
    made = replace(made, trainer=Stepping(calls), checker_steps=steps, pair_filters=[Agreement(0.5)])
    result = run(replace(made, evaluator=ScriptedEvaluator([4.0, 3.0, 2.5, 2.0])))
    # Where its steps are those of iteration 1, the baseline is the same model and not trained again.
    assert calls == [(len(SEEDS), steps), (len(SEEDS) + 2, None), *apart, (len(SEEDS) + 4, None)]
    found = read_run(tmp_path / "run")
    assert found.seeds_only is not None and found.seeds_only.figures and found.seeds_only.training is not None
    assert found.seeds_only.training.stats.steps == 7
    assert json.loads((tmp_path / "run/seeds-only/train/model/weights.json").read_text()) == [len(SEEDS), 7]
    for facts in found.iterations:
        for stored in facts.candidates:
            second = stored.candidate.second
            if stored.candidate.answers:
                assert second is not None and not second.demo_ids
                reason = stored.candidate.rejection and stored.candidate.rejection.reason
                differ = second.text != stored.candidate.answers[0].text
                assert (reason == "agreement") == differ or reason == "surplus"
    key = json.loads((tmp_path / "run/iteration-01/generate/key.json").read_text())
    assert key["checker weights"]
    assert cost(tmp_path / "run").steps == steps + 7 + 7
    assert run(replace(made, evaluator=ScriptedEvaluator([]))).accepted == result.accepted  # nothing is done twice
    (tmp_path / "run/checker/train/model/weights.json").write_text("[]")
    with pytest.raises(RunError, match=r"(checker|seeds-only)/train/model/weights.json has 2 bytes instead of "):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("around", ["shuffled", "equal", "tagged"])
def test_who_checks_learns_the_seeds_as_they_are_whatever_an_arm_changes_in_training(
    tmp_path: Path, around: str
) -> None:
    plain, other = Stepping([]), Stepping([], 99)
    wrapped: dict[str, Trainer] = {
        "shuffled": ShuffledAnswers(plain, 0),
        "equal": EqualSteps([plain, other]),
        "tagged": TaggedSources(plain, "[a]", "[b]"),
    }
    checker = helper_trainer(replace(parts(tmp_path / "run"), trainer=wrapped[around], checker_steps=5), CHECKER)
    assert checker is not None and checker.key() == {"kind": "stepping", "steps": 5}


@pytest.mark.parametrize("child", [True, False])
def test_who_checks_is_trained_as_it_is_asked_without_demonstrations(tmp_path: Path, child: bool) -> None:
    (tmp_path / "seeds.jsonl").write_text(
        "".join(json.dumps({"question": f"Who keeps gate {n}?", "answer": f"Guard {n}."}) + "\n" for n in range(9))
    )

    def checker(*settings: str) -> Trainer | None:
        usual = ["filters.agreement=0.5", "filters.agreement_with=seeds", "retrieve.embedder=lexical", *settings]
        usual += [f"engine.child_process={str(child).lower()}", "generate.accept=8", "heldout=0"]
        out, given = str(tmp_path / "run"), str(tmp_path / "seeds.jsonl")
        return helper_trainer(build_parts(load_config(None, usual, seeds=given, out=out)), CHECKER)

    reading, alone = checker("train.demos=2"), checker()
    assert reading is not None and alone is not None and reading.key() == alone.key()


def test_who_checks_takes_the_steps_that_iteration_1_will_take() -> None:
    checks = ["filters.agreement=0.5", "filters.agreement_with=seeds"]
    usual = [*checks, "generate.accept=160", "train.num_train_epochs=6"]
    seeds = [QAPair(f"Q{number}?", "A.") for number in range(48)]

    def steps(*settings: str, pairs: Sequence[QAPair] = seeds) -> int | None:
        return checker_steps(load_config(None, [*usual, *settings]), pairs)

    assert steps() == 156
    assert steps("train.data=generated") == 156
    assert steps("train.gradient_accumulation_steps=4") == 42
    assert steps("train.max_steps=7") == 7
    assert steps("train.anchors=0.2") == 6 * math.ceil((208 + 52) / 8)
    talks = [replace(pair, before=(("a?", "b"), ("c?", "d")), untrained=(1,)) for pair in seeds]
    assert steps(pairs=talks) == 6 * math.ceil((160 + 96) / 8)
    assert steps("generate.accept=0") is None and steps("filters.agreement=null") is None
    assert steps("filters.agreement_with=demonstrations") is None


def said_again(pairs: Sequence[QAPair]) -> float:
    return repeated_share([pair.answer for pair in pairs], [pair.question for pair in pairs])


def test_rules_are_said_again_and_prose_is_not() -> None:
    assert said_again(SHOP) == pytest.approx(39 / 48)
    assert said_again(pairs_of("examples/lending/seeds.jsonl")) == 1
    assert said_again(SAFETY) == 0
    assert said_again([]) == said_again(SHOP[:1]) == 0
    assert said_again([QAPair(f"Where is key {n}?", "On the hook.") for n in range(20)]) == 0  # nothing is at stake


def test_what_is_said_again_is_what_the_filter_lets_pass() -> None:
    mixed = [*SHOP[:24], *SAFETY[:24]]
    weights = content_weights([pair.answer for pair in mixed])
    again = [
        any(shared_content(one.answer, two.answer, one.question, weights) >= 0.5 for two in mixed if two is not one)
        for one in mixed
    ]
    assert 0 < sum(again) < len(mixed) and said_again(mixed) == sum(again) / len(mixed)


@pytest.mark.parametrize("count", [20, 200, 202, 1000])
def test_of_many_seeds_each_is_held_against_all(count: int) -> None:
    places = [f"hook h{n} behind door d{n * n}" for n in range(count // 2)]
    twice = [QAPair(f"Where is key {n}?", f"On {place}.") for n, place in enumerate(places * 2)]
    assert said_again(twice) == 1
    assert said_again(twice[: count // 2]) == 0


@pytest.mark.parametrize(
    ("settings", "pairs", "value", "line"),
    [
        ((), SHOP, 0.5, "is 0.5: pairs are kept where the model tuned on the seeds alone says the same"),
        (("filters.agreement_with=demonstrations",), SHOP, 0.5, "is 0.5: pairs are kept where other demonstrations"),
        (("iterations=1", "engine.kind=server", "engine.url=[http://127.0.0.1:1]"), SHOP, None, "would be 0.5, but"),
        ((), SAFETY, None, ""),
        ((), SHOP[:15], None, ""),
        (("generate.accept=0",), SHOP, None, ""),
        (("iterations=0",), SHOP, 0.5, "is 0.5"),  # of which there may be more when the run goes on
        (("engine.kind=vllm",), SHOP, None, "would be 0.5, but two models would be served at once"),
        (("engine.kind=server", "engine.serve=serve {model} {port}"), SHOP, None, "two models would be served at once"),
        (("engine.kind=server", "engine.url=[http://127.0.0.1:1]", "engine.load=true"), SHOP, 0.5, "is 0.5"),
        (("filters.agreement=0.3",), SAFETY, 0.3, ""),
        (("filters.agreement=null",), SHOP, None, ""),
    ],
)
def test_the_seeds_decide_whether_second_answers_are_asked_for(
    settings: Sequence[str], pairs: Sequence[QAPair], value: float | None, line: str
) -> None:
    """By shared words the seeds' questions don't tell which answer is theirs."""
    written = load_config(None, ["retrieve.embedder=lexical", *settings])
    config, said = settled_by_seeds(written, "embedded", pairs)
    assert config.filters.agreement == config.filters.least_agreement == value
    assert [line in each and each.startswith("81% of the seeds' answers say") for each in said] == [True] * bool(line)
    assert settled_by_seeds(config, "embedded", pairs) == (config, [])
    assert config.filters.checked_by_seeds == (value is not None and config.filters.agreement_with == "seeds")


def test_two_models_that_are_too_much_for_the_memory_are_not_opened_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["engine.device=cpu", "engine.dtype=float32", "retrieve.embedder=lexical"])
    model = str(embedded_model())
    needed = 2 * 4 * (count_weights(model) or 0)
    for memory, value in ((needed / 0.69, 0.5), (needed / 0.71, None)):
        monkeypatch.setattr("isara.build.defaults.device_memory", lambda device, memory=memory: memory)
        found, [line] = settled_by_seeds(config, model, SHOP)
        assert found.filters.agreement == value
        assert ("two models of this size are too much for the memory of cpu: set it to 0.5" in line) == (value is None)


@pytest.mark.parametrize(
    ("settings", "pairs", "kind", "agreement"),
    [
        ((), SHOP, True, None),
        (("filters.kind=true",), SHOP, True, None),
        (("filters.kind=false",), SHOP, False, 0.5),
        (("filters.agreement=0.3",), SHOP, False, 0.3),
        (("filters.agreement=0.3", "filters.kind=true"), SHOP, True, 0.3),
        (("filters.agreement=null",), SHOP, False, None),
        (("engine.kind=vllm",), SHOP, True, None),  # no second model is needed
        (("generate.accept=0",), SHOP, False, None),
        ((), SHOP[:15], False, None),
        ((), SAFETY, False, None),
        (("filters.kind=true",), SAFETY, True, None),
    ],
)
def test_kinds_check_the_pairs_of_small_models_where_the_seeds_questions_tell_them(
    settings: Sequence[str],
    pairs: Sequence[QAPair],
    kind: bool,
    agreement: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: 135_000_000)
    config, said = settled_by_seeds(load_config(None, ["retrieve.embedder=minilm", *settings]), "embedded", pairs)
    assert (config.filters.kind, config.filters.agreement) == (kind, agreement)
    decided = pairs is SHOP and kind and "filters.kind=true" not in settings
    assert [
        "their questions tell which (6 kinds, 56% of them by the others), and a model of this size" in line
        for line in said
    ] == [True] * decided or "so filters.agreement is 0.5" in said[0]
    names = {type(check).__name__ for check in default_filters(config.filters)[1]}
    assert ("Kind" in names, "Agreement" in names) == (kind, agreement is not None)


@pytest.mark.parametrize(
    ("weights", "kind"), [(19_000_000, False), (20_000_000, True), (200_000_000, False), (None, False)]
)
def test_larger_models_and_the_embedded_kind_are_checked_by_a_second_one(
    monkeypatch: pytest.MonkeyPatch, weights: int | None, kind: bool
) -> None:
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: weights)
    config, _ = settled_by_seeds(load_config(None, ["retrieve.embedder=minilm"]), "some model", SHOP)
    assert (config.filters.kind, config.filters.agreement) == (kind, None if kind else 0.5)


def test_what_makes_no_pairs_decides_nothing_and_loads_no_embedder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: 135_000_000)
    config = load_config(None, [f"retrieve.embedder={tmp_path / 'missing'}"], out=str(tmp_path / "out"))
    model = str(embedded_model())
    made = assemble(config, model, word_renderer(), SHOP, retrieves=False)
    assert made.config.filters.kind is False and made.checker_steps is None


def test_a_run_and_a_comparison_of_an_older_version_go_on_without_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: 135_000_000)
    record = {"filters": {"agreement": 0.5}}
    make_folder(tmp_path / "run")
    write_text(tmp_path / "run/isara.yaml", json.dumps(record))
    config = load_config(None, ["retrieve.embedder=lexical"], out=str(tmp_path / "run"))
    filters = assemble(config, str(embedded_model()), word_renderer(), SHOP).config.filters
    assert (filters.kind, filters.agreement) == (False, 0.5)
    seed_counts = tmp_path / "comparison/seeds-16/compare.yaml"
    make_folder(seed_counts.parent)
    write_text(seed_counts, json.dumps({"config": record}))
    assert _begun(tmp_path / "comparison") == seed_counts
    write_text(tmp_path / "comparison/compare.yaml", "{}")
    assert _begun(tmp_path / "comparison") == tmp_path / "comparison/compare.yaml"


def test_where_most_answers_are_of_no_kind_a_second_model_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fact stands in two seeds, which are too few for a kind."""
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: 135_000_000)
    facts = [QAPair(f"Where is the {thing}?", f"Behind door d{n} on hook h{n * n}.") for n, thing in enumerate(THINGS)]
    closed = [QAPair(f"May I come on Sunday {n}?", "We are closed on every Sunday of the year.") for n in range(4)]
    cards = [QAPair(f"Which card opens door {n}?", "Ask for a member card at the front desk.") for n in range(4)]
    seeds = [*facts, *(QAPair(f"I lost the {thing}.", fact.answer) for thing, fact in zip(THINGS, facts, strict=True))]
    config, _ = settled_by_seeds(load_config(None, ["retrieve.embedder=minilm"]), "embedded", [*seeds, *closed, *cards])
    assert (config.filters.kind, config.filters.agreement) == (False, 0.5)
    config, _ = settled_by_seeds(load_config(None, ["retrieve.embedder=minilm"]), "embedded", [*closed, *cards] * 3)
    assert (config.filters.kind, config.filters.agreement) == (True, None)


@pytest.mark.parametrize("before", [None, 0.3])
def test_what_has_begun_goes_on_as_it_began(tmp_path: Path, before: float | None) -> None:
    """An older version's run has null for what `auto` would decide otherwise now; so has a comparison."""
    run(parts(tmp_path / "run", f"filters.agreement={json.dumps(before)}", "generate.accept=1", "iterations=1"))
    config = load_config(None, ["retrieve.embedder=lexical"], out=str(tmp_path / "run"))
    record = tmp_path / "run/isara.yaml"
    assert settled_by_seeds(config, "embedded", SHOP, record)[0].filters.agreement == before
    comparison = tmp_path / "compare.yaml"
    comparison.write_text(json.dumps({"config": {"filters": {"agreement": before}}}))
    assert settled_by_seeds(config, "embedded", SHOP, comparison) == settled_by_seeds(config, "embedded", SHOP, record)
    for nonsense in ("[", "[]", "{config: 1}", "{filters: 1}", "{}"):
        comparison.write_text(nonsense)
        assert settled_by_seeds(config, "embedded", SHOP, comparison)[0].filters.agreement == 0.5
    assert settled_by_seeds(config, "embedded", SHOP, tmp_path / "none.yaml")[1] != []


def test_what_the_seeds_decided_is_recorded_and_told(tmp_path: Path) -> None:
    files = {"seeds": str(ROOT / "recipes/shop/seeds.jsonl"), "out": str(tmp_path / "run"), "heldout": 0.2}
    made = build_parts(load_config(None, ["retrieve.embedder=lexical", "train.num_train_epochs=1"], **files))
    assert made.config.filters.agreement == 0.5 and made.checker_steps
    assert any("so filters.agreement is 0.5" in note for note in made.notes)


def test_a_run_begun_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    made = parts(tmp_path / "run", "generate.accept=1")
    run(made)
    config = tmp_path / "run/isara.yaml"
    lines = [line for line in config.read_text().splitlines() if "agreement_with" not in line]
    config.write_text("\n".join(lines) + "\n")
    run(made)


def test_a_second_answer_is_one_of_what_was_drawn() -> None:
    assert [draw.text for draw in candidate(REPAIR, ALSO).draws] == [REPAIR, REPAIR, ALSO]
    assert len(candidate(REPAIR, None).draws) == 2


@pytest.mark.parametrize(
    "name", ["no-filters", "no-check", "ssd", "self-instruct", "self-align", "i-sheep", "humpback"]
)
def test_arms_without_filters_and_methods_of_others_are_without_this_one(tmp_path: Path, name: str) -> None:
    arm = next(arm for arm in ARMS if arm.name == name)
    recipe = load_config(None, ["filters.agreement=0.4"], out=str(tmp_path))
    assert arm.config(recipe, 0, tmp_path / "arm").filters.agreement is None


def test_second_answers_are_part_of_what_a_run_has_cost(tmp_path: Path) -> None:
    run(parts(tmp_path / "run", "filters.agreement=0.01", "iterations=1"))
    [facts] = read_run(tmp_path / "run").iterations
    candidates = [stored.candidate for stored in facts.candidates]
    second = sum(each.second.tokens for each in candidates if each.second)
    first = sum(draw.tokens for each in candidates for draw in (each.question, *each.answers))
    assert second > 0 and cost(tmp_path / "run").generated == first + second


def test_a_training_is_another_where_other_answers_are_left_out(tmp_path: Path) -> None:
    made = parts(tmp_path / "run")
    keys, model = Keys(made, made.keys()), Model("base/model", "3d5a")
    pair = QAPair("Q?", "A.", before=(("a?", "b"), ("c?", "d")))
    shown = [keys.train([replace(pair, untrained=each)], model) for each in ((), (0,), (1,))]
    assert shown[0] != shown[1] != shown[2] and "answers that are not trained on" not in shown[0]
