"""What a run will take in tokens, time and memory, from what a few rows took just now; and the dry run."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isara.asking import Asker
from isara.build import build_trainer
from isara.build.engines import in_child
from isara.evaluate.run import RunEvaluator
from isara.hardware import find_device, find_dtype, peak_memory, reset_peak_memory
from isara.loading import meta_model, training_memory
from isara.parts import Parts
from isara.pool import Pool, retriever
from isara.preview import Preview, preview
from isara.records import CHECKER, QUESTIONER, READER, SEEDS_ONLY, Draw, Prompt, QAPair, Sampling
from isara.report.terminal import plain
from isara.stages import EXAMPLES, has_baseline, has_measured_reader
from isara.temporary import temporary_folder
from isara.training.compute import compute_in_4bit, training_device, weight_bytes
from isara.training.quantized import BYTES_A_WEIGHT as BYTES_IN_4BIT
from isara.watching import Silent, StageName

ROWS = 8
_STEPS = 8  # decoding steps that are timed
_TRAINED = 3  # optimiser steps that are made, of which the first is warm-up and not counted
_MEASURED = 8  # held-out pairs whose prompts are counted
# Of the share that passes: as if four rows had been seen before, two of which passed. Eight rows alone say little.
_SEEN, _PASSED = 4, 2
# Of what passes all other filters, what a model tuned on the seeds agrees with: 55 % on the shop with the embedded
# model, 44 % with Gemma-3-270m, 29 % on the lending shed.
_AGREED = 0.4


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured on this machine with this model.

    Attributes:
        reading: Tokens of prompts a second.
        step: Seconds of a decoding step, whatever its rows.
        row: Seconds that each row adds to a step.
        training_step: Seconds of an optimiser step; nan where nothing is trained.
        training: Seconds of a training beside its steps: loading, checking, writing.
        demos: Demonstrations before each of the rows that were trained on.
        generating_peak: Most bytes that this process had while it generated; 0 where another one did, or nobody tells.
        training_peak: The same while it trained.
    """

    reading: float
    step: float
    row: float
    training_step: float
    training: float
    demos: int = 0
    generating_peak: int = 0
    training_peak: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """What all of a run's stages of one kind take.

    Attributes:
        name: Which.
        tokens: Generated, trained on, or read.
        seconds: Of all of them.
        memory: Bytes of weights, caches and optimiser; 0 where another stage says it.
        resident: Whether it is all that the process is to have, as it was measured.
    """

    name: str
    tokens: float
    seconds: float
    memory: int = 0
    resident: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage of a run takes.

    Attributes:
        name: Which.
        number: The iteration, or of a training beside them (SEEDS_ONLY, READER, QUESTIONER, CHECKER).
        tokens: Generated, trained on, or read.
        seconds: Of it.
        steps: Optimiser steps of a fine-tuning.
    """

    name: StageName
    number: int
    tokens: float
    seconds: float
    steps: int = 0


def measure(parts: Parts, asker: Asker) -> Rates:
    """How fast the base model reads, decodes and is trained, on the run's own prompts and seeds.

    A first call of each kind warms up and is not timed.
    """
    reset_peak_memory()
    prompt = _question_prompt(parts, asker)
    batch = parts.config.generate.batch
    wide = _step_seconds(asker, _question_prompts(parts, asker))
    narrow = _step_seconds(asker, [prompt]) if batch > 1 else wide
    row = max(0.0, (wide - narrow) / max(1, batch - 1))
    shown = _evaluated(parts, asker)[:_MEASURED] or [(prompt, asker.renderer.answer_ids(prompt, "Yes."))]
    if parts.measured_by:
        asker.close()  # what is open holds memory
    with parts.measurer(parts.model) if parts.measured_by else nullcontext(asker) as reader:
        reader.logprobs(*zip(*shown[:1], strict=True))
        seconds = _seconds(lambda: reader.logprobs([head for head, _ in shown], [tail for _, tail in shown]))
    reading = sum(len(head.ids) + len(tail) for head, tail in shown) / seconds
    generating_peak = _peak(parts.config.engine.kind == "transformers" and parts.config.engine.workers == 1, parts)
    asker.close()
    reset_peak_memory()
    training = _training(parts)
    training_peak = _peak(parts.config.train.launcher is None, parts)
    demos = parts.config.train.demos
    return Rates(reading, max(0.0, wide - batch * row), row, *training, demos, generating_peak, training_peak)


def _peak(here: bool, parts: Parts) -> int:
    """The most bytes that this process had since the peak was reset; 0 where the work was another's, or a GPU's."""
    own = here and not in_child(parts.config) and find_device(parts.config.engine.device) == "cpu"
    return peak_memory() or 0 if own else 0


def estimate(parts: Parts, asker: Asker, seen: Preview, rates: Rates) -> list[Stage]:
    """Generation, training and evaluation of the whole run, if no iteration stops it early."""
    steps = run_steps(parts, asker, seen, rates)
    peaks = {"generate": rates.generating_peak, "train": rates.training_peak}
    stages = []
    for name, kinds in (("generate", {"generate"}), ("train", {"train", "prefer"}), ("evaluate", {"evaluate"})):
        if own := [step for step in steps if step.name in kinds]:
            tokens, seconds = sum(step.tokens for step in own), sum(step.seconds for step in own)
            memory = 0
            if name == "generate":
                memory = _generating_memory(parts, asker, seen, rates.generating_peak)
            elif name == "train":
                memory = max(_training_memory(parts), rates.training_peak)
            stages.append(Stage(name, tokens, seconds, memory, bool(peaks.get(name))))
    return stages


def run_steps(parts: Parts, asker: Asker, seen: Preview, rates: Rates) -> list[Step]:
    """Every stage of the run, if no iteration stops it early."""
    last, measured = parts.config.iterations, _evaluations(parts, asker, seen, rates)
    if not last:
        return measured
    one = _generation(parts, asker, seen, rates)
    made = [replace(one, number=t) for t in range(1, last + 1)] if parts.config.generate.accept else []
    return [*made, *_trainings(parts, seen, rates), *_preferences(parts, seen, rates), *measured]


def show(stages: Sequence[Stage], parts: Parts, seen: Preview) -> RenderableType:
    """The estimate as a table, and what it rests on."""
    many = "iteration" if parts.config.iterations == 1 else "iterations"
    table = Table(title=f"Estimate for {parts.config.iterations} {many}", title_justify="left")
    for name in ("stage", "tokens", "tokens/s", "time", "memory"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in stages:
        speed = stage.tokens / stage.seconds if stage.seconds else 0.0
        memory = _size(stage.memory) if stage.memory else ""
        table.add_row(stage.name, f"{stage.tokens:,.0f}", f"{speed:,.0f}", in_units(stage.seconds), memory)
    held = [stage for stage in stages if stage.memory]
    what = ("resident" if all(stage.resident for stage in held) else "beside activations") if held else ""
    table.add_row("all", "", "", in_units(sum(stage.seconds for stage in stages)), what)
    checked = (
        f" (of those that pass else, the check by the model tuned on the seeds, filters.agreement, is taken to pass "
        f"{_AGREED:.0%})"
        if seen.unchecked
        else ""
    )
    note = (
        f"Speeds were measured just now. {seen.accepted} of {len(seen.candidates)} rows passed; it "
        f"counts on {_passing(seen):.0%} of the candidates{checked} and on texts as long as these; more --rows make it "
        "surer. A run that stops early takes less."
    )
    return Group(table, Text(note))


def dry_run(parts: Parts) -> RenderableType:
    """The first prompts of the run and an estimate of it; nothing is written.

    Raises:
        IsaraError: What the run itself would stop with: seeds, model or config that don't work.
    """
    with parts.asker(parts.model) as asker:
        prompts = _first_prompts(parts, asker)
        seen = preview(parts, asker, ROWS)
        rates = measure(parts, asker)
        stages = estimate(parts, asker, seen, rates)
    titles = ("First prompt for a question", "A prompt for an answer")
    panels = [
        Panel(plain(prompt.text), title=f"{title} ({len(prompt.ids)} tokens)", title_align="left")
        for title, prompt in zip(titles, prompts, strict=False)
    ]
    return Group(*panels, show(stages, parts, seen))


def _first_prompts(parts: Parts, asker: Asker) -> list[Prompt]:
    answers = parts.config.answers
    retrieve = retriever(Pool(parts.embedder, parts.seeds), answers.retrieve, answers.demos, parts.config.seed)
    first = _question_prompt(parts, asker)
    reply = asker.prompt(parts.seeds[0], asker.room(answers.sampling, "answers"), retrieve(parts.seeds[0]))
    return [first, *([reply[0]] if reply else [])]


def _question_prompt(parts: Parts, asker: Asker, first: int = 0) -> Prompt:
    """A prompt for a question, whose demonstrations are the seeds from so far on, round and round."""
    questions = parts.config.questions
    room = asker.room(questions.sampling, "questions")
    turned = [*parts.seeds[first:], *parts.seeds[:first]]
    found = asker.renderer.fit(asker.renderer.question, turned[: questions.demos], room)
    assert found is not None, "a prompt without demonstrations is shorter than the least room"
    return found[0]


def _question_prompts(parts: Parts, asker: Asker) -> list[Prompt]:
    """A batch of prompts, as many of them equal as a run has: engines make rows of one prompt in another way."""
    batch, repeated = parts.config.generate.batch, parts.config.questions.per_prompt
    turns = range(min(math.ceil(batch / repeated), len(parts.seeds)))
    different = [_question_prompt(parts, asker, first) for first in turns]
    return [different[row // repeated % len(different)] for row in range(batch)]


def _step_seconds(asker: Asker, prompts: Sequence[Prompt]) -> float:
    """Seconds of a decoding step of these rows; the time to read their prompts is taken off."""
    seeds = range(len(prompts))
    short, long = Sampling(1.0, 0.95, 2), Sampling(1.0, 0.95, 2 + _STEPS)
    asker.generate(prompts, short, seeds)
    begun = _seconds(lambda: asker.generate(prompts, short, seeds))
    return max(1e-6, _seconds(lambda: asker.generate(prompts, long, seeds)) - begun) / _STEPS


def _evaluated(parts: Parts, asker: Asker) -> list[tuple[Prompt, tuple[int, ...]]]:
    """Some held-out prompts with demonstrations and their answers; of the seeds where nothing is held out."""
    pairs = (parts.heldout or parts.seeds)[:_MEASURED]
    demos = parts.config.evaluate.demos
    retrieve = retriever(Pool(parts.embedder, parts.seeds), "nearest" if demos else "none", demos, 0)
    room = asker.room(parts.config.answers.sampling, "answers")
    found = [(pair, asker.prompt(pair, room, retrieve(pair))) for pair in pairs]
    return [(each[0], asker.renderer.answer_ids(each[0], pair.answer)) for pair, each in found if each]


def _training(parts: Parts) -> tuple[float, float]:
    """Seconds of an optimiser step, and of a training beside its steps: a few are made, and thrown away."""
    train = parts.config.train
    if not parts.config.iterations:
        return math.nan, math.nan
    clock = _StepClock()
    short = parts.config.model_copy(update={"train": train.model_copy(update={"max_steps": _TRAINED})})
    begun = time.perf_counter()
    with temporary_folder() as folder:
        pool = Pool(parts.embedder, parts.seeds)
        build_trainer(short, clock, pool).fit(parts.seeds, parts.model, Path(folder) / "model")
        whole = time.perf_counter() - begun
    step = (clock.times[-1] - clock.times[0]) / max(1, len(clock.times) - 1)
    return step, max(0.0, whole - step * len(clock.times))


class _StepClock(Silent):
    """Notes when each optimiser step was made."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, step: int, total: int, loss: float) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())


