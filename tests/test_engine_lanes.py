"""Lanes of the transformers engine: a call's rows in several threads, which change nothing but the time."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from isara.engines.transformers import engine as engines
from isara.engines.transformers import lanes as lanes_of_engines
from isara.engines.transformers.engine import TransformersEngine
from isara.engines.transformers.lanes import lanes_for, run_in_lanes, share_out
from isara.engines.transformers.model import LoadedModel
from isara.errors import ModelError
from isara.records import Prompt, Sampling
from isara.render import open_renderer
from tests.tiny_models import FAMILIES

SAMPLED = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=12, stop=("\n",))
WORDS = ("tide", "lamp", "ferry", "cat", "rye", "harbour", "keeper", "fog", "net", "bell")


@pytest.fixture
def two_lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two lanes of one thread each, whatever the model's size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(engines, "lanes_for", lambda config, weights, rows: min(2, rows))
    yield
    torch.set_num_threads(threads)


def asked(model: Path) -> list[Prompt]:
    renderer = open_renderer(str(model))
    return [renderer.text(f"Question: {' '.join(WORDS[: 1 + n % 7])}?\nAnswer:") for n in range(14)]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_rows_are_those_of_one_lane(
    tiny_models: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    prompts = asked(tiny_models[family])
    seen: set[int] = set()
    forward = LoadedModel.forward

    def watched(self: Any, *rest: Any) -> Any:
        seen.add(threading.get_ident())
        return forward(self, *rest)

    monkeypatch.setattr(LoadedModel, "forward", watched)
    with TransformersEngine(str(tiny_models[family]), device="cpu", dtype="float32", tokens_per_batch=400) as engine:
        in_two = engine.generate(prompts, SAMPLED, range(len(prompts)))
        assert len(seen) == 2 and threading.get_ident() not in seen
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(engines, "lanes_for", lambda config, weights, rows: 1)
        assert engine.generate(prompts, SAMPLED, range(len(prompts))) == in_two


def test_rows_of_one_prompt_stay_in_one_lane_and_are_read_once(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    prompts = [prompt for prompt in asked(tiny_llama)[:4] for _ in range(3)]
    read: list[tuple[int, ...]] = []
    prefill = LoadedModel._prefill

    def counted(self: Any, heads: Any) -> Any:
        read.extend(heads)
        return prefill(self, heads)

    monkeypatch.setattr(LoadedModel, "_prefill", counted)
    with TransformersEngine(str(tiny_llama), device="cpu", dtype="float32") as engine:
        engine.generate(prompts, SAMPLED, range(len(prompts)))
    assert len(read) == len(set(read)) == 4


def test_progress_comes_from_one_lane_at_a_time_and_ends_with_all(tiny_llama: Path, two_lanes: None) -> None:
    told: list[tuple[int, int]] = []
    prompts = asked(tiny_llama)
    with TransformersEngine(
        str(tiny_llama), device="cpu", dtype="float32", on_progress=lambda *state: told.append(state)
    ) as engine:
        done = engine.generate(prompts, SAMPLED, range(len(prompts)))
    assert told[-1] == (sum(row.tokens for row in done), len(prompts))
    assert told == sorted(told)


def test_an_error_in_one_lane_ends_the_other_and_is_told(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    forward, calls = LoadedModel.forward, 0

    def failing(self: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ValueError("the fifth step")
        return forward(self, *rest)

    monkeypatch.setattr(LoadedModel, "forward", failing)
    prompts, endless = asked(tiny_llama), Sampling(temperature=0, max_new_tokens=60)
    with TransformersEngine(str(tiny_llama), device="cpu", dtype="float32") as engine:
        with pytest.raises(ValueError, match="the fifth step"):
            engine.generate(prompts, endless, range(len(prompts)))
        assert calls < 60
        assert torch.get_num_threads() == 2


def test_memory_that_runs_out_in_a_lane_halves_the_budget(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    prompts = asked(tiny_llama)
    with TransformersEngine(str(tiny_llama), device="cpu", dtype="float32") as engine:
        whole = engine.generate(prompts, SAMPLED, range(len(prompts)))
        forward, failed = LoadedModel.forward, threading.Event()

        def small(self: Any, cache: Any, ids: Any, starts: Any) -> Any:
            if not failed.is_set() and len(ids) > 3:
                failed.set()
                raise MemoryError
            return forward(self, cache, ids, starts)

        monkeypatch.setattr(LoadedModel, "forward", small)
        before = engine.tokens_per_batch
        assert engine.generate(prompts, SAMPLED, range(len(prompts))) == whole
        assert failed.is_set() and before is not None and engine.tokens_per_batch is not None
        assert engine.tokens_per_batch < before


def test_a_lane_without_memory_for_a_row_is_one_line(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    def none(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(LoadedModel, "forward", none)
    with TransformersEngine(str(tiny_llama), device="cpu", dtype="float32") as engine:
        with pytest.raises(ModelError, match="the memory of cpu is too small for this model and a row of"):
            engine.generate(asked(tiny_llama), SAMPLED, range(14))


def test_rows_for_which_lanes_together_have_no_memory_are_made_in_one(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_lanes: None
) -> None:
    prompts, home = asked(tiny_llama), threading.get_ident()
    with TransformersEngine(str(tiny_llama), device="cpu", dtype="float32") as engine:
        whole = engine.generate(prompts, SAMPLED, range(len(prompts)))
        forward = LoadedModel.forward

        def small(self: Any, *rest: Any) -> Any:
            if threading.get_ident() != home:
                raise MemoryError
            return forward(self, *rest)

        monkeypatch.setattr(LoadedModel, "forward", small)
        assert engine.generate(prompts, SAMPLED, range(len(prompts))) == whole


def test_no_thread_is_left_idle() -> None:
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(5)
    try:
        run_in_lanes([lambda check: found.append(torch.get_num_threads())] * 3)
        assert sorted(found) == [1, 2, 2]
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


def test_an_interrupted_call_ends_its_lanes() -> None:
    ended: list[int] = []

    def work(number: int) -> Callable[[Callable[[], None]], None]:
        def until_stopped(check: Callable[[], None]) -> None:
            try:
                while True:
                    check()
            finally:
                ended.append(number)

        return until_stopped

    def interrupted(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isara.engines.transformers.lanes.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in_lanes([work(0), work(1)])
    assert sorted(ended) == [0, 1]


def test_rows_are_dealt_out_by_prompt() -> None:
    assert share_out(["aa", "ab", "b", "ca", "cb", "d"], lambda row: row[0], 2) == [
        ["aa", "ab", "ca", "cb"],
        ["b", "d"],
    ]


@pytest.mark.parametrize(
    ("threads", "weights", "rows", "config", "lanes"),
    [
        (2, 135_000_000, 64, {}, 2),
        (2, 135_000_000, 16, {}, 2),
        (2, 135_000_000, 15, {}, 1),
        (1, 135_000_000, 64, {}, 1),
        (16, 135_000_000, 64, {}, 4),
        (2, 4_300_000, 64, {}, 1),
        (2, 135_000_000, 64, {"rope_parameters": {"rope_type": "longrope"}}, 1),
        (2, 135_000_000, 64, {"rope_scaling": {"type": "dynamic"}}, 1),
        (2, 135_000_000, 64, {"rope_parameters": {"rope_type": "llama3"}}, 2),
    ],
)
def test_how_many_lanes_there_are(
    threads: int, weights: int, rows: int, config: dict[str, Any], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    monkeypatch.setattr(lanes_of_engines, "_cores", lambda: threads)
    try:
        assert lanes_for(SimpleNamespace(**config), weights, rows) == lanes
        monkeypatch.setattr(lanes_of_engines, "_cores", lambda: 1)  # as OpenMP binds a thread to its own
        assert lanes_for(SimpleNamespace(**config), weights, rows) == 1
    finally:
        torch.set_num_threads(before)
