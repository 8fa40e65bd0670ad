"""Text of the grammar: slots are filled, verbs put into -ing, a question's "my" turned into an answer's "your"."""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
GRAMMAR = Path(__file__).parent / "grammar"
_SYLLABLE = ("bcdfghklmnprstvw", "aeiou", "lnrs")
_SLOT = re.compile(r"<(\w+)>")
# Verbs of the grammar that double their last letter; English has no rule that spelling alone gives away.
_DOUBLE = frozenset(
    "hit get put run stop plan cut set rob scam grab stab trap let dig skip strip knit beg spot chat shop chop "
    "shut sit win begin swim step pat rub whip con hug jog quit kidnap slip slap shred snap swap crop drop trim "
    "wrap rip gut pop nap sip repot reset".split()
)
_IRREGULAR = {"lie": "lying", "die": "dying", "tie": "tying", "see": "seeing", "be": "being", "whip": "whipping"}
_SWAP = {"my": "your", "My": "Your", "me": "you", "I": "you", "myself": "yourself", "mine": "yours", "our": "your",
         "we": "you", "us": "you", "am": "are"}  # fmt: skip
_SWAP_RE = re.compile(r"\b(" + "|".join(_SWAP) + r")\b")


@cache
def load(name: str) -> Any:
    """One grammar file, read once."""
    with (GRAMMAR / f"{name}.yaml").open(encoding="utf-8") as stream:
        return yaml.safe_load(stream)


def fill(rng: random.Random, template: str, values: Mapping[str, str | Sequence[str]] | None = None) -> str:
    """Replace each <slot> by its value, or by a word drawn from its list; a drawn word may hold slots itself."""
    own, lists = values or {}, load("lists")

    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        found = own[name] if name in own else lists[name]
        return found if isinstance(found, str) else rng.choice(found)

    while _SLOT.search(template):
        template = _SLOT.sub(word, template)
    return template


def gerund(phrase: str) -> str:
    """The verb phrase with its first verb in -ing: "steal a car" becomes "stealing a car"."""
    verb, _, rest = phrase.partition(" ")
    if verb in _IRREGULAR:
        form = _IRREGULAR[verb]
    elif verb in _DOUBLE:
        form = verb + verb[-1] + "ing"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        form = verb[:-1] + "ing"
    else:
        form = verb + "ing"
    return f"{form} {rest}".strip()


def to_you(phrase: str) -> str:
    """Turn the asker's "my" into the answerer's "your"."""
    return _SWAP_RE.sub(lambda match: _SWAP[match.group(1)], phrase)


def upper(text: str) -> str:
    """First letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    """First letter in lower case unless the sentence starts with "I"; a final full stop is cut off."""
    text = text.removesuffix(".")
    return text if re.match(r"I\b|[A-Z]{2}", text) else text[:1].lower() + text[1:]


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    vowel = noun[0].lower() in "aeio"
    return f"{'an' if vowel else 'a'} {noun}"


@cache
def words() -> tuple[str, ...]:
    """Every plain word of the grammar's files."""
    found = set()
    for path in sorted(GRAMMAR.glob("*.yaml")):
        found |= set(re.findall(r"\b[a-z]{3,10}\b", re.sub(r"<\w+>", " ", path.read_text(encoding="utf-8"))))
    return tuple(sorted(found))


def any_words(rng: random.Random, least: int, most: int) -> str:
    """Words in no order that means anything: they can be copied and not guessed."""
    return " ".join(rng.choices(words(), k=rng.randint(least, most)))


def any_name(rng: random.Random) -> str:
    """A made-up name of two or three syllables, or a word with a capital."""
    if rng.random() < 0.5:
        return upper(rng.choice(words()))
    syllables = ("".join(rng.choice(part) for part in _SYLLABLE) for _ in range(rng.randint(2, 3)))
    return upper("".join(syllables))


def scramble(rng: random.Random, text: str, share: float) -> str:
    """The text with that share of its words replaced by any others, and its numbers by any others."""
    replaced = []
    for word in text.split():
        if word.isdigit():
            replaced.append(str(rng.randint(2, 99)))
        else:
            replaced.append(rng.choice(words()) if rng.random() < share else word)
    return " ".join(replaced)


def some(rng: random.Random, items: Sequence[T], most: int) -> list[T]:
    """Between one and `most` different items: the phrases one document keeps to."""
    return rng.sample(list(items), min(len(items), rng.randint(1, most)))
