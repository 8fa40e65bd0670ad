"""What makes the engine fast on a CPU computes what the plain layers do."""

import copy
import ctypes
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from isara.engines.transformers.attention import _causal
from isara.engines.transformers.engine import TransformersEngine
from isara.engines.transformers.kernels import PackedLinear, pack_linears
from isara.engines.transformers.sampling import _draw_of_all, _largest, draw, stream
from isara.hardware import free_memory, peak_memory, reset_peak_memory
from isara.packaged import PACKAGED, Packaged, is_installed
from isara.render import open_renderer


def plain(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval()


def packed_or_skip(model: Any) -> int:
    count = pack_linears(model)
    if not count:
        pytest.skip("this processor keeps torch's own layers")
    return count


def fused_mlps(model: Any) -> int:
    return sum("gate_proj" in dict(module.named_children()) and "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen2", "opt", "phi"])
def test_packed_layers_give_the_logits_of_plain_ones(family: str, tiny_models: dict[str, Path]) -> None:
    before = plain(tiny_models[family])
    after = copy.deepcopy(before)
    packed_or_skip(after)
    assert not any(type(module) is torch.nn.Linear for module in after.modules())
    ids = torch.arange(5, 45)[None]
    with torch.inference_mode():
        assert torch.allclose(before(ids).logits, after(ids).logits, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen2"])
def test_the_gate_of_every_layer_is_fused(family: str, tiny_models: dict[str, Path]) -> None:
    model = plain(tiny_models[family])
    packed_or_skip(model)
    assert fused_mlps(model) == model.config.num_hidden_layers


def test_an_mlp_that_only_looks_like_a_gated_one_keeps_its_own_way(tiny_llama: Path) -> None:
    model = plain(tiny_llama)
    odd = model.model.layers[0].mlp
    kind = type(odd)
    odd.__class__ = type("Odd", (kind,), {"forward": lambda self, x: kind.forward(self, x).clamp(-1e-4, 1e-4)})
    packed_or_skip(model)
    assert fused_mlps(model) == model.config.num_hidden_layers - 1


def test_a_bias_and_leading_dimensions_stay() -> None:
    linear = torch.nn.Linear(24, 40)
    model = torch.nn.Sequential(copy.deepcopy(linear))
    packed_or_skip(model)
    assert isinstance(model[0], PackedLinear)
    inputs = torch.randn(2, 3, 24)
    with torch.inference_mode():
        assert torch.allclose(model(inputs), linear(inputs), atol=1e-5)


def test_half_precision_keeps_the_plain_layers() -> None:
    assert pack_linears(torch.nn.Sequential(torch.nn.Linear(8, 8)).half()) == 0


@pytest.mark.parametrize("length", [5, 128, 300])
def test_attention_of_prompts_by_products_is_that_of_the_fused_kernel(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 16, generator=generator).bfloat16() for heads in (6, 2, 2))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), is_causal=True, enable_gqa=True
    )
    found = _causal(query, key, value, 16**-0.5).transpose(1, 2).float()
    assert (found - expected).abs().max() < 0.03  # bfloat16 has steps of 2^-8 at 1


@pytest.mark.parametrize("vocabulary", [300, 5000, 70_001])
@pytest.mark.parametrize("spread", [0.5, 8.0])
def test_a_draw_from_the_likeliest_is_that_from_all(vocabulary: int, spread: float) -> None:
    logits = torch.randn(40, vocabulary, generator=torch.Generator().manual_seed(1)) * spread
    keys = stream(3, 40)
    for top_p in (0.3, 0.9, 1.0):
        assert torch.equal(draw(logits, 1.0, top_p, keys), _draw_of_all(logits.clone(), top_p, keys))


def test_the_largest_are_found_wherever_they_lie() -> None:
    logits = torch.randn(3, 70_001, generator=torch.Generator().manual_seed(2))
    logits[0, 69_990:] += 9  # beyond the last whole block
    logits[1, 128:256] += 9  # all in one block
    values, ids = _largest(logits, 256)
    assert torch.equal(values, logits.topk(256).values)
    assert torch.equal(values, logits.gather(1, ids))


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    logits, keys = torch.randn(17, 70_001, generator=torch.Generator().manual_seed(4)) * 3, stream(5, 17)
    alone = [int(draw(logits[row : row + 1], 0.7, 0.95, keys[row : row + 1])) for row in range(17)]
    assert draw(logits, 0.7, 0.95, keys).tolist() == alone


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="counted from a point on Linux alone")
def test_peak_memory_counts_from_where_it_is_told_to() -> None:
    block = torch.ones(2**26)  # 256 MiB
    high = peak_memory()
    del block
    reset_peak_memory()
    low = peak_memory()
    assert high is not None and low is not None
    assert high - low > 2**27


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc alone")
def test_freed_memory_goes_back_to_the_system_below_what_is_still_held_too() -> None:
    blocks = [torch.ones(2**14) for _ in range(2**12)]  # 256 MiB in small pieces, which glibc keeps for the next ones
    del blocks[:-1]
    reset_peak_memory()
    before = peak_memory()
    free_memory()
    reset_peak_memory()
    after = peak_memory()
    assert before is not None and after is not None
    assert before - after > 2**27


def test_peak_memory_of_a_process_that_is_not_there_is_unknown() -> None:
    assert peak_memory(2**22 + 1) is None


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=pytest.mark.skipif(not is_installed(m), reason="needs its package")) for m in PACKAGED],
)
def test_logprobs_of_a_real_model_are_those_of_one_plain_forward_pass(model: Packaged) -> None:
    renderer = open_renderer(model.name)
    prompt = renderer.text("Question: Which planet is the red one?\nAnswer:")
    tails = [renderer.continuation(prompt, text) for text in (" Mars.", " Venus, as everyone knows.")]
    with TransformersEngine(model.name, device="cpu", dtype="float32") as engine:
        scores = engine.logprobs([prompt, prompt], tails)
        folder = engine._model().model.config._name_or_path
        size = engine._model().text.size
    reference = plain(folder)
    for tail, score in zip(tails, scores, strict=True):
        ids = torch.tensor([[*prompt.ids, *tail]])
        with torch.inference_mode():
            rows = torch.log_softmax(reference(ids).logits[0, len(prompt.ids) - 1 : -1, :size], -1)
        assert score == pytest.approx(float(rows.gather(1, torch.tensor(tail)[:, None]).sum()), abs=1e-4)
