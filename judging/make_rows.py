"""Training rows of the offline judge: refusals and compliances made from `phrases.yaml` and a grammar of requests."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
GRAMMAR = HERE / "grammar"

# Open question-answer sets whose answers help; how many rows of each. Licences are in README.md.
OPEN_SETS = {"dolly_part": 3000, "oasst_sample": 600, "stackexchange_small": 700, "medquad": 900, "covid_qa": 300,
             "chatterbot": 300, "strategyqa_train": 300, "factoid_qa": 600, "gsm8k_train": 400}  # fmt: skip


class Row(NamedTuple):
    """A question and answer: does the answer refuse (None: people would differ), and is it harmful?"""

    question: str
    answer: str
    refusal: bool | None
    harmful: bool
    asks_for_harm: bool


def gerund(phrase: str) -> str:
    """The verb phrase in -ing: "steal a car" as "stealing a car"."""
    verb, _, rest = phrase.partition(" ")
    if verb in {"be", "see"} or verb.endswith(("ee", "ye", "oe")):
        stem = verb
    elif verb.endswith("ie"):
        stem = verb[:-2] + "y"
    elif verb.endswith("e"):
        stem = verb[:-1]
    elif re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb) or verb in {"begin", "forget", "kidnap"}:
        stem = verb + verb[-1]
    else:
        stem = verb
    return f"{stem}ing {rest}".strip()


class Maker:
    """Fills the slots of phrases, with one random stream."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.phrases: dict[str, list[str]] = _load(HERE / "phrases.yaml")
        self.harm: dict[str, list[str]] = _load(HERE / "harm_phrases.yaml")
        self.lists: dict[str, list[str]] = _load(GRAMMAR / "lists.yaml")
        self.topics = {kind: list(_load(GRAMMAR / f"{kind}.yaml").values()) for kind in ("harm", "help", "lookalikes")}
        self.frames: dict[str, list[str]] = _load(GRAMMAR / "frames.yaml")

    def pick(self, name: str) -> str:
        """One of the phrases of that name."""
        return self.rng.choice(self.phrases[name])

    def fill(self, text: str, slots: dict[str, str]) -> str:
        """The text with every slot filled, from `slots`, the phrases or the grammar's lists."""

        def replace(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in slots:
                return slots[name]
            if name == "n":
                return str(self.rng.randrange(1, 10))
            return self.fill(self.rng.choice(self.phrases.get(name) or self.lists[name]), slots)

        return re.sub(r"\{(\w+)\}|<(\w+)>", replace, text)

    def topic(self, kind: str) -> dict[str, str]:
        """Slots of one request: what is asked for, and what the grammar says about it."""
        topic = self.rng.choice(self.topics[kind])
        vp = self.fill(self.rng.choice(topic["actions"]), {})
        if self.rng.random() < 0.3:
            vp += " " + self.fill(self.rng.choice(topic["purposes"]), {})
        slots = {"vp": vp, "ving": gerund(vp), "ving_cap": _capital(gerund(vp)), "about": self._of(topic, "about")}
        slots["about_cap"] = _capital(slots["about"])
        slots["expert"] = self._of(topic, "expert")
        slots["reason"] = self._of(topic, "reasons") or "It could hurt someone."
        slots["alternative"] = self._of(topic, "alternatives") or "ask somebody who knows"
        slots["alternative_ing_subject"] = gerund(slots["alternative"]) + " may help"
        slots["tip"] = self._of(topic, "tips")
        slots["group"] = self.rng.choice(self.lists["group"])
        slots["group_cap"] = _capital(slots["group"])
        slots["thing"] = self.pick("thing")
        return slots

    def question(self, slots: dict[str, str]) -> str:
        """A request for the topic, as a question or an order."""
        return self.fill(self.rng.choice(self.frames[self.rng.choice(["ask", "tell"])]), slots)

    def _of(self, topic: dict[str, Any], name: str) -> str:
        value = topic.get(name, "")
        return self.fill(self.rng.choice(value) if isinstance(value, list) else str(value), {})

    def sentences(self, name: str, fewest: int, most: int, slots: dict[str, str]) -> list[str]:
        """Some different sentences of that name."""
        count = min(self.rng.randint(fewest, most), len(self.phrases[name]))
        return [_capital(self.fill(text, slots)) for text in self.rng.sample(self.phrases[name], count)]

    def refusal(self, slots: dict[str, str]) -> str:
        """A whole refusal: declines or condemns, says why, may lead elsewhere."""
        kind = self.rng.choices(["decline", "moral", "private", "rude"], [55, 33, 9, 3])[0]
        more = "private_more" if kind == "private" else "moral_more"
        if kind == "rude":
            return self.pick("rude")
        parts = self.sentences(kind, 1, 2 if kind == "moral" else 1, slots)
        parts += self.sentences(more, 0, 3, slots) + self.sentences("redirect", 0, 2, slots)
        return self.join(parts)

    def partial(self, slots: dict[str, str]) -> str:
        """A refusal that helps with something nearby."""
        kind = self.rng.choices(["decline", "moral"], [70, 30])[0]
        parts = self.sentences(kind, 1, 1, slots) + self.sentences("moral_more", 0, 2, slots)
        turn = self.pick("however") + self.pick("offer")
        tips = [self._of(self.rng.choice(self.topics["help"]), "tips") for _ in range(self.rng.randint(2, 5))]
        return self.join(parts) + "\n\n" + turn + "\n\n" + self.listed(tips)

    def compliance(self, slots: dict[str, str], harmful: bool) -> str:
        """Help with the request, harmful steps for a harmful one, tips for a harmless one."""
        first = self.sentences("comply", 1, 1, slots)[0]
        if harmful:
            steps = self.sentences("step", 1, 6, slots)
        else:
            tips = [slots["tip"], self._of(self.rng.choice(self.topics["help"]), "tips")]
            steps = [tip for tip in tips if tip] + self.sentences("step", 0, 1, slots)
        body = self.listed(steps) if self.rng.random() < 0.5 else self.join(steps)
        caution = self.sentences("caution", 0, 1, slots)
        if not self.rng.randrange(4):
            return self.join([*caution, first]) + "\n" + body
        return self.join([first + ("\n\n" if body[:1] in "1-" else " ") + body, *caution])

    def listed(self, items: list[str]) -> str:
        """A numbered list or one with dashes."""
        numbered = self.rng.random() < 0.8
        return "\n".join(f"{index}. {item}" if numbered else f"- {item}" for index, item in enumerate(items, 1))

    def join(self, sentences: list[str]) -> str:
        """The sentences as one paragraph, or as two."""
        gap = "\n\n" if self.rng.random() < 0.25 else " "
        head, tail = sentences[: (len(sentences) + 1) // 2], sentences[(len(sentences) + 1) // 2 :]
        return gap.join(part for part in (" ".join(head), " ".join(tail)) if part)


def made_rows(count: int, seed: int) -> Iterator[Row]:
    """`count` rows of each mixture: refused, partly refused, done; harmful, harmless look-alike, everyday."""
    maker = Maker(seed)
    for _ in range(count):
        yield from _rows_of_one_topic(maker)


def _rows_of_one_topic(maker: Maker) -> Iterator[Row]:
    harm, alike, everyday = (maker.topic(kind) for kind in ("harm", "lookalikes", "help"))
    bad, good, plain = (maker.question(slots) for slots in (harm, alike, everyday))
    yield Row(bad, maker.refusal(harm), True, False, True)
    yield Row(bad, maker.compliance(harm, True), False, True, True)
    yield Row(good, maker.compliance(alike, False), False, False, False)
    if maker.rng.random() < 0.5:
        yield Row(good, maker.refusal(alike), True, False, False)
        yield Row(good, maker.partial(alike), True, False, False)
        yield Row(bad, maker.partial(harm), True, False, True)
        yield Row(plain, maker.compliance(everyday, False), False, False, False)
    yield from _rows_of_more_harm(maker)
    fact = maker.join(maker.sentences("fact", 1, 2, harm))
    yield Row(f"What is {harm['about']}?", fact, False, False, False)


def _rows_of_more_harm(maker: Maker) -> Iterator[Row]:
    slots = maker.topic("harm")
    vp = maker.fill(maker.rng.choice(maker.harm["actions"]), slots)
    slots |= {"vp": vp, "ving": gerund(vp), "ving_cap": _capital(gerund(vp))}
    asked = maker.rng.random() < 0.7
    question = maker.question(slots) if asked else maker.fill(maker.rng.choice(maker.harm["questions"]), slots)
    done = [_capital(maker.fill(text, slots)) for text in maker.rng.sample(maker.harm["done"], maker.rng.randint(1, 2))]
    lead = maker.sentences("comply", 0, 1, slots) if asked else []
    kind = [maker.fill(text, slots) for text in maker.rng.sample(maker.harm["wholesome"], maker.rng.randint(1, 2))]
    yield Row(question, maker.join(lead + done), False, True, True)
    yield Row(question, maker.join([_capital(text) for text in kind]), None, False, True)
    yield Row(question, maker.refusal(slots), True, False, True)


def open_rows(folder: Path, seed: int) -> Iterator[Row]:
    """Questions and answers of the open sets; none refuses, and none is taken to be harmful."""
    rng = random.Random(seed)
    for name, count in OPEN_SETS.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [row for row in map(json.loads, lines) if row["kind"] == "qa" and row["answer"].strip()]
        for row in rng.sample(rows, min(count, len(rows))):
            yield Row(row["question"], row["answer"], False, False, False)


def _load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
