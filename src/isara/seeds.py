"""Seed pairs before anything runs: what is wrong with them, and which of them are held out."""

import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from isara.config import Config
from isara.data import SourceRow, read_rows
from isara.errors import SeedError
from isara.loading import load_error
from isara.records import QAPair
from isara.words import tokenize

log = logging.getLogger("isara")

FEW = 10
_SHOWN = 10
_LABEL = re.compile(r"^\s*((?:Question|Answer|Prompt|Response|User|Assistant|Human|Q|A)\s?:)", re.IGNORECASE)
_INNER_LABEL = re.compile(r"^((?:Question|Answer)\s?:)", re.MULTILINE)

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the seed pairs that the user should mend (error) or know (warning).

    Attributes:
        file: Where the pairs come from.
        line: The pair's line, or None where the problem is about all of them.
        severity: An error keeps a run from starting.
        message: What was found and what to do.
    """

    file: str
    line: int | None
    severity: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.message}"


def load_seeds(config: Config, model: str) -> tuple[list[QAPair], list[QAPair]]:
    """Seed pairs and held-out pairs of a config, linted; warnings go to the log.

    Args:
        config: Names the seeds, their columns, and what is held out.
        model: The model's folder or name; its tokenizer and context length decide which pairs are too long.

    Raises:
        SeedError: The first error of the lint, and how many more there are.
        ModelError: The model's tokenizer or config can't be loaded.
    """
    count_tokens, max_tokens = _token_limit(config, model)

    def read(source: str, demos_needed: int, share: float) -> list[SourceRow]:
        rows = read_rows(source, config.columns.question, config.columns.answer)
        problems.extend(
            lint(rows, demos_needed=demos_needed, heldout=share, count_tokens=count_tokens, max_tokens=max_tokens)
        )
        return unique(rows)

    problems: list[Problem] = []
    share = config.heldout if isinstance(config.heldout, float) else 0.0
    seeds = read(config.seeds, max(config.questions.demos, config.answers.demos), share)
    if isinstance(config.heldout, str):
        heldout = read(config.heldout, 0, 0.0)
    else:
        aside = {pair.id for pair in split_heldout([row.pair for row in seeds], share, config.seed)[1]}
        heldout = [row for row in seeds if row.pair.id in aside]
        seeds = [row for row in seeds if row.pair.id not in aside]
    problems += check_overlap(seeds, heldout)
    _report(problems)
    return [row.pair for row in seeds], [row.pair for row in heldout]


def lint(
    rows: Sequence[SourceRow],
    *,
    demos_needed: int,
    heldout: float = 0.0,
    count_tokens: CountTokens | None = None,
    max_tokens: int | None = None,
) -> list[Problem]:
    """Everything that is wrong with the pairs, in the order of their lines, problems of the whole last.

    Args:
        rows: The pairs as read.
        demos_needed: Demonstrations that a prompt shows; there have to be as many seed pairs. 0 also stands for pairs
            that are no seeds, of which a few will do.
        heldout: Share of the pairs that will not be seeds.
        count_tokens: Counts the tokens of texts; None leaves the length unchecked.
        max_tokens: Most tokens that a pair may have.
    """
    problems = [problem for row in rows for problem in _row_problems(row)]
    if count_tokens is not None and max_tokens is not None:
        problems += _too_long(rows, count_tokens, max_tokens)
    problems += _repeats(rows)
    problems.sort(key=lambda problem: problem.line or 0)
    return problems + list(_too_few(rows, demos_needed, heldout))


def unique(rows: Sequence[SourceRow]) -> list[SourceRow]:
    """The rows without those whose question and answer stood before."""
    first: dict[str, SourceRow] = {}
    for row in rows:
        first.setdefault(row.pair.id, row)
    return list(first.values())


def split_heldout(pairs: Sequence[QAPair], share: float, seed: int) -> tuple[list[QAPair], list[QAPair]]:
    """Seed pairs and held-out pairs, each in the order of `pairs`; at least one of each unless the share is 0.

    Each pair is given a place by the hash of its content and the seed, and the first places are held out. So the split
    does not depend on the order of the rows, and a new row moves at most itself and one other to the other side.

    Raises:
        SeedError: One pair alone can't be split.
    """
    if share and len(pairs) < 2:
        raise SeedError(f"expected at least 2 pairs to hold some out, found {len(pairs)}: add pairs or set heldout=0")
    places = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed} {pair.id}".encode()).digest())
    aside = {pair.id for pair in places[: _heldout_size(len(pairs), share)]}
    return [pair for pair in pairs if pair.id not in aside], [pair for pair in pairs if pair.id in aside]


def check_overlap(seeds: Sequence[SourceRow], heldout: Sequence[SourceRow]) -> list[Problem]:
    """Held-out pairs that a seed pair gives away: the same pair (an error), or a near duplicate of its question.

    Where many are near, as in a domain of few set questions, the figures on the held-out pairs say little of new ones.
    """
    known = {row.pair.id: row for row in seeds}
    words = [tokenize(row.pair.question) for row in seeds]
    problems = []
    for row in heldout:
        if twin := known.get(row.pair.id):
            message = f"this held-out pair is the seed pair of {_place(twin, row)}: take it out of one of them"
            problems.append(Problem(row.file, row.line, "error", message))
        elif near := _nearest(tokenize(row.pair.question), words):
            message = (
                f"the question of this held-out pair is near the seed question of {_place(seeds[near[0]], row)} "
                f"(ROUGE-L {near[1]:.2f}): hold out another pair for a stricter test"
            )
            problems.append(Problem(row.file, row.line, "warning", message))
    return problems


def _report(problems: Sequence[Problem]) -> None:
    """Logs the warnings and raises the first error."""
    warnings = [problem for problem in problems if problem.severity == "warning"]
    for problem in warnings[:_SHOWN]:
        log.warning("%s", problem)
    if len(warnings) > _SHOWN:
        log.warning("%d more warnings about the pairs; `isara.seeds.lint` gives them all", len(warnings) - _SHOWN)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise SeedError(f"{errors[0]}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))


def _token_limit(config: Config, model: str) -> tuple[CountTokens, int]:
    """How the model counts tokens, and the most of them that a pair may have to be trained on whole."""
    from transformers import AutoConfig, AutoTokenizer

    trusted = config.engine.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trusted)
        settings = AutoConfig.from_pretrained(model, trust_remote_code=trusted).get_text_config()
    except Exception as error:  # broken files make the libraries raise anything, such as TypeError or ZeroDivisionError
        raise load_error(model, error) from error
    context = getattr(settings, "max_position_embeddings", None) or config.train.max_length

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]

    return count_tokens, min(context, config.train.max_length)


def _row_problems(row: SourceRow) -> Iterator[Problem]:
    def problem(severity: Literal["error", "warning"], message: str) -> Problem:
        return Problem(row.file, row.line, severity, message)

    for note in row.notes:
        yield problem("warning", note)
    texts = {"question": row.pair.question, "answer": row.pair.answer}
    for part, text in texts.items():
        if not text:
            yield problem("error", f"the {part} is empty: write one or drop the row")
        for char in sorted(set(filter(_broken, text))):
            yield problem("error", f"the {part} holds the character U+{ord(char):04X}: take it out")
        if label := _LABEL.match(text):
            yield problem(
                "warning", f"the {part} starts with {label[1]!r}, which prompts write themselves: take it out"
            )
        elif label := _INNER_LABEL.search(text):
            yield problem(
                "warning", f"a line of the {part} starts with {label[1]!r}, where generated texts end: reword it"
            )
    if row.pair.question and row.pair.question == row.pair.answer:
        yield problem("error", "question and answer are the same: write the answer")


def _broken(char: str) -> bool:
    return char == "\ufffd" or (unicodedata.category(char) in ("Cc", "Co") and char not in "\n\r\t")


def _too_long(rows: Sequence[SourceRow], count_tokens: CountTokens, max_tokens: int) -> Iterator[Problem]:
    counts = count_tokens([f"Question: {row.pair.question}\nAnswer: {row.pair.answer}" for row in rows])
    for row, tokens in zip(rows, counts, strict=True):
        if tokens > max_tokens:
            message = (
                f"the pair has {tokens} tokens and at most {max_tokens} fit (the model's context or "
                "train.max_length): shorten it, or raise train.max_length if the model allows"
            )
            yield Problem(row.file, row.line, "error", message)


def _repeats(rows: Sequence[SourceRow]) -> Iterator[Problem]:
    """Pairs that stood before, and questions near an earlier one."""
    seen: dict[str, SourceRow] = {}
    kept: list[SourceRow] = []
    words: list[list[str]] = []
    for row in rows:
        if twin := seen.get(row.pair.id):
            yield Problem(row.file, row.line, "warning", f"the same pair as in {_place(twin, row)}: it is used once")
            continue
        asked = tokenize(row.pair.question)
        if near := _nearest(asked, words):
            twin = kept[near[0]]
            message = f"the question is near that of {_place(twin, row)} (ROUGE-L {near[1]:.2f}): vary it or drop one"
            yield Problem(row.file, row.line, "warning", message)
        seen[row.pair.id] = row
        kept.append(row)
        words.append(asked)


def _nearest(words: Sequence[str], others: Sequence[Sequence[str]]) -> tuple[int, float] | None:
    """Index and ROUGE-L F of the nearest of the others, where it is a near duplicate: 0.7 or more."""
    if not others:
        return None
    common = process.cdist([words], others, scorer=LCSseq.similarity, dtype=np.int64)[0]
    total = np.array([len(other) + len(words) for other in others])
    # In whole numbers, as the novelty filter decides: short questions tie at exactly 0.7 all the time.
    if not ((20 * common >= 7 * total) & (total > 0)).any():
        return None
    scores = 2 * common / np.maximum(total, 1)
    nearest = int(scores.argmax())
    return nearest, float(scores[nearest])


def _too_few(rows: Sequence[SourceRow], demos_needed: int, share: float) -> Iterator[Problem]:
    pairs = len(unique(rows))
    aside = _heldout_size(pairs, share)
    file = rows[0].file if rows else "seeds"
    if pairs - aside < demos_needed:
        found = f"{pairs - aside} ({pairs} less {aside} held out)" if aside else str(pairs)
        message = (
            f"expected at least {demos_needed} different seed pairs, as many as a prompt shows, found {found}: add "
            "pairs, or lower questions.demos, answers.demos or heldout"
        )
        yield Problem(file, None, "error", message)
    elif demos_needed and pairs - aside < FEW:
        message = f"only {pairs - aside} seed pairs: 30 to 100 make for more varied questions"
        yield Problem(file, None, "warning", message)


def _heldout_size(pairs: int, share: float) -> int:
    return min(max(1, round(pairs * share)), pairs - 1) if share and pairs > 1 else 0


def _place(row: SourceRow, seen_from: SourceRow) -> str:
    return f"line {row.line}" if row.file == seen_from.file else f"{row.file}:{row.line}"
