"""What a person decided about generated rows before they are trained on: one line a decision, and none is taken back.

    iteration-01/review.jsonl   {"id", "decision", "question", "answer", "reason", "time"}

The file lies beside the stages, since it is nobody's output. Of several decisions about a row the last one counts, and
to undo is a decision, too. What is trained on is the accepted pairs with the decisions applied, by whose ids the train
stage is known (`isara.stages.Keys.train`); reasons and times decide nothing.
"""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from isara.errors import Paused, RunError
from isara.files import append_text, cut_to, json_lines, make_folder, parse_line, read_bytes, read_json, remove
from isara.folder import is_done, iteration_numbers, stage_folder
from isara.generate import stream
from isara.records import BESIDE, SEEDS_ONLY, QAPair

log = logging.getLogger("isara")

# "unread" goes on with a row that nobody has read; "undo" takes the row's decision back.
Kind: TypeAlias = Literal["accept", "edit", "reject", "unread", "undo"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILE_NAME = "review.jsonl"
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about one row.

    Attributes:
        id: The row's, as it was made.
        decision: What becomes of it.
        question: The new question of an edit; else empty.
        answer: The new answer of an edit; else empty.
        reason: Why, in the person's words; may be empty.
        time: When, in UTC (ISO 8601).
    """

    id: str
    decision: Kind
    question: str = ""
    answer: str = ""
    reason: str = ""
    time: str = ""

    def to_json(self) -> dict[str, str]:
        """A JSON-ready dict without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def apply(self, pair: QAPair) -> QAPair | None:
        """The pair as it is trained on; None where it is not."""
        if self.decision == "reject":
            return None
        if self.decision != "edit":
            return pair
        return replace(pair, question=self.question, answer=self.answer, edited_from=pair.id)


# What stands, by the row's id.
Decisions: TypeAlias = Mapping[str, Decision]


def review_file(run: Path, t: int) -> Path:
    """Where the decisions about an iteration's rows lie."""
    return stage_folder(run, t, "generate").parent / FILE_NAME


def read_decisions(path: Path, rows: Iterable[QAPair] | None = None) -> dict[str, Decision]:
    """The decisions that stand, by row, in the order in which they were made; nothing is written.

    A last line that a crash has torn is none.

    Args:
        path: The file; where there is none, nothing is decided.
        rows: The rows that it is about; None asks of none.

    Raises:
        RunError: A line is no decision, or one about another row.
    """
    if not path.exists():
        return {}
    known = None if rows is None else {pair.id for pair in rows}
    standing: dict[str, Decision] = {}
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], start=1):
        made = _parse(line)
        if made is None:
            raise RunError(f"{path}:{number} is no decision of a review: mend that line, or take it out")
        if known is not None and made.id not in known:
            raise RunError(f"{path}:{number} decides about {made.id!r}, which is no accepted row: take that line out")
        standing.pop(made.id, None)
        if made.decision != "undo":
            standing[made.id] = made
    return standing


def _parse(line: bytes) -> Decision | None:
    found: dict[str, Any] | None = parse_line(line)
    if found is None or not {"id", "decision"} <= found.keys() <= {each.name for each in fields(Decision)}:
        return None
    if not all(isinstance(value, str) for value in found.values()):
        return None
    made = Decision(**found)
    whole = bool(made.question and made.answer) if made.decision == "edit" else not (made.question or made.answer)
    return made if whole and made.decision in KINDS else None


def write_decisions(path: Path, made: Sequence[Decision]) -> None:
    """Adds decisions to the file and flushes it to the disk; a torn line at its end is cut off first.

    Raises:
        RunError: They can't be written.
    """
    make_folder(path.parent)
    if path.exists():
        cut_to(path, read_bytes(path).rfind(b"\n") + 1)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    append_text(path, json_lines(replace(each, time=each.time or now).to_json() for each in made))


def in_words(made: Decision) -> str:
    """In words what became of a row: "rejected by a person: not our tone"."""
    words: dict[Kind, str] = {"accept": "accepted", "edit": "edited", "reject": "rejected"}
    if made.decision not in words:
        return "trained on unread"
    return f"{words[made.decision]} by a person" + (f": {made.reason}" if made.reason else "")


