"""One self-contained file of a page's data: no network, no framework, nothing in it runs but its own script.

Texts of models reach the page as JSON in an element that no browser runs, and the document as text nodes alone.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# What would end or open an element in the middle of the data, and line ends that only JSON allows in a string.
# A half of a surrogate pair can't be written as UTF-8 at all.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def page(data: Mapping[str, Any], title: str) -> str:
    """The whole file of a run's page.

    Args:
        data: What the script shows, JSON-ready.
        title: Of the window.
    """
    return compose("page", data, title)[0]


def compose(name: str, data: Mapping[str, Any], title: str, also: str = "") -> tuple[str, str]:
    """A whole file, and the policy that lets nothing in it run but its own script.

    Args:
        name: Of its HTML, its script and, beside the one that all pages share, its style sheet.
        data: What the script shows, JSON-ready.
        title: Of the window.
        also: What the policy is to say beside that.
    """
    script = _part("nodes.js") + _part(f"{name}.js")
    style = "".join(map(_part, dict.fromkeys(("page.css", f"{name}.css"))))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        f"form-action 'none'{also}"
    )
    pieces = {
        "POLICY": policy,
        "TITLE": html.escape(_UNSAFE.sub("\ufffd", title)),
        "STYLE": style,
        "DATA": safe_json(data),
        "SCRIPT": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: pieces[found[1]], _part(f"{name}.html")), policy


def safe_json(data: Any) -> str:
    """JSON that can stand within a script element: whatever its texts are, it ends where it should."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _part(name: str) -> str:
    return (files("isara.report.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
