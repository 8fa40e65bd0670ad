"""How weights are stored in a GGUF file: which kind each tensor gets, and its bytes.

What the package gguf packs itself needs nothing else. The k-quants are packed by llama.cpp's own code
(`ggml_quantize_chunk`), which the package xllamacpp brings.
"""

import ctypes
import importlib.util
import math
from typing import Any

from isara.errors import RunError

PLAIN = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
# The kind of most weights, and what those in mixtures get that suffer most (None where nothing differs).
MIXTURES = {"q4_k_m": ("Q4_K", "Q6_K"), "q5_k_m": ("Q5_K", "Q6_K"), "q6_k": ("Q6_K", None)}
KINDS = (*PLAIN, *MIXTURES)
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_SENSITIVE = (".attn_v.weight", ".ffn_down.weight")
# llama.cpp's `tensor_type_fallback`: what a row gets whose length is no multiple of a k-quant's block of 256.
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def check_kind(kind: str) -> None:
    """Raises RunError where there is no such kind, or its tool is missing."""
    if kind not in KINDS:
        raise RunError(f"expected one of {', '.join(KINDS)} for a GGUF file, found {kind!r}: choose one")
    if importlib.util.find_spec("gguf") is None:
        raise RunError("writing GGUF files takes the package gguf, which is not installed: run `pip install gguf`")
    if kind in MIXTURES and importlib.util.find_spec("xllamacpp") is None:
        raise RunError(
            f"writing {kind} takes llama.cpp's quantiser, which is not installed: run `pip install xllamacpp`, or "
            "choose q8_0 or q4_0, which do without"
        )


def stored_as(name: str, shape: tuple[int, ...], kind: str, layers: int) -> Any:
    """The type of a tensor in a file of a kind, by llama.cpp's rules (`llama_tensor_get_type`).

    Vectors stay float32. In files of 4 and 5 bits, embedding and output get 6 or 8; so do in mixtures the values and
    the projections down of those layers that it counts as sensitive. A row that no block divides gets a type it fits.

    Args:
        name: llama.cpp's name of the tensor.
        shape: Its numbers, rows first.
        kind: One of `KINDS`.
        layers: How many the model has.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    usual, better = MIXTURES.get(kind, (kind.upper(), None))
    wanted = usual
    if name in _EMBEDDINGS and kind not in PLAIN[:4]:
        wanted = "Q6_K" if kind in MIXTURES else "Q8_0"
    elif better and name.endswith(_SENSITIVE) and _gets_more(int(name.split(".")[1]), layers):
        wanted = better
    for choice in (wanted, _FALLBACKS.get(wanted, wanted), "F16"):
        block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[choice]]
        if shape[-1] % block == 0:
            break
    return GGMLQuantizationType[choice]


def _gets_more(layer: int, layers: int) -> bool:
    """llama.cpp's `use_more_bits`: the first and the last eighth of the layers, and each third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def byte_count(shape: tuple[int, ...], kind: Any) -> int:
    """Bytes of a tensor that is stored as `kind`."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block * size


def packed(data: Any, kind: Any) -> Any:
    """Numbers of shape (…, n) in float32 as they are stored in a GGUF file."""
    import gguf
    import numpy as np

    if not kind.name.endswith("_K"):
        return gguf.quantize(data, kind)
    import xllamacpp.xllamacpp as library

    quantise = ctypes.CDLL(library.__file__).ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    data = np.ascontiguousarray(data, np.float32)
    rows, out = math.prod(data.shape[:-1]), np.empty(byte_count(data.shape, kind), np.uint8)
    quantise(kind.value, data.ctypes.data, out.ctypes.data, 0, rows, data.shape[-1], None)
    return out.reshape(*data.shape[:-1], -1)
