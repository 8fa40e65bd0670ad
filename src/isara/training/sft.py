"""Supervised fine-tuning on pairs: from a model and pairs to a folder that transformers can load.

Rows are made here, by the very code that makes prompts for generation, so that a model is trained on what it is asked;
the steps are TRL's. The libraries are imported inside functions: the parent of a child trainer needs none of them.
"""

import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from isara.errors import ConfigError, ModelError, TrainingError
from isara.files import disk_errors
from isara.hardware import find_device, free_memory, is_out_of_memory
from isara.loading import check_finite, load_model, meta_model
from isara.models import find_model
from isara.process import alone
from isara.records import QAPair, TrainingRow, TrainStats
from isara.render import tokenizer_renderer
from isara.training.adapter import check_targets, record_merge, save_adapter
from isara.training.export import Export
from isara.training.rows import check_labels, make_rows
from isara.training.trl import Passes, first_batch, sft_trainer, trained_model

log = logging.getLogger("isara")

OnStep = Callable[[int, int, float], None]
_CHOICES = {"method": ("lora", "full"), "dtype": ("auto", "bfloat16", "float16", "float32")}
_POSITIVE = (
    *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("max_length", "lora_r", "max_steps"),
)
_NO_MATTER = ("device", "trust_remote_code", "on_step")  # to what the weights become
_NOISY = ("transformers", "trl", "peft", "accelerate", "datasets")


@dataclass(kw_only=True)
class SupervisedTrainer:
    """Supervised fine-tuning with loss on the answers alone; argument names are those of transformers, TRL and peft.

    Args:
        method: "lora" trains an adapter and merges it; "full" trains every weight.
        learning_rate: Peak learning rate; None is 2e-4 for lora and 2e-5 for full.
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
        seed: Of the adapter's initial weights, the order of rows and dropout.
        prompt_format: "auto" is chat turns where the tokenizer has a chat template, else plain text.
        device: "auto" is CUDA, else MPS, else the CPU.
        dtype: Of the arithmetic; what is trained is held in fp32. "auto" is bfloat16 (else float16) on CUDA and float32
            elsewhere.
        trust_remote_code: Runs code that comes with the model.
        max_steps: Optimiser steps to make instead of `num_train_epochs`.
        on_step: Called after each optimiser step with the step, the number of all steps and the loss.

    Raises:
        ConfigError: An argument that has no meaning.
    """

    method: Literal["lora", "full"] = "lora"
    learning_rate: float | None = None
    num_train_epochs: float = 3.0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    warmup_ratio: float = 0.03
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 1024
    packing: bool = False
    gradient_checkpointing: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_target_modules: str | Sequence[str] = "all-linear"
    seed: int = 0
    prompt_format: Literal["auto", "plain", "chat"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    max_steps: int | None = None
    on_step: OnStep | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"expected {name} {', '.join(allowed)}, found {value!r}: use one of them")
        if self.learning_rate is None:
            self.learning_rate = 2e-4 if self.method == "lora" else 2e-5
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"expected {name} above 0, found {value!r}: raise it")

    def key(self) -> dict[str, Any]:
        """What the trained model depends on beside pairs and start, JSON-ready: the learning rate is never None."""
        return {"trainer": "sft"} | {name: value for name, value in self.options().items() if name not in _NO_MATTER}

    def options(self) -> dict[str, Any]:
        """The arguments but `on_step`, JSON-ready."""
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "on_step"}
        modules = self.lora_target_modules
        return values | {"lora_target_modules": modules if isinstance(modules, str) else list(modules)}

    def check(self, start: str) -> None:
        """Tries the adapter on the modules of the model at `start`, without its weights: seconds before hours of a run.

        Raises:
            ConfigError: `lora_target_modules` names a layer that the model doesn't have or that can't have an adapter.
            ModelError: The model's config makes no model.
        """
        if self.method == "lora":
            check_targets(meta_model(find_model(start), self.trust_remote_code), self)

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        """Trains the model at `start` on the pairs and leaves a folder that transformers can load in `out`.

        For lora the folder holds the merged model and, in `adapter/`, the adapter. The same pairs, model and arguments
        give the same bytes on the same machine. `out` appears when everything in it is written, and what it held
        before is gone then.

        Raises:
            TrainingError: Pairs that can't be trained on, a loss that is not finite, or too little memory for a row.
            ModelError: The model or its tokenizer can't be used.
            ConfigError: As `check`.
            RunError: `out` can't be written.
        """
        _check_out(out, start)
        self.check(start)
        partial = out.with_name(out.name + ".partial")
        try:
            stats = self._until_it_fits(pairs, start, out, partial)
            with disk_errors(out):
                shutil.rmtree(out, ignore_errors=True)
                partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return stats

    def _until_it_fits(self, pairs: Sequence[QAPair], start: str, out: Path, partial: Path) -> TrainStats:
        """Trains with fewer and fewer rows a pass, until memory holds one."""
        micro, accumulation = self.per_device_train_batch_size, self.gradient_accumulation_steps
        while True:
            with disk_errors(out):  # before the training, not after it
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            stats = self._attempt(pairs, start, partial, micro, accumulation)
            if stats is not None:
                return stats
            if micro == 1:
                raise TrainingError(
                    "memory is too small to train on one row at a time: lower max_length, set "
                    "gradient_checkpointing, use method lora, or take a smaller model"
                )
            micro, accumulation = micro // 2, accumulation * 2
            log.warning(
                "out of memory: training starts over with %d rows a pass, %d passes a step", micro, accumulation
            )

    def _attempt(
        self, pairs: Sequence[QAPair], start: str, out: Path, micro: int, accumulation: int
    ) -> TrainStats | None:
        """Statistics of a whole training, or None where memory ran out."""
        try:
            with _quiet(), alone():
                return _Training(self, start, out).run(pairs, micro, accumulation)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            free_memory()  # after the handler, so that the failed attempt's tensors are free


