"""The device that models run on: found, freed, and recognised when its memory runs out."""

import gc

from isara.errors import ModelError


def find_device(device: str) -> str:
    """The device that is meant: "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ModelError: The device is not on this machine.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in present.items() if there)
    if not present.get(device.partition(":")[0], False):
        found = ", ".join(name for name, there in present.items() if there)
        raise ModelError(f"device {device!r} is not on this machine, which has {found}: use `device: auto`")
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()  # MPS and the CPU's allocator have no class of their own
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


def free_memory() -> None:
    """Gives unused memory back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
