"""What a text states that nobody can infer: numbers, money, dates and times; contacts and addresses.

Each fact has a key, so that "1,000" and "1000", "4 pm" and "16:00", "€20" and "20 euros" are one. A text supports more
than it states: a date supports its year, a money amount the bare number, an e-mail address its host, and a number that
is written as a word ("two") is supported and never stated: "one" is more often a pronoun than a number.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Fact(NamedTuple):
    """A fact that a text states: its key, and how the text has it."""

    key: str
    text: str


_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
# With a capital: "you may 5 times" is no date.
_MONTH = (
    r"(?-i:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|"
    r"Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
# Groups of three digits, with what languages put between them; or digits alone. Then, perhaps, decimals.
_GROUPED = r"\d{1,3}(?:[,.'’ \u00a0\u202f]\d{3})+(?!\d)"
_NUMBER = rf"(?:{_GROUPED}|\d+)(?:[.,]\d+)?"
_SIGN, _CURRENCY = (
    "[$€£¥₹]",
    r"(?:[$€£¥₹]|(?:euros?|dollars?|pounds?|cents?|usd|eur|gbp|chf|sek|kronor|kr|yen|rupees)\b)",
)
_AMOUNT = re.compile(
    rf"""(?P<date>(?<!\w){_DAY}\s(?:of\s)?{_MONTH}(?:,?\s\d{{4}}\b)?
        | (?<!\w){_MONTH}\s(?:{_DAY}\b(?:,?\s\d{{4}}\b)?|\d{{4}}\b)
        | (?<![\w.])\d{{1,4}}([/.-])\d{{1,2}}\2\d{{1,4}}(?!\w))
    | (?P<time>(?<![\w.,:])(?:\d{{1,2}}(?:[:.][0-5]\d)?\s?[ap](?:m\b|\.m\.?)|\d{{1,2}}:[0-5]\d(?!\d)))
    | (?P<money>{_SIGN}\s?{_NUMBER} | (?<!\w){_NUMBER}\s?{_CURRENCY})
    | (?P<percent>(?<!\w){_NUMBER}\s?(?:%|percent\b|per\scent\b))
    | (?P<number>(?<!\w)(?<![^\W\d]-){_NUMBER})""",
    re.IGNORECASE | re.VERBOSE,
)
# "1. Boil water", "(2)", "Step 3": the number of a step states nothing.
_ENUMERATION = re.compile(r"^\s*\(?\d{1,2}[.):](?=\s)|\(\d{1,2}\)|\bstep\s\d{1,2}\b", re.IGNORECASE | re.MULTILINE)

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_UNITS += "seventeen eighteen nineteen".split()
_TENS = {
    word: 20 + 10 * place for place, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())
}
_WORDS = {word: value for value, word in enumerate(_UNITS)} | _TENS | {"hundred": 100, "thousand": 1000, "dozen": 12}
_NUMBER_WORD = re.compile(rf"\b(?:({'|'.join(_TENS)})[ -])?({'|'.join(_WORDS)})\b", re.IGNORECASE)

_HOST = r"(?:[a-z0-9-]+\.)+"
_DATES = re.compile(r"(?:19|20)\d\d-(?:19|20)\d\d|\d{1,2}([/.-])\d{1,2}\1\d{2,4}")
# Ends of names that are no English words, since a full stop without a space behind it is common.
_ENDS = (
    "com|org|net|edu|gov|io|info|biz|app|dev|shop|store|online|eu|uk|de|fr|es|nl|se|dk|fi|ch|pl|cz|pt|ca|au|nz|jp|cn|br"
)
_STREET = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Drive|Boulevard|Blvd|Square|Terrace|Crescent|Highway|Parkway)\b"
_CONTACTS = re.compile(
    rf"""(?P<email>(?<![\w.+-])[\w.+-]+@{_HOST}[a-z]{{2,}})
    | (?P<url>(?:https?://|www\.)[^\s<>"')\]]+ | (?<![\w@.-]){_HOST}(?:{_ENDS})\b(?:/[^\s<>"')\]]*)?)
    | (?P<handle>(?<![\w@./])@\w{{2,}})
    | (?P<phone>(?<!\w)(?:
          \+\d[\d\s().\-/]{{5,}}\d
        | \(?0{{1,2}}[1-9]\d{{0,4}}\)?[\s\-/.]?\d[\d\s\-/]{{3,}}\d
        | (?:1[-.\s])?\(?\d{{3}}\)?[-.\s]\d{{3}}[-.\s]\d{{4}}
        | \d{{3}}[-.]\d{{4}})(?!\w))
    | (?P<address>(?-i:\b\d{{1,5}}[a-z]?\s(?:[A-Z][\w'.]*\s){{1,3}}{_STREET})
        | (?-i:\b[A-Z][\w-]*(?:straße|strasse|gasse|platz|allee|weg|gatan|vägen)\s\d{{1,4}}[a-z]?\b)
        | (?-i:\b[A-Z]{{1,2}}\d[A-Z\d]?\s\d[A-Z]{{2}}\b) | (?-i:\b[A-Z]{{2}}\s\d{{5}}(?:-\d{{4}})?\b)
        | \bP\.?\s?O\.?\sBox\s\d+)""",
    re.IGNORECASE | re.VERBOSE,
)


@lru_cache(maxsize=4096)
def amounts(text: str) -> tuple[Fact, ...]:
    """The numbers, money amounts, percentages, dates and times of a text, contacts and numbers of steps aside."""
    return tuple(fact for fact, _ in _amounts(text))


@lru_cache(maxsize=4096)
def known_amounts(text: str) -> frozenset[str]:
    """The keys of every amount that a text supports."""
    keys = {key for _, supported in _amounts(text) for key in supported}
    for tens, unit in _NUMBER_WORD.findall(text):
        value = _WORDS[unit.lower()]
        keys |= {f"number {value}"} | ({f"number {_TENS[tens.lower()] + value}"} if tens else set())
    return frozenset(keys)


@lru_cache(maxsize=4096)
def contacts(text: str) -> tuple[Fact, ...]:
    """The e-mail addresses, URLs, telephone numbers, handles and postal addresses of a text."""
    return tuple(Fact(_contact_key(kind, found), found) for kind, found in _contacts(text))


@lru_cache(maxsize=4096)
def known_contacts(text: str) -> frozenset[str]:
    """The keys of every contact that a text supports: of an e-mail address and of a long URL, the host, too."""
    keys = set()
    for kind, found in _contacts(text):
        key = _contact_key(kind, found)
        keys.add(key)
        if kind == "email":
            keys.add(f"url {key.rpartition('@')[2]}")
        if kind == "url":
            keys.add(key.partition("/")[0])
    return frozenset(keys)


def _contacts(text: str) -> Iterator[tuple[str, str]]:
    for match in _CONTACTS.finditer(text):
        if _is_contact(match):
            yield str(match.lastgroup), match[0].rstrip(".,;:!?")


def _is_contact(match: re.Match[str]) -> bool:
    """Whether it is what it looks like: two years, and a date, look like a telephone number."""
    return match.lastgroup != "phone" or not _DATES.fullmatch(match[0])


def _contact_key(kind: str, found: str) -> str:
    if kind == "phone":  # with and without the country's number
        return f"phone {re.sub(r'[^0-9]', '', found)[-7:]}"
    if kind == "url":
        return f"url {re.sub(r'^(?:https?://)?(?:www[.])?', '', found.lower()).rstrip('/')}"
    return f"{kind} {' '.join(found.lower().split())}"


def _amounts(text: str) -> Iterator[tuple[Fact, set[str]]]:
    """Each amount with the keys that it supports."""
    for match in _AMOUNT.finditer(_ENUMERATION.sub(_blank, _CONTACTS.sub(_blank_contact, text))):
        kind, found = str(match.lastgroup), " ".join(match[0].split())
        numbers = [_value(number) for number in re.findall(_NUMBER, found)]
        if kind == "date":
            numbers = [str(int(number)) for number in re.findall(r"\d+", found)]
            month = next((name for name in _MONTHS if name in found), "")
            key = " ".join([*numbers, month]).strip()
            # A day with its month, and a month with its year.
            parts = {f"date {number} {month}" for number in numbers if month}
        elif kind == "time":
            hour, minute = [*map(int, re.findall(r"\d+", found)), 0][:2]
            # As a clock's face has it: whether 4:00 is in the afternoon, a text often leaves to its reader.
            key, numbers, parts = f"{hour % 12}:{minute:02}", [str(hour)], set()
        else:
            key, parts = numbers[0], set()
        yield Fact(f"{kind} {key}", found), {f"{kind} {key}", *(f"number {number}" for number in numbers), *parts}


def _blank_contact(match: re.Match[str]) -> str:
    return _blank(match) if _is_contact(match) else match[0]


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _value(number: str) -> str:
    """One spelling of a number: no groups, a point before decimals, no empty decimals or leading zeros."""
    whole, decimals = number, ""
    if not re.fullmatch(_GROUPED, number) and (split := re.search(r"[.,]\d+$", number)):
        whole, decimals = number[: split.start()], split[0][1:].rstrip("0")
    return (re.sub(r"\D", "", whole).lstrip("0") or "0") + (f".{decimals}" if decimals else "")
