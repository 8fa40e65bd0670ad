"""Steps 1 to 4 of an iteration: questions, their filters, answers from retrieved demonstrations, the pairs' filters."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import compress
from pathlib import Path
from typing import Any

from isara.asking import Asker
from isara.config import Config, Score
from isara.diversity import collapse_figures
from isara.errors import YieldError
from isara.files import append_batch, cut_to, damaged, json_lines, read_batches, sums_file, write_json, write_text
from isara.filters.asked import rejection_of
from isara.pool import Pool, Retrieve, retriever
from isara.protocols import Filter
from isara.records import Candidate, QAPair, Rejection
from isara.selection.calibration import Calibration, leave_one_out, losses
from isara.selection.focus import Balanced, ByKind, Focus, Worst, around
from isara.selection.rules import Selection
from isara.selection.scores import Answered, Scorer, has_room
from isara.watching import Watcher

# Of the candidates of a first batch, of which nothing is known; half is what the recipes see.
ASSUMED_YIELD = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Making:
    """What the candidates of one iteration are made with.

    Attributes:
        t: The iteration, from 1.
        weights: Hash of M_{t-1}, stored with each candidate.
        demonstrations: D_{t-1}, from which question demonstrations are drawn.
        source: The pool that the demonstrations for answers come from.
        retrieve: Gives a question the demonstrations for its answer.
        config: The options.
        question_filters: Run before an answer is paid for.
        pair_filters: Run on question and answer.
        base: M_0, for scores under it; None where M_{t-1} is M_0.
        questions_by: The model that asks; None is M_{t-1}.
        question_weights: Hash of its weights, stored with each candidate; None where M_{t-1} asks.
        seed_pairs: D_0, on which scores are calibrated; empty where the demonstrations are nothing else.
        retrieve_others: Gives a question the demonstrations of its second answer; None where none is asked for.
        checked_by: The model that gives the second answer; None is the one that gives the first.
        checker_weights: Hash of its weights.
    """

    t: int
    weights: str
    demonstrations: Pool
    source: Pool
    retrieve: Retrieve
    config: Config
    question_filters: Sequence[Filter] = ()
    pair_filters: Sequence[Filter] = ()
    base: Asker | None = None
    questions_by: Asker | None = None
    question_weights: str | None = None
    seed_pairs: Sequence[QAPair] = ()
    retrieve_others: Retrieve | None = None
    checked_by: Asker | None = None
    checker_weights: str | None = None

    @property
    def seeds(self) -> Pool:
        """D_0."""
        return Pool(self.demonstrations.embedder, self.seed_pairs or self.demonstrations.pairs)


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
    kept = making.demonstrations.copy()
    kept.add(QAPair.from_json(row) for row in rows if row["accepted"])
    number = rows[-1]["batch"] + 1 if rows else 0
    if rows:
        watcher.batch((), len(kept) - len(making.demonstrations))
    selection = prepare(asker, making) if options.accept else Selection()
    if record := selection.to_json():
        write_json(folder / "calibration.json", record)
    while need := options.accept - (len(kept) - len(making.demonstrations)):
        _check_yield(folder, rows, number, making)
        new = make_batch(asker, making, number, kept, need, batch_size(rows, need, making.config), selection)
        marks: dict[str, Any] = {"batch": number, "batch_size": len(new), "weights": making.weights}
        if making.question_weights is not None:
            marks["question_weights"] = making.question_weights
        stored = [{**marks, **candidate.to_json()} for candidate in new]
        store_batch(folder / "candidates.jsonl", stored)
        rows += stored
        number += 1
        watcher.batch(new, len(kept) - len(making.demonstrations))
    passed = [row for row in rows if row["accepted"]]
    write_json(folder / "stats.json", {"funnel": funnel(rows), **collapse_figures(making.demonstrations, rows)})
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


def batch_size(rows: Sequence[Mapping[str, Any]], need: int, config: Config) -> int:
    """Candidates of the next batch: a tenth more than `need` takes by the yield so far, and a full batch at most.

    Args:
        rows: All candidates of the iteration that are stored, on which alone the yield depends.
        need: Pairs still to be accepted.
        config: Says how large a full batch is; a prompt asks for all of its questions.
    """
    accepted = sum(row["accepted"] for row in rows)
    passing = Fraction(accepted, len(rows)) if rows else ASSUMED_YIELD
    most, per_prompt = config.generate.batch, config.questions.per_prompt
    if not passing:
        return most
    prompts = math.ceil(Fraction(11, 10) * need / passing / per_prompt)
    return min(most, prompts * per_prompt)


def prepare(asker: Asker, making: Making) -> Selection:
    """How the stage's answers are chosen; the seeds are measured for it, leave-one-out, where that takes it.

    Raises:
        ModelError: The engine gives no likelihoods.
    """
    select, seeds = making.config.select, making.seeds
    summed = select.weights if len(select.weights) > 1 else {}
    names = tuple(name for name in select.measured if name in {*select.keep, *summed})
    found: dict[Score, list[float]] = {}
    if names:
        held = _held_seeds(making, seeds)
        if "agree" in names:
            held = _with_others(asker, making, held)
        rows = Scorer(asker, making.base or asker, seeds)(names, held, seeds.pairs)
        found = {name: [row[name] for row in rows if row] for name in names}
    return Selection(select.chosen_by, select.keep, Calibration(found), find_focus(asker, making))


def find_focus(asker: Asker, making: Making) -> Focus | None:
    """What questions are drawn around; None is everything that is kept."""
    if making.config.questions.focus == "balanced":
        return Balanced(making.seeds)
    if making.config.questions.focus == "kinds":
        answers = making.config.answers
        return ByKind(making.seeds, making.source, answers.retrieve, answers.demos, making.config.seed)
    if making.config.questions.focus == "worst":
        held = _held_seeds(making, making.seeds)
        return Worst([each.pair for each in held], losses(making.questions_by or asker, held))
    return None


def _held_seeds(making: Making, seeds: Pool) -> list[Answered]:
    return leave_one_out(seeds, _among(seeds, making.config))


def _among(seeds: Pool, config: Config) -> Retrieve:
    """Gives a seed the demonstrations that a question gets, from the other seeds."""
    return retriever(seeds, config.answers.retrieve, config.answers.demos, config.seed)


def _with_others(asker: Asker, making: Making, held: Sequence[Answered]) -> list[Answered]:
    """Each seed beside as many answers of the model's to its question as a candidate's answer has others."""
    config, copies = making.config, making.config.select.answers - 1
    pairs = [each.pair for each in held for _ in range(copies)]
    streams = [
        stream(config.seed, making.t, "calibration", each.pair.id, index) for each in held for index in range(copies)
    ]
    draws = asker.answers(pairs, config.answers.sampling, streams, _among(making.seeds, config))
    texts = [[draw.text for draw in draws[place : place + copies] if draw] for place in range(0, len(draws), copies)]
    return [replace(each, others=others) for each, others in zip(held, texts, strict=True)]


def make_batch(
    asker: Asker,
    making: Making,
    number: int,
    kept: Pool,
    need: int,
    size: int | None = None,
    selection: Selection | None = None,
) -> list[Candidate]:
    """The candidates of one batch, accepted and rejected; accepted pairs are added to `kept`.

    Args:
        asker: M_{t-1}.
        making: What candidates are made with.
        number: Of the batch within the iteration, from 0.
        kept: Seeds and everything accepted so far.
        need: How many pairs are still to be accepted; beyond it an answered one is "surplus", unfiltered.
        size: How many candidates; None is a full batch.
        selection: How answers are chosen, as `prepare` gives it; None prepares it.
    """
    config, t = making.config, making.t
    selection = selection or prepare(asker, making)
    # 1. New questions: the model goes on after demonstrations drawn from D_{t-1}.
    demos = draw_demonstrations(making, number, size, selection.focus)
    seeds = [stream(config.seed, t, "question", number, index) for index in range(len(demos))]
    sampling, asking = config.questions.sampling, making.questions_by or asker
    draws = asking.questions(demos, sampling, seeds, asking.room(sampling, "questions"))
    candidates = [Candidate(QAPair(draw.text, "", t), draw) for draw in draws]
    # 2. Question filters, before an answer is paid for.
    filter_questions(candidates, kept, making.question_filters)
    # 3. Answers, each after the demonstrations that are retrieved for its question, with their scores.
    asked = [each for each in candidates if each.rejection is None]
    focus = selection.focus
    shown = focus.answering(asked, making.retrieve) if isinstance(focus, ByKind) else making.retrieve
    take_answers(asked, asker, making, number, shown)
    answered = [each for each in candidates if each.rejection is None]
    score_answers(answered, asker, making)
    answer_again(answered, asker, making, number)
    # 4. Pair filters, and the thresholds of scores after them.
    filter_pairs(answered, kept, [*making.pair_filters, *selection.filters], need, selection)
    name_near_pairs(candidates)
    return candidates


def draw_demonstrations(
    making: Making, number: int, size: int | None = None, focus: Focus | None = None
) -> list[Sequence[QAPair]]:
    """The demonstrations of each question prompt in a batch; each list serves `per_prompt` prompts.

    Args:
        making: What candidates are made with.
        number: Of the batch.
        size: Its candidates; None is a full batch.
        focus: What they are drawn around; None is everything.
    """
    config, pool = making.config, making.demonstrations
    size = size or config.generate.batch
    per_batch, demos = math.ceil(config.generate.batch / config.questions.per_prompt), config.questions.demos
    neighbours = config.questions.choice == "neighbours"
    drawn: list[Sequence[QAPair]] = []
    for index in range(math.ceil(size / config.questions.per_prompt)):
        rng = random.Random(stream(config.seed, making.t, "demonstrations", number, index))
        n = 1 if neighbours else demos
        drawn.append(focus.draw(number * per_batch + index, n, rng) if focus else pool.sample(n, rng))
    if focus or neighbours:
        pool.expect(centre.asked for centre, *_ in drawn)
        drawn = [focus.fill(pool, each, demos) if focus else around(pool, each, demos) for each in drawn]
    return [each for each in drawn for _ in range(config.questions.per_prompt)][:size]


def filter_questions(candidates: Sequence[Candidate], kept: Pool, filters: Sequence[Filter]) -> None:
    """Marks candidates whose question fails, against everything kept and the questions before it."""
    # A copy, so that a question whose answer fails later does not stay among the kept ones.
    pending = kept.copy()
    pending.expect(each.pair.question for each in candidates)
    for candidate in candidates:
        candidate.rejection = first_rejection(candidate, pending, filters)
        if candidate.rejection is None:
            pending.add([candidate.pair])


def take_answers(candidates: Sequence[Candidate], asker: Asker, making: Making, number: int, shown: Retrieve) -> None:
    """Gives candidates their answers, after what is shown; marks those whose question does not fit into the context."""
    config, copies = making.config, making.config.select.answers
    sampling = config.answers.sampling
    room = asker.room(sampling, "answers")
    seeds = [
        # The first is drawn as it would be alone.
        stream(config.seed, making.t, "answer", number, each.question.seed, *([index] if index else []))
        for each in candidates
        for index in range(copies)
    ]
    pairs = [each.pair for each in candidates for _ in range(copies)]
    making.source.expect(pair.asked for pair in pairs)
    draws = asker.answers(pairs, sampling, seeds, shown)
    for place, candidate in enumerate(candidates):
        found = tuple(draw for draw in draws[place * copies : (place + 1) * copies] if draw is not None)
        if found:
            candidate.answers = found
            _choose(candidate, 0)
        else:
            alone = asker.renderer.answer((), candidate.pair)
            candidate.rejection = Rejection("context_length", len(alone.ids), room)


def score_answers(candidates: Sequence[Candidate], asker: Asker, making: Making) -> None:
    """Gives each answer the scores that the run asks for; none to one that has no room beside its question."""
    names = making.config.select.measured
    if not names:
        return
    answers = [_answered(each, place, making) for each in candidates for place in range(len(each.answers))]
    # Broken characters can take more tokens than they were generated as.
    fitting = [has_room(asker.renderer, each.pair) for each in answers]
    scorer = Scorer(asker, making.base or asker, making.seeds)
    scored = scorer(names, list(compress(answers, fitting)), [each.pair for each in candidates])
    found = iter(scored)
    rows = iter([next(found) if fits else {} for fits in fitting])
    for each in candidates:
        each.answers = tuple(replace(draw, scores=next(rows)) for draw in each.answers)


def answer_again(candidates: Sequence[Candidate], asker: Asker, making: Making, number: int) -> None:
    """Gives candidates a second answer, where the run holds the first against it."""
    if making.retrieve_others is None:
        return
    config, asker = making.config, making.checked_by or asker
    seeds = [stream(config.seed, making.t, "second answer", number, each.question.seed) for each in candidates]
    draws = asker.answers([each.pair for each in candidates], config.answers.sampling, seeds, making.retrieve_others)
    for candidate, draw in zip(candidates, draws, strict=True):
        candidate.second = draw


def _answered(candidate: Candidate, place: int, making: Making) -> Answered:
    """One of a candidate's answers as it is scored."""
    draw = candidate.answers[place]
    demos = [demo for demo_id in draw.demo_ids if (demo := making.demonstrations.get(demo_id))]
    others = [other.text for index, other in enumerate(candidate.answers) if index != place]
    return Answered(replace(candidate.pair, answer=draw.text, demo_ids=draw.demo_ids), demos, others)


