"""Fine-tuning on pairs with TRL's SFTTrainer, as an adapter of peft or of all weights, and the export of the result.

No other file knows an argument of TRL. Rows are tokenised here, by the very code that tokenises prompts for
generation, so that a model is trained on what it is asked; TRL gets ids and labels. The libraries are imported inside
functions: the parent of a child trainer needs none of them.
"""

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from isara.data import QAPair
from isara.errors import ConfigError, ModelError, RunError, TrainingError
from isara.hardware import find_device, free_memory, is_out_of_memory
from isara.models import check_finite, find_model, load_model, meta_model, reason
from isara.prompts import find_format, training_text
from isara.protocols import TrainStats
from isara.training_rows import TrainingRow, check_labels, columns, named

log = logging.getLogger("isara")

OnStep = Callable[[int, int, float], None]
_CHOICES = {"method": ("lora", "full"), "dtype": ("auto", "bfloat16", "float16", "float32")}
_POSITIVE = (
    *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("max_length", "lora_r"),
)
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
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"expected {name} above 0, found {value!r}: raise it")

    def check(self, start: str) -> None:
        """Tries the adapter on the modules of the model at `start`, without its weights: seconds before hours of a run.

        Raises:
            ConfigError: `lora_target_modules` names a layer that the model doesn't have or that can't have an adapter.
            ModelError: The model's config makes no model.
        """
        if self.method == "lora":
            _check_targets(meta_model(find_model(start), self.trust_remote_code), self)

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
        micro, accumulation = self.per_device_train_batch_size, self.gradient_accumulation_steps
        try:
            while True:
                shutil.rmtree(partial, ignore_errors=True)
                with _disk_errors(out):  # before the training, not after it
                    partial.mkdir(parents=True)
                stats = self._attempt(pairs, start, partial, micro, accumulation)
                if stats is not None:
                    break
                if micro == 1:
                    raise TrainingError(
                        "memory is too small to train on one row at a time: lower max_length, set "
                        "gradient_checkpointing, use method lora, or take a smaller model"
                    )
                micro, accumulation = micro // 2, accumulation * 2
                log.warning(
                    "out of memory: training starts over with %d rows a pass, %d passes a step", micro, accumulation
                )
            with _disk_errors(out):
                shutil.rmtree(out, ignore_errors=True)
                partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return stats

    def _attempt(
        self, pairs: Sequence[QAPair], start: str, out: Path, micro: int, accumulation: int
    ) -> TrainStats | None:
        """Statistics of a whole training, or None where memory ran out."""
        try:
            with _quiet():
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

        self.options = options
        self.start = start
        self.out = out
        set_seed(options.seed)  # older versions of TRL draw the adapter before they seed
        self.device = _training_device(options.device)
        self.compute = _compute_dtype(options.dtype, self.device)
        name = find_model(start)
        self.model, self.tokenizer = load_model(name, "auto", options.trust_remote_code)
        check_finite(self.model, name)
        self.format = find_format(self.tokenizer, options.prompt_format)
        # What training changes beside the weights, and how each tensor is to be stored
        self.config, self.generation_config = deepcopy(self.model.config), deepcopy(self.model.generation_config)
        self.dtypes = {name: tensor.dtype for name, tensor in _tensors(self.model)}
        # An optimiser's steps are smaller than 16 bits can tell apart; frozen weights may stay as they are.
        if options.method == "full" or self.compute == "float32":
            self.model.float()

    def run(self, pairs: Sequence[QAPair], micro: int, accumulation: int) -> TrainStats:
        rows = self._rows(pairs)
        losses: list[float] = []
        trainer = self._trainer(rows, micro, accumulation, losses)
        first = trainer.data_collator(
            [trainer.train_dataset[index] for index in range(min(micro, len(trainer.train_dataset)))]
        )
        check_labels(first, rows, self.tokenizer, self.format)
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
        trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
        if not all(bool(tensor.isfinite().all()) for tensor in trained):
            raise _diverged(trainer.state.global_step, "a weight was not finite", self.options)
        stats = TrainStats(
            rows=len(rows),
            steps=trainer.state.global_step,
            first_loss=losses[0],
            last_loss=losses[-1],
            tokens=round(trainer.state.epoch * sum(len(row.ids) for row in rows)),
            answer_tokens=round(trainer.state.epoch * sum(len(row.answer) for row in rows)),
            micro_batch=micro,
            parameters=sum(tensor.numel() for tensor in trained),
        )
        with _disk_errors(self.out):
            self._export(model, rows[0])
        return stats

    def _rows(self, pairs: Sequence[QAPair]) -> list[TrainingRow]:
        """The pairs as ids, without those that are too long."""
        from isara.engines.text import Text

        if not pairs:
            raise TrainingError("expected pairs to train on, found none: give some, or lower the filters' thresholds")
        if empty := next((pair for pair in pairs if not pair.answer.strip()), None):
            raise TrainingError(f"expected an answer in {named(empty)}, found none: write one or drop the pair")
        text = Text(self.tokenizer, self.format)
        prompts, answers = zip(*(training_text(self.format, pair) for pair in pairs), strict=True)
        heads = text.encode(prompts)
        rows = [
            TrainingRow(*parts) for parts in zip(pairs, heads, text.continuations(prompts, answers, heads), strict=True)
        ]
        limit = self._limit()
        long = [row for row in rows if len(row.ids) > limit]
        rows = [row for row in rows if len(row.ids) <= limit]
        if not rows:
            shortest = min(len(row.ids) for row in long)
            raise TrainingError(
                f"expected pairs of at most {limit} tokens, found none among {len(long)}, the shortest of which "
                f"has {shortest}: raise max_length, or take a model with a longer context"
            )
        if long:
            log.warning(
                "training leaves out %d of %d pairs with more than %d tokens; the first is %s with %d",
                *(len(long), len(pairs), limit, long[0], len(long[0].ids)),
            )
        self._check_vocabulary(rows)
        return rows

    def _limit(self) -> int:
        context = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return min(self.options.max_length, context or self.options.max_length)

    def _check_vocabulary(self, rows: Sequence[TrainingRow]) -> None:
        size = self.model.get_input_embeddings().weight.shape[0]
        for row in rows:
            if max(row.ids) >= size:
                raise ModelError(
                    f"the tokenizer makes token {max(row.ids)} of {row}, and the model knows {size}: "
                    "use the tokenizer that belongs to the model"
                )

    def _trainer(self, rows: Sequence[TrainingRow], micro: int, accumulation: int, losses: list[float]) -> Any:
        """TRL's trainer, ready to train; it appends the loss of each step to `losses`."""
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl.trainer.sft_trainer import SFTTrainer

        packing = self.options.packing and self._packs_safely(rows)
        if self.tokenizer.pad_token is None:  # any will do: padding is masked, and the exported tokenizer is another
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        trainer: Any = SFTTrainer(
            model=self.model,
            args=_sft_config(self.options, self.out, self.device, self.compute, packing, micro, accumulation),
            train_dataset=Dataset.from_list([columns(row) for row in rows]),
            processing_class=self.tokenizer,
            peft_config=_lora_config(self.options) if self.options.method == "lora" else None,
            callbacks=[_watch(self.options, losses)],
        )
        trainer.remove_callback(PrinterCallback)
        if self._steps(len(trainer.train_dataset), micro, accumulation) == 1:
            # The first step of a warm-up has the rate 0 and changes nothing. transformers 4 reads the ratio, 5 steps.
            trainer.args.warmup_steps = trainer.args.warmup_ratio = 0
        return trainer

    def _steps(self, rows: int, micro: int, accumulation: int) -> int:
        """Optimiser steps that transformers makes of so many rows."""
        in_epoch = math.ceil(math.ceil(rows / micro) / accumulation)
        return self.options.max_steps or math.ceil(self.options.num_train_epochs * in_epoch)

    def _packs_safely(self, rows: Sequence[TrainingRow]) -> bool:
        """Whether a row's logits stay the same when another row is put before it, as in a packed sequence.

        Attention must see from the position ids where a row begins. Whether it does depends on the architecture, the
        attention implementation and the version of transformers, so it is measured.
        """
        import torch

        first, second = rows[0].ids, rows[-1].ids
        both = torch.tensor([first + second])

        def logits(ids: torch.Tensor, positions: list[int]) -> Any:
            found = self.model(input_ids=ids, position_ids=torch.tensor([positions]), use_cache=False).logits
            return found[0, -len(second) :].float()

        steps = list(range(both.shape[1]))
        with torch.no_grad():
            alone = logits(both[:, len(first) :], steps[: len(second)])
            packed = logits(both, steps[: len(first)] + steps[: len(second)])
            mixed = logits(both, steps)
        if (packed - alone).abs().max() < 0.05 * (mixed - alone).abs().max():
            return True
        log.warning("packing is off: %s lets packed rows see each other", type(self.model).__name__)
        return False

    def _export(self, model: Any, row: TrainingRow) -> None:
        """Writes the model as it came, in the same dtypes and with the same tokenizer, but with its new weights."""
        from transformers import AutoTokenizer

        if self.options.method == "lora":
            self._save_adapter(model)
            before = _logits(model, row)
            model = model.merge_and_unload(safe_merge=True)
        for name, tensor in _tensors(model):
            tensor.data = tensor.data.to(self.dtypes[name])
        if self.options.method == "lora":
            after = _logits(model, row)
            merge = {
                "pair": row.pair.id,
                "max_logit_difference": float((after - before).abs().max()),
                "max_logit": float(before.abs().max()),
            }
            (self.out / "adapter" / "merge.json").write_text(json.dumps(merge, indent=2) + "\n")
        model.config, model.generation_config = self.config, self.generation_config
        self._end_generation(model.generation_config)
        model.save_pretrained(self.out)
        name = find_model(self.start)
        AutoTokenizer.from_pretrained(name, trust_remote_code=self.options.trust_remote_code).save_pretrained(self.out)

    def _save_adapter(self, model: Any) -> None:
        config = model.peft_config["default"]
        config.base_model_name_or_path = self._base_name()
        config.target_modules = sorted(config.target_modules)  # a set is written in an order that changes
        folder = self.out / "adapter"
        model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask the hub for the base's config
        (folder / "README.md").unlink()  # a template that nobody filled in

    def _base_name(self) -> str:
        """The name of the base model for the adapter; from the adapter's folder where both are models of one run."""
        start, out = Path(self.start).resolve(), self.out.resolve()
        if start.is_dir() and start.parent.parent == out.parent.parent:  # RUN/iteration-01/model and its successor
            return os.path.relpath(start, out / "adapter")
        return self.start

    def _end_generation(self, generation_config: Any) -> None:
        """Lets `generate` stop where answers were trained to end, which a base model's config may not know of."""
        end = self.tokenizer.convert_tokens_to_ids(self.format.end.strip())
        if end is None or end == self.tokenizer.unk_token_id:
            return
        known = generation_config.eos_token_id
        ids = [known] if isinstance(known, int) else list(known or ())
        if end not in ids:
            generation_config.eos_token_id = [*ids, end] if ids else end


