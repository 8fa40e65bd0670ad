"""Supervised fine-tuning on pairs: from a model and pairs to a folder that transformers can load.

Rows are made here, by the very code that makes prompts for generation, so that a model is trained on what it is asked;
the steps are TRL's. The libraries are imported inside functions: the parent of a child trainer needs none of them.
"""

import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from isara.errors import TrainingError
from isara.files import disk_errors, json_lines, write_text
from isara.hardware import free_memory, is_out_of_memory
from isara.loading import check_finite, load_model, meta_model
from isara.models import find_model
from isara.process import alone
from isara.records import Preference, QAPair, TrainingRow, TrainStats
from isara.render import open_renderer, tokenizer_renderer
from isara.training.adapter import adapted, check_targets, record_merge, save_adapter, with_adapter
from isara.training.anchors import FILE, make_anchors, wanted
from isara.training.compute import compute_dtype, compute_in_4bit, training_device
from isara.training.export import Export
from isara.training.fsdp import held, whole_weights
from isara.training.launch import launched, share_of
from isara.training.options import TrainOptions
from isara.training.quantized import check_quantizes, load_in_4bit
from isara.training.rows import check_labels, make_preference_rows, make_rows
from isara.training.trl import (
    Passes,
    Targets,
    check_preferences,
    chosen_labels,
    first_batch,
    preference_trainer,
    sft_trainer,
    trained_model,
)

log = logging.getLogger("isara")

# Of a forward pass on a CPU. Activations of SmolLM2-135M take about 3.5 MB a token.
MOST_TOKENS = 1024  # our choice

_NOISY = ("transformers", "trl", "peft", "accelerate", "datasets")


