"""`isara models`: which models are at hand, and whether one reads demonstrations."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.cli.options import say

if TYPE_CHECKING:
    from isara.asking import Asker
    from isara.packaged import Packaged
    from isara.records import QAPair
    from isara.render import Renderer
    from isara.sizes import Size

app = typer.Typer(help="Models: list those at hand, and check one.", no_args_is_help=True)

DEMONSTRATIONS = (1, 2, 4, 8)
# Enough for a figure to two digits; with eight demonstrations each, more would take a small machine minutes.
MOST_PAIRS = 24
_CHANCE = 0.05  # a smaller p-value is no chance


@app.command("list")
def list_models() -> None:
    """Models that are embedded, installed, converted or known, with what they take and how to get them."""
    from isara.converted import card_value
    from isara.models import embedded_model
    from isara.packaged import PACKAGED
    from isara.sizes import Size, folder_size

    folder = embedded_model()
    _show("embedded", folder_size(folder), "base", card_value(folder, "license"), "comes with this package")
    for model in PACKAGED:
        size = Size(model.parameters, model.linear, model.bytes + 2 * model.parameters)
        _show(model.name, size, model.kind, model.licence, _state(model))
    for folder in _others():
        if damage := _damage(folder):
            say(f"{folder}: {damage}")
            continue
        state = f"converted from {card_value(folder, 'base_model') or 'a file'}"
        kind = "chat" if (folder / "chat_template.jinja").is_file() else "base"
        _show(str(folder), folder_size(folder), kind, card_value(folder, "license"), state)
    say(
        "`model:` also takes a folder, a .gguf file, an adapter's folder, or a name on the hub. Memory is that of "
        "weights (2 bytes each in the 16 bits that this machine is fast in, 4 in float32; trained ones are in float32) "
        "and optimiser (16 a trained weight) alone: activations and caches come on top; `isara run --dry-run` "
        "estimates a run."
    )


@app.command("check")
def check_model(
    model: Annotated[str, typer.Argument(help="A model's name, folder or .gguf file.")],
    seeds: Annotated[
        str | None, typer.Option(help="Pairs to measure on; by default the examples that `isara init` writes.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
) -> None:
    """Load a model, show its format and context, and measure whether it reads demonstrations.

    Each pair's answer is measured in bits per byte after its nearest neighbours among the other pairs. Pairs that don't
    fit the model's context are left out.
    """
    from isara.asking import Asker
    from isara.engines.transformers.engine import TransformersEngine
    from isara.models import find_model
    from isara.render import open_renderer

    given = _pairs(seeds)
    begun = time.perf_counter()
    found = find_model(model)
    renderer = open_renderer(found, "auto", trust_remote_code)
    say(f"{model} is {found}")
    say(_format(renderer))
    pairs = _fitting(given, renderer)
    if len(pairs) < len(given):
        say(f"left out {len(given) - len(pairs)} of {len(given)} pairs, which are longer than this context")
    engine = TransformersEngine(found, trust_remote_code=trust_remote_code)
    with Asker(lambda _: engine, found, renderer) as asker:
        prompt = renderer.answer((), pairs[0])
        asker.logprobs([prompt], [renderer.answer_ids(prompt, pairs[0].answer)])
        say(f"loads and computes in {time.perf_counter() - begun:.1f} s, in {str(engine.dtype)[6:]}")
        for line in demonstrated(answer_bits(asker, pairs), sum(len(pair.answer.encode()) for pair in pairs)):
            say(line)


def answer_bits(asker: "Asker", pairs: "Sequence[QAPair]") -> dict[int, list[float]]:
    """Bits of each pair's answer by the number of demonstrations, which are the nearest other pairs.

    A number that doesn't fit the context beside every pair is left out.
    """
    from isara.embedders import find_embedder
    from isara.evaluate.domain import HeldoutEvaluator
    from isara.pool import Pool

    pool = Pool(find_embedder("lexical"), pairs)
    found: dict[int, list[float]] = {}
    for count in DEMONSTRATIONS:
        if count < len(pairs):
            items = HeldoutEvaluator(pairs, pool, count).items(asker)
            found[0] = [item.bits for item in items]
            if all(len(item.demo_ids) == count for item in items):
                found[count] = [item.bits_demos for item in items]
    return found


def demonstrated(bits: dict[int, list[float]], size: int) -> Iterator[str]:
    """What is to be read off the bits of the answers, which have `size` bytes together, in lines."""
    from isara.statistics import holm, paired_difference

    answers, totals = len(bits[0]), {count: sum(each) for count, each in sorted(bits.items())}
    yield f"bits per byte of {answers} answers, by the number of demonstrations (lower is better):"
    yield "  " + "   ".join(f"{count}: {total / size:.3f}" for count, total in totals.items())
    counts = [count for count in totals if count]
    if not counts:
        yield (
            "whether it reads demonstrations can't be told: beside these pairs its context has no room for one; name "
            "shorter ones with --seeds"
        )
        return
    least = min(counts, key=totals.__getitem__)
    gain = 1 - totals[least] / totals[0]
    # The best of several counts is chosen after the fact, so the p-values are those of several looks.
    chances = holm([paired_difference(bits[0], bits[count]).p_value for count in counts])
    if gain <= 0:
        yield "it does not read demonstrations: the answers cost no less with them, so the method has nothing to go on"
    elif chances[counts.index(least)] < _CHANCE:
        yield f"it reads demonstrations: {least} of them save {gain:.0%}"
    else:
        yield (
            f"whether it reads demonstrations can't be told from {answers} answers: {least} of them save {gain:.1%}, "
            "which may be chance; name more pairs with --seeds"
        )


def _show(name: str, size: "Size", kind: str, licence: str | None, state: str) -> None:
    from isara.config import TrainConfig
    from isara.hardware import find_device, find_dtype
    from isara.loading import training_memory
    from isara.sizes import settings_for, shown_count
    from isara.training.compute import weight_bytes

    rank = TrainConfig.model_fields["lora_r"].default
    lora, full = (
        training_memory(size.weights, trained, weight_bytes(method, "auto", "auto", size.weights))
        for method, trained in (("lora", rank * size.linear), ("full", size.weights))
    )
    say(f"{name}: {shown_count(size.weights)} parameters, {kind}, licence {licence or 'unknown'}; {state}")
    generating = size.weights * find_dtype("auto", find_device("auto")).itemsize
    say(
        f"  disk {_bytes(size.disk)}, memory {_bytes(generating)} to generate, {_bytes(lora)} to train an adapter of "
        f"rank {rank}, {_bytes(full)} to train all weights"
    )
    rule = settings_for(size.weights)
    say(
        f"  settings of this size: {rule.method}, learning rate {rule.learning_rate:g}, {rule.num_train_epochs:g} "
        f"epochs, temperature {rule.question_temperature:g} for questions and {rule.answer_temperature:g} for answers, "
        f"made by the {'reader' if rule.asks_and_answers == 'reader' else 'last model'}"
    )


def _state(model: "Packaged") -> str:
    from isara.converted import cache_folder
    from isara.gguf import key
    from isara.packaged import is_converted, is_installed

    if is_converted(model):
        folder = cache_folder() / key(model.sha256)
        if damage := _damage(folder):
            return f"{folder} is {damage}"
        return "installed and converted" if is_installed(model) else "converted"
    return "installed, converted when first used" if is_installed(model) else f"to be had with `{model.install}`"


def _damage(folder: Path) -> str | None:
    """What to say of a folder in the cache that can't be loaded, as far as that shows without loading it."""
    from isara.errors import ModelError
    from isara.loading import again, check_folder
    from isara.sizes import folder_size

    try:
        check_folder(folder)
        folder_size(folder)
    except ModelError:
        return f"damaged: {again(folder, 'copy it again')}"
    return None


