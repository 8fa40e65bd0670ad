"""What every peer's script does around its work: read the request, time the work, print one line of JSON."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def request() -> dict[str, Any]:
    """The prompts and options that the script was started with."""
    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return asked


def busy() -> float:
    """Processor seconds of this process and of its children that have ended."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def measure(work: Callable[[], int]) -> None:
    """Prints seconds, processor seconds, peak memory (bytes) and the tokens that the work returns."""
    begun, before = time.perf_counter(), busy()
    tokens = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"seconds": time.perf_counter() - begun, "busy": busy() - before, "tokens": tokens, "peak": peak}
    print(json.dumps(found), flush=True)
