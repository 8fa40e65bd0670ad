"""llama.cpp's server (`xllamacpp`) on a .gguf file: 16 slots, prompts as ids, over HTTP."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp
from measured import measure, request

SLOTS = 16

asked = request()
if asked["weights"] not in asked["ggufs"]:
    sys.exit("llama.cpp needs a .gguf file, which only packaged models have")
params = xllamacpp.CommonParams()
params.model.path = asked["ggufs"][asked["weights"]]
params.n_parallel = SLOTS
longest = max(map(len, asked["prompts"])) + asked["new_tokens"] + 8
params.n_ctx = SLOTS * longest
params.n_batch = params.n_ubatch = 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
params.warmup = False
server = xllamacpp.Server(params)


def complete(ids: list[int], new_tokens: int) -> int:
    """Tokens of one completion."""
    body: dict[str, Any] = {
        "prompt": ids,
        "max_tokens": new_tokens,
        "temperature": asked["temperature"],
        "top_p": asked["top_p"],
        "top_k": 0,
        "min_p": 0.0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    url = f"{server.listening_address}/v1/completions"
    with urlopen(Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})) as reply:
        tokens: int = json.load(reply)["usage"]["completion_tokens"]
        return tokens


def work() -> int:
    """Tokens generated."""
    with ThreadPoolExecutor(SLOTS) as pool:
        return sum(pool.map(complete, asked["prompts"], [asked["new_tokens"]] * len(asked["prompts"])))


complete(asked["prompts"][0], 2)
measure(work)
