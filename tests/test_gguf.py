"""GGUF files: converted once, whole, and to the same model; what can't be is one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from isara.converted import card_value
from isara.errors import ModelError
from isara.loading import load_model
from isara.models import find_model, weights_hash
from tests.tiny_models import CHATML, byte_level

gguf = pytest.importorskip("gguf")

_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def tiny() -> tuple[Any, Any]:
    tokenizer = byte_level(_CHATML_TOKENS, bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>")
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        vocab_size=len(tokenizer),
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LlamaForCausalLM(config), tokenizer


def write_gguf(
    path: Path, *, split: str = "smollm", quantisation: Any = None, extra: tuple[str, ...] = (), **metadata: Any
) -> Path:
    """Writes the tiny model as llama.cpp's converter does, with its order of the rows of queries and keys."""
    model, tokenizer = tiny()
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    writer.add_name("Zelda 1M")
    writer.add_license("cc-by-4.0")
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(tokenizer))
    _add_tokenizer(writer, tokenizer, split)
    for key, value in metadata.items():
        writer.add_uint16(key.replace("_", ".", 1), value)
    for name, tensor in model.state_dict().items():
        _add_tensor(writer, name, tensor, quantisation)
    for name in extra:
        writer.add_tensor(name, torch.ones(8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, tokenizer: Any, split: str) -> None:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(vocab)
    writer.add_token_types([3 if token in _CHATML_TOKENS else 1 for token in vocab])
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def _add_tensor(writer: Any, name: str, tensor: Any, quantisation: Any) -> None:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    name = name.replace("model.layers", "blk")
    for part, heads in (("attn_q", 4), ("attn_k", 2)):
        if part in name:
            rows = tensor.shape[0]
            tensor = tensor.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(rows, -1)
    data = tensor.contiguous().numpy()
    if quantisation is None or data.ndim == 1:
        writer.add_tensor(name, data)
    else:
        writer.add_tensor(name, gguf.quantize(data, quantisation), raw_dtype=quantisation)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        find_model(str(path))
    return str(error.value)


def test_the_converted_model_is_the_one_that_was_written(tmp_path: Path, cache: Path) -> None:
    written, tokenizer = tiny()
    folder = Path(find_model(str(write_gguf(tmp_path / "zelda.gguf"))))
    assert folder.parent == cache
    model, found = load_model(str(folder), "auto", False)
    text = "<|im_start|>user\nWho guards the Triforce of Courage?<|im_end|>\n"
    ids = found(text, return_tensors="pt")["input_ids"]
    assert ids.tolist() == tokenizer(text, return_tensors="pt")["input_ids"].tolist()
    torch.testing.assert_close(model(ids).logits, written(ids).logits)
    assert (found.eos_token, found.model_max_length, found.chat_template) == ("<|im_end|>", 512, CHATML)
    assert model.generation_config.eos_token_id == found.eos_token_id
    told = json.loads((folder / "tokenizer_config.json").read_text())  # transformers 4 would guess token_type_ids, too
    assert told["model_input_names"] == ["input_ids", "attention_mask"]
    assert (card_value(folder, "license"), card_value(folder, "base_model")) == ("cc-by-4.0", "Zelda 1M")


def test_what_lies_beside_a_file_is_not_taken_for_its_own(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    alone = Path(find_model(str(path)))
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "other"))
    byte_level(("<|endoftext|>",), eos="<|endoftext|>").save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "hyrule/zelda", "peft_type": "LORA"}')
    beside = Path(find_model(str(path)))
    assert beside != alone
    assert {file.name: file.read_bytes() for file in beside.iterdir()} == {
        file.name: file.read_bytes() for file in alone.iterdir()
    }


