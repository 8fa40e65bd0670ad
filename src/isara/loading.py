"""Loading models: their files, what is wrong with them, their weights and tokenizers, and the memory they take."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isara.converted import cache_folder
from isara.errors import ModelError
from isara.hardware import is_out_of_memory
from isara.marks import clean

# peft imports it where it is installed, and on a CPU it warns of a kernel that it does without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_HASHED = {".json", ".safetensors", ".model", ".txt", ".jinja", ".py"}
_EXTRA_TEMPLATES = "additional_chat_templates"
_POINTER = b"version https://git-lfs"
_CHUNK = 2**20
# Adam keeps a gradient, two moments and a master copy in float32 for each trained weight.
BYTES_A_TRAINED_WEIGHT = 16
# Endings of the classes of models that read and don't write.
_READERS = ("ForMaskedLM", "Classification", "QuestionAnswering", "ForPreTraining", "MultipleChoice", "Model")
_MOST_REASON = 200  # characters of a library's message


def model_files(folder: Path) -> dict[str, Path]:
    """The files that decide what a model folder's model does, by their names in it.

    Raises:
        ModelError: Its index names shards that are missing, pickled, or outside the folder.
    """
    found = {path.name: path for path in folder.iterdir() if path.is_file() and path.suffix in _HASHED}
    found |= {name: folder / name for name in _shards(folder)}
    templates = folder / _EXTRA_TEMPLATES
    found |= {path.relative_to(folder).as_posix(): path for path in templates.rglob("*.jinja")}
    return found


def files_hash(files: dict[str, Path]) -> str:
    """SHA-256 in hex over names, sizes and contents, whatever the order of the names."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def load_model(name: str, dtype: Any, trust_remote_code: bool, **more: Any) -> tuple[Any, Any]:
    """A causal language model on the CPU with all weights of its checkpoint, and its tokenizer.

    Args:
        name: What `find_model` returned.
        dtype: A torch dtype, or "auto" for that of the checkpoint.
        trust_remote_code: Runs code that comes with the model.
        more: What transformers' `from_pretrained` takes, such as a quantisation and another place than the CPU.

    Raises:
        ModelError: The folder's files are broken or don't belong together, or hold no causal language model. Lack of
            memory stays the error that it is.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # without it, tokenizers warn when a trainer forks
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    loaded: Any
    try:
        with silent():
            check_causal(name, AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code))
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            loaded = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,  # pickled weights can run any code
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below; the library would only point to its log
                **more,
            )
    except ModelError:
        raise
    except Exception as error:  # broken files make the libraries raise anything, such as TypeError or ZeroDivisionError
        if is_out_of_memory(error):
            raise
        raise load_error(name, error) from error
    model, found = loaded
    if getattr(model, "_hf_peft_config_loaded", False):  # transformers looks for an adapter beside a hub's weights
        raise _two_in_one(name)
    _check_loaded(name, found)
    _check_vocabulary(model, tokenizer)
    return model, tokenizer


def meta_model(name: str, trust_remote_code: bool) -> Any:
    """The model's modules without their weights, on torch's meta device; takes no memory and no time.

    Raises:
        ModelError: Its config makes no model, or none that writes.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with silent(), torch.device("meta"):
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
            check_causal(name, config)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]  # it has no types
    except ModelError:
        raise
    except Exception as error:  # as above
        raise load_error(name, error) from error


def check_causal(name: str, config: Any) -> None:
    """Looks into a model's config for what says that it can't go on with a text, or can't be trained.

    Raises:
        ModelError: It is no causal language model, or its weights are quantised.
    """
    architectures = getattr(config, "architectures", None) or []
    architecture = str(architectures[0]) if architectures else type(config).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"the model {name!r} is an encoder with a decoder ({architecture}), which has no place for demonstrations: "
            "name a causal language model (…ForCausalLM)"
        )
    own = getattr(config, "auto_map", None) or {}  # code of its own, whose classes may be called anything
    if architectures and not own and architecture.endswith(_READERS) and not architecture.endswith("LMHeadModel"):
        raise ModelError(
            f"the model {name!r} reads texts and writes none ({architecture}): name a causal language model "
            "(…ForCausalLM)"
        )
    if quantised := getattr(config, "quantization_config", None):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise ModelError(
            f"the weights of the model {name!r} are quantised ({getattr(method, 'value', method)}) and can't be "
            "trained: name the model that it was made from, in float32, float16 or bfloat16"
        )


