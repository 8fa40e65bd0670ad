"""A trained model as a folder that other programs load: the start's own files, new weights, a fitting chat template.

The installed versions of the libraries would write config and tokenizer in their newest form, which older ones can't
read. So these files are copied from the start, byte for byte, where training changed nothing.
"""

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

from isara.errors import ModelError
from isara.files import write_json, write_text
from isara.render import Renderer
from isara.training.chat_template import exported_template
from isara.training.rows import end_token

_TOKENIZER_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("*.model", "*.tiktoken", "chat_template.jinja", "additional_chat_templates/*.jinja"),
)
_GENERATION = "generation_config.json"
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_LOADING = ("_name_or_path", "_commit_hash", "_attn_implementation", "transformers_version", "dtype", "torch_dtype")


class Export:
    """What a new model takes over from its start, noted before training touches it.

    Args:
        start: What `find_model` returned: a folder or a hub name.
        model: The model that was loaded from it.
        tokenizer: Its tokenizer.
        renderer: Makes its prompts and training rows.
        trust_remote_code: The start may bring code of its own, which the export needs, too.
    """

    def __init__(self, start: str, model: Any, tokenizer: Any, renderer: Renderer, trust_remote_code: bool) -> None:
        self.source = _folder(start)
        self.config = deepcopy(model.config)
        self.generation = {
            name: value
            for name in ("bos_token_id", "eos_token_id", "pad_token_id")
            if (value := getattr(model.generation_config, name, None)) is not None
        }
        self.stated = _generation_file(self.source)
        self.dtypes = {name: tensor.dtype for name, tensor in _tensors(model)}
        self.end = end_token(tokenizer, renderer.format.end)
        self.template = exported_template(tokenizer, renderer)
        names = [*_TOKENIZER_FILES, *tokenizer.vocab_files_names.values(), *(["*.py"] if trust_remote_code else [])]
        self.tokenizer_files = sorted({path for name in names for path in self.source.glob(name)})
        self.trust_remote_code = trust_remote_code

    def cast(self, model: Any) -> None:
        """Gives each tensor the dtype that it had in the start."""
        for name, tensor in _tensors(model):
            tensor.data = tensor.data.to(self.dtypes[name])

    def write(self, model: Any, out: Path) -> None:
        """Writes the folder; an `adapter/` in it stays."""
        from transformers import GenerationConfig

        model.config = self.config
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # it has no types
        model.save_pretrained(out)
        for path in self.tokenizer_files:
            _copy(path, out / path.relative_to(self.source))
        _name_inputs(out / "tokenizer_config.json")
        if self._config_is_kept():
            _copy(self.source / "config.json", out / "config.json")
        self._write_generation_config(out)
        if self.template is not None:
            _write_template(self.template, out)
        # The library that writes weights lets their owner alone read them; write_text asked the umask.
        mode = (out / "generation_config.json").stat().st_mode
        for path in out.rglob("*"):
            if path.is_file():
                path.chmod(mode)

    def _config_is_kept(self) -> bool:
        """Whether the start's file says what the model is; not where loading took a part of it, or its precision."""
        from transformers import AutoConfig

        start = AutoConfig.from_pretrained(self.source, trust_remote_code=self.trust_remote_code)
        return bool(_told(start.to_dict()) == _told(self.config.to_dict()))

    def _write_generation_config(self, out: Path) -> None:
        """Lets `generate` stop where answers were trained to end, which a base model's config may not know of."""
        path = self.source / _GENERATION
        old: dict[str, Any] = dict(self.generation if self.stated is None else self.stated)
        new = dict(old)
        if not old.get("do_sample"):  # of no use then, and a warning at every call
            for name in _SAMPLING:
                new.pop(name, None)
            new["do_sample"] = False  # said, since a pipeline draws at random where nothing is
        known = old.get("eos_token_id", self.generation.get("eos_token_id"))
        ends = known if isinstance(known, list) else [] if known is None else [known]
        if self.end is not None and self.end not in ends:
            new["eos_token_id"] = [*ends, self.end] if ends else self.end
        if new != old:
            new.pop("_from_model_config", None)  # else transformers 4 may make it from the config again
        target = out / path.name
        write_json(target, new)
        if new == old and path.is_file():
            shutil.copyfile(path, target)  # into the file that is there: it keeps its mode


def _folder(start: str) -> Path:
    """Where the files of a model that was loaded from `start` are."""
    if Path(start).is_dir():
        return Path(start)
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(start, "config.json", local_files_only=True)).parent


def _generation_file(folder: Path) -> dict[str, Any] | None:
    """What a start's file says of generating, read before the training; transformers passes over a broken one."""
    path = folder / _GENERATION
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"expected a JSON object in {path}, found none: copy or download it again, or remove it")
    return found


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    return chain(model.named_parameters(), model.named_buffers())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)


def _told(config: Any) -> Any:
    """A config without what loading writes into it."""
    if isinstance(config, dict):
        return {name: _told(value) for name, value in config.items() if name not in _LOADING}
    return config


def _name_inputs(path: Path) -> None:
    """Says what the model takes where transformers 4 would guess: `token_type_ids`, too, which `generate` refuses."""
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if config.get("tokenizer_class") == "PreTrainedTokenizerFast" and "model_input_names" not in config:
        write_json(path, {**config, "model_input_names": ["input_ids", "attention_mask"]})


def _write_template(template: str, out: Path) -> None:
    write_text(out / "chat_template.jinja", template)
    path = out / "tokenizer_config.json"
    # Programs that don't know the file of the template look here.
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if "chat_template" in config:
        write_json(path, {**config, "chat_template": template})
