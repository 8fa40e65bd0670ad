"""What a text states that nobody can infer: numbers, money, dates and times; contacts and addresses.

Each fact has a key, so that "1,000" and "1000", "4 pm" and "16:00", "€20" and "20 euros", "3 May 2026" and "2026-05-03"
are one. A text supports more than it states: a date supports its year, a money amount the bare number, an e-mail
address its host, "9 to 5" the times, and a number that is written in words is supported and never stated: "one" is more
often a pronoun than a number. All patterns are of folded texts (`isara.filters.folding`).
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from isara.filters.folding import folded
from isara.filters.number_words import HAN, SCALES, added, in_digits, scales


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
# Groups of digits, with what languages put between them (the last is India's way); or digits alone. Then, perhaps,
# decimals. No number has more groups, and a limit keeps hostile texts cheap.
_THREES = "|".join(rf"(?:{mark}\d{{3}}){{1,9}}" for mark in (",", r"\.", "['’]", "[ \u00a0\u202f]"))
_GROUPED = rf"(?:[1-9]\d{{0,2}}(?:{_THREES})|[1-9]\d?(?:,\d\d){{1,9}},\d{{3}})(?!\d)"
# Digits and scales by turns are one number: 2千5百, 1万2千.
_SIGNED = r"\d{1,4}[百千万萬만亿億억]{1,2}(?!分之)"
_MIXED = folded(rf"(?:(?:{_SIGNED}){{2,4}}(?:\d{{1,4}}(?!\d))?|{_SIGNED}\d{{1,4}}(?!\d))")
_NUMBER = rf"(?:{_MIXED}|(?:{_GROUPED}|\d+)(?:[.,]\d+)?)"
_SCALE = folded(rf"(?:\s?(?:{'|'.join(SCALES)}|[百千万萬만亿億억](?!分之))(?!\w))?")
_SCALED = re.compile(rf"({_NUMBER})({_SCALE})", re.IGNORECASE)
_SIGN = folded("[$€£¥₹₩₽₺₪₫₴₦฿]")
# Before a number in capitals only: "rub 20 grams into it".
_CODE = "(?-i:USD|EUR|GBP|CHF|SEK|NOK|DKK|PLN|CZK|HUF|JPY|CNY|RMB|INR|KRW|HKD|SGD|AUD|CAD|NZD|ZAR|BRL|MXN|RUB)"
_CURRENCY = folded(
    rf"(?:{_SIGN}|(?:{_CODE}|euros?|dollars?|pounds?|cents?|usd|eur|gbp|chf|sek|kronor|kr|yen|yuan|rupees)\b|[元円원])"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_AMOUNT = re.compile(
    folded(
        rf"""(?P<quad>(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\d))
        | (?P<date>(?<!\w){_DAY}\s(?:of\s)?{_MONTH}(?:,?\s\d{{4}}\b)?
            | (?<!\w){_MONTH}\s(?:{_DAY}\b(?:,?\s\d{{4}}\b)?|\d{{4}}\b)
            | (?<![\w.])\d{{1,4}}([/.-])\d{{1,2}}\3\d{{1,4}}(?!\w)
            | (?<!\w)(?:\d{{4}}\s?[年년]\s?)?\d{{1,2}}\s?[月월]\s?\d{{1,2}}\s?[日号號일]
            | (?<!\w)\d{{4}}\s?[年년]\s?\d{{1,2}}\s?[月월])
        | (?P<time>(?<!\w)(?<!\d[.,:])(?:\d{{1,2}}(?:[:.][0-5]\d)?\s?[ap](?:m\b|\.m\.?)
            | \d{{1,2}}:[0-5]\d(?!\d) | \d{{1,2}}\.[0-5]\d\s?Uhr\b))
        | (?P<money>{_SIGN}\s?{_NUMBER}{_SCALE}
            | (?<!\w)(?:{_CODE}|usd|eur|gbp|chf|(?-i:kr|Rs)\.?)\s?{_NUMBER}{_SCALE}
            | (?<!\w){_NUMBER}{_SCALE}\s?{_CURRENCY})
        | (?P<percent>百分之\s?{_NUMBER} | (?<!\w){_NUMBER}\s?(?:%|(?:per\s?cent|prozent|procent)\b))
        | (?P<number>(?<!\w)(?<![^\W\d]-){_NUMBER}{_SCALE})"""
    ),
    re.IGNORECASE | re.VERBOSE,
)
# What a text supports beside: "9 to 5", "9–17 Uhr", "um 17 Uhr", "5 o'clock". "3 to 5 days" are no times.
_SUFFIX = r"(?:uhr|o['’]clock|[点點]|時(?!間)|시(?!간))"
_COUNTED = (
    r"(?:business|working|full)?\s?(?:days?|weeks?|months?|years?|hours?|min|minutes?|seconds?|people|persons?|times|"
    r"kg|g|cm|mm|km|ml|percent|euros?|dollars?|pounds?|tagen?|werktagen?|wochen|monaten?|jahren?|stunden|minuten|"
    r"prozent|dagar|arbetsdagar|veckor|månader|år|timmar|minuter|procent)\b"
)
_HOURS = re.compile(
    folded(
        rf"""(?<!\w)(?<!\d[-–./,:])(\d{{1,2}})(?:[:.]([0-5]\d))?(?:\s?(?:[ap]\.?m\b\.?|{_SUFFIX}))?
            \s?(?:[-–—~至到]|(?:to|until|till?|through|bis)\b)\s?(\d{{1,2}})(?:[:.]([0-5]\d))?
            (?!\d|[-–./,:]\d|\s?(?:[%°$€£¥₹天日周週年个個月人分岁歳일주]|{_COUNTED}))
        | (?<!\w)(?<!\d[-–./,:])(\d{{1,2}})(?:[:.]([0-5]\d))?\s?{_SUFFIX}"""
    ),
    re.IGNORECASE | re.VERBOSE,
)
# "1. Boil water", "(2)", "Step 3": the number of a step states nothing, where there is a list of them.
_HEAD = re.compile(folded(r"^[^\S\n]*\(?(\d{1,2})(?:[.):](?=[\s\U000f0000-\U000fffff])|[、．])"), re.MULTILINE)
_BRACKETED = re.compile(r"\(\d{1,2}\)")
_STEP = re.compile(r"\bstep\s\d{1,2}\b", re.IGNORECASE)

_LABEL = r"[a-z0-9\u00c0-\u024f-]+"
_HOST = rf"(?:{_LABEL}\.)+"
# Years, dates and ranges of hundreds, which look like telephone numbers.
_NO_PHONE = re.compile(r"(?:19|20)\d\d-(?:19|20)\d\d|\d{1,2}([/.-])\d{1,2}\1\d{2,4}|\d00-\d\d00")
# Ends of names that are no English words, since a full stop without a space behind it is common.
_ENDS = (
    "com|org|net|edu|gov|io|info|biz|app|dev|shop|store|online|eu|uk|de|fr|es|nl|se|dk|fi|ch|pl|cz|pt|ca|au|nz|jp|cn|br|"
    "ru|ai|ie|gr|hu|ro|tr|kr|tw|hk|sg|za|mx|ar|cl|ua"
)
_WORDLIKE = r"(?-i:[a-z0-9-]{3,}\.(?:co\.)?(?:it|in|us|be))"
_URL = r"""[^\s<>"“”«»')\]\U000f0000-\U000fffff]"""
_STREET = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Drive|Boulevard|Blvd|Square|Terrace|Crescent|Highway|Parkway)\b"
_RUE = r"(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Aa]llée|[Ii]mpasse|[Cc]hemin|[Qq]uai|[Cc]ours|[Rr]oute)"
_NAME = r"(?:(?:de|du|des|la|le|les)\s|[dl]['’]){0,2}[A-ZÀ-Þ][\w'’-]*"
_CONTACTS = re.compile(
    rf"""(?P<email>(?<![\w.+-])[a-z0-9_.+\u00c0-\u024f-]+@{_HOST}[a-z]{{2,}})
    | (?P<url>(?:https?://|www\.){_URL}+
        | (?<![\w@.-])(?:{_HOST}(?:{_ENDS})|(?:{_HOST})?{_WORDLIKE})\b(?:/{_URL}*)?)
    | (?P<handle>(?<![\w@./])@\w{{2,}})
    | (?P<phone>(?<!\w)(?:
          \+\d[\d\s().\-/]{{5,}}\d
        | (?<!\d[/.])(?!\d\d[/.-]\d\d[/.-]\d{{4}}\b)\(?0{{1,2}}[1-9]\d{{0,4}}\)?[\s\-/.]?\d[\d\s\-/]{{3,}}\d
        | (?:1[-.\s])?\(?\d{{3}}\)?[-.\s]\d{{3}}[-.\s]\d{{4}}
        | 1[3-9]\d[-\s]?\d{{4}}[-\s]?\d{{4}}
        | [6-9]\d{{4}}[-\s]\d{{5}}
        | [2-9]\d{{2}}[-.]\d{{4}})(?!\w))
    | (?P<address>(?-i:\b\d{{1,5}}[a-z]?\s(?:[A-Z][\w'.]*\s){{1,3}}{_STREET})
        | (?-i:\b\d{{1,4}}(?:\s(?:bis|ter))?,?\s{_RUE}\s{_NAME}(?:\s{_NAME}){{0,3}})
        | (?-i:(?<![\w-])[A-ZÀ-Þ][\w-]*(?:straße|strasse|gasse|platz|allee|weg|gatan|vägen)\s\d{{1,4}}[a-z]?\b)
        | (?-i:\b[A-Z]{{1,2}}\d[A-Z\d]?\s\d[A-Z]{{2}}\b) | (?-i:\b[A-Z]{{2}}\s\d{{5}}(?:-\d{{4}})?\b)
        | \bP\.?\s?O\.?\sBox\s\d+)""",
    re.IGNORECASE | re.VERBOSE,
)