def _others() -> list[Path]:
    """Folders in the cache that are no packaged model's: of a user's own GGUF files and adapters."""
    from isara.converted import cache_folder
    from isara.gguf import key
    from isara.packaged import PACKAGED

    known = {key(model.sha256) for model in PACKAGED}
    folders = sorted(cache_folder().iterdir()) if cache_folder().is_dir() else []
    return [
        folder
        for folder in folders
        if (folder / "config.json").is_file() and folder.suffix != ".tmp" and folder.name not in known
    ]


def _pairs(seeds: str | None) -> "list[QAPair]":
    from isara.data import read_pairs
    from isara.errors import SeedError
    from isara.scaffold import EXAMPLES

    pairs = read_pairs(seeds)[:MOST_PAIRS] if seeds else list(EXAMPLES)
    if len(pairs) < 2:
        raise SeedError(
            f"expected at least 2 pairs in {seeds}, one to ask and one to show, found {len(pairs)}: add one"
        )
    return pairs


def _fitting(pairs: "Sequence[QAPair]", renderer: "Renderer") -> "list[QAPair]":
    """The pairs whose question and answer the model can read."""
    from isara.errors import SeedError

    most, found = renderer.context_length, []
    for pair in pairs:
        prompt = renderer.answer((), pair)
        if len(prompt.ids) + len(renderer.answer_ids(prompt, pair.answer)) <= most:
            found.append(pair)
    if len(found) < 2:
        raise SeedError(
            f"expected at least 2 pairs that fit the model's context of {most:,} tokens, one to ask and one to show, "
            f"found {len(found)} of {len(pairs)}: name a file of shorter ones with --seeds"
        )
    return found


def _format(renderer: "Renderer") -> str:
    fmt = renderer.format
    shown = f"{fmt.start}{fmt.lead}…{fmt.to_answer}{fmt.lead}…{fmt.end}"
    return f"format {fmt.name}: {shown!r}; context {renderer.context_length:,} tokens"


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
