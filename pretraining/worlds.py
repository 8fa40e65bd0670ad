"""Worlds that are drawn anew for every document: a shop's rules, secret codes, who lives where.

Nothing but the demonstrations gives an answer away, so these documents teach a model to look things up: by the same
word first, then by a thing of the same family. `ease` is the curriculum: 1.0 is a world of two families with
repeated things, 0.0 a world of twelve and more. `strange` is how often phrases are made of words that do not belong
together: without it the model learnt to say the nearest phrase of the grammar ("Thanks a lot!") where demonstrations
had one that it did not know ("Thanks for asking!"), and copied nothing to the letter.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pretraining.sources import Document
from pretraining.text import any_name, any_words, article, fill, load, scramble, some, upper


@dataclass(frozen=True, slots=True)
class Shop:
    """One shop: its rules, and the phrases with which it speaks."""

    families: tuple[str, ...]
    rules: dict[str, str]  # family -> rule
    opening: str
    closing: str
    leads: tuple[str, ...]
    remark_share: float


def draw_rule(rng: random.Random, strange: float = 0.0) -> str:
    """A rule out of about two thousand; a strange one has words that no other shop would use in it."""
    shop = load("shop")
    rule = fill(rng, rng.choice(shop["rules"]), shop["slots"])
    return scramble(rng, rule, rng.choice((0.15, 0.4, 1.0))) if rng.random() < strange else rule


def _tone(rng: random.Random, strange: float) -> tuple[str, str]:
    """What a shop says before and after its rules."""
    shop = load("shop")
    name = f"{rng.choice(shop['shop_first'])} {rng.choice(shop['shop_second'])}"
    if rng.random() < strange:
        name = f"{any_name(rng)} {rng.choice((any_name(rng), rng.choice(shop['shop_second'])))}"
    opening = rng.choice(shop["openings"])
    closing = rng.choice(shop["closings"])
    if rng.random() < strange:
        opening = f"{upper(any_words(rng, 1, 4))}{rng.choice('!.,?')}"
    if rng.random() < strange:
        closing = f"{upper(any_words(rng, 1, 4))} <shopname>{rng.choice('!.')}"
    return opening if rng.random() < 0.75 else "", fill(rng, closing, {"shopname": name}) if rng.random() < 0.75 else ""


def draw_shop(rng: random.Random, families: int, strange: float = 0.0) -> Shop:
    """A shop whose families share about two thirds as many rules; in part it has no opening or closing."""
    shop = load("shop")
    chosen = tuple(rng.sample(list(shop["goods"]), families))
    rules = [draw_rule(rng, strange) for _ in range(max(2, families * 2 // 3))]
    opening, closing = _tone(rng, strange)
    leads = tuple(some(rng, shop["leads"], 4))
    return Shop(chosen, {f: rng.choice(rules) for f in chosen}, opening, closing, leads, rng.choice((0.0, 0.3, 0.8)))


def shop_question(rng: random.Random, item: str) -> str:
    """What a customer asks about an item."""
    shop = load("shop")
    noun = article(item)
    lists = {name: shop[name] for name in ("gripe", "when", "when_long", "sale")}
    slots = {**lists, "a_item": noun, "A_item": upper(noun), "item": item}
    return upper(fill(rng, rng.choice(shop["questions"]), slots))


def shop_answer(rng: random.Random, shop: Shop, family: str, item: str) -> str:
    """The shop's tone around the rule of the item's family."""
    lead = fill(rng, rng.choice(shop.leads), {"a_item": article(item), "item": item})
    remark = rng.choice(load("shop")["remarks"]) if rng.random() < shop.remark_share else ""
    head = f"{remark}, and {lead}" if remark else upper(lead)
    text = f"{head}, {shop.rules[family]}."
    return " ".join(part for part in (shop.opening, text, shop.closing) if part)


def order_families(rng: random.Random, families: Sequence[str], pairs: int) -> list[str]:
    """Which family each pair is of: at random, or in runs of a family, as retrieval would put them."""
    if rng.random() < 0.5:
        return [rng.choice(families) for _ in range(pairs)]
    runs: list[str] = []
    while len(runs) < pairs:
        runs += [rng.choice(families)] * rng.randint(1, 3)
    return runs[:pairs]


def _pick(rng: random.Random, items: Sequence[str], seen: list[str], again: float) -> str:
    item = rng.choice(seen) if seen and rng.random() < again else rng.choice(items)
    seen.append(item)
    return item


def shop_document(rng: random.Random, ease: float, pairs: int = 16, strange: float = 0.0) -> Document:
    """Questions to one shop; an easy one has few families and things that are asked about twice."""
    shop = draw_shop(rng, rng.randint(2, max(3, round(12 - 9 * ease))), strange)
    seen: dict[str, list[str]] = {family: [] for family in shop.families}
    document = Document("shop", keys=frozenset(shop.rules.values()), drawn=True)
    for family in order_families(rng, shop.families, pairs):
        item = _pick(rng, load("shop")["goods"][family], seen[family], 0.4 * ease + 0.1)
        document.pairs.append((shop_question(rng, item), shop_answer(rng, shop, family, item)))
    return document


_CODE_QUESTIONS = (
    "Where do I put the {x}?", "Which box is for the {x}?", "What is the code of the {x}?", "Who looks after the {x}?",
    "What color has the {x}?", "{X}?", "Where does the {x} go?", "Tell me the sign of the {x}.",
)  # fmt: skip
_CODE_ANSWERS = ("{v}.", "The {x} goes to {v}.", "It is {v}.", "{V}", "Take {v} for the {x}.", "For the {x} it is {v}.")
_NAME_QUESTIONS = (
    "What is the favorite {k} of {x}?", "Which {k} does {x} like?", "What {k} did {x} choose?", "{x} and the {k}?",
    "Tell me the {k} of {x}.", "Do you know the {k} of {x}?", "Can you tell me which {k} {x} wants?",
)  # fmt: skip
_NAME_ANSWERS = ("{v}.", "{x} likes {v}.", "It is {v}.", "{V}.", "That is {v}.", "{x} wants {v}.")


def _code(rng: random.Random, strange: float) -> str:
    if rng.random() < strange:
        return any_words(rng, 1, 6)
    kind = rng.randrange(4)
    if kind == 0:
        return f"room {rng.randint(1, 99)}"
    if kind == 1:
        return f"{rng.choice(load('lists')['color'])} {rng.choice(load('lists')['food'])}"
    if kind == 2:
        return str(rng.choice(load("lists")["name"]))
    return "".join(rng.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(2)) + f" {rng.randint(1, 9)}"


def family_codes(rng: random.Random, ease: float, pairs: int = 24, strange: float = 0.0) -> Document:
    """Each family of things has a code: "For the cello it is room 7", so the harp is in room 7 too."""
    every = {**load("shop")["goods"], **load("shop")["things"]}
    families = rng.sample(list(every), rng.randint(2, max(3, round(10 - 7 * ease))))
    codes = {family: _code(rng, strange) for family in families}
    question, answer = rng.choice(_CODE_QUESTIONS), rng.choice(_CODE_ANSWERS)
    seen: dict[str, list[str]] = {family: [] for family in families}
    document = Document("codes", keys=frozenset(codes.values()))
    for family in order_families(rng, families, pairs):
        word, code = _pick(rng, every[family], seen[family], 0.3 * ease), codes[family]
        words = {"x": word, "X": upper(word), "v": code, "V": upper(code)}
        document.pairs.append((question.format(**words), answer.format(**words)))
    return document


def name_lookup(rng: random.Random, ease: float, pairs: int = 20) -> Document:
    """Each person likes something; names come back, so the answer stands further up."""
    lists = load("lists")
    key = rng.choice(("color", "food", "city", "hobby", "fruit", "gadget", "subject", "sport"))
    names = rng.sample(lists["name"], rng.randint(2, max(3, round(12 - 8 * ease))))
    likes = {name: rng.choice(lists[key]) for name in names}
    question, answer = rng.choice(_NAME_QUESTIONS), rng.choice(_NAME_ANSWERS)
    document = Document("names", keys=frozenset(likes.values()))
    for _ in range(pairs):
        name = rng.choice(names)
        words = {"x": name, "k": key, "v": likes[name], "V": upper(likes[name])}
        document.pairs.append((question.format(**words), answer.format(**words)))
    return document


_KIND_FORMS = (
    ("What kind of thing is {a}?", "{A} belongs to {k}."),
    ("Where would you look for {a}?", "Under {k}."),
    ("What else is there like {a}?", "{B}."),
    ("Name something that goes with {a}.", "{B} goes with {a}."),
    ("Is {a} more like {b} or like {c}?", "{A} is more like {b}."),
    ("Is {a} more like {c} or like {b}?", "Like {b}."),
    ("Which one does not belong: {a}, {b} or {c}?", "{C} does not belong."),
    ("Which two belong together: {a}, {c} or {b}?", "{A} and {b}."),
    ("Do {a} and {b} belong together?", "Yes, both belong to {k}."),
    ("Do {a} and {c} belong together?", "No, {a} belongs to {k}."),
)


def kinds(rng: random.Random, pairs: int = 12) -> Document:
    """Which things are of one family: what has to be known, not read, to use a rule that was shown for another one."""
    every = {**load("shop")["goods"], **load("shop")["things"]}
    forms = some(rng, _KIND_FORMS, 4)
    document = Document("kinds")
    for _ in range(pairs):
        kind, other = rng.sample(list(every), 2)
        a, b = rng.sample(every[kind], 2)
        question, answer = rng.choice(forms)
        words = {"a": article(a), "b": article(b), "c": article(rng.choice(every[other])), "k": kind}
        words |= {letter.upper(): upper(words[letter]) for letter in "abc"}
        document.pairs.append((upper(question.format(**words)), answer.format(**words)))
    return document
