"""Several processes of an engine: the same rows in the same order, and what becomes of the rows of one that dies."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from isara.build import build_engine
from isara.config import load_config
from isara.engines.child import ChildEngine
from isara.engines.workers import WorkerEngines, shared_out
from isara.errors import ConfigError, ModelError
from isara.hardware import Place, share_machine
from isara.records import Completion, Prompt, Sampling
from isara.render import open_renderer
from isara.testing import ScriptedEngine

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=12)
PROMPTS = [Prompt(f"Who guards room {room // 2} of the temple?", (1, 7 + room // 2)) for room in range(40)]
SEEDS = list(range(100, 140))


class Soldier(ScriptedEngine):
    """A double of an engine in a process: it dies of the tasks whose numbers are given, counted over all of its kind.

    Args:
        deaths: Which of all tasks are its death, from 0.
        tasks: The rows of each task so far, in the order in which they were taken.
    """

    def __init__(self, deaths: Sequence[int], tasks: list[list[str]], lock: threading.Lock) -> None:
        super().__init__(lambda prompt, seed: f"{prompt} {seed}")
        self.deaths, self.tasks, self.lock, self.dead, self.opened = deaths, tasks, lock, False, 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        assert self.opened == 1 and not self.dead
        with self.lock:
            number = len(self.tasks)
            self.tasks.append([prompt.text for prompt in prompts])
        if number in self.deaths:
            self.dead = True
            raise ModelError(f"the soldier fell in task {number}")
        return super().generate(prompts, sampling, seeds)

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened -= 1


class Army:
    """Workers that are soldiers; all that were made are in `soldiers`."""

    def __init__(self, count: int, deaths: Sequence[int] = ()) -> None:
        self.tasks: list[list[str]] = []
        self.soldiers: list[Soldier] = []
        self.seen: list[tuple[int, int]] = []
        lock = threading.Lock()

        def make(model: str, /) -> Soldier:
            self.soldiers.append(Soldier(deaths, self.tasks, lock))
            return self.soldiers[-1]

        self.engines = WorkerEngines([make] * count, lambda *figures: self.seen.append(figures))

    def ask(self, prompts: Sequence[Prompt] = PROMPTS) -> list[Completion]:
        with self.engines("hyrule") as engine:
            found = engine.generate(prompts, SAMPLING, SEEDS[: len(prompts)])
        assert not any(each.opened for each in self.soldiers)
        return found


def expected() -> list[Completion]:
    return ScriptedEngine(lambda prompt, seed: f"{prompt} {seed}").generate(PROMPTS, SAMPLING, SEEDS)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_rows_come_back_in_order(count: int) -> None:
    army = Army(count)
    assert army.ask() == expected()
    assert sum(map(len, army.tasks)) == len(PROMPTS)
    assert army.seen[-1] == (sum(each.tokens for each in expected()), len(PROMPTS))


@pytest.mark.parametrize("deaths", [[0], [1], [0, 1]])
def test_rows_of_a_worker_that_dies_are_made_again(deaths: list[int], caplog: pytest.LogCaptureFixture) -> None:
    army = Army(2, deaths)
    with caplog.at_level("WARNING", logger="isara"):
        assert army.ask() == expected()
    assert len(caplog.messages) == len(deaths)
    assert "starts again, and its rows are made once more" in caplog.messages[0]
    assert len(army.soldiers) == 2 + len(deaths)


def test_a_worker_starts_again_once_and_then_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    army = Army(2, deaths=[0, 2])  # two rows of one prompt are one task, and the first worker is asked first
    with caplog.at_level("WARNING", logger="isara"), army.engines("hyrule") as engine:
        for _ in range(3):
            assert engine.generate(PROMPTS[:2], SAMPLING, SEEDS[:2]) == expected()[:2]
    assert caplog.messages == [
        "worker 0: the soldier fell in task 0; it starts again, and its rows are made once more",
        "worker 0: the soldier fell in task 2; it ended before, and the others make its rows",
    ]
    assert not any(each.opened for each in army.soldiers)


def test_the_last_workers_second_death_ends_the_run() -> None:
    army = Army(1, deaths=[0, 2])
    with pytest.raises(ModelError, match="the soldier fell in task 2"), army.engines("hyrule") as engine:
        assert engine.generate(PROMPTS[:2], SAMPLING, SEEDS[:2]) == expected()[:2]
        engine.generate(PROMPTS[:2], SAMPLING, SEEDS[:2])


def test_rows_that_two_workers_died_of_end_the_call() -> None:
    army = Army(2, deaths=range(100))
    with pytest.raises(ModelError) as caught:
        army.ask(PROMPTS[:1])
    assert str(caught.value) == "two workers ended over the same 1 rows; the last one: the soldier fell in task 1"
    assert not any(each.opened for each in army.soldiers)


def test_an_error_that_is_no_death_is_the_workers_own() -> None:
    army = Army(2)
    with pytest.raises(ZeroDivisionError), army.engines("hyrule") as engine:
        army.soldiers[0].answer = army.soldiers[1].answer = lambda prompt, seed: str(1 // 0)
        engine.generate(PROMPTS, SAMPLING, SEEDS)
    assert not any(each.opened for each in army.soldiers)


def test_scores_are_shared_out_too() -> None:
    tails = [[5] * (row % 4) for row in range(len(PROMPTS))]
    alone = ScriptedEngine(lambda prompt, seed: "")
    with Army(3).engines("hyrule") as engine:
        assert engine.logprobs(PROMPTS, tails) == alone.logprobs(PROMPTS, tails)
        assert engine.logprobs([], []) == []


def test_rows_of_a_prompt_stay_together_and_tasks_are_of_like_cost() -> None:
    prompts = [Prompt("", (row // 4,)) for row in range(512)]
    tasks = shared_out(prompts, [40 + row // 4 for row in range(512)], 2)
    assert [len(task.rows) for task in tasks] == [128] * 4
    assert sorted(row for task in tasks for row in task.rows) == list(range(512))
    assert not any(
        {row // 4 for row in one.rows} & {row // 4 for row in other.rows}
        for one in tasks
        for other in tasks
        if one is not other
    )
    assert max(task.cost for task in tasks) / min(task.cost for task in tasks) < 1.05
    # Fewer rows a task would be slower a row.
    assert [len(task.rows) for task in shared_out(prompts[:256], [10] * 256, 2)] == [128] * 2


def test_two_processes_give_what_one_engine_gives_and_one_may_be_killed(
    tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renderer = open_renderer(str(tiny_llama))
    prompts = [renderer.text(f"Question: Who sleeps in room {room}?") for room in range(9)]
    with ChildEngine(str(tiny_llama), device="cpu", dtype="float32") as one:
        alone = one.generate(prompts, SAMPLING, SEEDS[:9])
    config = load_config(None, ["engine.workers=2", "engine.device=cpu", "engine.dtype=float32"])
    made = build_engine(config)
    assert isinstance(made, WorkerEngines)
    plain = build_engine(load_config(None, ["engine.device=cpu", "engine.dtype=float32"]))
    assert made.key() == plain.key()  # type: ignore[attr-defined]  # a factory need have none
    opened: Any
    with caplog.at_level("WARNING", logger="isara"), made(str(tiny_llama)) as opened:
        assert opened.exact
        assert opened.generate(prompts, SAMPLING, SEEDS[:9]) == alone
        os.kill(opened._workers[0].engine._child.process.pid, signal.SIGKILL)
        assert opened.generate(prompts, SAMPLING, SEEDS[:9]) == alone
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "was killed by signal 9" in warning


def test_workers_share_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert share_machine(3, "cpu") == [Place("cpu", {"OMP_NUM_THREADS": "2"}, 3)] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place.device for place in share_machine(3, "auto")] == ["cuda:0", "cuda:1", "cuda:0"]
    assert share_machine(2, "cuda", each=1)[1] == Place("cuda", {"CUDA_VISIBLE_DEVICES": "1"}, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert share_machine(1, "cuda", each=2) == [Place("cuda", {"CUDA_VISIBLE_DEVICES": "4,6"}, 1)]
    with pytest.raises(ModelError) as caught:
        share_machine(2, "cuda", each=2)
    assert str(caught.value) == (
        "expected 4 GPUs for 2 processes with 2 each, found 2: lower `engine.workers`, `tensor_parallel_size` or "
        "`train.processes`"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["engine.use=mine:Engine"],
            "expected `workers: 1` for an engine of your own, which is opened in this process",
        ),
        (
            ["engine.kind=server", "engine.serve=serve {model} {port}"],
            "expected `workers: 1` for `kind: server`, which has `concurrency`",
        ),
    ],
)
def test_who_has_no_workers_is_told(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["engine.workers=2", *settings])
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"])
@pytest.mark.parametrize(("size", "said"), [("0", "0"), ("two", "'two'"), ("1.5", "1.5"), ("true", "True")])
def test_a_size_of_a_model_over_gpus_is_a_whole_number(name: str, size: str, said: str) -> None:
    settings = ["engine.kind=vllm", "engine.workers=2", f"engine.options={{{name}: {size}}}"]
    with pytest.raises(ConfigError) as caught:
        build_engine(load_config(None, settings))
    assert str(caught.value) == f"engine.options.{name}: expected a whole number of at least 1, found {said}"