def find_pointer(path: Path) -> None:
    """Looks for what Git leaves in place of a large file.

    Raises:
        ModelError: The file is a pointer.
    """
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"{path} is a pointer of Git LFS and not the file itself: run `git lfs pull` in {path.parent}"
            )


def load_error(name: str, error: Exception) -> ModelError:
    """What to tell of a library's error about the model's files, in one line."""
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the model {name!r} brings code of its own, which is not run unasked: set engine.trust_remote_code to "
            "true if you trust it, or use another model"
        )
    advice = again(name, "check its config.json, tokenizer and weights, or copy or download it again")
    return ModelError(f"the model {name!r} can't be loaded ({reason(error)}): {advice}")


def again(name: str | Path, advice: str) -> str:
    """What to do about a damaged model: the advice, or to remove a folder that isara has made in its cache."""
    made = Path(name).resolve().parent == cache_folder().resolve()
    return f"remove the folder {name}, and it is made again" if made else advice


def reason(error: Exception) -> str:
    """The first sentence of a library's message; its class where it says nothing."""
    text = clean(str(error), 10 * _MOST_REASON) or type(error).__name__
    sentence = re.split(r"(?<=\w{2}[.!?]) ", text)[0].rstrip(".")
    return sentence if len(sentence) <= _MOST_REASON else sentence[: _MOST_REASON - 1] + "…"


def training_memory(weights: int, trained: int, itemsize: float) -> int:
    """Bytes that a training holds beside activations: all weights, and what Adam keeps of the trained.

    Args:
        weights: Of the start.
        trained: Of them or of the adapter.
        itemsize: Bytes of a weight of the start on average, as `isara.training.compute.weight_bytes` says.
    """
    return round(weights * itemsize) + trained * BYTES_A_TRAINED_WEIGHT


def check_finite(model: Any, name: str) -> None:
    """Looks for weights that are NaN or infinite, with which every text and every loss is, too.

    Raises:
        ModelError: There is one.
    """
    for key, weight in model.named_parameters():
        # Of the 8-bit formats torch can't tell.
        if weight.element_size() > 1 and not bool(weight.isfinite().all()):
            raise not_finite(name, key)


def not_finite(name: str, key: str) -> ModelError:
    """The error of a model, one of whose weights is not finite."""
    return ModelError(
        f"expected finite weights in the model {name!r}, found NaN or infinity in {key}: copy or download it again, or "
        "set another engine.dtype"
    )


def without_weights(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names of weights that were made up at random: the files have none for the first, and others for the second."""
    # Of other sizes each is a name with two shapes, or in older versions a name.
    others = sorted(key if isinstance(key, str) else key[0] for key in found["mismatched_keys"])
    return sorted(found["missing_keys"]), others


def _check_loaded(name: str, found: dict[str, Any]) -> None:
    """Raises ModelError where weights were made up at random."""
    advice = again(name, "copy or download it again, with the config.json that belongs to its weights")
    missing, others = without_weights(found)
    if missing:
        raise ModelError(f"expected weights for all of the model {name!r}, found none for {some(missing)}: {advice}")
    if others:
        raise ModelError(
            f"expected weights of the sizes in config.json for the model {name!r}, found others for {some(others)}: "
            f"{advice}"
        )


def some(keys: list[str]) -> str:
    """The first of several names, and how many more there are."""
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def _check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raises ModelError where ordinary text has tokens that the model doesn't know.

    Tokens that were added are left out: published tokenizers have some for images, beyond the ids of a text model.
    """
    size = model.get_input_embeddings().weight.shape[0]
    largest = max(set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder), default=0)
    if largest >= size:
        raise ModelError(
            f"the tokenizer makes token {largest}, and the model knows {size}: use the tokenizer that belongs to the "
            "model"
        )


