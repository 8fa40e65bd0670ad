"""What is sent to an OpenAI-compatible server for a completion, and what is read from its reply.

Every server has defaults of its own beside what the protocol names (a top-k, a penalty for repeating, another order of
temperature and nucleus). Those of vLLM and llama.cpp are turned off, so that a completion is drawn as `Sampling` says
it; of others only the protocol's own fields are set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isara.errors import ModelError
from isara.http import HttpClient, Unusable
from isara.marks import clean
from isara.records import Completion, Prompt, Sampling

COMPLETIONS = "/completions"
_MODELS = "/models"
_SEEDS = 2**31  # a server's seeds have 32 bits at least
_MOST_NAMES = 5  # in an error message
_NEUTRAL: Mapping[str, Mapping[str, Any]] = {
    # Special tokens are to be seen: what comes after one is another text.
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False},
    # Temperature before the nucleus, as in transformers.
    "llamacpp": {"samplers": ["temperature", "top_p"], "repeat_penalty": 1.0},
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server says of itself.

    Attributes:
        model: The name that its model is asked by.
        owner: Whose it says the model is, by which servers can be told apart: "vllm", "llamacpp", "library" (Ollama).
    """

    model: str
    owner: str


@dataclass(frozen=True, slots=True)
class TopToken:
    """A token that a server has made.

    Attributes:
        text: Its text.
        alternatives: Natural-log probability of it and of the likeliest others, by their texts.
    """

    text: str
    alternatives: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Asked:
    """How a server is asked: by which name, with which fields of its own, and whether prompts are sent as ids."""

    identity: Identity
    ids: bool

    def body(self, prompt: Prompt, sampling: Sampling, seed: int) -> dict[str, Any]:
        """The request for one completion."""
        return {
            "model": self.identity.model,
            "prompt": list(prompt.ids) if self.ids else prompt.text,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % _SEEDS,
            "stop": list(sampling.stop),
            **_NEUTRAL.get(self.identity.owner, {}),
        }

    def alternatives(self, prompt: Prompt, sampling: Sampling, count: int) -> dict[str, Any]:
        """The request for one completion, of each token its likeliest alternatives, too."""
        return {**self.body(prompt, sampling, 0), "logprobs": count}

    def scoring(self, prompt: Prompt, continuation: Sequence[int]) -> dict[str, Any]:
        """The request for the log-probabilities of a continuation."""
        return {
            "model": self.identity.model,
            "prompt": [*prompt.ids, *continuation],
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }


def base_url(url: str) -> str:
    """The address below which `/completions` lies, of one with or without its `/v1`."""
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def identify(client: HttpClient, wanted: str | None) -> Identity:
    """What the server says of its model: the wanted one, or the only one that it names beside adapters.

    Raises:
        ModelError: It names no model, others, or several.
    """
    reply = client.get(_MODELS)
    rows = reply.get("data")
    rows = [row for row in rows if isinstance(row, dict) and row.get("id")] if isinstance(rows, list) else []
    found = {str(row["id"]): str(row.get("owned_by") or "") for row in rows}
    said = ", ".join(clean(name, 100) for name in list(found)[:_MOST_NAMES]) or "none"
    whole = [str(row["id"]) for row in rows if not row.get("parent")]
    if wanted is None and len(whole) == 1:
        wanted = whole[0]
    if wanted is None:
        raise ModelError(
            f"expected one model at {client.address}, found {said}: name the one that is meant as `engine.served_model`"
        )
    if wanted not in found:
        raise ModelError(
            f"expected the model {wanted!r} at {client.address}, found {said}: mend `engine.served_model` or "
            "`engine.url`"
        )
    return Identity(wanted, found[wanted])


def read_completion(reply: Mapping[str, Any], cut_at: Sequence[str]) -> Completion:
    """The completion in a reply, cut before the first of these strings, as some servers leave a stop in.

    Raises:
        Unusable: The reply holds none.
    """
    choice = _choice(reply)
    text, finish = choice.get("text"), choice.get("finish_reason")
    tokens = _usage(reply, "completion_tokens")
    if not isinstance(text, str) or finish not in ("stop", "length") or tokens is None:
        raise Unusable("the reply holds no completion with a text, a reason for its end and a count of tokens")
    return cut_completion(text, tokens, finish == "stop", cut_at)


def cut_completion(text: str, tokens: int, stopped: bool, cut_at: Sequence[str]) -> Completion:
    """The completion of a text that ended by itself or not, cut before the first of these strings."""
    places = [place for stop in cut_at if (place := text.find(stop)) >= 0]
    if places:
        return Completion(text[: min(places)], tokens, "stop")
    return Completion(text, tokens, "stop" if stopped else "length")


def prompt_tokens(reply: Mapping[str, Any]) -> int | None:
    """How many tokens the server has counted in the prompt; None where it doesn't say."""
    return _usage(reply, "prompt_tokens")


def read_scores(reply: Mapping[str, Any], head: int, tail: int) -> list[float]:
    """The log-probabilities of `tail` tokens after `head` tokens of a prompt that was echoed.

    Raises:
        Unusable: The reply holds none.
    """
    logprobs = _choice(reply).get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    found = values[head : head + tail] if isinstance(values, list) else []
    if len(found) != tail or not all(type(value) in (int, float) and math.isfinite(value) for value in found):
        raise Unusable("the reply holds no log-probabilities of the prompt's tokens")
    return [float(value) for value in found]


def read_top_tokens(reply: Mapping[str, Any]) -> list[TopToken] | None:
    """The tokens of a completion with their alternatives, as vLLM or llama.cpp writes them; None where there are none.

    vLLM keeps to the protocol of completions (`tokens`, `token_logprobs`, `top_logprobs`); llama.cpp writes that of
    chats (`content`).
    """
    logprobs = _choice(reply).get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    try:
        if isinstance(content := logprobs.get("content"), list):
            rows = [
                (each["token"], each["logprob"], {top["token"]: top["logprob"] for top in each["top_logprobs"]})
                for each in content
            ]
        else:
            rows = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))
        return [TopToken(str(text), {**_finite(tops), str(text): float(own)}) for text, own, tops in rows]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _finite(tops: Mapping[str, Any]) -> dict[str, float]:
    return {str(text): value for text, given in tops.items() if math.isfinite(value := float(given))}


def _choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Unusable("the reply holds no completion")
    return choices[0]


def _usage(reply: Mapping[str, Any], name: str) -> int | None:
    usage = reply.get("usage")
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and found >= 0 else None
