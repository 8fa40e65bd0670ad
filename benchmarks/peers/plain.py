"""What a good user writes: `model.generate` in batches of 16 sorted by length, padded on the left."""

from typing import Any

import torch
from measured import measure, request
from transformers import AutoModelForCausalLM

BATCH = 16

asked = request()
torch.set_num_threads(asked["threads"])
model: Any = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=getattr(torch, asked["weights"]))
prompts = sorted(asked["prompts"], key=len)


def work() -> int:
    """Tokens generated."""
    tokens = 0
    torch.manual_seed(0)
    for first in range(0, len(prompts), BATCH):
        rows = prompts[first : first + BATCH]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=asked["temperature"],
            top_p=asked["top_p"],
            top_k=0,
            max_new_tokens=asked["new_tokens"],
            min_new_tokens=asked["new_tokens"],
            pad_token_id=0,
        )
        tokens += (output.shape[1] - width) * len(rows)
    return tokens


model.generate(input_ids=torch.tensor([prompts[0]]), max_new_tokens=2, pad_token_id=0)
measure(work)
