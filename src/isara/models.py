"""Finding models: the embedded one, a folder, or a name on the Hugging Face hub."""

import hashlib
import os
from pathlib import Path

from isara.errors import ModelError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_CHUNK = 2**20


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
    folder = Path(name).expanduser()
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
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        cached = try_to_load_from_cache(name, "config.json")
        reason = "HF_HUB_OFFLINE is set"
        if not constants.HF_HUB_OFFLINE:
            try:
                return str(HfApi().model_info(name, timeout=10).sha)
            except RepositoryNotFoundError:
                raise ModelError(
                    f"{name!r} is neither a folder nor a model on the hub that you may read: check its spelling, or "
                    "log in with `hf auth login`"
                ) from None
            except OSError:  # every failure to connect is one, and so is every HTTP error
                reason = "the hub can't be reached"
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub name: check its spelling") from None
    if isinstance(cached, str):
        return Path(cached).parent.name  # …/snapshots/<commit>/config.json
    raise ModelError(
        f"{name!r} is not a folder, it is not in the local cache, and {reason}: download it where there is a network "
        f"with `hf download {name}`, or name a folder"
    )
