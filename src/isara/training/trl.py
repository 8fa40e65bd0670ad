"""TRL's SFTTrainer and DPOTrainer: the one room that knows TRL's names and those of transformers' own trainer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from packaging.version import Version

from isara.errors import TrainingError
from isara.records import TrainingRow
from isara.training.fsdp import fsdp_arguments
from isara.training.options import TrainOptions
from isara.training.rows import segments

if TYPE_CHECKING:
    from isara.training.teacher import Target

_PREFERS_IDS = "0.29.1"  # the first version of TRL that was seen to
# Told of each optimiser step: the step, the number of all steps, and the figures of the log by name.
StepWatch = Callable[[int, int, dict[str, float]], None]
# What a row's answer tokens are to become, by the row's ids; None is their likelihood.
Targets: TypeAlias = "dict[tuple[int, ...], Target] | None"


@dataclass(frozen=True, slots=True)
class Passes:
    """How rows reach the model.

    Attributes:
        device: "cpu", "cuda" or "mps".
        compute: Dtype of the arithmetic.
        packing: Puts several rows into one sequence.
        micro: Rows of a forward pass.
        accumulation: Forward passes of an optimiser step.
        processes: How many share a step, each with so many rows and passes.
    """

    device: str
    compute: str
    packing: bool
    micro: int
    accumulation: int
    processes: int = 1


def sft_trainer(
    options: TrainOptions,
    passes: Passes,
    model: Any,
    tokenizer: Any,
    rows: Sequence[TrainingRow],
    out: Path,
    watch: StepWatch,
    targets: Targets = None,
) -> Any:
    """TRL's trainer, ready to train; nothing is written to `out`, but TRL wants a folder."""
    from datasets import Dataset
    from transformers import PrinterCallback

    from isara.training.adapter import lora_config

    _set_padding(tokenizer)
    blank = _blank(rows[0])
    given = rows if passes.processes == 1 else [*rows, blank]
    trainer: Any = _trainer_class()(
        model=model,
        args=_sft_config(options, passes, out),
        train_dataset=Dataset.from_list([_columns(row) for row in given]),
        processing_class=tokenizer,
        peft_config=lora_config(options) if options.method == "lora" else None,
        callbacks=[_callback(watch)],
    )
    _hold_in_float32(trainer.model)
    trainer.rows_by_ids = {row.ids: row for row in reversed([*rows, blank])}  # of equal rows the first, a seed's
    trainer.passes = passes
    trainer.targets = targets
    trainer.remove_callback(PrinterCallback)
    return _without_idle_step(trainer, options, passes)


def preference_trainer(
    options: TrainOptions,
    passes: Passes,
    model: Any,
    tokenizer: Any,
    rows: Sequence[tuple[TrainingRow, TrainingRow]],
    out: Path,
    watch: StepWatch,
) -> Any:
    """TRL's trainer on preferences, ready to train: its loss, with the model as it is now for the reference."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from isara.training.adapter import lora_config

    class PreferenceTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
            return dataset  # it is ids already, made by the code that makes prompts

    _set_padding(tokenizer)
    own = {"beta": options.beta, "precompute_ref_log_probs": True, "max_length": None}
    trainer: Any = PreferenceTrainer(
        model=model,
        args=_arguments(DPOConfig, options, passes, out, own),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt_ids": list(chosen.prompt),
                    "chosen_ids": list(chosen.answer),
                    "rejected_ids": list(rejected.answer),
                }
                for chosen, rejected in rows
            ]
        ),
        processing_class=tokenizer,
        peft_config=lora_config(options) if options.method == "lora" else None,
        callbacks=[_callback(watch)],
    )
    for module in model.modules():  # what is no layer (as in OPT), TRL does not turn off
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    _hold_in_float32(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return _without_idle_step(trainer, options, passes)


def check_preferences() -> None:
    """Whether the installed TRL takes preferences as ids.

    Raises:
        TrainingError: It is too old.
    """
    found = version("trl")
    if Version(found) < Version(_PREFERS_IDS):
        raise TrainingError(
            f"expected trl {_PREFERS_IDS} or newer for the preferences of `prefer`, found {found}: install it, or set "
            "prefer.method to none"
        )


def first_batch(trainer: Any, rows: int) -> dict[str, Any]:
    """The first rows as the model is to get them."""
    dataset = trainer.train_dataset
    batch: dict[str, Any] = trainer.data_collator([dataset[index] for index in range(min(rows, len(dataset)))])
    return batch


def chosen_labels(batch: dict[str, Any]) -> dict[str, Any]:
    """The chosen half of a batch of preferences, as a batch with labels."""
    half = len(batch["input_ids"]) // 2
    ids, mask = batch["input_ids"][:half], batch["completion_mask"][:half]
    labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "labels": labels, "attention_mask": batch["attention_mask"][:half]}


def trained_model(trainer: Any) -> Any:
    """The model without what accelerate put around it, switched to evaluation."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()


