"""The short forms: damaged folders are named or healed, and full or broken disks lose nothing."""

import json
from pathlib import Path

import pytest

from isara.evaluate import harness
from isara.testing import ScriptedEngine
from tests.doubles import hyrule
from tests.faults.disks import can_mount, fault_test, full_disk_test
from tests.faults.mutations import mutation_test
from tests.faults.worlds import World, small_worlds
from tests.test_loop import align, stored


@pytest.fixture(autouse=True)
def harness_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a test the other harness is itself again, in whose place small worlds put a quick one."""
    for name in ("_evaluate", "_version"):
        monkeypatch.setattr(harness, name, getattr(harness, name))


@pytest.fixture(params=range(3), ids=["run", "evaluation", "comparison"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    number: int = request.param
    return small_worlds(tmp_path)[number]


def test_mutations_are_named_or_healed() -> None:
    said: list[str] = []
    counts = mutation_test(80, seed=1, say=said.append)
    assert all(not found["silent"] + found["crashed"] for found in counts.values()), said
    assert all(found["named"] for found in counts.values())


def test_calls_that_fail_lose_nothing(world: World, tmp_path: Path) -> None:
    assert fault_test(world, 5, 0, tmp_path) == []


def test_full_disks_lose_nothing(world: World, tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("no tmpfs may be mounted here")
    assert full_disk_test(world, 2, 0, tmp_path) == []


def test_half_a_character_of_an_engine_of_ones_own_becomes_one_that_filters_know(tmp_path: Path) -> None:
    def broken(model: str) -> ScriptedEngine:
        return ScriptedEngine(lambda prompt, seed: hyrule(model).answer(prompt, seed).replace("potion", "poti\ud800n"))

    align(tmp_path / "run", "iterations=1", engine=broken)
    assert "poti\ufffdn" in json.dumps(stored(tmp_path / "run", 1), ensure_ascii=False)
