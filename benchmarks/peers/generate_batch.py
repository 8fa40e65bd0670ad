"""transformers' continuous batching, `model.generate_batch`, with a cache of 32,768 tokens.

Its default takes most of the machine's free memory on a CPU: 10 GB went to a model of 135 million weights.
"""

from typing import Any

import torch
from measured import measure, request
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

asked = request()
torch.set_num_threads(asked["threads"])
model: Any = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=getattr(torch, asked["weights"]))
config = GenerationConfig(
    do_sample=True,
    temperature=asked["temperature"],
    top_p=asked["top_p"],
    top_k=0,
    max_new_tokens=asked["new_tokens"],
    eos_token_id=-1,
    pad_token_id=0,
)
PAGE = 256
cache = ContinuousBatchingConfig(page_size=PAGE, num_blocks=2**15 // PAGE, max_batch_tokens=2048)


def work() -> int:
    """Tokens generated."""
    done = model.generate_batch(inputs=asked["prompts"], generation_config=config, continuous_batching_config=cache)
    return sum(len(row.generated_tokens) for row in done.values())


measure(work)