@lru_cache(maxsize=4096)
def amounts(text: str) -> tuple[Fact, ...]:
    """The numbers, money amounts, percentages, dates and times of a text, contacts and numbers of steps aside."""
    return tuple(Fact(key, " ".join(text[slice(*span)].split())) for span, key, _ in _amounts(_bare(text)))


@lru_cache(maxsize=4096)
def known_amounts(text: str) -> frozenset[str]:
    """The keys of every amount that a text supports, as it is and with digits for its number words."""
    bare = _bare(text)
    spelled, numbers = in_digits(bare)
    keys = {f"number {number}" for number in numbers}
    for form in {bare, spelled}:
        keys.update(*(supported for _, _, supported in _amounts(form)))
        keys |= _hours(form)
    return frozenset(keys)


@lru_cache(maxsize=4096)
def contacts(text: str) -> tuple[Fact, ...]:
    """The e-mail addresses, URLs, telephone numbers, handles and postal addresses of a text."""
    return tuple(
        Fact(_contact_key(kind, found), text[start : start + len(found)]) for kind, found, start in _contacts(text)
    )


@lru_cache(maxsize=4096)
def known_contacts(text: str) -> frozenset[str]:
    """The keys of every contact that a text supports: of an e-mail address and of a long URL, the host, too."""
    keys = set()
    for kind, found, _ in _contacts(text):
        key = _contact_key(kind, found)
        keys.add(key)
        if kind == "email":
            keys.add(f"url {key.rpartition('@')[2]}")
        if kind == "url":
            keys.add(key.partition("/")[0])
    return frozenset(keys)


