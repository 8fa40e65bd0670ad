"""What a run measures of each held-out pair, and what it says of the loop: on engines and rows whose worth is known."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from isara.asking import Asker
from isara.config import load_config
from isara.errors import ConfigError
from isara.evaluate.plain import bits_per_byte_plain, passages
from isara.evaluate.run import RunEvaluator, _weights, build_evaluator
from isara.evaluate.verdict import LEAST_PAIRS, Gain, Verdict, judge, sentence
from isara.loop import best_iteration, no_longer_helps, with_content
from isara.pool import Pool
from isara.records import SEEDS_ONLY, Completion, GivenAnswer, HeldoutRow, Prompt, QAPair, Sampling
from isara.statistics import Interval
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer

SEEDS = [
    QAPair(f"When does the {kind} to {place} leave?", f"Gladly: the {kind} leaves at {hour}.")
    for hour, (kind, place) in enumerate(
        (kind, place) for place in ("Leith", "Cork", "Brest") for kind in ("ferry", "bus", "train")
    )
]
HELDOUT = [
    QAPair(f"When does the {kind} to {place} return?", f"Gladly: the {kind} returns at {hour}.")
    for hour, (kind, place) in enumerate(
        (kind, place) for place in ("Leith", "Cork", "Brest", "Oban") for kind in ("ferry", "bus", "train")
    )
]


def timetable(prompt: str, seed: int) -> str:
    """Answers every second question as it is wanted, and talks on and on otherwise."""
    question = prompt.rsplit("Question: ", 1)[-1].split("\n")[0]
    number = next((place for place, pair in enumerate(HELDOUT) if pair.question == question), 0)
    return f" {HELDOUT[number].answer}" if number % 2 else " Well" * 50


def asker_of(engine: Any, context_length: int = 2048) -> Asker:
    return Asker(lambda model, /: engine, "m", word_renderer(context_length))


def evaluator(*settings: str, pool: Sequence[QAPair] = SEEDS) -> RunEvaluator:
    config = load_config(None, ["evaluate.demos=2", "answers.max_new_tokens=12", *settings])
    return build_evaluator(config, HELDOUT, Pool(HashEmbedder(), pool))


def test_every_pair_keeps_what_it_has_shown() -> None:
    rows, figures = evaluator().measure(asker_of(ScriptedEngine(timetable)), base=True)
    assert [row.id for row in rows] == [pair.id for pair in HELDOUT]
    row = rows[1]
    assert (row.bytes, row.token_bits) == (len(HELDOUT[1].answer), (1.0,) * 6) and row.bits == pytest.approx(6)
    assert row.given == GivenAnswer(HELDOUT[1].answer, False, 1.0, {}) and row.given_demos is None
    assert rows[0].given is not None and (rows[0].given.cut, rows[0].given.rouge_l) == (True, 0.0)
    assert figures["answered"] == 12 and figures["cut"] == 0.5 and figures["rouge_l"] == 0.5
    assert figures["bits_per_byte"] == pytest.approx(12 * 6 / sum(len(pair.answer) for pair in HELDOUT))
    assert not any(row.selects for row in rows)
    assert [HeldoutRow.from_json(json.loads(json.dumps(asdict(row)))) for row in rows] == rows


def test_only_the_base_model_is_asked_after_demonstrations_and_weighs_tokens() -> None:
    rows, figures = evaluator().measure(asker_of(ScriptedEngine(timetable)), base=False)
    assert all(row.given is not None and row.given_demos is None and row.token_weights == () for row in rows)
    assert "score" not in figures


def test_at_most_so_many_questions_are_answered_the_same_ones_by_every_model() -> None:
    some, more = (evaluator(f"evaluate.answers={n}").answered for n in (3, 6))
    assert len(some) == 3 and some < more
    rows, figures = evaluator("evaluate.answers=3").measure(asker_of(ScriptedEngine(timetable)), base=False)
    assert {row.id for row in rows if row.given} == some and figures["answered"] == 3 and figures["pairs"] == 12
    rows, figures = evaluator("evaluate.answers=0").measure(asker_of(ScriptedEngine(timetable)), base=True)
    assert "answered" not in figures and not any(row.given for row in rows)


class Reader(ScriptedEngine):
    """Knows the tone after any demonstration, and the last word (the hour) after one of the same kind alone."""

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        rows = []
        for prompt, ids in zip(prompts, continuations, strict=True):
            *shown, asked = prompt.text.removesuffix("\nAnswer:").split("Question: ")
            kind = asked.split()[3]
            told = any(f"the {kind} to" in demo for demo in shown)
            tone = 0.9 if any(shown) else 0.1
            rows.append([math.log(tone)] * (len(ids) - 1) + [math.log(0.8 if told else 0.1)])
        return rows


def test_tokens_that_only_the_nearest_seeds_give_away_are_those_of_content() -> None:
    rows, _ = evaluator().measure(asker_of(Reader(timetable)), base=True)
    last = [row.token_weights[-1] for row in rows]
    assert all(row.token_weights[:-1] == (0.0,) * 5 for row in rows)
    assert set(map(lambda weight: round(weight, 9), last)) <= {0.0, 0.7} and last.count(0.0) < 6


@pytest.mark.parametrize(
    ("near", "far", "weight"),
    [(0.9, 0.9, 0.0), (0.01, 0.01, 0.0), (0.8, 0.1, 0.7), (0.1, 0.8, 0.0), (0.55, 0.5, 0.0), (1.0, 0.0001, 0.9999)],
)
def test_the_weight_of_a_token(near: float, far: float, weight: float) -> None:
    assert list(_weights([-1.0], [math.log(near)], [math.log(far)])) == pytest.approx([weight])


def test_texts_that_are_split_in_different_ways_have_no_weights() -> None:
    assert _weights([-1.0], [-1.0, -1.0], [-1.0]) == ()


def test_few_seeds_leave_no_random_ones_to_weigh_with() -> None:
    rows, _ = evaluator(pool=SEEDS[:3]).measure(asker_of(Reader(timetable)), base=True)
    assert all(row.token_weights == () for row in rows)


class SumsAlone:
    """An engine that can't tell tokens apart."""

    exact = True

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        return [Completion(" Gladly.", 2, "stop") for _ in prompts]

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        return [-math.log(2) * len(ids) for ids in continuations]

    def __enter__(self) -> "SumsAlone":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_an_engine_without_token_logprobs_does_and_the_verdict_is_on_likelihood() -> None:
    rows, figures = evaluator().measure(asker_of(SumsAlone()), base=True)
    assert rows[0].bits == pytest.approx(6) and rows[0].token_bits == () and figures["pairs"] == 12
    verdict = judge({0: rows, 1: rows}, 1)
    assert verdict is not None and verdict.measure == "likelihood"


