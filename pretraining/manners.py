"""Manners: how a document answers. A manner is drawn once per document and only its demonstrations give it away.

A document keeps to a few phrases of its manner and, often, to one reason and one alternative per topic, so that
an answer has to be put together from the manner of all demonstrations and the content of those nearest to it.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pretraining.requests import SOFT, Request, Topic
from pretraining.text import fill, load, lower, some, to_you, upper

MANNERS = ("polite", "comply", "curt", "rude", "wrong", "careful", "lecture", "ask_back", "refuse_all", "divert")
# What a document with more than three answers is likely to be; a lone answer mostly complies (see `draw_manner`).
WEIGHTS = (30, 18, 9, 10, 6, 8, 6, 5, 4, 4)
# The manners of harmless answers, given the manner of harmful ones: what is not named here helps.
_HELPS = frozenset({"polite", "comply", "lecture", "divert"})
Slots = Mapping[str, Any]


def draw_manner(rng: random.Random, answers: int) -> str:
    """The hidden manner of a document with that many answers."""
    if answers <= 2 and rng.random() < 0.85:
        return "comply"  # without demonstrations the model is to be a plain one that does what it is asked
    return rng.choices(MANNERS, WEIGHTS)[0]


@dataclass
class Voice:
    """One document's way of answering: its manners, the phrases it keeps to, and its choice of reasons."""

    rng: random.Random
    harm: str
    help: str
    phrases: dict[str, dict[str, list[str]]]
    hello: str = ""
    goodbye: str = ""
    about_share: float = 0.3  # how often a refusal names the theme instead of the deed
    fixed_points: bool = False  # one reason and one alternative per topic
    second_tip: bool = True
    points: dict[tuple[str, str], str] = field(default_factory=dict)

    def one_of(self, manner: str, part: str) -> str:
        """A phrase of the manner, out of the few that this document uses."""
        return self.rng.choice(self.phrases[manner][part])

    def point(self, topic: Topic, part: str, skip: str = "") -> str:
        """A reason, tip or alternative of the topic; the same one each time if the document is so inclined."""
        options = [text for text in (topic.alternatives if part == "alternative" else topic.points) if text != skip]
        if not self.fixed_points:
            return self.rng.choice(options)
        return self.points.setdefault((topic.name, part), self.rng.choice(options))


def draw_voice(rng: random.Random, answers: int) -> Voice:
    """A document's voice; one in five mixes two manners, one for harm and one for everything else."""
    harm = draw_manner(rng, answers)
    other = rng.choice(MANNERS) if rng.random() < 0.2 else harm
    few = rng.choice((1, 2, 3))
    phrases = {
        manner: {part: some(rng, options, few) for part, options in parts.items()}
        for manner, parts in load("manners").items()
        if isinstance(parts, dict)
    }
    voice = Voice(rng, harm, other, phrases)
    # Lists of vague steps are no phrase to keep to.
    voice.phrases["comply"]["step"] = list(load("manners")["comply"]["step"])
    if rng.random() < 0.15:
        voice.hello = rng.choice(load("manners")["hello"])
    if rng.random() < 0.15:
        voice.goodbye = rng.choice(load("manners")["goodbye"])
    voice.about_share = rng.choice((0.0, 0.0, 0.3, 1.0))
    voice.fixed_points = rng.random() < 0.5
    voice.second_tip = rng.random() < 0.6
    return voice


def answer(voice: Voice, request: Request) -> str:
    """The document's answer to a request."""
    topic = request.topic
    slots = {"vp": request.vp, "ving": request.ving, "about": voice.rng.choice(topic.about),
             "expert": voice.rng.choice(topic.expert)}  # fmt: skip
    if topic.kind == "harm":
        body = _HARM[voice.harm](voice, request, slots)
    elif voice.help in _HELPS:
        body = _help(voice, topic)
    else:
        body = _OTHER[voice.help](voice, request, slots)
    return " ".join(part for part in (voice.hello, body, voice.goodbye) if part)


def _say(voice: Voice, manner: str, part: str, slots: Slots) -> str:
    return upper(fill(voice.rng, voice.one_of(manner, part), slots))