def test_a_file_is_copied_where_there_are_no_links(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert Path(find_model(str(write_gguf(tmp_path / "zelda.gguf")))).parent == cache


def test_digits_stand_apart_where_the_vocabulary_says_so(tmp_path: Path, cache: Path) -> None:
    ids = {}
    for split in ("smollm", "gpt-2"):
        folder = find_model(str(write_gguf(tmp_path / f"{split}.gguf", split=split)))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids[split] = tokenizer.tokenize("jolly.\n\n1")
    # In the merges of the tiny tokenizer two line breaks are one token; GPT-2's split leaves the second to the digit.
    assert ids["smollm"][-2:] == ["ĊĊ", "1"]
    assert ids["gpt-2"][-3:] == ["Ċ", "Ċ", "1"]


def test_a_file_is_converted_once_and_known_by_its_content(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    folder = Path(find_model(str(path)))
    changed = (folder / "config.json").stat().st_mtime_ns
    other = path.rename(tmp_path / "link.bin")  # known by its first bytes
    assert find_model(str(other)) == str(folder)
    assert (folder / "config.json").stat().st_mtime_ns == changed
    assert [file.name for file in cache.iterdir() if file.is_dir()] == [folder.name]
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
    assert weights_hash(str(other)) == weights_hash(str(folder))


def test_two_processes_convert_once(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    code = f"from isara.models import find_model; print(find_model({str(path)!r}))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]  # fmt: skip
    said = [process.communicate() for process in both]
    assert said[0] == said[1]
    assert Path(said[0][0].strip()).parent == cache
    assert said[0][1] == ""  # neither the libraries' bars nor one of ours where there is no terminal


def test_what_a_killed_conversion_left_is_made_anew(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    folder = Path(find_model(str(path)))
    whole = weights_hash(str(folder))
    folder.rename(folder.with_name(folder.name + ".tmp"))
    (folder.with_name(folder.name + ".tmp") / "model.safetensors").write_bytes(b"half")
    assert weights_hash(find_model(str(path))) == whole
    assert not folder.with_name(folder.name + ".tmp").exists()


def test_a_conversion_that_was_damaged_is_to_be_removed(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    folder = find_model(str(path))
    os.truncate(Path(folder) / "model.safetensors", 5000)
    with pytest.raises(ModelError) as error:
        load_model(find_model(str(path)), "auto", False)
    assert str(error.value).startswith(f"the model {folder!r} can't be loaded (")
    assert str(error.value).endswith(f"): remove the folder {folder}, and it is made again")


def test_quantised_weights_become_bfloat16_near_them(tmp_path: Path, cache: Path) -> None:
    written, _ = tiny()
    path = write_gguf(tmp_path / "zelda.gguf", quantisation=gguf.GGMLQuantizationType.Q8_0)
    model = AutoModelForCausalLM.from_pretrained(find_model(str(path)), dtype="auto")
    assert model.dtype == torch.bfloat16
    one, other = (m.model.layers[1].mlp.down_proj.weight.float() for m in (model, written))
    assert 0 < (one - other).norm() / other.norm() < 0.01
    assert "(zelda.gguf, llama, Q8_0, SHA-256 " in (Path(find_model(str(path))) / "README.md").read_text()


Spoil = Callable[[Path], object]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


def short(path: Path) -> None:
    os.truncate(path, 200)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def page(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title>")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pointer, "{path} is a pointer of Git LFS and not the file itself: run `git lfs pull` in {parent}"),
        (page, "expected a GGUF file at {path}, found one that begins with b'<!do': copy or download it again"),
    ],
)
def test_what_is_no_gguf_file(tmp_path: Path, cache: Path, spoil: Spoil, message: str) -> None:
    path = tmp_path / "zelda.gguf"
    spoil(path)
    assert refusal(path) == message.format(path=path, parent=tmp_path)


@pytest.mark.parametrize("spoil", [cut, short])
def test_half_a_file(tmp_path: Path, cache: Path, spoil: Spoil) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    spoil(path)
    assert refusal(path) == (
        f"expected a whole GGUF file, found one that ends early or is damaged at {path}: copy or download it again"
    )
    assert [file.suffix for file in cache.iterdir()] == [".lock"]


def test_one_part_of_several(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf", split_count=3)
    assert refusal(path) == (
        f"{path} is one of 3 parts of a GGUF file: join them with llama.cpp's `llama-gguf-split --merge`, and name the "
        "joined file"
    )


def test_an_architecture_that_the_library_does_not_read(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf", architecture="triforce")
    assert refusal(path) == (
        f"the GGUF file {path} (architecture triforce, F32) can't be converted (GGUF model with architecture triforce "
        "is not supported yet): take another quantisation of it, or the model's own folder with safetensors"
    )


@pytest.mark.parametrize(
    ("architecture", "weight"),
    [("qwen2", "model.layers.0.self_attn.k_proj.bias and 5 more"), ("bloom", "")],
)
def test_an_architecture_whose_weights_the_library_does_not_find(
    tmp_path: Path, cache: Path, architecture: str, weight: str
) -> None:
    path = write_gguf(tmp_path / "zelda.gguf", architecture=architecture)
    said = refusal(path)
    assert said.startswith(
        f"transformers doesn't take the architecture {architecture} of the GGUF file {path} in full (it finds no "
        f"weights that fit {weight}"
    )
    assert said.endswith("): take the model's own folder with safetensors")


def test_a_split_into_words_that_is_not_known(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "zelda.gguf", split="hylian")
    assert refusal(path) == (
        f"the GGUF file {path} cuts text into words in the way 'hylian', which isn't known here, so its tokens would "
        "be others than in training: take the model's own folder with safetensors"
    )


def test_weights_that_the_library_would_leave_out(tmp_path: Path, cache: Path) -> None:
    weights = sum(tensor.numel() for tensor in tiny()[0].parameters())
    path = write_gguf(tmp_path / "zelda.gguf", extra=("rope_freqs.weight",))
    assert refusal(path) == (
        f"the GGUF file {path} (architecture llama) holds {weights + 8:,} weights, and transformers takes {weights:,} "
        "of them (without rope_freqs.weight), which would be another model: take the model's own folder with "
        "safetensors"
    )


def test_without_the_package_that_reads_them(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(path) == (
        f"reading {path} takes the package gguf, which is not installed: run `pip install gguf`, then the same command "
        "again"
    )


def test_a_cache_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "zelda.gguf")
    monkeypatch.setenv("ISARA_CACHE", str(path))
    said = refusal(path)
    assert said.startswith(f"can't write the model folder {path}/models/")
    assert said.endswith(" (Not a directory): free some space or mend the rights, or set ISARA_CACHE to another folder")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write_gguf(tmp_path / "zelda.gguf")
    assert refusal(tmp_path / "zelds.gguf") == (
        f"there is no model at {str(tmp_path / 'zelds.gguf')!r}: did you mean {str(tmp_path / 'zelda.gguf')!r}?"
    )