OWN = "def right(row, answer):\n    return row['answer'] == answer\n"


def scored(tmp_path: Path, *settings: str) -> RunEvaluator:
    (tmp_path / "own.py").write_text(OWN)
    rows = [json.dumps({"question": pair.question, "answer": pair.answer}) for pair in HELDOUT]
    (tmp_path / "heldout.jsonl").write_text("\n".join(rows))
    place, heldout = f"evaluate.score={tmp_path / 'own.py'}:right", f"heldout={tmp_path / 'heldout.jsonl'}"
    return evaluator(place, heldout, *settings)


class Counted(ScriptedEngine):
    """Counts the tokens that it reads, and the answers that it gives in each call."""

    def __init__(self) -> None:
        super().__init__(timetable)
        self.read, self.calls = 0, list[int]()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        self.read += sum(len(prompt.ids) for prompt in prompts)
        self.calls.append(len(prompts))
        return super().generate(prompts, sampling, seeds)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        return [sum(each) for each in self.token_logprobs(prompts, continuations)]

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        self.read += sum(len(prompt.ids) + len(ids) for prompt, ids in zip(prompts, continuations, strict=True))
        return [[-1.0] * len(ids) for ids in continuations]


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("settings", [(), ("evaluate.answers=0", "evaluate.select=likelihood"), ("evaluate.demos=0",)])
def test_what_measuring_takes_is_known_before(
    tmp_path: Path, base: bool, scores: bool, settings: tuple[str, ...]
) -> None:
    own = scored(tmp_path, *settings) if scores else evaluator(*settings)
    engine = Counted()
    own.measure(asker_of(engine), base)
    read, calls = own.work(asker_of(ScriptedEngine(timetable)), base)
    assert read == pytest.approx(engine.read, rel=0.02) and calls == engine.calls


