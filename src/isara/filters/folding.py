r"""Texts folded to ASCII digits and marks, one character to one, whatever script they are in.

Letters of scripts that put no spaces between words stand in a plane of their own then, where `\w` and `\b` take them
for no part of a word.
"""

import re
import unicodedata
from functools import cache

# Thai to Myanmar, Hangul (particles stick to its numbers), Khmer, Balinese; Chinese, Japanese and Yi; Javanese; Hangul;
# Chinese; half- and full-width forms; rare Chinese.
_UNSPACED = (
    ("\u0e00", "\u109f"), ("\u1100", "\u11ff"), ("\u1780", "\u17ff"), ("\u1b00", "\u1b7f"), ("\u2e80", "\ua4cf"),
    ("\ua960", "\ua9ff"), ("\uac00", "\ud7ff"), ("\uf900", "\ufaff"), ("\uff00", "\uffef"),
    ("\U00020000", "\U0003ffff"),
)  # fmt: skip
_APART = 0xF0000  # for private use, so no text means anything by it
_WIDE = ord("！") - ord("!")
_MARKS = dict(zip("٫٬٪‐‑−￥￡", ".,%---¥£", strict=True))


@cache
def _folded_char(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    # Of full-width marks these end a sentence, or a URL; _BESIDE_DIGITS has the others.
    if "！" <= char <= "～" and char not in "！，．：；？（）":
        return chr(ord(char) - _WIDE)
    if any(first <= char <= last for first, last in _UNSPACED) and not char.isspace() and char not in _MARKS:
        return chr(_APART + ord(char) % 0x10000)
    return _MARKS.get(char, char)


def _folded_chars(text: str) -> str:
    return "".join(map(_folded_char, text))


_BESIDE_DIGITS = re.compile(
    _folded_chars(r"(?<=\d)(?:，(?=\d{3}(?!\d))|：(?=\d)|）)|(?<=[a-z\d])．(?=[a-z\d])|(?<![a-z\d/])（(?=\d)"),
    re.IGNORECASE,
)


def folded(text: str) -> str:
    """The text, or a pattern, with ASCII digits and marks, each character in its place."""
    if text.isascii():
        return text
    return _BESIDE_DIGITS.sub(lambda wide: chr(ord(wide[0]) - _APART - _WIDE), _folded_chars(text))
