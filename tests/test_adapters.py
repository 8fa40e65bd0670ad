"""Adapters as models: merged once into the base that they name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara.converted import card_value
from isara.errors import ModelError
from isara.loading import load_model
from isara.models import find_model, weights_hash


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_llama, tmp_path / "run" / "base"))


@pytest.fixture
def adapter(base: Path) -> Path:
    """An adapter that changes something, beside its base, which it names from its own place."""
    return make_adapter(base, base.parent / "adapter", "../base")


def make_adapter(base: Path, folder: Path, name: str, tokens: int = 0) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens([f"<hero-{number}>" for number in range(tokens)])
        model.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(folder)
    saved = ["embed_tokens", "lm_head"] if tokens else None
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=saved))
        for key, weight in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(str(folder))
    rename_base(folder, name)
    return folder


def rename_base(folder: Path, name: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        find_model(str(folder))
    return str(error.value)


def test_the_merged_model_is_base_and_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    (adapter / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    folder = Path(find_model(str(adapter)))
    assert folder.parent == tmp_path / "cache" / "models"
    model, tokenizer = load_model(str(folder), "auto", False)
    ids = tokenizer("Who guards the Triforce?", return_tensors="pt")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = plain(ids).logits
    wanted = PeftModel.from_pretrained(plain, str(adapter))(ids).logits
    torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-4, atol=1e-4)
    assert (wanted - before).abs().max() > 0.1
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert (card_value(folder, "license"), card_value(folder, "base_model")) == ("cc-by-4.0", "../base")


def test_it_is_merged_once_until_adapter_or_base_change(base: Path, adapter: Path) -> None:
    folder = find_model(str(adapter))
    assert find_model(str(adapter)) == folder
    assert weights_hash(str(adapter)) == weights_hash(folder)
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    assert find_model(str(adapter)) != folder


def test_an_adapter_with_words_of_its_own(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "run" / "adapter", "../base", tokens=3)
    model, tokenizer = load_model(find_model(str(adapter)), "auto", False)
    assert (
        len(tokenizer) == model.get_input_embeddings().weight.shape[0] == len(AutoTokenizer.from_pretrained(base)) + 3
    )


def test_a_base_in_bfloat16_stays_so(base: Path, adapter: Path) -> None:
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    assert load_model(find_model(str(adapter)), "auto", False)[0].dtype == torch.bfloat16


def test_a_base_that_is_not_found(adapter: Path) -> None:
    rename_base(adapter, "hyrule/zelda-7b")
    assert refusal(adapter) == (
        f"the adapter in {adapter} needs its base model 'hyrule/zelda-7b', which can't be used ('hyrule/zelda-7b' is "
        "not a folder, it is not in the local cache, and HF_HUB_OFFLINE is set: download it where there is a network "
        "with `hf download hyrule/zelda-7b`, or name a folder): put it there, or set base_model_name_or_path in "
        f"{adapter / 'adapter_config.json'}"
    )


@pytest.mark.parametrize("name", [None, "", 7])
def test_a_base_without_name(adapter: Path, name: object) -> None:
    rename_base(adapter, name)
    assert refusal(adapter) == (
        f"expected the name of the base model in {adapter / 'adapter_config.json'}, found none: set "
        "base_model_name_or_path there"
    )


def test_a_base_that_is_an_adapter(adapter: Path) -> None:
    rename_base(adapter, ".")
    assert refusal(adapter) == (
        f"the base model of the adapter in {adapter} is an adapter itself, '.': merge that first"
    )


@pytest.mark.parametrize("name", ["adapter", "other"])
def test_a_base_that_is_an_adapter_of_the_working_directory(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_adapter(base, base.parent / "other", "../base")
    monkeypatch.chdir(base.parent)
    rename_base(adapter, name)
    assert refusal(Path("adapter")) == (
        f"the base model of the adapter in adapter is an adapter itself, {name!r}: merge that first"
    )


def test_a_model_that_comes_with_an_adapter(base: Path, adapter: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, base / name)
    said = (
        f"expected a model or an adapter in {base}, found both: make two folders of it, one without "
        "adapter_config.json and the adapter's weights, and name the one that you mean"
    )
    assert refusal(base) == said
    with pytest.raises(ModelError) as error:  # as the libraries find it on a hub
        load_model(str(base), "auto", False)
    assert str(error.value) == said


def test_pickled_weights_of_an_adapter(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert refusal(adapter) == (
        f"expected the adapter's weights as adapter_model.safetensors in {adapter}, found only pickled weights "
        "(*.bin), which can run any code: save it again"
    )


def respell(folder: Path, change: Callable[[str], str | None]) -> None:
    """Renames an adapter's weights, and leaves out those without a name."""
    path = folder / "adapter_model.safetensors"
    named = {change(name): tensor for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in named.items() if name}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda name: name.replace("model.model.layers", "model.transformer.layers"),
            "the base has no place for base_model.model.transformer.layers.0.self_attn.q_proj.lora_A.weight and 7 more",
        ),
        (
            lambda name: None if "v_proj" in name else name,
            "it holds no weights for base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight and 3 more",
        ),
    ],
)
def test_an_adapter_is_merged_whole_or_not_at_all(
    adapter: Path, change: Callable[[str], str | None], why: str, recwarn: pytest.WarningsRecorder
) -> None:
    respell(adapter, change)
    assert refusal(adapter) == (
        f"the adapter in {adapter} can't be merged into its base ({why}): check that the base is the one it was "
        "trained on, and that it is a LoRA"
    )
    assert not [warning for warning in recwarn if "adapter" in str(warning.message)]


def test_an_adapter_of_another_model(tiny_models: dict[str, Path], base: Path, adapter: Path) -> None:
    rename_base(adapter, str(tiny_models["gpt2"]))
    said = refusal(adapter)
    assert said.startswith(f"the adapter in {adapter} can't be merged into its base (")
    assert said.endswith("): check that the base is the one it was trained on, and that it is a LoRA")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Hyrule\n", "mit"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("# Hyrule\n\nA model of Zelda's.\n---\nlicense: ask Zelda\n", None),
        ("", None),
    ],
)
def test_a_licence_stands_at_the_head_of_a_card(card: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert card_value(tmp_path, "license") == licence


def test_words_without_rows_get_the_same_ones_in_each_cache(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = AutoModelForCausalLM.from_pretrained(base).config.vocab_size
    tokenizer.add_tokens([f"<hero-{number}>" for number in range(rows - len(tokenizer) + 2)])
    tokenizer.save_pretrained(adapter)
    found = []
    for cache in ("one", "other"):
        monkeypatch.setenv("ISARA_CACHE", str(tmp_path / cache))
        found.append((Path(find_model(str(adapter))) / "model.safetensors").read_bytes())
    assert found[0] == found[1]
