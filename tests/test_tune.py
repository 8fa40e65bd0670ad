"""Tuning on a model that is known: what it is said to want is what it was made to want."""

import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isara import load_config
from isara.embedders import LexicalEmbedder
from isara.errors import SeedError
from isara.parts import Parts
from isara.records import Prompt, QAPair
from isara.statistics import paired_difference
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from isara.tune import report
from isara.tune.likelihood import Choice, sample
from isara.tune.plot import draw
from isara.tune.tune import LARGER, Tuned, best, pick, tune
from tests.doubles import CountingTrainer, hyrule

SEEDS = [QAPair(f"Where does hero {n} of Hyrule rest?", f"In the inn of village {n}.") for n in range(20)]


class Reader(ScriptedEngine):
    """A model for which an answer costs what a function of the number of demonstrations says, in bits a token."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        super().__init__(hyrule("base").answer)
        self.cost = cost
        self.measured: list[Prompt] = []

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        self.measured += prompts
        shown = [prompt.text.count("Answer:") - 1 for prompt in prompts]
        # Each prompt differs a little, as real ones do.
        return [
            -math.log(2) * len(ids) * (self.cost(k) + zlib.crc32(prompt.text.encode()) % 100 / 1000)
            for k, prompt, ids in zip(shown, prompts, continuations, strict=True)
        ]


def parts(engine: ScriptedEngine, *settings: str, seeds: Sequence[QAPair] = SEEDS) -> Parts:
    return Parts(
        config=load_config(None, ["questions.max_new_tokens=24", "answers.max_new_tokens=40", *settings]),
        seeds=seeds,
        model="base/model",
        renderer=word_renderer(),
        engine=lambda model: engine,
        embedder=HashEmbedder(),
        trainer=CountingTrainer(),
        weights=lambda model: "3d5a",
    )


@pytest.fixture(scope="module")
def three() -> Tuned:
    """Of a model that reads three demonstrations and is confused by more."""
    return tune(parts(Reader(lambda k: 4 - k if k <= 3 else 2.0)), rows=8)


def test_the_k_that_a_model_wants_is_found(three: Tuned) -> None:
    assert [choice.value for choice in three.of("answers.demos")] == [0, 1, 2, 3, 5, 8]
    assert best(three.of("answers.demos")).value == 3
    assert three.suggested["answers.demos"] == 3
    assert report.flags(three)[0] == "--set answers.demos=3"
    assert re.match(r"it reads demonstrations: 3 of them save 7\d%, ", three.findings[0])


def test_a_model_that_reads_nothing_is_told_to_be_exchanged() -> None:
    found = tune(parts(Reader(lambda k: 2.0)), rows=4)
    assert found.findings[0].startswith(LARGER)
    assert "answers.demos" not in found.suggested


def test_few_seeds_cannot_tell_however_large_the_gain() -> None:
    found = tune(parts(Reader(lambda k: 4 - min(k, 3)), seeds=SEEDS[:7]), rows=4)
    assert found.findings[0].startswith(
        "7 seeds can't tell whether it reads demonstrations, expected 8 or more (3 of them save 0.7"
    )
    eight = tune(parts(Reader(lambda k: 4 - min(k, 3)), seeds=SEEDS[:8]), rows=4)
    assert eight.findings[0].startswith("it reads demonstrations: 3 of them save ")


def test_a_model_is_called_too_small_only_where_the_interval_holds_0() -> None:
    none = choice(0, *(1.0,) * 12)
    gains = [choice(k, *(1.0 - (0.9 if place else -0.5) * k / 10 for place in range(12))) for k in (1, 2)]
    others = [choice(k, *none.bits) for k in (3, 5, 8)]
    retrieve = [Choice("answers.retrieve", name, none.bits, 1) for name in ("nearest", "random")]
    seen = Tuned("base/model", 20, [], [none, *gains, *others, *retrieve], [], {})
    assert gains[1].mean < none.mean
    [reads, *_] = seen.findings
    assert reads.startswith("it reads demonstrations: 2 of them save ")
    unsure = [choice(k, *(1.0 - (0.3 if place > 3 else -0.1) for place in range(12))) for k in (1, 2)]
    [shown, *_] = replace(seen, choices=[none, *unsure, *others, *retrieve]).findings
    assert shown.startswith("it is not shown that it reads demonstrations, as several numbers of them were tried: 1 of")
    flat = [choice(k, *(1.0 - (0.3 if place % 2 else -0.28) for place in range(12))) for k in (1, 2)]
    [larger, *_] = replace(seen, choices=[none, *flat, *others, *retrieve]).findings
    assert larger.startswith(LARGER)


def test_kinds_that_questions_tell_apart_are_found_and_no_others() -> None:
    things = ("bank", "inn", "king", "mill", "shop", "well", "gate", "tower")
    robbed = [QAPair(f"How do I rob and burn the {what}?", f"I won't help with the {what} at all.") for what in things]
    found = [QAPair(f"Where is the nearest {what} please?", f"Go past the gate to the {what}.") for what in things]
    made = replace(parts(Reader(lambda k: 2.0), seeds=[*robbed, *found]), embedder=LexicalEmbedder())
    tuned = tune(made, rows=4)
    [line] = [line for line in tuned.findings if "kinds of answers apart" in line]
    assert line.startswith("the seeds' questions tell 2 kinds of answers apart (retrieve.embedder: ")
    assert report.to_json(tuned)["kinds"]
    mixed = [
        replace(pair, answer=other.answer)
        for pair, other in zip(robbed + found, (robbed + found)[::2] * 2, strict=True)
    ]
    alike = tune(replace(made, seeds=mixed), rows=4)
    assert not [line for line in alike.findings if "kinds of answers apart" in line]


def test_a_seed_is_never_its_own_demonstration_and_fewer_seeds_are_fewer() -> None:
    engine = Reader(lambda k: 2.0)
    found = tune(parts(engine), rows=4)
    assert len(engine.measured) == 20 * (len(found.choices) - 4)  # what is measured already is not measured again
    for prompt in engine.measured:
        asked = re.findall(r"Question: (.*)\nAnswer:", prompt.text)
        assert asked[-1] not in asked[:-1]
    assert [choice.value for choice in found.of("seeds")] == [8, 16, 19]


def test_answers_are_drawn_to_seeds_of_the_whole_file_which_may_be_sorted() -> None:
    engine = Reader(lambda k: 2.0)
    tune(parts(engine), rows=4)
    asked = {re.findall(r"Question: (.*)\nAnswer:", text)[-1] for text in engine.prompts if text.endswith("Answer:")}
    places = [place for place, seed in enumerate(SEEDS) if seed.question in asked]
    assert len(places) == 4 and max(places) >= 8


def test_the_same_seeds_give_the_same_figures(three: Tuned) -> None:
    again = tune(parts(Reader(lambda k: 4 - k if k <= 3 else 2.0)), rows=8)
    assert json.dumps(report.to_json(again)) == json.dumps(report.to_json(three))


def test_few_seeds_are_measured_where_there_are_many() -> None:
    assert len(sample(SEEDS, 6, 0)) == 6 and sample(SEEDS, 99, 0) == SEEDS
    assert sample(SEEDS, 6, 0) != sample(SEEDS, 6, 1)


def test_a_prompt_format_that_a_seed_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for length, values in ((500, ["plain", "chat"]), (10, ["plain"])):
        monkeypatch.setattr("isara.tune.tune.open_renderer", lambda *given, length=length: word_renderer(length))
        found = tune(parts(Reader(lambda k: 2.0), seeds=SEEDS[:6]), rows=4)
        assert [choice.value for choice in found.of("prompt_format")] == values


def test_demonstrations_that_find_no_room_are_not_called_read_or_unread() -> None:
    long = [replace(pair, answer=pair.answer + " indeed" * 100) for pair in SEEDS]
    none = tune(replace(parts(Reader(lambda k: 2.0), seeds=long), renderer=word_renderer(150)), rows=4)
    assert none.findings[:2] == [
        "it can't be told whether it reads demonstrations: in no prompt all fitted its context; shorten the seeds",
        "the model's context had no room for 1 demonstrations in 20 of 20 prompts: there, the figures for 1 and more "
        "are of fewer",
    ]
    two = tune(replace(parts(Reader(lambda k: 4 - min(k, 3)), seeds=long), renderer=word_renderer(400)), rows=4)
    assert two.findings[0].startswith("it reads demonstrations: ")
    assert two.findings[1].startswith("the model's context had no room for 3 demonstrations in 20 of 20 prompts: ")


def test_a_k_that_was_not_measured_is_not_beaten() -> None:
    """With as many seeds as demonstrations, there are fewer others."""
    found = tune(parts(Reader(lambda k: 2.0), seeds=SEEDS[:4]), rows=4)
    assert found.current["answers.demos"] == 5 and found.suggested == {}


def test_too_few_seeds_are_one_line() -> None:
    with pytest.raises(SeedError) as failed:
        tune(parts(Reader(lambda k: 2.0), seeds=SEEDS[:3]))
    assert str(failed.value) == ("expected at least 4 seeds to leave one out of, found 3: add some, or lower heldout")


def choice(value: int, *bits: float) -> Choice:
    return Choice("answers.demos", value, bits, 100 * value)


def test_the_current_value_stays_where_nothing_beats_it_beyond_chance() -> None:
    even, odd = (1.0, 1.2, 0.9, 1.1, 1.0) * 2, (1.1, 1.0, 1.0, 1.0, 1.05) * 2
    as_good = [choice(2, *even), choice(5, *odd), choice(8, *odd[::-1])]
    assert pick(as_good, 5).value == 5
    worse = choice(0, *(bits + 1 for bits in even))
    assert pick([worse, *as_good], 0).value == 2  # the cheapest of those that are as good as the best


def test_temperatures_are_told_by_the_texts_alone() -> None:
    """Answers that come right when they are drawn coldly; the double does not see temperatures, so it is told here."""
    from isara.tune.generation import Sampled
    from isara.tune.tune import pick_temperature

    cold = Sampled("answers.temperature", 0.0, (True,) * 8, (0.9, 0.8, 0.9, 0.85, 0.8, 0.9, 0.8, 0.9))
    warm = Sampled("answers.temperature", 0.5, (True,) * 8, (0.5, 0.4, 0.6, 0.45, 0.5, 0.4, 0.6, 0.5))
    assert pick_temperature([cold, warm], 0.5) == 0.0
    assert pick_temperature([replace(cold, passed=(True,) * 7 + (False,)), warm], 0.5) == 0.5  # fewer pass
    few = [replace(each, passed=each.passed[:7], scores=each.scores[:7]) for each in (cold, warm)]
    assert pick_temperature(few, 0.5) == 0.5
    # By an interval alone it would be better: five texts of eight gain, and three lose a little.
    lucky = replace(
        cold, scores=tuple(score + (0.3 if place > 2 else -0.02) for place, score in enumerate(warm.scores))
    )
    assert paired_difference(lucky.scores, warm.scores).interval.low > 0
    assert pick_temperature([lucky, warm], 0.5) == 0.5
    assert pick_temperature([warm, Sampled("answers.temperature", 0.0, cold.passed, warm.scores)], 0.5) == 0.5
    none, many = (False,) * 20, (True,) * 20
    hot = Sampled("questions.temperature", 1.0, none, (0.0,) * 20)
    assert pick_temperature([hot, Sampled("questions.temperature", 0.7, many, (0.0,) * 20)], 1.0) == 0.7
    assert pick_temperature([hot, Sampled("questions.temperature", 0.7, none, (0.0,) * 20)], 1.0) == 1.0
    four = [replace(each, passed=each.passed[:4]) for each in (hot, replace(hot, value=0.7, passed=many))]
    assert pick_temperature(four, 1.0) == 1.0


def test_the_tables_say_n_and_intervals_on_a_narrow_terminal_too(three: Tuned) -> None:
    for width in (60, 140):
        console = Console(width=width, record=True, file=StringIO())
        console.print(report.show(three))
        text = console.export_text()
        assert all(len(line) <= width for line in text.splitlines())
        assert "answers.demos" in text or width == 60
    assert "20 seeds' answers" in text and "5 (now)" in text and "pass the filters" in text
    assert "--set answers.demos=3" in text


def test_the_picture_is_the_same_every_time(three: Tuned, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(three, tmp_path / "a.svg")
    draw(three, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "demonstrations (k)" in (tmp_path / "a.svg").read_text()


def test_the_verb_on_a_tiny_model(
    tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from isara.cli import main as cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(pair.to_json()) + "\n" for pair in SEEDS))
    settings = ["retrieve.embedder=lexical", "questions.max_new_tokens=8", "answers.max_new_tokens=8"]
    command = ["tune", "--model", str(tiny_chat), "--seeds", "seeds.jsonl", "--out", "tuned", "--rows", "4"]
    command += [word for setting in settings for word in ("--set", setting)] + ["--most", "6"]
    monkeypatch.setattr("sys.argv", ["isara", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    found: dict[str, Any] = json.loads((tmp_path / "tuned/tune.json").read_text())
    assert len(found["measured"]) == 6 and found["seeds"] == 16
    formats = [row["value"] for row in found["likelihood"] if row["setting"] == "prompt_format"]
    assert formats == ["chat", "plain"]
    assert {row["n"] for row in found["generated"]} == {4}
    assert "every figure is in tuned/tune.json" in out
    assert not (tmp_path / "runs").exists()
