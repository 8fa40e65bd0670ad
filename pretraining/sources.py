"""Open data: which sources, how much of each, and how their rows become documents.

A small model wants a narrow mix, so long rows are left out and rows of one group are packed together: pairs of one
group are demonstrations of one task. The licence of every source stands in the model card.
"""

import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Pair = tuple[str, str]


@dataclass
class Document:
    """Pairs in the order of the prompt, or plain text; `source` is what validation is reported by.

    `keys` are the texts, within answers, that can only be known from an earlier answer: a shop's rules, codes. `drawn`
    says that the document's manner was drawn for it, so that nothing before its first answer determines that one.
    """

    source: str
    pairs: list[Pair] = field(default_factory=list)
    text: str = ""
    keys: frozenset[str] = frozenset()
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A file, its share of the open part of the mix, and the groups that are left out."""

    name: str
    share: float
    licence: str
    skip: str = "$^"


SOURCES = (
    Source("openstax_ccby", 0.13, "CC BY 4.0", r"openstax-(?!glossary)"),
    Source("wordnet_qa", 0.10, "CC BY 4.0 (Open English WordNet)"),
    Source("trivia", 0.13, "CC BY-SA 4.0", r"trivia-(mc|tf)"),
    Source("factbook", 0.06, "public domain"),
    Source("dolly_part", 0.11, "CC BY-SA 3.0", r"context_probably_missing|closed_qa|information_extraction|summar"),
    Source("oasst_sample", 0.02, "Apache-2.0"),
    Source("chatterbot", 0.02, "BSD-3", r"coding"),
    Source("sgd_dialogs", 0.08, "CC BY-SA 4.0"),
    Source("taskmaster", 0.02, "CC BY 4.0"),
    Source("instruction_induction", 0.07, "Apache-2.0"),
    Source("intent_classification", 0.05, "CC BY 3.0 / CC BY 4.0"),
    Source("medquad", 0.03, "CC BY 4.0"),
    Source("strategyqa_train", 0.02, "MIT"),
    Source("storybooks", 0.12, "CC BY"),
    Source("vagov", 0.04, "CC0"),
)
MAX_QUESTION, MAX_ANSWER, MAX_TEXT = 220, 320, 1800
_TURN = re.compile(r"^(User|Assistant): ", re.M)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one gzip JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def clean(text: str) -> str:
    """One line, single spaces: a pair of the package's prompts holds no blank line."""
    return re.sub(r"\s+", " ", text).strip()


def pair_of(row: dict[str, Any]) -> Pair | None:
    """A short question and answer without a context of its own, or None."""
    question, answer = clean(row["question"]), clean(row["answer"])
    if row.get("context") or not question or not answer or row["answer"].count("\n") > 2:
        return None
    if len(question) > MAX_QUESTION or len(answer) > MAX_ANSWER or "Question:" in question + answer:
        return None
    return question[0].upper() + question[1:], answer[0].upper() + answer[1:]


def turns(text: str) -> list[Pair]:
    """A dialogue as pairs: what the user says, what the assistant says."""
    pieces = _TURN.split(text)[1:]
    said = list(zip(pieces[::2], map(clean, pieces[1::2]), strict=True))
    pairs = []
    for (who, question), (other, answer) in zip(said, said[1:], strict=False):
        if (who, other) == ("User", "Assistant") and question and answer and len(question + answer) < MAX_ANSWER:
            pairs.append((question, answer))
    return pairs


def paragraphs(text: str) -> Iterator[str]:
    """Pieces of whole paragraphs, none longer than a row of the pack."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) > MAX_TEXT:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph.strip()}".strip() if len(paragraph) < MAX_TEXT else piece
    if len(piece) > 200:
        yield piece


class OpenData:
    """The rows of all sources in memory, grouped; `draw` makes a document of one of them."""

    def __init__(self, folder: Path, held_out: float = 0.02, part: str = "train", seed: int = 0) -> None:
        self.groups: dict[str, list[list[Pair]]] = {}
        self.texts: dict[str, list[str]] = {}
        self.dialogs: dict[str, list[list[Pair]]] = {}
        for source in SOURCES:
            path = folder / f"{source.name}.jsonl.gz"
            if path.exists():
                self._load(source, path, random.Random(f"{seed}/{source.name}"), held_out, part == "validation")
        self.shares = {s.name: s.share for s in SOURCES if s.name in {*self.groups, *self.texts, *self.dialogs}}

    def _load(self, source: Source, path: Path, rng: random.Random, held_out: float, validation: bool) -> None:
        groups: dict[str, list[Pair]] = defaultdict(list)
        texts: list[str] = []
        dialogs: list[list[Pair]] = []
        for row in read(path):
            # One draw a row, before any test, so that both parts agree on which row is held out.
            if (rng.random() < held_out) != validation or re.search(source.skip, row.get("group", "")):
                continue
            if row["kind"] == "qa":
                pair = pair_of(row)
                if pair:
                    groups[row.get("group", source.name)].append(pair)
            elif row["kind"] == "dialog":
                dialogs.append(turns(row["text"]))
            elif source.name != "openstax_ccby" and source.name != "factbook":
                texts += paragraphs(row["text"])
        found = [pairs for pairs in groups.values() if len(pairs) >= 2]
        dialogs = [pairs for pairs in dialogs if len(pairs) >= 2]
        places: list[tuple[dict[str, Any], list[Any]]] = [
            (self.groups, found), (self.texts, texts), (self.dialogs, dialogs)
        ]  # fmt: skip
        for place, rows in places:
            if rows:
                place[source.name] = rows

    def draw(self, rng: random.Random, budget: int = 2400) -> Document:
        """A document of one source: pairs of one group, a dialogue, or plain text."""
        name = rng.choices(list(self.shares), list(self.shares.values()))[0]
        places = [place for place in ("groups", "dialogs", "texts") if name in getattr(self, place)]
        place = rng.choice(places)
        if place == "texts":
            return Document(name, text=rng.choice(self.texts[name]))
        if place == "dialogs":
            return Document(name, rng.choice(self.dialogs[name])[:12])
        groups = self.groups[name]
        group = rng.choices(groups, [min(len(pairs), 300) for pairs in groups])[0]
        pairs = rng.sample(group, min(len(group), rng.randint(2, 16)))
        length = 0
        for count, (question, answer) in enumerate(pairs):
            length += len(question) + len(answer) + 20
            if length > budget and count >= 2:
                return Document(name, pairs[:count])
        return Document(name, pairs)