def _sft_config(
    options: SupervisedTrainer, out: Path, device: str, compute: str, packing: bool, micro: int, accumulation: int
) -> Any:
    from trl.trainer.sft_config import SFTConfig

    known = {option.name for option in fields(SFTConfig)}

    def name(*names: str) -> str:
        """The name that the installed versions of transformers and TRL have for an argument."""
        return next(name for name in names if name in known)

    moved: dict[str, Any] = {
        name("warmup_ratio", "warmup_steps"): min(options.warmup_ratio, 0.999),  # 1 or more would be steps
        name("activation_checkpointing", "gradient_checkpointing"): options.gradient_checkpointing,
        # Rows of like length meet in a batch, which spares padding.
        **({"group_by_length": True} if "group_by_length" in known else {"train_sampling_strategy": "group_by_length"}),
    }
    same: dict[str, Any] = {
        "output_dir": str(out),
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.num_train_epochs,
        "max_steps": options.max_steps or -1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": options.lr_scheduler_type,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "seed": options.seed,
        "completion_only_loss": True,
        "packing": packing,
        "max_length": options.max_length if packing else None,  # no row is longer
        "use_cpu": device == "cpu",
        "bf16": compute == "bfloat16",
        "fp16": compute == "float16",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the last finite loss instead
    }
    config = SFTConfig(**same, **moved)
    config._n_gpu = min(config.n_gpu, 1)  # several GPUs in one process would mean DataParallel
    return config


