"""GGUF files of model folders: the weights in llama.cpp's order, and the tokenizer with the template it was trained in.

Names, orders and additions are those of llama.cpp's own converter (`convert_hf_to_gguf.py`): queries and keys of Llama
models are permuted for its kind of rotary positions, Gemma's norms hold 1 more, vectors stay float32.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara.converted import card_value
from isara.errors import ModelError, RunError
from isara.export.quantize import byte_count, check_kind, packed, stored_as
from isara.export.vocabulary import Vocabulary, read_vocabulary
from isara.files import disk_errors
from isara.loading import model_files, silent
from isara.records import QAPair
from isara.render import Renderer, open_renderer

_ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma3_text": "GEMMA3"}
_ROOM = 50_000_000  # bytes beside the weights: tokens, merges, padding


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor: its name here and there, where it lies, and how it is stored."""

    name: str
    gguf_name: str
    file: Path
    shape: tuple[int, ...]
    kind: Any


def write_gguf(model_folder: Path, out: Path, kind: str) -> None:
    """Writes a model folder as one GGUF file, whole or not at all.

    Args:
        model_folder: Loadable by transformers, with safetensors.
        out: The file.
        kind: How weights are stored: one of `isara.export.quantize.KINDS`.

    Raises:
        ModelError: llama.cpp has no such tokenizer, or the architecture is none that is written here.
        RunError: The kind is unknown, its tool is missing, or the disk is full or can't be written.
    """
    from transformers import AutoConfig, AutoTokenizer

    with silent():
        config, tokenizer = AutoConfig.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    # Before the packages are asked for: they are of no use to a model whose tokenizer llama.cpp doesn't have.
    vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    check_kind(kind)
    aside = out.with_name(out.name + ".tmp")
    try:
        with disk_errors(out):
            _write(model_folder, aside, kind, (config, tokenizer, vocabulary))
            aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)


