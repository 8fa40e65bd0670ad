"""Marks that no text of a pair should hold: of turns, of models' control tokens, and characters that nobody sees."""

import os
import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache

# What is the control token of some chat format and nothing else: ChatML, Llama 2 and 3, Phi, Gemma, DeepSeek,
# Mistral, Cohere, Granite, Kimi, gpt-oss, Nemotron, GLM, MiniMax.
_TOKENS = r"""<[|｜][^|｜<>\s]{1,40}[|｜]> | <\|[a-z_]{1,20}> | <[a-z_]{1,20}\|>
    | <(?:start|end)_of_(?:turn|image)> | <extra_id_\d+> | <SPECIAL_\d+> | <</?SYS>> | \]~b\] | \[e~\[
    | \[/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|gMASK)\]"""
_TOKEN = re.compile(_TOKENS, re.VERBOSE)
# What stands between pairs in few-shot prompts and chat templates. `<s>` is a model's start, and HTML's strike-through.
_TURN = re.compile(
    rf"""(?:Question|Answer)\s?:
    | ^\s*(?:Q|A|User|Human|Assistant)\s?:
    | ^\s*(?:user|assistant)\s*$
    | ^\#{{2,}}\s*(?:Instruction|Input|Response|Question|Answer|User|Human|Assistant)\b
    | </?s> | {_TOKENS}""",
    re.MULTILINE | re.VERBOSE,
)
_LABEL = re.compile(r"\s*((?:Question|Answer|Prompt|Response|User|Assistant|Human|Q|A)\s?:)", re.IGNORECASE)
_THOUGHT = re.compile(
    r"</?(?:\w{1,20}:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)>|\[/?THINK\]", re.IGNORECASE
)
# Overrides of the direction, and tags that are no part of a flag: they show a reader another text than the model's.
_DISGUISE = re.compile("[\u202d\u202e]|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]")
_JOINERS = "\u200c\u200d"  # without them Persian, Hindi and many emoji are other texts
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]")
# Fillers and blanks that Unicode counts among letters, marks and symbols.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def turn_mark(text: str) -> str | None:
    """The first mark of a next turn ("Answer:", "User:", "[INST]" …) in a text, or None."""
    mark = _TURN.search(text)
    return mark[0].strip() if mark else None


def opening_label(text: str) -> str | None:
    """The label ("Question:", "A:" …) that a text starts with and that prompts write themselves, or None."""
    label = _LABEL.match(text)
    return label[1] if label else None


def special_token(text: str, own: Collection[str] = ()) -> str | None:
    """The first control token of any chat format, or of a model's own, that a text holds; or None."""
    token = _TOKEN.search(text)
    found = [(token.start(), token[0])] if token else []
    if own and (mine := _any_of(tuple(own)).search(text)):
        found.append((mine.start(), mine[0]))
    return min(found)[1] if found else None


@lru_cache(maxsize=8)
def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(filter(str.strip, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def thought_mark(text: str) -> str | None:
    """The first mark of a thought ("<think>" …) in a text, or None."""
    mark = _THOUGHT.search(text)
    return mark[0] if mark else None


def broken_characters(text: str) -> list[str]:
    """The characters of a text that stand for nothing or show another text than there is, each once, in order.

    U+FFFD (a wrong decoding), control and private-use characters, overrides of the direction, hidden tags.
    """
    if text.isascii() and text.isprintable():
        return []
    odd = {char for char in set(text) if char == "\ufffd" or unicodedata.category(char) in ("Cc", "Co", "Cs")}
    return sorted((odd - set("\n\r\t")) | set(_DISGUISE.findall(text)))


def zero_width(text: str) -> str | None:
    """The first character of no width in a text, joiners of scripts aside; or None."""
    found = _ZERO_WIDTH.search(text)
    return found[0] if found else None


def is_visible(text: str) -> bool:
    """Whether anything of a text can be seen: not spaces, control, format and filling characters alone."""
    return any(
        not (char.isspace() or unicodedata.category(char) in ("Cc", "Cf") or _UNSEEN.match(char)) for char in text
    )


def visible(text: str) -> str:
    """Text from outside as it may be shown whole: it must not move the cursor, nor hide or reorder what it says.

    Control characters, bidi marks, characters of no width, tags, halves of surrogate pairs, private and unassigned ones
    become U+FFFD. New lines, tabs, and the joiners that scripts need stay.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_replaced, text))


def clean(text: str, limit: int) -> str:
    """Text from outside as one line of a message may show it: at most `limit` characters, each one visible.

    White space of any kind becomes one space. Control characters (terminals obey them), format characters (bidi
    overrides, zero-width characters, tags), halves of surrogate pairs, private and unassigned ones are left out.
    """
    # An enormous text is cut first: only its beginning can be shown.
    words = " ".join("".join(_seen(character) for character in text[: 20 * limit + 1000]).split())
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"


def _seen(character: str) -> str:
    if character.isspace():
        return " "
    return "" if _hides(character) else character


def _replaced(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    return "\ufffd" if _hides(character) or unicodedata.category(character) in ("Zl", "Zp") else character


def _hides(character: str) -> bool:
    # Cc, Cf, Cs, Co and Cn; the variation selectors beside the tags are marks, though nothing is seen of them.
    return unicodedata.category(character).startswith("C") or 0xE0000 <= ord(character) < 0xE1000


def told_apart(one: str, other: str, most: int) -> tuple[str, str]:
    """Two texts as `clean` shows them, from shortly before they part where their beginnings alone would look alike."""
    shown = clean(one, most), clean(other, most)
    if one == other or shown[0] != shown[1]:
        return shown
    start = max(0, len(os.path.commonprefix([one, other])) - most // 4)
    return f"…{clean(one[start:], most)}", f"…{clean(other[start:], most)}"
