"""Steps 1 to 4 of an iteration: questions, their filters, answers from retrieved demonstrations, the pairs' filters."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isara.asking import Asker
from isara.config import Config
from isara.diversity import diversity
from isara.errors import ConfigError, YieldError
from isara.files import append_batch, cut_to, damaged, json_lines, read_batches, sums_file, write_json, write_text
from isara.pool import Pool, Retrieve, sample_neighbours
from isara.protocols import Filter
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.watching import Watcher


@dataclass(frozen=True, slots=True)
class Making:
    """What the candidates of one iteration are made with.

    Attributes:
        t: The iteration, from 1.
        weights: Hash of M_{t-1}, stored with each candidate.
        demonstrations: D_{t-1}, from which question demonstrations are drawn.
        retrieve: Gives a question the demonstrations for its answer.
        retrieved_from: Hash of the pairs that those come from.
        config: The options.
        question_filters: Run before an answer is paid for.
        pair_filters: Run on question and answer.
    """

    t: int
    weights: str
    demonstrations: Pool
    retrieve: Retrieve
    retrieved_from: str
    config: Config
    question_filters: Sequence[Filter] = ()
    pair_filters: Sequence[Filter] = ()


def make_pairs(asker: Asker, making: Making, watcher: Watcher, folder: Path) -> None:
    """The work of generate: candidates until N are accepted, then stats.json and accepted.jsonl.

    Args:
        asker: M_{t-1}.
        making: What candidates are made with.
        watcher: Is told of each batch.
        folder: The stage's folder; whole batches that lie there are taken over.

    Raises:
        YieldError: Too few candidates pass; what was made stays on disk.
    """
    options = making.config.generate
    watcher.stage(making.t, "generate", options.accept)
    rows = resume_batches(folder / "candidates.jsonl")
    if any(row.get("weights") != making.weights or row.get("iteration") != making.t for row in rows):
        raise damaged(folder / "candidates.jsonl")  # another iteration's
    kept = Pool(making.demonstrations.embedder, making.demonstrations.pairs)
    kept.add(QAPair.from_json(row) for row in rows if row["accepted"])
    number = rows[-1]["batch"] + 1 if rows else 0
    if rows:
        watcher.batch((), len(kept) - len(making.demonstrations))
    while need := options.accept - (len(kept) - len(making.demonstrations)):
        _check_yield(folder, rows, number, making)
        new = make_batch(asker, making, number, kept, need)
        marks = {"batch": number, "batch_size": len(new), "weights": making.weights}
        stored = [{**marks, **candidate.to_json()} for candidate in new]
        store_batch(folder / "candidates.jsonl", stored)
        rows += stored
        number += 1
        watcher.batch(new, len(kept) - len(making.demonstrations))
    passed = [row for row in rows if row["accepted"]]
    write_json(folder / "stats.json", {"funnel": funnel(rows), **diversity(passed)})
    write_text(
        folder / "accepted.jsonl",
        json_lines(
            {
                **QAPair.from_json(row).to_json(),
                "weights": row["weights"],
                "answer_seed": row["answer_draws"][row["chosen"]]["seed"],
            }
            for row in passed
        ),
    )


def make_batch(asker: Asker, making: Making, number: int, kept: Pool, need: int) -> list[Candidate]:
    """The candidates of one batch, accepted and rejected; accepted pairs are added to `kept`.

    Args:
        asker: M_{t-1}.
        making: What candidates are made with.
        number: Of the batch within the iteration, from 0.
        kept: Seeds and everything accepted so far.
        need: How many pairs are still to be accepted; passing ones beyond it are rejected as "surplus".
    """
    config, t = making.config, making.t
    # 1. New questions: the model goes on after demonstrations drawn from D_{t-1}.
    demos = draw_demonstrations(making, number)
    seeds = [stream(config.seed, t, "question", number, index) for index in range(len(demos))]
    sampling = config.questions.sampling
    draws = asker.questions(demos, sampling, seeds, asker.room(sampling, "questions"))
    candidates = [Candidate(QAPair(draw.text, "", t), draw) for draw in draws]
    # 2. Question filters, before an answer is paid for.
    filter_questions(candidates, kept, making.question_filters)
    # 3. Answers, each after the demonstrations that are retrieved for its question.
    asked = [each for each in candidates if each.rejection is None]
    seeds = [stream(config.seed, t, "answer", number, each.question.seed) for each in asked]
    sampling = config.answers.sampling
    room = asker.room(sampling, "answers")
    take_answers(asked, asker.answers([each.pair for each in asked], sampling, seeds, making.retrieve), asker, room)
    name_near_pairs(candidates)
    # 4. Pair filters.
    filter_pairs([each for each in asked if each.rejection is None], kept, making.pair_filters, need)
    return candidates


def draw_demonstrations(making: Making, number: int) -> list[Sequence[QAPair]]:
    """The demonstrations of each question prompt in a batch; each list serves `per_prompt` prompts."""
    config = making.config
    shown: list[Sequence[QAPair]] = []
    for index in range(math.ceil(config.generate.batch / config.questions.per_prompt)):
        rng = random.Random(stream(config.seed, making.t, "demonstrations", number, index))
        draw = sample_neighbours if config.questions.choice == "neighbours" else Pool.sample
        shown += [draw(making.demonstrations, config.questions.demos, rng)] * config.questions.per_prompt
    return shown[: config.generate.batch]


def filter_questions(candidates: Sequence[Candidate], kept: Pool, filters: Sequence[Filter]) -> None:
    """Marks candidates whose question fails, against everything kept and the questions before it."""
    # A copy, so that a question whose answer fails later does not stay among the kept ones.
    pending = Pool(kept.embedder, kept.pairs)
    for candidate in candidates:
        candidate.rejection = first_rejection(candidate, pending, filters)
        if candidate.rejection is None:
            pending.add([candidate.pair])


def take_answers(candidates: Sequence[Candidate], draws: Sequence[Draw | None], asker: Asker, room: int) -> None:
    """Gives candidates their answers; marks those whose question does not fit into the context."""
    for candidate, draw in zip(candidates, draws, strict=True):
        if draw is None:
            alone = asker.renderer.answer((), candidate.pair)
            candidate.rejection = Rejection("context_length", len(alone.ids), room)
        else:
            candidate.answers = (draw,)
            candidate.pair = replace(candidate.pair, answer=draw.text, demo_ids=draw.demo_ids)


def name_near_pairs(candidates: Sequence[Candidate]) -> None:
    """Lets candidates that were too near to a question of their batch name that question's pair, answer included."""
    named = {
        replace(each.pair, answer="", demo_ids=()).id: each.pair.id for each in candidates if each.rejection is None
    }
    for each in candidates:
        if each.rejection and each.rejection.near_id in named:
            each.rejection = replace(each.rejection, near_id=named[each.rejection.near_id or ""])