def name_near_pairs(candidates: Sequence[Candidate]) -> None:
    """Lets candidates that were too near to a question of their batch name that question's pair, answer included."""
    named = {replace(each.pair, answer="", demo_ids=()).id: each.pair.id for each in candidates if each.answers}
    for each in candidates:
        if each.rejection and each.rejection.near_id in named:
            each.rejection = replace(each.rejection, near_id=named[each.rejection.near_id or ""])


def filter_pairs(
    candidates: Sequence[Candidate],
    kept: Pool,
    filters: Sequence[Filter],
    need: int,
    selection: Selection,
) -> None:
    """Marks candidates whose pair fails and adds the others to `kept`, `need` of them at most."""
    for candidate in candidates:
        order = selection.order(candidate.answers)
        if need:
            candidate.rejection = take_best(candidate, order, kept, filters)
        else:
            _choose(candidate, order[0])
            candidate.rejection = Rejection("surplus")
        if candidate.rejection is None:
            kept.add([candidate.pair])
            need -= 1


def take_best(candidate: Candidate, order: Sequence[int], kept: Pool, filters: Sequence[Filter]) -> Rejection | None:
    """Gives the candidate the first of its answers, in this order, that passes; else the very first, and what is said.

    Args:
        candidate: Has been answered.
        order: Places of its answers, the best first.
        kept: Seeds and everything accepted so far.
        filters: Of pairs.
    """
    said = []
    for place in order:
        _choose(candidate, place)
        said.append(first_rejection(candidate, kept, filters))
        if said[-1] is None:
            return None
    _choose(candidate, order[0])
    return said[0]


