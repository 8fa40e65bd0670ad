"""Which number format a CPU takes by itself."""

import platform

import pytest
import torch

from isara import hardware


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "intel", "dtype"),
    [
        (True, True, True, torch.bfloat16),
        (False, True, True, torch.float32),
        (False, True, False, torch.bfloat16),
        (False, False, False, torch.float32),
    ],
)
def test_a_cpu_takes_bf16_where_its_products_are_faster(
    amx: bool, avx512_bf16: bool, intel: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(hardware, "_is_made_by_intel", lambda: intel)
    assert hardware.find_dtype("auto", "cpu") is dtype
    assert hardware.find_dtype("float32", "cpu") is torch.float32
