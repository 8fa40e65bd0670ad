"""An OpenAI-compatible server of Hyrule, a token a word, which breaks in every way that a server can.

A thread in tests, or a program: `python tests/fake_server.py --model FOLDER --port PORT [--child] [--die SECONDS]`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from isara.records import Prompt, Sampling
from isara.testing import ScriptedEngine
from tests.doubles import hyrule


class FakeServer:
    """A server at a free port of this machine.

    Attributes:
        engine: Says what the model says.
        names: Of the models that it lists.
        ids: The text of each prompt that it takes as ids; None where it takes none.
        die_after: Requests after which it is gone, in the middle of a reply.
        hangs: Whether it never answers a completion.
        says: The reply to every completion, in the place of a true one: status and body.
        key: The only key that it takes.
        context: Words that prompt and completion may have.
        cuts: Whether it cuts what is longer, silently.
        echoes: Whether it gives log-probabilities of a prompt.
        delay: Seconds that a request takes, by its seed.
        loads: Whether it loads adapters.
        behind: Nats by which another word is less likely than its own, by its own; None gives no log-probabilities.
        longer: Tokens that it puts before each prompt.
        stale: Whether it goes on with its own weights where an adapter is asked for.
        adapters: The model folder of each adapter that it has loaded, by its name.
        asked: The bodies of all completions asked for.
    """

    def __init__(self, engine: ScriptedEngine, port: int = 0) -> None:
        self.engine = engine
        self.names, self.owner = ["hylian"], "fake"
        self.ids: dict[tuple[int, ...], str] | None = None
        self.die_after: int | None = None
        self.hangs = self.cuts = self.echoes = False
        self.says: tuple[int, Any] | None = None
        self.key: str | None = None
        self.context = 10**6
        self.delay: Callable[[int], float] = lambda seed: 0.0
        self.loads = self.stale = False
        self.behind: dict[str, dict[str, float]] | None = None
        self.longer = 0
        self.adapters: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self._over = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                whole = [{"id": name, "owned_by": fake.owner} for name in fake.names]
                beside = [{"id": name, "owned_by": fake.owner, "parent": fake.names[0]} for name in fake.adapters]
                fake._answer(self, 200, {"data": whole + beside})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("/completions"):
                    fake._complete(self, body)
                else:
                    fake._answer(self, *fake._adapter(self.path, body))

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        if self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            status, body = 401, {"error": {"message": "you have no rupees here"}}
        said = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(said)))
        handler.end_headers()
        handler.wfile.write(said)

    def _complete(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.asked.append(body)
        if self.hangs:
            self._over.wait()
        time.sleep(self.delay(body.get("seed", 0)))
        if self.die_after is not None and len(self.asked) > self.die_after:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            return
        self._answer(handler, *(self.says or self._said(body)))

    def _adapter(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if not self.loads:
            return 404, {"detail": "Not Found"}
        if path.endswith("/unload_lora_adapter"):
            del self.adapters[body["lora_name"]]
        else:
            self.adapters[body["lora_name"]] = str(Path(body["lora_path"]).parent)
        return 200, b"Success: the adapter"

    def _said(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] not in (*self.names, *self.adapters):
            return 404, {"error": {"message": f"no model {body['model']}"}}
        prompt, most = body["prompt"], body["max_tokens"]
        if isinstance(prompt, list):
            if self.ids is None:
                return 400, {"error": "the prompt must be text"}
            if body.get("echo"):
                values = [None] + [-0.5 * place for place in range(1, len(prompt))]
                scored = {"text": "", "finish_reason": "length", "logprobs": {"token_logprobs": values}}
                return (200, {"choices": [scored]}) if self.echoes else (400, {"error": "no echo in this cave"})
            prompt = self.ids[tuple(prompt)]
        words = len(prompt.split())
        if words + most > self.context and not self.cuts:
            return 400, {"error": {"message": f"the context has {self.context} tokens"}}
        sampling = Sampling(body["temperature"], body["top_p"], min(most, self.context - words), tuple(body["stop"]))
        loaded = None if self.stale else self.adapters.get(body["model"])
        [done] = (hyrule(loaded) if loaded else self.engine).generate([Prompt(prompt, ())], sampling, [body["seed"]])
        usage = {"prompt_tokens": words + self.longer, "completion_tokens": done.tokens}
        choice: dict[str, Any] = {"text": done.text, "finish_reason": done.finish}
        if body.get("logprobs") and self.behind is not None:
            tokens = re.findall(r"\s*\S+", done.text)
            others = [{other: -1 - nats for other, nats in self.behind.get(token, {}).items()} for token in tokens]
            choice["logprobs"] = {
                "tokens": tokens,
                "token_logprobs": [-1.0] * len(tokens),
                "top_logprobs": [{token: -1.0, **tops} for token, tops in zip(tokens, others, strict=True)],
            }
        return 200, {"choices": [choice], "usage": usage}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--child", action="store_true", help="have a child in a session of its own that won't end")
    parser.add_argument("--die", type=float, help="after so many seconds")
    parser.add_argument("--started", type=Path, help="a file that gets a line")
    given = parser.parse_args()
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", ignoring], start_new_session=True) if given.child else None
    if given.started:
        with given.started.open("a") as file:
            file.write(f"{os.getpid()} {child.pid if child else 0} {given.model}\n")
    if given.die is not None:
        time.sleep(given.die)
        sys.exit("the Triforce of Power\nis not in your hands")
    FakeServer(hyrule(given.model), given.port)
    threading.Event().wait()


if __name__ == "__main__":
    main()
