"""Texts as they go on from here: one kind of line end, nothing invisible around them."""

from typing import Any

from isara.data.faults import fault, kind
from isara.marks import is_visible

MOST_CHARACTERS = 1_000_000  # no model reads more


def plain_text(value: Any, column: str, where: str) -> str:
    r"""The text without what nobody sees around it, its line ends "\n"; "" where nothing of it can be seen.

    Raises:
        SeedError: It is no text, holds half a character, or is longer than any model reads.
    """
    if not isinstance(value, str):
        raise fault(where, f"text in `{column}`", kind(value), "put a text there or drop the row")
    if len(value) > MOST_CHARACTERS:
        most = f"at most {MOST_CHARACTERS:,} characters in `{column}`"
        raise fault(where, most, f"{len(value):,}", "cut the text or drop the row")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise fault(where, f"Unicode text in `{column}`", "half a character (\\ud800-\\udfff)", "mend it")
    if not is_visible(value):
        return ""
    # U+FEFF at the ends is what is left of a byte order mark, and U+200B of a web page.
    return value.replace("\r\n", "\n").replace("\r", "\n").strip().strip("\ufeff\u200b").strip()
