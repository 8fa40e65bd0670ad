"""A chat model behind an OpenAI-compatible endpoint: tokens, cost, and a cache on disk; `http.py` does the asking."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isara.errors import ConfigError, ModelError, RunError
from isara.files import parse_line
from isara.http import HttpClient, NoReply, Refused, Service, Unusable

_LOG = logging.getLogger(__name__)
_LENGTH_SETTINGS = ("max_tokens", "max_completion_tokens")
_MOST_TOKENS = 2**40  # in one reply: above it, a count is no count


@dataclass(frozen=True, slots=True)
class Prices:
    """What a provider asks, in its currency per million tokens."""

    prompt: float
    completion: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What a chat model said.

    Attributes:
        text: Its words, without the thoughts that an endpoint keeps apart; empty where it sent none.
        cut: Whether it was stopped at the limit of tokens.
    """

    text: str
    cut: bool = False


@dataclass(slots=True)
class Usage:
    """What the calls so far took. Cached replies cost nothing and are counted apart.

    Attributes:
        calls: Replies that came from the endpoint.
        cached: Replies that came from the cache.
        retries: Requests that had to be made again.
        prompt_tokens: Tokens of the prompts, as the endpoint counted them.
        completion_tokens: Tokens of the replies.
        uncounted: Replies that came without a whole token count; tokens and cost are then lower bounds.
        unreadable: Replies, cached ones too, that held no verdict.
        cut: Those of the unreadable that were stopped at the limit of tokens.
        empty: Those of the unreadable that were not cut and had no text.
    """

    calls: int = 0
    cached: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    unreadable: int = 0
    cut: int = 0
    empty: int = 0

    def cost(self, prices: Prices) -> float:
        """What the calls cost at these prices."""
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def describe(self, prices: Prices | None) -> str:
        """The counts, and the cost where prices are known, in one line."""
        why = ", ".join(f"{count} {name}" for name, count in (("cut", self.cut), ("empty", self.empty)) if count)
        line = (
            f"{self.calls} calls, {self.cached} from the cache, {self.retries} retries, "
            f"{self.prompt_tokens} + {self.completion_tokens} tokens, {self.unreadable} unreadable"
            f"{f' ({why})' if why else ''}"
        )
        return f"{line}, cost {'at least ' * bool(self.uncounted)}{self.cost(prices):.4f}" if prices else line


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a chat model is and how it is asked.

    Attributes:
        url: The API's base, such as `https://api.openai.com/v1`; `/chat/completions` is added.
        model: The model's name there; a dated name, where the provider has one, so that it stays the same model.
        key_variable: The environment variable that holds the key; None for an endpoint without keys.
        sampling: Sent with every request beside model and messages.
        concurrency: Requests under way at once.
        retries: How often a request is made again after 408, 409, 429, 5xx, a time-out or a broken connection.
        timeout: Seconds that one request may take, however slowly the reply comes.
        backoff: Seconds before the first retry; doubled for each further one, with jitter. `Retry-After` is honoured.
        cache: JSON lines file that replies are kept in; None keeps none.
        prices: For the cost; None when there is none to count.
    """

    url: str
    model: str
    key_variable: str | None = "OPENAI_API_KEY"
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 512})
    concurrency: int = 8
    retries: int = 6
    timeout: float = 120.0
    backoff: float = 1.0
    cache: Path | None = None
    prices: Prices | None = None


class ChatClient:
    """Asks a chat model; replies are kept in a cache keyed by endpoint, model, prompt and sampling.

    Raises:
        ConfigError: The URL is not one that a key may be sent to or holds a key itself, or a request can't be sent
            as JSON.
        RunError: The cache can't be read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._http = HttpClient(
            Service(
                url=endpoint.url,
                key_variable=endpoint.key_variable,
                concurrency=endpoint.concurrency,
                retries=endpoint.retries,
                timeout=endpoint.timeout,
                backoff=endpoint.backoff,
            )
        )
        _check_sampling(endpoint.sampling)
        self.endpoint = replace(endpoint, url=endpoint.url.rstrip("/"))
        self.usage = Usage()
        self._replies = _read_cache(endpoint.cache) if endpoint.cache else {}

    @property
    def name(self) -> str:
        """Model and address, to pin a judge with."""
        return f"{self.endpoint.model}@{self._http.address}"

    @property
    def longer(self) -> str:
        """What to set for longer replies."""
        given = [name for name in _LENGTH_SETTINGS if name in self.endpoint.sampling]
        now = f", now {self.endpoint.sampling[given[0]]}" if given else ""
        return f"raise `{given[0] if given else _LENGTH_SETTINGS[0]}` in `sampling`{now}"

    def ask(self, prompts: Sequence[tuple[str, str]]) -> list[Reply]:
        """The reply to each prompt, a system message and a user message, in order. Equal prompts are sent once.

        Raises:
            ConfigError: The key's environment variable is empty or unusable, or the proxy is.
            ModelError: A reply can't be had; those that came before it are in the cache.
            RunError: The cache can't be written.
        """
        keys = [self._cache_key(prompt) for prompt in prompts]
        wanted = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._replies}
        self.usage.cached += len(prompts) - len(wanted)
        if wanted:
            self._ask_all(wanted)
        return [self._replies[key] for key in keys]

    def _ask_all(self, wanted: Mapping[str, tuple[str, str]]) -> None:
        keys = list(wanted)
        try:
            self._http.post_all(
                "/chat/completions",
                [self._request(prompt) for prompt in wanted.values()],
                lambda number, reply: self._keep(keys[number], reply),
            )
        except NoReply as error:
            raise ModelError(f"{error}; replies so far are kept where a cache is set") from None
        except Refused as error:
            sent = " and ".join(f"`{name}`" for name in self.endpoint.sampling)
            change = f", or change `sampling`, which sends {sent}" if error.status in (400, 422) and sent else ""
            raise ModelError(f"{error}{change}") from None
        finally:
            self.usage.retries = self._http.retried

    def _keep(self, key: str, sent: Mapping[str, Any]) -> None:
        reply = _read_reply(sent)
        # A server may have repeated the key; and half a character, which JSON can hold and UTF-8 can't, would stop
        # whoever writes the verdict down.
        reply = replace(reply, text=self._http.hide(reply.text).encode("utf-8", "replace").decode())
        counts = _read_counts(sent.get("usage"))
        self.usage.calls += 1
        self.usage.prompt_tokens += counts.get("prompt_tokens", 0)
        self.usage.completion_tokens += counts.get("completion_tokens", 0)
        self.usage.uncounted += len(counts) < 2
        self._replies[key] = reply
        if self.endpoint.cache:
            row = {"key": key, "reply": reply.text, "cut": reply.cut, "usage": counts}
            _append(self.endpoint.cache, row)

    def _request(self, prompt: tuple[str, str]) -> dict[str, Any]:
        system, user = prompt
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return {"model": self.endpoint.model, "messages": messages, **self.endpoint.sampling}

    def _cache_key(self, prompt: tuple[str, str]) -> str:
        said = json.dumps([self.endpoint.url, self._request(prompt)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


def _check_sampling(sampling: Mapping[str, Any]) -> None:
    try:
        json.dumps(sampling, allow_nan=False, sort_keys=True)  # as keys of the cache and pins are made
    except (TypeError, ValueError, RecursionError):
        raise ConfigError("a value in `sampling` can't be sent as JSON: write numbers, text, lists or maps") from None
    if sampling.get("stream"):
        raise ConfigError("`sampling` asks for a stream, and replies are read whole: leave `stream` out")


def _read_reply(sent: Mapping[str, Any]) -> Reply:
    """The first choice of a chat completion.

    Raises:
        Unusable: It is no chat completion.
    """
    try:
        choice = sent["choices"][0]
        content = choice["message"]["content"]
        cut = choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unusable("the reply is not a chat completion") from None
    if isinstance(content, list):
        content = "".join(map(_part_text, content))
    if content is not None and not isinstance(content, str):
        raise Unusable("the reply is not a chat completion")
    return Reply(content or "", cut)


def _part_text(part: Any) -> str:
    """The text of one part of a content; nothing of thoughts, pictures and what else there may be."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
        return part["text"] if isinstance(part.get("text"), str) else ""
    return ""


def _read_counts(usage: Any) -> dict[str, int]:
    """The token counts that are counts; an endpoint may send anything there."""
    counts: dict[str, int] = {}
    for name in ("prompt_tokens", "completion_tokens"):
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS:
            counts[name] = int(value)
    return counts


def _read_cache(path: Path) -> dict[str, Reply]:
    """Replies by key; a line that was torn by a crash is passed over, and its prompt is sent again."""
    replies: dict[str, Reply] = {}
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise RunError(f"replies can't be read from {path} ({error.strerror}): name another file as `cache`") from error
    for line in lines:
        row = parse_line(line) or {}
        if isinstance(row.get("key"), str) and isinstance(row.get("reply"), str):
            replies[row["key"]] = Reply(row["reply"], row.get("cut") is True)
        else:
            _LOG.warning("%s: a line that is no reply was passed over", path)
    return replies


def _append(path: Path, row: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            # The line break comes first, too: a torn last line must not swallow this one.
            torn = file.tell() > 0 and not _ends_with_newline(path)
            file.write(b"\n" * torn + json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise RunError(f"replies can't be kept in {path} ({error.strerror}): name another file as `cache`") from error


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
