"""Evaluations that are cut off, resumed, changed and stopped: nothing lost, nothing mixed."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from isara.asking import Asker
from isara.errors import ConfigError, ModelError, RunError
from isara.evaluate import runner
from isara.evaluate.benchmarks import InstructionItem
from isara.evaluate.comparison import compare_items, comparison_table
from isara.evaluate.figures import Figure, mean, share
from isara.evaluate.instructions import Instructions
from isara.evaluate.items import Asking
from isara.evaluate.results import Result, ResultFile, Row, read_result, read_results
from isara.evaluate.runner import SimpleTask, Task, run_tasks
from isara.evaluate.table import interval, judge_line, shown, table
from isara.files import append_text
from isara.judges.base import Verdict
from isara.judges.check import check, keep
from isara.judges.labelled import LabelledRow
from isara.protocols import EngineFactory
from isara.records import QAPair, Sampling
from isara.testing import ScriptedEngine, word_renderer


@dataclass(frozen=True)
class Word:
    text: str

    @property
    def id(self) -> str:
        return f"id-{self.text}"


class Echo:
    """Answers a word with the word, judges it by its length; `before` is called before each batch."""

    def __init__(
        self, words: Sequence[str], judge: str = "length#1", before: Callable[[], None] = lambda: None
    ) -> None:
        self.items = [Word(word) for word in words]
        self.pin = judge
        self.before = before

    name = "echo"

    def key(self) -> dict[str, Any]:
        return {"loud": False}

    def judge_key(self) -> dict[str, Any]:
        return {"quality": self.pin}

    def answer(self, asker: Asker, items: Sequence[Word]) -> list[Row]:
        self.before()
        asker.answers([QAPair(item.text, "") for item in items], Sampling(max_new_tokens=8), [0] * len(items))
        return [{"id": item.id, "answer": item.text, "finish": "stop"} for item in items]

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        self.before()
        return [{**row, "length": len(row["answer"])} for row in rows]

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        return [mean("length", [row["length"] for row in rows]).resting_on(self.pin)]

    def values(self, row: Row) -> dict[str, float]:
        return {"length": row["length"]}


NAN = float("nan")
WORDS = ("Ganon", "Zelda", "Link", "Epona", "Impa", "Navi", "Tingle")


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK", 3)


def opened(model: str, /) -> ScriptedEngine:
    return ScriptedEngine(lambda prompt, seed: " word")


def never(model: str, /) -> ScriptedEngine:
    raise AssertionError("nothing is missing, so the model is not to be opened")


def run(
    out: Path,
    task: Task,
    engine: EngineFactory = opened,
    weights: str = "w1",
    context_length: int = 2048,
    **options: Any,
) -> list[Result]:
    asker = Asker(engine, "m", word_renderer(context_length))
    return run_tasks(asker, [task], out, weights=weights, **options)


def files(folder: Path) -> dict[str, bytes]:
    names = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("time.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_what_lies_on_disk(tmp_path: Path) -> None:
    [result] = run(tmp_path, Echo(WORDS))
    assert [(figure.name, figure.value, figure.n) for figure in result.figures] == [("length", 33 / 7, 7)]
    assert sorted(files(tmp_path)) == [
        "echo/answers.jsonl",
        "echo/answers.key.json",
        "echo/answers.sums",
        "echo/items.jsonl",
        "echo/items.key.json",
        "echo/items.sums",
        "echo/summary.json",
    ]
    rows = [json.loads(line) for line in (tmp_path / "echo/items.jsonl").read_text().splitlines()]
    assert rows[2] == {"id": "id-Link", "answer": "Link", "finish": "stop", "length": 4}
    assert json.loads((tmp_path / "echo/items.key.json").read_text()) == {
        "task": "echo",
        "weights": "w1",
        **word_renderer().key(),
        "loud": False,
        "judges": {"quality": "length#1"},
    }
    summary = json.loads((tmp_path / "echo/summary.json").read_text())
    assert (summary["items"], summary["available"], summary["figures"][0]["n"]) == (7, 7, 7)


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("torn", [0, 1, 20])
def test_killed_and_resumed(tmp_path: Path, moment: int, torn: int) -> None:
    whole = run(tmp_path / "whole", Echo(WORDS))
    left = [moment]

    def kill() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "cut", Echo(WORDS, before=kill))
    for path in (tmp_path / "cut/echo").glob("*s.jsonl"):  # torn while its last batch was being written
        path.write_bytes(path.read_bytes()[: -torn or None])
        sums = path.with_suffix(".sums").read_bytes().splitlines(keepends=True)
        path.with_suffix(".sums").write_bytes(b"".join(sums[:-1] if torn else sums))
    resumed = run(tmp_path / "cut", Echo(WORDS))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert resumed[0].figures == whole[0].figures


def test_a_finished_evaluation_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path, Echo(WORDS))

    def forbid() -> None:
        raise AssertionError("done before")

    assert run(tmp_path, Echo(WORDS, before=forbid), never) == first


def test_a_larger_limit_goes_on_from_a_smaller_one(tmp_path: Path) -> None:
    batches: list[int] = []
    run(tmp_path, Echo(WORDS), limit=3)
    [result] = run(tmp_path, Echo(WORDS, before=lambda: batches.append(1)), limit=6)
    assert (result.items, result.available, len(batches)) == (6, 7, 2)
    [few] = run(tmp_path, Echo(WORDS), never, limit=3)
    assert few.figures[0].n == 3


def test_other_weights_are_refused(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    with pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS), weights="w2")
    assert str(caught.value) == (
        f"{tmp_path}/echo/answers.jsonl holds another evaluation's results (weights was w1 and is w2): give another "
        "folder with --out, or move the file away to make it anew"
    )


def test_other_settings_are_refused(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    with pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS), settings={"dtype": "bfloat16"})
    assert str(caught.value) == (
        f"{tmp_path}/echo/answers.jsonl holds another evaluation's results (dtype was not set and is bfloat16): give "
        "another folder with --out, or move the file away to make it anew"
    )


def test_another_judge_is_refused_and_the_answers_serve_it(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    with pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS, judge="length#2"), never)
    assert str(caught.value) == (
        f"{tmp_path}/echo/items.jsonl holds another evaluation's results (judges.quality was length#1 and is "
        "length#2): give another folder with --out, or move the file away to make it anew"
    )
    (tmp_path / "echo/items.jsonl").rename(tmp_path / "echo/old.jsonl")
    [result] = run(tmp_path, Echo(WORDS, judge="length#2"), never)
    assert result.figures[0].judge == "length#2"


def test_two_processes(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS))
    assert str(caught.value) == (
        f"{tmp_path} is in use by another process: wait for it, or give another folder with --out"
    )


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        run(tmp_path / "file", Echo(WORDS))
    assert str(caught.value) == (f"expected a folder at {tmp_path}/file, found a file: give another folder with --out")


def test_a_model_whose_numbers_are_none(tmp_path: Path) -> None:
    class Broken(Echo):
        def answer(self, asker: Asker, items: Sequence[Word]) -> list[Row]:
            return [{"id": item.id, "logprob": NAN} for item in items]

    with pytest.raises(ModelError) as caught:
        run(tmp_path, Broken(WORDS))
    assert str(caught.value) == (
        "expected likelihoods that are numbers, found nan or infinity: the weights are damaged, or overflow in this "
        "dtype (try --dtype float32)"
    )


def test_a_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / "items.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(RunError) as caught:
        append_text(path, "a row")
    assert str(caught.value) == (
        f"can't write {path} (No space left on device): free some space or mend the rights, then run the same "
        "command again; nothing that was finished is lost"
    )


class Fine:
    """Calls everything good."""

    pin = "fine#1"
    kind: Any = "quality"

    def score(self, pairs: Sequence[QAPair]) -> list[Verdict]:
        return [Verdict("good", 1.0, "", self.pin) for _ in pairs]


class Unasked:
    """A judge that is not to be asked."""

    pin = "unasked#1"

    def compare(self, *answers: Sequence[str]) -> list[Any]:
        assert not any(answers)
        return []


def test_empty_answers_stop_before_the_judge(tmp_path: Path) -> None:
    task = Instructions([InstructionItem("Say hello.", "Hello!")], Unasked(), Asking(20))
    with pytest.raises(ModelError) as caught:
        run(tmp_path, task, lambda model, /: ScriptedEngine(lambda prompt, seed: " \n"))
    assert str(caught.value) == (
        "instructions: all 1 answers of m are empty: look whether the prompt format suits the model (--format), or "
        "show it demonstrations (--demos)"
    )
    assert len((tmp_path / "instructions/answers.jsonl").read_text().splitlines()) == 1


def test_no_prompt_fits(tmp_path: Path) -> None:
    task = Instructions([InstructionItem("Say hello.", "Hello!")], Unasked(), Asking(20))
    with pytest.raises(ModelError) as caught:
        run(tmp_path, task, lambda model, /: ScriptedEngine(lambda prompt, seed: ""), context_length=20)
    assert str(caught.value) == (
        "instructions: none of the 1 prompts fits m beside the answer: lower --max-new-tokens, or take a model with a "
        "longer context"
    )


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    run(tmp_path, Echo(WORDS), watch=lambda *progress: told.append(progress))
    assert told == [
        *(("echo", "answer", done, 7) for done in (0, 3, 6)),
        *(("echo", "judge", done, 7) for done in (0, 3, 6)),
    ]


class Leaves(ScriptedEngine):
    """Counts how often it is opened and closed."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, seed: " word")
        self.told: list[str] = []

    def __enter__(self) -> "Leaves":
        self.told.append("opened")
        return self

    def __exit__(self, *_: object) -> None:
        self.told.append("closed")