def _lora_config(options: SupervisedTrainer) -> Any:
    from peft import LoraConfig

    modules = options.lora_target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def _check_targets(model: Any, options: SupervisedTrainer) -> None:
    """Raises ConfigError where peft makes no adapter for the layers that are named; the model gets it."""
    import torch
    from peft import inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    modules, targets = dict(model.named_modules()), options.lora_target_modules
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
            inject_adapter_in_model(_lora_config(options), model)
    except Exception as error:  # of peft, torch or re
        raise ConfigError(
            f"expected train.lora_target_modules all-linear or layers of the model ({', '.join(sorted(linear))}), "
            f"found {targets if isinstance(targets, str) else list(targets)!r} ({reason(error)}): name some of them"
        ) from error


def _watch(options: SupervisedTrainer, losses: list[float]) -> Any:
    """A callback that keeps each step's loss, tells of it, and stops a training that diverges."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            losses.append(float(logs["loss"]))
            for name, value in (("loss", losses[-1]), ("norm of the gradient", float(logs.get("grad_norm", 0.0)))):
                if not math.isfinite(value):
                    raise _diverged(state.global_step, f"the {name} was {value}", options)
            if options.on_step is not None:
                options.on_step(state.global_step, state.max_steps, losses[-1])

    return Watch()


def _diverged(step: int, what: str, options: SupervisedTrainer) -> TrainingError:
    return TrainingError(
        f"training diverged: {what} at step {step}: lower learning_rate ({options.learning_rate:g}) or "
        f"raise warmup_ratio ({options.warmup_ratio:g})"
    )


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    return chain(model.named_parameters(), model.named_buffers())


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
def _disk_errors(out: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"can't write the model to {out} ({reason}): free some space or mend the rights") from error


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
