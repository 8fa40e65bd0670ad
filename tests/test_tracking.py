import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from isara.config import Config, load_config
from isara.errors import ConfigError
from isara.loop import run
from isara.tracking import Tracked, tracked
from isara.watching import SILENT
from tests.doubles import ScriptedEvaluator
from tests.test_loop import parts


class Recorder:
    """A tracker that keeps what it is sent."""

    def __init__(self, most: int | None = None) -> None:
        self.sent: list[tuple[int, dict[str, float]]] = []
        self.most, self.finished = most, False

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.most is not None and len(self.sent) >= self.most:
            raise ConnectionError("the tracker's host is gone")
        self.sent.append((step, dict(values)))

    def finish(self) -> None:
        self.finished = True


def align(out: Path, tracker: Recorder) -> None:
    made = parts(out, evaluator=ScriptedEvaluator([3.0, 2.0, 1.0]))
    with Tracked(SILENT, lambda: tracker) as watcher:
        run(made, watcher)


def test_each_stage_sends_its_figures(tmp_path: Path) -> None:
    tracker = Recorder()
    align(tmp_path / "run", tracker)
    sent = [values for _, values in tracker.sent]
    assert [values["evaluate/bits_per_byte"] for values in sent if "evaluate/bits_per_byte" in values] == [3, 2, 1]
    funnels = [values for values in sent if "generate/funnel.accepted" in values]
    assert [(values["iteration"], values["generate/funnel.accepted"]) for values in funnels] == [(1, 12), (2, 12)]
    assert [values["iteration"] for values in sent if "train/steps" in values] == [1, 2]
    assert tracker.finished


def test_a_command_that_goes_on_sends_what_was_done_before(tmp_path: Path) -> None:
    first, again = Recorder(), Recorder()
    align(tmp_path / "run", first)
    align(tmp_path / "run", again)
    assert again.sent == first.sent


def test_steps_of_trainings_follow_each_other() -> None:
    tracker = Recorder()
    with Tracked(SILENT, lambda: tracker) as watcher:
        for iteration in (-2, 1, 2):
            watcher.stage(iteration, "train", 0)
            for step in (1, 2):
                watcher.step(step, 2, 0.5 * step)
    names = ["reader/loss"] * 2 + ["train/loss"] * 4
    assert tracker.sent == [(n, {name: 0.5 + 0.5 * ((n - 1) % 2)}) for n, name in enumerate(names, 1)]


def test_a_preference_step_has_a_curve_of_its_own() -> None:
    tracker = Recorder()
    with Tracked(SILENT, lambda: tracker) as watcher:
        for name in ("train", "prefer"):
            watcher.stage(1, name, 0)
            watcher.step(1, 1, 0.5)
    assert tracker.sent == [(1, {"train/loss": 0.5}), (2, {"prefer/loss": 0.5})]


def test_a_tracker_that_fails_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recorder(most=2)
    align(tmp_path / "run", tracker)
    assert (tmp_path / "run" / "final").is_dir()
    assert [record.getMessage() for record in caplog.records if "tracker" in record.getMessage()] == [
        "the tracker is left out from here on: ConnectionError: the tracker's host is gone"
    ]


def test_a_tracker_that_cant_be_started_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def start() -> Recorder:
        raise ConfigError("track: hyrule can't be started (OSError: no map): mend that, or set track to null")

    with Tracked(SILENT, start) as watcher:
        watcher.figures(0, "evaluate", {"bits_per_byte": 1.0})
        watcher.figures(1, "evaluate", {"bits_per_byte": 0.5})
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker is left out from here on: track: hyrule can't be started (OSError: no map): mend that, or set "
        "track to null"
    ]


def config(out: Path, name: str) -> Config:
    return load_config(None, [f"track={name}"], out=str(out))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as error:
        tracked(SILENT, config(tmp_path, "wandb"))
    assert str(error.value) == (
        "track: wandb: expected its package, found none: pip install wandb, or set track to null"
    )


def test_without_a_tracker_nothing_is_imported(tmp_path: Path) -> None:
    with tracked(SILENT, load_config(None, [], out=str(tmp_path))) as watcher:
        watcher.stage(1, "train", 0)
        watcher.step(1, 2, 0.5)
        watcher.figures(0, "evaluate", {"bits_per_byte": 1.0})


def test_tensorboard_gets_curves(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracked(SILENT, config(tmp_path, "tensorboard")) as watcher:
        watcher.stage(1, "train", 0)
        for step in (1, 2, 3):
            watcher.step(step, 3, 1 / step)
        watcher.figures(1, "evaluate", {"bits_per_byte": 1.5})
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, round(event.value, 3)) for event in found.Scalars("train/loss")] == [
        (1, 1),
        (2, 0.5),
        (3, 0.333),
    ]
    assert [event.value for event in found.Scalars("evaluate/bits_per_byte")] == [1.5]