def test_the_model_is_opened_once_and_gone_before_the_judges(tmp_path: Path) -> None:
    engine = Leaves()
    first, second = Echo(WORDS), Echo(WORDS[:2], before=lambda: engine.told.append("at work"))
    second.name = "second"
    run_tasks(Asker(lambda model, /: engine, "m", word_renderer()), [first, second], tmp_path, weights="w")
    assert engine.told == ["opened", "at work", "closed", "at work"]


# A task of one's own


def yes_or_no(asker: Asker, items: Sequence[QAPair]) -> list[Row]:
    draws = asker.answers(items, Sampling(temperature=0.0, max_new_tokens=3), [0] * len(items))
    return [
        {"id": item.id, "answer": draw.text if draw else "", "right": bool(draw and draw.text == item.answer)}
        for item, draw in zip(items, draws, strict=True)
    ]


def own_task() -> SimpleTask:
    items = [QAPair("Is Ganon kind?", "No"), QAPair("Is Epona a horse?", "Yes"), QAPair("Is Navi loud?", "Yes")]
    return SimpleTask(
        name="yes-or-no",
        items=items,
        answer=yes_or_no,
        figures=lambda rows: [share("right", [row["right"] for row in rows])],
    )


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    def sure(model: str, /) -> ScriptedEngine:
        return ScriptedEngine(lambda prompt, seed: " Yes\n\nQuestion: And Impa?")

    [result] = run(tmp_path / "new", own_task(), sure)
    assert [(figure.name, figure.value, figure.n) for figure in result.figures] == [("right", 2 / 3, 3)]
    assert run(tmp_path / "new", own_task(), never) == [result]
    run(tmp_path / "old", own_task(), opened)
    [row] = compare_items([own_task()], tmp_path / "new", tmp_path / "old")
    assert (row.task, row.name, row.before, row.after) == ("yes-or-no", "right", 0, 2 / 3)


