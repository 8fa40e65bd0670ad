"""The lint: what is wrong with pairs, in the order of their lines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, NamedTuple

from isara.config import Config
from isara.data import SourceRow
from isara.marks import (
    broken_characters,
    clean,
    opening_label,
    special_token,
    thought_mark,
    turn_mark,
    zero_width,
)
from isara.records import QAPair
from isara.render import Renderer
from isara.rouge import RougeIndex
from isara.words import tokenize

FEW = 10
NEAR = Fraction(7, 10)  # the ROUGE-L F from which a question is near another, as `filters.novelty` has it
_COUNTED = 1000  # texts whose tokens are counted at a time

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the seed pairs that the user should mend (error) or know (warning).

    Attributes:
        file: Where the pairs come from.
        line: The pair's line, or None where the problem is about all of them.
        severity: An error keeps a run from starting.
        message: What was found and what to do.
        minor: Whether it is one of many that a domain may well have, such as near duplicates.
    """

    file: str
    line: int | None
    severity: Severity
    message: str
    minor: bool = False

    def __str__(self) -> str:
        return clean(f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.message}", 2000)


def lint(
    rows: Sequence[SourceRow],
    *,
    demos_needed: int,
    heldout: float = 0.0,
    renderer: Renderer | None = None,
    config: Config | None = None,
) -> list[Problem]:
    """Everything that is wrong with the pairs, in the order of their lines, problems of the whole last.

    Args:
        rows: The pairs as read.
        demos_needed: Demonstrations that a prompt shows; there have to be as many seed pairs. 0 also stands for pairs
            that are no seeds, of which a few will do.
        heldout: Share of the pairs that will not be seeds.
        renderer: Of the model, whose control tokens may not be in a text; None knows those of chat formats alone.
        config: Whose limits are held against the pairs' lengths, which takes the renderer, too; None checks no length.
    """
    tokens = _own_tokens(renderer) if renderer else ()
    thoughts = renderer is not None and thought_mark(renderer.format.before_last) is not None
    problems = _once([problem for row in rows for problem in _row_problems(row, tokens, thoughts)])
    whole: list[Problem] = []
    if renderer is not None and config is not None:
        problems += _too_long(rows, renderer, min(renderer.context_length, config.train.max_length))
        whole = list(_out_of_bounds(rows, renderer, config)) if demos_needed else []
    problems += _repeats(rows)
    problems.sort(key=lambda problem: problem.line or 0)
    return problems + whole + list(_too_few(rows, demos_needed, heldout))


def unique(rows: Sequence[SourceRow]) -> list[SourceRow]:
    """The rows without those whose question and answer stood before."""
    first: dict[str, SourceRow] = {}
    for row in rows:
        first.setdefault(row.pair.id, row)
    return list(first.values())


def heldout_size(pairs: int, share: float) -> int:
    """Of so many pairs, those that a share holds out: at least one, and never all."""
    return min(max(1, round(pairs * share)), pairs - 1) if share and pairs > 1 else 0


def place(row: SourceRow, seen_from: SourceRow) -> str:
    """Where a row stands, for somebody at another one."""
    return f"line {row.line}" if row.file == seen_from.file else f"{row.file}:{row.line}"


def _own_tokens(renderer: Renderer) -> tuple[str, ...]:
    """What the model's tokenizer takes for a control token wherever it stands, and what closes its turns."""
    return (renderer.format.end.strip(), *renderer.special_tokens)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, warnings that many rows share said of the first of them alone."""
    sharing: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        if problem.severity == "warning":
            sharing.setdefault((problem.file, problem.message), []).append(problem)
    said = [problem for problem in problems if problem.severity == "error"]
    for first, *others in sharing.values():
        more = f" (and in {len(others)} more rows)" if len(others) > 1 else " (and in 1 more row)" if others else ""
        said.append(replace(first, message=first.message + more))
    return said


def _row_problems(row: SourceRow, tokens: Sequence[str], thoughts: bool) -> Iterator[Problem]:
    for note in row.notes:
        yield Problem(row.file, row.line, "warning", note)
    for part, text in _parts(row.pair):
        for severity, message in _text_problems(part, text, tokens):
            yield Problem(row.file, row.line, severity, message)
        if part.endswith("answer") and (mark := thought_mark(text)):
            severity, message = _thought(part, mark, thoughts)
            yield Problem(row.file, row.line, severity, message)
    for question, answer in row.pair.turns:
        if question and question == answer:
            yield Problem(row.file, row.line, "error", "question and answer are the same: write the answer")


def _parts(pair: QAPair) -> Iterator[tuple[str, str]]:
    for question, answer in pair.before:
        yield from (("an earlier question", question), ("an earlier answer", answer))
    yield from (("the question", pair.question), ("the answer", pair.answer))


def _text_problems(part: str, text: str, tokens: Sequence[str]) -> Iterator[tuple[Severity, str]]:
    if not text:
        yield "error", f"{part} is empty: write one or drop the row"
    for char in broken_characters(text):
        yield "error", f"{part} holds the character U+{ord(char):04X}: take it out"
    if unseen := zero_width(text):
        yield "warning", f"{part} holds the invisible character U+{ord(unseen):04X}, and models see it: take it out"
    if token := special_token(text, tokens):
        yield "error", f"{part} holds {token!r}, which models read as a control token and not as text: reword it"
    elif label := opening_label(text):
        yield "warning", f"{part} starts with {label!r}, which prompts write themselves: take it out"
    elif mark := turn_mark(text):
        yield "warning", f"{part} holds {mark!r}, where generated texts end or are dropped (run_on): reword it"


def _thought(part: str, mark: str, template_writes_one: bool) -> tuple[Severity, str]:
    if template_writes_one:
        return "error", (
            f"{part} holds {mark!r}, and the model's chat template writes an empty thought before every answer: take "
            "the thoughts out"
        )
    return "warning", (
        f"{part} holds {mark!r}: thoughts are shown and trained on as a part of the answer; take them out if the model "
        "is not to write them"
    )


def _too_long(rows: Sequence[SourceRow], renderer: Renderer, most: int) -> Iterator[Problem]:
    """Pairs that can't be trained on whole."""
    fmt = renderer.format
    pieces = (fmt.start, fmt.to_answer, fmt.to_question, fmt.before_last, fmt.end, 2 * fmt.lead)
    around = sum(_size(piece) for piece in pieces)

    def size(row: SourceRow) -> int:
        return sum(_size(text) + around for turn in row.pair.turns for text in turn)

    # A token is at least a byte, so most pairs need not be counted; nor those of which it is plain.
    long = [row for row in rows if size(row) > most]
    counts = _count(renderer, ["\n".join(text for _, text in _parts(row.pair)) for row in long])
    for row, count in zip(long, counts, strict=True):
        if count + around * 2 * len(row.pair.turns) <= most:
            continue
        tokens = max(len(training.ids) for training in renderer.training_rows(row.pair))
        if tokens > most:
            message = (
                f"the pair has {tokens} tokens and at most {most} fit (the model's context or "
                "train.max_length): shorten it, or raise train.max_length if the model allows"
            )
            yield Problem(row.file, row.line, "error", message)


