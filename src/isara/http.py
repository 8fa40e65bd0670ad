"""The one way this package speaks HTTP: JSON posted to one service, with a key, retries, a deadline and a size limit.

The key is read from an environment variable when a request is made and is held nowhere: no attribute, log line, error
or file ever has it. It travels in clear to this machine only, never through a proxy that could read it, and follows no
redirect.
"""

import ipaddress
import json
import logging
import math
import os
import random
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

from isara.errors import ConfigError, ModelError
from isara.marks import clean

_LOG = logging.getLogger(__name__)
_RETRIED = {408, 409, 429}  # and every 5xx
_LONGEST_WAIT = 300.0  # seconds; a server that asks for more is as good as closed
_SHOWN = 200  # characters of a server's words that a message shows
_REASON = 2**16  # bytes that are read of a reply that says no
_SECRET = 8  # characters of a key in a row that give something away

Keep = Callable[[int, dict[str, Any]], None]
_Jobs: TypeAlias = Iterator[tuple[int, Mapping[str, Any] | None]]  # numbers and bodies; None is a GET


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is and how it is asked.

    Attributes:
        url: Its base, such as `https://api.openai.com/v1`; paths are added to it.
        key_variable: The environment variable that holds the key; None for a service without keys.
        concurrency: Requests under way at once.
        retries: How often a request is made again after 408, 409, 429, 5xx, a time-out or a broken connection.
        timeout: Seconds that one request may take, however slowly the reply comes.
        backoff: Seconds before the first retry; doubled for each further one, with jitter. `Retry-After` is honoured.
        largest: Bytes of the largest reply that is read, unpacked.
    """

    url: str
    key_variable: str | None = None
    concurrency: int = 8
    retries: int = 6
    timeout: float = 120.0
    backoff: float = 1.0
    largest: int = 8 * 2**20


class NoReply(ModelError):  # noqa: N818  # what happened, in the words of its message
    """No usable reply came, however often it was asked for; `hung` says whether there was none at all in time."""

    def __init__(self, message: str, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


class Refused(ModelError):  # noqa: N818
    """The service said no, and asking again would not help; `status` is what it said it with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unusable(Exception):  # noqa: N818  # no error yet: the request is made again
    """For `Keep` to raise: the reply is not what was asked for."""