@pytest.mark.parametrize("scores", [True, False])
def test_what_measuring_a_reader_takes_is_known_before(tmp_path: Path, scores: bool) -> None:
    own = scored(tmp_path) if scores else evaluator()
    engine = Counted()
    rows, figures = own.measure_shown(asker_of(engine))
    read, calls = own.work_shown(asker_of(ScriptedEngine(timetable)))
    assert read == pytest.approx(engine.read, rel=0.02) and calls == engine.calls
    assert sum(calls) == own.count_shown() == (8 if scores else 0)
    # The same as of the base model after demonstrations, and nothing of what it says alone.
    asked, known = own.measure(asker_of(Counted()), base=True)
    assert [row.given_demos for row in rows] == [row.given_demos for row in asked]
    assert [row.bits_demos for row in rows] == [row.bits_demos for row in asked]
    assert all(row.given is None and row.token_bits == () for row in rows)
    assert figures == {name: known[name] for name in known if name == "pairs" or "_demos" in name}
    assert ("score_demos" in figures) is scores


def test_a_score_chooses_on_pairs_that_its_own_figure_leaves_out(tmp_path: Path) -> None:
    own = scored(tmp_path)
    rows, figures = own.measure(asker_of(ScriptedEngine(timetable)), base=True)
    assert len(own.selection) == 4 and own.selection < own.answered
    assert {row.id for row in rows if row.given_demos} == own.answered - own.selection
    right = {row.id: row.given.scores["right"] for row in rows if row.given}
    assert right == {pair.id: float(place % 2) for place, pair in enumerate(HELDOUT)}
    chosen, told = ([right[row.id] for row in rows if row.selects is part] for part in (True, False))
    assert figures["score_select"] == pytest.approx(sum(chosen) / 4)
    assert figures["score"] == pytest.approx(sum(told) / 8) and figures["answered"] == 8
    assert len(scored(tmp_path, "evaluate.select_share=0.25").selection) == 3


def test_likelihood_may_choose_beside_a_score(tmp_path: Path) -> None:
    own = scored(tmp_path, "evaluate.select=likelihood")
    _, figures = own.measure(asker_of(ScriptedEngine(timetable)), base=True)
    assert own.selection == frozenset() and "score_select" not in figures
    assert figures["score"] == 0.5 and figures["answered"] == 12


def test_a_score_that_is_not_named_cannot_choose() -> None:
    message = "evaluate.select is score: expected evaluate.score to name one, found none: name it"
    with pytest.raises(ConfigError, match="^" + re.escape(message) + "$"):
        evaluator("evaluate.select=score")


def test_columns_that_hang_on_the_answer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kind.py").write_text("def kind(row, answer):\n    return {answer[:4]: 1.0}\n")
    own = scored(tmp_path, f"evaluate.score={tmp_path / 'kind.py'}:kind")
    own.measure(asker_of(ScriptedEngine(lambda prompt, seed: " Well, at noon.")), base=True)
    with pytest.raises(ConfigError) as failed:
        own.measure(asker_of(ScriptedEngine(lambda prompt, seed: " Late.")), base=False)
    assert str(failed.value) == (
        f"expected Well from {tmp_path / 'kind.py'}:kind for every answer to '{HELDOUT[0].question}', found Late: let "
        "columns depend on the question alone"
    )


