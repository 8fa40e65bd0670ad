"""A call's rows in several threads of this process on a CPU, each with its share of the cores.

Two threads that share every product wait for each other some hundred times a token, by spinning or asleep: with two
lanes of one thread each nobody waits, and beside another busy process neither holds the other up (docs/engine.md).
Weights are shared; a cache belongs to its lane. Where the engine is exact, the lanes change nothing.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import groupby
from typing import Any, TypeVar

import torch

Row = TypeVar("Row")
_MOST = 4  # Python's own work is one thread's at a time
_FEWEST_ROWS = 8  # of a lane: measured down to here
_FEWEST_WEIGHTS = 50_000_000  # below, Python's own work is most of it
_MOVING = {"dynamic", "longrope"}  # rotations that a model keeps and changes with the longest row it sees


class Stopped(Exception):
    """Another lane has failed, so this one's rows are wanted no more."""


def lanes_for(config: Any, weights: int, rows: int) -> int:
    """In how many lanes so many rows are worth being made.

    Args:
        config: Of the text model.
        weights: How many it has.
        rows: Rows of the call, those of one prompt counted once.
    """
    if weights < _FEWEST_WEIGHTS or _keeps_state(config):
        return 1
    return max(1, min(torch.get_num_threads(), _cores(), _MOST, rows // _FEWEST_ROWS))


def share_out(rows: Sequence[Row], prompt: Callable[[Row], Any], lanes: int) -> list[list[Row]]:
    """The rows of each lane, in their order; rows of one prompt, which lie together, stay so."""
    shares: list[list[Row]] = [[] for _ in range(lanes)]
    for number, (_, group) in enumerate(groupby(rows, key=prompt)):
        shares[number % lanes] += group
    return shares


def run_in_lanes(works: Sequence[Callable[[Callable[[], None]], None]]) -> None:
    """Does each work in a thread of its own, which has its share of this process's threads.

    Args:
        works: Each is given what it is to call now and then, which raises where the work is wanted no more.

    Raises:
        Exception: That of the first work that failed; the others have ended then.
    """
    threads, stop = torch.get_num_threads(), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def run(number: int) -> None:
        share, more = divmod(threads, len(works))
        torch.set_num_threads(max(1, share + (number < more)))  # of this thread, and of threads that begin later
        works[number](check)

    try:
        with ThreadPoolExecutor(len(works)) as pool:
            try:
                futures = [pool.submit(run, number) for number in range(len(works))]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # also where this thread is interrupted
                stop.set()
    finally:
        torch.set_num_threads(threads)
    for future in done:
        future.result()


def _cores() -> int:
    """Cores that a new thread may have: those of this one, which OpenMP has bound to its own where it was told to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _MOST


def _keeps_state(config: Any) -> bool:
    """Whether a forward pass may leave something behind that another thread would find."""
    ropes = [getattr(config, name, None) or {} for name in ("rope_parameters", "rope_scaling")]
    return any(kind in str(rope) for rope in ropes for kind in _MOVING)