def _contacts(text: str) -> Iterator[tuple[str, str, int]]:
    for match in _CONTACTS.finditer(folded(text)):
        if _is_contact(match):
            yield str(match.lastgroup), match[0].rstrip(".,;:!?،؛؟।…"), match.start()


def _is_contact(match: re.Match[str]) -> bool:
    """Whether it is what it looks like: two years, and a date, look like a telephone number."""
    return match.lastgroup != "phone" or not _NO_PHONE.fullmatch(match[0])


def _contact_key(kind: str, found: str) -> str:
    if kind == "phone":  # with and without the country's number
        return f"phone {re.sub(r'[^0-9]', '', found)[-7:]}"
    if kind == "url":
        return f"url {re.sub(r'^(?:https?://)?(?:www[.])?', '', found.lower()).rstrip('/')}"
    return f"{kind} {' '.join(found.lower().replace(',', ' ').split())}"


def _bare(text: str) -> str:
    """The folded text, with blanks for contacts and numbers of steps."""
    text = _CONTACTS.sub(lambda match: _blank(match) if _is_contact(match) else match[0], folded(text))
    heads, steps = _HEAD.findall(text), [_STEP]
    if len(heads) > 1 or heads == ["1"]:
        steps.append(_HEAD)
    if "(1)" in text:
        steps.append(_BRACKETED)
    for step in steps:
        text = step.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _amounts(bare: str) -> Iterator[tuple[tuple[int, int], str, set[str]]]:
    """Each amount's place and key, and the keys that it supports."""
    for match in _AMOUNT.finditer(bare):
        kind, found = str(match.lastgroup), " ".join(match[0].split())
        if kind == "date":
            key, supported = _date(found)
        elif kind == "time":
            key, supported = _time(found)
        elif kind == "quad":
            key, supported = f"number {found}", set()
        else:
            value = _value(found)
            key, supported = f"{kind} {value}", {f"number {value}"}
        yield match.span(), key, {key} | supported