@contextmanager
def silent() -> Iterator[None]:
    """Without transformers' bars, and without its table of missing weights, which become errors here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no types
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter without the model that it belongs to."""
    return (folder / _ADAPTER).is_file() and not any((folder / name).is_file() for name in (_WHOLE, _INDEX))


def check_folder(folder: Path) -> None:
    """Looks whether a folder holds all that a model needs, and nothing that is not safe to read.

    Raises:
        ModelError: Something is missing, or its weights are pickled.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelError(f"{folder} may not be read by this user: mend its rights (`chmod a+rx`), or take a copy")
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        inside = sorted(name for name in names if name.endswith(".gguf"))
        advice = f"name the file, {str(folder / inside[0])!r}" if inside else "name another folder"
        raise ModelError(f"expected a model folder with config.json, found none in {folder}: {advice}")
    if not names.intersection((_WHOLE, _INDEX)):
        raise _no_weights(folder, names)
    if _ADAPTER in names:
        raise _two_in_one(folder)
    for path in model_files(folder).values():
        if not os.access(path, os.R_OK):  # the libraries would say that it is not there
            raise ModelError(f"{path} may not be read by this user: mend its rights (`chmod a+r`), or take a copy")
    for name in _shards(folder) or [_WHOLE]:
        find_pointer(folder / name)
    if not has_tokenizer(folder):
        raise ModelError(
            f"expected tokenizer files in {folder} ({', '.join(_TOKENIZER_FILES)}), found none: "
            "save the tokenizer there with save_pretrained"
        )


def _two_in_one(name: str | Path) -> ModelError:
    return ModelError(
        f"expected a model or an adapter in {name}, found both: make two folders of it, one without {_ADAPTER} and the "
        "adapter's weights, and name the one that you mean"
    )


def _no_weights(folder: Path, names: Iterable[str]) -> ModelError:
    if set(names).intersection(_PICKLED):
        return ModelError(
            f"{folder} holds pickled weights (*.bin), which can run any code when they are read: save the model "
            "again with save_pretrained, which writes model.safetensors"
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        return ModelError(
            f"expected weights as {_WHOLE} or {_INDEX} in {folder}, found {some(others)}: copy the file that is "
            "missing, or save the model again with save_pretrained"
        )
    return ModelError(f"expected weights as *.safetensors in {folder}, found none: copy or download them")


def weight_files(folder: Path) -> list[Path]:
    """The files that a folder's weights are read from; none where it has none.

    Raises:
        ModelError: As `model_files`.
    """
    files = [folder / name for name in _shards(folder) or [_WHOLE]]
    return [file for file in files if file.is_file()]


def _shards(folder: Path) -> list[str]:
    """The names of the files that an index spreads the weights over; none where they are in one file.

    Raises:
        ModelError: The index can't be read, or names a file that is missing, pickled, or outside the folder.
    """
    index = folder / _INDEX
    if (folder / _WHOLE).is_file() or not index.is_file():
        return []
    find_pointer(index)
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        outside = [name for name in shards if os.path.isabs(name) or ".." in Path(name).parts]
        if not shards:
            raise ValueError("no weight is named")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(
            f"expected a weight_map with files in {index}, found none: copy or download it again"
        ) from None
    for name in outside or shards:
        if outside or not name.endswith(".safetensors"):
            what = "lies outside the folder" if outside else "is no *.safetensors"
            raise ModelError(f"{index} names the shard {name!r}, which {what}: save the model again")
        if not (folder / name).is_file():
            raise ModelError(f"{index} names the shard {name!r}, which is missing: copy or download it")
    return shards
