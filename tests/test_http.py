"""The HTTP ground floor, against servers on this machine that break every rule there is."""

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from isara.errors import ConfigError, IsaraError, ModelError
from isara.http import HttpClient, NoReply, Refused, Service, Unusable, proxy_for, read_key

KEY = "sk-lorule-9a8b7c6d5e4f3a2b"
FAR = "https://oracle.hyrule.invalid/v1"  # a name that no network knows

MAIN_THREAD = threading.main_thread().ident or 0

Script = Callable[[socket.socket, bytes], None]


class Wire:
    """A server that does with each request what its script says, byte by byte; `heard` is all that it was sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: list[bytes] = []
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                connection, _ = self._listening.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = heard(connection)
            self.heard.append(request)
            self.script(connection, request)

    def close(self) -> None:
        self._over.set()
        self._listening.close()


def heard(connection: socket.socket) -> bytes:
    """One request, with its body."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = request.partition(b"\r\n\r\n")
    size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < size:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def says(body: bytes, status: str = "200 OK", **headers: str) -> Script:
    """A script for one whole reply."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *lines])
    return lambda connection, request: connection.sendall(f"{head}\r\n\r\n".encode() + body)


OPEN_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], Wire]]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("LORULE_KEY", KEY)
    started: list[Wire] = []

    def start(script: Script) -> Wire:
        started.append(Wire(script))
        return started[-1]

    yield start
    for wire in started:
        wire.close()


Serve = Callable[[Script], Wire]


def client(url: str, **changes: Any) -> HttpClient:
    settings = {"key_variable": "LORULE_KEY", "retries": 0, "backoff": 0.005, "timeout": 10.0}
    return HttpClient(Service(url, **{**settings, **changes}))


def ask(url: str, **changes: Any) -> dict[str, Any]:
    """The reply to one request."""
    replies: dict[int, dict[str, Any]] = {}
    client(url, **changes).post_all("/say", [{"word": "Hyrule"}], replies.__setitem__)
    return replies[0]


def fault(url: str, kind: type[IsaraError] = NoReply, **changes: Any) -> str:
    """The message of the error that one request ends with."""
    with pytest.raises(kind) as caught:
        ask(url, **changes)
    assert type(caught.value) is kind
    return str(caught.value)


def test_replies_come_with_their_numbers(serve: Serve) -> None:
    def echo(connection: socket.socket, request: bytes) -> None:
        says(request.partition(b"\r\n\r\n")[2])(connection, request)

    wire = serve(echo)
    replies: dict[int, dict[str, Any]] = {}
    bodies = [{"number": number, "odd": "\ud800\u2028"} for number in range(20)]
    client(wire.url + "/").post_all("/say", bodies, replies.__setitem__)
    assert replies == dict(enumerate(bodies))
    assert all(request.startswith(b"POST /v1/say HTTP/1.1\r\n") for request in wire.heard)
    assert all(f"Authorization: Bearer {KEY}\r\n".encode() in request for request in wire.heard)


def test_no_bodies_are_no_requests(serve: Serve) -> None:
    wire = serve(says(b"{}"))
    client(wire.url).post_all("/say", [], lambda number, reply: pytest.fail("nothing was asked"))
    assert wire.heard == []


def test_it_works_where_an_event_loop_is_at_work(serve: Serve) -> None:
    wire = serve(says(b'{"word": "Farore"}'))

    async def notebook() -> dict[str, Any]:
        return ask(wire.url)

    assert asyncio.run(notebook()) == {"word": "Farore"}


def slowly(connection: socket.socket, piece: bytes) -> None:
    for _ in range(200):
        connection.sendall(piece)
        time.sleep(0.05)


def drips_in_its_body(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OPEN_HEAD)
    slowly(connection, b"1\r\n{\r\n")


def drips_in_its_head(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    slowly(connection, b"X: y\r\n")


def drips_before_its_head(connection: socket.socket, request: bytes) -> None:
    slowly(connection, b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("script", [drips_in_its_body, drips_in_its_head, drips_before_its_head])
def test_a_reply_that_drips_is_given_up(serve: Serve, script: Script) -> None:
    wire = serve(script)
    start = time.monotonic()
    assert fault(wire.url, timeout=0.3, retries=1) == (
        f"{wire.url} gave no reply in 2 attempts (no whole reply within 0.3 s): see why it hangs, or raise its time-out"
    )
    assert time.monotonic() - start < 4


def test_a_reply_that_never_ends_is_not_read_on(serve: Serve) -> None:
    sent = 0

    def endless(connection: socket.socket, request: bytes) -> None:
        nonlocal sent
        connection.sendall(OPEN_HEAD)
        while sent < 10**9:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536

    wire = serve(endless)
    assert fault(wire.url, ModelError, largest=10**6, retries=3) == (
        f"{wire.url} sends a reply of more than 1000000 bytes, which is none: check the URL"
    )
    assert len(wire.heard) == 1, "it would only do it again"
    assert sent < 10**8


def test_a_refusal_that_never_ends_is_still_a_refusal(serve: Serve) -> None:
    def endless(connection: socket.socket, request: bytes) -> None:
        connection.sendall(OPEN_HEAD.replace(b"200 OK", b"404 Not Found"))
        while True:
            connection.sendall(b"10000\r\n" + b"no " * 21845 + b"!\r\n")

    wire = serve(endless)
    assert fault(wire.url, Refused).startswith(f"{wire.url} refused the request with HTTP 404 (no no no ")


def test_a_packed_reply_is_read(serve: Serve) -> None:
    assert ask(serve(says(gzip.compress(b'{"word": "Din"}'), Content_Encoding="gzip")).url) == {"word": "Din"}


def test_a_bomb_does_not_go_off(serve: Serve) -> None:
    wire = serve(says(gzip.compress(b" " * 10**8), Content_Encoding="gzip"))
    assert fault(wire.url, ModelError, largest=10**6) == (
        f"{wire.url} sends a reply of more than 1000000 bytes, which is none: check the URL"
    )


PACKED = "the reply is packed in a way that can't be read"


@pytest.mark.parametrize(
    ("body", "encoding", "what"),
    [
        (gzip.compress(gzip.compress(b" " * 10**8, mtime=0), mtime=0), "gzip, gzip", PACKED),
        (b"\x28\xb5\x2f\xfd", "zstd", PACKED),
        (b'{"word": "Din"}', "gzip", PACKED),
        (gzip.compress(b'{"word": "Din"}', mtime=0)[:-12], "gzip", "the reply is no JSON"),
    ],
)
def test_a_reply_that_is_packed_otherwise_is_none(serve: Serve, body: bytes, encoding: str, what: str) -> None:
    wire = serve(says(body, Content_Encoding=encoding))
    assert fault(wire.url) == f"{wire.url} gave no reply in 1 attempt ({what}): try again later"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<!DOCTYPE html><title>Gateway</title>", "a web page"),
        (b"", "no JSON"),
        (b"VERDICT", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 10**6, "no JSON"),
        (b"9" * 10**5, "no JSON"),
        (b"[1]", "no JSON object"),
    ],
)
def test_a_reply_that_is_no_object_is_named(serve: Serve, body: bytes, what: str) -> None:
    wire = serve(says(body))
    assert fault(wire.url) == f"{wire.url} gave no reply in 1 attempt (the reply is {what}): try again later"


def test_a_no_that_can_not_be_unpacked_is_a_no(serve: Serve) -> None:
    wire = serve(says(b"no such key", "401 Unauthorized", Content_Encoding="br"))
    assert fault(wire.url, Refused, retries=2) == (
        f"{wire.url} refused the request with HTTP 401 (no reason given): check the URL, the model's name and the key"
    )
    assert len(wire.heard) == 1


def test_a_connection_that_breaks_off_is_named(serve: Serve) -> None:
    wire = serve(lambda connection, request: connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"w'))
    assert fault(wire.url) == (
        f"{wire.url} gave no reply in 1 attempt (the connection failed: RemoteProtocolError): try again later"
    )


def test_a_name_that_nobody_knows_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert fault(FAR) == (
        f"{FAR} gave no reply in 1 attempt (the name of the server or of its proxy is not known): try again later"
    )


def test_what_the_reader_can_not_use_is_asked_for_again(serve: Serve) -> None:
    wire = serve(says(b'{"word": "Nayru"}'))
    given: list[int] = []

    def picky(number: int, reply: dict[str, Any]) -> None:
        given.append(number)
        if len(given) < 3:
            raise Unusable("the word is not wise enough")

    asked = client(wire.url, retries=4)
    asked.post_all("/say", [{}], picky)
    assert (given, asked.retried) == ([0, 0, 0], 2)


def test_a_failure_lets_the_others_finish_and_begins_no_more(serve: Serve) -> None:
    def by_number(connection: socket.socket, request: bytes) -> None:
        number = json.loads(request.partition(b"\r\n\r\n")[2])["number"]
        if number == 0:
            time.sleep(0.1)
            return says(b"no", "403 Forbidden")(connection, request)
        time.sleep(0.5)
        return says(request.partition(b"\r\n\r\n")[2])(connection, request)

    wire = serve(by_number)
    replies: dict[int, dict[str, Any]] = {}
    with pytest.raises(Refused) as caught:
        client(wire.url, concurrency=2).post_all("/say", [{"number": n} for n in range(9)], replies.__setitem__)
    assert str(caught.value) == (
        f"{wire.url} refused the request with HTTP 403 (no): check the URL, the model's name and the key"
    )
    assert caught.value.status == 403
    assert (replies, len(wire.heard)) == ({1: {"number": 1}}, 2)


def test_a_failure_ends_the_waits_of_others(serve: Serve) -> None:
    def by_number(connection: socket.socket, request: bytes) -> None:
        if json.loads(request.partition(b"\r\n\r\n")[2])["number"] == 0:
            return says(b"", "429 Too Many Requests", Retry_After="60")(connection, request)
        time.sleep(0.3)
        return says(b"", "403 Forbidden")(connection, request)

    start = time.monotonic()
    with pytest.raises(Refused):
        client(serve(by_number).url, retries=3).post_all("/say", [{"number": n} for n in range(2)], lambda n, r: None)
    assert time.monotonic() - start < 10


def test_an_error_of_the_reader_is_its_own(serve: Serve) -> None:
    def full(number: int, reply: dict[str, Any]) -> None:
        raise ModelError("the shelf is full")

    with pytest.raises(ModelError, match="^the shelf is full$"):
        client(serve(says(b"{}")).url).post_all("/say", [{}, {}], full)


def test_ctrl_c_does_not_wait_for_a_reply(serve: Serve) -> None:
    def interrupts(connection: socket.socket, request: bytes) -> None:
        signal.pthread_kill(MAIN_THREAD, signal.SIGINT)
        time.sleep(20)

    wire = serve(interrupts)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(wire.url, timeout=60)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("value", ["nan", "-1", "soon", "Wed, 99 Foo 9999 99:99:99", "Mon, 01 Jan 0001 00:00:00 +2359"])
def test_an_odd_retry_after_asks_for_nothing(serve: Serve, value: str) -> None:
    wire = serve(says(b"", "503 Busy", Retry_After=value))
    assert fault(wire.url, retries=2) == f"{wire.url} gave no reply in 3 attempts (HTTP 503): try again later"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "no reason given"),
        (b" gone \r\n  for\tgood ", "gone for good"),
        (b"<html><h1>Nginx</h1></html>", "a web page"),
        (b'{"error": {"message": "no such model", "code": 1}}', "no such model"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"object": "error", "message": "no such model"}', "no such model"),
        (b'{"detail": [{"msg": "bad"}]}', '{"detail": [{"msg": "bad"}]}'),
        (b"\x1b[2J\x1b]0;owned\x07gone", "[2J]0;ownedgone"),
        ("\u202egone\u202c \u200bfor\ufeff good\U000e0041\u2066".encode(), "gone for good"),
        (b"\xff\xfe gone", "\ufffd\ufffd gone"),
        (b"na" * 10**5, "na" * 99 + "n…"),
    ],
)
def test_a_server_is_quoted_in_one_clean_line(serve: Serve, body: bytes, shown: str) -> None:
    wire = serve(says(body, "404 Not Found"))
    assert fault(wire.url, Refused) == (
        f"{wire.url} refused the request with HTTP 404 ({shown}): check the URL, the model's name and the key"
    )


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        "x" * 185 + KEY,  # where a message is cut
        "x" * 65525 + KEY,  # where reading ends
        KEY * 400,
        f"your key {KEY[:-3]}... is wrong",
        f"your key ...{KEY[3:]} is wrong",
        KEY[:9] + "\u200b" + KEY[9:],
        json.dumps({"error": {"message": KEY}}).replace("sk-", "\\u0073k-"),
        json.dumps({"error": {"message": f"{KEY[:5]}\x1b{KEY[5:]}"}}),
    ],
)
@pytest.mark.parametrize("status", ["401 No", "500 Broken", f"403 {KEY}"])
def test_a_repeated_key_is_never_shown(
    serve: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], echo: str, status: str
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = serve(says(echo.encode(), status, X_Echo=KEY))
    with pytest.raises(ModelError) as caught:
        ask(wire.url, retries=1)
    texts = [str(caught.value), repr(caught.value), caplog.text, *capfd.readouterr()]
    assert "***" in texts[0] or "xxx" in texts[0]
    for start in range(len(KEY) - 7):
        assert not [text for text in texts if KEY[start : start + 8] in text]
    assert KEY.encode() in wire.heard[0]


def test_a_key_in_a_reply_is_hidden_where_it_is_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client("http://127.0.0.1/v1")
    monkeypatch.setenv("LORULE_KEY", KEY)
    assert asked.hide(f"You sent {KEY}.") == "You sent ***."
    monkeypatch.setenv("LORULE_KEY", "EMPTY")  # what servers without keys are given
    assert asked.hide("The hall is EMPTY.") == "The hall is EMPTY."
    assert client("http://127.0.0.1/v1", key_variable=None).hide("As it is.") == "As it is."


def test_a_redirect_takes_the_key_nowhere(serve: Serve) -> None:
    other = serve(says(b'{"word": "stolen"}'))
    wire = serve(says(b"", "308 Moved", Location=other.url))
    assert fault(wire.url, Refused, retries=2) == (
        f"{wire.url} refused the request with HTTP 308 (it is to be found at {other.url}): "
        "give that address as `url` if it is to be trusted with the key"
    )
    assert (len(wire.heard), other.heard) == (1, [])


@pytest.mark.parametrize("status", ["302 Found", "304 Not Modified"])
def test_a_redirect_to_nowhere_is_a_no(serve: Serve, status: str) -> None:
    wire = serve(says(b"", status))
    assert fault(wire.url, Refused) == (
        f"{wire.url} refused the request with HTTP {status[:3]} (no reason given): check the URL, the model's name and "
        "the key"
    )


def test_a_redirect_is_shown_cleaned(serve: Serve) -> None:
    wire = serve(says(b"", "302 Found", Location="https://evil.invalid/" + KEY + "x" * 400))
    said = fault(wire.url, Refused)
    assert f"(it is to be found at https://evil.invalid/***{'x' * 175}…)" in said


def test_this_machine_is_asked_directly_whatever_the_proxies(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key goes in clear to this machine only, and a proxy would read it on the way."""
    proxy = serve(says(b'{"word": "stolen"}'))
    wire = serve(says(b'{"word": "Din"}'))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert ask(wire.url) == {"word": "Din"}
    assert ask(wire.url.replace("127.0.0.1", "localhost")) == {"word": "Din"}
    assert proxy.heard == []


