"""A small world to compare arms in: a domain with a rule, models that know it or not, and what came of them."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from isara.asking import Asker
from isara.cli.compare import compare as compare_command
from isara.compare.arms import ARMS, find_arms
from isara.compare.compare import compare
from isara.compare.comparison import Comparison
from isara.config import Config, load_config
from isara.errors import IsaraError
from isara.files import make_folder, write_text
from isara.filters import default_filters
from isara.folder import stage_folder
from isara.parts import Parts
from isara.records import QAPair, TrainStats
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.doubles import ERRANDS, FRAMES, PLACES, SEEDS

RULES = {"potions": "pay in rupees", "shields": "bring a deed", "fairies": "come at night"}
SMALL = [
    "iterations=2",
    "generate.accept=6",
    "generate.batch=8",
    "questions.demos=3",
    "questions.per_prompt=2",
    "answers.demos=2",
    "filters.novelty=null",
    "filters.near_duplicate=null",
    "filters.unsupported_numbers=false",  # the double's answers end with a year of their own
]
NAMES = [arm.name for arm in ARMS]


class Crash(Exception):
    pass


@dataclass
class Fuse:
    """Burns down with every call of an engine or a trainer, and then ends the process, as it were."""

    left: int = 10**9

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash


@dataclass
class World:
    """The engine's, trainer's and evaluator's shared memory."""

    fuse: Fuse = field(default_factory=Fuse)
    trained: list[tuple[str, list[QAPair], str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Keeper:
    """Opens engines that answer with one of the rules; which one depends on the model's training, prompt and seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def key(self) -> str:
        return "keeper"

    def __call__(self, model: str, /) -> ScriptedEngine:
        memory = (Path(model) / "weights.json").read_text()

        def complete(prompt: str, seed: int) -> str:
            self._world.fuse.burn()
            rng = random.Random(hashlib.sha256(f"{memory}|{prompt}|{seed}".encode()).digest())
            place, errand = rng.choice(PLACES), rng.choice(ERRANDS)
            question = rng.choice(FRAMES).format(place=place, errand=errand)
            if not prompt.endswith("Answer:"):
                return f" {question}\nAnswer: Perhaps."
            self._world.asked.append(prompt)
            rule = rng.choice(sorted(RULES.values()))
            return f" In {place} you {rule} since year {rng.randint(1, 9999)}.\n\nQuestion: {question}"

        return ScriptedEngine(complete)


class Smith:
    """A trainer that takes a step a pair, or as many as it is told; its model remembers what it was trained on."""

    def __init__(self, world: World, config: Config) -> None:
        self._world, self.steps, self.seed = world, config.train.max_steps, config.seed

    def key(self) -> dict[str, Any]:
        return {"trainer": "smith", "steps": self.steps, "seed": self.seed}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> TrainStats:
        self._world.fuse.burn()
        self._world.trained.append((str(out), list(pairs), start))
        steps = self.steps or len(pairs)
        make_folder(out)
        memory = [(Path(start) / "weights.json").read_text(), steps, self.seed, [pair.id for pair in pairs]]
        write_text(out / "weights.json", json.dumps(memory))
        return TrainStats(len(pairs), steps, 2.0, 1.0, 10 * steps, 5 * steps, 1, 10)


class Later:
    """An evaluator that finds the second iteration better than the first."""

    def key(self) -> dict[str, str]:
        return {"kind": "later"}

    def __call__(self, asker: Asker) -> dict[str, float]:
        return {"bits_per_byte": 1.0 if "iteration-02" in asker.model else 2.0}


def recipe(folder: Path, *settings: str, world: World | None = None) -> tuple[Parts, Callable[[Config, Parts], Parts]]:
    """A recipe's parts with held-out rows that have a rule each, and what makes an arm's parts of them."""
    world = world or World()
    folder.mkdir(exist_ok=True)
    goods = list(RULES)
    rows = [
        {"question": f"What about {goods[n % 3]} in house {n}?", "answer": f"There you {RULES[goods[n % 3]]}."}
        | {"rule": RULES[goods[n % 3]]}
        for n in range(9)
    ]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rules.json").write_text(json.dumps(RULES))
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base/weights.json").write_text("nothing")
    given = [*SMALL, "evaluate.score=rule", *settings]
    config = load_config(None, given, out=str(folder / "run"), heldout=str(folder / "heldout.jsonl"))

    def make(config: Config, base: Parts) -> Parts:
        questions, pairs = default_filters(config.filters)
        trainer = Smith(world, config)
        return replace(base, config=config, trainer=trainer, question_filters=questions, pair_filters=pairs)

    parts = Parts(
        config=config,
        seeds=SEEDS,
        model=str(folder / "base"),
        renderer=word_renderer(),
        engine=Keeper(world),
        embedder=HashEmbedder(),
        trainer=Smith(world, config),
        heldout=[QAPair(row["question"], row["answer"]) for row in rows],
        evaluator=Later(),
        weights=lambda model: "3d5a",
    )
    return make(config, parts), make


def lay_out(tmp_path: Path, names: str, seeds: Sequence[int] = (0,), *settings: str) -> tuple[Comparison, World]:
    world = World()
    base, make = recipe(tmp_path / "recipe", *settings, world=world)
    arms = find_arms(names.split(","))
    return compare(base, arms, seeds, tmp_path / "out", make=make), world


def stored(out: Path, arm: str, t: int, seed: int = 0) -> list[dict[str, Any]]:
    path = stage_folder(out / "arms" / arm / f"seed-{seed}", t, "generate") / "candidates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def scores(out: Path, arm: str, seed: int = 0) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]


def steps_of(out: Path, arm: str) -> list[int]:
    files = sorted((out / "arms" / arm / "seed-0").glob("iteration-*/train/train.json"))
    return [json.loads(path.read_text())["steps"] for path in files]


def trained_on(world: World, arm: str) -> list[tuple[list[QAPair], str]]:
    return [(pairs, start) for out, pairs, start in world.trained if f"/{arm}/" in out]


def figures(out: Path) -> dict[str, str]:
    names = ("table.md", "scores.jsonl", "comparison.json", "compare.yaml")
    return {name: (out / name).read_text().replace(str(out), "OUT") for name in names}


def fails(kind: type[IsaraError], message: str) -> Any:
    return pytest.raises(kind, match="^" + re.escape(message) + "$")


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(compare_command)
    return CliRunner().invoke(app, list(arguments))
