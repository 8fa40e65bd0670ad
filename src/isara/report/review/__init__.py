"""Going through rows one by one: which they are, what stands beside each, and where decisions about them go.

A page (`server.py`) and a terminal (`terminal.py`) show the same `Desk`.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from isara.data import read_pairs, write_pairs
from isara.decisions import (
    Decision,
    applied,
    counts,
    drawn,
    made_after,
    read_decisions,
    review_file,
    write_decisions,
)
from isara.errors import RunError
from isara.folder import is_done, stage_folder
from isara.marks import broken_characters, special_token, turn_mark
from isara.pool import Embedder, Pool
from isara.records import QAPair
from isara.report.facts import IterationFacts, Run, StoredCandidate

REASONS = ("wrong", "off the subject", "not our tone", "invented", "unsafe", "like another row")
_NEIGHBOURS = 3  # of a seed: enough to see one that says the same, or the contrary


@dataclass(frozen=True, slots=True)
class Row:
    """A row with what a reader needs to judge it.

    Attributes:
        pair: The row as it was made.
        near: Ids of the pairs that it was made from, the nearest first, each with its cosine where it has one.
        scores: Of its answer, by name.
        about: What made it, in a few words.
    """

    pair: QAPair
    near: tuple[tuple[str, float | None], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    about: str = ""


class Desk:
    """Rows to decide on, and the file that decisions go to; several threads may decide.

    Args:
        name: What is reviewed.
        path: The file of decisions.
        rows: The rows, in order.
        pairs: All pairs that may stand in the file or beside a row.
        beside: What the pairs beside a row are.
        notice: What to know before the first decision.
        after: What to do when all is decided.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        rows: Sequence[Row],
        pairs: Sequence[QAPair],
        *,
        beside: str,
        notice: str = "",
        after: str = "",
    ) -> None:
        self.name, self.path, self.rows = name, path, tuple(rows)
        self.texts = {pair.id: pair for pair in pairs}
        self.beside, self.notice, self.after = beside, notice, after
        self._lock = threading.Lock()
        self._rows = {row.pair.id: row for row in rows}
        self._standing = read_decisions(path)

    @property
    def decisions(self) -> dict[str, Decision]:
        """What stands, of the rows that are shown, the newest last."""
        return {row: made for row, made in self._standing.items() if row in self._rows}

    @property
    def undecided(self) -> list[Row]:
        """The rows without a decision, in order."""
        return [row for row in self.rows if row.pair.id not in self._standing]

    def decide(self, *made: Decision) -> None:
        """Stores decisions: when this returns they are on the disk.

        Raises:
            RunError: No such row, a rejection without a reason, an edit that can't be trained on, or a file that can't
                be written.
        """
        if not made:
            return
        with self._lock:
            made = tuple(map(self._checked, made))
            write_decisions(self.path, made)
            for each in made:
                self._standing.pop(each.id, None)
                if each.decision != "undo":
                    self._standing[each.id] = each

    def pairs(self) -> list[QAPair]:
        """The rows' pairs as the decisions leave them."""
        return applied(self._standing, [row.pair for row in self.rows])

    def said(self) -> str:
        """How far the review has come: "3 of 8 rows decided (2 accepted, 1 edited)"."""
        done = counts(self.decisions)
        parts = ", ".join(f"{count} {name}" for name, count in done.items())
        return f"{sum(done.values())} of {len(self.rows)} rows decided" + (f" ({parts})" if parts else "")

    def _checked(self, made: Decision) -> Decision:
        """The decision, where the row is one of these and an edit is one; an edit of nothing accepts."""
        row = self._rows.get(made.id)
        if row is None:
            raise RunError(f"there is no row {made.id!r} in this review: load the page again")
        if made.decision == "reject" and not made.reason.strip():
            raise RunError("a row is rejected with a reason: give one")
        if made.decision != "edit":
            return made
        pair = row.pair
        edited = replace(made, question=made.question.strip(), answer=made.answer.strip())
        if (edited.question, edited.answer) == (pair.question, pair.answer):
            return Decision(made.id, "accept", reason=made.reason)
        for part, text in (("question", edited.question), ("answer", edited.answer)):
            _check_text(part, text)
        written = edited.apply(pair)
        others = {pair_id for pair_id in self.texts if pair_id != pair.id}
        others |= {each.id for each in applied(self._standing, (row.pair for row in self.rows if row.pair != pair))}
        if written is not None and written.id in others:
            raise RunError("these texts are another row's already: reword them, or reject the row")
        return edited