def test_a_task_that_loses_an_item(tmp_path: Path) -> None:
    task = SimpleTask(
        "short", [Word("Link"), Word("Zelda")], lambda asker, items: [{"id": items[0].id}], lambda rows: []
    )
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, task)
    assert str(caught.value) == (
        "`short` was asked for 2 items and its `answer` gave 1 rows with other ids: give one row an item, in order, "
        'with its "id"'
    )


# What is damaged


def test_reading_changes_nothing_and_writing_cuts_the_torn_batch(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    ResultFile(path, {}).append([{"id": "1"}, {"id": "2"}])
    torn = path.read_bytes() + b'{"id": "3", "answ'
    path.write_bytes(torn)
    assert [row["id"] for row in read_results(path)] == ["1", "2"]
    assert path.read_bytes() == torn
    ResultFile(path, {}).append([{"id": "3"}])
    assert path.read_text() == '{"id": "1"}\n{"id": "2"}\n{"id": "3"}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("answers.jsonl", '{"id": "id-Ganon"\n{"id": "id-Zelda"}\n'),
        ("items.jsonl", '{"id": 7}\n'),
        ("items.jsonl", "[]\n"),
        ("time.json", '{"seconds": "long"}\n'),
        ("time.json", '{"seconds": -1}\n'),
        ("time.json", '{"secon'),
    ],
)
def test_damage_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    run(tmp_path, Echo(WORDS[:2]))
    (tmp_path / "echo" / name).write_text(content)
    with pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS))
    assert str(caught.value) == (
        f"{tmp_path}/echo/{name} is damaged: put it back, or remove it and run the same command again to make it anew"
    )


