"""A real browser without a window, driven over WebDriver (W3C) with the standard library alone."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]


def can_browse() -> bool:
    """Whether Chromium and its driver are on this machine."""
    return bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome")))


class Browser:
    """One window; `run` is JavaScript in the page, which the page's own policy does not hold back."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def open(self, url: str) -> None:
        self._ask("POST", "url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        return self._ask("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def settle(self, script: str, wanted: Any, seconds: float = 10) -> Any:
        """What the script says as soon as it is what is wanted, or after so many seconds."""
        end = time.monotonic() + seconds
        while (said := self.run(script)) != wanted and time.monotonic() < end:
            time.sleep(0.05)
        return said

    def press(self, keys: str, held: str = "") -> None:
        """Types into what has the focus, with a key held down meanwhile."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        if held:
            actions = [{"type": "keyDown", "value": held}, *actions, {"type": "keyUp", "value": held}]
        self._ask("POST", "actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the page itself: a window would not be as narrow as a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "screenshot")))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since it was last asked for: "browser" is the console, "performance" holds the requests."""
        return list(self._ask("POST", "se/log", {"type": kind}))

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        self._ask("DELETE", "")

    def _devtools(self, command: str, values: dict[str, Any]) -> None:
        self._ask("POST", "goog/cdp/execute", {"cmd": command, "params": values})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _request(method, f"{self._address}/{path}".rstrip("/"), body)


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser of its own, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address)
        wanted = {
            "goog:chromeOptions": {"args": [*_OPTIONS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = _request("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        browser = Browser(address, made["sessionId"])
        try:
            browser.open("about:blank")  # a new window's own page has asked for much, though not of a network
            browser.log("performance")
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(20)


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            if _request("GET", f"{address}/status", None)["ready"]:
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("chromedriver did not start")


def _request(method: str, url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as reply:
            return json.load(reply)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
