"""The preference step: chosen answers beside what the model says by itself, for it to learn the difference.

With `prefer.method: dpo` an accepted answer, given after retrieved demonstrations, is preferred to the zero-shot answer
of the same model (direct preference optimisation, arXiv 2305.18290, on pairs that need no judge). With `spin` a seed's
own answer is preferred to that of the model which the step starts from (self-play fine-tuning, arXiv 2401.01335).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from isara.asking import Asker
from isara.config import LEAST_PREFERENCES, Config
from isara.errors import TrainingError
from isara.files import damaged
from isara.generate import resume_batches, store_batch, stream, whole_batches
from isara.records import Preference, QAPair
from isara.watching import Watcher

log = logging.getLogger("isara")

FILE = "contrast.jsonl"


def ask_alone(
    asker: Asker, pairs: Sequence[QAPair], config: Config, t: int, weights: str, watcher: Watcher, folder: Path
) -> None:
    """The model's zero-shot answers to the pairs' questions, with the sampling of all answers, into contrast.jsonl.

    Args:
        asker: The model.
        pairs: The questions, with the answers that are to be preferred.
        config: Says how answers are drawn, and how many questions make a batch.
        t: The iteration.
        weights: Hash of the model's weights, stored with each row.
        watcher: Is told of each batch.
        folder: Where the file grows; whole batches that lie there are taken over.

    Raises:
        RunError: The file holds rows of another model.
    """
    path, size = folder / FILE, config.generate.batch
    rows = resume_batches(path)
    if any(row["weights"] != weights for row in rows):
        raise damaged(path)
    for start in range(len(rows), len(pairs), size):
        batch = pairs[start : start + size]
        seeds = [stream(config.seed, t, "alone", pair.id) for pair in batch]
        draws = asker.answers(batch, config.answers.sampling, seeds)
        store_batch(
            path,
            [
                {"weights": weights, **pair.to_json(), "rejected_draw": draw.to_json() if draw else None}
                for pair, draw in zip(batch, draws, strict=True)
            ],
        )
        watcher.alone([draw for draw in draws if draw])


def read_preferences(folder: Path) -> list[Preference]:
    """The preferences of a finished step, without questions that had no room and answers that are equal.

    Raises:
        RunError: The file is damaged.
    """
    rows = [Preference.from_json(row) for row in whole_batches(folder / FILE) if row["rejected_draw"]]
    return [row for row in rows if row.pair.answer.split() != row.rejected.text.split()]


def check_enough(preferences: Sequence[Preference], asked: int, t: int) -> None:
    """Whether two answers differ in enough pairs to learn from.

    Args:
        preferences: Those that are left.
        asked: How many questions there were.
        t: The iteration.

    Raises:
        TrainingError: They are too few.
    """
    log.info("iteration %d: %d of %d pairs have two different answers to prefer one of", t, len(preferences), asked)
    if len(preferences) < LEAST_PREFERENCES:
        # Each had room with demonstrations before it, so what fell out was the same.
        why = "its own are as good" if asked >= LEAST_PREFERENCES else "there are too few pairs"
        so = f"finish the run with --set iterations={t - 1}, or begin one" if t > 1 else "begin a run"
        raise TrainingError(
            f"iteration {t}: expected at least {LEAST_PREFERENCES} pairs whose answer differs from the model's own, "
            f"found {len(preferences)} of {asked}: {why}, so {so} with more pairs, with answers.temperature "
            "above 0, or with prefer.method none"
        )
