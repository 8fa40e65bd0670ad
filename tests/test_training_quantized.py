"""An adapter on weights of 4 bits: what is trained, what is exported, and what it takes."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from isara.errors import ConfigError, ModelError, TrainingError
from isara.records import Draw, Preference, QAPair, TrainStats
from isara.training import quantized, sft
from isara.training.child import ChildTrainer
from isara.training.options import TrainOptions
from isara.training.sft import SupervisedTrainer

PAIRS = [
    QAPair("Who feeds the lighthouse's cat?", "The keeper does, at six, before the lamp is lit."),
    QAPair("When does the ferry leave?", "It leaves when the tide has turned, and not before."),
    QAPair("What is the island's bread made of?", "Of rye and seaweed, and it keeps for a month."),
    QAPair("How deep is the harbour?", "Deep enough for a ship of four metres, at any tide."),
]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


def trainer(kind: Any = SupervisedTrainer, **arguments: Any) -> Any:
    defaults: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "device": "cpu",
        "learning_rate": 1e-2,
    }
    return kind(**defaults | {"load_in_4bit": True} | arguments)


def fit(start: Path, out: Path, **arguments: Any) -> TrainStats:
    found: TrainStats = trainer(**arguments).fit(PAIRS, str(start), out)
    return found


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 40)[None]).logits


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "opt", "qwen2", "gemma"])
def test_the_whole_start_with_the_adapter_is_what_is_exported(
    tiny_models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    start, out = tiny_models[family], tmp_path / "model"
    stats = fit(start, out)
    assert stats.steps == 4 and stats.last_loss < stats.first_loss
    whole = AutoModelForCausalLM.from_pretrained(start)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), str(out / "adapter"))
    new = AutoModelForCausalLM.from_pretrained(out)
    assert not hasattr(new.config, "quantization_config")
    assert {tensor.dtype for tensor in new.parameters()} == {tensor.dtype for tensor in whole.parameters()}
    torch.testing.assert_close(logits(new), logits(adapted), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(new), logits(whole), atol=1e-2)
    embeddings: list[Any] = [model.get_input_embeddings() for model in (new, whole)]
    assert torch.equal(embeddings[0].weight, embeddings[1].weight)
    assert (out / "config.json").read_bytes() == (start / "config.json").read_bytes()


@needs_bitsandbytes
def test_weights_are_in_4_bits_and_what_is_trained_in_float32(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isara.training import sft

    seen: dict[str, set[str]] = {"trained": set(), "frozen": set()}
    train = sft._Training._train

    def look(self: Any, made: Any, *rest: Any) -> TrainStats:
        for name, tensor in made.model.named_parameters():
            if "layers" in name and tensor.ndim == 2:
                seen["trained" if tensor.requires_grad else "frozen"].add(f"{type(tensor).__name__} {tensor.dtype}")
        return train(self, made, *rest)

    monkeypatch.setattr(sft._Training, "_train", look)
    fit(tiny_llama, tmp_path / "model")
    assert seen == {"trained": {"Parameter torch.float32"}, "frozen": {"Params4bit torch.uint8"}}


@needs_bitsandbytes
def test_a_pass_without_gradients_leaves_those_of_the_next_one(tiny_llama: Path) -> None:
    model, _ = quantized.load_in_4bit(str(tiny_llama), "cpu", "float32", False)
    ids = torch.arange(3, 40)[None]
    embeddings: Any = model.get_input_embeddings()

    def gradient() -> Any:
        embeddings.weight.grad = None
        model(input_ids=ids, labels=ids).loss.backward()
        return embeddings.weight.grad.clone()

    embeddings.weight.requires_grad_(True)
    before = gradient()
    logits(model)
    torch.testing.assert_close(gradient(), before)
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in model.modules())


@needs_bitsandbytes
def test_the_loss_is_nearly_that_of_whole_weights(tiny_llama: Path, tmp_path: Path) -> None:
    first = [
        fit(tiny_llama, tmp_path / str(four), load_in_4bit=four, method="lora").first_loss for four in (False, True)
    ]
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.02)


@needs_bitsandbytes
def test_equal_trainings_leave_equal_bytes_in_a_child_too(tiny_llama: Path, tmp_path: Path) -> None:
    folders = []
    for number, kind in enumerate((SupervisedTrainer, SupervisedTrainer, ChildTrainer)):
        folders.append(tmp_path / str(number) / "model")
        trainer(kind).fit(PAIRS, str(tiny_llama), folders[-1])
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


@needs_bitsandbytes
@pytest.mark.parametrize("way", ["distil", "packing", "dpo"])
def test_what_reads_rows_before_the_training_learns_as_with_whole_weights(
    tiny_llama: Path, tmp_path: Path, way: str
) -> None:
    made = [replace(pair, iteration=1) for pair in PAIRS]
    pairs = [Preference(pair, Draw(PAIRS[n - 1].answer, 9, "stop", "", 0)) for n, pair in enumerate(made)]
    last = []
    for four in (False, True):
        told: dict[str, Any] = {"load_in_4bit": four, "method": "lora"}
        if way == "dpo":
            one = trainer(loss="dpo", **told).prefer(pairs, str(tiny_llama), tmp_path / f"{way} {four}")
        else:
            more = (
                {"packing": True} if way == "packing" else {"loss": "distil", "teach": lambda pair: [(PAIRS[0], 1.0)]}
            )
            one = trainer(**told, **more).fit(made, str(tiny_llama), tmp_path / f"{way} {four}")
        assert one.last_loss < one.first_loss
        last.append(one.last_loss)
    assert last[1] == pytest.approx(last[0], rel=0.1, abs=0.01)


@needs_bitsandbytes
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_start_that_is_not_finite_is_told_though_4_bits_always_are(
    tiny_llama: Path, tmp_path: Path, bad: float
) -> None:
    start = tmp_path / "start"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = bad
    shutil.copytree(tiny_llama, start)
    model.save_pretrained(start)
    with pytest.raises(ModelError) as caught:
        fit(start, tmp_path / "model")
    assert str(caught.value) == (
        f"expected finite weights in the model {str(start)!r}, found NaN or infinity in "
        "model.layers.1.mlp.up_proj.weight: copy or download it again, or set another engine.dtype"
    )


@needs_bitsandbytes
@pytest.mark.parametrize("where", ["load_model", "with_adapter", "record_merge"])
def test_memory_that_is_too_small_for_merging_is_told_and_trains_nothing_again(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    steps = []

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(sft, where, no_memory)
    with pytest.raises(TrainingError) as caught:
        trainer(on_step=lambda step, *_: steps.append(step)).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert str(caught.value) == (
        f"memory is too small to merge and write what was trained from {str(tiny_llama)!r}, with its whole weights "
        "beside those of 4 bits: train on a machine with more memory, or take a smaller model"
    )
    assert steps == [1, 2, 3, 4] and not (tmp_path / "model").exists()


def test_a_missing_package_is_told_before_the_run(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        trainer().check(str(tiny_llama))
    assert str(caught.value) == (
        "expected the package bitsandbytes for `train.load_in_4bit`, found none: pip install bitsandbytes, or set it "
        "to false"
    )


def test_weights_in_4_bits_are_not_trained_themselves() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainOptions(method="full", load_in_4bit=True)
    assert str(caught.value) == (
        "expected train.method lora for `train.load_in_4bit`, found full: weights in 4 bits are not trained "
        "themselves; set the method, or load_in_4bit to false"
    )


def test_it_is_a_part_of_the_key_where_it_is_set() -> None:
    assert "load_in_4bit" not in trainer(load_in_4bit=False).key()
    assert trainer().key()["load_in_4bit"] is True
