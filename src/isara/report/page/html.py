"""One self-contained file of a page's data: no network, no framework, nothing in it runs but its own script.

Texts of models reach the page as JSON in an element that no browser runs, and the document as text nodes alone.
"""

import base64
import hashlib
import html
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from isara.marks import clean

log = logging.getLogger("isara")

FILE_NAME = "report.html"

# What would end or open an element in the middle of the data, and line ends that only JSON allows in a string.
# A half of a surrogate pair can't be written as UTF-8 at all.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def page(name: str, data: Mapping[str, Any], title: str) -> str:
    """A whole file, which names its own policy.

    Args:
        name: Of its body, and of its script and style sheet beside those that all pages share.
        data: What the script shows, JSON-ready.
        title: Of the window.
    """
    policy = _policy(name)
    return _compose(name, data, title, f'<meta http-equiv="Content-Security-Policy" content="{policy}">')


def served_page(name: str, data: Mapping[str, Any], title: str, allowed: str) -> tuple[str, str]:
    """A whole file and its policy, for the header that it is sent with.

    Args:
        name: As for `page`.
        data: As for `page`.
        title: As for `page`.
        allowed: What the policy is to say beside that nothing but the page's own script runs.
    """
    # Else a browser asks the server for an icon.
    return _compose(name, data, title, '<link rel="icon" href="data:,">'), _policy(name) + allowed


def _compose(name: str, data: Mapping[str, Any], title: str, head: str) -> str:
    pieces = {
        "HEAD": head,
        "TITLE": html.escape(_UNSAFE.sub("\ufffd", title)),
        "STYLE": _style(name),
        "BODY": _part(f"{name}.html"),
        "DATA": safe_json(data),
        "SCRIPT": _script(name),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: pieces[found[1]], _part("frame.html"))


def _policy(name: str) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(_script(name))}'; style-src '{_hash(_style(name))}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _script(name: str) -> str:
    return _part("nodes.js") + _part(f"{name}.js")


def _style(name: str) -> str:
    return _part("frame.css") + _part(f"{name}.css")


@contextmanager
def refreshing(folder: Path) -> Iterator[None]:
    """Around the writing of a folder's page: where that fails, a line in the log says why, and the work goes on."""
    try:
        yield
    except Exception as error:  # whatever it is, hours of work must not be lost for a picture of them
        log.warning(
            "%s was not written (%s: %s); `isara report %s` writes it again",
            folder / FILE_NAME,
            type(error).__name__,
            clean(str(error), 200),
            folder,
        )


def safe_json(data: Any) -> str:
    """JSON that can stand within a script element: whatever its texts are, it ends where it should."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _part(name: str) -> str:
    return (files("isara.report.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
