"""GGUF files, turned once into folders that transformers loads, trains and saves."""

import contextlib
import importlib.util
import io
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from isara.converted import Step, cache_errors, converted, front_matter
from isara.errors import ModelError
from isara.files import file_hash
from isara.hardware import is_out_of_memory
from isara.loading import find_pointer, reason, silent, some, without_weights

# Raised when the same file would give another folder.
CONVERTER = 3
_MAGIC = b"GGUF"
# Vocabularies that were learnt on digits apart, and else on GPT-2's split; transformers 5.23 splits them as GPT-2 does,
# which gives other ids where blanks stand before a digit ("\n\n1." of a list).
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2_SPLIT = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "mellum", "granite-docling"}
_FULL = {"F32", "F16"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a GGUF file says of itself.

    Attributes:
        architecture: llama.cpp's name for it.
        quantisation: Of the file, such as Q4_K_M, or of most of its weights.
        full: Whether no weight is quantised or in bfloat16.
        weights: All numbers in its tensors.
        tensors: The names of its tensors.
        split: How its vocabulary cuts text into words.
        name: Its model's name, or None.
        licence: Its model's licence, or None.
        origin: The model that it was made from, or None.
    """

    architecture: str
    quantisation: str
    full: bool
    weights: int
    tensors: tuple[str, ...]
    split: str
    name: str | None
    licence: str | None
    origin: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file comes from, as its folder's card says it.

    Attributes:
        sha256: Of the file.
        model: The model that it was made from; None takes what the file says.
        licence: Of that model; None takes what the file says.
        source: The package or the file's name.
    """

    sha256: str
    model: str | None
    licence: str | None
    source: str


def is_gguf(path: Path) -> bool:
    """Whether a file is meant to be one: by its name, or by its first bytes."""
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def gguf_folder(path: Path) -> Path:
    """The model of a GGUF file as a folder in the cache, converted when it is first asked for.

    Raises:
        ModelError: The file is damaged, or holds what can't be converted.
    """
    try:
        status = path.stat()
        digest = _known_hash(path.absolute(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(
            f"the GGUF file {path} can't be read ({error.strerror}): mend its rights, or copy it again"
        ) from error

    def make(out: Path, step: Step) -> None:
        convert(path, out, Origin(digest, None, None, path.name), step)

    return converted(key(digest), f"Converting {path.name}", make)


def key(digest: str) -> str:
    """The cache's name for what is made of the file with this SHA-256."""
    return f"{digest[:16]}-v{CONVERTER}"


def convert(path: Path, out: Path, origin: Origin, step: Step) -> None:
    """Fills a folder with the model of a GGUF file: safetensors, tokenizer with its chat template, and a card.

    Quantised weights are written as bfloat16, which adds far less error than the quantisation left; those of a file
    in float32 or float16 as float32.

    Raises:
        ModelError: The file is damaged or holds what can't be converted, or the folder can't be written.
    """
    step("reading the file", 0.1)
    facts = read_facts(path)
    with _apart(path, out) as alone, _library(path, facts):
        step("tokenizer", 0.2)
        tokenizer = _tokenizer(alone)
        _split_as_trained(path, tokenizer.backend_tokenizer, facts.split)
        step(f"{facts.weights / 1e6:,.0f} M weights", 0.4)
        model, loading = _weights(alone, facts)
    _check_all_there(path, facts, loading)
    _check_all_taken(path, facts, model)
    if length := getattr(model.config, "max_position_embeddings", None):
        tokenizer.model_max_length = length  # the file's tokenizer says none
    step("writing", 0.9)
    with cache_errors(out), silent(), contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        _for_older_libraries(out)
        (out / "README.md").write_text(_card(facts, origin), "utf-8")


def read_facts(path: Path) -> Facts:
    """What a GGUF file says of itself, read without its weights.

    Raises:
        ModelError: It is no GGUF file, not the whole of one, or the package that reads it is missing.
    """
    _check_kind(path)
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"reading {path} takes the package gguf, which is not installed: run `pip install gguf`, then the same "
            "command again"
        )
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        facts = _facts(reader, path)
    except Exception as error:  # of damaged files numpy and the reader raise anything, such as IndexError or KeyError
        # Those two speak of numpy's arrays and dtypes.
        why = "" if isinstance(error, (ValueError, IndexError)) else f" ({reason(error)})"
        raise ModelError(
            f"expected a whole GGUF file, found one that ends early or is damaged at {path}{why}: copy or download it "
            "again"
        ) from error
    count = _value(reader, "split.count")
    if isinstance(count, int) and count > 1:
        raise ModelError(
            f"{path} is one of {count} parts of a GGUF file: join them with llama.cpp's `llama-gguf-split --merge`, "
            "and name the joined file"
        )
    return facts


def _facts(reader: Any, path: Path) -> Facts:
    kinds: Counter[str] = Counter()
    for tensor in reader.tensors:
        kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    organisation, name = _value(reader, "general.organization"), _value(reader, "general.name")
    base = _value(reader, "general.base_model.0.repo_url") or _value(reader, "general.source.url")
    return Facts(
        architecture=str(reader.fields["general.architecture"].contents()),
        quantisation=_quantisation(_value(reader, "general.file_type")) or kinds.most_common(1)[0][0],
        full=set(kinds) <= _FULL,
        weights=sum(kinds.values()),
        tensors=tuple(tensor.name for tensor in reader.tensors),
        split=str(_value(reader, "tokenizer.ggml.pre") or "default"),
        name=str(name) if name else None,
        licence=_text(_value(reader, "general.license")),
        origin=_text(base) or (f"{organisation}: {name}" if organisation and name else _text(name)) or path.stem,
    )


def _quantisation(file_type: Any) -> str | None:
    """The name of a whole file's mixture, such as Q4_K_M, or None."""
    from gguf import LlamaFileType

    names = {kind.value: kind.name for kind in LlamaFileType}
    return names[file_type].removeprefix("MOSTLY_").removeprefix("ALL_") if file_type in names else None


def _value(reader: Any, name: str) -> Any:
    field = reader.fields.get(name)
    return None if field is None else field.contents()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _check_kind(path: Path) -> None:
    find_pointer(path)
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if head != _MAGIC:
        raise ModelError(
            f"expected a GGUF file at {path}, found one that begins with {head!r}: copy or download it again"
        )


@contextlib.contextmanager
def _library(path: Path, facts: Facts) -> Iterator[None]:
    """Turns what transformers raises for a file into one line, and keeps its bars from the screen."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        # The bar over the tensors heeds no setting of the library.
        with silent(), contextlib.redirect_stderr(io.StringIO()):
            yield
    except ModelError:
        raise
    except Exception as error:  # the library knows many architectures and quantisations, and refuses each in its way
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"the GGUF file {path} (architecture {facts.architecture}, {facts.quantisation}) can't be converted "
            f"({reason(error)}): take another quantisation of it, or the model's own folder with safetensors"
        ) from error


@contextlib.contextmanager
def _apart(path: Path, out: Path) -> Iterator[Path]:
    """The file in a folder of its own: transformers takes a tokenizer.json or an adapter beside it for its own."""
    alone = out / "apart" / "model.gguf"  # gone before the folder is whole
    with cache_errors(out):
        alone.parent.mkdir()
        try:
            alone.symlink_to(path.resolve())
        except OSError:  # a disk or a user without links
            shutil.copyfile(path, alone)
    try:
        yield alone
    finally:
        shutil.rmtree(alone.parent, ignore_errors=True)


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


def _split_as_trained(path: Path, backend: Any, split: str) -> None:
    """Has a tokenizer cut text into words as its vocabulary was learnt.

    Raises:
        ModelError: How that was isn't known.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if isinstance(backend.pre_tokenizer, ByteLevel) and backend.pre_tokenizer.use_regex:  # GPT-2's split
        if split in _DIGITS_APART:
            backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        elif split not in _GPT2_SPLIT:
            raise ModelError(
                f"the GGUF file {path} cuts text into words in the way {split!r}, which isn't known here, so its "
                "tokens would be others than in training: take the model's own folder with safetensors"
            )


def _weights(path: Path, facts: Facts) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    # Releases before 5.20 know no GgufConfig and unpack the weights without being asked.
    unpack = getattr(transformers, "GgufConfig", None)
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=torch.float32 if facts.full else torch.bfloat16,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named below
        **({"quantization_config": unpack(dequantize=True)} if unpack else {}),
    )
    model, loading = loaded
    return model, loading


def _check_all_there(path: Path, facts: Facts, loading: dict[str, Any]) -> None:
    """Raises ModelError where the library knows weights of the architecture that it doesn't find in the file."""
    missing, others = without_weights(loading)
    if missing or others:
        raise ModelError(
            f"transformers doesn't take the architecture {facts.architecture} of the GGUF file {path} in full (it "
            f"finds no weights that fit {some(missing or others)}): take the model's own folder with safetensors"
        )


def _check_all_taken(path: Path, facts: Facts, model: Any) -> None:
    """Raises ModelError where the library left out weights, such as Llama 3's scaling of positions."""
    taken = sum(math.prod(weight.shape) for weight in model.parameters())
    if taken != facts.weights:
        extra = [name for name in facts.tensors if name.startswith("rope")] or ["some of its tensors"]
        raise ModelError(
            f"the GGUF file {path} (architecture {facts.architecture}) holds {facts.weights:,} weights, and "
            f"transformers takes {taken:,} of them (without {extra[0]}), which would be another model: take the "
            "model's own folder with safetensors"
        )


def _for_older_libraries(out: Path) -> None:
    """Says in the names of transformers 4 too what transformers 5 writes in its own alone."""
    path = out / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    kept = {key: value for key, value in tokenizer.items() if key not in {"backend", "is_local", "local_files_only"}}
    # tokenizer.json holds all of it; a class of its own would build part of it anew. Of this one transformers 4 guesses
    # that models take `token_type_ids`, too, which its `generate` refuses.
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(kept | told, indent=2) + "\n", "utf-8")
    path = out / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop("_model_name_or_path", None)
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _card(facts: Facts, origin: Origin) -> str:
    model, licence = origin.model or facts.origin, origin.licence or facts.licence
    kind = "float32" if facts.full else "bfloat16"
    head = front_matter(license=licence, base_model=model, library_name="transformers", pipeline_tag="text-generation")
    return (
        f"{head}# {facts.name or model}\n\n"
        f"Converted from a GGUF file ({origin.source}, {facts.architecture}, {facts.quantisation}, SHA-256 "
        f"{origin.sha256}) of {model}; licence: {licence or 'the file names none'}. The weights are what the file "
        f"holds, unpacked to {kind}.\n"
    )


@lru_cache(maxsize=64)
def _known_hash(path: Path, size: int, changed: int) -> str:
    """The file's SHA-256, read once a process: gigabytes take seconds, and a model is looked for several times."""
    return file_hash(path)
