"""Tokens per second of the transformers engine against `model.generate`, and whether batching changes any output.

    python benchmarks/engine.py speed --model embedded
    python benchmarks/engine.py check --model embedded

Prompts are those of ISARA: five demonstrations from a recipe and an open question. Without the embedded model, `--model
random` makes a Llama of 6 million parameters with random weights.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from isara.engines.transformers.engine import TransformersEngine
from isara.models import find_model
from isara.records import Completion, Prompt, QAPair, Sampling
from isara.render import open_renderer

SEEDS = Path(__file__).parents[1] / "recipes" / "safety" / "seeds.jsonl"
DEMONSTRATIONS = 5


def random_llama(folder: Path) -> Path:
    """Saves a Llama of 6 million random parameters (256 wide, 6 layers, 4,096 tokens, context 1,024)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([pair.question + " " + pair.answer for pair in pairs()], trainer)
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.1,
        eos_token_id=0,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def pairs() -> list[QAPair]:
    """The seed pairs of the safety recipe."""
    return [QAPair.from_json(json.loads(line)) for line in SEEDS.read_text(encoding="utf-8").splitlines()]


def make_prompts(model: str, count: int) -> list[Prompt]:
    """Answer prompts with random demonstrations, always the same."""
    rng, renderer = random.Random(0), open_renderer(model)
    draws = [rng.sample(pairs(), DEMONSTRATIONS + 1) for _ in range(count)]
    return [renderer.answer(demos, last) for *demos, last in draws]


def ours(model: str, dtype: str, prompts: int, sampling: Sampling, budget: int | None) -> tuple[int, float, float]:
    """Tokens generated, seconds taken, and seconds of processor time."""
    asked = make_prompts(model, prompts)
    with TransformersEngine(model, dtype=dtype, tokens_per_batch=budget) as engine:
        engine.generate(asked[:2], Sampling(max_new_tokens=2), [0, 1])  # first calls pay for what later ones find ready
        start, busy = time.perf_counter(), time.process_time()
        done = engine.generate(asked, sampling, range(len(asked)))
        tokens = sum(completion.tokens for completion in done)
        return tokens, time.perf_counter() - start, time.process_time() - busy


def one_at_a_time(model: str, prompts: int, sampling: Sampling) -> tuple[int, float, float]:
    """The same for `model.generate` in the checkpoint's dtype, prompt by prompt."""
    from transformers import AutoModelForCausalLM

    asked = make_prompts(model, prompts)
    loaded: Any = AutoModelForCausalLM.from_pretrained(find_model(model), dtype="auto")
    tokens = 0
    start, busy = time.perf_counter(), time.process_time()
    for index, prompt in enumerate(asked):
        torch.manual_seed(index)
        ids = torch.tensor([prompt.ids])
        output = loaded.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=0,
        )
        tokens += output.shape[1] - len(prompt.ids)
    return tokens, time.perf_counter() - start, time.process_time() - busy


def speed(options: argparse.Namespace) -> None:
    """Prints a table of tokens per second."""
    sampling = Sampling(options.temperature, options.top_p, options.new_tokens)
    rows = [
        (f"isara, {dtype}", *ours(options.model, dtype, options.prompts, sampling, options.tokens_per_batch))
        for dtype in options.dtypes
    ]
    if not options.no_baseline:
        rows.append(("model.generate, one at a time", *one_at_a_time(options.model, options.prompts, sampling)))
    slowest = rows[-1][1] / rows[-1][2]
    print(f"{'':32}{'tokens':>8}{'seconds':>9}{'processor s':>13}{'tokens/s':>10}{'ratio':>7}")
    for name, tokens, seconds, busy in rows:
        speed = tokens / seconds
        print(f"{name:32}{tokens:8}{seconds:9.1f}{busy:13.1f}{speed:10.0f}{speed / slowest:7.1f}")


def check(options: argparse.Namespace) -> None:
    """Prints for how many prompts the output in the batch is what the prompt gets alone."""
    asked = make_prompts(options.model, options.prompts)
    for dtype in options.dtypes:
        for temperature in (0.0, options.temperature):
            sampling = Sampling(temperature, options.top_p, options.new_tokens)
            with TransformersEngine(options.model, dtype=dtype) as engine:
                together = engine.generate(asked, sampling, range(len(asked)))
                again = engine.generate(asked, sampling, range(len(asked)))
                alone = [engine.generate([prompt], sampling, [seed])[0] for seed, prompt in enumerate(asked)]
            same = sum(one == other for one, other in zip(together, alone, strict=True))
            parted = [_common(one, other) for one, other in zip(together, alone, strict=True) if one != other]
            print(
                f"{dtype}, temperature {temperature:g}: {same} of {len(asked)} prompts as when alone; "
                f"same call again {'equal' if together == again else 'DIFFERENT'}; "
                f"others part after {sorted(parted)[:8]} characters …"
            )


def _common(one: Completion, other: Completion) -> int:
    both = zip(one.text, other.text, strict=False)
    return next((i for i, (a, b) in enumerate(both) if a != b), min(len(one.text), len(other.text)))


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "check"])
    parser.add_argument("--model", default="embedded", help='a folder, a hub name, "embedded" or "random"')
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--tokens-per-batch", type=int)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--no-baseline", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "random":
            options.model = str(random_llama(Path(folder)))
        {"speed": speed, "check": check}[options.what](options)


if __name__ == "__main__":
    main()