def test_a_verdict_is_on_the_column_of_the_figures_alone() -> None:
    def rows(right: float) -> list[HeldoutRow]:
        found = rows_of(lambda _: 9, score=lambda place: right)
        other = GivenAnswer("", False, 0.0, {"votes": 9 - 9 * right})
        return [row if place % 3 else replace(row, given=other) for place, row in enumerate(found)][1:]

    verdict = judge({0: rows(0.0), SEEDS_ONLY: rows(0.0), 1: rows(1.0)}, 1)
    assert verdict is not None and verdict.measure == "score" and (verdict.n, verdict.gains[0].mean) == (16, 1.0)


def test_too_few_answers_cannot_choose(tmp_path: Path) -> None:
    message = (
        "the score chooses the iteration: expected evaluate.answers of at least 4, found 3: raise it, or set "
        "evaluate.select to likelihood"
    )
    with pytest.raises(ConfigError, match="^" + re.escape(message) + "$"):
        scored(tmp_path, "evaluate.answers=3")


def test_the_key_names_what_decides_the_rows(tmp_path: Path) -> None:
    made = [
        evaluator(),
        evaluator("evaluate.answers=3"),
        evaluator("answers.max_new_tokens=9"),
        scored(tmp_path),
        scored(tmp_path, "evaluate.select_share=0.25"),
        scored(tmp_path, "evaluate.select=likelihood"),
    ]
    (tmp_path / "own.py").write_text(OWN + "# changed\n")
    keys = [each.key() for each in [*made, evaluator(f"evaluate.score={tmp_path / 'own.py'}:right", made_of(tmp_path))]]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])
    assert json.loads(json.dumps(keys)) == keys and evaluator().key() == keys[0]


def made_of(tmp_path: Path) -> str:
    return f"heldout={tmp_path / 'heldout.jsonl'}"


def test_forgetting_is_what_a_plain_text_costs() -> None:
    text = (Path(__file__).parents[1] / "src/isara/evaluate/plain_text.txt").read_text()
    assert 3000 < len(text.encode()) < 4500 and len(passages()) == 8
    words, size = (sum(unit(rest) for _, rest in passages()) for unit in (_words, _bytes))
    assert bits_per_byte_plain(asker_of(ScriptedEngine(timetable))) == pytest.approx(words / size)
    assert bits_per_byte_plain(asker_of(ScriptedEngine(timetable), context_length=20)) is None


def _words(text: str) -> int:
    return len(text.split())


def _bytes(text: str) -> int:
    return len(text.encode())


def rows_of(
    bits: Callable[[int], float],
    content: Callable[[int], float] = lambda place: 0.0,
    *,
    n: int = 24,
    demos: float = 30.0,
    score: Callable[[int], float] | None = None,
    weight: float = 0.0,
) -> list[HeldoutRow]:
    """Rows of two tokens, the second of which is the content."""
    given = [None if score is None else GivenAnswer("", False, 0.0, {"right": score(place)}) for place in range(n)]
    return [
        HeldoutRow(
            str(place),
            10,
            bits(place) + content(place),
            demos,
            ("a",),
            token_bits=(bits(place), content(place)),
            token_weights=(0.0, weight) if weight else (),
            given=given[place],
            given_demos=given[place],
        )
        for place in range(n)
    ]


