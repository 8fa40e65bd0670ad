"""The review as a page, shown to one browser on this machine: nothing else can read it or decide.

It listens on 127.0.0.1 alone, and each request must know the secret of its address and name this very host, which a
page that has its own name resolved to 127.0.0.1 (DNS rebinding) can't. A decision must come from the page itself
(Origin), and no other page is let read an answer (no CORS).
"""

import json
import secrets
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from isara.decisions import Decision
from isara.errors import IsaraError, RunError
from isara.report.page.html import served_page
from isara.report.review import REASONS, Desk

_HOST = "127.0.0.1"
_MOST_BYTES = 8_000_000  # of a decision
_KINDS = ("accept", "edit", "reject", "undo")
_ALLOWED = "; connect-src 'self'; img-src data:; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ReviewServer(ThreadingHTTPServer):
    """Shows a desk to whoever knows its address, until it is told that all is done, or is shut down.

    Args:
        desk: What is reviewed.
        port: Where it listens; 0 takes a free one.

    Raises:
        RunError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        self.desk = desk
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise RunError(f"can't listen on {_HOST}:{port} ({error.strerror}): give another --port") from None
        self.host = f"{_HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        """The address, secret included."""
        return f"http://{self.host}/{self.token}/"

    def server_bind(self) -> None:
        """Takes the port; the library would ask the network for this machine's name, too."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a browser that went away in the middle."""


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30  # seconds for a request to arrive
    server_version, sys_version = "ISARA", ""

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        if not self._may():
            return
        if self.path != f"/{self.server.token}/":
            self._refuse(404, "no such page")
            return
        text, policy = served_page(
            "review", content(self.server.desk), f"{self.server.desk.name} · ISARA review", _ALLOWED
        )
        self._send(200, text, "text/html", {"Content-Security-Policy": policy})

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()  # first of all: who sends one hears no answer before it is read
        if not self._may():
            return
        if self.headers.get("Origin") != f"http://{self.server.host}":
            self._refuse(403, "not from this page")
            return
        where = self.path.removeprefix(f"/{self.server.token}/")
        if body is None:
            self._refuse(400, "expected one decision as JSON")
        elif where == "decide":
            self._decide(body)
        elif where == "done":
            self._answer(200, {})
            threading.Thread(target=self.server.shutdown).start()
        else:
            self._refuse(404, "no such page")

    def _decide(self, body: dict[str, str]) -> None:
        fields = {name: body.get(name, "") for name in ("id", "decision", "question", "answer", "reason")}
        if fields["decision"] not in _KINDS:
            self._refuse(400, f"expected one of {', '.join(_KINDS)}")
            return
        if fields["decision"] != "edit":
            fields |= {"question": "", "answer": ""}
        try:
            self.server.desk.decide(Decision(**fields))  # type: ignore[arg-type]  # compared a moment ago
        except IsaraError as error:
            self._refuse(400, str(error))
            return
        self._answer(200, state(self.server.desk))

    def _may(self) -> bool:
        """Whether the request knows the secret and was sent to this host by its own name; else it is refused."""
        token = self.path.split("/")[1] if self.path.startswith("/") else ""
        known = secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        if known and self.headers.get("Host") == self.server.host:
            return True
        self._refuse(403, "not the address that `isara review` printed")
        return False

    def _body(self) -> dict[str, str] | None:
        """The body as an object of texts; None where it is none."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 12 and int(length) <= _MOST_BYTES):
            return None
        if self.headers.get_content_type() != "application/json":
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) and all(_is_text(value) for value in body.values()) else None

    def _refuse(self, status: int, why: str) -> None:
        self._answer(status, {"error": why})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value), "application/json", {"Content-Security-Policy": "default-src 'none'"})

    def _send(self, status: int, text: str, kind: str, headers: dict[str, str]) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the address holds a secret."""


def content(desk: Desk) -> dict[str, Any]:
    """What the page shows, JSON-ready."""
    named = {pair_id for row in desk.rows for pair_id, _ in row.near}
    return {
        "name": desk.name,
        "notice": desk.notice,
        "after": desk.after,
        "near": desk.beside,
        "reasons": REASONS,
        "texts": {each: [pair.question, pair.answer] for each, pair in desk.texts.items() if each in named},
        "rows": [
            {
                "id": row.pair.id,
                "q": row.pair.question,
                "a": row.pair.answer,
                "before": row.pair.before,
                "near": row.near,
                "scores": {name: round(float(score), 6) for name, score in row.scores.items()},
                "about": row.about,
            }
            for row in desk.rows
        ],
        **state(desk),
    }


def state(desk: Desk) -> dict[str, Any]:
    """What is decided, by row, and in which order, JSON-ready."""
    standing = desk.decisions
    names = ("decision", "question", "answer", "reason")
    return {
        "state": {row: {name: getattr(made, name) for name in names} for row, made in standing.items()},
        "order": list(standing),
    }


def _is_text(value: object) -> bool:
    """Whether it is a text that can be written: JSON may hold half a character."""
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)
