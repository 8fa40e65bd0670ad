"""A real browser without a window, driven over WebDriver (W3C) with the standard library alone.

What every page is asked is asked here: that it is alone, fits, and is no trouble to a screen reader.
"""

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

import pytest

_OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))):
        pytest.skip("no chromium with chromedriver on this machine")
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Browser:
    """One window; `run` is JavaScript in the page, which the page's own policy does not hold back."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def open(self, url: str) -> None:
        self._ask("POST", "url", {"url": url})

    def fresh(self, url: str) -> "Browser":
        """Opens a page in a window of the usual size; what was asked for and logged before is forgotten."""
        self.open("about:blank")
        self.resize(1280, 900)
        self.log("performance"), self.log("browser")
        self.open(url)
        return self

    def alone(self, page: Path) -> "Browser":
        """Opens a page from disk, which asks for nothing else and logs no error."""
        self.fresh(page.as_uri())
        assert self.requests() == [page.as_uri()]
        assert self.log("browser") == []
        return self

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

    def fits(self, width: int) -> bool:
        """Whether nothing of the page is wider than a window of that width."""
        self.resize(width, 900)
        return bool(self.run("return document.documentElement.scrollWidth <= innerWidth"))

    def serious(self, dark: bool, *openings: str) -> list[str]:
        """What axe-core finds serious on the page, and after each of these scripts."""
        axe = pytest.importorskip("axe_core_python", reason="axe-core is not installed")
        self.resize(1280, 900, dark)
        self.run((Path(axe.__file__).parent / "axe.min.js").read_text() + "; window.axe = axe")
        found: list[str] = []
        for opening in ("", *openings):
            self.run(
                f"{opening}; window.found = null; axe.run().then((all) => {{ window.found = all.violations.filter("
                "(each) => ['serious', 'critical'].includes(each.impact)).map((each) => each.id); })"
            )
            end = time.monotonic() + 60
            while (ids := self.run("return window.found")) is None and time.monotonic() < end:
                time.sleep(0.05)
            found += ["axe-core did not end"] if ids is None else ids
        return found

    def choose(self, box: str, value: str) -> None:
        """Takes a value in the list of that id."""
        self.run(
            "const list = document.getElementById(arguments[0]); list.value = arguments[1]; "
            "list.dispatchEvent(new Event('change'))",
            box,
            value,
        )

    def text(self, box: str) -> str:
        """What the element of that id shows."""
        return str(self.run("return document.getElementById(arguments[0]).innerText", box))

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