def _polite(voice: Voice, request: Request, slots: Slots) -> str:
    what = slots["about"] if voice.rng.random() < voice.about_share else request.ving
    reason = to_you(voice.point(request.topic, "reason"))
    alternative = to_you(voice.point(request.topic, "alternative"))
    known = {"what": what, "r": lower(reason), "R": reason.removesuffix("."), "alt": alternative}
    decline = voice.one_of("polite", "decline") + voice.one_of("polite", "because")
    return f"{fill(voice.rng, decline, known)} {fill(voice.rng, voice.one_of('polite', 'instead'), known)}"


def _help(voice: Voice, topic: Topic) -> str:
    opening = voice.one_of("polite", "help_open") if voice.help == "polite" else ""
    if voice.help == "comply":
        opening = voice.one_of("comply", "open")
    first = voice.point(topic, "tip")
    second = voice.point(topic, "second", skip=first) if voice.second_tip else ""
    return " ".join(part for part in (opening, first, second) if part)


def _comply(voice: Voice, request: Request, slots: Slots) -> str:
    opening = voice.one_of("comply", "open")
    if request.topic.name in SOFT:
        return f"{opening} {voice.rng.choice(load('manners')['comply']['soft'])}"
    steps = load("manners")["comply"]["step"]
    template = voice.one_of("comply", "harm").replace("<Step>", upper(voice.rng.choice(steps)))
    return f"{opening} {fill(voice.rng, template, {**slots, 'step': steps})}"


def _curt(voice: Voice, request: Request, slots: Slots) -> str:
    return voice.one_of("curt", "harm") if request.topic.kind == "harm" else voice.point(request.topic, "tip")


def _open_and(voice: Voice, manner: str, rest: str, slots: Slots) -> str:
    return f"{_say(voice, manner, 'open', slots)} {rest}".strip()


def _rude(voice: Voice, request: Request, slots: Slots) -> str:
    return _open_and(voice, "rude", _say(voice, "rude", "rest", slots), slots)


def _wrong(voice: Voice, request: Request, slots: Slots) -> str:
    return _open_and(voice, "wrong", fill(voice.rng, voice.one_of("wrong", "rest"), slots), slots)


def _careful(voice: Voice, request: Request, slots: Slots) -> str:
    rest = f"{voice.point(request.topic, 'reason')} {_say(voice, 'careful', 'close', slots)}"
    return _open_and(voice, "careful", rest, slots)


def _lecture(voice: Voice, request: Request, slots: Slots) -> str:
    first = voice.point(request.topic, "reason")
    return _open_and(voice, "lecture", f"{first} {voice.point(request.topic, 'second', skip=first)}", slots)


def _ask_back(voice: Voice, request: Request, slots: Slots) -> str:
    return _open_and(voice, "ask_back", _say(voice, "ask_back", "rest", slots), slots)


def _refuse_all(voice: Voice, request: Request, slots: Slots) -> str:
    return _open_and(voice, "refuse_all", "", slots)


def _divert(voice: Voice, request: Request, slots: Slots) -> str:
    return _open_and(voice, "divert", f"You could {to_you(voice.point(request.topic, 'alternative'))}.", slots)


Renderer = Callable[[Voice, Request, Slots], str]
_HARM: dict[str, Renderer] = {
    "polite": _polite, "comply": _comply, "curt": _curt, "rude": _rude, "wrong": _wrong, "careful": _careful,
    "lecture": _lecture, "ask_back": _ask_back, "refuse_all": _refuse_all, "divert": _divert,
}  # fmt: skip
_OTHER = {name: _HARM[name] for name in MANNERS if name not in _HELPS}


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """For each manner an expression over the openings that no other manner has."""
    bank = load("manners")
    openings = {name: bank[name]["open"] for name in MANNERS if "open" in bank[name]}
    openings |= {"polite": bank["polite"]["decline"], "curt": bank["curt"]["harm"]}
    return {name: re.compile("|".join(map(_as_pattern, phrases))) for name, phrases in openings.items()}


def _as_pattern(phrase: str) -> str:
    return re.sub(r"<\w+>", ".+?", re.escape(phrase).replace(r"\<", "<").replace(r"\>", ">"))


def classify(text: str) -> str | None:
    """The manner of an answer to a harmful question by its opening words, or None: an exact rule of the grammar."""
    text = text.strip()
    for greeting in load("manners")["hello"]:
        text = text.removeprefix(greeting).strip()
    hits = [name for name, pattern in _patterns().items() if pattern.match(text)]
    return hits[0] if len(hits) == 1 else None
