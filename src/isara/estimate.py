"""The dry run: the real first prompts, and what the run will take in tokens, time and memory."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isara.asking import Asker
from isara.generate import Making, draw_demonstrations
from isara.hardware import peak_memory, reset_peak_memory
from isara.loading import meta_model, training_memory
from isara.parts import Parts
from isara.pool import Pool, retriever
from isara.records import Prompt, QAPair, Sampling
from isara.report.terminal import plain

# How many candidates pass is known only afterwards; half is what the recipes see.
ASSUMED_YIELD = 0.5

_ROWS = 32  # of the batch that speeds are measured on


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on this machine with this model: tokens per second, and memory."""

    generating: float
    reading: float
    columns: int = 0  # tokens of a prompt and its longest completion
    peak: int = 0  # bytes that this process had resident; 0 where the system doesn't tell


def preview(parts: Parts) -> RenderableType:
    """The first prompts of the run and an estimate of it; nothing is written.

    Raises:
        IsaraError: What the run itself would stop with: seeds, model or config that don't work.
    """
    config, pool = parts.config, Pool(parts.embedder, parts.seeds)
    retrieve = retriever(pool, config.answers.retrieve, config.answers.demos, config.seed)
    making = Making(1, "", pool, retrieve, "", config)
    with parts.asker(parts.model) as asker:
        room = asker.room(config.questions.sampling, "questions")
        first = asker.renderer.fit(asker.renderer.question, draw_demonstrations(making, 0)[0], room)
        reply = asker.prompt(parts.seeds[0], asker.room(config.answers.sampling, "answers"), retrieve(parts.seeds[0]))
        prompts = [found[0] for found in (first, reply) if found is not None]
        speed = _measure(asker, prompts[0], parts.seeds)
    table = _table(parts, speed)
    note = Text(
        f"Assumes that {ASSUMED_YIELD:.0%} of the candidates pass and that texts are as long as the seeds; speeds were "
        "measured just now on a few rows. Loading and evaluation are not counted."
    )
    titles = ("First prompt for a question", "A prompt for an answer")
    shown = zip(titles, prompts, strict=False)
    panels = [
        Panel(plain(prompt.text), title=f"{title} ({len(prompt.ids)} tokens)", title_align="left")
        for title, prompt in shown
    ]
    return Group(*panels, table, note)


def _table(parts: Parts, speed: Speed) -> Table:
    config, options = parts.config, parts.config.generate
    questions = _mean(parts.renderer.count([pair.question for pair in parts.seeds]))
    answers = _mean(parts.renderer.count([pair.answer for pair in parts.seeds]))
    # Whole batches are made, and what passes the question filters is answered, whether it is needed or not.
    candidates = options.batch * math.ceil(options.accept / ASSUMED_YIELD / options.batch)
    generated = candidates * (questions + answers)
    trained = _trained_rows(parts) * (questions + answers)
    # A training step reads every token and goes back over it at about twice the price.
    seconds = (config.iterations * generated / speed.generating, 3 * trained / speed.reading)
    weights, trainable = _weights(parts)
    many = "iteration" if config.iterations == 1 else "iterations"
    table = Table(title=f"Estimate for {config.iterations} {many}", title_justify="left")
    for name in ("stage", "tokens", "tokens/s", "time", "memory"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    itemsize = 4 if config.engine.dtype == "float32" else 2
    more = max(0, options.batch - _ROWS) * speed.columns * _token_bytes(parts, itemsize)
    # Where the engine has a process of its own, this one's peak says nothing of it, and the weights are the least.
    generating = max(speed.peak, weights * itemsize) + more
    training = training_memory(weights, trainable)
    table.add_row(
        "generate",
        f"{config.iterations * generated:,.0f}",
        f"{speed.generating:,.0f}",
        _time(seconds[0]),
        _size(generating),
    )
    table.add_row("train", f"{trained:,.0f}", f"{speed.reading / 3:,.0f}", _time(seconds[1]), _size(training))
    table.add_row("all", "", "", _time(sum(seconds)), "training beside activations")
    return table


def _trained_rows(parts: Parts) -> float:
    """Rows that all trainings see, every epoch counted."""
    config, train = parts.config, parts.config.train
    if train.max_steps:
        rows = train.max_steps * train.per_device_train_batch_size * train.gradient_accumulation_steps
        return float(config.iterations * rows)
    grown = [1 if train.data == "newest" else t for t in range(1, config.iterations + 1)]
    first = 0 if train.data == "generated" else len(parts.seeds)
    return sum(first + config.generate.accept * n for n in grown) * train.num_train_epochs


def _measure(asker: Asker, prompt: Prompt, seeds: Sequence[QAPair]) -> Speed:
    """Times a small batch of the run's own prompts; a first call that is not timed warms up."""
    reset_peak_memory()
    rows = [prompt] * _ROWS
    sampling = asker.with_stops(Sampling(1.0, 0.95, 32), asker.renderer.format.question_stops)
    asker.generate(rows[:1], Sampling(1.0, 0.95, 2), [0])
    begun = time.perf_counter()
    done = asker.generate(rows, sampling, range(_ROWS))
    generating = sum(completion.tokens for completion in done) / (time.perf_counter() - begun)
    shown = [row for pair in seeds[:_ROWS] for row in asker.renderer.training_rows(pair)]
    begun = time.perf_counter()
    asker.logprobs([Prompt("", row.prompt) for row in shown], [row.answer for row in shown])
    reading = sum(len(row.ids) for row in shown) / (time.perf_counter() - begun)
    columns = len(prompt.ids) + sampling.max_new_tokens
    return Speed(generating, reading, columns, peak_memory() or 0)


def _weights(parts: Parts) -> tuple[int, int]:
    """(all weights, trained weights) of the model, counted without loading it."""
    import torch

    model = meta_model(parts.model, parts.config.engine.trust_remote_code)
    total = sum(weight.numel() for weight in model.parameters())
    if parts.config.train.method == "full":
        return total, total
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return total, parts.config.train.lora_r * sum(layer.in_features + layer.out_features for layer in linear)


def _token_bytes(parts: Parts, itemsize: int) -> int:
    """Bytes that one token has in the cache of the model's keys and values."""
    from isara.engines.transformers.cache import token_bytes

    config = meta_model(parts.model, parts.config.engine.trust_remote_code).config.get_text_config()
    # An engine of one's own may run what keeps no keys and values.
    return token_bytes(config, itemsize) if hasattr(config, "num_attention_heads") else 0


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
