"""Damage of a run folder is seen, named, and mended by what the message says."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from isara.errors import RunError
from isara.files import disk_errors, file_hash, write_json
from isara.folder import RunFolder, check_stage, read_environment, seal, stage_folder
from isara.generate import whole_batches
from tests.test_loop import align, tree


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one iteration; copy it before you change it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    align(run, "iterations=1")
    return run


def again(run: Path) -> None:
    align(run, "iterations=1")


def cut(path: Path) -> str:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    return f"has {size - 1} bytes instead of {size}"


def change(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "was changed"


def lose(path: Path) -> str:
    path.unlink()
    return "is missing"


def link(path: Path) -> str:
    away = path.with_name("elsewhere")
    path.rename(away)
    path.symlink_to(away.name)
    return "is a link"


@pytest.mark.parametrize("damage", [cut, change, lose, link])
@pytest.mark.parametrize(
    "name",
    [
        "generate/candidates.jsonl",
        "generate/accepted.jsonl",
        "generate/stats.json",
        "train/train.json",
        "train/model/weights.json",
        "evaluate/eval.json",
    ],
)
def test_damage_is_named_and_what_the_line_says_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], str]
) -> None:
    align(tmp_path / "run", "iterations=1")
    whole = tree(tmp_path / "run")
    path = tmp_path / "run/iteration-01" / name
    what, stage = damage(path), tmp_path / "run/iteration-01" / name.split("/")[0]
    message = (
        f"{path} {what}, which is not what DONE says of it: put it back, or remove {stage} and run the same command "
        "again, which makes that stage anew"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        again(tmp_path / "run")
    shutil.rmtree(stage)
    again(tmp_path / "run")
    assert tree(tmp_path / "run") == whole


def test_a_foreign_file_is_named(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "iteration-01/train/model/extra.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match=r"extra\.safetensors does not belong there, which is not what DONE says"):
        check_stage(run / "iteration-01/train")


def test_every_mutation_of_a_finished_stage_is_seen(finished: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(200):
        stage = Path(shutil.copytree(finished / "iteration-01" / rng.choice(["generate", "train", "evaluate"]),
                                     tmp_path / f"{number}"))  # fmt: skip
        path = rng.choice([path for path in sorted(stage.rglob("*")) if path.is_file() and path.name != "DONE"])
        data = bytearray(path.read_bytes())
        kind = rng.choice(["flip", "cut", "grow", "empty", "lose", "swap"])
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[rng.randrange(len(data)) :]
        elif kind == "grow":
            data += b"\n"
        elif kind == "empty":
            data.clear()
        elif kind == "swap":
            data = bytearray(reversed(data))
        path.unlink() if kind == "lose" else path.write_bytes(data)
        with pytest.raises(RunError, match="which is not what DONE says of it"):
            check_stage(stage)


def test_without_verifying_sizes_are_still_looked_at(finished: Path, tmp_path: Path) -> None:
    stage = Path(shutil.copytree(finished / "iteration-01/train", tmp_path / "train"))
    change(stage / "model/weights.json")
    check_stage(stage, verify=False)
    cut(stage / "model/weights.json")
    with pytest.raises(RunError, match="has .* bytes instead of"):
        check_stage(stage, verify=False)


@pytest.mark.parametrize("damage", [change, cut, lose])
def test_the_exported_model_is_made_anew_where_it_was_changed(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    align(tmp_path / "run", "iterations=1")
    whole = tree(tmp_path / "run")
    damage(tmp_path / "run/final/weights.json")
    again(tmp_path / "run")
    assert tree(tmp_path / "run") == whole
    # The record has bytes of its own: who changes final/ has not changed it.
    assert file_hash(tmp_path / "run/iteration-01/train/model/weights.json") == whole["final/weights.json"]


def test_a_stage_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run") as run:
        (tmp_path / "run/iteration-01").symlink_to(tmp_path / "elsewhere")
        message = (
            f"{tmp_path / 'run/iteration-01'} is a link, and a run is written into its own folder alone: "
            "put a folder there"
        )
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            run.stage(1, "generate", {}, lambda folder: None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_deleted_lock_does_not_let_a_second_process_in(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        (tmp_path / "run/.lock").unlink()
        message = f"{tmp_path / 'run'} is in use by another process: wait for it, or give another folder with --out"
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"), RunFolder(tmp_path / "run"):
            pass


def test_a_stage_of_another_key_is_refused_with_what_differs(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.stage(1, "train", {"start": "3d5a", "pairs": []}, lambda folder: None)
        message = (
            f"{tmp_path / 'run'} holds another run: iteration-01/train was made with another start. Undo the change "
            "to resume it, or start a new run with --out ANOTHER_FOLDER"
        )
        with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
            run.stage(1, "train", {"start": "77ff", "pairs": []}, lambda folder: None)


def test_a_done_that_names_files_elsewhere_is_damaged(tmp_path: Path) -> None:
    stage = tmp_path / "iteration-01/train"
    stage.mkdir(parents=True)
    seal(stage)
    write_json(stage / "DONE", {"../../secret": {"bytes": 1, "sha256": ""}})
    with pytest.raises(RunError, match="DONE is damaged"):
        check_stage(stage)


def test_an_environment_of_another_format_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "environment.json", {"format": 9})
    message = (
        f"{tmp_path} is a run folder of format 9, and this version of ISARA reads format 2: "
        "use the version that made it"
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        read_environment(tmp_path)


def test_a_batch_that_was_changed_before_the_run_goes_on_is_named(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "iteration-01/train")
    stage = run / "iteration-01/generate"
    (stage / "DONE").unlink()
    path = stage / "candidates.jsonl"
    path.write_text(path.read_text().replace("Kakariko", "Termina", 1))
    message = f"{path} is missing or damaged: put it back, or remove {stage} and run the same command again"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        whole_batches(path)


def test_where_a_stage_lies() -> None:
    assert stage_folder(Path("run"), 3, "train") == Path("run/iteration-03/train")


def test_a_place_that_is_none_is_told_as_what_it_is(tmp_path: Path) -> None:
    lacking = tmp_path / "hyrule" / "rows.jsonl"
    message = f"can't write {lacking}: there is no folder {lacking.parent}: make it, or give another place"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"), disk_errors(lacking):
        lacking.open("w")
    message = f"expected a file at {tmp_path}, found a folder: give a file's name"
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"), disk_errors(tmp_path):
        tmp_path.open("w")
