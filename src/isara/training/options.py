"""What a training may be told; the defaults are those of the `train:` section of a config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from isara.config import PreferConfig, TrainConfig
from isara.errors import ConfigError
from isara.keys import part_key
from isara.pool import Retrieve
from isara.sizes import settings_for
from isara.training.anchors import anchors_key
from isara.training.compute import LARGE, compute_dtype, training_device

OnStep = Callable[[int, int, float], None]
_CHOICES = {
    "method": ("lora", "full"),
    "loss": ("sft", "distil", "dpo"),
    "dtype": ("auto", "bfloat16", "float16", "float32"),
}
_POSITIVE = (
    *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("max_length", "lora_r", "max_steps", "seed_weight", "beta"),
)
_FUNCTIONS = ("retrieve", "teach", "on_step")
_NO_MATTER = ("trust_remote_code", "launcher", "processes", "fsdp")  # to what the weights become, up to rounding
_DEFAULT, _PREFER = TrainConfig(), PreferConfig()
_USUAL = settings_for(None)  # a config knows the model's size, and `isara.build` takes that into account


@dataclass(kw_only=True)
class TrainOptions:
    """How a model is fine-tuned; argument names are those of transformers, TRL and peft.

    Args:
        method: "lora" trains an adapter and merges it; "full" trains every weight.
        learning_rate: Peak learning rate; None is the usual one of the method (`isara.sizes`).
        num_train_epochs: Passes over the pairs.
        per_device_train_batch_size: Rows of a forward pass; halved when memory runs out, with accumulation doubled.
        gradient_accumulation_steps: Forward passes of an optimiser step.
        warmup_ratio: Share of the steps in which the learning rate rises.
        lr_scheduler_type: Course of the learning rate after that.
        weight_decay: Decoupled weight decay of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        max_length: Most tokens of a row, question and answer together; longer pairs are left out, not cut, because a
            cut answer teaches to break off. The model's own context is a limit, too.
        packing: Puts several rows into one sequence, if the model is seen to keep them apart.
        gradient_checkpointing: Computes activations twice instead of keeping them: slower, and less memory.
        lora_r: Rank of the adapter.
        lora_alpha: The adapter's output is scaled by lora_alpha / lora_r.
        lora_dropout: Dropout of the adapter's input.
        lora_target_modules: "all-linear", or names of the layers that get an adapter.
        load_in_4bit: Holds the frozen weights of the linear layers in 4 bits while an adapter is trained (QLoRA, arXiv
            2305.14314); it is merged into the whole ones.
        seed: Of the adapter's initial weights, the order of rows and dropout.
        prompt_format: "auto" is chat turns where the tokenizer has a chat template, else plain text.
        device: "auto" is CUDA, else MPS, else the CPU.
        dtype: Of the arithmetic; what is trained is held in fp32. "auto" is bfloat16 (else float16) on CUDA; on a CPU
            with instructions for it bfloat16 in the matrix products of a model of at least 50M parameters; else
            float32.
        trust_remote_code: Runs code that comes with the model.
        max_steps: Optimiser steps to make instead of `num_train_epochs`.
        loss: "sft" is the log-likelihood of the answers; "distil" is that for seeds, and for a generated answer the
            divergence of its tokens from what the start model says after demonstrations (arXiv 2209.15189). "dpo" is
            that of preferences (arXiv 2305.18290), without dropout, the start model being the reference.
        beta: Of `loss="dpo"`: how strongly the model is held to the start.
        seed_weight: Loss of a seed's answer tokens relative to a generated pair's; the mean over all tokens stays 1.
        anchors: Share of rows in [0, 1) that are the start model's own answers to everyday questions, against
            forgetting (arXiv 2402.13669).
        retrieve: Gives a row the demonstrations that stand before its question (in-context tuning, arXiv 2110.15943
            and 2110.07814), the farthest left out where not all fit into `max_length`; None trains zero-shot.
        whole_pairs: Loss on the questions, too, where rows have demonstrations: the model learns to go on with the next
            pair, and not only to answer.
        teach: Gives a generated pair the demonstrations that the start model reads for `loss="distil"`.
        launcher: "torchrun" or "accelerate" trains on several processes of this machine; None in this one.
        processes: How many; they share the rows of each optimiser step.
        fsdp: Each holds its share of the weights, gradients and optimiser states (arXiv 2304.11277), and not all.
        taught_by: The model that reads these; None is the start model.
        on_step: Called after each optimiser step with the step, the number of all steps and the loss.

    Raises:
        ConfigError: An argument that has no meaning.
    """

    method: Literal["lora", "full"] = _USUAL.method
    learning_rate: float | None = _DEFAULT.learning_rate
    num_train_epochs: float = _USUAL.num_train_epochs
    per_device_train_batch_size: int = _DEFAULT.per_device_train_batch_size
    gradient_accumulation_steps: int = _DEFAULT.gradient_accumulation_steps
    warmup_ratio: float = _DEFAULT.warmup_ratio
    lr_scheduler_type: str = _DEFAULT.lr_scheduler_type
    weight_decay: float = _DEFAULT.weight_decay
    max_grad_norm: float = _DEFAULT.max_grad_norm
    max_length: int = _DEFAULT.max_length
    packing: bool = _DEFAULT.packing
    gradient_checkpointing: bool = _DEFAULT.gradient_checkpointing
    lora_r: int = _DEFAULT.lora_r
    lora_alpha: int = _DEFAULT.lora_alpha
    lora_dropout: float = _DEFAULT.lora_dropout
    lora_target_modules: str | Sequence[str] = _DEFAULT.lora_target_modules
    load_in_4bit: bool = _DEFAULT.load_in_4bit
    seed: int = 0
    prompt_format: Literal["auto", "plain", "chat"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    max_steps: int | None = _DEFAULT.max_steps
    loss: Literal["sft", "distil", "dpo"] = _DEFAULT.loss
    beta: float = _PREFER.beta
    seed_weight: float = _DEFAULT.seed_weight
    anchors: float = _DEFAULT.anchors
    launcher: Literal["torchrun", "accelerate"] | None = _DEFAULT.launcher
    processes: int = _DEFAULT.processes
    fsdp: bool = _DEFAULT.fsdp
    retrieve: Retrieve | None = field(default=None, repr=False)
    whole_pairs: bool = False
    teach: Retrieve | None = field(default=None, repr=False)
    taught_by: str | None = None
    on_step: OnStep | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"expected {name} {', '.join(allowed)}, found {value!r}: use one of them")
        if self.learning_rate is None:
            self.learning_rate = settings_for(None, self.method).learning_rate
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"expected {name} above 0, found {value!r}: raise it")
        if not 0 <= self.anchors < 1:
            raise ConfigError(f"expected anchors in [0, 1), found {self.anchors!r}: name a share of the rows")
        if self.load_in_4bit and self.method != "lora":
            raise ConfigError(
                f"expected train.method lora for `train.load_in_4bit`, found {self.method}: weights in 4 bits are not "
                "trained themselves; set the method, or load_in_4bit to false"
            )

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start, JSON-ready: the learning rate is never None.

        It is taken before a run begins, and with it what would stop a training.
        Device and dtype are those that "auto" comes to here, the dtype for a model that is large enough to matter.
        """
        self.check_teacher()
        device = training_device(self.device)
        meant = {"device": device, "dtype": compute_dtype(self.dtype, device, LARGE)}
        unused: tuple[str, ...] = () if self.loss == "dpo" else ("beta",)
        unused += tuple(name for name in ("taught_by", "load_in_4bit") if not getattr(self, name))
        options = {name: value for name, value in self.options().items() if name not in (*_NO_MATTER, *unused)}
        given = {"demonstrations": self.retrieve, "teacher": self.teach}
        shown = {name: part_key(retrieve) for name, retrieve in given.items() if retrieve is not None}
        if self.anchors:
            shown["made of anchors"] = anchors_key(self.engine("any"))
        return {"trainer": "sft"} | options | meant | shown

    def engine(self, start: str) -> Any:
        """What generates anchors with the model at `start`; nothing is loaded before its `with` block."""
        from isara.engines.transformers.engine import TransformersEngine

        return TransformersEngine(start, device=self.device, dtype=self.dtype, trust_remote_code=self.trust_remote_code)

    def check_teacher(self) -> None:
        """Raises where the loss needs demonstrations and there are none.

        Raises:
            ConfigError: There are none.
        """
        if self.loss == "distil" and self.teach is None:
            raise ConfigError(
                "expected demonstrations for the teacher of `loss: distil`, found none: set answers.retrieve to "
                "nearest or random and answers.demos to 1 or more, or `loss: sft`"
            )

    def options(self) -> dict[str, Any]:
        """The arguments but the functions, JSON-ready."""
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in _FUNCTIONS}
        modules = self.lora_target_modules
        return values | {"lora_target_modules": modules if isinstance(modules, str) else list(modules)}
