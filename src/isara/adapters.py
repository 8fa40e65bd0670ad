"""Adapters that are named as models: merged once into their base, and kept in the user's cache."""

import json
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from isara.converted import Step, cache_errors, card_value, converted, front_matter
from isara.errors import ModelError
from isara.files import value_hash
from isara.hardware import is_out_of_memory
from isara.loading import files_hash, has_tokenizer, is_adapter, load_model, model_files, reason, silent, some

# Raised when the same adapter and base would give another folder.
_MERGER = 2
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja")


def merged_adapter(folder: Path, find: Callable[[str], str], hashed: Callable[[str], str]) -> Path:
    """The folder in the cache with the adapter merged into the base model that its config names.

    Args:
        folder: The adapter's.
        find: Finds a model by its name.
        hashed: The hash of a model's weights by its name.

    Raises:
        ModelError: The adapter lacks a file, its base isn't found, or they can't be merged.
    """
    base_name = _base_name(folder)
    base = _find_base(folder, base_name, find)

    def make(out: Path, step: Step) -> None:
        _merge(folder, base, out, step)
        licence = card_value(folder, "license") or card_value(Path(base), "license")
        head = front_matter(license=licence, base_model=base_name, library_name="transformers")
        (out / "README.md").write_text(f"{head}# An adapter merged into {base_name}\n", "utf-8")

    key = value_hash([_MERGER, _hash(folder), _hash(Path(base)) if Path(base).is_dir() else hashed(base)])
    return converted(f"{key[:16]}-merged", f"Merging {folder.name}", make)


def _base_name(folder: Path) -> str:
    if not (folder / _WEIGHTS).is_file():
        pickled = "only pickled weights (*.bin), which can run any code" if any(folder.glob("*.bin")) else "none"
        raise ModelError(f"expected the adapter's weights as {_WEIGHTS} in {folder}, found {pickled}: save it again")
    try:
        name = json.loads((folder / _CONFIG).read_bytes())["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str) or not name.strip():
        raise ModelError(
            f"expected the name of the base model in {folder / _CONFIG}, found none: set base_model_name_or_path there"
        )
    return name


def _find_base(folder: Path, name: str, find: Callable[[str], str]) -> str:
    """The base: a folder seen from the adapter's, or whatever else a model can be called."""
    beside = folder / name
    place = beside if beside.exists() else Path(os.path.expanduser(name))
    if place.is_dir() and is_adapter(place):  # its own folder, even: a chain could have no end
        raise ModelError(f"the base model of the adapter in {folder} is an adapter itself, {name!r}: merge that first")
    try:
        return find(str(beside) if beside.exists() else name)
    except ModelError as error:
        raise ModelError(
            f"the adapter in {folder} needs its base model {name!r}, which can't be used ({error}): put it there, or "
            f"set base_model_name_or_path in {folder / _CONFIG}"
        ) from error


def _merge(folder: Path, base: str, out: Path, step: Step) -> None:
    step("reading the base", 0.1)
    model, tokenizer = load_model(base, "auto", False)
    source = folder if has_tokenizer(folder) else Path(base)
    dtype = model.dtype
    step("merging", 0.4)
    merged = _merged(folder, model, source if source == folder else None)
    step("writing", 0.8)
    with cache_errors(out), silent():
        merged.to(dtype).save_pretrained(out)
        if not source.is_dir():
            tokenizer.save_pretrained(out)
            return
        for pattern in _TOKENIZER:  # byte for byte: the library would write them in the form of its own release
            for path in source.glob(pattern):
                shutil.copyfile(path, out / path.name)


def _merged(folder: Path, model: Any, tokenizer: Path | None) -> Any:
    """The model with the adapter added to its weights, in float32 so that small steps are not lost on the way."""
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoTokenizer

    try:
        with silent():
            if tokenizer is not None:
                size, rows = len(AutoTokenizer.from_pretrained(tokenizer)), model.get_input_embeddings().weight.shape[0]
                if size > rows:  # an adapter that brings words of its own
                    # Rows that it doesn't hold are drawn; the same adapter is to give the same model everywhere.
                    with torch.random.fork_rng(devices=[]):
                        torch.manual_seed(0)
                        model.resize_token_embeddings(size)
            adapted = PeftModel(model.float(), PeftConfig.from_pretrained(str(folder)))
            # Not `PeftModel.from_pretrained`, which doesn't tell which weights found no place.
            found = adapted.load_adapter(str(folder), "default")
            # Of modules that are saved whole, peft may write a second copy, and misses the first itself.
            if unknown := sorted(key for key in found.unexpected_keys if "modules_to_save" not in key):
                raise _no_match(folder, f"the base has no place for {some(unknown)}")
            if missing := sorted(found.missing_keys):
                raise _no_match(folder, f"it holds no weights for {some(missing)}")
            return adapted.merge_and_unload(safe_merge=True)
    except ModelError:
        raise
    except Exception as error:  # peft and safetensors raise their own for each kind of mismatch
        if is_out_of_memory(error):
            raise
        raise _no_match(folder, reason(error)) from error


def _no_match(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the adapter in {folder} can't be merged into its base ({why}): check that the base is the one it was trained "
        "on, and that it is a LoRA"
    )


def _hash(folder: Path) -> str:
    """The hash of a folder's files, read once a process: a model is looked for several times."""
    files = model_files(folder)
    seen = [(name, str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in sorted(files.items())]
    return _known_hash(tuple(seen))


@lru_cache(maxsize=64)
def _known_hash(files: tuple[tuple[str, str, int, int], ...]) -> str:
    return files_hash({name: Path(path) for name, path, _, _ in files})
