"""A small world for tests of the loop: a model that knows how to ask about Hyrule, and a trainer that counts."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from isara.asking import Asker
from isara.files import make_folder, write_text
from isara.pool import Pool
from isara.records import Candidate, Preference, QAPair, Rejection, TrainStats
from isara.testing import ScriptedEngine

PLACES = [
    "Hyrule Castle",
    "Kakariko",
    "Lake Hylia",
    "Death Mountain",
    "the Lost Woods",
    "Gerudo Desert",
    "Zora's Domain",
]
ERRANDS = ["find a potion", "buy a shield", "catch a fairy", "mend a sword", "rest for the night", "hear an old song"]
FRAMES = [
    "Where near {place} can I {errand}?",
    "Who in {place} helps me to {errand}?",
    "Is {place} the place to {errand}?",
]

SEEDS = [
    QAPair("Where do I buy arrows in Kakariko?", "The bazaar sells them; thirty cost a few rupees."),
    QAPair("Who guards the Temple of Time?", "Nobody does today, so walk in and look around."),
    QAPair("How do I calm a startled Cucco?", "Put it down and step back until it is quiet."),
    QAPair("Can I swim across Lake Hylia at night?", "Yes, but mind the tide and carry a lantern."),
]


def hyrule(model: str) -> ScriptedEngine:
    """An engine that asks and answers about Hyrule; what it says depends on prompt, seed and the model's name."""

    def complete(prompt: str, seed: int) -> str:
        digest = hashlib.sha256(f"{Path(model).parent.name}|{prompt}|{seed}".encode()).digest()
        rng = random.Random(digest)
        place, errand = rng.choice(PLACES), rng.choice(ERRANDS)
        question = rng.choice(FRAMES).format(place=place, errand=errand)
        answer = f"Ask the keeper of {place} about it; she knows how to {errand} since year {rng.randint(1, 9999)}."
        if prompt.endswith("Answer:"):
            return f" {answer}\n\nQuestion: {question}"
        return f" {question}\nAnswer: {answer}"

    return ScriptedEngine(complete)


class DropOddYears:
    """A user's own filter: drops answers that name an odd year."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        odd = candidate.pair.answer.rstrip(".")[-1] in "13579"
        return Rejection("odd_year", candidate.pair.answer, "even") if odd else None


class DropKnown:
    """Drops a question that is kept already."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        same = next((pair for pair in kept.pairs if pair.question == candidate.pair.question), None)
        return Rejection("known", 1.0, 1.0, same.id) if same else None


class CountingTrainer:
    """A trainer whose model is a file that names what it was trained on."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def key(self) -> dict[str, str]:
        return {"kind": "counting"}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        self.calls.append((len(pairs), start))
        make_folder(out)
        write_text(out / "weights.json", json.dumps([pair.id for pair in pairs]))
        return TrainStats(len(pairs), 1, 2.0, 1.0, 100, 50, 1, 10)


class Preferring:
    """A trainer on preferences whose model is a file that names them."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Preference], str]] = []

    def key(self) -> dict[str, str]:
        return {"kind": "preferring"}

    def prefer(self, preferences: Sequence[Preference], start: str, out: Path) -> TrainStats:
        self.calls.append((list(preferences), start))
        make_folder(out)
        write_text(out / "weights.json", json.dumps([each.to_json() for each in preferences]))
        return TrainStats(len(preferences), 1, 0.7, 0.5, 100, 50, 1, 10)


class ScriptedEvaluator:
    """Gives the next figure of a list at each call."""

    def __init__(self, figures: Sequence[float]) -> None:
        self.figures = list(figures)

    def key(self) -> dict[str, str]:
        return {"kind": "scripted"}

    def __call__(self, asker: Asker) -> dict[str, float]:
        return {"bits_per_byte": self.figures.pop(0)}
