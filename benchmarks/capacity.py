"""What a run takes by counting operations and bytes: python benchmarks/capacity.py [PARAMETERS:GPUS …], as 7.6e9:8.

The formulas and what they leave out stand in docs/scale.md, whose table this prints.
"""

import sys
from dataclasses import dataclass

# An H100 SXM's dense bf16 operations a second, bytes a second of its memory and of its links (data sheet), and the
# share of each that is reached; bytes a second of a disk.
FLOPS, READS, LINK, DISK = 0.4 * 989e12, 0.6 * 3.35e12, 0.6 * 450e9, 2e9
MEMORY = 80e9
NODE = 8  # GPUs of a machine, which a training doesn't leave

ITERATIONS, ACCEPTED, SEEDS, PASSING = 3, 256, 128, 0.5
PROMPT, ANSWERED = 400, 96  # tokens of a prompt, and of a candidate's question and answer together
BATCH = 64  # rows of an engine at a time, where there are so many
ROW, EPOCHS, STEP = 120, 3, 8  # tokens of a training row, passes over them, rows of an optimiser step

SHOWN = ("135e6:1", "1.7e9:1", "7.6e9:1", "7.6e9:8", "7.6e9:64", "70e9:4", "70e9:8", "70e9:64")


@dataclass(frozen=True)
class Capacity:
    """Seconds of a run's parts."""

    prompts: float
    completions: float
    training: float
    hand_over: float


def capacity(parameters: float, gpus: int) -> Capacity:
    """What a run takes on so many GPUs.

    Args:
        parameters: Of the model.
        gpus: An engine has as few of them as hold its weights twice over; the rows are shared out among the engines.
    """
    weights = 2 * parameters  # bytes
    together = 1
    while weights > 0.5 * MEMORY * together:
        together *= 2
    engines = max(1, gpus // together)
    candidates = ITERATIONS * ACCEPTED / PASSING
    rows = min(BATCH, candidates / ITERATIONS / engines)
    step = max(weights / (READS * together), 2 * parameters * rows / (FLOPS * together))
    in_training = min(gpus, NODE, STEP)
    passes = sum(SEEDS + ACCEPTED * number for number in range(1, ITERATIONS + 1)) * EPOCHS / STEP
    computed = 4 * parameters * ROW * STEP / in_training / FLOPS
    read = 2 * weights / READS  # forward and back
    gathered = 2 * weights / LINK if together > 1 else 0.0
    return Capacity(
        prompts=2 * parameters * 2 * candidates * PROMPT / (FLOPS * min(gpus, engines * together)),
        completions=candidates * ANSWERED / (rows * engines) * step,
        training=passes * max(computed, read / (in_training if together > 1 else 1), gathered),
        hand_over=ITERATIONS * 2 * weights / DISK,
    )


def table(cases: list[str]) -> str:
    """The rows of a Markdown table."""
    lines = ["| parameters | GPUs | prompts | completions | training | hand-over |", "|---|--:|--:|--:|--:|--:|"]
    for case in cases:
        parameters, gpus = case.split(":")
        found = capacity(float(parameters), int(gpus))
        size = f"{float(parameters) / 1e9:.3g} B" if float(parameters) >= 1e9 else f"{float(parameters) / 1e6:.3g} M"
        parts = (found.prompts, found.completions, found.training, found.hand_over)
        lines.append(
            f"| {size} | {gpus} | "
            + " | ".join(f"{part:.0f}" if part >= 10 else f"{part:.1f}" for part in parts)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(table(sys.argv[1:] or list(SHOWN)))
    except ValueError:
        sys.exit(f"expected PARAMETERS:GPUS such as 7.6e9:8, found {' '.join(sys.argv[1:])}")
