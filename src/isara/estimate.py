"""The dry run: the real first prompts, and what the run will take in tokens, time and memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isara.answer import fitted_prompt, nearest_demos
from isara.build import Parts, build
from isara.config import Config
from isara.data import QAPair
from isara.generate import draw_question_prompts, with_stops
from isara.models import meta_model
from isara.pool import Pool
from isara.prompts import answer_prompt, answer_text
from isara.protocols import Engine, Sampling
from isara.show import plain

# How many candidates pass is known only afterwards; half is what the recipes see.
ASSUMED_YIELD = 0.5
# Adam keeps a gradient, two moments and a master copy in fp32 for each trained weight.
BYTES_A_TRAINED_WEIGHT = 16


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on this machine with this model, in tokens per second."""

    generating: float
    reading: float


def preview(config: Config) -> RenderableType:
    """The first prompts of the run and an estimate of it; nothing is written.

    Raises:
        IsaraError: What the run itself would stop with: seeds, model or config that don't work.
    """
    parts = build(config)
    pool = Pool(parts.embedder, parts.seeds)
    with parts.engine(parts.model) as engine:
        prompts, _ = draw_question_prompts(engine, pool, 1, 0, parts.generation)
        asked = parts.seeds[0].question
        demos = nearest_demos(pool, [asked], parts.generation.answer_demos)[0]
        reply = fitted_prompt(engine, demos, asked, parts.generation.answer_sampling)
        counts = engine.count_tokens([prompts[0], reply])
        speed = _measure(engine, prompts, parts.seeds)
        table = _table(parts, engine, speed)
    note = Text(
        f"Assumes that {ASSUMED_YIELD:.0%} of the candidates pass and that texts are as long as the seeds; speeds were "
        "measured just now on a few rows. Loading and evaluation are not counted."
    )
    return Group(
        Panel(plain(prompts[0]), title=f"First prompt for a question ({counts[0]} tokens)", title_align="left"),
        Panel(plain(reply), title=f"A prompt for an answer ({counts[1]} tokens)", title_align="left"),
        table,
        note,
    )


def _table(parts: Parts, engine: Engine, speed: Speed) -> Table:
    generation, config = parts.generation, parts.config
    questions = _mean(engine.count_tokens([pair.question for pair in parts.seeds]))
    answers = _mean(engine.count_tokens([pair.answer for pair in parts.seeds]))
    candidates = generation.accept / ASSUMED_YIELD
    generated = candidates * questions + generation.accept * answers
    pairs = [len(parts.seeds) + generation.accept * _grown(parts, t) for t in range(1, config.iterations + 1)]
    trained = sum(pairs) * (questions + answers) * config.train.num_train_epochs
    # A training step reads every token and goes back over it at about twice the price.
    seconds = (config.iterations * generated / speed.generating, 3 * trained / speed.reading)
    weights, trainable = _weights(parts)
    table = Table(title=f"Estimate for {config.iterations} iterations", title_justify="left")
    for name in ("stage", "tokens", "tokens/s", "time", "memory"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    generating = weights * 2 if config.engine.dtype != "float32" else weights * 4
    training = weights * 4 + trainable * BYTES_A_TRAINED_WEIGHT
    table.add_row(
        "generate",
        f"{config.iterations * generated:,.0f}",
        f"{speed.generating:,.0f}",
        _time(seconds[0]),
        _size(generating),
    )
    table.add_row("train", f"{trained:,.0f}", f"{speed.reading / 3:,.0f}", _time(seconds[1]), _size(training))
    table.add_row("all", "", "", _time(sum(seconds)), "beside activations and caches")
    return table


def _measure(engine: Engine, prompts: Sequence[str], seeds: Sequence[QAPair]) -> Speed:
    """Times a small batch of the run's own prompts; a first call that is not timed warms up."""
    rows = list(prompts[: min(len(prompts), 32)])
    sampling = with_stops(Sampling(1.0, 0.95, 32), engine.format.question_stops)
    engine.generate(rows[:1], Sampling(1.0, 0.95, 2), [0])
    begun = time.perf_counter()
    done = engine.generate(rows, sampling, range(len(rows)))
    generating = sum(completion.tokens for completion in done) / (time.perf_counter() - begun)
    shown = seeds[:32]
    texts = [answer_prompt(engine.format, (), pair.question) for pair in shown]
    answers = [answer_text(engine.format, pair.answer) for pair in shown]
    begun = time.perf_counter()
    engine.logprobs(texts, answers)
    reading = sum(engine.count_tokens(texts) + engine.count_tokens(answers)) / (time.perf_counter() - begun)
    return Speed(generating, reading)


def _weights(parts: Parts) -> tuple[int, int]:
    """(all weights, trained weights) of the model, counted without loading it."""
    import torch

    model = meta_model(parts.model, parts.config.engine.trust_remote_code)
    total = sum(weight.numel() for weight in model.parameters())
    if parts.config.train.method == "full":
        return total, total
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return total, parts.config.train.lora_r * sum(layer.in_features + layer.out_features for layer in linear)


def _grown(parts: Parts, iteration: int) -> int:
    return iteration if parts.loop.data == "all" else 1


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
