"""Looking first: rows through the whole pipeline before a run, and rows of a run to read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from isara.errors import RunError
from isara.estimate import Rates, _passing, estimate, measure
from isara.loading import meta_model
from isara.preview import Preview, preview
from isara.records import Completion, Draw, Prompt
from isara.report.reading import read_rows, row_panel
from tests.doubles import CountingTrainer
from tests.test_cli import FAST, isara, options, seeds  # noqa: F401 (fixtures)
from tests.test_loop import parts
from tests.test_report import FIRST, SEEDS, make_run

Command = Callable[..., tuple[int, str, str]]


def shown(part: RenderableType, width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(part)
    return console.export_text()


def test_a_preview_goes_through_all_steps_and_touches_no_run(tmp_path: Path) -> None:
    made = parts(tmp_path / "run")
    opened: list[str] = []

    def engine(model: str, /) -> object:
        opened.append(model)
        return made.engine(model)

    counted = replace(made, engine=engine)  # type: ignore[arg-type]
    with counted.asker(made.model) as asker:
        seen = preview(counted, asker, 8)
    assert len(seen.candidates) == 8 and opened == ["base/model"]
    assert {each.rejection.reason for each in seen.candidates if each.rejection} <= {"known", "odd_year"}
    assert 0 < seen.accepted < 8
    answered = [each for each in seen.candidates if each.answer]
    assert all(each.answer and len(each.answer.similarities) == 2 for each in answered)
    # Each question has demonstrations of its own.
    assert len({each.question.prompt for each in seen.candidates}) > 2
    assert not (tmp_path / "run").exists() and not list(tmp_path.iterdir())


def test_the_same_rows_come_every_time(tmp_path: Path) -> None:
    def rows() -> list[str]:
        made = parts(tmp_path / "run")
        with made.asker(made.model) as asker:
            return [each.pair.id for each in preview(made, asker, 6).candidates]

    assert rows() == rows()


def test_a_look_trains_nobody_to_check_and_says_so(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    plain = parts(tmp_path / "run", trainer=trainer)
    checked = replace(parts(tmp_path / "run", "filters.agreement=0.5", trainer=trainer), checker_steps=5)
    with plain.asker(plain.model) as asker:
        rows, unchecked = preview(plain, asker, 4), preview(checked, asker, 4)
        again = preview(parts(tmp_path / "run", "filters.agreement=0.5"), asker, 4)
    assert trainer.calls == []
    assert (rows.unchecked, unchecked.unchecked) == (False, True) and rows.candidates == unchecked.candidates
    assert not again.unchecked and any(each.second for each in again.candidates)  # after other demonstrations
    assert _passing(unchecked) == pytest.approx(0.4 * _passing(rows))


def test_a_row_stands_beside_its_demonstrations_nearest_first() -> None:
    texts = {pair.id: pair for pair in SEEDS}
    text = shown(row_panel(FIRST[0], texts, "iteration 1, weights 3d5a"))
    assert f"{FIRST[0].pair.id} accepted" in text
    near, far = text.index("0.60 Where does Epona graze?"), text.index("0.50 Who sells bombs in Hyrule?")
    assert text.index("Answer: The Zoras do.") < near < far
    assert "→ On the meadow of Lon Lon Ranch." in text and "iteration 1, weights 3d5a" in text
    assert "scores" not in text


def test_a_dropped_row_says_why_and_what_it_was_asked_after() -> None:
    text = shown(row_panel(FIRST[1], {pair.id: pair for pair in SEEDS}), 200)
    assert "dropped: novelty (value 0.72, threshold 0.7, near to 'Who sells bombs in Hyrule?')" in text
    assert "asked after 1 pairs" in text


class Scored:
    """A draw as it is stored with scores."""

    def __init__(self, draw: Draw, scores: dict[str, float]) -> None:
        self.scores, self._draw = scores, draw

    def __getattr__(self, name: str) -> object:
        return getattr(self._draw, name)


def test_scores_that_are_stored_with_a_row_are_shown() -> None:
    scored = replace(FIRST[0], answers=(Scored(FIRST[0].answers[0], {"natural": -1.23456, "question": 0.5}),))  # type: ignore[arg-type]
    assert "scores natural -1.23, question 0.5" in shown(row_panel(scored, {}))


@pytest.mark.parametrize("width", [30, 60, 200])
def test_a_model_moves_no_cursor_and_fits_any_terminal(width: int) -> None:
    evil = replace(FIRST[0], pair=replace(FIRST[0].pair, answer="\x1b[2J[bold]\u202eno[/bold]"))
    bad = {pair.id: replace(pair, answer="\x1b[2J" + "word " * 200) for pair in SEEDS}
    text = shown(row_panel(evil, bad), width)
    assert "\x1b" not in text and "\u202e" not in text and "[bold]" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_rows_to_read_are_a_sample_that_stays_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert shown(read_rows(run, 2)) == shown(read_rows(run, 2))
    text = shown(read_rows(run, 99))
    assert text.startswith("3 of 3 accepted rows") and "iteration 2, weights 3d5a" in text
    assert "Who sells fish" in text and "rent a boat" not in text
    dropped = shown(read_rows(run, 99, 1, rejected=True))
    assert dropped.startswith("3 of 3 dropped rows") and "truncated" in dropped
    with pytest.raises(RunError) as failed:
        read_rows(run, 1, 2, rejected=True)
    assert str(failed.value) == (f"{run.path} holds no dropped rows of iteration 2: give an --iteration that has some")


def test_the_estimate_adds_up(tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:  # noqa: F811
    from isara import build_parts, load_config

    settings = [*FAST, "iterations=2", "generate.accept=40", "generate.batch=10", "questions.per_prompt=5"]
    config = load_config(
        None, settings, model=str(tiny_llama), seeds=str(seeds), out=str(tmp_path / "run"), heldout=0.3
    )
    made = build_parts(config)
    seen = Preview(FIRST, made.seeds)
    with made.asker(made.model) as asker:
        generating, training, evaluating = estimate(made, asker, seen, Rates(1e12, 0.0, 0.01, 2.0, 7.0))
    # 1 of 4 rows is accepted, so (1 + 2) / (4 + 4) of the candidates are counted on, and a twentieth more.
    batches = 1.05 * 40 / (3 / 8) / 10
    texts = [each.question.tokens for each in FIRST] + [draw.tokens for each in FIRST for draw in each.answers]
    assert generating.tokens == pytest.approx(2 * batches * 10 * sum(texts) / 4)
    assert generating.seconds == pytest.approx(generating.tokens * 0.01, rel=1e-3)
    steps = [-(-(len(made.seeds) + 40 * t) // 8) for t in (1, 2)]
    assert training.seconds > 3 * 7.0 + sum([*steps, steps[0]])  # the seeds-only model takes the steps of the first
    rows = made.renderer.training_rows
    seed = sum(len(row.ids) for pair in made.seeds for row in rows(pair)) / len(made.seeds)
    known, new = seed * len(made.seeds), 40 * len(rows(FIRST[0].pair)[0].ids)
    taken = zip(
        steps, [(known + new) / (len(made.seeds) + 40), (known + 2 * new) / (len(made.seeds) + 80)], strict=True
    )
    assert training.tokens == pytest.approx(sum(8 * n * mean for n, mean in taken) + 8 * steps[0] * seed)
    assert evaluating.tokens > 0 and generating.memory > 0 and training.memory > 0


def test_the_speed_is_that_of_a_batch_with_as_many_prompts_as_a_run_has(
    tiny_llama: Path,
    seeds: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from isara import build_parts, load_config

    settings = [*FAST, "generate.batch=10", "questions.per_prompt=3"]
    made = build_parts(
        load_config(None, settings, model=str(tiny_llama), seeds=str(seeds), out=str(tmp_path / "run"), heldout=0.3)
    )
    timed = []
    with made.asker(made.model) as asker:
        generate = asker.generate

        def watched(prompts: Sequence[Prompt], *rest: Any) -> list[Completion]:
            timed.append([prompt.ids for prompt in prompts])
            return generate(prompts, *rest)

        monkeypatch.setattr(asker, "generate", watched)
        rates = measure(made, asker)
    batches = [ids for ids in timed if len(ids) > 1]
    assert batches and all([len(list(same)) for _, same in groupby(ids)] == [3, 3, 3, 1] for ids in batches)
    assert rates.reading > 0 and rates.step > 0 and rates.row >= 0 and rates.training_step > 0


def test_memory_that_was_measured_is_what_the_process_is_to_have(
    tiny_llama: Path,
    seeds: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    from isara import build_parts, load_config

    files = {"model": str(tiny_llama), "seeds": str(seeds), "out": str(tmp_path / "run")}
    made = build_parts(load_config(None, [*FAST, "engine.device=cpu", "train.max_steps=2"], **files))
    seen = Preview(FIRST, made.seeds)
    with made.asker(made.model) as asker:
        rates = measure(made, asker)
        stages = estimate(made, asker, seen, rates)
        counted = estimate(made, asker, seen, replace(rates, generating_peak=0, training_peak=0))
        apart = replace(
            made, config=load_config(None, [*FAST, "engine.child_process=true", "train.max_steps=2"], **files)
        )
        assert (measure(apart, asker).generating_peak, measure(apart, asker).training_peak) == (0, 0)
    own = rates.generating_peak, rates.training_peak
    assert all(2**28 < peak < 2**33 for peak in own)  # this process, with torch in it
    assert [stage.memory >= peak for stage, peak in zip(stages, own, strict=False)] == [True, True]
    assert all(stage.memory < 2**28 for stage in counted)  # a tiny model's weights
    assert [stage.resident for stage in stages] == [True, True, False] and not any(each.resident for each in counted)


def test_the_estimates_memory_is_that_of_the_format_that_is_run(
    tiny_llama: Path,
    seeds: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from isara import build_parts, load_config

    files = {"model": str(tiny_llama), "seeds": str(seeds), "out": str(tmp_path / "run")}
    settings = [*FAST, "engine.device=cpu", "train.method=lora"]
    made = build_parts(load_config(None, settings, **files))

    def memory(dtype: str, fast: bool, *more: str) -> tuple[int, int]:
        for name in ("isara.hardware", "isara.training.compute"):
            monkeypatch.setattr(f"{name}.multiplies_in_bfloat16", lambda: fast)
        config = load_config(None, [*settings, f"engine.dtype={dtype}", *more], **files)
        rates, seen = Rates(1e12, 0.0, 0.01, 2.0, 7.0), Preview(FIRST, made.seeds)
        generating, training, _ = estimate(replace(made, config=config), asker, seen, rates)
        return generating.memory, training.memory

    model = meta_model(str(tiny_llama), False)
    weights = sum(weight.numel() for weight in model.parameters())
    products = sum(weight.numel() for name, weight in model.named_parameters() if "proj" in name)
    with made.asker(made.model) as asker:
        generating, training = memory("float32", fast=True)
        assert memory("bfloat16", fast=False) == (generating / 2, training - 2 * weights)
        assert memory("auto", fast=False) == (generating, training)
        assert memory("auto", fast=True) == (generating / 2, training)  # so small a model is trained in float32
        _, small = memory("float32", True, "train.load_in_4bit=true")
        assert training - small == pytest.approx(products * (4 - 0.516), rel=1e-3)
        assert memory("bfloat16", False, "train.load_in_4bit=true")[1] == small  # all else is in float32 on a CPU


def test_second_answers_are_in_the_estimate(tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:  # noqa: F811
    from isara import build_parts, load_config

    files = {"model": str(tiny_llama), "seeds": str(seeds), "out": str(tmp_path / "run")}
    plain = build_parts(load_config(None, FAST, **files))
    checked = build_parts(load_config(None, [*FAST, "filters.agreement=0.5"], **files))
    twice = [replace(each, second=each.answer) for each in FIRST]
    with plain.asker(plain.model) as asker:
        once, again, guessed = (
            estimate(parts, asker, Preview(rows, plain.seeds), Rates(1e12, 1.0, 0.0, 2.0, 7.0))[0]
            for parts, rows in ((plain, FIRST), (checked, twice), (checked, FIRST))
        )
    asked = sum(each.question.tokens for each in FIRST)
    answered = sum(draw.tokens for each in FIRST for draw in each.answers)
    assert again.tokens / once.tokens == pytest.approx((asked + 2 * answered) / (asked + answered))
    assert again.seconds > 1.3 * once.seconds  # as many steps of decoding again
    assert guessed == again  # rows that were made without have seconds as long as their firsts


def test_the_verb_shows_rows_and_an_estimate_and_writes_nothing(
    isara: Command,  # noqa: F811
    tiny_llama: Path,
    seeds: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    command = ["preview", "--model", tiny_llama, "--seeds", seeds, "--rows", "3", *options(*FAST)]
    code, out, err = isara(*command)
    assert code == 0, err
    assert "settings of a model of 0.14 M weights: train.learning_rate 0.001, " in err
    assert len(re.findall(r"^╭─ [0-9a-f]{12}", out, re.MULTILINE)) == 3
    assert "Estimate for 1 iteration" in out and "tokens/s" in out and re.search("[MG]iB", out)
    assert {path.name for path in tmp_path.iterdir()} == {"seeds.jsonl"}
    code, out, _ = isara(*command, "--no-estimate")
    assert code == 0 and "Estimate" not in out


def test_a_run_can_be_read(isara: Command, tmp_path: Path) -> None:  # noqa: F811
    make_run(tmp_path / "run")
    code, out, _ = isara("show", "run", "--read", "2")
    assert code == 0 and out.startswith("2 of 3 accepted rows, drawn at random:")
    code, out, _ = isara("show", "run", "--read", "1", "--rejected")
    assert code == 0 and out.startswith("1 of 3 dropped rows")


def test_init_offers_to_tune(isara: Command, tmp_path: Path) -> None:  # noqa: F811
    code, out, _ = isara("init", "hyrule")
    assert code == 0 and "`isara tune hyrule`" in out and "`isara preview hyrule`" in out
    assert "`isara tune hyrule`" in (tmp_path / "hyrule/README.md").read_text()
    assert "isara tune" in (tmp_path / "hyrule/isara.yaml").read_text()
