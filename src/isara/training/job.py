"""One of several processes of a training, which a launcher has started with the file of the job.

Messages are those of `isara.process`: the first process tells of steps and of the end, any of them of an error.
"""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isara.errors import IsaraError, TrainingError
from isara.hardware import is_out_of_memory
from isara.process import error_message
from isara.records import QAPair
from isara.training.messages import LogSender, recalled_from
from isara.training.sft import SupervisedTrainer, train_once

log = logging.getLogger("isara")


def main(path: str) -> int:
    """Does this process's part of the job; 1 where it failed."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def send(**message: Any) -> None:
        # In one write each: the processes share the pipe.
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    try:
        _work(json.loads(Path(path).read_text("utf-8")), send)
    except IsaraError as error:
        send(**error_message(error))
        return 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        send(out_of_memory=True)
        return 1
    return 0


def _work(job: dict[str, Any], send: Any) -> None:
    first, found = int(os.environ.get("RANK", "0")) == 0, int(os.environ.get("WORLD_SIZE", "1"))
    told: dict[str, Any] = job["trainer"] | recalled_from(job["shown"])
    if first:
        log.addHandler(LogSender(send))
        log.setLevel(logging.INFO)
        told["on_step"] = lambda *state: send(step=state)
    options = SupervisedTrainer(**told)
    if found != options.processes:
        raise TrainingError(
            f"expected {options.processes} processes, found that {options.launcher} has started {found}: use "
            "`train.launcher: torchrun`, as accelerate starts several on GPUs alone"
        )
    _take_gpu()
    pairs, anchors = ([QAPair.from_json(row) for row in job[name]] for name in ("pairs", "anchors"))
    micro, accumulation = job["sizes"]
    stats = train_once(options, pairs, anchors, job["start"], Path(job["out"]), (micro, accumulation))
    if first:
        send(stats=asdict(stats))


def _take_gpu() -> None:
    """Makes the process's own GPU the one that "cuda" means."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
