"""Finding, checking and hashing models."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isara import models
from isara.engines.transformers.engine import TransformersEngine
from isara.errors import ModelError
from isara.loading import load_error, load_model
from isara.models import embedded_model, find_model, weights_hash
from isara.records import QAPair, Sampling
from isara.render import tokenizer_renderer
from isara.training.sft import SupervisedTrainer


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model folder that the test may spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


EXTRA_TEMPLATE = "additional_chat_templates/tools.jinja"


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


def test_a_folder_with_a_gguf_file_alone(tmp_path: Path) -> None:
    (tmp_path / "zelda.gguf").write_bytes(b"GGUF")
    assert refusal(str(tmp_path)) == (
        f"expected a model folder with config.json, found none in {tmp_path}: name the file, "
        f"{str(tmp_path / 'zelda.gguf')!r}"
    )


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
        f"expected a model folder or a .gguf file, found the file {str(file)!r}: name the folder it is in"
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
    assert refusal("hyrule zelda") == "'hyrule zelda' is neither a folder nor a hub name: check its spelling"


def test_a_missing_folder_is_not_asked_of_the_hub(folder: Path) -> None:
    wrong = folder.parent / "modle"
    assert refusal(str(wrong)) == f"there is no model at {str(wrong)!r}: did you mean {str(folder)!r}?"
    assert refusal("./no/such/folder") == (
        "there is no model at './no/such/folder': there is no folder 'no/such' either, so check the path"
    )
    far = folder / "triforce"
    assert refusal(str(far)) == f"there is no model at {str(far)!r}: check the path"


def test_a_name_that_is_nearly_known() -> None:
    assert refusal("smolm2-135m") == (
        "there is no model 'smolm2-135m': did you mean 'smollm2-135m'? `isara models list` shows the names"
    )


def sharded(folder: Path, place: str) -> Path:
    """Moves the weights into a shard at a place in the folder, and returns its path."""
    shard = folder / place
    shard.parent.mkdir(exist_ok=True)
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, place)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return shard


def test_a_shard_in_a_folder_of_its_own_is_found_loaded_and_hashed(folder: Path) -> None:
    shard = sharded(folder, "shards/model-00001-of-00001.safetensors")
    assert find_model(str(folder)) == str(folder)
    load_model(str(folder), "auto", False)
    before = weights_hash(str(folder))
    tensors = load_file(shard)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, shard, metadata={"format": "pt"})
    assert weights_hash(str(folder)) != before


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../outside.safetensors", "which lies outside the folder: save the model again"),
        ("shard.bin", "which is no *.safetensors: save the model again"),
        ("gone/../../outside.safetensors", "which lies outside the folder: save the model again"),
        ("/tmp/outside.safetensors", "which lies outside the folder: save the model again"),
        ("gone.safetensors", "which is missing: copy or download it"),
    ],
)
def test_shards_that_are_not_read(folder: Path, place: str, message: str) -> None:
    sharded(folder, "shard.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": place}}))
    assert refusal(str(folder)) == f"{index} names the shard {place!r}, {message}"


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"weight_map": {}}', '{"weight_map": 3}', '{"weight_map": {"lm_head.weight": ["x"]}}', "[" * 9999],
)
def test_an_index_that_is_none(folder: Path, text: str) -> None:
    sharded(folder, "shard.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(text)
    assert refusal(str(folder)) == f"expected a weight_map with files in {index}, found none: copy or download it again"


def test_a_shard_without_its_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert refusal(str(folder)) == (
        f"expected weights as model.safetensors or model.safetensors.index.json in {folder}, found "
        "model-00001-of-00002.safetensors: copy the file that is missing, or save the model again with save_pretrained"
    )


def test_what_git_leaves_in_place_of_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert refusal(str(folder)) == (
        f"{weights} is a pointer of Git LFS and not the file itself: run `git lfs pull` in {folder}"
    )


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


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "own.py", EXTRA_TEMPLATE],
)
def test_the_hash_changes_with_any_file_that_matters(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{{ messages }}")
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
    "encoder": (
        config(architectures=["BertForMaskedLM"]),
        r"the model '{folder}' reads texts and writes none \(BertForMaskedLM\): name a causal language model "
        r"\(…ForCausalLM\)",
    ),
    "body without a head": (
        config(architectures=["LlamaModel"]),
        r"the model '{folder}' reads texts and writes none \(LlamaModel\): name a causal language model "
        r"\(…ForCausalLM\)",
    ),
    "encoder with a decoder": (
        file("config.json", b'{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}'),
        r"the model '{folder}' is an encoder with a decoder \(T5ForConditionalGeneration\), which has no place for "
        r"demonstrations: name a causal language model \(…ForCausalLM\)",
    ),
    **{
        f"quantised by {method}": (
            config(quantization_config={"quant_method": method, "bits": 4}),
            rf"the weights of the model '{{folder}}' are quantised \({method}\) and can't be trained: name the model "
            "that it was made from, in float32, float16 or bfloat16",
        )
        for method in ("gptq", "awq", "bitsandbytes", "compressed-tensors")
    },
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
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(folder)
    greedy = Sampling(0.0, 1.0, 2)
    renderer = tokenizer_renderer(tokenizer, AutoConfig.from_pretrained(folder))
    plain, image = renderer.text("Question:"), renderer.text("Question: <image>")
    with TransformersEngine(str(folder), device="cpu") as engine:
        assert len(engine.generate([plain], greedy, [0])) == 1
        for work in (
            lambda: engine.generate([image], greedy, [0]),
            lambda: engine.logprobs([plain], [renderer.continuation(plain, " <image>")]),
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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", ""])
def test_a_file_that_another_user_may_not_read_is_named(
    folder: Path, name: str, request: pytest.FixtureRequest
) -> None:
    public = Path(tempfile.mkdtemp(prefix="isara-test-"))  # others may not enter where pytest's folders are
    request.addfinalizer(lambda: shutil.rmtree(public))
    public.chmod(0o755)
    folder = Path(shutil.copytree(folder, public / "model"))
    for path in folder.iterdir():  # the library writes weights for their owner alone
        path.chmod(0o600 if path.name == name else 0o644)
    folder.chmod(0o755 if name else 0o700)
    code = (
        "import os\nfrom pathlib import Path\nfrom isara.errors import ModelError\n"
        "from isara.loading import check_folder\nos.setgroups([])\nos.setresuid(12345, 12345, 12345)\n"
        f"try: check_folder(Path({str(folder)!r}))\nexcept ModelError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    rights = "a+r" if name else "a+rx"
    assert done.stdout == (
        f"{folder / name} may not be read by this user: mend its rights (`chmod {rights}`), or take a copy\n"
    ), done.stderr