def _trainer_class() -> Any:
    """TRL's trainer with the loss of `isara.training.loss`.

    TRL's own projects every position on the vocabulary where there is no Triton, twice, and measures entropy and
    accuracy beside the loss.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    from isara.training.fsdp import settle
    from isara.training.loss import labelled_logits, token_logprobs
    from isara.training.order import SharedOrder
    from isara.training.teacher import divergences

    class LabelledTrainer(SFTTrainer):
        rows_by_ids: dict[tuple[int, ...], TrainingRow]
        targets: Targets
        passes: Passes

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            if self.args.fsdp:
                settle(self)

        def _get_train_sampler(self, *args: Any) -> Any:
            if self.passes.processes == 1:
                return super()._get_train_sampler(*args)
            dataset: Any = self.train_dataset
            in_pass = self.passes.micro * self.passes.processes
            lengths = [len(ids) for ids in dataset["input_ids"][:-1]]
            return SharedOrder(lengths, in_pass * self.passes.accumulation, in_pass)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs["labels"]
            rest = {name: value for name, value in inputs.items() if name != "labels"}
            routed = getattr(self, "aux_loss_enabled", False)  # a mixture of experts
            if routed:
                rest["output_router_logits"] = True
            logits, output = labelled_logits(model, rest, labels)
            rows = [self.rows_by_ids[tuple(ids)] for ids, _ in segments(inputs)]
            if self.targets is None:
                wanted = labels[:, 1:][labels[:, 1:] != -100]
                losses = -token_logprobs(logits, wanted[:, None])[:, 0]
            else:
                losses = divergences(logits, [self.targets[row.ids] for row in rows if row.answer])
            weights = losses.new_tensor([row.weight for row in rows for _ in row.answer])
            loss = (losses * weights).sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
            if num_items_in_batch is not None:
                loss = loss * self.passes.processes  # of which the mean is taken, and the tokens are those of all
            if routed:
                passes = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
                config: Any = self.accelerator.unwrap_model(model).config
                loss = loss + config.get_text_config().router_aux_loss_coef * output.aux_loss / passes
            return (loss, output) if return_outputs else loss

    return LabelledTrainer


def _blank(row: TrainingRow) -> TrainingRow:
    """A row without anything to learn, which fills up what several processes share: one token, as no real row has."""
    return replace(row, prompt=row.ids[:1], answer=())


def _columns(row: TrainingRow) -> dict[str, list[int]]:
    # Newer versions of TRL take labels, older ones make them of the mask.
    blank = len(row.prompt)
    return {
        "input_ids": list(row.ids),
        "labels": [-100] * blank + list(row.answer),
        "completion_mask": [0] * blank + [1] * len(row.answer),
    }


def _set_padding(tokenizer: Any) -> None:
    if tokenizer.pad_token is None:  # any will do: padding is masked, and the exported tokenizer is another
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)


def _hold_in_float32(model: Any) -> None:
    """What is trained in fp32, where TRL makes an adapter on weights of 4 bits in bf16: its steps are smaller."""
    for tensor in model.parameters():
        if tensor.requires_grad:
            tensor.data = tensor.data.float()


def _without_idle_step(trainer: Any, options: TrainOptions, passes: Passes) -> Any:
    """The trainer, whose first step of a warm-up has the rate 0, and changes nothing, unless it is the only one."""
    if _steps(options, passes, len(trainer.train_dataset) - (passes.processes > 1)) == 1:  # less the blank row
        trainer.args.warmup_steps = trainer.args.warmup_ratio = 0  # transformers 4 reads the ratio, 5 steps
    return trainer


def _steps(options: TrainOptions, passes: Passes, rows: int) -> int:
    """Optimiser steps that transformers makes of so many rows."""
    in_epoch = math.ceil(math.ceil(rows / passes.micro) / (passes.processes * passes.accumulation))
    return options.max_steps or math.ceil(options.num_train_epochs * in_epoch)


def _sft_config(options: TrainOptions, passes: Passes, out: Path) -> Any:
    from trl.trainer.sft_config import SFTConfig

    known = {option.name for option in fields(SFTConfig)}
    own: dict[str, Any] = {
        "completion_only_loss": True,
        "packing": passes.packing,
        "max_length": options.max_length if passes.packing else None,  # no row is longer
        # Rows of like length meet in a batch, which spares padding.
        **({"group_by_length": True} if "group_by_length" in known else {"train_sampling_strategy": "group_by_length"}),
    }
    return _arguments(SFTConfig, options, passes, out, own)


def _arguments(kind: Any, options: TrainOptions, passes: Passes, out: Path, own: dict[str, Any]) -> Any:
    """What a trainer of TRL is told, as its config class takes it; `own` is of that class alone."""
    known = {option.name for option in fields(kind)}

    def name(*names: str) -> str:
        """The name that the installed versions of transformers and TRL have for an argument."""
        return next(name for name in names if name in known)

    moved: dict[str, Any] = {
        name("warmup_ratio", "warmup_steps"): min(options.warmup_ratio, 0.999),  # 1 or more would be steps
        name("activation_checkpointing", "gradient_checkpointing"): options.gradient_checkpointing,
    }
    same: dict[str, Any] = {
        "output_dir": str(out),
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.num_train_epochs,
        "max_steps": options.max_steps or -1,
        "per_device_train_batch_size": passes.micro,
        "gradient_accumulation_steps": passes.accumulation,
        "lr_scheduler_type": options.lr_scheduler_type,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "seed": options.seed,
        "use_cpu": passes.device == "cpu",
        "bf16": passes.compute == "bfloat16",
        "fp16": passes.compute == "float16",
        "average_tokens_across_devices": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the last finite loss instead
    }
    if options.fsdp:
        same |= fsdp_arguments()
    config = kind(**same, **moved, **own)
    config._n_gpu = min(config.n_gpu, 1)  # several GPUs in one process would mean DataParallel
    return config


def _callback(watch: StepWatch) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:  # the summary at the end has none
                figures = {"loss": float(logs["loss"]), "norm of the gradient": float(logs.get("grad_norm", 0.0))}
                watch(state.global_step, state.max_steps, figures)

    return Watch()