def _size(text: str) -> int:
    return len(text.encode())


def _count(renderer: Renderer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text by itself."""
    alone = renderer.count([""])[0]
    batches = [texts[start : start + _COUNTED] for start in range(0, len(texts), _COUNTED)]
    return [count - alone for batch in batches for count in renderer.count(batch)]


class _Bound(NamedTuple):
    """A setting that bounds the tokens of generated questions or answers."""

    part: Literal["question", "answer"]
    setting: str
    least: int | None = None
    most: int | None = None


def _out_of_bounds(rows: Sequence[SourceRow], renderer: Renderer, config: Config) -> Iterator[Problem]:
    """Settings that keep texts of the seeds' lengths from being generated, or drop them."""
    filters = config.filters
    bounds = (
        _Bound("question", "questions.max_new_tokens", most=config.questions.max_new_tokens),
        _Bound("question", "filters.min_question_tokens", least=filters.min_question_tokens),
        _Bound("question", "filters.max_question_tokens", most=filters.max_question_tokens),
        _Bound("answer", "answers.max_new_tokens", most=config.answers.max_new_tokens),
        _Bound("answer", "filters.min_answer_tokens", least=filters.min_answer_tokens),
        _Bound("answer", "filters.max_answer_tokens", most=filters.max_answer_tokens),
    )
    counted: dict[str, int] = {}
    for bound in bounds:
        texts: list[str] = [getattr(row.pair, bound.part) for row in rows]
        doubtful = [text for text in dict.fromkeys(texts) if text not in counted and _is_doubtful(text, bound)]
        counted |= zip(doubtful, _count(renderer, doubtful), strict=True)
        # The stop is generated, too.
        lengths = [(counted[text] + 1, row) for text, row in zip(texts, rows, strict=True) if text in counted]
        yield from _outside(lengths, len(rows), bound)


def _is_doubtful(text: str, bound: _Bound) -> bool:
    """Whether its tokens must be counted: each is at least a byte, and hardly any holds two words."""
    if bound.most is not None:
        return _size(text) + 1 > bound.most
    return bound.least is not None and bool(text) and len(text.split()) + 1 < bound.least


def _outside(lengths: Sequence[tuple[int, SourceRow]], total: int, bound: _Bound) -> Iterator[Problem]:
    part, setting, least, most = bound
    if most is not None and (found := [item for item in lengths if item[0] > most]):
        tokens, row = max(found, key=lambda item: item[0])
        message = (
            f"{part}s with more tokens than {setting} allows ({most}, the stop included): {len(found)} of {total}, the "
            f"longest with {tokens} (line {row.line}); none of that length can be generated and kept: raise it"
        )
        yield Problem(row.file, None, "warning", message)
    if least is not None and (found := [item for item in lengths if item[0] < least]):
        tokens, row = min(found, key=lambda item: item[0])
        message = (
            f"{part}s with fewer tokens than {setting} asks for ({least}, the stop included): {len(found)} of {total}, "
            f"the shortest with {tokens} (line {row.line}); none of that length is kept: lower it"
        )
        yield Problem(row.file, None, "warning", message)


def _repeats(rows: Sequence[SourceRow]) -> Iterator[Problem]:
    """Pairs that stood before, and questions near an earlier one that is no such question itself."""
    first: dict[str, SourceRow] = {}
    kept: list[SourceRow] = []
    index = RougeIndex()
    for row in rows:
        if twin := first.get(row.pair.id):
            message = f"the same pair as in {place(twin, row)}: it is used once"
            yield Problem(row.file, row.line, "warning", message, minor=True)
            continue
        first[row.pair.id] = row
        asked = tokenize(row.pair.asked)
        if near := index.nearest(asked, NEAR):
            twin = kept[near[0]]
            message = f"the question is near that of {place(twin, row)} (ROUGE-L {near[1]:.2f}): vary it or drop one"
            yield Problem(row.file, row.line, "warning", message, minor=True)
        else:
            kept.append(row)
            index.add(asked)


def _too_few(rows: Sequence[SourceRow], demos_needed: int, share: float) -> Iterator[Problem]:
    pairs = len(unique(rows))
    aside = heldout_size(pairs, share)
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
