"""The adapter of a lora training: the one room that knows peft's names."""

import os
import warnings
from pathlib import Path
from typing import Any

from isara.errors import ConfigError
from isara.files import write_json
from isara.loading import reason
from isara.training.options import TrainOptions

_STAGES = {"train", "prefer"}  # that leave a model in a run's folder


def lora_config(options: TrainOptions) -> Any:
    """The adapter as peft is told of it."""
    from peft import LoraConfig

    modules = options.lora_target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def adapted(model: Any, options: TrainOptions) -> Any:
    """A model with a new adapter."""
    from peft import get_peft_model

    return get_peft_model(model, lora_config(options))


def check_targets(model: Any, options: TrainOptions) -> None:
    """Tries the adapter on a model, which gets it.

    Raises:
        ConfigError: peft makes no adapter for the layers that are named.
    """
    import torch
    from peft import inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    modules, targets = dict(model.named_modules()), options.lora_target_modules
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    linear = {
        key.rpartition(".")[2]
        for key, module in modules.items()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not model.get_output_embeddings()
    }
    try:
        if not targets:
            raise ValueError("no layer is named")
        for name in [] if isinstance(targets, str) else targets:
            # peft looks at the names together, and passes over one that is misspelt.
            if not any(key == name or key.endswith("." + name) for key in modules):
                raise ValueError(f"no layer is called {name!r}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(lora_config(options), model)
        if model.get_output_embeddings() is not head:
            raise ValueError("the head gets no adapter")  # TRL takes none, and says so when the pairs are made
        if model.get_input_embeddings() is not embeddings and head.weight is embeddings.weight:
            raise ValueError("the embeddings are the head, too, into which their adapter would be merged as well")
    except Exception as error:  # of peft, torch or re
        raise ConfigError(
            f"expected train.lora_target_modules all-linear or layers of the model ({', '.join(sorted(linear))}), "
            f"found {targets if isinstance(targets, str) else list(targets)!r} ({reason(error)}): name some of them"
        ) from error


def save_adapter(model: Any, start: str, folder: Path) -> None:
    """Writes the adapter of a model that was trained from `start` to `folder`, which lies in the new model's."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_name(start, folder)
    config.target_modules = sorted(config.target_modules)  # a set is written in an order that changes
    model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask the hub for the base's config
    (folder / "README.md").unlink()  # a template that nobody filled in


def with_adapter(model: Any, folder: Path) -> Any:
    """A model with the adapter that `save_adapter` wrote."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder))


def base_name(start: str, folder: Path) -> str:
    """The name of the base model for an adapter; its path from the adapter's folder where both are of one run."""
    base, model = Path(start).resolve(), folder.resolve().parent
    # RUN/iteration-01/train/model and its successor
    if base.is_dir() and base.parents[2:3] == model.parents[2:3] and {base.parent.name, model.parent.name} <= _STAGES:
        return os.path.relpath(base, folder.resolve())
    return start


def record_merge(folder: Path, pair_id: str, before: Any, after: Any) -> None:
    """Writes down how far merging and rounding moved the logits of one row."""
    merge = {
        "pair": pair_id,
        "max_logit_difference": float((after - before).abs().max()),
        "max_logit": float(before.abs().max()),
    }
    write_json(folder / "merge.json", merge)
