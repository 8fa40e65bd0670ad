"""What a training in another process is told beside its options, and what it tells."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isara.pool import Retrieve
from isara.records import QAPair
from isara.training.options import TrainOptions
from isara.training.rows import turns


def shown_to(options: TrainOptions, pairs: Sequence[QAPair]) -> dict[str, Any]:
    """The demonstrations of each row, by what asks for them and its pair's id, JSON-ready.

    The other process has neither a pool nor an embedder.
    """
    asking = {"retrieve": options.retrieve, "teach": options.teach}
    return {
        name: {
            turn.id: [[demo.to_json(), near] for demo, near in retrieve(turn)] for pair in pairs for turn in turns(pair)
        }
        for name, retrieve in asking.items()
        if retrieve is not None
    }


def recalled_from(shown: Mapping[str, Any]) -> dict[str, Retrieve]:
    """What gives a row the demonstrations that `shown_to` found, by what asks for them."""
    return {name: _recalled(rows) for name, rows in shown.items()}


def _recalled(rows: Mapping[str, Any]) -> Retrieve:
    found = {name: [(QAPair.from_json(row), near) for row, near in demos] for name, demos in rows.items()}
    return lambda pair: found[pair.id]


class LogSender(logging.Handler):
    """Hands log lines to the parent."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Sends the level and the text."""
        self.send(log=[record.levelno, record.getMessage()])
