"""Finding models: the embedded one, a folder, or a name on the Hugging Face hub."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isara.errors import ModelError
from isara.hardware import is_out_of_memory

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_CHUNK = 2**20
_MOST_REASON = 200  # characters of a library's message


def embedded_model() -> Path:
    """The folder of the small model that comes with the package.

    Raises:
        ModelError: The package was built without it.
    """
    folder = Path(__file__).parent / "embedded" / "model"
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"the embedded model is not in this installation (expected {folder}): make it as pretraining/README.md "
            "says, or name another model with --model"
        )
    return folder


def find_model(name: str) -> str:
    """What transformers can load for a name: the embedded model's folder, a checked folder, or a hub name.

    Raises:
        ModelError: The folder lacks a file or holds only pickled weights, or the name is neither a folder nor on a
            hub that can be reached.
    """
    if name == "embedded":
        return str(embedded_model())
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if folder.exists():
        raise ModelError(f"expected a model folder, found the file {name!r}: name the folder that it is in")
    _commit(name)
    return name


def weights_hash(model: str) -> str:
    """A hex digest that changes whenever the model's config, tokenizer or weights do.

    Of a folder, SHA-256 over the names and contents of its JSON, tokenizer and safetensors files; of a hub name, the
    commit that it stands for.

    Raises:
        ModelError: As `find_model`.
    """
    found = find_model(model)
    if not Path(found).is_dir():
        return _commit(found)
    digest = hashlib.sha256()
    for path in sorted(Path(found).iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".model", ".txt", ".jinja"}:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def load_model(name: str, dtype: Any, trust_remote_code: bool) -> tuple[Any, Any]:
    """A causal language model on the CPU with all weights of its checkpoint, and its tokenizer.

    Args:
        name: What `find_model` returned.
        dtype: A torch dtype, or "auto" for that of the checkpoint.
        trust_remote_code: Runs code that comes with the model.

    Raises:
        ModelError: The folder's files are broken or don't belong together. Lack of memory stays the error that it is.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # without it, tokenizers warn when a trainer forks
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any
    try:
        with silent():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            loaded = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,  # pickled weights can run any code
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below; the library would only point to its log
            )
    except Exception as error:  # broken files make the libraries raise anything, such as TypeError or ZeroDivisionError
        if is_out_of_memory(error):
            raise
        raise load_error(name, error) from error
    model, found = loaded
    _check_loaded(name, found)
    _check_vocabulary(model, tokenizer)
    return model, tokenizer


def meta_model(name: str, trust_remote_code: bool) -> Any:
    """The model's modules without their weights, on torch's meta device; takes no memory and no time.

    Raises:
        ModelError: Its config makes no model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with silent(), torch.device("meta"):
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]  # it has no types
    except Exception as error:  # as above
        raise load_error(name, error) from error


def load_error(name: str, error: Exception) -> ModelError:
    """What to tell of a library's error about the model's files, in one line."""
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the model {name!r} brings code of its own, which is not run unasked: set engine.trust_remote_code to "
            "true if you trust it, or use another model"
        )
    return ModelError(
        f"the model {name!r} can't be loaded ({reason(error)}): check its config.json, tokenizer and weights, or copy "
        "or download it again"
    )


def reason(error: Exception) -> str:
    """The first sentence of a library's message; its class where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    sentence = re.split(r"(?<=\w{2}[.!?]) ", text)[0].rstrip(".")
    return sentence if len(sentence) <= _MOST_REASON else sentence[: _MOST_REASON - 1] + "…"


def check_finite(model: Any, name: str) -> None:
    """Looks for weights that are NaN or infinite, with which every text and every loss is, too.

    Raises:
        ModelError: There is one.
    """
    for key, weight in model.named_parameters():
        # Of the 8-bit formats torch can't tell.
        if weight.element_size() > 1 and not bool(weight.isfinite().all()):
            raise ModelError(
                f"expected finite weights in the model {name!r}, found NaN or infinity in {key}: copy or download it "
                "again, or set another engine.dtype"
            )


def _check_loaded(name: str, found: dict[str, Any]) -> None:
    """Raises ModelError where weights were made up at random because the files have none for them."""
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"expected weights for all of the model {name!r}, found none for {_some(missing)}: copy or download it "
            "again, with the config.json that belongs to its weights"
        )
    # Each is a name with two shapes, or in older versions a name.
    if others := sorted(key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]):
        raise ModelError(
            f"expected weights of the sizes in config.json for the model {name!r}, found others for {_some(others)}: "
            "copy or download it again, with the config.json that belongs to its weights"
        )


def _some(keys: list[str]) -> str:
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


def _check_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise ModelError(f"{folder} holds an adapter without its model: merge it into the base model first")
        raise ModelError(f"expected a model folder with config.json, found none in {folder}: name another folder")
    if not any(name.endswith(".safetensors") for name in names):
        if names.intersection(_PICKLED):
            raise ModelError(
                f"{folder} holds pickled weights (*.bin), which can run any code when they are read: save the model "
                "again with save_pretrained, which writes model.safetensors"
            )
        raise ModelError(f"expected weights as *.safetensors in {folder}, found none: copy or download them")
    if not names.intersection(_TOKENIZER_FILES):
        raise ModelError(
            f"expected tokenizer files in {folder} ({', '.join(_TOKENIZER_FILES)}), found none: "
            "save the tokenizer there with save_pretrained"
        )


def _commit(name: str) -> str:
    """The commit of a hub name: in the local cache when the hub is not to be asked, else the hub's newest."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    # Failures to connect are OSErrors where the hub's client is requests; else, as HTTP errors are, of the class of
    # httpx or httpx2 that the hub's own errors are made of.
    bases: tuple[Any, ...] = HfHubHTTPError.__bases__
    unreachable: tuple[type[Exception], ...] = (OSError, *bases)
    try:
        cached = try_to_load_from_cache(name, "config.json")
        cause = "HF_HUB_OFFLINE is set"
        if not constants.HF_HUB_OFFLINE:
            try:
                return str(HfApi().model_info(name, timeout=10).sha)
            except RepositoryNotFoundError:
                raise ModelError(
                    f"{name!r} is neither a folder nor a model on the hub that you may read: check its spelling, or "
                    "log in with `hf auth login`"
                ) from None
            except unreachable:
                cause = "the hub can't be reached"
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub name: check its spelling") from None
    if isinstance(cached, str):
        return Path(cached).parent.name  # …/snapshots/<commit>/config.json
    raise ModelError(
        f"{name!r} is not a folder, it is not in the local cache, and {cause}: download it where there is a network "
        f"with `hf download {name}`, or name a folder"
    )