def _generation(parts: Parts, asker: Asker, seen: Preview, rates: Rates) -> Step:
    """Of one iteration."""
    config, options = parts.config, parts.config.generate
    # The last batch is only a little larger than what it takes.
    batches = 1.05 * options.accept / _passing(seen) / options.batch
    questions = [each.question for each in seen.candidates]
    answers = [draw for draws in _answered(seen) for draw in draws]
    # Prompts that are asked several times are read once.
    read: float = math.ceil(options.batch / config.questions.per_prompt) * len(_question_prompt(parts, asker).ids)
    answered = options.batch * len(answers) / max(1, len(seen.candidates))
    read += answered * _mean(asker.renderer.count([draw.prompt for draw in answers]))
    generated = options.batch * _mean([draw.tokens for draw in questions]) + answered * _mean(_tokens(answers))
    steps = _longest(questions, config.questions.max_new_tokens) + _longest(answers, config.answers.max_new_tokens)
    if config.filters.least_agreement:
        # Where the rows were made without second answers, these are as the first ones, but for their prompts.
        second = [each.second for each in seen.candidates if each.second] or [draws[0] for draws in _answered(seen)]
        again = options.batch * len(second) / max(1, len(seen.candidates))
        read += again * _mean(asker.renderer.count([draw.prompt for draw in second]))
        generated += again * _mean(_tokens(second))
        steps += _longest(second, config.answers.max_new_tokens)
    seconds = read / rates.reading + steps * rates.step + generated * rates.row
    return Step("generate", 0, batches * generated, batches * seconds)


