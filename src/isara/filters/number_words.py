"""Numbers that are written in words, in English, German and Swedish, and in Chinese numerals; folded texts."""

import re
from collections.abc import Iterable, Iterator

from isara.filters.folding import folded

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
SCALES = {"dozen": 12, "hundred": 100, "hundert": 100, "hundra": 100, "tausend": 1000, "tusen": 1000} | _THOUSANDS
HAN = {
    folded(char): value
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
    | {word: "h" if value == 100 else "k" for word, value in SCALES.items()}
    | {"dozen": "d", "and": "&", "a": "a", "an": "a"}
)
_SMALL = "(?:tu|[tun])"
_PART = f"(?:(?:{_SMALL}|a)?h(?:&?{_SMALL})?|(?:{_SMALL}|a)?d|{_SMALL})"
_SPELLED = re.compile(f"(?:{_PART}|a)?k(?:&?{_PART})?(?:k(?:&?{_PART})?){{0,3}}|{_PART}")
_WORD = re.compile(r"[^\W\d_]+")
# What begins with a digit (3万, 2千5百) is a number as it stands.
_NUMERAL = re.compile(folded(r"\d[\d百千万萬만亿億억]*|(?:百(?!分之)|[零〇一二两兩三四五六七八九十千万萬亿億]){1,15}"))


def in_digits(text: str) -> tuple[str, set[int]]:
    """A folded text with digits for its number words, and these numbers."""
    numbers, pieces, end = set(), [], 0
    for start, stop, value in _spelled(text):
        numbers.add(value)
        pieces += [text[end:start], str(value)]
        end = stop

    def digits(numeral: re.Match[str]) -> str:
        if numeral[0][0].isdecimal():
            return numeral[0]
        value = _han(numeral[0])
        numbers.add(value)
        return str(value)

    return _NUMERAL.sub(digits, "".join([*pieces, text[end:]])), numbers


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
        scale = SCALES.get(word, 0)
        if scale >= 1000:
            total, part = total + (part or 1) * scale, 0
        elif scale:
            part = (part or 1) * scale
        else:
            part += _WORDS.get(word, 0)
    return total + part


def _han(numeral: str) -> int:
    """The number that a Chinese numeral stands for; digits alone are read one by one."""
    values = [HAN[char] for char in numeral]
    if max(values) < 10:
        return int("".join(map(str, values)))
    return added([(value, value >= 10) for value in values])


def added(values: Iterable[tuple[int, bool]]) -> int:
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


def scales(signs: str) -> list[tuple[int, bool]]:
    """The values of signs that multiply what stands before them, as `added` takes them."""
    return [(HAN[sign], True) for sign in signs]
