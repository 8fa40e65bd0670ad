"""ISARA's engine."""

import torch
from measured import measure, request

from isara.engines.transformers.engine import TransformersEngine
from isara.records import Prompt, Sampling

asked = request()
torch.set_num_threads(asked["threads"])
prompts = [Prompt("", tuple(ids)) for ids in asked["prompts"]]
sampling = Sampling(asked["temperature"], asked["top_p"], asked["new_tokens"])
with TransformersEngine(asked["model"], dtype=asked["weights"]) as engine:
    engine.generate(prompts[:1], Sampling(max_new_tokens=2), [0])
    measure(lambda: sum(done.tokens for done in engine.generate(prompts, sampling, range(len(prompts)))))
