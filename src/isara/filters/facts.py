r"""What a text states that nobody can infer: numbers, money, dates and times; contacts and addresses.

Each fact has a key, so that "1,000" and "1000", "4 pm" and "16:00", "€20" and "20 euros", "3 May 2026" and "2026-05-03"
are one. A text supports more than it states: a date supports its year, a money amount the bare number, an e-mail
address its host, "9 to 5" the times, and a number that is written in words is supported and never stated: "one" is more
often a pronoun than a number.

Texts are folded first, one character to one: digits and marks of any script are ASCII then, and letters of scripts that
put no spaces between words stand in a plane of their own, where `\w` and `\b` take them for no part of a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache, lru_cache
from typing import NamedTuple


class Fact(NamedTuple):
    """A fact that a text states: its key, and how the text has it."""

    key: str
    text: str


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


def _folded(text: str) -> str:
    """The text, or a pattern, with ASCII digits and marks, each character in its place."""
    if text.isascii():
        return text
    return _BESIDE_DIGITS.sub(lambda wide: chr(ord(wide[0]) - _APART - _WIDE), _folded_chars(text))


_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_UNITS += "seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
_ORDINALS += [f"{unit}th" for unit in _UNITS[13:]]
_GERMAN = "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn".split()
_GERMAN += "sechzehn siebzehn achtzehn neunzehn".split()
_GERMAN_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
_SWEDISH = "noll en två tre fyra fem sex sju åtta nio tio elva tolv tretton fjorton femton sexton sjutton".split()
_SWEDISH += "arton nitton".split()
_SWEDISH_TENS = "tjugo trettio fyrtio femtio sextio sjuttio åttio nittio".split()


def _small_words() -> dict[str, int]:
    """The number words below 100: of English without those of two parts, of German and Swedish with them."""
    words = dict.fromkeys("eins eine einen einem einer ett".split(), 1) | {"zwo": 2, "dreissig": 30}
    for units in (_UNITS, _ORDINALS, _GERMAN, _SWEDISH):
        words |= {word: value for value, word in enumerate(units)}
    for place in range(8):
        tens = 20 + 10 * place
        words |= {_TENS[place]: tens, f"{_TENS[place][:-1]}ieth": tens, _GERMAN_TENS[place]: tens}
        words |= {_SWEDISH_TENS[place]: tens, f"{_SWEDISH_TENS[place]}ett": tens + 1}
        for unit in range(1, 10):
            words[f"{_GERMAN[unit]}und{_GERMAN_TENS[place]}"] = tens + unit
            words[f"{_SWEDISH_TENS[place]}{_SWEDISH[unit]}"] = tens + unit
    return words


_WORDS = _small_words()
_THOUSANDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {"dozen": 12, "hundred": 100, "hundert": 100, "hundra": 100, "tausend": 1000, "tusen": 1000} | _THOUSANDS
_HAN = {
    _folded(char): value
    for chars, value in (
        *zip("零一二三四五六七八九", range(10), strict=True),
        ("〇", 0), ("两兩", 2), ("十", 10), ("百", 100), ("千", 1000), ("万萬만", 10**4), ("亿億억", 10**8),
    )
    for char in chars
}  # fmt: skip
# One letter a word, so that the grammar is a pattern: unit, ten, other small number, hundred, dozen, thousand and more.
_KINDS = (
    dict.fromkeys(_WORDS, "n")
    | dict.fromkeys([*_UNITS[1:10], *_ORDINALS[1:10]], "u")
    | dict.fromkeys(_TENS, "t")
    | {word: "h" if value == 100 else "k" for word, value in _SCALES.items()}
    | {"dozen": "d", "and": "&", "a": "a", "an": "a"}
)
_SMALL = "(?:tu|[tun])"
_PART = f"(?:(?:{_SMALL}|a)?h(?:&?{_SMALL})?|(?:{_SMALL}|a)?d|{_SMALL})"
_SPELLED = re.compile(f"(?:{_PART}|a)?k(?:&?{_PART})?(?:k(?:&?{_PART})?){{0,3}}|{_PART}")
_WORD = re.compile(r"[^\W\d_]+")
# What begins with a digit (3万, 2千5百) is a number as it stands.
_NUMERAL = re.compile(_folded(r"\d[\d百千万萬만亿億억]*|(?:百(?!分之)|[零〇一二两兩三四五六七八九十千万萬亿億]){1,15}"))

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
_MIXED = _folded(rf"(?:(?:{_SIGNED}){{2,4}}(?:\d{{1,4}}(?!\d))?|{_SIGNED}\d{{1,4}}(?!\d))")
_NUMBER = rf"(?:{_MIXED}|(?:{_GROUPED}|\d+)(?:[.,]\d+)?)"
_SCALE = _folded(rf"(?:\s?(?:{'|'.join(_SCALES)}|[百千万萬만亿億억](?!分之))(?!\w))?")
_SCALED = re.compile(rf"({_NUMBER})({_SCALE})", re.IGNORECASE)
_SIGN = _folded("[$€£¥₹₩₽₺₪₫₴₦฿]")
# Before a number in capitals only: "rub 20 grams into it".
_CODE = "(?-i:USD|EUR|GBP|CHF|SEK|NOK|DKK|PLN|CZK|HUF|JPY|CNY|RMB|INR|KRW|HKD|SGD|AUD|CAD|NZD|ZAR|BRL|MXN|RUB)"
_CURRENCY = _folded(
    rf"(?:{_SIGN}|(?:{_CODE}|euros?|dollars?|pounds?|cents?|usd|eur|gbp|chf|sek|kronor|kr|yen|yuan|rupees)\b|[元円원])"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_AMOUNT = re.compile(
    _folded(
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
    _folded(
        rf"""(?<!\w)(?<!\d[-–./,:])(\d{{1,2}})(?:[:.]([0-5]\d))?(?:\s?(?:[ap]\.?m\b\.?|{_SUFFIX}))?
            \s?(?:[-–—~至到]|(?:to|until|till?|through|bis)\b)\s?(\d{{1,2}})(?:[:.]([0-5]\d))?
            (?!\d|[-–./,:]\d|\s?(?:[%°$€£¥₹天日周週年个個月人分岁歳일주]|{_COUNTED}))
        | (?<!\w)(?<!\d[-–./,:])(\d{{1,2}})(?:[:.]([0-5]\d))?\s?{_SUFFIX}"""
    ),
    re.IGNORECASE | re.VERBOSE,
)
# "1. Boil water", "(2)", "Step 3": the number of a step states nothing, where there is a list of them.
_HEAD = re.compile(_folded(r"^[^\S\n]*\(?(\d{1,2})(?:[.):](?=[\s\U000f0000-\U000fffff])|[、．])"), re.MULTILINE)
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
    spelled, keys = _in_digits(bare)
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
    for match in _CONTACTS.finditer(_folded(text)):
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
    text = _CONTACTS.sub(lambda match: _blank(match) if _is_contact(match) else match[0], _folded(text))
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


def _in_digits(text: str) -> tuple[str, set[str]]:
    """The text with digits for number words, and the keys of these numbers."""
    keys, pieces, end = set(), [], 0
    for start, stop, value in _spelled(text):
        keys.add(f"number {value}")
        pieces += [text[end:start], str(value)]
        end = stop

    def digits(numeral: re.Match[str]) -> str:
        if numeral[0][0].isdecimal():
            return numeral[0]
        value = _han(numeral[0])
        keys.add(f"number {value}")
        return str(value)

    return _NUMERAL.sub(digits, "".join([*pieces, text[end:]])), keys


def _spelled(text: str) -> Iterator[tuple[int, int, int]]:
    """Where a number is spelled out, and its value: "two hundred" is one, "two three" are two."""
    words: list[re.Match[str]] = []
    kinds, end = "", 0
    for word in _WORD.finditer(text):
        if text[end : word.start()] not in (" ", "-"):
            words.append(word)
            kinds += " "
        words.append(word)
        kinds += _KINDS.get(word[0].lower(), " ")
        end = word.end()
    for phrase in _SPELLED.finditer(kinds):
        start, stop = words[phrase.start()].start(), words[phrase.end() - 1].end()
        # Of "5 hundred" the number itself takes care.
        if not (phrase[0][0] in "hdk" and text[max(start - 2, 0) : start - 1].isdecimal()):
            yield start, stop, _sum(word[0].lower() for word in words[slice(*phrase.span())])


def _sum(words: Iterable[str]) -> int:
    """The value of the words of one number."""
    total = part = 0
    for word in words:
        scale = _SCALES.get(word, 0)
        if scale >= 1000:
            total, part = total + (part or 1) * scale, 0
        elif scale:
            part = (part or 1) * scale
        else:
            part += _WORDS.get(word, 0)
    return total + part


def _han(numeral: str) -> int:
    """The number that a Chinese numeral stands for; digits alone are read one by one."""
    values = [_HAN[char] for char in numeral]
    if max(values) < 10:
        return int("".join(map(str, values)))
    return _added([(value, value >= 10) for value in values])


def _added(values: Iterable[tuple[int, bool]]) -> int:
    """What digits and scales, which are told apart by the second of each, come to."""
    total = part = digit = largest = 0
    for value, is_scale in values:
        if not is_scale:
            digit = value
        elif value < 10**4:
            part, digit = part + (digit or 1) * value, 0
        elif value < largest:  # 2亿3千万
            total, part, digit = total + (part + digit or 1) * value, 0, 0
        else:
            total, part, digit, largest = (total + part + digit or 1) * value, 0, 0, value
    return total + part + digit


def _scales(signs: str) -> list[tuple[int, bool]]:
    return [(_HAN[sign], True) for sign in signs]


def _value(found: str) -> str:
    """One spelling of an amount's number: no groups, a point before decimals, no empty decimals or leading zeros."""
    match = _SCALED.search(found)
    assert match, found
    number, scale = match[1], match[2].strip().lower()
    if parts := re.findall(_folded(r"(\d+)([百千万萬만亿億억]*)"), number) if re.fullmatch(_MIXED, number) else []:
        return str(_added([pair for digits, signs in parts for pair in ((int(digits), False), *_scales(signs))]))
    whole, decimals = number, ""
    if not re.fullmatch(_GROUPED, number) and (split := re.search(r"[.,]\d+$", number)):
        whole, decimals = number[: split.start()], split[0][1:].rstrip("0")
    value = (re.sub(r"\D", "", whole).lstrip("0") or "0") + (f".{decimals}" if decimals else "")
    if not scale:
        return value
    return f"{(Decimal(value) * (_SCALES.get(scale) or _HAN[scale])).normalize():f}"