class _Training:
    """One model in memory, on its way from `start` to `out`."""

    def __init__(self, options: SupervisedTrainer, start: str, out: Path) -> None:
        from transformers import set_seed

        self.options, self.start, self.out = options, start, out
        set_seed(options.seed)  # older versions of TRL draw the adapter before they seed
        self.device = _training_device(options.device)
        self.compute = _compute_dtype(options.dtype, self.device)
        name = find_model(start)
        self.model, self.tokenizer = load_model(name, "auto", options.trust_remote_code)
        check_finite(self.model, name)
        self.renderer = tokenizer_renderer(self.tokenizer, self.model.config, options.prompt_format)
        self.export = Export(name, self.model, self.tokenizer, self.renderer, options.trust_remote_code)
        # An optimiser's steps are smaller than 16 bits can tell apart; frozen weights may stay as they are.
        if options.method == "full" or self.compute == "float32":
            self.model.float()
        self.losses: list[float] = []

    def run(self, pairs: Sequence[QAPair], micro: int, accumulation: int) -> TrainStats:
        """Trains, checks what came of it, and writes it down."""
        limit = min(self.options.max_length, self.renderer.context_length)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        rows = make_rows(pairs, self.renderer, limit, vocabulary)
        packing = self.options.packing and _packs_safely(self.model, rows)
        passes = Passes(self.device, self.compute, packing, micro, accumulation)
        trainer = sft_trainer(self.options, passes, self.model, self.tokenizer, rows, self.out, self._watch)
        check_labels(first_batch(trainer, micro), rows, self.tokenizer, self.renderer.format.end)
        trainer.train()
        model = trained_model(trainer)
        trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
        if not all(bool(tensor.isfinite().all()) for tensor in trained):
            raise self._diverged(trainer.state.global_step, "a weight was not finite")
        stats = TrainStats(
            rows=len(rows),
            steps=trainer.state.global_step,
            first_loss=self.losses[0],
            last_loss=self.losses[-1],
            tokens=round(trainer.state.epoch * sum(len(row.ids) for row in rows)),
            answer_tokens=round(trainer.state.epoch * sum(len(row.answer) for row in rows)),
            micro_batch=micro,
            parameters=sum(tensor.numel() for tensor in trained),
        )
        with _writing(self.out):
            self._write(model, rows[0])
        return stats

    def _watch(self, step: int, steps: int, figures: dict[str, float]) -> None:
        """Keeps each step's loss, tells of it, and stops a training that diverges."""
        self.losses.append(figures["loss"])
        for name, value in figures.items():
            if not math.isfinite(value):
                raise self._diverged(step, f"the {name} was {value}")
        if self.options.on_step is not None:
            self.options.on_step(step, steps, figures["loss"])

    def _diverged(self, step: int, what: str) -> TrainingError:
        return TrainingError(
            f"training diverged: {what} at step {step}: lower learning_rate ({self.options.learning_rate:g}) or "
            f"raise warmup_ratio ({self.options.warmup_ratio:g})"
        )

    def _write(self, model: Any, row: TrainingRow) -> None:
        """Leaves the model in `out`, and the adapter with the error of its merging."""
        if self.options.method == "full":
            self.export.cast(model)
        else:
            folder = self.out / "adapter"
            save_adapter(model, self.start, folder)
            before = _logits(model, row)
            model = model.merge_and_unload(safe_merge=True)
            self.export.cast(model)
            record_merge(folder, row.pair.id, before, _logits(model, row))
        self.export.write(model, self.out)


