"""Frozen weights in 4 bits (QLoRA, arXiv 2305.14314): the one room that knows bitsandbytes."""

from importlib.util import find_spec
from typing import Any

from isara.errors import ConfigError
from isara.loading import load_model, not_finite

# NF4 with scales of their own precision (double quantisation), section 3 of the paper: 4 + 0.127 bits.
BYTES_A_WEIGHT = 4.127 / 8


def check_quantizes() -> None:
    """Whether the package that does it is there.

    Raises:
        ConfigError: It is not.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "expected the package bitsandbytes for `train.load_in_4bit`, found none: pip install bitsandbytes, or set "
            "it to false"
        )


def load_in_4bit(name: str, device: str, compute: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """A model whose linear layers, all but the head, hold their weights in 4 bits, on its device; and its tokenizer.

    Args:
        name: What `find_model` returned.
        device: "cpu", "cuda" or "mps"; of several GPUs the one that is current.
        compute: Dtype of the arithmetic, which all other weights get.
        trust_remote_code: Runs code that comes with the model.

    Raises:
        ModelError: As `isara.loading.load_model`, or a weight was not finite before it was rounded.
    """
    import torch
    from transformers import BitsAndBytesConfig

    dtype = getattr(torch, compute)
    four: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # it has no types
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    place = torch.cuda.current_device() if device == "cuda" else device
    model, tokenizer = load_model(name, dtype, trust_remote_code, quantization_config=four, device_map={"": place})
    for module in model.modules():
        # On some CPUs a pass without gradients would lay the weights out anew for good, in a form that has none.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    for key, weight in model.named_parameters():
        held = getattr(weight, "quant_state", None)
        # The mean of the blocks' largest values; the rounded weights themselves are finite whatever they were.
        if held is not None and not bool(held.offset.isfinite().all()):
            raise not_finite(name, key)
    return model, tokenizer