def _write(folder: Path, out: Path, kind: str, read: tuple[Any, Any, Vocabulary]) -> None:
    """Writes the file of a model whose config, tokenizer and vocabulary are read."""
    from gguf import GGUFWriter, LlamaFileType

    config, tokenizer, vocabulary = read
    renderer, architecture = open_renderer(str(folder)), _architecture(config)
    places = _places(folder, config, architecture, kind)
    _check_room(out, places)
    writer = GGUFWriter(out, architecture)
    writer.add_type("model")
    writer.add_name(folder.name)
    if licence := card_value(folder, "license"):
        writer.add_license(licence)
    named = "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
    writer.add_file_type(LlamaFileType[named].value)
    writer.add_quantization_version(2)
    _add_sizes(writer, config)
    _add_tokenizer(writer, tokenizer, vocabulary, renderer)
    for place in places:
        writer.add_tensor_info(
            place.gguf_name, place.shape, _float32(), byte_count(place.shape, place.kind), place.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for place in places:
        writer.write_tensor_data(_data(place, config))
    writer.close()


def _architecture(config: Any) -> str:
    """llama.cpp's name for the model's architecture.

    Raises:
        ModelError: It is none that is written here.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES

    name = _ARCHITECTURES.get(config.model_type)
    if name is None:
        raise ModelError(
            f"expected a model of the architecture {', '.join(_ARCHITECTURES)} for a GGUF file, found "
            f"{config.model_type}: export it as safetensors, and convert that with llama.cpp's convert_hf_to_gguf.py"
        )
    rope = config.rope_parameters
    kinds = {part.get("rope_type", "default") for part in _ropes(rope)}
    odd = (kinds - {"default"}) or (getattr(config, "use_sliding_window", False) and {"sliding window"})
    if config.model_type == "gemma3_text" and [n % 6 == 5 for n in range(config.num_hidden_layers)] != [
        kind == "full_attention" for kind in config.layer_types
    ]:
        odd = {"other layers of full attention than each sixth"}
    if odd:
        raise ModelError(
            f"expected plain rotary positions for a GGUF file, found {', '.join(sorted(odd))}: export it as "
            "safetensors, and convert that with llama.cpp's convert_hf_to_gguf.py"
        )
    return MODEL_ARCH_NAMES[MODEL_ARCH[name]]


def _ropes(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parameters of rotary positions: of all layers, or of each kind of layer."""
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    return nested or [parameters]


def _add_sizes(writer: Any, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    theta = rope["full_attention"]["rope_theta"] if "full_attention" in rope else rope["rope_theta"]
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(theta)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(head)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)


def _add_tokenizer(writer: Any, tokenizer: Any, vocabulary: Vocabulary, renderer: Renderer) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.model == "llama":
        writer.add_token_scores(list(vocabulary.scores))
    else:
        writer.add_token_merges(list(vocabulary.merges))
    end = end_id(tokenizer, renderer)
    ids = {"bos": tokenizer.bos_token_id, "eos": end, "pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}
    for name, number in ids.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    if renderer.format.name == "chat" and end is not None:
        writer.add_eot_token_id(end)
    writer.add_add_bos_token(adds_bos(tokenizer, renderer))
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.adds_space)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def end_id(tokenizer: Any, renderer: Renderer) -> int | None:
    """The token with which the model was trained to end an answer; the tokenizer's own where that is no single one."""
    end = tokenizer.convert_tokens_to_ids(renderer.format.end.strip())
    return tokenizer.eos_token_id if end is None or end == tokenizer.unk_token_id else int(end)


def adds_bos(tokenizer: Any, renderer: Renderer) -> bool:
    """Whether llama.cpp is to put BOS before a prompt: the tokenizer does by itself, and the training had it there.

    A chat format may begin with it, too (Gemma's): then a prompt's text is given to llama.cpp without. SmolLM2's turns
    all begin with what is its BOS; there nothing is added.
    """
    ids = renderer.answer((), QAPair("Which way is north?", "")).ids
    bos = tokenizer.bos_token_id
    return bos is not None and ids[:1] == (bos,) and tokenizer("a")["input_ids"][:1] == [bos]


def _places(folder: Path, config: Any, architecture: str, kind: str) -> list[_Place]:
    """All tensors of a folder in the order of their files.

    Raises:
        ModelError: One has no place in llama.cpp's model.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    places = []
    for file, name, shape in _tensors(folder):
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(
                f"{folder} holds the tensor {name}, which {architecture} has no place for in llama.cpp: export it as "
                "safetensors"
            )
        places.append(_Place(name, found, file, shape, stored_as(found, shape, kind, config.num_hidden_layers)))
    return places


def _tensors(folder: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    from safetensors import safe_open

    for path in sorted(path for path in model_files(folder).values() if path.suffix == ".safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                yield path, name, tuple(file.get_slice(name).get_shape())


def _data(place: _Place, config: Any) -> Any:
    """A tensor's numbers as they are stored."""
    from safetensors import safe_open

    with safe_open(place.file, framework="pt") as file:
        data = file.get_tensor(place.name).float().numpy()
    if config.model_type == "llama" and ".attn_q." in place.gguf_name:
        data = _permuted(data, config.num_attention_heads)
    if config.model_type == "llama" and ".attn_k." in place.gguf_name:
        data = _permuted(data, config.num_key_value_heads)
    if config.model_type == "gemma3_text" and place.name.endswith("norm.weight"):
        data = data + 1
    return packed(data, place.kind)


def _permuted(data: Any, heads: int) -> Any:
    """Rows of queries or keys, of shape (heads · d, …), with the two halves of each head's d rows interleaved."""
    rows = data.shape[0]
    return data.reshape(heads, 2, rows // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _float32() -> Any:
    import numpy as np

    return np.dtype(np.float32)


def _check_room(out: Path, places: Sequence[_Place]) -> None:
    """Raises RunError where the disk has no room for the file."""
    check_room(out.parent, sum(byte_count(place.shape, place.kind) for place in places) + _ROOM)


def check_room(folder: Path, needed: int) -> None:
    """Raises RunError where the disk of a folder has not so many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"expected {needed / 1e6:,.0f} MB of room for {folder}, found {free / 1e6:,.0f} MB: free some, or give "
            "another folder with --out"
        )