class HttpClient:
    """Posts JSON to a service.

    Attributes:
        retried: Requests that had to be made again.

    Raises:
        ConfigError: The URL is not one that a key may be sent to, or holds a key itself.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.retried = 0
        self._url = _checked_url(service)

    @property
    def address(self) -> str:
        """Host, port and path, to name the service with."""
        return f"{self._url.netloc.decode('ascii')}{self._url.path}".rstrip("/")

    def post_all(self, path: str, bodies: Sequence[Mapping[str, Any]], keep: Keep) -> None:
        """Posts each body to a path below the base and gives each reply to `keep`, with its number, as it comes.

        `keep` runs in one thread, one call at a time. After an error, requests under way are still waited for and
        kept, and no other is begun; Ctrl-C ends them.

        Raises:
            ConfigError: The key's environment variable is empty or unusable, or the proxy is.
            NoReply: A reply can't be had.
            Refused: The service won't have a request.
            ModelError: The service can't be trusted or sends without end.
        """
        self._exchange(path, bodies, keep)

    def tell(self, path: str, body: Mapping[str, Any]) -> None:
        """Posts a body to a path below the base whose reply says nothing but yes or no.

        Raises:
            ModelError, ConfigError: As `post_all`.
        """
        self._exchange(path, [body], lambda number, reply: None, silent=True)

    def _exchange(
        self, path: str, bodies: Sequence[Mapping[str, Any] | None], keep: Keep, silent: bool = False
    ) -> None:
        batch = self._batch(path, keep, silent)
        try:
            # A thread with its own event loop: a notebook's thread has one at work.
            with start_blocking_portal() as portal:
                portal.call(batch.run, bodies)
        finally:
            self.retried += batch.retried

    def _batch(self, path: str, keep: Keep, silent: bool = False) -> "_Batch":
        read_key(self.service.key_variable)  # one clear error rather than one from each request
        proxy = proxy_for(self._url)
        for name in ("httpx2", "httpcore2"):
            # Their lines hold what a server sends, and it may repeat the key.
            logging.getLogger(name).setLevel(logging.WARNING)
        return _Batch(self.service, f"{self._url}{path}", keep, proxy, silent)

    def get(self, path: str) -> dict[str, Any]:
        """The reply to a GET of a path below the base.

        Raises:
            ModelError, ConfigError: As `post_all`.
        """
        replies: dict[int, dict[str, Any]] = {}
        self._exchange(path, [None], replies.__setitem__)
        return replies[0]

    def hide(self, text: str) -> str:
        """The text without the key, where it is long enough to be one; some servers repeat what they were sent."""
        key = os.environ.get(self.service.key_variable or "", "").strip()
        return text.replace(key, "***") if len(key) >= _SECRET else text


def post_shared(
    clients: Sequence[HttpClient], path: str, bodies: Sequence[Mapping[str, Any]], keep: Keep
) -> dict[HttpClient, NoReply]:
    """Posts each body to whichever of several equal services has room; what a dead one has left, the others get.

    Returns the services that gave no reply, with what they failed of; `keep` is called as in `HttpClient.post_all`,
    once a body.

    Raises:
        NoReply: No service is left.
        ModelError, ConfigError: As `post_all`; what the others have under way is kept first.
    """
    done: set[int] = set()

    def keep_once(number: int, reply: dict[str, Any]) -> None:
        keep(number, reply)
        done.add(number)

    batches = {client: client._batch(path, keep_once) for client in clients}
    try:
        with start_blocking_portal() as portal:
            portal.call(_share, list(batches.values()), bodies, done)
    finally:
        for client, batch in batches.items():
            client.retried += batch.retried
    failed = {client: batch.failures[0] for client, batch in batches.items() if batch.failures}
    return {client: failure for client, failure in failed.items() if isinstance(failure, NoReply)}


async def _share(batches: "Sequence[_Batch]", bodies: Sequence[Mapping[str, Any]], done: set[int]) -> None:
    """Has the batches draw from one list of bodies, until all are done or no batch is without a failure."""
    waiting = list(range(len(bodies)))
    living = batches
    while waiting:
        jobs = iter([(number, bodies[number]) for number in waiting])
        for batch in living:
            batch.begin(living)
        async with anyio.create_task_group() as group:
            for batch in living:
                group.start_soon(batch.drain, jobs, len(waiting))
        failures = [failure for batch in living for failure in batch.failures]
        living = [batch for batch in living if not batch.failures]
        # What the user has to mend comes before a service that is away.
        failures.sort(key=lambda failure: isinstance(failure, NoReply))
        if failures and not (living and isinstance(failures[0], NoReply)):
            raise failures[0]
        waiting = [number for number in waiting if number not in done]


def read_key(variable: str | None) -> str | None:
    """The key in the environment variable, or None where there is no variable.

    Raises:
        ConfigError: It is empty or can't be a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the endpoint's key is expected in the environment variable {variable}, which is empty: set it"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        # A header can't hold such a key, and the library's error would show it.
        raise ConfigError(f"the key in {variable} holds spaces or characters that no key has: set it again")
    return key


def proxy_for(url: httpx2.URL) -> httpx2.Proxy | None:
    """The proxy that the environment sets for a URL, or None.

    This machine's own addresses are asked directly, as Go's net/http does it: a proxy elsewhere can't reach them, and
    they are the only ones that a key goes to in clear.

    Raises:
        ConfigError: It is no http or https proxy.
    """
    host = _host(url)
    found = urllib.request.getproxies()
    given = found.get(url.scheme) or found.get("all")
    if not given or _is_local(host) or _bypassed(url, found.get("no", "")):
        return None
    given = given if "://" in given else f"http://{given}"
    scheme = given.split("://")[0].lower()
    advice = f"set {url.scheme.upper()}_PROXY to one, or NO_PROXY to {host} where it is reached without"
    if scheme not in ("http", "https"):
        raise ConfigError(f"expected an http or https proxy for {host}, found {clean(scheme, 20)}: {advice}")
    if not _parsed_url(given):
        # It is not shown: it may hold a password.
        raise ConfigError(f"expected a proxy like http://proxy:3128 for {host}, found no address: {advice}")
    return httpx2.Proxy(given)


