"""The device that models run on: found, freed, and recognised when its memory runs out; and what processes take."""

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isara.errors import ModelError

if TYPE_CHECKING:
    import torch


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


def find_dtype(dtype: str, device: str) -> "torch.dtype":
    """The dtype that is meant: "auto" is bfloat16 where the device has it, else float16 on a GPU and float32 on a CPU.

    Args:
        dtype: "auto" or the name of a floating-point dtype of torch.
        device: What `find_device` returned.

    Raises:
        ModelError: There is no such dtype.
    """
    import torch

    named = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if dtype != "auto":
        if dtype not in named:
            raise ModelError(f"expected dtype auto, {', '.join(named)}, found {dtype!r}: use `dtype: auto`")
        return named[dtype]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device == "mps":
        return torch.float16
    return torch.bfloat16 if multiplies_in_bfloat16() else torch.float32


def multiplies_in_bfloat16() -> bool:
    """Whether this processor multiplies faster in bf16 than in fp32.

    With AMX it does. AVX512-BF16 alone doubles the speed on AMD's processors and halves it on Intel's (docs/engine.md);
    it is known by the maker and not by a trial, so that a run goes on with what it began with.
    """
    import torch

    if platform.machine() not in {"x86_64", "AMD64"}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and not _is_made_by_intel()


def _is_made_by_intel() -> bool:
    try:
        found = Path("/proc/cpuinfo").read_text()
    except OSError:
        found = platform.processor()
    return "GenuineIntel" in found


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of several processes runs.

    Attributes:
        device: As `find_device` takes it.
        env: Environment variables of the process.
        shared_by: How many of them take their memory from the device.
    """

    device: str
    env: Mapping[str, str]
    shared_by: int


def share_machine(processes: int, device: str, each: int = 0) -> list[Place]:
    """Places for so many processes: on the GPUs in turn, or with a share of the processor's cores.

    Args:
        processes: How many there are.
        device: As `find_device` takes it; a GPU with its number is for all of them.
        each: GPUs that a process has for itself, which are all that it sees; 0 has it share one by its number.

    Raises:
        ModelError: The device is not on this machine, or there are fewer GPUs.
    """
    import torch

    found = find_device(device)
    if found != "cuda":
        # Threads of several processes that wait for each other are slower than one.
        cores = max(1, (os.cpu_count() or 1) // processes)
        threads = {} if "OMP_NUM_THREADS" in os.environ or found != "cpu" else {"OMP_NUM_THREADS": str(cores)}
        return [Place(found, threads, processes)] * processes
    gpus = torch.cuda.device_count()
    if not each:
        together = -(-processes // gpus)
        return [Place(f"cuda:{number % gpus}", {}, together) for number in range(processes)]
    if processes * each > gpus:
        raise ModelError(
            f"expected {processes * each} GPUs for {processes} processes with {each} each, found {gpus}: lower "
            "`engine.workers`, `tensor_parallel_size` or `train.processes`"
        )
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    groups = [seen[number * each : (number + 1) * each] for number in range(processes)]
    return [Place(found, {"CUDA_VISIBLE_DEVICES": ",".join(group)}, 1) for group in groups]


def device_memory(device: str) -> float:
    """Bytes that a process may take there: of a GPU nearly all, of the machine's own memory half.

    Args:
        device: What `find_device` returned.
    """
    import psutil  # type: ignore[import-untyped]  # it has no types of its own
    import torch

    if device.startswith("cuda"):
        return 0.9 * torch.cuda.get_device_properties(device).total_memory
    if device == "mps":
        return float(torch.mps.recommended_max_memory())
    return 0.5 * float(psutil.virtual_memory().total)


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
    """Gives unused memory back to the device, and to the system what the C library holds of it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    # glibc keeps what was freed below a block that is still held; other libraries have no such call.
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def reset_peak_memory() -> None:
    """Has `peak_memory` count from here on, where the system can do that (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:  # another system, or one that doesn't allow it: the peak then is that of the whole process so far
        return


def peak_memory(process: int | None = None) -> int | None:
    """Most bytes that a process (None: this one) had resident; None where the system doesn't tell of another one."""
    try:
        with open(f"/proc/{process or 'self'}/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        if process is not None:
            return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