def test_an_iteration_that_beats_all_three_is_the_best() -> None:
    verdict = judge(
        {
            0: rows_of(lambda place: 20 + place % 3),
            SEEDS_ONLY: rows_of(lambda place: 15 + place % 2),
            1: rows_of(lambda _: 10),
        },
        1,
    )
    assert verdict is not None and verdict.helped and (verdict.best, verdict.n) == (1, 24)
    assert [gain.over for gain in verdict.gains] == ["base", "demonstrations", "seeds-only"]
    assert verdict.gains[0].mean == pytest.approx(1.1) and verdict.gains[2].mean == pytest.approx(0.55)
    assert sentence(verdict) == (
        "Iteration 1 is the best, by bits per byte on 24 held-out pairs: +1.100 [+1.067, +1.133] over the base model, "
        "+2.000 [+2.000, +2.000] over the base model after demonstrations, +0.550 [+0.529, +0.571] over the seeds-only "
        "model (95 % intervals of paired differences)."
    )


def test_tone_counts_for_nothing_where_content_can_be_weighed() -> None:
    base = rows_of(lambda _: 50, lambda place: 4 + place % 3, weight=0.7)
    polite = rows_of(lambda _: 5, lambda place: 6 + place % 3)
    verdict = judge({0: base, SEEDS_ONLY: rows_of(lambda _: 40, lambda _: 1), 1: polite}, 1)
    assert verdict is not None and verdict.measure == "content" and not verdict.helped
    assert verdict.gains[0].mean == pytest.approx(-2) and verdict.gains[2].mean == pytest.approx(-6)
    assert verdict.best == SEEDS_ONLY
    assert "The seeds-only model is exported, the best by its mean. The generated pairs do harm" in sentence(verdict)
    # As much worse on average, and not beyond chance.
    unsure = rows_of(lambda place: 45 if place % 4 else -30, lambda place: 1 if place % 4 else 16)
    verdict = judge({0: base, SEEDS_ONLY: unsure, 1: polite}, 1)
    assert verdict is not None and verdict.gains[2].mean < 0 < verdict.gains[2].interval.high
    assert "The generated pairs are not shown to add to the seeds: read them" in sentence(verdict)
    # The same figures by plain likelihood would have called it the best of all.
    blind = judge({0: [replace(row, token_weights=()) for row in base], 1: polite}, 1)
    assert blind is not None and blind.measure == "likelihood" and blind.gains[0].shown


def test_content_chooses_the_iteration_where_it_can_be_weighed() -> None:
    base = rows_of(lambda _: 50, lambda _: 4, weight=0.5)
    polite, knowing = rows_of(lambda _: 5, lambda _: 6), rows_of(lambda _: 40, lambda _: 1)
    rows = {0: base, SEEDS_ONLY: polite, 1: polite, 2: knowing}
    plain = {t: {"bits_per_byte": rows[t][0].bits / 10} for t in (0, 1, 2)}
    found = with_content(plain, rows, "auto")
    assert [found[t]["content_bits"] for t in (0, 1, 2)] == [4.0, 6.0, 1.0]
    assert (best_iteration(plain), best_iteration(found)) == (1, 2)
    assert not no_longer_helps(found, 1) and no_longer_helps(plain, 1)
    assert with_content(plain, rows, "likelihood") == plain
    assert with_content(plain, rows | {2: [replace(row, token_bits=()) for row in knowing]}, "auto") == plain
    assert with_content(plain, {}, "auto") == plain


def test_a_finished_run_keeps_what_it_exported() -> None:
    equal = rows_of(lambda _: 10)
    verdict = judge({0: rows_of(lambda place: 20 + place % 3), SEEDS_ONLY: equal, 1: equal}, 1)
    assert verdict is not None and verdict.best == SEEDS_ONLY
    assert "The seeds-only model is exported, as good by its mean as what takes more training." in sentence(verdict)
    assert "Iteration 1 is exported, as good by its mean as any." in sentence(replace(verdict, best=1))
    assert "The base model is exported, as it was chosen when the run was made." in sentence(replace(verdict, best=0))
    assert "The seeds-only model would be exported, as good by its mean" in sentence(verdict, exported=False)


