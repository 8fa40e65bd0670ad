"""What a question or an answer looks like by itself: its shape, length, end and script."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isara.errors import ConfigError
from isara.marks import broken_characters, is_visible, turn_mark
from isara.pool import Pool
from isara.records import Candidate, Draw, Rejection
from isara.words import main_script

# A list's bullet or number, or the punctuation that closes something: the text began before its first character.
_BAD_START = re.compile(r"[-*•·–—+>|=_~,;:!?)\]}%…]|\.(?!\w)|\(?\d{1,2}[.)]\s")


def newest(candidate: Candidate) -> tuple[str, Draw]:
    """The text that is being judged, with its draw: the question, or the answer once there is one."""
    if candidate.answer is None:
        return candidate.pair.question, candidate.question
    return candidate.pair.answer, candidate.answer


class Form:
    """Drops empty texts, broken characters and, of questions, those without letters or with a list's start."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value says what is wrong."""
        text, _ = newest(candidate)
        fault = _fault(text) or (_question_fault(text) if candidate.answer is None else None)
        return Rejection("form", fault) if fault else None


def _fault(text: str) -> str | None:
    odd = broken_characters(text)
    if odd:
        return f"character U+{ord(odd[0]):04X}"
    return None if is_visible(text) else "empty"


def _question_fault(text: str) -> str | None:
    if not any(char.isalpha() for char in text):
        return "no letters"
    start = _BAD_START.match(text.strip())
    return f"starts with {start[0].strip()!r}" if start else None


class Truncated:
    """Drops texts that ended because max_new_tokens ran out."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the number of tokens that were generated."""
        _, draw = newest(candidate)
        return Rejection("truncated", draw.tokens) if draw.finish == "length" else None


class RunOn:
    """Drops texts that hold the marks of a next turn ("Answer:", "<|im_start|>", "[INST]" …)."""

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the mark."""
        mark = turn_mark(newest(candidate)[0])
        return Rejection("run_on", mark) if mark else None


@dataclass(frozen=True, slots=True)
class QuestionLength:
    """Drops questions with too few or too many generated tokens (the stop included); None is no bound."""

    min_question_tokens: int | None
    max_question_tokens: int | None

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection named after the bound, whose value is the number of tokens."""
        return _outside(candidate.question, "question", self.min_question_tokens, self.max_question_tokens)


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """Drops answers with too few or too many generated tokens (the stop included); None is no bound."""

    min_answer_tokens: int | None
    max_answer_tokens: int | None

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection named after the bound, whose value is the number of tokens."""
        if candidate.answer is None:
            return None
        return _outside(candidate.answer, "answer", self.min_answer_tokens, self.max_answer_tokens)


def _outside(draw: Draw, part: str, least: int | None, most: int | None) -> Rejection | None:
    if least is not None and draw.tokens < least:
        return Rejection(f"min_{part}_tokens", draw.tokens, least)
    if most is not None and draw.tokens > most:
        return Rejection(f"max_{part}_tokens", draw.tokens, most)
    return None


class DropMatching:
    """Drops texts in which one of the user's regular expressions is found; upper and lower case are the same.

    Raises:
        ConfigError: An expression can't be compiled.
    """

    def __init__(self, drop_matching: Sequence[str]) -> None:
        self.patterns = [_compiled(pattern) for pattern in drop_matching]

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is what matched and whose threshold is the expression."""
        text, _ = newest(candidate)
        for pattern in self.patterns:
            if match := pattern.search(text):
                return Rejection("drop_matching", match[0], pattern.pattern)
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"`drop_matching` expects regular expressions, found {pattern!r} ({error}): mend it or put a backslash "
            "before characters that stand for themselves"
        ) from error


class Language:
    """Drops questions mainly in a script that no seed question has, and answers by the seeds' answers.

    Scripts are told apart, not languages: French among English seeds passes, Russian does not.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._seen = 0
        self._scripts: tuple[set[str], set[str]] = (set(), set())

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the text's script and whose threshold are the seeds' scripts."""
        self._follow(kept)
        expected = self._scripts[candidate.answer is not None]
        script = main_script(newest(candidate)[0])
        if not script or not expected or script in expected:
            return None
        return Rejection("language", script, " ".join(sorted(expected)))

    def _follow(self, kept: Pool) -> None:
        if kept is not self._pool:
            self._pool, self._seen, self._scripts = kept, 0, (set(), set())
        for pair in kept.pairs[self._seen :]:
            if pair.iteration == 0:
                self._scripts[0].add(main_script(pair.question))
                self._scripts[1].add(main_script(pair.answer))
        self._seen = len(kept)