def test_rows_of_another_model_and_rows_without_their_sums_are_named(tmp_path: Path) -> None:
    for folder, weights in (("one", "w1"), ("other", "w2")):
        run(tmp_path / folder, Echo(WORDS), weights=weights)
    for name in ("answers.jsonl", "answers.sums"):
        (tmp_path / "one/echo" / name).write_bytes((tmp_path / "other/echo" / name).read_bytes())
    rows, sums = tmp_path / "one/echo/answers.jsonl", tmp_path / "one/echo/answers.sums"
    with pytest.raises(RunError, match=f"^{re.escape(str(rows))} is damaged: put it back, or remove it and run"):
        run(tmp_path / "one", Echo(WORDS), weights="w1")
    sums.unlink()
    with pytest.raises(
        RunError, match=f"^{re.escape(str(sums))} is damaged: put it back, or remove {re.escape(str(rows))} and"
    ):
        run(tmp_path / "one", Echo(WORDS), weights="w1")
    rows.unlink()
    run(tmp_path / "one", Echo(WORDS), weights="w1")


def test_figures_of_other_rows_are_named(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    with (tmp_path / "echo/items.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RunError, match=r"summary\.json is damaged: put it back, or remove it"):
        read_result(tmp_path / "echo")


def test_a_row_without_what_the_task_reads(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS[:1]))
    path = tmp_path / "echo/items.jsonl"
    key = json.loads(path.with_suffix(".key.json").read_text())
    ResultFile(path, key).replace([{"id": "id-Ganon", "answer": "Ganon"}])
    message = (
        f"expected the rows of `echo` in {tmp_path}/echo/items.jsonl, found a row without 'length': move the file away "
        "to make it anew, or mend the task"
    )
    with pytest.raises(RunError) as caught:
        run(tmp_path, Echo(WORDS[:1]))
    assert str(caught.value) == message
    with pytest.raises(RunError) as caught:
        compare_items([Echo(WORDS[:1])], tmp_path, tmp_path)
    assert str(caught.value) == message


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    [result] = run(tmp_path, Echo(WORDS))
    assert read_result(tmp_path / "echo") == result


@pytest.mark.parametrize("change", [{"figures": [{"name": "length"}]}, {"items": -1}, {"available": "all"}])
def test_a_damaged_summary(tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path, Echo(WORDS))
    path = tmp_path / "echo/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError) as caught:
        read_result(tmp_path / "echo")
    assert str(caught.value) == (
        f"{path} is damaged: put it back, or remove it and run the same command again to make it anew"
    )


# The table


def printed(results: Sequence[Result]) -> str:
    console = Console(width=180, no_color=True)
    with console.capture() as capture:
        console.print(table("m", results))
    return capture.get()


def test_a_judge_that_was_not_checked_is_printed_as_such(tmp_path: Path) -> None:
    text = printed(run(tmp_path, Echo(WORDS), limit=3))
    assert "unchecked judge" in text
    assert "echo: 3 of 7 items, those whose ids have the smallest SHA-256" in text
    assert "judge length#1 was NOT CHECKED against people's labels: measure it with `isara judge check`" in text


def test_a_checked_judge_brings_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = [LabelledRow(QAPair("q", f"a{n}"), positive=n < 3) for n in range(4)]
    keep(check(Fine(), rows, "four rows"))
    assert judge_line("fine#1") == (
        "judge fine#1: accuracy 0.750 [0.301, 0.954], kappa 0.000 [0.000, 0.000] on 4 rows that people labelled "
        "(four rows)"
    )
    result = Result("t", [mean("good", [1.0, 1.0]).resting_on("fine#1")], 4, 4, 1.0, tmp_path)
    assert "unchecked judge" not in printed([result])


@pytest.mark.parametrize(
    ("figure", "value", "ends"),
    [
        (Figure("f", 0.1234, 0.0567, 0.05, 0.25, 9, percent=True), "12.3 ± 5.7 %", "5.0 to 25.0"),
        (Figure("f", 1.5, 0.25, 1, 2, 9), "1.500 ± 0.250", "1.000 to 2.000"),
        (Figure("f", 1.5, NAN, NAN, NAN, 1), "1.500", ""),
        (Figure("f", NAN, NAN, NAN, NAN, 0, percent=True), "-", ""),
    ],
)
def test_how_figures_are_shown(figure: Figure, value: str, ends: str) -> None:
    assert (shown(figure), interval(figure)) == (value, ends)


# Two models


def test_two_models_are_compared_on_the_items_they_share(tmp_path: Path) -> None:
    run(tmp_path / "old", Echo(WORDS[:5]))
    task = Echo(WORDS[2:])
    run(tmp_path / "new", task)
    [row] = compare_items([task], tmp_path / "new", tmp_path / "old")
    assert (row.name, row.n, row.difference.mean, row.adjusted) == ("length", 3, 0, 1)
    assert row.before == row.after == pytest.approx((4 + 5 + 4) / 3)


class Longer(Echo):
    """Echoes every word with two letters more."""

    def answer(self, asker: Asker, items: Sequence[Word]) -> list[Row]:
        return [{**row, "answer": row["answer"] + "!!"} for row in super().answer(asker, items)]


def test_a_difference_has_its_interval_and_both_p_values(tmp_path: Path) -> None:
    words = [f"word{n}" * (1 + n % 3) for n in range(20)]
    run(tmp_path / "old", Echo(words))
    run(tmp_path / "new", Longer(words), weights="w2")
    rows = compare_items([Longer(words)], tmp_path / "new", tmp_path / "old")
    [row] = rows
    assert (row.difference.mean, row.difference.error) == (2, 0)
    assert row.difference.p_value == row.adjusted < 0.001
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(comparison_table(rows, tmp_path / "old"))
    assert "echo: length" in capture.get() and "+2.000 [+2.000, +2.000]" in capture.get()


def test_no_results_to_compare_with(tmp_path: Path) -> None:
    run(tmp_path / "new", Echo(WORDS))
    with pytest.raises(RunError) as caught:
        compare_items([Echo(WORDS)], tmp_path / "new", tmp_path / "old")
    assert str(caught.value) == (
        f"expected results of `echo` in {tmp_path}/old/echo, found none: measure the other model on it first"
    )


def test_two_judges_cannot_be_compared(tmp_path: Path) -> None:
    run(tmp_path / "old", Echo(WORDS))
    run(tmp_path / "new", Echo(WORDS, judge="length#2"))
    with pytest.raises(RunError) as caught:
        compare_items([Echo(WORDS)], tmp_path / "new", tmp_path / "old")
    assert str(caught.value) == (
        f"`echo` in {tmp_path}/old/echo was judged by length#1 and here by length#2: measure both with the same judges"
    )


def test_a_key_without_judges(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    path = tmp_path / "echo/items.key.json"
    path.write_text('{"judges": "all"}')
    with pytest.raises(RunError) as caught:
        compare_items([Echo(WORDS)], tmp_path, tmp_path)
    assert str(caught.value) == (
        f"{path} is missing or damaged: put it back, or remove {tmp_path}/echo and run the same command again"
    )


def test_a_number_that_is_none_is_not_compared(tmp_path: Path) -> None:
    run(tmp_path, Echo(WORDS))
    path = tmp_path / "echo/items.jsonl"
    path.write_text(path.read_text().replace('"length": 5', '"length": NaN'))
    with pytest.raises(RunError) as caught:
        compare_items([Echo(WORDS)], tmp_path, tmp_path)
    assert str(caught.value) == (
        f"{path} is damaged: put it back, or remove it and run the same command again to make it anew"
    )