def _packs_safely(model: Any, rows: Sequence[TrainingRow]) -> bool:
    """Whether a row's logits stay the same when another row is put before it, as in a packed sequence.

    Attention must see from the position ids where a row begins. Whether it does depends on the architecture, the
    attention implementation and the version of transformers, so it is measured.
    """
    import torch

    first, second = rows[0].ids, rows[-1].ids
    both = torch.tensor([first + second])

    def logits(ids: torch.Tensor, positions: list[int]) -> Any:
        found = model(input_ids=ids, position_ids=torch.tensor([positions]), use_cache=False).logits
        return found[0, -len(second) :].float()

    steps = list(range(both.shape[1]))
    with torch.no_grad():
        alone = logits(both[:, len(first) :], steps[: len(second)])
        packed = logits(both, steps[: len(first)] + steps[: len(second)])
        mixed = logits(both, steps)
    if (packed - alone).abs().max() < 0.05 * (mixed - alone).abs().max():
        return True
    log.warning("packing is off: %s lets packed rows see each other", type(model).__name__)
    return False


def _logits(model: Any, row: TrainingRow) -> Any:
    """Logits of one row in fp32 on the CPU, shape (tokens, vocabulary)."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([row.ids], device=model.device)).logits[0].float().cpu()


def _check_out(out: Path, start: str) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise TrainingError(f"{out} holds something else than a model: name another folder, or remove it")
    if Path(start).exists() and out.exists() and out.samefile(start):
        raise TrainingError(f"{out} is the model that training starts from: name another folder for the new one")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turns what the disk objects into one line, where safetensors wraps it, too."""
    from safetensors import SafetensorError

    with disk_errors(out):
        try:
            yield
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _training_device(device: str) -> str:
    """cpu, cuda or mps."""
    kind, _, index = find_device(device).partition(":")
    if index not in ("", "0"):
        raise ModelError(
            f"training takes the first GPU, found {device!r}: set CUDA_VISIBLE_DEVICES={index} and use `device: cuda`"
        )
    return kind


def _compute_dtype(dtype: str, device: str) -> str:
    """The dtype of the arithmetic.

    On a CPU bf16 products are twice as fast, but attention's backward pass is four times slower, and small models gain
    nothing (docs/training.md).
    """
    import torch

    if dtype != "auto":
        return dtype if device == "cuda" or dtype != "float16" else "float32"
    if device != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' bars, warnings and telemetry; bars and warnings come back afterwards."""
    import datasets
    from huggingface_hub import constants
    from transformers.utils import logging as transformers_logging

    constants.HF_HUB_DISABLE_TELEMETRY = True  # read at every call, the environment only at import
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    datasets.disable_progress_bars()
    try:
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars[0]:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
        if bars[1]:
            datasets.enable_progress_bars()
