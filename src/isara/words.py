"""Words and scripts of any language's text, the ground that the filters stand on."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from rapidfuzz.distance import LCSseq

# First words of the Unicode names of letters that are written without spaces: there, a character is a token.
_UNSPACED = frozenset("CJK HIRAGANA KATAKANA BOPOMOFO THAI LAO KHMER MYANMAR TIBETAN YI JAVANESE BALINESE".split())
# Japanese mixes these, in shares that differ from one sentence to the next.
_ONE_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}


def tokenize(text: str) -> list[str]:
    """Words of the text in lower case; characters where a script has no spaces.

    On ASCII text these are the tokens of `rouge_score`, which knows no other letters. Marks (Hindi vowel signs, Thai
    tones) stay with their letter, and texts that differ in Unicode normal form alone have the same tokens.
    """
    if text.isascii():
        return re.findall("[a-z0-9]+", text.lower())
    found: list[str] = []
    last = ""
    for char in unicodedata.normalize("NFKC", text).casefold():
        kind = _kind(char)
        if kind == "invisible":
            continue
        if (kind == "mark" and last) or (kind == "letter" and last == "letter"):
            found[-1] += char
            continue
        if kind != "":
            found.append(char)
        last = "letter" if kind == "mark" else kind
    return found


def ngrams(tokens: Sequence[str], n: int) -> Iterator[str]:
    """The runs of n tokens, each joined by spaces."""
    return (" ".join(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def repeated_share(tokens: Sequence[str], n: int) -> float:
    """Share of tokens in n-grams that occurred earlier in the text, in [0, 1).

    The duplicate n-gram fraction of Gopher (Rae et al. 2021, table A1), counted in tokens instead of characters so that
    it means the same in every script. Repeats don't overlap: after one, the search goes on behind it.
    """
    seen: set[str] = set()
    grams = list(ngrams(tokens, n))
    repeated = index = 0
    while index < len(grams):
        if grams[index] in seen:
            repeated += n
            index += n
        else:
            seen.add(grams[index])
            index += 1
    return repeated / len(tokens) if tokens else 0.0


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """ROUGE-L F of two token sequences, 2·LCS / (m + n), in [0, 1]; 0 where both are empty (Lin 2004)."""
    total = len(one) + len(other)
    return 2 * LCSseq.similarity(one, other) / total if total else 0.0


def main_script(text: str) -> str:
    """The script of most of the text's letters as Unicode names it ("LATIN", "CYRILLIC", "CJK"); "" without letters."""
    scripts = Counter(script for char in unicodedata.normalize("NFKC", text) if (script := _script(char)))
    return scripts.most_common(1)[0][0] if scripts else ""


@cache
def _kind(char: str) -> str:
    """Which part a character plays in a token: "letter", "alone", "mark", "invisible" or, between tokens, ""."""
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category == "Cf":
        return "invisible"
    if category[0] not in "LN":
        return ""
    return "alone" if _name(char) in _UNSPACED else "letter"


@cache
def _script(char: str) -> str:
    return _ONE_SCRIPT.get(_name(char), _name(char)) if char.isalpha() else ""


def _name(char: str) -> str:
    return re.split("[ -]", unicodedata.name(char, "UNNAMED"))[0]
