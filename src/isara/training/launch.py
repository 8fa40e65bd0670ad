"""A training on several processes of one machine: a launcher starts `isara.training.job` in each of them.

The rows of an optimiser step are those of one process, shared out; so are their order and the step's loss, a mean over
the answer tokens of all processes. The first process writes the model.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isara.errors import ConfigError, TrainingError
from isara.files import write_json
from isara.hardware import share_machine
from isara.process import Child, alone
from isara.records import QAPair, TrainStats
from isara.temporary import temporary_folder
from isara.training.compute import training_device
from isara.training.messages import shown_to
from isara.training.options import TrainOptions

log = logging.getLogger("isara")

_JOB = "isara.training.job"


def launched(
    options: TrainOptions,
    pairs: Sequence[QAPair],
    anchors: Sequence[QAPair],
    start: str,
    out: Path,
    sizes: tuple[int, int],
) -> TrainStats | None:
    """Statistics of a training on `options.processes`, or None where the memory of one ran out.

    Args:
        options: How the model is fine-tuned.
        pairs: What it is fine-tuned on.
        anchors: Rows of its own beside them.
        start: The model that it starts from.
        out: The folder for the new one.
        sizes: Rows of a forward pass and passes of an optimiser step in each process.

    Raises:
        TrainingError: As `SupervisedTrainer.fit`, or a process ended before its work was done.
        ModelError: As there, or there are fewer GPUs.
    """
    device = training_device(options.device)
    place = share_machine(options.processes, options.device, each=1)[0]
    job: dict[str, Any] = {
        "trainer": options.options(),
        "pairs": [pair.to_json() for pair in pairs],
        "anchors": [pair.to_json() for pair in anchors],
        "start": start,
        "out": str(out),
        "sizes": sizes,
        "shown": shown_to(options, pairs),
    }
    log.info("training on %d processes, by %s", options.processes, options.launcher)
    with temporary_folder() as folder:
        path = Path(folder) / "job.json"
        write_json(path, job)
        env = {"PYTHONSAFEPATH": "1", **(place.env if device == "cpu" else {})}
        with alone():
            child = Child(
                _command(options, device, path),
                "the training's processes",
                TrainingError,
                env=env,
                starts_others=True,
                folder=str(folder),
            )
        try:
            for message in child.ask():
                if "stats" in message:
                    return TrainStats(**message["stats"])
                if "out_of_memory" in message:
                    return None
                if "log" in message:
                    log.log(*message["log"])
                elif options.on_step is not None:
                    options.on_step(*message["step"])
        finally:
            child.close()
    raise AssertionError("a child answers or dies")


def _command(options: TrainOptions, device: str, job: Path) -> list[str]:
    """What starts the processes."""
    count = str(options.processes)
    if options.launcher == "torchrun":
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", count]
    else:
        launcher = [
            *("accelerate.commands.launch", "--num_processes", count, "--num_machines", "1", "--mixed_precision", "no"),
            *("--dynamo_backend", "no", "--main_process_port", "0"),
            *(["--cpu"] if device == "cpu" else ["--multi_gpu"] if options.processes > 1 else []),
        ]
    return [sys.executable, "-P", "-m", *launcher, "-m", _JOB, str(job)]


def share_of(micro: int, accumulation: int, processes: int) -> tuple[int, int]:
    """Rows of a forward pass and passes of a step in each process, so that a step has the rows of one process.

    Args:
        micro: Rows of a pass as one process would have them, at most which a process gets.
        accumulation: Passes of a step as one process would have them.
        processes: How many share a step.

    Raises:
        ConfigError: A step's rows can't be shared out evenly.
    """
    rows = micro * accumulation
    if rows % processes:
        raise ConfigError(
            f"expected train.per_device_train_batch_size x train.gradient_accumulation_steps to be a multiple of "
            f"train.processes ({processes}), found {rows}: change one of them"
        )
    share = rows // processes
    micro = max(size for size in range(1, min(micro, share) + 1) if share % size == 0)
    return micro, share // micro
