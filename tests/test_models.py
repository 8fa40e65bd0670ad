"""Finding, checking and hashing models."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isara import models
from isara.data import QAPair
from isara.engines.transformers import TransformersEngine
from isara.errors import ModelError
from isara.models import embedded_model, find_model, load_error, load_model, weights_hash
from isara.protocols import Sampling
from isara.trainers import SupervisedTrainer


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


def test_a_hub_at_a_closed_port() -> None:
    code = "from isara.models import find_model; find_model('hyrule/zelda-7b')"
    closed = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=closed, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "isara.errors.ModelError: 'hyrule/zelda-7b' is not a folder, it is not in the local cache, and the hub can't "
        "be reached: download it where there is a network with `hf download hyrule/zelda-7b`, or name a folder"
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


Spoil = Callable[[Path], None]


def config(**values: Any) -> Spoil:
    """Changes values of config.json."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Changes tensors of model.safetensors."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def file(name: str, content: bytes) -> Spoil:
    """Writes a file anew."""

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return spoil


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


def few_embeddings(folder: Path) -> None:
    config(vocab_size=200)(folder)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    weights(lambda tensors: tensors.update({name: tensors[name][:200].clone() for name in names}))(folder)


AGAIN = "copy or download it again, with the config.json that belongs to its weights"
LIBRARY = (
    r"the model '{folder}' can't be loaded \([^\n]{{1,200}}\): check its config.json, tokenizer and weights, or copy "
    r"or download it again"
)
BROKEN: dict[str, tuple[Spoil, str]] = {
    "config that is a list": (file("config.json", b"[]"), LIBRARY),
    "no heads": (
        config(num_attention_heads=0),
        r"the model '{folder}' can't be loaded \(integer modulo by zero\): check its config.json, tokenizer and "
        "weights, or copy or download it again",
    ),
    "architecture that nobody knows": (file("config.json", b'{"model_type": "triforce"}'), LIBRARY),
    "tokenizer that is no JSON": (file("tokenizer.json", b"Hey! Listen!"), LIBRARY),
    "weights that are cut off": (cut, LIBRARY),
    "code of its own": (
        file("config.json", b'{"auto_map": {"AutoConfig": "zelda.C", "AutoModelForCausalLM": "zelda.M"}}'),
        "the model '{folder}' brings code of its own, which is not run unasked: set engine.trust_remote_code to true "
        "if you trust it, or use another model",
    ),
    "config of another architecture": (
        file("config.json", b'{"model_type": "bert", "num_hidden_layers": 1}'),
        "expected weights for all of the model '{folder}', found none for bert.embeddings.LayerNorm.bias and 27 more: "
        + AGAIN,
    ),
    "missing tensor": (
        weights(lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight")),
        "expected weights for all of the model '{folder}', found none for model.layers.0.mlp.up_proj.weight: " + AGAIN,
    ),
    "config of another size": (
        config(vocab_size=600),
        "expected weights of the sizes in config.json for the model '{folder}', found others for lm_head.weight and 1 "
        "more: " + AGAIN,
    ),
    "weight that is not a number": (
        weights(lambda tensors: tensors["model.norm.weight"][3].fill_(float("nan"))),
        "expected finite weights in the model '{folder}', found NaN or infinity in model.norm.weight: copy or download "
        "it again, or set another engine.dtype",
    ),
    "more tokens than embeddings": (
        few_embeddings,
        "the tokenizer makes token 518, and the model knows 200: use the tokenizer that belongs to the model",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_answered_in_one_line_by_engine_and_trainer(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], spoil: Spoil, message: str
) -> None:
    spoil(folder)
    trainer = SupervisedTrainer(device="cpu", method="full")
    pairs = [QAPair("Who guards the Triforce of Courage?", "Link does.")]
    for load in (
        lambda: TransformersEngine(str(folder), device="cpu").__enter__(),
        lambda: trainer.fit(pairs, str(folder), tmp_path / "out"),
    ):
        with pytest.raises(ModelError) as error:
            load()
        assert re.fullmatch(message.format(folder=folder), str(error.value))
    assert capfd.readouterr().err == ""  # the libraries' own tables and bars


def test_tied_weights_are_not_missing(folder: Path) -> None:
    config(tie_word_embeddings=True)(folder)
    weights(lambda tensors: tensors.pop("lm_head.weight"))(folder)
    model, _ = load_model(str(folder), "auto", False)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_token_added_to_the_tokenizer_alone_is_refused_where_it_occurs(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(folder)
    greedy = Sampling(0.0, 1.0, 2)
    with TransformersEngine(str(folder), device="cpu") as engine:
        assert len(engine.generate(["Question:"], greedy, [0])) == 1
        for work in (
            lambda: engine.generate(["Question: <image>"], greedy, [0]),
            lambda: engine.logprobs(["Question:"], [" <image>"]),
        ):
            with pytest.raises(ModelError) as error:
                work()
            assert str(error.value) == (
                "the tokenizer makes token 519, and the model knows 519: use the tokenizer that belongs to the model"
            )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Unrecognized model in v1.5 of zelda. Should have\na key, e.g. this.", "Unrecognized model in v1.5 of zelda"),
        ("Hyrule " * 100, ("Hyrule " * 100)[:199] + "…"),
        ("", "KeyError"),
    ],
)
def test_long_texts_of_libraries_are_cut(text: str, reason: str) -> None:
    error = KeyError() if not text else ValueError(text)
    assert str(load_error("zelda", error)) == (
        f"the model 'zelda' can't be loaded ({reason}): check its config.json, tokenizer and weights, or copy or "
        "download it again"
    )