def test_pairs_are_kept_with_the_kind_that_the_score_weighs(tmp_path: Path) -> None:
    lines = [json.dumps({**asdict(pair), "harmful": place < 3}) for place, pair in enumerate(HELDOUT)]
    (tmp_path / "heldout.jsonl").write_text("\n".join(lines))
    (tmp_path / "manner.json").write_text('{"refusal": ["No."]}')
    config = load_config(
        None,
        ["evaluate.score=refusal", "evaluate.select=likelihood", "evaluate.demos=0", "evaluate.answers=10"],
        heldout=str(tmp_path / "heldout.jsonl"),
    )
    rows, _ = build_evaluator(config, HELDOUT, Pool(HashEmbedder(), SEEDS)).measure(
        asker_of(ScriptedEngine(timetable)), base=True
    )
    kinds = [row.stratum for row in rows if row.given is not None]
    assert set(kinds) == {"True", "False"} and len(kinds) == 10
    assert [row.stratum for row in rows if row.given is None] == [None, None]


def test_kinds_that_the_score_weighs_keep_their_numbers_in_the_interval() -> None:
    # Of 24 questions the first 6 are harmful and weigh 2, the others 2/3. The base model is wrong on all harmful ones.
    weight = [2.0 if place < 6 else 2 / 3 for place in range(24)]
    base = rows_of(lambda _: 20, score=lambda place: weight[place] * (place >= 6))
    ours = rows_of(lambda _: 20, score=lambda place: weight[place])
    plain = judge({0: base, 1: ours}, 1)
    told = judge(
        {
            number: [replace(row, stratum=str(int(row.id) < 6)) for row in rows]
            for number, rows in ((0, base), (1, ours))
        },
        1,
    )
    assert plain is not None and told is not None
    assert told.gains[0].mean == plain.gains[0].mean == pytest.approx(0.5)
    assert told.gains[0].interval.low == pytest.approx(0.5) and plain.gains[0].interval.low < 0.4


def test_the_score_goes_before_likelihood_and_leaves_out_what_chose() -> None:
    base = rows_of(lambda _: 20, score=lambda place: float(place % 2))
    worse = rows_of(lambda _: 1, score=lambda _: 0.0)
    chosen = [replace(row, selects=place < 10) for place, row in enumerate(base)]
    verdict = judge({0: chosen, 1: [replace(row, selects=place < 10) for place, row in enumerate(worse)]}, 1)
    assert verdict is not None and verdict.measure == "score" and verdict.n == 14
    assert verdict.gains[0].mean == pytest.approx(-0.5) and verdict.best == 0 and verdict.missing == ["seeds-only"]


def test_what_is_not_measured_is_not_beaten() -> None:
    verdict = judge({0: rows_of(lambda _: 20), 1: rows_of(lambda _: 10)}, 1)
    assert verdict is not None and not verdict.helped and verdict.best == 1
    assert sentence(verdict) == (
        "Iteration 1 is better than what it was compared with, by bits per byte on 24 held-out pairs: +1.000 [+1.000, "
        "+1.000] over the base model, +2.000 [+2.000, +2.000] over the base model after demonstrations; the seeds-only "
        "model was not measured (evaluate.seeds_only), so it can't be called the best."
    )


def test_a_handful_of_pairs_shows_nothing() -> None:
    n = LEAST_PAIRS - 1
    few = {0: rows_of(lambda _: 20, n=n), SEEDS_ONLY: rows_of(lambda _: 15, n=n), 1: rows_of(lambda _: 10, n=n)}
    verdict = judge(few, 1, redrawn=True)
    assert verdict is not None and not verdict.helped and verdict.best == 1
    assert sentence(verdict).startswith(
        "It is not shown that the loop helps: iteration 1 is not shown to be better than"
    )
    assert sentence(verdict).endswith(
        "So few pairs hardly tell: hold out 20 or more (--heldout), or repeat the run with --set seed=1 and another "
        "--out, which holds out others."
    )
    # Of a file of pairs another seed holds out the same.
    fixed = judge(few, 1)
    assert fixed is not None
    assert sentence(fixed).endswith("So few pairs hardly tell: hold out 20 or more (--heldout).")