class SupervisedTrainer(TrainOptions):
    """Supervised fine-tuning with loss on the answers alone; it is called with the options by name."""

    def check(self, start: str) -> None:
        """Tries the adapter on the modules of the model at `start`, without its weights: seconds before hours of a run.

        Raises:
            TrainingError: The installed TRL can't do it.
            ConfigError: `lora_target_modules` names a layer that the model doesn't have or that can't have an adapter,
                or the package for 4 bits is missing.
            ModelError: The model's config makes no model.
        """
        if self.loss == "dpo":
            check_preferences()
        if self.load_in_4bit:
            check_quantizes()
        if self.method == "lora":
            check_targets(meta_model(find_model(start), self.trust_remote_code), self)

    def with_steps(self, steps: int) -> "SupervisedTrainer":
        """The same trainer with so many optimiser steps, for a model of the seeds alone: without anchors."""
        return replace(self, max_steps=steps, anchors=0.0)

    def without_demos(self) -> "SupervisedTrainer":
        """The same trainer for a model that is asked without demonstrations."""
        return replace(self, retrieve=None)

    def with_teacher(self, model: str) -> "SupervisedTrainer":
        """The same trainer whose teacher of `loss="distil"` is that model."""
        return replace(self, taught_by=model)

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
        self.check_teacher()
        self.check(start)
        anchors = self._anchors(start, len(pairs))
        train = train_once if self.launcher is None else launched
        return self._whole(out, lambda place, sizes: train(self, pairs, anchors, start, place, sizes))

    def prefer(self, preferences: Sequence[Preference], start: str, out: Path) -> TrainStats:
        """Trains the model at `start`, which is the reference, on preferences, in one process; all else is as in `fit`.

        Raises:
            TrainingError: As `fit`.
            ModelError: As `fit`.
            ConfigError: As `fit`.
            RunError: As `fit`.
        """
        _check_out(out, start)
        self.check(start)
        told = replace(self, launcher=None, processes=1, fsdp=False)

        def train(place: Path, sizes: tuple[int, int]) -> TrainStats:
            with _quiet():
                return _Training(told, start, place).prefer(preferences, *sizes)

        return told._whole(out, train)

    def _whole(self, out: Path, work: "_Work") -> TrainStats:
        """Lets `out` appear when everything in it is written."""
        partial = out.with_name(out.name + ".partial")
        try:
            stats = self._until_it_fits(out, partial, work)
            with disk_errors(out):
                shutil.rmtree(out, ignore_errors=True)
                partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return stats

    def _anchors(self, start: str, pairs: int) -> list[QAPair]:
        """What the start model says to everyday questions, as many as the share asks for."""
        if not (count := wanted(self.anchors, pairs)):
            return []
        name = find_model(start)
        renderer = open_renderer(name, self.prompt_format, self.trust_remote_code)
        try:
            return make_anchors(self.engine(name), renderer, count, self.seed)
        finally:
            free_memory()

    def _until_it_fits(self, out: Path, partial: Path, work: "_Work") -> TrainStats:
        """Trains with fewer and fewer rows a pass, until memory holds one."""
        sizes = self.per_device_train_batch_size, self.gradient_accumulation_steps
        micro, accumulation = share_of(*sizes, self.processes)
        while True:
            with disk_errors(out):  # before the training, not after it
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            stats = _attempt(partial, work, (micro, accumulation))
            if stats is not None:
                return stats
            if micro == 1:
                raise TrainingError(
                    "memory is too small to train on one row at a time: lower max_length, set "
                    "gradient_checkpointing, use method lora, or take a smaller model"
                )
            # A step keeps its rows: 6 become 3 and 3, and 3 one by one.
            rows = micro * accumulation
            micro = next(size for size in range(micro // 2, 0, -1) if rows % size == 0)
            accumulation = rows // micro
            log.warning(
                "out of memory: training starts over with %d rows a pass, %d passes a step", micro, accumulation
            )


def _attempt(out: Path, work: "_Work", sizes: tuple[int, int]) -> TrainStats | None:
    """Statistics of a whole training, or None where memory ran out."""
    try:
        with alone():
            return work(out, sizes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        free_memory()  # after the handler, so that the failed attempt's tensors are free


# Trains the model for a folder, with so many rows of a pass and passes of a step; None where memory ran out elsewhere.
_Work: TypeAlias = "Callable[[Path, tuple[int, int]], TrainStats | None]"


def train_once(
    options: SupervisedTrainer,
    pairs: Sequence[QAPair],
    anchors: Sequence[QAPair],
    start: str,
    out: Path,
    sizes: tuple[int, int],
) -> TrainStats:
    """Statistics of a whole training in this process, or of its part where a launcher has started several.

    Args:
        options: How the model is fine-tuned.
        pairs: What it is fine-tuned on.
        anchors: Rows of its own beside them.
        start: The model that it starts from.
        out: The folder for the new one, which is there; the first process writes it.
        sizes: Rows of a forward pass and passes of an optimiser step in each process.

    Raises:
        TrainingError: As `SupervisedTrainer.fit`.
        ModelError: As there.
        RuntimeError: Memory ran out.
    """
    with _quiet():
        return _Training(options, start, out).run(pairs, anchors, *sizes)


class _Training:
    """One model in memory, on its way from `start` to `out`."""

    def __init__(self, options: SupervisedTrainer, start: str, out: Path) -> None:
        from transformers import set_seed

        self.options, self.start, self.out = options, start, out
        set_seed(options.seed)  # older versions of TRL draw the adapter before they seed
        self.device = training_device(options.device)
        self.name = find_model(start)
        self.plain: Callable[[], None] | None = None
        self.losses: list[float] = []
        self.model, self.tokenizer = self._load(self.name)
        check_finite(self.model, self.name)
        self.renderer = tokenizer_renderer(self.tokenizer, self.model.config, options.prompt_format)
        if options.load_in_4bit:  # in the arithmetic's dtype, and exported from the whole weights
            self.compute = compute_in_4bit(options.dtype, self.device)
            return
        self.export = self._export(self.model)
        self.compute = compute_dtype(options.dtype, self.device, self.model.num_parameters())
        # An optimiser's steps are smaller than 16 bits can tell apart; frozen weights may stay as they are.
        if options.method == "full" or self.compute == "float32":
            self.model.float()
        if self.device == "cpu" and self.compute == "bfloat16":
            from isara.training.products import multiply_in_bfloat16

            self.plain, self.compute = multiply_in_bfloat16(self.model), "float32"  # of everything else

    def run(self, pairs: Sequence[QAPair], anchors: Sequence[QAPair], micro: int, accumulation: int) -> TrainStats:
        """Trains, checks what came of it, and writes it down."""
        limit = min(self.options.max_length, self.renderer.context_length)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        told = self.options
        shown, weight = told.retrieve, told.seed_weight
        rows = make_rows(pairs, self.renderer, limit, vocabulary, shown, weight, anchors, told.whole_pairs)
        packing = told.packing and _packs_safely(self.model, rows)
        if self.device == "cpu" and not packing:
            micro, accumulation = held_at_once(max(len(row.ids) for row in rows), micro, accumulation)
        passes = Passes(self.device, self.compute, packing, micro, accumulation, told.processes)
        targets = self._targets(rows, micro)
        trainer = sft_trainer(told, passes, self.model, self.tokenizer, rows, self.out, self._watch, targets)
        check_labels(first_batch(trainer, min(micro, len(rows))), rows, self.tokenizer, self.renderer.format.end)
        stats = self._train(trainer, [[row] for row in rows], micro)
        if anchors and trainer.is_world_process_zero():
            with _writing(self.out):
                write_text(self.out / FILE, json_lines(pair.to_json() for pair in anchors))
        return stats

    def prefer(self, preferences: Sequence[Preference], micro: int, accumulation: int) -> TrainStats:
        """The same on preferences."""
        limit = min(self.options.max_length, self.renderer.context_length)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        rows = make_preference_rows(preferences, self.renderer, limit, vocabulary)
        if self.device == "cpu":  # where a pass holds both answers
            longest = 2 * max(len(row.ids) for both in rows for row in both)
            micro, accumulation = held_at_once(longest, micro, accumulation)
        passes = Passes(self.device, self.compute, False, micro, accumulation)
        trainer = preference_trainer(self.options, passes, self.model, self.tokenizer, rows, self.out, self._watch)
        chosen = [row for row, _ in rows]
        check_labels(
            chosen_labels(first_batch(trainer, min(micro, len(rows)))), chosen, self.tokenizer, self.renderer.format.end
        )
        return self._train(trainer, rows, micro)

    def _train(self, trainer: Any, rows: Sequence[Sequence[TrainingRow]], micro: int) -> TrainStats:
        """Takes the steps, checks what came of them, and writes it down; a row of data may be several to the model."""
        trainer.train()
        model = trained_model(trainer)
        if self.plain is not None:
            self.plain()
        first = trainer.is_world_process_zero()
        if self.options.fsdp:
            log.info("each process held %d of %d weights", *held(model))
            with self._merging():
                weights = whole_weights(model)
                if first:
                    model = self._whole_model(weights)
        trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
        if first and not all(bool(tensor.isfinite().all()) for tensor in trained):
            raise self._diverged(trainer.state.global_step, "a weight was not finite")
        stats = TrainStats(
            rows=len(rows),
            steps=trainer.state.global_step,
            first_loss=self.losses[0],
            last_loss=self.losses[-1],
            tokens=round(trainer.state.epoch * sum(len(row.ids) for both in rows for row in both)),
            answer_tokens=round(trainer.state.epoch * sum(len(row.answer) for both in rows for row in both)),
            micro_batch=micro,
            parameters=sum(tensor.numel() for tensor in trained),
        )
        if first:
            with _writing(self.out), self._merging():
                self._write(model, rows[0][0])
        return stats

    def _whole_model(self, weights: dict[str, Any]) -> Any:
        """A model of the start's that has these weights, trained as this one's are."""
        model, _ = self._load(self.name)
        if self.options.method == "full" or self.compute == "float32":
            model.float()
        if self.options.method == "lora":
            model = adapted(model, self.options)
        model.load_state_dict(weights)
        return model.eval()

    def _targets(self, rows: Sequence[TrainingRow], micro: int) -> Targets:
        """What the teacher says after demonstrations, as the loss wants it."""
        if self.options.loss == "sft" or self.options.teach is None:
            return None
        from isara.training.teacher import targets

        teacher = self.model if self.options.taught_by is None else self._teacher(self.options.taught_by)
        if not self.options.load_in_4bit:  # which is in its place, and may not be moved
            teacher.to(self.device)
        return targets(teacher, rows, self.renderer, self.options.teach, micro)

    def _teacher(self, name: str) -> Any:
        """Another model than the start, which computes as that one does."""
        model, _ = self._load(find_model(name))
        if self.options.load_in_4bit:
            return model
        if self.plain is not None:
            from isara.training.products import multiply_in_bfloat16

            multiply_in_bfloat16(model)
        elif self.compute == "float32":
            model.float()
        return model

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
            if self.options.load_in_4bit:  # whose own weights would be rounded once more
                model = self._on_whole_weights(folder)
            model = model.merge_and_unload(safe_merge=True)
            self.export.cast(model)
            record_merge(folder, row.pair.id, before, _logits(model, row))
        self.export.write(model, self.out)

    def _on_whole_weights(self, adapter: Path) -> Any:
        """The adapter on the start as it is in its files, on the CPU."""
        model, _ = load_model(self.name, "auto", self.options.trust_remote_code)
        check_finite(model, self.name)
        self.export = self._export(model)
        return with_adapter(model, adapter)

    @contextmanager
    def _merging(self) -> Iterator[None]:
        """Tells memory that runs out after the last step from that of a step, of which fewer rows are tried."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            beside = ", with its whole weights beside those of 4 bits" if self.options.load_in_4bit else ""
            raise TrainingError(
                f"memory is too small to merge and write what was trained from {self.name!r}{beside}: train on a "
                "machine with more memory, or take a smaller model"
            ) from None

    def _load(self, name: str) -> tuple[Any, Any]:
        """A model and its tokenizer, with whole weights on the CPU, or in 4 bits where it computes."""
        trust = self.options.trust_remote_code
        if self.options.load_in_4bit:
            return load_in_4bit(name, self.device, compute_in_4bit(self.options.dtype, self.device), trust)
        return load_model(name, "auto", trust)

    def _export(self, model: Any) -> Export:
        """What the new model takes over from the start."""
        return Export(self.name, model, self.tokenizer, self.renderer, self.options.trust_remote_code)


def held_at_once(longest: int, micro: int, accumulation: int) -> tuple[int, int]:
    """Rows of a forward pass and passes of a step, halved and doubled until a pass holds at most MOST_TOKENS.

    A system without memory ends a process and raises nothing to be caught, and rows with demonstrations are long.

    Args:
        longest: Tokens of the longest row.
        micro: Rows of a pass.
        accumulation: Passes of a step.
    """
    while micro % 2 == 0 and micro * longest > MOST_TOKENS:
        micro, accumulation = micro // 2, accumulation * 2
    return micro, accumulation


def _packs_safely(model: Any, rows: Sequence[TrainingRow]) -> bool:
    """Whether a row's logits stay the same when another row is put before it, as in a packed sequence.

    Attention must see from the position ids where a row begins. Whether it does depends on the architecture, the
    attention implementation and the version of transformers, so it is measured.
    """
    import torch

    first, second = rows[0].ids, rows[-1].ids
    both = torch.tensor([first + second], device=model.device)

    def logits(ids: torch.Tensor, positions: list[int]) -> Any:
        places = torch.tensor([positions], device=model.device)
        found = model(input_ids=ids, position_ids=places, use_cache=False).logits
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' bars, warnings and telemetry; bars and warnings come back afterwards."""
    import datasets
    from huggingface_hub import constants
    from transformers.utils import logging as transformers_logging

    constants.HF_HUB_DISABLE_TELEMETRY = True  # read at every call, the environment only at import
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    bar = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"  # the one way to TRL's own bar
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
        if bar is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = bar
        if bars[0]:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
        if bars[1]:
            datasets.enable_progress_bars()
