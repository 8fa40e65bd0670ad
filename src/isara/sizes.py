"""How large a model is, and the settings that follow from it: the one rule behind every `null` that says so."""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from isara.errors import ModelError
from isara.loading import again, meta_model, weight_files

Method: TypeAlias = Literal["lora", "full"]

# Tables that words are looked up in, which LoRA's "all-linear" leaves alone.
_TABLES = ("embed", "wte", "wpe", "lm_head")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a model of some size is run with where the config says null.

    Attributes:
        below: For models of fewer weights than this.
        method: As `train.method`.
        learning_rate: As `train.learning_rate`.
        num_train_epochs: As `train.num_train_epochs`.
        question_temperature: As `questions.temperature`.
        answer_temperature: As `answers.temperature`.
        asks_and_answers: As `questions.from` and `answers.from`, where demonstrations are shown.
    """

    below: float
    method: Method
    learning_rate: float
    num_train_epochs: float
    question_temperature: float
    answer_temperature: float
    asks_and_answers: Literal["last", "reader"]

    def by_key(self) -> dict[str, Any]:
        """The values by the dotted keys of a config."""
        return {
            "train.method": self.method,
            "train.learning_rate": self.learning_rate,
            "train.num_train_epochs": self.num_train_epochs,
            "questions.temperature": self.question_temperature,
            "answers.temperature": self.answer_temperature,
            "questions.from": self.asks_and_answers,
            "answers.from": self.asks_and_answers,
        }


# The rule (our choice). Of a size the first row counts, or the first one of the method that the config names; where the
# numbers come from stands in docs/look.md.
#        below          method   rate   epochs  T of questions, of answers, who asks and answers
RULE = (
    Settings(20e6,      "full",  5e-4,  4.0,    1.0, 0.5, "last"),
    Settings(20e6,      "lora",  1e-3,  3.0,    1.0, 0.5, "last"),
    Settings(1e9,       "lora",  1e-3,  6.0,    0.7, 0.0, "reader"),
    Settings(1e9,       "full",  5e-5,  3.0,    0.7, 0.0, "reader"),
    Settings(8e9,       "lora",  2e-4,  3.0,    1.0, 0.5, "last"),
    Settings(8e9,       "full",  2e-5,  3.0,    1.0, 0.5, "last"),
    Settings(math.inf,  "lora",  1e-4,  3.0,    1.0, 0.5, "last"),
    Settings(math.inf,  "full",  1e-5,  3.0,    1.0, 0.5, "last"),
)  # fmt: skip
_USUAL = 2_000_000_000  # weights of a model that can't be counted: its row holds the usual values


def settings_for(weights: int | None, method: Method | None = None) -> Settings:
    """The settings of a model with so many weights.

    Args:
        weights: How many; None for a model that can't be counted.
        method: How it is trained, where that is decided already.
    """
    size = _USUAL if weights is None else weights
    return next(row for row in RULE if size < row.below and method in (None, row.method))


def count_weights(model: str) -> int | None:
    """How many weights a model has, without loading them; None for one that is no model of transformers.

    Args:
        model: What `isara.models.find_model` returned: a folder, or a hub name.

    Raises:
        ModelError: A file of its weights is torn.
    """
    if Path(model).is_dir():
        return folder_size(Path(model)).weights or None
    try:
        found = meta_model(model, trust_remote_code=False)  # no code of the model's own is run for a count
    except ModelError:
        return None
    return int(sum(weight.numel() for weight in found.parameters()))


def shown_count(weights: int) -> str:
    """The number in millions or thousands of millions: "135 M", "1.5 B"."""
    return f"{weights / 1e9:.1f} B" if weights >= 1e9 else f"{weights / 1e6:.3g} M"


@dataclass(frozen=True, slots=True)
class Size:
    """Counted weights.

    Attributes:
        weights: All of them.
        linear: Inputs and outputs of all layers that LoRA adapts, added up.
        disk: Bytes of the files.
    """

    weights: int
    linear: int
    disk: int


def folder_size(folder: Path) -> Size:
    """The size of a folder's model, from the heads of its weights' files; nothing is loaded.

    Raises:
        ModelError: A file of its weights is torn.
    """
    shapes = [shape for file in weight_files(folder) for shape in _shapes(file).items()]
    weights = sum(_product(shape) for _, shape in shapes)
    adapted = [shape for name, shape in shapes if len(shape) == 2 and not any(table in name for table in _TABLES)]
    return Size(
        weights, sum(map(sum, adapted)), sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    )


def _shapes(file: Path) -> dict[str, list[int]]:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            head: dict[str, Any] = json.loads(opened.read(min(length, file.stat().st_size)))
        tensors = {name: tensor for name, tensor in head.items() if name != "__metadata__"}
        whole = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        if file.stat().st_size < whole:
            raise ValueError("it ends early")
        return {name: tensor["shape"] for name, tensor in tensors.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            f"expected weights in safetensors, found a file that is torn or none at {file}: "
            f"{again(file.parent, 'copy or download it again')}"
        ) from error


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
