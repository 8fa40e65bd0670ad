"""Finding models: the embedded one, a folder, a GGUF file, an adapter, a packaged one, or a name on the hub."""

import difflib
import os
from pathlib import Path
from typing import Any

from isara.errors import ModelError
from isara.loading import check_folder, files_hash, is_adapter, model_files
from isara.marks import clean

_PROXIES = {"all_proxy", "http_proxy", "https_proxy"}
_MOST_CAUSE = 160  # characters of a library's message


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
    """What transformers can load for a name: a checked folder, or a hub name.

    A GGUF file, a packaged model and an adapter with its base are turned into a folder in the user's cache when they
    are first asked for.

    Args:
        name: "embedded", a folder of a model or of an adapter, a .gguf file, a packaged model's name, or a hub name.

    Raises:
        ModelError: The folder or file lacks something or can't be read, or the name stands for nothing that can be had.
    """
    if name == "embedded":
        return str(embedded_model())
    path = Path(os.path.expanduser(name))
    try:
        return _local(path) if path.exists() else _named(name)
    except OSError as error:
        raise ModelError(f"the model {name!r} can't be read ({error.strerror}): mend its name or its rights") from error


def _local(path: Path) -> str:
    if path.is_dir():
        if is_adapter(path):
            from isara.adapters import merged_adapter

            return str(merged_adapter(path, find_model, weights_hash))
        check_folder(path)
        return str(path)
    from isara.gguf import gguf_folder, is_gguf

    if is_gguf(path):
        return str(gguf_folder(path))
    raise ModelError(f"expected a model folder or a .gguf file, found the file {str(path)!r}: name the folder it is in")


def _named(name: str) -> str:
    from isara.packaged import PACKAGED, packaged, packaged_folder

    if known := packaged(name):
        return str(packaged_folder(known))
    if name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or name.endswith((".gguf", "/", ".safetensors")):
        raise ModelError(f"there is no model at {name!r}: {_near(Path(os.path.expanduser(name)))}")
    if near := difflib.get_close_matches(name, ("embedded", *(model.name for model in PACKAGED)), n=1, cutoff=0.8):
        raise ModelError(f"there is no model {name!r}: did you mean {near[0]!r}? `isara models list` shows the names")
    _commit(name)
    return name


def _near(path: Path) -> str:
    """What to do about a path with nothing at it."""
    parent = path.parent
    if not parent.is_dir():
        return f"there is no folder {str(parent)!r} either, so check the path"
    near = difflib.get_close_matches(path.name, [file.name for file in parent.iterdir()], n=1)
    return f"did you mean {str(parent / near[0])!r}?" if near else "check the path"


def weights_hash(model: str) -> str:
    """A hex digest that changes whenever the model's config, tokenizer, chat templates, code or weights do.

    Of a folder, SHA-256 over the names and contents of those files, with its shards wherever in the folder its index
    says they are; of a hub name, the commit that it stands for.

    Raises:
        ModelError: As `find_model`.
    """
    found = find_model(model)
    return files_hash(model_files(Path(found))) if Path(found).is_dir() else _commit(found)


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
            except Exception as error:  # what the client says of a proxy that it can't use, of many classes
                cause = f"the hub can't be asked ({clean(str(error), _MOST_CAUSE)}{_proxies()})"
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub name: check its spelling") from None
    if isinstance(cached, str):
        return Path(cached).parent.name  # …/snapshots/<commit>/config.json
    raise ModelError(
        f"{name!r} is not a folder, it is not in the local cache, and {cause}: download it where there is a network "
        f"with `hf download {name}`, or name a folder"
    )


def _proxies() -> str:
    """Which proxy variables are set, for an error that one of them may have brought; not their values."""
    names = sorted(name for name in os.environ if name.lower() in _PROXIES and os.environ[name])
    return f"; of the proxy variables {', '.join(names)} is set: look at its scheme" if names else ""


def local_folder(model: str) -> Path:
    """The folder that a model's files lie in: its own, or a hub model's in the local cache.

    Raises:
        ModelError: The hub model is not in the cache.
    """
    if Path(model).is_dir():
        return Path(model)
    found = find_model(model)
    if Path(found).is_dir():
        return Path(found)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(found, local_files_only=True))
        if not any(folder.glob("*.safetensors")):
            raise LocalEntryNotFoundError("config and tokenizer alone")
        return folder
    except LocalEntryNotFoundError:
        raise ModelError(
            f"expected the weights of {found!r} in the local cache, found none: download it with `hf download {found}`"
        ) from None