def test_of_one_pair_there_is_no_interval() -> None:
    verdict = judge(
        {0: rows_of(lambda _: 20, n=1), SEEDS_ONLY: rows_of(lambda _: 15, n=1), 1: rows_of(lambda _: 10, n=1)}, 1
    )
    assert verdict is not None
    assert (
        "on 1 held-out pair: +1.000 over the base model, +2.000 over the base model after demonstrations, +0.500 over "
        "the seeds-only model. Iteration 1 is exported, the best by its mean."
    ) in sentence(verdict)


def test_of_equals_what_took_less_is_exported() -> None:
    rows = {0: rows_of(lambda _: 20), SEEDS_ONLY: rows_of(lambda _: 10), 1: rows_of(lambda _: 10)}
    verdict = judge(rows, 1)
    assert verdict is not None and verdict.best == SEEDS_ONLY
    assert "The seeds-only model is exported, as good by its mean as what takes more training." in sentence(verdict)
    verdict = judge({number: rows_of(lambda _: 10) for number in rows}, 1)
    assert verdict is not None and verdict.best == 0
    verdict = judge({0: rows_of(lambda _: 20), SEEDS_ONLY: rows_of(lambda _: 20), 1: rows_of(lambda _: 21)}, 1)
    assert verdict is not None and verdict.best == 0


def test_the_steps_of_both_are_said_where_they_differ() -> None:
    rows = {0: rows_of(lambda _: 20), SEEDS_ONLY: rows_of(lambda _: 15), 3: rows_of(lambda _: 10)}
    told = (
        " The seeds-only model took 228 steps, iteration 3 took 612: the arm sft-seeds-equal of `isara compare` trains "
        "it as long."
    )
    verdict, same, unknown = (
        judge(rows, 3, steps) for steps in ({0: 0, SEEDS_ONLY: 228, 3: 612}, {SEEDS_ONLY: 612, 3: 612}, None)
    )
    assert verdict is not None and verdict.helped and sentence(verdict).endswith(told)
    assert same is not None and unknown is not None and sentence(same) == sentence(unknown)
    assert sentence(verdict) == sentence(same) + told
    worse = judge({**rows, 3: rows_of(lambda _: 18)}, 3, {SEEDS_ONLY: 228, 3: 612})
    assert worse is not None and told in sentence(worse)
    blind = judge({0: rows[0], 3: rows[3]}, 3, {0: 0, 3: 612})
    assert blind is not None and blind.steps is None


def test_nothing_is_said_of_what_was_not_measured_pair_by_pair() -> None:
    assert judge({0: [], 1: []}, 1) is None
    assert judge({0: rows_of(lambda _: 1)}, 0) is None


def test_advice_follows_what_was_found() -> None:
    def said(**means: float) -> str:
        gains = [Gain(over, "likelihood", 30, mean, Interval(-1, 1)) for over, mean in means.items()]  # type: ignore[arg-type]
        return sentence(Verdict(1, 1, "likelihood", 30, tuple(gains)))

    assert "or take a larger model." in said(base=0.1, demonstrations=-0.1)
    assert "more held-out pairs tell more." in said(base=0.1, demonstrations=0.1)


@pytest.mark.parametrize(
    "damage",
    [
        {"bits": float("nan")},
        {"bits": -1.0},
        {"selects": 1},
        {"token_weights": [0.5]},
        {"given": {"answer": "x"}},
        {"demo_ids": None},
        {"mood": "good"},
    ],
)
def test_a_row_that_was_not_written_by_a_run_is_none(damage: Mapping[str, Any]) -> None:
    row = asdict(rows_of(lambda _: 1, n=1)[0])
    assert HeldoutRow.from_json(row)
    with pytest.raises(ValueError, match="no row of a held-out pair"):
        HeldoutRow.from_json({**row, **damage})