def filter_pairs(candidates: Iterable[Candidate], kept: Pool, filters: Sequence[Filter], need: int) -> None:
    """Marks candidates whose pair fails and adds the others to `kept`, `need` of them at most."""
    for candidate in candidates:
        candidate.rejection = first_rejection(candidate, kept, filters) if need else Rejection("surplus")
        if candidate.rejection is None:
            kept.add([candidate.pair])
            need -= 1


def first_rejection(candidate: Candidate, pool: Pool, filters: Iterable[Filter]) -> Rejection | None:
    """What the first filter that objects says, or None.

    Raises:
        ConfigError: A filter returns something else.
    """
    for check in filters:
        said = check(candidate, pool)
        if said is None:
            continue
        if not isinstance(said, Rejection):
            name = getattr(check, "__qualname__", type(check).__qualname__)
            raise ConfigError(
                f"expected a Rejection or None from the filter `{name}`, found {said!r}: "
                'return Rejection("its_name", value, threshold) for a pair to drop and None for one to keep'
            )
        return said
    return None


def stream(*parts: int | str) -> int:
    """A 63-bit random seed that depends on nothing but its parts: each draw can be made again by itself."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def store_batch(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds a batch to a file of candidates, and then its size and hash to the file beside it: only both count."""
    append_batch(path, rows)