def applied(decisions: Decisions, pairs: Iterable[QAPair]) -> list[QAPair]:
    """The pairs as they are trained on, in their order: rejected ones left out, edited ones as they were written."""
    kept = ((decisions[pair.id].apply(pair) if pair.id in decisions else pair) for pair in pairs)
    return [pair for pair in kept if pair is not None]


def counts(decisions: Decisions) -> dict[str, int]:
    """How many rows a person accepted, edited and rejected, and how many went on unread; only what there is."""
    names: dict[Kind, str] = {"accept": "accepted", "edit": "edited", "reject": "rejected", "unread": "unread"}
    kinds = [each.decision for each in decisions.values()]
    return {name: kinds.count(kind) for kind, name in names.items() if kind in kinds}


def drawn(rows: Sequence[_Row], count: int, kind: str = "accepted") -> list[_Row]:
    """A sample of rows for a reader, in their order; always the same for the same number.

    Args:
        rows: All of them.
        count: How many; all where there are fewer.
        kind: What they are, which seeds the draw.
    """
    places = random.Random(stream(0, "read", kind, count)).sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]


def reviewed(run: Path, t: int, accepted: Sequence[QAPair], wanted: int) -> list[QAPair]:
    """The accepted pairs of an iteration as they are trained on.

    Args:
        run: The run folder.
        t: The iteration.
        accepted: What passed the filters.
        wanted: Rows of iteration 1 on which a person has to decide before it is trained.

    Raises:
        Paused: Some of them are not decided yet.
        RunError: The file of decisions is damaged, or is about other rows.
    """
    decisions = read_decisions(review_file(run, t), accepted)
    trained = is_done(stage_folder(run, t, "train"))
    missing = [pair for pair in drawn(accepted, wanted) if pair.id not in decisions]
    if t == 1 and missing and not trained:
        log.info("stopped before training for a review: %d rows wait to be read", len(missing))
        raise Paused(
            f"stopped before training: {len(missing)} of {min(wanted, len(accepted))} rows wait to be read. Read them "
            f"with `isara review {run}`, then run the same command again; `isara review {run} --accept-rest` lets "
            "them pass unread"
        )
    return applied(decisions, accepted)


def check_trained(run: Path, t: int, pairs: Sequence[str]) -> None:
    """Sees to it that an iteration was trained on what its decisions leave.

    Args:
        run: The run folder.
        t: The iteration.
        pairs: Ids of what it would be trained on now.

    Raises:
        RunError: It was trained before some of the decisions were made; which folders to take away.
    """
    folder = stage_folder(run, t, "train")
    key = folder / "key.json"
    if not key.exists() or read_json(key).get("pairs") == list(pairs):
        return
    if not is_done(folder) and review_file(run, t).exists():  # it had begun when rows were decided, and nothing is lost
        remove(folder)
        return
    changed = [review_file(run, other) for other in range(1, t + 1) if review_file(run, other).exists()]
    if changed:
        raise RunError(
            f"{', '.join(map(str, changed))} changed since iteration {t} was trained: undo that with `isara review "
            f"{run}`, or remove {', '.join(map(str, made_after(run, t)))} and run the same command again"
        )


def late_decisions(run: Path, t: int, accepted: Sequence[QAPair], decisions: Decisions) -> int:
    """How many rows an iteration was trained on that a person has rejected or rewritten since.

    Args:
        run: The run folder.
        t: The iteration.
        accepted: What passed the filters.
        decisions: About these.
    """
    folder = stage_folder(run, t, "train")
    if not decisions or not is_done(folder):
        return 0
    made = {pair.id: pair for pair in accepted}
    trained = set(read_json(folder / "key.json").get("pairs", made))
    left = {row: decision.apply(made[row]) for row, decision in decisions.items()}
    return sum(row in trained if pair is None else pair.id not in trained for row, pair in left.items())


def made_after(run: Path, t: int) -> list[Path]:
    """The folders of a run that depend on what an iteration was trained on, where they are."""
    stages = [stage_folder(run, t, name) for name in ("train", "prefer", "evaluate")]
    later = [stage_folder(run, other, "train").parent for other in iteration_numbers(run) if other > t]
    baseline = [run / BESIDE[SEEDS_ONLY]] if t == 1 else []  # it takes as many steps
    return [path for path in (*stages, *baseline, *later) if path.exists()]
