"""Where a training computes, and in which number format."""

from isara.errors import ModelError
from isara.hardware import find_device, multiplies_in_bfloat16

# Parameters from which products in bf16 are worth their rounding: smaller models gain nothing (docs/training.md).
LARGE = 50_000_000


def training_device(device: str) -> str:
    """cpu, cuda or mps.

    Raises:
        ModelError: The device is not there, or not the first of its kind.
    """
    kind, _, index = find_device(device).partition(":")
    if index not in ("", "0"):
        raise ModelError(
            f"training takes the first GPU, found {device!r}: set CUDA_VISIBLE_DEVICES={index} and use `device: cuda`"
        )
    return kind


def compute_dtype(dtype: str, device: str, parameters: int) -> str:
    """The dtype of the arithmetic.

    Args:
        dtype: "auto" or a name.
        device: cpu, cuda or mps.
        parameters: Of the model. On a CPU "auto" is bfloat16 from `LARGE` on, if the processor multiplies faster in it.
    """
    import torch

    if dtype != "auto":
        return dtype if device == "cuda" or dtype != "float16" else "float32"
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if device == "cpu" and parameters >= LARGE and multiplies_in_bfloat16() else "float32"


def compute_in_4bit(dtype: str, device: str) -> str:
    """The dtype of the arithmetic, and of all other weights, where frozen ones are in 4 bits: on a CPU float32."""
    return compute_dtype(dtype, device, LARGE) if device == "cuda" else "float32"


def weight_bytes(method: str, dtype: str, device: str, parameters: int) -> int:
    """Bytes of a weight of the start: 2 where an adapter is trained in 16 bits on a checkpoint of 16 bits, else 4."""
    in_full = method == "full" or compute_dtype(dtype, training_device(device), parameters) == "float32"
    return 4 if in_full else 2
