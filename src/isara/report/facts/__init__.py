"""The one reader of run folders: a folder becomes a record, of which every face prints its part.

Reading writes nothing and takes no lock, so a run that is at work can be read, too. What is finished is checked; what
is not is read as far as it goes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from isara.config import FILE_NAME, load_config
from isara.decisions import read_decisions, review_file
from isara.errors import RunError
from isara.files import damaged, parse_line, read_json, read_rows, read_text
from isara.folder import check_stage, is_done, iteration_numbers, read_config, read_environment, stage_folder
from isara.generate import funnel, whole_batches
from isara.kinds import KindShare
from isara.marks import clean
from isara.preference import FILE as CONTRAST
from isara.records import CHECKER, QUESTIONER, READER, SEEDS_ONLY, Candidate, Draw, QAPair, TrainStats
from isara.report.facts.record import Example, IterationFacts, Run, StoredCandidate, Training
from isara.stages import read_items
from isara.watching import StageName

__all__ = ["Example", "IterationFacts", "Run", "StoredCandidate", "Training", "read_run"]

_MOST_SHOWN = 60  # characters of a foreign value in a message


def read_run(path: str | Path, verify: bool = True) -> Run:
    """What a run folder holds.

    Args:
        path: The run folder.
        verify: Whether the bytes of finished stages are read and compared with what DONE says; sizes always are.

    Raises:
        RunError: It is no run folder, is of another format, or a file in it is damaged, changed, cut or foreign.
        ConfigError: Its config was changed by hand.
    """
    run = Path(path)
    read_config(run)
    environment = read_environment(run)
    seeds = _pairs(run / "seeds.jsonl")
    if not seeds:  # no run begins without
        raise damaged(run / "seeds.jsonl")
    numbers = sorted(set(iteration_numbers(run)))
    found = Run(
        run,
        load_config(run / FILE_NAME),
        environment["parts"],
        environment["versions"],
        seeds,
        _pairs(run / "heldout.jsonl"),
        _measured(run, 0, verify, IterationFacts(0)),
        tuple(_iteration(run, number, verify) for number in numbers),
        _exported(run, numbers),
        _beside(run, SEEDS_ONLY, verify),
        _beside(run, READER, verify),
        tuple(each for number in (QUESTIONER, CHECKER) if (each := _training(run, number, verify)) is not None),
    )
    for facts in found.all:
        if facts.items and [row.id for row in facts.items] != [pair.id for pair in found.heldout]:
            path = stage_folder(run, facts.number, "evaluate") / "items.jsonl"
            raise _wrong(path, "holds other pairs than heldout.jsonl")
    return found


def _wrong(path: Path, what: str) -> RunError:
    return RunError(f"{path} {what}: put it back, or remove {path.parent} and run the same command again")


def _pairs(path: Path) -> tuple[QAPair, ...]:
    pairs = []
    for row in read_rows(path):
        try:
            pair = QAPair.from_json(row)
            whole = pair.to_json() == row and all(isinstance(text, str) for text in _texts(pair))
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise _wrong(path, f"holds a row {_row_id(row)} that is not what was written")
        pairs.append(pair)
    return tuple(pairs)


def _iteration(run: Path, number: int, verify: bool) -> IterationFacts:
    folder = stage_folder(run, number, "generate")
    done = _checked(run, number, "generate", verify)
    rows = whole_batches(folder / "candidates.jsonl")
    candidates = tuple(_candidate(folder / "candidates.jsonl", row, number) for row in rows)
    accepted = tuple(stored for stored in candidates if stored.candidate.rejection is None)
    counts = funnel(rows)
    if done is not None:
        _check_accepted(folder / "accepted.jsonl", accepted)
    rejected = [row["rejected_draw"] for row in whole_batches(stage_folder(run, number, "prefer") / CONTRAST)]
    stats, kinds = (None, ()) if done is None else _stats(folder / "stats.json", counts)
    facts = IterationFacts(
        number,
        candidates,
        tuple(stored.pair for stored in accepted),
        counts,
        stats,
        _training(run, number, verify),
        _training(run, number, verify, "prefer"),
        sum(draw["tokens"] for draw in rejected if draw),
        kinds=kinds,
        decisions=read_decisions(review_file(run, number), [stored.pair for stored in accepted]),
    )
    return _measured(run, number, verify, facts)


def _beside(run: Path, number: int, verify: bool) -> IterationFacts | None:
    """The SEEDS_ONLY model, or the READER, as far as it goes; None before it is trained."""
    training = _training(run, number, verify)
    return None if training is None else _measured(run, number, verify, IterationFacts(number, training=training))


def _checked(run: Path, number: int, name: StageName, verify: bool) -> Mapping[str, Any] | None:
    """The files of a stage, each of which has been looked at; None while it is unfinished."""
    folder = stage_folder(run, number, name)
    return check_stage(folder, verify) if is_done(folder) else None


def _candidate(path: Path, row: Mapping[str, Any], number: int) -> StoredCandidate:
    """The candidate of a row, which is just what was stored: same id, same fate, no other key."""
    try:
        stored = StoredCandidate(
            Candidate.from_json(row), row["batch"], row["batch_size"], row["weights"], row.get("question_weights")
        )
        whole = _is_typed(stored, number) and json.dumps(stored.to_json()) == json.dumps(row)
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise _wrong(path, f"holds a row {_row_id(row)} that is not what was stored")
    return stored


def _row_id(row: Mapping[str, Any]) -> str:
    return clean(str(row.get("id")), _MOST_SHOWN)


def _is_typed(stored: StoredCandidate, number: int) -> bool:
    """Whether each field of a row is of its type and range: JSON can hold anything."""
    each, pair = stored.candidate, stored.pair
    draws = each.draws
    texts = [
        stored.weights,
        stored.question_weights or "",
        *_texts(pair),
        *(text for draw in draws for text in _draw_texts(draw)),
    ]
    if each.rejection is not None:
        texts += [each.rejection.reason, each.rejection.near_id or ""]
    numbers = [stored.batch, stored.batch_size, each.chosen, *(n for draw in draws for n in (draw.tokens, draw.seed))]
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(value) is int and value >= 0 for value in numbers)
        and each.chosen < max(1, len(each.answers))
        and pair.iteration == number
        and all(draw.finish in ("stop", "length") for draw in draws)
        and all(len(draw.similarities) in (0, len(draw.demo_ids)) for draw in draws)
        and all(_is_number(near) for draw in draws for near in (*draw.similarities, *draw.scores.values()))
    )


def _texts(pair: QAPair) -> Iterator[Any]:
    for turn in pair.turns:
        yield from turn
    yield from pair.demo_ids


def _draw_texts(draw: Draw) -> Iterator[Any]:
    yield from (draw.text, draw.prompt, *draw.demo_ids)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_accepted(path: Path, accepted: Sequence[StoredCandidate]) -> None:
    expected = []
    for stored in accepted:
        draw = stored.candidate.answer
        seed = None if draw is None else draw.seed
        expected.append({**stored.pair.to_json(), "weights": stored.weights, "answer_seed": seed})
    if read_rows(path) != expected:
        raise _wrong(path, "holds other pairs than were accepted in candidates.jsonl")


def _stats(path: Path, counts: Mapping[str, int]) -> tuple[dict[str, float], tuple[KindShare, ...]]:
    """How varied the accepted pairs are, and of which kinds, after the funnel was compared with the candidates."""
    found = read_json(path)
    if found.pop("funnel", None) != counts:
        raise _wrong(path, "says other counts than candidates.jsonl holds")
    kinds = found.pop("kinds", {})
    named = dict(kinds) if isinstance(kinds, dict) else {"kinds": kinds}
    if not all(isinstance(share, dict) and share.keys() == {"seeds", "accepted"} for share in named.values()):
        raise _wrong(path, "says something else of kinds than a share of the seeds and of the accepted pairs")
    shares = tuple(KindShare(kind, **_numbers(path, share)) for kind, share in named.items())
    return _numbers(path, found), shares


def _numbers(path: Path, found: Mapping[str, Any]) -> dict[str, float]:
    """Figures as finite numbers; bits, errors and counts are none below 0."""
    for name, value in found.items():
        least = 0.0 if name.startswith("bits_per_byte") or name.endswith("_se") or name == "pairs" else -math.inf
        if not _is_number(value) or not math.isfinite(value) or value < least:
            wanted = "a finite number" if least else "a finite number of at least 0"
            shown = clean(str(value), _MOST_SHOWN)
            raise _wrong(path, f"says {clean(name, _MOST_SHOWN)} is {shown}, where {wanted} was expected")
    return {name: float(value) for name, value in found.items()}


def _training(run: Path, number: int, verify: bool, name: StageName = "train") -> Training | None:
    files = _checked(run, number, name, verify)
    if files is None:
        return None
    folder = stage_folder(run, number, name)
    merge, adapter = folder / "model/adapter/merge.json", folder / "model/adapter/adapter_config.json"
    difference = read_json(merge).get("max_logit_difference") if merge.exists() else None
    if difference is not None and not _is_number(difference):
        raise damaged(merge)
    # Not read_json: another library has written it, in a form of its own.
    config = parse_line(read_text(adapter)) if adapter.exists() else None
    if adapter.exists() and config is None:
        raise damaged(adapter)
    return Training(_train_stats(folder / f"{name}.json"), difference, config, "model/chat_template.jinja" in files)


def _train_stats(path: Path) -> TrainStats:
    found = read_json(path)
    losses = ("first_loss", "last_loss")
    counts = [value for name, value in found.items() if name not in losses]
    whole = all(_is_number(found.get(name)) for name in losses) and all(type(n) is int and n >= 0 for n in counts)
    if not whole or set(found) != {each.name for each in fields(TrainStats)}:
        raise _wrong(path, "holds no record of a training")
    return TrainStats(**found)


def _measured(run: Path, number: int, verify: bool, facts: IterationFacts) -> IterationFacts:
    """The facts with what the evaluation found, where it is done."""
    if _checked(run, number, "evaluate", verify) is None:
        return facts
    folder = stage_folder(run, number, "evaluate")
    path = folder / "eval.json"
    figures, examples = _numbers(path, read_json(path)), _examples(folder / "examples.json")
    return replace(facts, figures=figures, examples=examples, items=read_items(folder))


def _examples(path: Path) -> tuple[Example, ...]:
    try:
        examples = tuple(Example(**row) for row in read_json(path)["rows"])
    except (KeyError, TypeError):
        raise damaged(path) from None
    if not all(isinstance(text, str) for each in examples for text in (each.question, each.wanted, each.answer)):
        raise damaged(path)
    return examples


def _exported(run: Path, numbers: Sequence[int]) -> int | None:
    path = run / "final" / "isara.json"
    if not path.exists():
        return None
    number = read_json(path).get("iteration")
    trained = [SEEDS_ONLY] if is_done(stage_folder(run, SEEDS_ONLY, "train")) else []
    if type(number) is not int or number not in (0, *trained, *numbers):
        raise _wrong(path, f"names iteration {clean(str(number), _MOST_SHOWN)}, which the run doesn't hold")
    return number