def _generating_memory(parts: Parts, asker: Asker, seen: Preview, peak: int) -> int:
    """Bytes of the models that are open at once, and of the cache of one.

    Args:
        parts: What the run is made of.
        asker: The base model.
        seen: Rows as they came out.
        peak: What one model had, with prompts in its cache and nothing written; 0 where that is not known.
    """
    config = parts.config
    weights, *_ = _weights(parts)
    itemsize = find_dtype(config.engine.dtype, find_device(config.engine.device)).itemsize
    prompt = _mean(asker.renderer.count([draw.prompt for each in seen.candidates for draw in each.answers]))
    cache = config.generate.batch * (prompt + config.answers.max_new_tokens) * _token_bytes(parts, itemsize)
    asks_too = parts.reader is not None and config.questions.from_ != "reader" and parts.questioner is None
    models = 1 + asks_too + (parts.questioner is not None) + (parts.checker_steps is not None)
    found = round(models * weights * itemsize + cache)
    written = config.generate.batch * config.answers.max_new_tokens * _token_bytes(parts, itemsize)
    return max(found, peak + round((models - 1) * weights * itemsize + written)) if peak else found


def _answered(seen: Preview) -> list[Sequence[Draw]]:
    """The answers of each row that has any."""
    return [each.answers for each in seen.candidates if each.answers]


