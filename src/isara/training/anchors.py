"""Anchors: what the start model itself says to everyday questions, trained on beside the pairs so that it stays so."""

import logging
import random
from pathlib import Path
from typing import Any

from isara.asking import Asker
from isara.files import read_text, value_hash
from isara.generate import stream
from isara.protocols import Engine
from isara.records import QAPair, Sampling
from isara.render import Renderer

log = logging.getLogger("isara")

# Greedy, and long enough for a short question. An answer that is cut is no anchor: it would teach to break off.
SAMPLING = Sampling(temperature=0.0, max_new_tokens=96)
FILE = "anchors.jsonl"


def questions(seed: int) -> list[str]:
    """The everyday questions that ship, in an order that the seed draws."""
    lines = read_text(Path(__file__).with_name("everyday.txt")).splitlines()
    random.Random(stream(seed, "anchors")).shuffle(lines)
    return lines


def wanted(share: float, pairs: int) -> int:
    """How many anchors are that share of all rows beside so many pairs."""
    return round(share / (1 - share) * pairs)


def make_anchors(engine: Engine, renderer: Renderer, count: int, seed: int) -> list[QAPair]:
    """The model's own zero-shot answers to `count` everyday questions; fewer where too few of its answers end.

    Args:
        engine: The start model.
        renderer: Makes its prompts.
        count: How many are wanted.
        seed: Of the questions' order.
    """
    found: list[QAPair] = []
    left = [QAPair(question, "") for question in questions(seed)]
    with Asker(lambda model: engine, "start", renderer) as asker:
        while left and len(found) < count:
            asked, left = left[: count - len(found)], left[count - len(found) :]
            for pair, draw in zip(asked, asker.answers(asked, SAMPLING, [0] * len(asked)), strict=True):
                if draw is not None and draw.finish == "stop" and draw.text:
                    found.append(QAPair(pair.question, draw.text))
    if len(found) < count:
        log.warning(
            "%d anchors of the %d wanted: the model ended so many of its %d answers",
            *(len(found), count, len(questions(seed))),
        )
    return found


def anchors_key(engine: Any) -> dict[str, Any]:
    """What decides which anchors there are, beside the start, their number and the seed."""
    said = {"temperature": SAMPLING.temperature, "max_new_tokens": SAMPLING.max_new_tokens}
    return {"questions": value_hash(sorted(questions(0))), "engine": engine.key(), **said}