def _date(found: str) -> tuple[str, set[str]]:
    """The key of a date, and the keys of its parts; a date that reads in two ways has all parts of both."""
    parts = re.findall(r"\d+", found)
    keys = {f"number {int(part)}" for part in parts}
    readings = [reading for reading in _readings(found, parts) if reading[1] in range(1, 13) and reading[2] < 32]
    key = f"date {' '.join(parts)}"
    for year, month, day in readings:
        # One key for both readings, which each of them supports.
        either = f"date {year}-{min(month, day)}|{max(month, day)}"
        key = f"date {year}-{month}-{day}"
        keys |= {key, either, f"date 0-{month}-{day}", f"date {year}-{month}-0", f"number {year or day}"}
        key = either if len(set(readings)) > 1 else key
    return key, keys


def _readings(found: str, parts: list[str]) -> list[tuple[int, int, int]]:
    """Year, month and day in each way that a date reads; 0 is what it does not say."""
    first, second, third = [*map(int, parts), 0, 0][:3]
    if name := re.search("[A-Z][a-z]{2}", found):
        day, year = (first, second) if len(parts[0]) < 3 else (0, first)
        return [(year, _MONTHS.index(name[0]) + 1, day)]
    if len(parts[0]) == 4:
        return [(first, second, third)]
    if len(parts) == 2:
        return [(0, first, second)]
    if len(parts[2]) not in (2, 4):  # 1.2.3 is a version
        return []
    year = third if len(parts[2]) == 4 else third + (2000 if third < 70 else 1900)
    return [(year, second, first), (year, first, second)]


def _time(found: str) -> tuple[str, set[str]]:
    """The key of a time, and the numbers of its hour on clocks of 12 and of 24 hours."""
    hour, minute = [*map(int, re.findall(r"\d+", found)), 0][:2]
    hours = {hour, hour - 12 if hour > 12 else hour, hour + 12 if "p" in found.lower() and hour < 12 else hour}
    return _clock(hour, minute), {f"number {number}" for number in hours}


def _clock(hour: int, minute: int) -> str:
    """The key as a clock's face has it: whether 4:00 is in the afternoon, a text often leaves to its reader."""
    return f"time {hour % 12}:{minute:02}"


def _hours(text: str) -> set[str]:
    """The keys of times, and of their hours, that a text has as "9 to 5" or "17 Uhr"."""
    keys = set()
    for match in _HOURS.finditer(text):
        first, first_minute, last, last_minute, alone, minute = (int(part or 0) for part in match.groups())
        if match[5]:
            first, first_minute, last, last_minute = alone, minute, alone, minute
        if max(first, last) > 24:
            continue
        keys |= {_clock(first, first_minute), _clock(last, last_minute)}
        keys |= {f"number {hour - 12}" for hour in (first, last) if hour > 12}
        if last < first <= 12:  # the last is in the afternoon
            keys.add(f"number {last + 12}")
    return keys


def _value(found: str) -> str:
    """One spelling of an amount's number: no groups, a point before decimals, no empty decimals or leading zeros."""
    match = _SCALED.search(found)
    assert match, found
    number, scale = match[1], match[2].strip().lower()
    if parts := re.findall(folded(r"(\d+)([百千万萬만亿億억]*)"), number) if re.fullmatch(_MIXED, number) else []:
        return str(added([pair for digits, signs in parts for pair in ((int(digits), False), *scales(signs))]))
    whole, decimals = number, ""
    if not re.fullmatch(_GROUPED, number) and (split := re.search(r"[.,]\d+$", number)):
        whole, decimals = number[: split.start()], split[0][1:].rstrip("0")
    value = (re.sub(r"\D", "", whole).lstrip("0") or "0") + (f".{decimals}" if decimals else "")
    if not scale:
        return value
    return f"{(Decimal(value) * (SCALES.get(scale) or HAN[scale])).normalize():f}"