def _token_bytes(parts: Parts, itemsize: int) -> int:
    """Bytes that one token has in the cache of the model's keys and values."""
    from isara.engines.transformers.cache import token_bytes

    config = meta_model(parts.model, parts.config.engine.trust_remote_code).config.get_text_config()
    # An engine of one's own may run what keeps no keys and values.
    return token_bytes(config, itemsize) if hasattr(config, "num_attention_heads") else 0


def _trainings(parts: Parts, seen: Preview, rates: Rates) -> list[Step]:
    """Of each iteration, of the seeds-only model, and of those who ask, answer or check."""
    config, train, known = parts.config, parts.config.train, len(parts.seeds)
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps
    grown = [1 if train.data == "newest" else t for t in range(1, config.iterations + 1)]
    if config.prefer.method == "spin":  # which is fine-tuned once
        grown = grown[:1]
    seeds = _row_tokens(parts, parts.seeds)
    made = _row_tokens(parts, [each.pair for each in seen.candidates if each.rejection is None]) or seeds
    fits: list[tuple[int, int, float]] = []  # which, its steps, and tokens of a row
    for number, times in enumerate(grown, 1):
        old, new = 0 if train.data == "generated" else known, config.generate.accept * times
        fits.append((number, train.steps(old + new), (old * seeds + new * made) / max(1, old + new)))
    if fits and has_baseline(parts):  # which is who checks, too
        fits.append((SEEDS_ONLY, fits[0][1], seeds))
    elif parts.checker_steps:
        fits.append((CHECKER, parts.checker_steps, seeds))
    demos, answers = {READER: config.answers.demos, QUESTIONER: config.answers.demos}, config.answers
    steps = math.ceil(answers.reader_epochs * math.ceil(known / size))
    for number, trainer in ((READER, parts.reader), (QUESTIONER, parts.questioner)):
        if trainer is not None:
            fits.append((number, steps, seeds))
    found = []
    for number, steps, mean in fits:
        width = 1 + demos.get(number, train.demos)  # rows beside each other in a prompt
        # The timed steps were of seeds.
        seconds = rates.training + steps * rates.training_step * mean / seeds * width / (1 + rates.demos)
        if train.loss == "distil" and number > 0:  # the teacher reads each row after its demonstrations
            seconds += steps * size / max(1, train.num_train_epochs or 1) * mean * (1 + answers.demos) / rates.reading
        found.append(Step("train", number, steps * size * mean * width, seconds, steps))
    return found


def _training_memory(parts: Parts) -> int:
    config = parts.config
    weights, trained, products = _weights(parts)
    itemsize: float = weight_bytes(config.train.method or "lora", config.engine.dtype, config.engine.device, weights)
    if config.train.load_in_4bit:
        itemsize = 4 if compute_in_4bit(config.engine.dtype, training_device(config.engine.device)) == "float32" else 2
        itemsize -= products / weights * (itemsize - BYTES_IN_4BIT)
    return training_memory(weights, trained, itemsize) // (config.train.processes if config.train.fsdp else 1)