def resume_batches(path: Path) -> list[dict[str, Any]]:
    """The whole batches of a file of candidates that is about to grow; what a kill left behind them is cut off."""
    rows, size, sums = read_batches(path)
    cut_to(path, size)
    cut_to(sums_file(path), sums)
    return rows


def whole_batches(path: Path) -> list[dict[str, Any]]:
    """The stored candidates up to the last whole batch; nothing is written.

    Raises:
        RunError: A batch is not what was written.
    """
    return read_batches(path)[0]


def funnel(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many stored candidates were accepted and how many each reason took, most first."""
    reasons = Counter(row["rejection"]["reason"] for row in rows if not row["accepted"])
    return {"candidates": len(rows), "accepted": sum(row["accepted"] for row in rows), **dict(reasons.most_common())}


def _check_yield(folder: Path, rows: Sequence[Mapping[str, Any]], batches: int, making: Making) -> None:
    """Raises a YieldError when going on would be a waste."""
    options = making.config.generate
    accepted = sum(row["accepted"] for row in rows)
    if batches < options.most_batches and (batches < 2 or accepted >= options.min_yield * len(rows)):
        return
    taken = [
        f"{reason} took {count}" for reason, count in funnel(rows).items() if reason not in {"candidates", "accepted"}
    ]
    raise YieldError(
        f"iteration {making.t}: {accepted} of the {options.accept} pairs wanted were accepted out of {len(rows)} "
        f"candidates in {batches} batches; {', '.join(taken[:4])}. Everything so far is kept in {folder}. "
        f"{_advice(rows)} (generate.max_batches and generate.min_yield may be changed in the same run, the rest only "
        "in a new --out)"
    )


ADVICE = {
    "novelty": "The model repeats itself: raise questions.temperature or filters.novelty, or give more varied seeds",
    "near_duplicate": "Questions are too alike: raise filters.near_duplicate or questions.temperature",
    "truncated": "Texts don't end: raise questions.max_new_tokens or answers.max_new_tokens",
    "run_on": "The model runs on into the next pair: show more demonstrations, or set prompt_format for its kind",
    "min_question_tokens": "Questions are too short: lower filters.min_question_tokens or show more demonstrations",
    "max_question_tokens": "Questions are too long: raise filters.max_question_tokens or shorten the seeds",
    "form": "Texts are no texts: show more demonstrations, or take a larger base model",
    "min_answer_tokens": "Answers are too short: lower filters.min_answer_tokens, or show more demonstrations",
    "max_answer_tokens": "Answers are too long: raise filters.max_answer_tokens, or shorten the seeds",
    "drop_matching": "Your own expressions take them: loosen filters.drop_matching",
    "context_length": "Questions outgrow the model's context: lower answers.max_new_tokens, or shorten the seeds",
    "copied": "Answers copy a demonstration: raise filters.copied or show fewer demonstrations",
    "repetition": "Answers repeat themselves: raise answers.temperature, or take a larger base model",
    "echo": "Answers repeat the question: raise filters.echo, or take a larger base model",
    "language": "Texts are in another script than the seeds: set filters.language to false if that is wanted",
    "contamination": "Texts overlap with the benchmark files: check that the seeds were not taken from them",
}


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to turn, for the reason that took most."""
    reasons = [reason for reason in funnel(rows) if reason not in {"candidates", "accepted", "surplus"}]
    return (
        ADVICE.get(reasons[0], f"Look at the rows dropped by {reasons[0]}") if reasons else "Raise generate.max_batches"
    )