class _Batch:
    """Bodies on their way to one address; everything here runs in one event loop."""

    def __init__(self, service: Service, url: str, keep: Keep, proxy: httpx2.Proxy | None, silent: bool) -> None:
        self.retried = 0
        self.failures: list[Exception] = []
        self._service = service
        self._url = url
        self._keep = keep
        self._proxy = proxy
        self._silent = silent
        self._jitter = random.Random()

    async def run(self, bodies: Sequence[Mapping[str, Any] | None]) -> None:
        """Sends them all; the first failure is raised when nothing is under way any more."""
        self.begin([self])
        await self.drain(iter(enumerate(bodies)), len(bodies))
        if self.failures:
            raise self.failures[0]

    def begin(self, beside: "Sequence[_Batch]") -> None:
        """Makes ready to send; what no other service would take either ends those beside it, too."""
        self._over = anyio.Event()
        self._beside = beside

    async def drain(self, jobs: _Jobs, most: int) -> None:
        """Sends what is left of the jobs, which others may draw from as well, until one fails."""
        limits = httpx2.Limits(max_connections=self._service.concurrency)
        transport = httpx2.AsyncHTTPTransport(proxy=self._proxy, limits=limits)
        # The deadline of the whole request stands for the library's own, which begin anew with every byte.
        async with (
            httpx2.AsyncClient(transport=transport, timeout=None, follow_redirects=False) as client,
            anyio.create_task_group() as workers,
        ):
            for _ in range(min(self._service.concurrency, most)):
                workers.start_soon(self._work, client, jobs)

    async def _work(self, client: httpx2.AsyncClient, jobs: _Jobs) -> None:
        for number, body in jobs:
            if self._over.is_set():
                return
            try:
                await self._ask(client, number, None if body is None else json.dumps(body).encode())
            except Exception as error:  # raised by `run`, after the others' replies are kept
                self.failures.append(error)
                for batch in [self] if isinstance(error, NoReply) else self._beside:
                    batch._over.set()

    async def _ask(self, client: httpx2.AsyncClient, number: int, body: bytes | None) -> None:
        hung = False
        for attempt in range(self._service.retries + 1):
            self.retried += attempt > 0
            try:
                reply = await self._send(client, body)
                try:
                    return self._keep(number, reply)
                except Unusable as error:
                    raise _Retry(self._with_reason(str(error), reply)) from None
            except _Retry as error:
                reason, asked = error.reason, error.wait
                # It has had its time, and others can make what it owes.
                others = any(batch is not self and not batch.failures for batch in self._beside)
                if error.hung and (hung or others):
                    hung = True
                    break
                hung = error.hung
            if attempt < self._service.retries and not await self._rested(attempt, asked, reason):
                break
        attempts = f"{attempt + 1} attempt" + "s" * (attempt > 0)
        advice = "see why it hangs, or raise its time-out" if hung else "try again later"
        raise NoReply(f"{self._base} gave no reply in {attempts} ({reason}): {advice}", hung)

    async def _rested(self, attempt: int, asked: float, reason: str) -> bool:
        """Whether the wait before the next attempt went by without a failure elsewhere."""
        wait = max(self._service.backoff * 2**attempt * self._jitter.uniform(0.5, 1.5), asked)
        wait = min(wait, _LONGEST_WAIT)
        _LOG.info("%s: %s; again in %.1f s", self._base, reason, wait)
        with anyio.move_on_after(wait):
            await self._over.wait()
        return not self._over.is_set()

    async def _send(self, client: httpx2.AsyncClient, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "isara", "Accept-Encoding": "gzip"}
        key = read_key(self._service.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            with anyio.fail_after(self._service.timeout):
                method = "GET" if body is None else "POST"
                async with client.stream(method, self._url, content=body, headers=headers) as response:
                    largest = self._service.largest if response.is_success else _REASON
                    said, whole = await _read(response, largest)
        except TimeoutError:
            raise _Retry(f"no whole reply within {self._service.timeout:g} s", hung=True) from None
        except httpx2.DecodingError:
            if response.is_success:
                raise _Retry("the reply is packed in a way that can't be read") from None
            said = b""  # its status says enough
        except (httpx2.TransportError, OSError) as error:
            raise self._lost(error) from None
        if not response.is_success:
            raise self._refused(response, said)
        if not whole:
            raise ModelError(
                f"{self._base} sends a reply of more than {self._service.largest} bytes, which is none: check the URL"
            )
        return {} if self._silent else _parsed(said)

    def _refused(self, response: httpx2.Response, said: bytes) -> Exception:
        status = response.status_code
        reason = self._shown(_reason(said))
        if status in _RETRIED or status >= 500:
            return _Retry(f"HTTP {status}{f': {reason}' if reason else ''}", _retry_after(response.headers))
        advice = "check the URL, the model's name and the key"
        if response.has_redirect_location:
            reason = f"it is to be found at {self._shown(response.headers['location'])}"
            advice = "give that address as `url` if it is to be trusted with the key"
        if status == httpx2.codes.PROXY_AUTHENTICATION_REQUIRED:
            advice = "give the proxy's user and password in its environment variable"
        return Refused(
            f"{self._base} refused the request with HTTP {status} ({reason or 'no reason given'}): {advice}", status
        )

    def _lost(self, error: Exception) -> Exception:
        cause = _root(error)
        host = _host(httpx2.URL(self._url))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(
                f"the certificate of {host} can't be verified ({self._shown(cause.verify_message)}): "
                "check the URL, or set SSL_CERT_FILE to the certificates of your network"
            )
        if isinstance(cause, socket.gaierror):
            return _Retry("the name of the server or of its proxy is not known")
        if isinstance(error, httpx2.ProxyError):
            said = self._shown(str(error))
            if said.startswith(("403", "407")):
                return ConfigError(
                    f"the proxy lets nothing through to {host} ({said}): check the proxy's address, user and password"
                )
            return _Retry(f"the proxy failed: {said}")
        return _Retry(f"the connection failed: {type(cause).__name__}")

    @property
    def _base(self) -> str:
        return self._service.url.rstrip("/")

    def _with_reason(self, problem: str, reply: Mapping[str, Any]) -> str:
        """The problem, and what the server itself says of it, where it sent an error as if it were a reply."""
        return f"{problem}: {self._shown(_reason(json.dumps(reply).encode()))}" if reply.get("error") else problem

    def _shown(self, said: str) -> str:
        """What a server said as a message may show it: in one line, without its key, cut."""
        key = read_key(self._service.key_variable)
        if key:
            # Once as it came, and once more without the invisible characters that could stand in it. What is cut off
            # by then is far more than what is shown.
            said = _hidden(clean(said.replace(key, "***"), 10 * _SHOWN), key)
        return clean(said, _SHOWN)


class _Retry(Exception):  # noqa: N818  # it never leaves this module, and it is no error yet
    def __init__(self, reason: str, wait: float = 0.0, hung: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.hung = reason, wait, hung


def _checked_url(service: Service) -> httpx2.URL:
    scheme = service.url.split("://")[0].lower() if "://" in service.url else "no scheme"
    if scheme not in ("http", "https"):
        raise ConfigError(f"expected an endpoint like https://host/v1, found {clean(scheme, 20)}: mend `url`")
    url = _parsed_url(service.url.rstrip("/"))
    if not url:
        raise ConfigError("expected an endpoint like https://host/v1, found no address: mend `url`")
    host = _host(url)
    if url.userinfo or url.query or url.fragment:
        raise ConfigError("the endpoint's URL may not hold a key, user or query: put the key into `key_variable`")
    if url.scheme == "http" and not _is_local(host) and service.key_variable:
        raise ConfigError(
            f"a key would go to {host} unencrypted: use https, or set `key_variable: null` if it takes none"
        )
    return url


def _parsed_url(text: str) -> httpx2.URL | None:
    """The URL, read by the library that will ask it, or None where it names no host or port that there is."""
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        return None
    return url if url.host and (url.port or 0) < 2**16 else None


def _host(url: httpx2.URL) -> str:
    return url.raw_host.decode("ascii").lower()


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bypassed(url: httpx2.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY, or the system's settings, name the host: by name, parent domain, address, network or `*`."""
    host = _host(url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        name = entry.removeprefix("*").lstrip(".")
        if entry == "*" or (name and (f"{host}:{port}" == name or f".{host}".endswith(f".{name}"))):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:
            continue  # one of the two is a name
    return bool(urllib.request.proxy_bypass(host))


async def _read(response: httpx2.Response, largest: int) -> tuple[bytes, bool]:
    """The reply, unpacked, up to a size, and whether that is all of it."""
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity", "gzip"):
        raise httpx2.DecodingError("only gzip was asked for, once")  # layers multiply what a bomb unpacks to
    said = bytearray()
    async for piece in response.aiter_bytes():
        said += piece
        if len(said) > largest:
            return bytes(said[:largest]), False
    return bytes(said), True


def _parsed(said: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(said)
    except (ValueError, RecursionError):
        page = said.lstrip().startswith(b"<")
        raise _Retry(f"the reply is {'a web page' * page or 'no JSON'}") from None
    if not isinstance(reply, dict):
        raise _Retry("the reply is no JSON object")
    return reply


def _reason(said: bytes) -> str:
    """What a server gives as its reason: the message in its JSON, or its text; nothing of a web page."""
    text = said.decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        return "a web page"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else text


def _hidden(text: str, key: str) -> str:
    """The text without any eight characters in a row of the key: a server may have cut what it repeats."""
    size = min(len(key), _SECRET)
    pieces = {key[start : start + size] for start in range(len(key) - size + 1)}
    covered = [False] * len(text)
    for start in range(len(text) - size + 1):
        if text[start : start + size] in pieces:
            covered[start : start + size] = [True] * size
    shown = ""
    for character, is_key in zip(text, covered, strict=True):
        shown += character if not is_key else "" if shown.endswith("***") else "***"
    return shown


def _root(error: BaseException) -> BaseException:
    """The error that the others were made from."""
    seen = {id(error)}
    while True:
        inner = error.__cause__ or error.__context__
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]  # one for each address of the host
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner


def _retry_after(headers: httpx2.Headers) -> float:
    """Seconds that the server asks to wait: `Retry-After` holds seconds or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT) if not math.isnan(seconds) else 0.0