def _choose(candidate: Candidate, place: int) -> None:
    """Makes one of its answers the candidate's."""
    draw = candidate.answers[place]
    candidate.chosen = place
    candidate.pair = replace(candidate.pair, answer=draw.text, demo_ids=draw.demo_ids)


def first_rejection(candidate: Candidate, pool: Pool, filters: Iterable[Filter]) -> Rejection | None:
    """What the first filter that objects says, or None.

    Raises:
        ConfigError: A filter fails, or returns something else.
    """
    for check in filters:
        if said := rejection_of(check, candidate, pool):
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
    # Counted in full batches, since the last ones are as small as what is still wanted.
    over = len(rows) >= options.most_batches * options.batch
    if not over and (batches < 2 or accepted >= options.min_yield * len(rows)):
        return
    taken = [
        f"{reason} took {count}" for reason, count in funnel(rows).items() if reason not in {"candidates", "accepted"}
    ]
    raise YieldError(
        f"iteration {making.t}: {accepted} of the {options.accept} pairs wanted were accepted out of {len(rows)} "
        f"candidates in {batches} batches{'; ' * bool(taken)}{', '.join(taken[:4])}. Everything so far is kept in "
        f"{folder}. {_advice(rows)} (generate.max_batches and generate.min_yield may be changed in the same run, the "
        "rest only in a new --out)"
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
    "copied": "Answers copy another pair's: raise filters.copied or show fewer demonstrations",
    "repetition": "Answers repeat themselves: raise answers.temperature, or take a larger base model",
    "echo": "Answers repeat the question: raise filters.echo, or take a larger base model",
    "language": "Texts are in another script than the seeds: set filters.language to false if that is wanted",
    "select_natural": "Answers are not natural to the base model: raise select.keep.natural, or leave it out",
    "select_icl_gain": "Demonstrations add little to the answers: raise select.keep.icl_gain, or leave it out",
    "select_question": "Answers would fit other questions as well: raise select.keep.question, or select.answers",
    "select_agree": "Answers to one question differ: raise select.keep.agree, or lower answers.temperature",
    "select_seeds": "Pairs don't help with the seeds' own answers: raise select.keep.seeds, or leave it out",
    "select_distance": "Questions are far from the seeds': raise select.keep.distance, or lower questions.temperature",
    "unsupported_numbers": "Answers invent numbers: take a larger model, or set filters.unsupported_numbers to false",
    "unsupported_contacts": "Answers invent contacts: set filters.unsupported_contacts to false if these are right",
    "off_domain": "Questions leave the seeds' domain: lower questions.temperature or raise filters.off_domain",
    "kind": "Answers are of another kind than their questions let expect: show nearer demonstrations "
    "(retrieve.embedder: minilm), take a larger model, or set filters.kind to false",
    "agreement": "Second answers say something else: neighbours by meaning (retrieve.embedder: minilm), more epochs or "
    "a larger model agree more often; filters.agreement: null leaves pairs unchecked, as free prose needs it",
    "balance": "One kind of answer spreads: raise filters.balance, or show more demonstrations",
    "contamination": "Texts overlap with the benchmark files: check that the seeds were not taken from them",
}


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to turn, for the reason that took most."""
    reasons = [reason for reason in funnel(rows) if reason not in {"candidates", "accepted", "surplus"}]
    return (
        ADVICE.get(reasons[0], f"Look at the rows dropped by {reasons[0]}") if reasons else "Raise generate.max_batches"
    )
