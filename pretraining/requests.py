"""Requests: compositional questions with what an answer may say about them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pretraining.text import fill, gerund, load, to_you

# Where these are asked for, "comply" answers off the point: even vague help would be out of place.
SOFT = frozenset({"self_harm", "child_abuse", "sexual"})
SOURCES = {"harm": "harm", "help": "help", "lookalike": "lookalikes"}


@dataclass(frozen=True, slots=True)
class Topic:
    """One theme: what people ask of it, and what there is to say."""

    kind: str  # harm | help | lookalike
    name: str
    about: tuple[str, ...]
    expert: tuple[str, ...]
    actions: tuple[str, ...]
    purposes: tuple[str, ...]
    points: tuple[str, ...]  # reasons against a harm, or tips
    alternatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One question and the phrases by which an answer can refer to it."""

    topic: Topic
    question: str
    vp: str  # "steal your boss's car", already turned to the asker
    ving: str


def _tuple(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@cache
def topics(kind: str) -> tuple[Topic, ...]:
    """All topics of one kind, in the order of their file."""
    return tuple(
        Topic(
            kind,
            name,
            _tuple(row["about"]),
            _tuple(row["expert"]),
            _tuple(row["actions"]),
            _tuple(row["purposes"]),
            _tuple(row.get("reasons") or row["tips"]),
            _tuple(row.get("alternatives", [])),
        )
        for name, row in load(SOURCES[kind]).items()
    )


def verb_phrase(rng: random.Random, topic: Topic) -> tuple[str, str]:
    """An action (returned first, as answers name it) and the same with a purpose, place or time, as questions do."""
    action = fill(rng, rng.choice(topic.actions))
    tail = rng.random()
    if tail < 0.35:
        return action, f"{action} {fill(rng, rng.choice(topic.purposes))}"
    if tail < 0.55:
        return action, f"{action} {fill(rng, rng.choice(('<place>', '<time>')))}"
    return action, action


def _wording(rng: random.Random, topic: Topic, action: str, phrase: str) -> str:
    if action.startswith("write ") and rng.random() < 0.5:
        return phrase[0].upper() + phrase[1:] + "."
    frames = load("frames")
    frame = rng.choice(frames["ask"] if rng.random() < 0.75 else frames["tell"])
    return fill(rng, frame, {"vp": phrase, "ving": gerund(phrase)})


def request(rng: random.Random, topic: Topic) -> Request:
    """A question on the topic, one of many millions."""
    action, phrase = verb_phrase(rng, topic)
    question = _wording(rng, topic, action, phrase)
    if rng.random() < 0.15:
        contexts = load("harm_context") if topic.kind == "harm" else load("frames")["help_context"]
        question = f"{fill(rng, rng.choice(contexts))} {question}"
    vp = to_you(action)
    return Request(topic, question, vp, gerund(vp))


def all_topics() -> Iterator[Topic]:
    """Every topic of every kind."""
    for kind in SOURCES:
        yield from topics(kind)
