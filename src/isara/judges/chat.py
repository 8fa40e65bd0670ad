"""A chat model behind an OpenAI-compatible endpoint: retries, concurrency, tokens, cost, and a cache on disk.

The key is read from an environment variable when a request is made and is held nowhere: no attribute, log line, error
or file ever has it.
"""

import hashlib
import http.client
import json
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from isara.errors import ConfigError, ModelError, RunError

_LOG = logging.getLogger(__name__)
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_RETRIED = {408, 409, 429}  # and every 5xx
_LONGEST_WAIT = 300.0  # seconds; a server that asks for more is as good as closed
_SHOWN = 200  # characters of a server's answer that an error shows


@dataclass(frozen=True, slots=True)
class Prices:
    """What a provider asks, in its currency per million tokens."""

    prompt: float
    completion: float


@dataclass(slots=True)
class Usage:
    """What the calls so far took. Cached replies cost nothing and are counted apart.

    Attributes:
        calls: Replies that came from the endpoint.
        cached: Replies that came from the cache.
        retries: Requests that had to be made again.
        prompt_tokens: Tokens of the prompts, as the endpoint counted them.
        completion_tokens: Tokens of the replies.
        uncounted: Replies that came without a token count; tokens and cost are then lower bounds.
        unreadable: Replies, cached ones too, that held no verdict.
    """

    calls: int = 0
    cached: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    unreadable: int = 0

    def cost(self, prices: Prices) -> float:
        """What the calls cost at these prices."""
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def describe(self, prices: Prices | None) -> str:
        """The counts, and the cost where prices are known, in one line."""
        line = (
            f"{self.calls} calls, {self.cached} from the cache, {self.retries} retries, "
            f"{self.prompt_tokens} + {self.completion_tokens} tokens, {self.unreadable} unreadable"
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
        timeout: Seconds to wait for a server that says nothing.
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
        ConfigError: The URL is not one that a key may be sent to, or holds a key itself.
        RunError: The cache can't be read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        _check_url(endpoint)
        self.endpoint = replace(endpoint, url=endpoint.url.rstrip("/"))
        self.usage = Usage()
        self._lock = threading.Lock()
        self._given_up = threading.Event()
        self._jitter = random.Random()
        self._replies = _read_cache(endpoint.cache) if endpoint.cache else {}
        # A redirect would carry the key to another server.
        self._opener = urllib.request.build_opener(_NoRedirects)

    @property
    def name(self) -> str:
        """Model and address, to pin a judge with."""
        parts = urlsplit(self.endpoint.url)
        return f"{self.endpoint.model}@{parts.netloc}{parts.path}"

    def ask(self, prompts: Sequence[tuple[str, str]]) -> list[str]:
        """The reply to each prompt, a system message and a user message, in order. Equal prompts are sent once.

        Raises:
            ConfigError: The key's environment variable is empty or unusable.
            ModelError: A reply can't be had; those that came before it are in the cache.
            RunError: The cache can't be written.
        """
        keys = [self._cache_key(prompt) for prompt in prompts]
        wanted = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._replies}
        self.usage.cached += len(prompts) - len(wanted)
        if wanted:
            _key(self.endpoint.key_variable)  # one clear error rather than one from each thread
            self._ask_all(wanted)
        return [self._replies[key] for key in keys]

    def _ask_all(self, wanted: Mapping[str, tuple[str, str]]) -> None:
        self._given_up.clear()
        with ThreadPoolExecutor(self.endpoint.concurrency) as threads:
            futures = [threads.submit(self._ask_one, key, prompt) for key, prompt in wanted.items()]
            try:
                for future in futures:
                    future.result()
            finally:
                # After an error or Ctrl-C nobody waits for the others' retries.
                self._given_up.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _ask_one(self, key: str, prompt: tuple[str, str]) -> None:
        body = json.dumps(self._request(prompt)).encode()
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            try:
                return self._keep(key, self._send(body))
            except _Retry as error:
                reason, asked = error.reason, error.wait
            if attempt < self.endpoint.retries:
                wait = max(self.endpoint.backoff * 2**attempt * self._jitter.uniform(0.5, 1.5), asked)
                _LOG.info("%s: %s; again in %.1f s", self.endpoint.model, reason, wait)
                if self._given_up.wait(wait):
                    break
        raise ModelError(
            f"{self.endpoint.url} gave no reply in {attempt + 1} attempts ({reason}): try again later; "
            "replies so far are kept where a cache is set"
        )

    def _send(self, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "isara"}
        key = _key(self.endpoint.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.endpoint.url}/chat/completions", body, headers)
        try:
            with self._opener.open(request, timeout=self.endpoint.timeout) as response:
                return _parse(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, key) from None
        except TimeoutError:
            raise _Retry(f"nothing came for {self.endpoint.timeout:g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                raise _Retry(f"nothing came for {self.endpoint.timeout:g} s") from None
            raise _Retry(f"the connection failed: {type(cause).__name__}") from None

    def _refused(self, error: urllib.error.HTTPError, key: str | None) -> Exception:
        if error.code in _RETRIED or error.code >= 500:
            return _Retry(f"HTTP {error.code}", _retry_after(error.headers))
        said = " ".join(error.read(4096).decode("utf-8", "replace").split())
        if key:
            said = said.replace(key, "***")  # some servers repeat what they were sent
        return ModelError(
            f"{self.endpoint.url} refused the request with HTTP {error.code} ({said[:_SHOWN] or 'no reason given'}): "
            "check the URL, the model's name and the key"
        )

    def _keep(self, key: str, reply: Mapping[str, Any]) -> None:
        # Half a character, which JSON can hold and UTF-8 can't, would stop whoever writes the verdict down.
        text = (reply["choices"][0]["message"]["content"] or "").encode("utf-8", "replace").decode()
        counts = reply.get("usage") or {}
        with self._lock:
            self.usage.calls += 1
            self.usage.prompt_tokens += counts.get("prompt_tokens", 0)
            self.usage.completion_tokens += counts.get("completion_tokens", 0)
            self.usage.uncounted += not counts
            self._replies[key] = text
            if self.endpoint.cache:
                _append(self.endpoint.cache, {"key": key, "reply": text, "usage": counts})

    def _request(self, prompt: tuple[str, str]) -> dict[str, Any]:
        system, user = prompt
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return {"model": self.endpoint.model, "messages": messages, **self.endpoint.sampling}

    def _cache_key(self, prompt: tuple[str, str]) -> str:
        said = json.dumps([self.endpoint.url, self._request(prompt)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


class _Retry(Exception):  # noqa: N818  # it never leaves this module, and it is no error yet
    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """None, which makes the redirect an HTTPError."""
        return None


def _check_url(endpoint: Endpoint) -> None:
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"expected an endpoint like https://host/v1, found {parts.scheme or 'no scheme'}: mend `url`")
    if parts.username or parts.password or parts.query:
        raise ConfigError("the endpoint's URL may not hold a key, user or query: put the key into `key_variable`")
    if parts.scheme == "http" and parts.hostname not in _LOCAL and endpoint.key_variable:
        raise ConfigError(
            f"a key would go to {parts.hostname} unencrypted: use https, or set `key_variable: null` if it takes none"
        )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the endpoint's key is expected in the environment variable {variable}, which is empty: set it"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        # http.client would put such a key into its error message.
        raise ConfigError(f"the key in {variable} holds spaces or characters that no key has: set it again")
    return key


def _parse(body: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(body)
        content = reply["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise _Retry("the reply is not a chat completion") from None
    if content is not None and not isinstance(content, str):
        raise _Retry("the reply is not a chat completion")
    return dict(reply)


def _retry_after(headers: Message) -> float:
    """Seconds that the server asks to wait: `Retry-After` holds seconds or a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After")
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _read_cache(path: Path) -> dict[str, str]:
    """Replies by key; a line that was torn by a crash is passed over, and its prompt is sent again."""
    replies: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise RunError(f"replies can't be read from {path} ({error.strerror}): name another file as `cache`") from error
    for line in lines:
        try:
            row = json.loads(line)
            replies[row["key"]] = row["reply"]
        except (ValueError, KeyError, TypeError):
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
