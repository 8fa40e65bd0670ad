"""vLLM's build for CPUs. Its engine stays in this process, so that its processor seconds are counted."""

import os

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")

from measured import measure, request  # noqa: E402  # the variables are read at import
from vllm import LLM, SamplingParams  # noqa: E402


def main() -> None:
    """Times the request."""
    asked = request()
    longest = max(map(len, asked["prompts"])) + asked["new_tokens"]
    engine = LLM(asked["model"], dtype=asked["weights"], max_model_len=longest + 8, enable_prefix_caching=True)
    sampling = SamplingParams(
        temperature=asked["temperature"], top_p=asked["top_p"], max_tokens=asked["new_tokens"], ignore_eos=True
    )
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    engine.generate(prompts[:1], SamplingParams(max_tokens=2), use_tqdm=False)
    measure(lambda: sum(len(row.outputs[0].token_ids) for row in engine.generate(prompts, sampling, use_tqdm=False)))


if __name__ == "__main__":
    main()
