"""Finding, checking and hashing models."""

import shutil
from pathlib import Path

import pytest

from isara import models
from isara.errors import ModelError
from isara.models import embedded_model, find_model, weights_hash


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model folder that the test may spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as error:
        find_model(name)
    return str(error.value)


def test_a_whole_folder_is_found(folder: Path) -> None:
    assert find_model(str(folder)) == str(folder)


def test_the_embedded_model_is_a_folder_that_can_be_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "isara"
    monkeypatch.setattr(models, "__file__", str(package / "models.py"))
    expected = package / "embedded" / "model"
    with pytest.raises(ModelError) as error:
        embedded_model()
    assert str(error.value) == (
        f"the embedded model is not in this installation (expected {expected}): make it as pretraining/README.md says, "
        "or name another model with --model"
    )
    shutil.copytree(folder, expected)
    assert embedded_model() == expected
    assert find_model("embedded") == str(expected)


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refusal(str(folder)) == (
        f"expected a model folder with config.json, found none in {folder}: name another folder"
    )


def test_a_folder_with_an_adapter_alone(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert refusal(str(folder)) == (f"{folder} holds an adapter without its model: merge it into the base model first")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(str(folder)) == (f"expected weights as *.safetensors in {folder}, found none: copy or download them")


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(str(folder)) == (
        f"{folder} holds pickled weights (*.bin), which can run any code when they are read: save the model again with "
        "save_pretrained, which writes model.safetensors"
    )


def test_a_folder_without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert refusal(str(folder)) == (
        f"expected tokenizer files in {folder} (tokenizer.json, tokenizer.model, vocab.json, vocab.txt), found none: "
        "save the tokenizer there with save_pretrained"
    )


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    file = folder / "config.json"
    assert refusal(str(file)) == (
        f"expected a model folder, found the file {str(file)!r}: name the folder that it is in"
    )


def test_a_hub_name_without_network() -> None:
    assert refusal("hyrule/zelda-7b") == (
        "'hyrule/zelda-7b' is not a folder, it is not in the local cache, and HF_HUB_OFFLINE is set: download it where "
        "there is a network with `hf download hyrule/zelda-7b`, or name a folder"
    )


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _unreachable)
    assert refusal("hyrule/zelda-7b") == (
        "'hyrule/zelda-7b' is not a folder, it is not in the local cache, and the hub can't be reached: download it "
        "where there is a network with `hf download hyrule/zelda-7b`, or name a folder"
    )


def test_what_can_be_no_hub_name() -> None:
    assert refusal("./no/such/folder") == "'./no/such/folder' is neither a folder nor a hub name: check its spelling"


def test_a_cached_hub_name_is_found_and_hashed_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--hyrule--zelda-7b"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_model("hyrule/zelda-7b") == "hyrule/zelda-7b"
    assert weights_hash("hyrule/zelda-7b") == commit


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_hash_changes_with_any_file_that_matters(folder: Path, name: str) -> None:
    before = weights_hash(str(folder))
    (folder / "README.md").write_text("It's dangerous to go alone!")
    assert weights_hash(str(folder)) == before
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert weights_hash(str(folder)) != before


def test_the_hash_changes_when_files_trade_names(folder: Path) -> None:
    (folder / "a.json").write_text("1")
    (folder / "b.json").write_text("2")
    before = weights_hash(str(folder))
    (folder / "a.json").write_text("2")
    (folder / "b.json").write_text("1")
    assert weights_hash(str(folder)) != before


def _unreachable(*args: object, **kwargs: object) -> None:
    raise ConnectionError("no route to host")