def _check_text(part: str, text: str) -> None:
    """Raises a RunError for a text that can't be trained on."""
    if not text:
        raise RunError(f"the {part} is empty: write one, or reject the row")
    if token := special_token(text):
        raise RunError(f"the {part} holds {token!r}, which models read as a control token: reword it")
    if mark := turn_mark(text):
        raise RunError(f"the {part} holds {mark!r}, which reads as the next turn of the prompt: reword it")
    if odd := broken_characters(text):
        raise RunError(f"the {part} holds the character U+{ord(odd[0]):04X}: take it out")


def run_desk(run: Run, number: int | None = None, count: int | None = None) -> Desk:
    """The accepted rows of a run's iteration.

    Args:
        run: The run.
        number: The iteration; None is the last one whose pairs are made.
        count: How many, drawn as `isara show --read` draws them; None is what `review.before_training` waits for in
            iteration 1, and else all.

    Raises:
        RunError: The iteration has no accepted rows, or is still being made.
    """
    facts = _iteration(run, number)
    wanted = run.config.review.before_training if facts.number == 1 else 0
    rows = {each.pair.id: each for each in facts.candidates if each.candidate.rejection is None}
    # Drawn of all accepted pairs, as the loop draws them; the same texts twice are one row.
    most = count or wanted or len(facts.accepted)
    shown = dict.fromkeys(pair.id for pair in drawn(facts.accepted, most))
    return Desk(
        f"{run.path.name}, iteration {facts.number}",
        review_file(run.path, facts.number),
        [_row(rows[pair_id]) for pair_id in shown],
        list(run.texts().values()),
        beside="Answered after these pairs",
        notice=_notice(run, facts),
        after=f"The command that started {run.path.name} goes on with it.",
    )


def _iteration(run: Run, number: int | None) -> IterationFacts:
    made = [facts for facts in run.iterations if facts.generated and facts.accepted]
    chosen = [facts for facts in made if number in (None, facts.number)]
    if not chosen:
        has = ", ".join(str(facts.number) for facts in made) or "none"
        which = "any iteration" if number is None else f"iteration {number}"
        raise RunError(
            f"{run.path} holds no finished rows of {which} to review (it has: {has}): `isara generate` first"
        )
    return chosen[-1]


def _notice(run: Run, facts: IterationFacts) -> str:
    if not is_done(stage_folder(run.path, facts.number, "train")):
        return ""
    return (
        f"Iteration {facts.number} is trained already. A decision that changes a row asks for training anew: remove "
        f"{', '.join(map(str, made_after(run.path, facts.number)))} afterwards."
    )


def _row(stored: StoredCandidate) -> Row:
    draw = stored.candidate.answer
    assert draw is not None, "an accepted row has an answer"
    near = draw.similarities or (None,) * len(draw.demo_ids)
    return Row(
        stored.pair,
        tuple(zip(draw.demo_ids, near, strict=True))[::-1],
        draw.scores,
        f"iteration {stored.pair.iteration}, weights {stored.weights[:12]}",
    )


def seeds_desk(source: Path, embedder: Embedder, question: str | None = None, answer: str | None = None) -> Desk:
    """The pairs of a data file, each beside its nearest others.

    Decisions lie beside the file, whose own bytes are never changed; those about pairs that it no longer holds count
    for nothing.

    Args:
        source: The file.
        embedder: Finds what is near.
        question: As `read_pairs`.
        answer: As `read_pairs`.

    Raises:
        SeedError: It can't be read.
        RunError: There is none, or the decisions beside it are damaged.
    """
    if not source.is_file():
        raise RunError(f"expected a run folder or a file of pairs to review, found none at {source}: name one")
    pairs = list({pair.id: pair for pair in read_pairs(source, question, answer)}.values())
    pool = Pool(embedder, pairs)
    rows = [
        Row(pair, tuple((near.id, cosine) for near, cosine in reversed(pool.nearest(pair, _NEIGHBOURS))))
        for pair in pairs
    ]
    return Desk(
        source.name,
        source.with_name(f"{_stem(source)}.review.jsonl"),
        rows,
        pairs,
        beside="Nearest other pairs, by shared words",
        after=f"The pairs as you leave them are written to {reviewed_file(source).name}: give it as the seeds.",
    )


def reviewed_file(seeds: Path) -> Path:
    """Where the pairs of a data file go as a review leaves them."""
    return seeds.with_name(f"{_stem(seeds)}.reviewed.jsonl")


def write_reviewed(desk: Desk, seeds: Path) -> Path:
    """Writes the pairs of a data file as the review leaves them, beside the file; their path.

    Raises:
        RunError: Nothing is left, or it can't be written.
    """
    if not (pairs := desk.pairs()):
        raise RunError(f"every pair of {seeds} is rejected, so nothing was written: undo some")
    write_pairs(reviewed_file(seeds), pairs)
    return reviewed_file(seeds)


def _stem(path: Path) -> str:
    """What the names of the files beside a file begin with: its own name, so that no two files share one."""
    return path.name.removesuffix(".jsonl")
