"""The process that holds vLLM: one JSON object a line, requests on stdin, results on stdout, everything else on stderr.

It runs as a file, in whatever environment vLLM is installed in, and knows nothing but vLLM and the standard library.
"""

import json
import os
import queue
import threading
from typing import IO, Any


def main() -> None:
    """Opens the model of the first request and answers the others until stdin closes."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(os.fdopen(0, encoding="utf-8"), requests), daemon=True).start()

    def send(result: Any) -> None:
        messages.write(json.dumps({"result": result}) + "\n")
        messages.flush()

    first = json.loads(requests.get())
    try:
        import vllm
    except ImportError as error:
        send({"missing": str(error)})
        return
    model = vllm.LLM(model=first["model"], **_options(first["options"]))
    send({"version": vllm.__version__, "no_seeds": _no_seeds(model)})
    while True:
        request = json.loads(requests.get())
        send(_ANSWERS[request["method"]](vllm, model, request))


def _listen(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # the parent closed the pipe or is gone: no need to finish what nobody will read


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options, with prompts read whole on a CPU: see `_no_seeds`."""
    return ({"enable_chunked_prefill": False} if _on_cpu() else {}) | given


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.device_type == "cpu")


def _no_seeds(model: Any) -> str | None:
    """Why a request can't have a seed; None where it can.

    Where a prompt is read in parts, vLLM sets a request's generator back after each part but the last, which torch's
    generators of a CPU can't be ("CPU Generator does not use offset"), and the engine would die of it.
    """
    if not _on_cpu() or not model.llm_engine.vllm_config.scheduler_config.enable_chunked_prefill:
        return None
    return "on a CPU prompts can't be read in parts with seeds: leave out `enable_chunked_prefill`"


def _generate(vllm: Any, model: Any, request: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Text, tokens and the reason of the end of each completion."""
    said, prompts = request["sampling"], [{"prompt_token_ids": ids} for ids in request["prompts"]]
    samplings = [
        vllm.SamplingParams(
            temperature=said["temperature"],
            top_p=said["top_p"],
            max_tokens=said["max_new_tokens"],
            stop=said["stop"],
            seed=seed,
            skip_special_tokens=False,  # what comes after one is another text, and the parent cuts there
        )
        for seed in request["seeds"]
    ]
    found = [output.outputs[0] for output in model.generate(prompts, samplings, use_tqdm=False)]
    return [(each.text, len(each.token_ids), each.finish_reason) for each in found]


def _token_logprobs(vllm: Any, model: Any, request: dict[str, Any]) -> list[list[float]]:
    """Natural-log probabilities of the tokens of each continuation."""
    rows = list(zip(request["prompts"], request["continuations"], strict=True))
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    prompts = [{"prompt_token_ids": head + tail} for head, tail in rows]
    outputs = model.generate(prompts, [sampling] * len(prompts), use_tqdm=False)
    return [
        [output.prompt_logprobs[len(head) + place][token].logprob for place, token in enumerate(tail)]
        for output, (head, tail) in zip(outputs, rows, strict=True)
    ]


_ANSWERS = {"generate": _generate, "token_logprobs": _token_logprobs}

if __name__ == "__main__":
    main()