def _preferences(parts: Parts, seen: Preview, rates: Rates) -> list[Step]:
    """The preference steps: own answers, and training on two answers a row."""
    config, train = parts.config, parts.config.train
    if parts.preference is None:
        return []
    spin, last = config.prefer.method == "spin", config.iterations
    rows = len(parts.seeds) if spin else config.generate.accept
    answers = [draw for each in seen.candidates for draw in each.answers]
    written = _mean(_tokens(answers)) or config.answers.max_new_tokens
    decoded = math.ceil(rows / config.generate.batch) * _longest(answers, config.answers.max_new_tokens)
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps
    found = []
    for t in range(1, last + 1):
        times = min(2, t) if spin else 1 if train.data == "newest" else t
        steps = math.ceil(config.prefer.num_train_epochs * math.ceil(rows * times / size))
        seconds = decoded * rates.step + rows * written * rates.row + rates.training + 2 * steps * rates.training_step
        found.append(Step("prefer", t, 2 * steps * size * _row_tokens(parts, parts.seeds), seconds, steps))
    return found


def _evaluations(parts: Parts, asker: Asker, seen: Preview, rates: Rates) -> list[Step]:
    """Of base, iterations, seeds-only model and reader; an evaluator of the user's own is not counted."""
    evaluator, numbers = parts.evaluator, [*range(parts.config.iterations + 1)]
    if has_baseline(parts) and parts.config.iterations:
        numbers.append(SEEDS_ONLY)
    if has_measured_reader(parts) and parts.config.iterations:
        numbers.append(READER)
    examples = min(EXAMPLES, len(parts.heldout))
    shown = answering(parts, asker, seen, rates, examples, 1)
    found = []
    for number in numbers:
        read, calls = 0, list[int]()
        if isinstance(evaluator, RunEvaluator):
            read, calls = evaluator.work_shown(asker) if number == READER else evaluator.work(asker, number == 0)
        # The prompts of answers are in what it reads.
        written = answering(parts, asker, seen, rates, sum(calls), sum(map(bool, calls)), None)
        tokens, seconds = read + written.tokens, read / rates.reading + written.seconds
        if number != READER:
            tokens, seconds = tokens + shown.tokens, seconds + shown.seconds
        found.append(Step("evaluate", number, tokens, seconds))
    return found


def answering(
    parts: Parts, asker: Asker, seen: Preview, rates: Rates, count: int, calls: int, demos: int | None = 0
) -> Step:
    """So many held-out questions, answered greedily.

    Args:
        parts: Whose prompts they are.
        asker: The base model.
        seen: Rows as long as their answers.
        rates: How fast the model is.
        count: How many questions.
        calls: How often the engine is asked.
        demos: Pairs shown before each; None leaves the reading of prompts out.
    """
    limit = parts.config.answers.max_new_tokens
    length = _mean(_tokens(draw for each in seen.candidates for draw in each.answers)) or limit
    read = 0.0
    if demos is not None:
        alone = _mean([len(asker.renderer.answer((), pair).ids) for pair in parts.heldout[:EXAMPLES]])
        read = count * (alone + demos * _row_tokens(parts, parts.seeds))
    # Of many answers one runs into the limit.
    seconds = read / rates.reading + (calls * limit * rates.step if count else 0.0) + count * length * rates.row
    return Step("evaluate", 0, read + count * length, seconds)


def _passing(seen: Preview) -> float:
    """The share of candidates that will pass, by the rows that were seen."""
    share = (seen.accepted + _PASSED) / (len(seen.candidates) + _SEEN)
    return share * _AGREED if seen.unchecked else share


def _longest(draws: Sequence[Draw], limit: int) -> int:
    """Decoding steps of a whole batch, whose longest text is longer than that of a few rows."""
    longest = max(_tokens(draws), default=0)
    return min(limit, math.ceil(1.25 * longest))


def _tokens(draws: Iterable[Draw]) -> list[int]:
    return [draw.tokens for draw in draws]


def _row_tokens(parts: Parts, pairs: Sequence[QAPair]) -> float:
    return _mean([len(row.ids) for pair in pairs for row in parts.renderer.training_rows(pair)])


def _weights(parts: Parts) -> tuple[int, int, int]:
    """(all weights, trained weights, weights of linear layers but the head), counted without loading the model."""
    import torch

    model = meta_model(parts.model, parts.config.engine.trust_remote_code)
    total = sum(weight.numel() for weight in model.parameters())
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    products = sum(layer.weight.numel() for layer in linear)
    if parts.config.train.method == "full":
        return total, total, products
    adapted = sum(layer.in_features + layer.out_features for layer in linear)
    return total, parts.config.train.lora_r * adapted, products


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return max(1e-6, time.perf_counter() - begun)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def in_units(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