def test_a_proxy_hears_of_the_host_and_never_of_the_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(says(b"", "407 Proxy Authentication Required"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://link:Ep0na-rides@127.0.0.1:{proxy.port}")
    said = fault(FAR, ConfigError, retries=3)
    assert said == (
        "the proxy lets nothing through to oracle.hyrule.invalid (407 Proxy Authentication Required): "
        "check the proxy's address, user and password"
    )
    assert len(proxy.heard) == 1
    assert proxy.heard[0].startswith(b"CONNECT oracle.hyrule.invalid:443 HTTP/1.1\r\n")
    assert b"Basic " + base64.b64encode(b"link:Ep0na-rides") in proxy.heard[0]
    assert KEY.encode() not in proxy.heard[0]


def test_a_proxy_that_fails_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{serve(says(b'', '502 Bad Gateway')).port}")
    assert fault(FAR) == f"{FAR} gave no reply in 1 attempt (the proxy failed: 502 Bad Gateway): try again later"


def test_a_proxy_carries_what_has_no_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(says(b'{"word": "Nayru"}'))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert ask("http://oracle.hyrule.invalid/v1", key_variable=None) == {"word": "Nayru"}
    assert proxy.heard[0].startswith(b"POST http://oracle.hyrule.invalid/v1/say HTTP/1.1\r\n")


ADVICE = "set HTTPS_PROXY to one, or NO_PROXY to oracle.hyrule.invalid where it is reached without"


@pytest.mark.parametrize(
    ("proxy", "line"),
    [
        (
            "socks5://127.0.0.1:1080",
            f"expected an http or https proxy for oracle.hyrule.invalid, found socks5: {ADVICE}",
        ),
        ("SOCKS5H://u:secret@h", f"expected an http or https proxy for oracle.hyrule.invalid, found socks5h: {ADVICE}"),
        ("socks4a://h:1", f"expected an http or https proxy for oracle.hyrule.invalid, found socks4a: {ADVICE}"),
        ("ftp://h:21", f"expected an http or https proxy for oracle.hyrule.invalid, found ftp: {ADVICE}"),
        (
            "http://u:secret@h:port",
            f"expected a proxy like http://proxy:3128 for oracle.hyrule.invalid, found no address: {ADVICE}",
        ),
        ("http://", f"expected a proxy like http://proxy:3128 for oracle.hyrule.invalid, found no address: {ADVICE}"),
        (
            "http://h:99999",
            f"expected a proxy like http://proxy:3128 for oracle.hyrule.invalid, found no address: {ADVICE}",
        ),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_can_not_be_used_is_one_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str, line: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    assert fault(FAR, ConfigError) == line
    monkeypatch.setenv("NO_PROXY", "oracle.hyrule.invalid")
    assert proxy_for(httpx2.URL(FAR)) is None, "it is not asked for where it is not needed"


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("oracle.hyrule.invalid", "", False),
        ("oracle.hyrule.invalid", "*", True),
        ("oracle.hyrule.invalid", "hyrule.invalid", True),
        ("oracle.hyrule.invalid", "lorule.invalid, .HYRULE.invalid", True),
        ("oracle.hyrule.invalid", "*.hyrule.invalid", True),
        ("oracle.hyrule.invalid", "oracle.hyrule.invalid:443", True),
        ("oracle.hyrule.invalid", "oracle.hyrule.invalid:8443", False),
        ("oracle.hyrule.invalid", "rule.invalid", False),
        ("oracle.hyrule.invalid", "oracle", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::5]", "fd00::/8", True),
        ("[fd00::5]", "[fd00::5]", True),
        ("[fe00::5]", "fd00::/8", False),
    ],
)
def test_no_proxy_is_kept_to(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.hyrule.invalid:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = proxy_for(httpx2.URL(f"https://{host}/v1"))
    assert (proxy is None) == direct
    assert proxy is None or str(proxy.url) == "http://proxy.hyrule.invalid:3128"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate that only itself vouches for."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=oracle.hyrule.invalid"
    )
    extra = ["-addext", "subjectAltName=DNS:oracle.hyrule.invalid", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(["openssl", *command.split(), *extra], cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem"


def tunnel(certificate: Path, inside: list[bytes]) -> Script:
    """A proxy's script: behind it is the host itself, which keeps what it is told inside of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as secure:
            inside.append(heard(secure))
            says(b'{"word": "Farore"}')(secure, b"")

    return script


def test_the_key_goes_through_a_proxy_inside_of_tls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    inside: list[bytes] = []
    proxy = serve(tunnel(certificate, inside))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask(FAR) == {"word": "Farore"}
    assert f"Authorization: Bearer {KEY}".encode() in inside[0]
    assert KEY.encode() not in b"".join(proxy.heard)


def test_a_host_that_nobody_vouches_for_never_hears_the_key(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    inside: list[bytes] = []
    proxy = serve(tunnel(certificate, inside))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert fault(FAR, ModelError, retries=3) == (
        "the certificate of oracle.hyrule.invalid can't be verified (self-signed certificate): "
        "check the URL, or set SSL_CERT_FILE to the certificates of your network"
    )
    assert (inside, len(proxy.heard)) == ([], 1)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("", "expected an endpoint like https://host/v1, found no scheme: mend `url`"),
        ("localhost:8000/v1", "expected an endpoint like https://host/v1, found no scheme: mend `url`"),
        ("https://", "expected an endpoint like https://host/v1, found no address: mend `url`"),
        ("https://[::1/v1", "expected an endpoint like https://host/v1, found no address: mend `url`"),
        ("https://hyrule.invalid:99999", "expected an endpoint like https://host/v1, found no address: mend `url`"),
        ("https://hyrule.invalid/\x1b[31m", "expected an endpoint like https://host/v1, found no address: mend `url`"),
        (
            "http://127.0.0.1\\@hyrule.invalid/v1",  # some read this machine here, some the other
            "the endpoint's URL may not hold a key, user or query: put the key into `key_variable`",
        ),
        (
            "http://127.0.0.1.hyrule.invalid/v1",
            "a key would go to 127.0.0.1.hyrule.invalid unencrypted: use https, or set `key_variable: null` if it "
            "takes none",
        ),
        (
            "http://10.0.0.5:8000/v1",
            "a key would go to 10.0.0.5 unencrypted: use https, or set `key_variable: null` if it takes none",
        ),
    ],
)
def test_an_address_that_is_none_is_one_line(url: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        client(url)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://hyrule.invalid/v1/", "hyrule.invalid/v1"),
        ("https://hyrule.invalid", "hyrule.invalid"),
        ("http://[::1]:8000/v1", "[::1]:8000/v1"),
        ("http://127.0.0.2:8000/v1", "127.0.0.2:8000/v1"),
    ],
)
def test_a_service_is_named_by_its_address(url: str, address: str) -> None:
    assert client(url).address == address


def test_no_variable_is_no_key() -> None:
    assert read_key(None) is None
