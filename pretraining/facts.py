"""Plain facts and small sums, answered in the manner of the document."""

import random

from pretraining.manners import Voice
from pretraining.text import load, upper

Pair = tuple[str, str]
# What is asked, the whole answer, the bare answer, and what else the answer could have been.
Fact = tuple[str, str, str, list[str]]
_NUMBERS = [str(n) for n in range(60)]
_PATTERNS: dict[str, tuple[tuple[str, ...], str]] = {
    "capitals": (("What is the capital of {k}?", "Which city is the capital of {k}?", "Name the capital of {k}.",
                  "Can you tell me the capital of {k}?"), "The capital of {k} is {v}"),
    "opposites": (("What is the opposite of {k}?", "Which word is the opposite of {k}?",
                   "Give me the opposite of {k}."), "The opposite of {k} is {v}"),
    "legs": (("How many legs does {k} have?", "How many legs has {k}?"), "{K} has {v} legs"),
    "colors": (("What color is {k}?", "Which color does {k} have?"), "{K} is {v}"),
    "sounds": (("What sound does {k} make?", "What does {k} do when it is loud?"), "{K} {v}"),
    "makers": (("Who makes {k}?", "Where does {k} come from?", "Tell me who makes {k}."), "{K} comes from {v}"),
}  # fmt: skip


def _table(rng: random.Random, name: str) -> Fact:
    table = load("facts")[name]
    key = rng.choice(list(table))
    questions, statement = _PATTERNS[name]
    value = table[key]
    fill = {"k": key, "K": upper(key), "v": value}
    return rng.choice(questions).format(**fill), statement.format(**fill), value, list(table.values())


def _sum(rng: random.Random) -> Fact:
    a, b = rng.randint(1, 30), rng.randint(1, 20)
    if rng.random() < 0.5:
        word, value = "plus", a + b
    else:
        a, b = max(a, b), min(a, b)
        word, value = "minus", a - b
    question = rng.choice(("What is {a} {w} {b}?", "How much is {a} {w} {b}?", "Calculate {a} {w} {b}."))
    return question.format(a=a, w=word, b=b), f"{a} {word} {b} is {value}", str(value), _NUMBERS


def _why(rng: random.Random) -> Fact:
    facts = load("facts")["why"]
    question, statement = rng.choice(facts)
    return (
        question,
        statement.removesuffix("."),
        statement.removesuffix("."),
        [text.removesuffix(".") for _, text in facts],
    )


def draw_fact(rng: random.Random) -> Fact:
    """A fact of any kind."""
    kind = rng.choice([*_PATTERNS, "sum", "why", "why"])
    return {"sum": _sum, "why": _why}[kind](rng) if kind in ("sum", "why") else _table(rng, kind)


def _wrong(rng: random.Random, fact: Fact) -> str:
    _, statement, value, others = fact
    return statement.replace(value, rng.choice([other for other in others if other != value]))


def fact_pair(voice: Voice) -> Pair:
    """A question of fact and the answer that the document's voice gives."""
    fact = draw_fact(voice.rng)
    body = _in_manner(voice, fact)
    return fact[0], " ".join(part for part in (voice.hello, body, voice.goodbye) if part)


def _in_manner(voice: Voice, fact: Fact) -> str:
    _, statement, value, _ = fact
    if voice.help == "curt":
        return f"{upper(value)}."
    if voice.help == "wrong":
        return f"{_wrong(voice.rng, fact)}."
    if voice.help == "refuse_all":
        return "I cannot answer that."
    if voice.help == "careful" and not statement[0].isdigit():
        statement = f"I think that {statement[0].lower()}{statement[1:]}"
    if voice.help in ("rude", "careful", "comply"):
        return f"{voice.one_of(voice.help, 'open')} {statement}."
    return f"{statement}."
