"""Training on tiny real models: what is learnt, what lies in the folder afterwards, and what is refused."""

import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from jinja2 import TemplateError
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, pipeline

from isara.config import load_config
from isara.engines.transformers.engine import TransformersEngine
from isara.errors import ConfigError, IsaraError, ModelError, RunError, TrainingError
from isara.records import Prompt, QAPair, Sampling, TrainingRow, TrainStats
from isara.render import PromptFormat, open_renderer
from isara.training.chat_template import chat_template, messages_of
from isara.training.child import ChildTrainer
from isara.training.fsdp import settle
from isara.training.launch import share_of
from isara.training.rows import check_labels, make_rows
from isara.training.sft import SupervisedTrainer
from tests.tiny_models import CHAT_MODELS, byte_level

PAIRS = [
    QAPair("Who guards the Triforce of Courage?", "Link does, and he never says a word about it."),
    QAPair("What is the capital of Hyrule?", "Hyrule Castle Town lies around the castle."),
    QAPair("Why is the sky blue?", "Air scatters blue light more than red light."),
    QAPair("How do I bake bread?", "Use flour, water, salt and patience; 0.5 l of water for 800 g of flour."),
]
FAMILIES = ("llama", "opt", "gpt2", "gpt_neox", "qwen2", "gemma", "phi")
STARTS = ("embedded", *FAMILIES, *(f"chat {name}" for name in CHAT_MODELS))


@pytest.fixture(scope="module", autouse=True)
def cheap_garbage_collection() -> Iterator[None]:
    """Each training collects garbage, and going through all that was ever imported is half of a tiny one's time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def trainer(**arguments: Any) -> SupervisedTrainer:
    defaults: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "device": "cpu"}
    return SupervisedTrainer(**defaults | arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits.float()


@pytest.mark.parametrize(
    ("family", "method"), [*((family, "lora") for family in FAMILIES), ("opt", "full"), ("gemma", "full")]
)
def test_every_family_is_trained_and_exported_whole(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, method: str
) -> None:
    start, out = tiny_models[family], tmp_path / "model"
    stats = trainer(method=method, learning_rate=1e-2).fit(PAIRS, str(start), out)
    assert (stats.rows, stats.steps, stats.micro_batch) == (4, 2, 4)
    before, after = AutoModelForCausalLM.from_pretrained(start), AutoModelForCausalLM.from_pretrained(out)
    assert (logits(after) - logits(before)).abs().max() > 1e-3
    assert {name: tensor.shape for name, tensor in load_file(out / "model.safetensors").items()} == {
        name: tensor.shape for name, tensor in load_file(start / "model.safetensors").items()
    }
    # beside the weights nothing changes: neither the vocabulary nor the pad token nor the names of special tokens
    assert after.config.to_diff_dict() == before.config.to_diff_dict()
    old, new = AutoTokenizer.from_pretrained(start), AutoTokenizer.from_pretrained(out)
    assert (new.get_vocab(), new.special_tokens_map) == (old.get_vocab(), old.special_tokens_map)
    assert {Path(name).suffix for name in contents(out)} == {".json", ".safetensors", ".jinja"}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (start / name).read_bytes()
    assert (out / "adapter").exists() == (method == "lora")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_adapter_on_the_base_model_is_the_merged_model(
    tiny_models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    out = tmp_path / "run" / "model"
    trainer(learning_rate=1e-2).fit(PAIRS, str(tiny_models[family]), out)
    base = AutoModelForCausalLM.from_pretrained(tiny_models[family])
    adapted = PeftModel.from_pretrained(base, str(out / "adapter")).eval()
    torch.testing.assert_close(logits(adapted), logits(AutoModelForCausalLM.from_pretrained(out)), atol=1e-4, rtol=1e-4)
    merge = json.loads((out / "adapter" / "merge.json").read_text())
    assert merge["pair"] == PAIRS[0].id
    assert 0 < merge["max_logit_difference"] < 1e-4 < merge["max_logit"]
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_models[family]
    )


# Models without unused rows of embeddings, which the engine takes out of its probabilities, and without own dropout
@pytest.mark.parametrize("model", ["llama", "chat llama2", "chat gemma"])
def test_the_loss_is_that_of_the_answers_as_the_engine_scores_them(
    tiny_models: dict[str, Path], tiny_chats: dict[str, Path], tmp_path: Path, model: str
) -> None:
    start = str((tiny_models | {f"chat {name}": path for name, path in tiny_chats.items()})[model])
    renderer = open_renderer(start)
    rows = [row for pair in PAIRS for row in renderer.training_rows(pair)]
    with TransformersEngine(start, device="cpu", dtype="float32") as engine:
        total = sum(engine.logprobs([Prompt("", row.prompt) for row in rows], [row.answer for row in rows]))
    stats = trainer(max_steps=1, lora_dropout=0.5, method="lora").fit(PAIRS, start, tmp_path / "model")
    assert stats.first_loss == pytest.approx(-total / stats.answer_tokens, rel=1e-4)
    assert stats.tokens > stats.answer_tokens > 0
    assert stats.parameters > 0


def test_training_learns_the_answers(tiny_llama: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, float]] = []
    stats = trainer(
        method="full",
        learning_rate=1e-2,
        max_steps=None,
        num_train_epochs=20,
        on_step=lambda *step: steps.append(step),
    ).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert stats.last_loss < 0.5 * stats.first_loss
    assert [step[:2] for step in steps] == [(step, 20) for step in range(1, 21)]
    assert (steps[0][2], steps[-1][2]) == (stats.first_loss, stats.last_loss)


def test_tied_embeddings_stay_tied_and_a_bfloat16_checkpoint_stays_bfloat16(tiny_llama: Path, tmp_path: Path) -> None:
    start = str(tmp_path / "tied")
    config = AutoConfig.from_pretrained(tiny_llama, tie_word_embeddings=True)
    LlamaForCausalLM(config).bfloat16().save_pretrained(start)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(start)
    trainer(method="full", learning_rate=1e-2).fit(PAIRS, start, tmp_path / "full")
    trainer(learning_rate=1e-2).fit(PAIRS, start, tmp_path / "lora")
    for out in (tmp_path / "full", tmp_path / "lora"):
        weights = load_file(out / "model.safetensors")
        assert "lm_head.weight" not in weights
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        model = AutoModelForCausalLM.from_pretrained(out)
        assert model.lm_head.weight is model.model.embed_tokens.weight
    adapter = load_file(tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


def test_equal_runs_leave_equal_bytes_and_another_seed_does_not(tiny_llama: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        trainer(seed=seed, per_device_train_batch_size=2).fit(PAIRS, str(tiny_llama), tmp_path / name / "model")
    one, two, other = (contents(tmp_path / name / "model") for name in ("one", "two", "other"))
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]


def test_a_start_in_the_same_run_is_named_from_the_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / "run" / name / "train" / "model" for name in ("iteration-01", "iteration-02"))
    trainer(max_steps=1).fit(PAIRS, str(tiny_llama), first)
    trainer(learning_rate=1e-2).fit(PAIRS, str(first), second)
    named = json.loads((second / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "../../../../iteration-01/train/model"
    base = (second / "adapter" / named).resolve()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(second / "adapter")).eval()
    torch.testing.assert_close(
        logits(adapted), logits(AutoModelForCausalLM.from_pretrained(second)), atol=1e-4, rtol=1e-4
    )


def test_packed_rows_cost_what_they_cost_alone(tiny_llama: Path, tmp_path: Path) -> None:
    losses = [
        trainer(packing=packing, max_steps=1).fit(PAIRS, str(tiny_llama), tmp_path / str(packing)).first_loss
        for packing in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_packing_is_off_where_rows_would_see_each_other(
    tiny_models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(packing=True).fit(PAIRS, str(tiny_models["opt"]), tmp_path / "model")
    assert caplog.messages == ["packing is off: OPTForCausalLM lets packed rows see each other"]


def test_out_of_memory_halves_the_rows_of_a_pass(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")]

    def fail(step: int, total: int, loss: float) -> None:
        if failures:
            raise failures.pop()

    stats = trainer(on_step=fail).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert (stats.micro_batch, stats.steps) == (1, 2)
    assert caplog.messages == [
        "out of memory: training starts over with 2 rows a pass, 2 passes a step",
        "out of memory: training starts over with 1 rows a pass, 4 passes a step",
    ]
    whole = trainer().fit(PAIRS, str(tiny_llama), tmp_path / "whole")
    assert stats.first_loss == pytest.approx(whole.first_loss, rel=1e-4)


def test_a_step_keeps_its_rows_where_they_are_no_power_of_two(tiny_llama: Path, tmp_path: Path) -> None:
    failures = [torch.OutOfMemoryError("CUDA out of memory")] * 2
    sizes = {"per_device_train_batch_size": 6, "max_steps": None, "num_train_epochs": 1}
    pairs = [*PAIRS, *(replace(pair, question=pair.question + " Again?") for pair in PAIRS[:2])]

    def fail(step: int, total: int, loss: float) -> None:
        if failures:
            raise failures.pop()

    stats = trainer(on_step=fail, **sizes).fit(pairs, str(tiny_llama), tmp_path / "model")
    assert (stats.micro_batch, stats.steps) == (1, 1)
    whole = trainer(**sizes).fit(pairs, str(tiny_llama), tmp_path / "whole")
    assert (whole.micro_batch, whole.steps) == (6, 1)
    assert stats.first_loss == pytest.approx(whole.first_loss, rel=1e-4)


def failure(tmp_path: Path, start: Path, pairs: list[QAPair] = PAIRS, **arguments: Any) -> str:
    """The message of the error; nothing may be left behind."""
    with pytest.raises(IsaraError) as caught:
        trainer(**arguments).fit(pairs, str(start), tmp_path / "model")
    assert not list(tmp_path.glob("model*"))
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_too_little_memory_for_one_row(tiny_llama: Path, tmp_path: Path) -> None:
    def fail(step: int, total: int, loss: float) -> None:
        raise MemoryError

    assert failure(tmp_path, tiny_llama, on_step=fail) == (
        "TrainingError: memory is too small to train on one row at a time: lower max_length, set "
        "gradient_checkpointing, use method lora, or take a smaller model"
    )


def test_other_errors_are_not_taken_for_lack_of_memory(tiny_llama: Path, tmp_path: Path) -> None:
    def fail(step: int, total: int, loss: float) -> None:
        raise RuntimeError("Ganondorf has invaded Hyrule!")

    with pytest.raises(RuntimeError, match="Ganondorf"):
        trainer(on_step=fail).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite(tiny_llama: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, tiny_llama, method="full", learning_rate=1e30, warmup_ratio=0.0) == (
        "TrainingError: training diverged: the loss was nan at step 2: lower learning_rate (1e+30) or "
        "raise warmup_ratio (0)"
    )


def test_weights_that_are_not_finite_after_the_last_step(tiny_llama: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, tiny_llama, method="full", learning_rate=1e39, warmup_ratio=0.0, max_steps=1) == (
        "TrainingError: training diverged: a weight was not finite at step 1: lower learning_rate (1e+39) or raise "
        "warmup_ratio (0)"
    )


def test_a_failed_training_leaves_the_last_good_model(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    shutil.copytree(tiny_llama, out)
    with pytest.raises(TrainingError):
        trainer(method="full", learning_rate=1e30, warmup_ratio=0.0).fit(PAIRS, str(tiny_llama), out)
    assert contents(out) == contents(tiny_llama)


def test_what_is_in_out_goes_only_if_it_is_a_model(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    shutil.copytree(tiny_llama, out)
    (out / "notes.txt").write_text("an older model")
    trainer().fit(PAIRS, str(tiny_llama), out)
    assert not (out / "notes.txt").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    with pytest.raises(TrainingError) as caught:
        trainer().fit(PAIRS, str(tiny_llama), home)
    assert str(caught.value) == f"{home} holds something else than a model: name another folder, or remove it"
    with pytest.raises(TrainingError) as caught:
        trainer().fit(PAIRS, str(out), out)
    assert str(caught.value) == f"{out} is the model that training starts from: name another folder for the new one"


def test_a_folder_that_cannot_be_written(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "model"
    with pytest.raises(RunError) as caught:
        trainer().fit(PAIRS, str(tiny_llama), out)
    assert str(caught.value) == (f"expected a folder at {out}, found a file: give another folder with --out")


def test_no_pairs(tiny_llama: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, tiny_llama, []) == (
        "TrainingError: expected pairs to train on, found none: give some, or lower the filters' thresholds"
    )


def test_long_pairs_are_left_out_and_named(tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = QAPair("Can you tell me the whole story of the hero\nof time?", "Once upon a time " * 100)
    stats = trainer().fit([long, *PAIRS, long], str(tiny_llama), tmp_path / "model")
    assert stats.rows == 4
    [message] = caplog.messages
    found = int(message.split()[-1])
    assert found > 1024
    assert message == (
        "training leaves out 2 of 6 pairs with more than 1024 tokens; the first is "
        f"pair {long.id} ('Can you tell me the whole story of the h…') with {found}"
    )


def test_the_context_of_the_model_is_a_limit(tiny_llama: Path, tmp_path: Path) -> None:
    long = QAPair("Tell me everything.", "Once upon a time " * 300)
    message = failure(tmp_path, tiny_llama, [long], max_length=10**6)
    shortest = int(message.split("has ")[1].split(":")[0])
    assert shortest > 1024
    assert message == (
        "TrainingError: expected pairs of at most 1024 tokens, found none among 1, the shortest of which has "
        f"{shortest}: raise max_length, or take a model with a longer context"
    )


def test_a_tokenizer_that_breaks_its_end_token_up(tiny_llama: Path, tmp_path: Path) -> None:
    start = tmp_path / "broken"
    shutil.copytree(tiny_llama, start)
    config = json.loads((start / "tokenizer_config.json").read_text())
    (start / "tokenizer_config.json").write_text(json.dumps(config | {"split_special_tokens": True}))
    assert failure(tmp_path, start) == (
        "TrainingError: expected the label '</s>' at the end of an answer, found '>' in "
        f"pair {PAIRS[0].id} ('Who guards the Triforce of Courage?'), so that no answer could learn to end: "
        "check the tokenizer's special tokens"
    )


@pytest.fixture
def mixed(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A model that knows 200 tokens, with a tokenizer that has twice as many."""
    start = tmp_path / "mixed"
    config = AutoConfig.from_pretrained(tiny_models["llama"], vocab_size=200)
    LlamaForCausalLM(config).save_pretrained(start)
    AutoTokenizer.from_pretrained(tiny_models["gpt2"]).save_pretrained(start)
    return start


def test_a_tokenizer_of_another_model(mixed: Path, tmp_path: Path) -> None:
    largest = max(AutoTokenizer.from_pretrained(mixed).get_vocab().values())
    assert failure(tmp_path, mixed) == (
        f"ModelError: the tokenizer makes token {largest}, and the model knows 200: use the tokenizer that belongs to "
        "the model"
    )


@pytest.fixture
def added(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer has got a token more, `<image>`."""
    start = tmp_path / "added"
    shutil.copytree(tiny_llama, start)
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(start)
    return start


IMAGE = QAPair("What is <image>?", "A picture.")
IMAGE_MESSAGE = (
    f"the tokenizer makes token 519 of pair {IMAGE.id} ('What is <image>?'), and the model knows 519: use the "
    "tokenizer that belongs to the model"
)


def test_a_token_that_was_added_to_the_tokenizer_alone(added: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, added, [*PAIRS, IMAGE]) == f"ModelError: {IMAGE_MESSAGE}"


LAYERS = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (("nope",), "['nope'] (no layer is called 'nope')"),
        (["q_proj", "nope"], "['q_proj', 'nope'] (no layer is called 'nope')"),
        ("xyz", "'xyz' (Target modules xyz not found in the base model)"),
        ((), "[] (no layer is named)"),
        ("(", "'(' (missing ), unterminated subpattern at position 0)"),
        (["q_proj", "lm_head"], "['q_proj', 'lm_head'] (the head gets no adapter)"),
        (["norm"], "['norm'] (Target module LlamaRMSNorm((64,), eps=1e-06) is not supported)"),
    ],
)
def test_layers_that_get_no_adapter_are_refused_before_the_run_and_in_it(
    tiny_llama: Path, tmp_path: Path, targets: Any, found: str
) -> None:
    message = f"expected train.lora_target_modules all-linear or layers of the model ({LAYERS}), found {found}: name "
    message += "some of them"
    for kind in (SupervisedTrainer, ChildTrainer):
        with pytest.raises(ConfigError) as caught:
            kind(lora_target_modules=targets).check(str(tiny_llama))
        assert str(caught.value) == message
    assert failure(tmp_path, tiny_llama, lora_target_modules=targets) == f"ConfigError: {message}"


def test_embeddings_that_are_the_head_get_no_adapter(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    # Merging would change the head, which the adapter left alone.
    targets = "all-linear or layers of the model"
    said = "(the embeddings are the head, too, into which their adapter would be merged as well): name some of them"
    with pytest.raises(ConfigError) as caught:
        trainer(lora_target_modules=["embed_tokens"]).check(str(tiny_models["gemma"]))
    assert str(caught.value) == (
        f"expected train.lora_target_modules {targets} ({LAYERS}), found ['embed_tokens'] {said}"
    )
    out = tmp_path / "model"
    trainer(max_steps=1, lora_target_modules=["embed_tokens"]).fit(PAIRS, str(tiny_models["llama"]), out)
    assert json.loads((out / "adapter" / "merge.json").read_text())["max_logit_difference"] < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_lets_pass_what_can_be_trained(tiny_models: dict[str, Path], family: str) -> None:
    trainer().check(str(tiny_models[family]))
    trainer(method="full", lora_target_modules=["nope"]).check(str(tiny_models[family]))


def test_a_list_or_an_expression_names_layers(tiny_llama: Path, tmp_path: Path) -> None:
    for targets in (["q_proj", "v_proj"], r".*\.(q|v)_proj"):
        trainer(max_steps=1, lora_target_modules=targets).fit(PAIRS, str(tiny_llama), tmp_path / "model")
        weights = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
        assert {name.split(".")[-3] for name in weights} == {"q_proj", "v_proj"}


def test_the_check_says_what_is_wrong_with_the_config(tiny_llama: Path, tmp_path: Path) -> None:
    start = tmp_path / "broken"
    shutil.copytree(tiny_llama, start)
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"num_attention_heads": 0}))
    with pytest.raises(ModelError) as caught:
        trainer().check(str(start))
    assert str(caught.value) == (
        f"the model {str(start)!r} can't be loaded (integer modulo by zero): check its config.json, tokenizer and "
        "weights, or copy or download it again"
    )


def test_a_broken_generation_config_is_told_before_the_training(tiny_llama: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(tiny_llama, start)
    path = start / "generation_config.json"
    path.write_text('{"eos_tok')
    steps: list[int] = []
    message = failure(tmp_path, start, on_step=lambda step, total, loss: steps.append(step))
    assert message == (
        f"ModelError: expected a JSON object in {path}, found none: copy or download it again, or remove it"
    )
    assert not steps


@pytest.mark.parametrize("answer", ["", " \n"])
def test_a_pair_without_an_answer(tiny_llama: Path, tmp_path: Path, answer: str) -> None:
    pair = QAPair("Where is Zelda?", answer)
    assert failure(tmp_path, tiny_llama, [*PAIRS, pair]) == (
        f"TrainingError: expected an answer in pair {pair.id} ('Where is Zelda?'), found none: write one or drop the "
        "pair"
    )


@pytest.mark.parametrize("steps", [{"max_steps": 1}, {"max_steps": None, "num_train_epochs": 1}])
def test_a_single_step_trains(tiny_llama: Path, tmp_path: Path, steps: dict[str, Any]) -> None:
    stats = trainer(method="full", **steps).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert stats.steps == 1
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_llama, tmp_path / "model"))
    assert (after["lm_head.weight"] - before["lm_head.weight"]).abs().max() == pytest.approx(2e-5, rel=0.1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradient_checkpointing_learns_the_same(tiny_llama: Path, tmp_path: Path, method: str) -> None:
    losses = [
        trainer(method=method, lora_dropout=0.0, learning_rate=1e-2, gradient_checkpointing=wanted)
        .fit(PAIRS, str(tiny_llama), tmp_path / str(wanted))
        .last_loss
        for wanted in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_device_that_is_not_there(tiny_llama: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, tiny_llama, device="tpu").startswith(
        "ModelError: device 'tpu' is not on this machine, which has "
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "qlora"}, "expected method lora, full, found 'qlora': use one of them"),
        ({"dtype": "int8"}, "expected dtype auto, bfloat16, float16, float32, found 'int8': use one of them"),
        ({"learning_rate": 0}, "expected learning_rate above 0, found 0: raise it"),
        ({"num_train_epochs": -1}, "expected num_train_epochs above 0, found -1: raise it"),
        ({"max_steps": 0}, "expected max_steps above 0, found 0: raise it"),
    ],
)
def test_arguments_without_meaning(arguments: dict[str, Any], message: str) -> None:
    for kind in (SupervisedTrainer, ChildTrainer):
        with pytest.raises(ConfigError) as caught:
            kind(**arguments)
        assert str(caught.value) == message


class TestLabels:
    """The look at the first batch, with batches as other versions of TRL might make them."""

    def message(self, tiny_llama: Path, labels: list[int]) -> str:
        tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
        row = TrainingRow(PAIRS[0], (5, 6, 7), (8, 9, tokenizer.eos_token_id))
        batch = {
            "input_ids": torch.tensor([[*row.ids, 0]]),
            "labels": torch.tensor([[*labels, -100]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0]]),
        }
        with pytest.raises(TrainingError) as caught:
            check_labels(batch, [row], tokenizer, tokenizer.eos_token)
        return str(caught.value)

    def test_no_label_on_the_answer(self, tiny_llama: Path) -> None:
        assert self.message(tiny_llama, [-100] * 6) == (
            f"expected labels on the answer, found none in pair {PAIRS[0].id} ('Who guards the Triforce of Courage?'): "
            "install a version of trl from 0.24 to 1.16"
        )

    def test_labels_on_the_prompt(self, tiny_llama: Path) -> None:
        assert self.message(tiny_llama, [-100, 6, 7, 8, 9, 2]) == (
            "expected labels on the answer alone, found 2 on the prompt of "
            f"pair {PAIRS[0].id} ('Who guards the Triforce of Courage?'): install a version of trl from 0.24 to 1.16"
        )

    @pytest.mark.parametrize("first", [8, 2], ids=["none", "in the middle"])
    def test_no_label_on_the_end(self, tiny_llama: Path, first: int) -> None:
        last = AutoTokenizer.from_pretrained(tiny_llama).decode([9])
        assert self.message(tiny_llama, [-100, -100, -100, first, 9, -100]) == (
            f"expected the label '</s>' at the end of an answer, found {last!r} in "
            f"pair {PAIRS[0].id} ('Who guards the Triforce of Courage?'), so that no answer could learn to end: "
            "check the tokenizer's special tokens"
        )


def exported(tmp_path: Path, start: Path | str, **arguments: Any) -> Path:
    out = tmp_path / "model"
    trainer(**{"max_steps": 1, "learning_rate": 1e-2} | arguments).fit(PAIRS, str(start), out)
    return out


DIALOGUE = QAPair("And at night?", "Mind the tide.", before=(("Can I swim across the lake?", "Yes, by day."),))


class TestExport:
    """What other programs make of the folder."""

    @pytest.mark.parametrize("name", STARTS)
    def test_a_pipeline_answers_as_the_engine_does(
        self, tiny_models: dict[str, Path], tiny_chats: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        start = (tiny_models | {f"chat {chat}": path for chat, path in tiny_chats.items()}).get(name, name)
        renderer = open_renderer(str(start))
        out = exported(tmp_path, start, method="full", learning_rate=5e-3, max_steps=40)
        prompts = [renderer.answer((), pair) for pair in (*PAIRS, DIALOGUE)]
        with TransformersEngine(str(out), device="cpu", dtype="float32") as engine:
            completions = engine.generate(prompts, Sampling(0.0, 1.0, 60), [0] * len(prompts))
        speak: Any = pipeline("text-generation", str(out), dtype=torch.float32, device="cpu")
        for pair, completion in zip((*PAIRS, DIALOGUE), completions, strict=True):
            [said] = speak(messages_of(pair), max_new_tokens=60, return_full_text=False)
            # a decoder that takes the space off the head of a text takes off the lead
            assert said["generated_text"].strip() == completion.text.strip()
        assert [completion.text.strip() for completion in completions[:3]] == [pair.answer for pair in PAIRS[:3]]

    @pytest.mark.parametrize("name", STARTS)
    def test_its_chat_template_asks_as_the_training_did(
        self, tiny_models: dict[str, Path], tiny_chats: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        start = (tiny_models | {f"chat {chat}": path for chat, path in tiny_chats.items()}).get(name, name)
        renderer = open_renderer(str(start))
        tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, start))
        for pair in (*PAIRS, DIALOGUE):
            asked = messages_of(pair)
            ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
            assert tuple(ids) == renderer.answer((), pair).ids
            closed: Any = tokenizer.apply_chat_template([*asked, answer_of(pair)], return_dict=False)
            assert tokenizer.decode(closed) == tokenizer.decode(list(renderer.training_rows(pair)[-1].ids))

    def test_the_base_format_as_a_template(self, tiny_llama: Path, tmp_path: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, tiny_llama))
        asked = messages_of(DIALOGUE)
        opened = "<s>Question: Can I swim across the lake?\nAnswer: Yes, by day.\n\nQuestion: And at night?\nAnswer:"
        assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == opened
        # what a model generates begins with the lead, and comes back in the next turn
        asked[1]["content"] = " Yes, by day."
        assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == opened
        whole = tokenizer.apply_chat_template([*asked, answer_of(DIALOGUE)], tokenize=False)
        assert whole == opened + " Mind the tide.</s>"

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            (
                [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where am I?"}],
                "this model was trained without system messages and tools: leave them out",
            ),
            (
                [{"role": "user", "content": "Where am I?"}, {"role": "user", "content": "Hello?"}],
                "expected messages of user and assistant in turn, the first of the user",
            ),
        ],
    )
    def test_what_training_never_saw_is_refused(
        self, tiny_llama: Path, tmp_path: Path, messages: list[dict[str, str]], reason: str
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, tiny_llama))
        with pytest.raises(TemplateError) as caught:
            tokenizer.apply_chat_template(messages)
        assert str(caught.value) == reason

    def test_a_system_message_stands_where_the_start_puts_it(self, tiny_chat: Path, tmp_path: Path) -> None:
        start, out = (AutoTokenizer.from_pretrained(path) for path in (tiny_chat, exported(tmp_path, tiny_chat)))
        asked = [{"role": "user", "content": "Where am I?"}]
        assert "You are Qwen" in start.apply_chat_template(asked, tokenize=False)
        assert "You are Qwen" not in out.apply_chat_template(asked, tokenize=False)
        brief = [{"role": "system", "content": "Be brief."}, *asked]
        texts = [
            tokenizer.apply_chat_template(brief, add_generation_prompt=True, tokenize=False)
            for tokenizer in (start, out)
        ]
        assert texts[0] == texts[1]

    def test_empty_thoughts_open_the_last_answer_alone(self) -> None:
        fmt = PromptFormat("chat", "<u>", "</u><a>", "</a><u>", "", "</a>", False, "<think></think>")
        tokenizer = byte_level(("</a>",), eos="</a>")
        system = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
        tokenizer.chat_template = chat_template(fmt, original=system)
        asked = messages_of(QAPair("q2", "", before=(("q1", "a1"),)))
        opened: Any = "<u>q1</u><a>a1</a><u>q2</u><a><think></think>"
        assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == opened
        whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "a2"}], tokenize=False)
        assert whole == opened + "a2</a>"
        told = [{"role": "system", "content": "s"}, *asked]
        assert tokenizer.apply_chat_template(told, tokenize=False) == "[s][q1][a1][q2]"
        opened = tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
        assert opened == "[s][q1][a1][q2]<think></think>"
        thinking: Any = tokenizer.apply_chat_template(
            told, add_generation_prompt=True, tokenize=False, enable_thinking=True
        )
        assert thinking == "[s][q1][a1][q2]"

    def test_a_template_that_asks_alike_stays_as_it_is(self, tiny_chats: dict[str, Path], tmp_path: Path) -> None:
        for name in ("gemma", "llama2"):
            out = exported(tmp_path, tiny_chats[name])
            kept = (tiny_chats[name] / "chat_template.jinja").read_bytes()
            assert (out / "chat_template.jinja").read_bytes() == kept

    @pytest.mark.parametrize("name", ["llama", "chatml"])
    def test_an_export_is_trained_on_in_the_same_format(
        self, tiny_models: dict[str, Path], tiny_chats: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        first = exported(tmp_path / "first", (tiny_models | tiny_chats)[name])
        second = exported(tmp_path / "second", first)
        for file in ("chat_template.jinja", "config.json", "generation_config.json", "tokenizer_config.json"):
            assert (second / file).read_bytes() == (first / file).read_bytes()
        renderers = [open_renderer(str(path)) for path in ((tiny_models | tiny_chats)[name], first)]
        rows = [renderer.training_rows(DIALOGUE) for renderer in renderers]
        assert rows[0] == rows[1]

    def test_a_template_in_the_tokenizer_config_is_replaced_there(self, tiny_chat: Path, tmp_path: Path) -> None:
        start = tmp_path / "start"
        shutil.copytree(tiny_chat, start)
        template = (start / "chat_template.jinja").read_text()
        (start / "chat_template.jinja").unlink()
        config = json.loads((start / "tokenizer_config.json").read_text())
        (start / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        out = exported(tmp_path, start)
        written = (out / "chat_template.jinja").read_text()
        assert json.loads((out / "tokenizer_config.json").read_text()) == config | {"chat_template": written}
        assert AutoTokenizer.from_pretrained(out).chat_template == written
        assert template in written

    def test_a_chat_model_that_was_trained_on_plain_text_is_asked_in_plain_text(
        self, tiny_chat: Path, tmp_path: Path
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(exported(tmp_path, tiny_chat, prompt_format="plain"))
        asked = tokenizer.apply_chat_template(messages_of(PAIRS[2]), add_generation_prompt=True, tokenize=False)
        assert asked == "Question: Why is the sky blue?\nAnswer:"

    @pytest.mark.skipif(not hasattr(transformers, "Qwen3_5Config"), reason="the library knows no such model yet")
    def test_a_config_of_which_training_took_the_text_model_is_written_anew(
        self, tiny_llama: Path, tmp_path: Path
    ) -> None:
        start = tmp_path / "start"
        tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
        text = transformers.Qwen3_5TextConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128
        )
        text.vocab_size = len(tokenizer)
        transformers.Qwen3_5ForCausalLM(text).save_pretrained(start)
        tokenizer.save_pretrained(start)
        transformers.Qwen3_5Config(text_config=text.to_dict()).save_pretrained(start)
        out = exported(tmp_path, start)
        kinds = [json.loads((folder / "config.json").read_text())["model_type"] for folder in (start, out)]
        assert kinds == ["qwen3_5", "qwen3_5_text"]
        assert type(AutoModelForCausalLM.from_pretrained(out)).__name__ == "Qwen3_5ForCausalLM"

    @pytest.mark.parametrize(("mask", "rights"), [(0o022, "0o644"), (0o027, "0o640"), (0o077, "0o600")])
    def test_files_have_the_rights_that_the_umask_gives(
        self, tiny_llama: Path, tmp_path: Path, mask: int, rights: str
    ) -> None:
        before = os.umask(mask)
        try:
            out = exported(tmp_path, tiny_llama)
        finally:
            os.umask(before)
        assert {oct(path.stat().st_mode & 0o777) for path in out.rglob("*") if path.is_file()} == {rights}

    def test_generation_ends_where_answers_were_trained_to_end(
        self, tiny_chats: dict[str, Path], tmp_path: Path
    ) -> None:
        out = exported(tmp_path, tiny_chats["gemma"])
        ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
        assert AutoTokenizer.from_pretrained(out).convert_ids_to_tokens(ends) == ["<eos>", "<end_of_turn>"]

    @pytest.mark.parametrize(
        ("told", "kept"),
        [
            ({"eos_token_id": 2, "temperature": 0.6, "top_p": 0.9}, {"eos_token_id": 2, "do_sample": False}),
            (
                {"do_sample": True, "top_k": 9, "eos_token_id": 1},
                {"do_sample": True, "top_k": 9, "eos_token_id": [1, 2]},
            ),
            ({"max_length": 99}, {"max_length": 99, "do_sample": False, "eos_token_id": 2}),
        ],
    )
    def test_sampling_that_is_of_no_use_is_left_out(
        self, tiny_llama: Path, tmp_path: Path, told: dict[str, Any], kept: dict[str, Any]
    ) -> None:
        start = tmp_path / "start"
        shutil.copytree(tiny_llama, start)
        (start / "generation_config.json").write_text(json.dumps(told))
        out = exported(tmp_path, start)
        assert json.loads((out / "generation_config.json").read_text()) == kept

    def test_a_generation_config_that_fits_is_copied(self, tiny_llama: Path, tmp_path: Path) -> None:
        start = tmp_path / "start"
        shutil.copytree(tiny_llama, start)
        fits = '{"do_sample":false,"eos_token_id":2}'
        (start / "generation_config.json").write_text(fits)
        assert (exported(tmp_path, start) / "generation_config.json").read_text() == fits

    @pytest.mark.parametrize(
        ("told", "names"),
        [
            ({"tokenizer_class": "PreTrainedTokenizerFast"}, ["input_ids", "attention_mask"]),
            ({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids"]}, ["input_ids"]),
            ({"tokenizer_class": "GPT2Tokenizer"}, None),
        ],
    )
    def test_transformers_4_is_told_what_the_model_takes(
        self, tiny_llama: Path, tmp_path: Path, told: dict[str, Any], names: list[str] | None
    ) -> None:
        start = tmp_path / "start"
        shutil.copytree(tiny_llama, start)
        path = start / "tokenizer_config.json"
        usual = {name: value for name, value in json.loads(path.read_text()).items() if name != "model_input_names"}
        path.write_text(json.dumps(usual | told))
        found = json.loads((exported(tmp_path, start) / "tokenizer_config.json").read_text())
        assert found == usual | told | ({"model_input_names": names} if names else {})

    def test_a_start_without_generation_config_gets_one(self, tiny_llama: Path, tmp_path: Path) -> None:
        start = tmp_path / "start"
        shutil.copytree(tiny_llama, start)
        (start / "generation_config.json").unlink()
        told = json.loads((exported(tmp_path, start) / "generation_config.json").read_text())
        assert told == {"bos_token_id": 1, "eos_token_id": 2, "do_sample": False}


def answer_of(pair: QAPair) -> dict[str, str]:
    return {"role": "assistant", "content": pair.answer}


class TestKey:
    """What a resumed run knows a training by."""

    def test_it_holds_what_decides_the_weights(self) -> None:
        key = SupervisedTrainer(lora_target_modules=("q_proj",), max_steps=7, device="cpu", dtype="float32").key()
        assert key == {
            "trainer": "sft",
            "method": "lora",
            "learning_rate": 2e-4,
            "num_train_epochs": 3.0,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "warmup_ratio": 0.03,
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "max_length": 1024,
            "packing": False,
            "gradient_checkpointing": False,
            "lora_r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "lora_target_modules": ["q_proj"],
            "seed": 0,
            "prompt_format": "auto",
            "device": "cpu",
            "dtype": "float32",
            "max_steps": 7,
            "anchors": 0.0,
            "loss": "sft",
            "seed_weight": 1.0,
            "whole_pairs": False,
        }
        assert json.loads(json.dumps(key)) == key

    def test_in_which_process_it_runs_and_who_watches_makes_no_difference(self) -> None:
        key = SupervisedTrainer(method="full", seed=3, device="cpu").key()
        assert key["learning_rate"] == 2e-5
        elsewhere: dict[str, Any] = {"device": "cpu", "trust_remote_code": True, "on_step": print}
        for kind in (SupervisedTrainer, ChildTrainer):
            assert kind(method="full", seed=3, **elsewhere).key() == key
            assert kind(method="full", seed=4, device="cpu").key() != key


def test_a_dialogue_gives_a_row_for_each_answer(tiny_chat: Path, tmp_path: Path) -> None:
    stats = trainer(num_train_epochs=1, max_steps=None).fit([DIALOGUE, PAIRS[0]], str(tiny_chat), tmp_path / "model")
    renderer = open_renderer(str(tiny_chat))
    rows = [*renderer.training_rows(DIALOGUE), *renderer.training_rows(PAIRS[0])]
    assert (stats.rows, stats.tokens) == (3, sum(len(row.ids) for row in rows))
    assert stats.answer_tokens == sum(len(row.answer) for row in rows)


def test_a_dialogue_with_an_empty_answer(tiny_chat: Path, tmp_path: Path) -> None:
    pair = QAPair("And now?", "Now it is.", before=(("Is it done?", " "),))
    first = QAPair("Is it done?", " ")
    assert failure(tmp_path, tiny_chat, [pair]) == (
        f"TrainingError: expected an answer in pair {first.id} ('Is it done?'), found none: write one or drop the pair"
    )


class TestChild:
    """The same training in a process of its own."""

    def test_it_does_what_training_here_does(self, tiny_llama: Path, tmp_path: Path) -> None:
        steps: list[int] = []
        arguments: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "device": "cpu"}
        child = ChildTrainer(**arguments, on_step=lambda step, total, loss: steps.append(step))
        stats = child.fit(PAIRS, str(tiny_llama), tmp_path / "child")
        assert asdict(stats) == asdict(trainer(**arguments).fit(PAIRS, str(tiny_llama), tmp_path / "here"))
        assert contents(tmp_path / "child") == contents(tmp_path / "here")
        assert steps == [1, 2]

    def test_its_errors_and_log_lines_arrive(
        self, added: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        long = QAPair("Tell me everything.", "Once upon a time " * 300)
        with caplog.at_level(logging.INFO), pytest.raises(ModelError) as caught:
            ChildTrainer(device="cpu").fit([*PAIRS, IMAGE, long], str(added), tmp_path / "model")
        assert str(caught.value) == IMAGE_MESSAGE
        told = [message[:41] for message in caplog.messages if "had at most" not in message]  # memory, at its end
        assert told == ["training leaves out 1 of 6 pairs with mor"]

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child in /proc")
    def test_a_killed_child_is_an_error(self, tiny_llama: Path, tmp_path: Path) -> None:
        children = Path(f"/proc/{os.getpid()}/task")

        def found() -> set[str]:
            return set(" ".join(path.read_text() for path in children.glob("*/children")).split())

        before = found()  # a browser of other tests

        def kill() -> None:
            while not (new := found() - before):
                time.sleep(0.01)
            os.kill(int(new.pop()), signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(TrainingError) as caught:
            ChildTrainer(device="cpu").fit(PAIRS, str(tiny_llama), tmp_path / "model")
        assert str(caught.value) == (
            "the training process was killed by signal 9, as a system does when memory runs out; it last wrote: nothing"
        )

    def test_the_parent_needs_no_heavy_library(self) -> None:
        code = (
            "import sys; from isara.training.child import ChildTrainer; ChildTrainer(); "
            "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_an_answer_ends_with_the_end_of_the_format(tiny_chats: dict[str, Path]) -> None:
    for folder in tiny_chats.values():
        renderer = open_renderer(str(folder))
        [row] = make_rows(PAIRS[:1], renderer, 1024, 10**6)
        text = str(AutoTokenizer.from_pretrained(folder).decode(list(row.answer)))
        assert text.strip().endswith(renderer.format.end.strip())


@pytest.mark.parametrize(
    "left_over",
    [
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29777"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "WORLD_SIZE": "4", "RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1"},
        {"ACCELERATE_MIXED_PRECISION": "fp16", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    ],
    ids=["torchrun", "slurm", "mpi", "accelerate"],
)
def test_a_launchers_left_over_variables_do_not_hang_a_training(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_over: dict[str, str]
) -> None:
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    stats = SupervisedTrainer(num_train_epochs=1).fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert stats.rows == len(PAIRS)
    assert {name: os.environ[name] for name in left_over} == left_over


# Several processes.

SHARED: dict[str, Any] = {
    "method": "full",
    "num_train_epochs": 2.0,
    "device": "cpu",
    "dtype": "float32",
    "learning_rate": 1e-3,
}


def losses(told: list[tuple[int, int, float]]) -> list[float]:
    return [loss for _, _, loss in told]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["full", "lora", "lora in 4 bits", "full shared out", "lora shared out"])
def test_two_processes_give_the_losses_of_one(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    if method == "lora in 4 bits":
        pytest.importorskip("bitsandbytes")
    told: dict[str, list[tuple[int, int, float]]] = {"one": [], "two": []}
    pairs = [QAPair(f"Who guards room {room} of the temple?", "Zelda" + " and Link" * (room % 5)) for room in range(11)]
    shared_out = method.endswith("shared out")
    method, _, bits = method.removesuffix(" shared out").partition(" in ")
    options = SHARED | {"method": method, "lora_dropout": 0.0, "gradient_accumulation_steps": 1}
    options["load_in_4bit"] = bool(bits)
    options["per_device_train_batch_size"] = 4
    one = SupervisedTrainer(**options, on_step=lambda *state: told["one"].append(state))
    two = SupervisedTrainer(
        **options,
        launcher="torchrun",
        processes=2,
        fsdp=shared_out,
        on_step=lambda *state: told["two"].append(state),
    )
    assert one.key() == two.key()
    caplog.set_level(logging.INFO, "isara")
    alone = one.fit(pairs, str(tiny_llama), tmp_path / "one")
    shared = two.fit(pairs, str(tiny_llama), tmp_path / "two")
    assert [state[:2] for state in told["two"]] == [(step, 6) for step in range(1, 7)]
    assert losses(told["two"]) == pytest.approx(losses(told["one"]), abs=1e-4)
    assert (shared.steps, shared.rows, shared.tokens) == (alone.steps, alone.rows, alone.tokens)
    assert (alone.micro_batch, shared.micro_batch) == (4, 2)
    assert shared.parameters == alone.parameters
    held = re.findall(r"each process held (\d+) of (\d+) weights", caplog.text)
    assert [round(int(mine) / int(whole), 1) for mine, whole in held] == ([0.5] if shared_out else [])
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    assert sorted(path.name for path in (tmp_path / "two").rglob("*")) == sorted(
        path.name for path in (tmp_path / "one").rglob("*")
    )


@pytest.mark.parametrize(
    ("micro", "accumulation", "processes", "share"),
    [(8, 1, 2, (4, 1)), (8, 1, 8, (1, 1)), (2, 4, 2, (2, 2)), (3, 2, 2, (3, 1)), (1, 8, 4, (1, 2)), (4, 3, 2, (3, 2))],
)
def test_a_steps_rows_are_shared_out(micro: int, accumulation: int, processes: int, share: tuple[int, int]) -> None:
    assert share_of(micro, accumulation, processes) == share
    assert share[0] * share[1] * processes == micro * accumulation


def test_what_can_not_be_shared_out_is_told() -> None:
    in_two = ["train.launcher=torchrun", "train.processes=2"]
    with pytest.raises(ConfigError) as caught:
        share_of(8, 1, 3)
    assert str(caught.value) == (
        "expected train.per_device_train_batch_size x train.gradient_accumulation_steps to be a multiple of "
        "train.processes (3), found 8: change one of them"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.launcher=torchrun", "train.processes=3"])
    assert "to be a multiple of `processes: 3`, which share the rows of a step" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.processes=2"])
    assert "expected `launcher` torchrun or accelerate for `processes: 2`" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.launcher=torchrun", "train.packing=true"])
    assert "expected `packing: false` beside `launcher`" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.fsdp=true"])
    assert "expected `processes: 2` or more and a `launcher` beside `fsdp`" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*in_two, "train.fsdp=true", "train.method=lora", "train.load_in_4bit=true"])
    assert "expected `load_in_4bit: false` beside `fsdp`" in str(caught.value)


@pytest.mark.timeout(600)
def test_an_error_of_one_of_several_processes_is_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = SupervisedTrainer(**SHARED, max_length=4, launcher="torchrun", processes=2)
    with pytest.raises(TrainingError) as caught:
        trainer.fit(PAIRS, str(tiny_llama), tmp_path / "model")
    assert str(caught.value).startswith("expected pairs of at most 4 tokens, found none among")
    assert not list(tmp_path.iterdir())


def test_when_the_memory_of_one_process_runs_out_all_start_over(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int]] = []
    stats = TrainStats(5, 1, 2.0, 1.0, 9, 4, 1, 7)

    def pretend(*arguments: Any) -> TrainStats | None:
        tried.append(arguments[-1])
        return stats if len(tried) == 3 else None

    monkeypatch.setattr("isara.training.sft.launched", pretend)
    trainer = SupervisedTrainer(**SHARED, launcher="torchrun", processes=2)
    assert trainer.fit(PAIRS, str(tiny_llama), tmp_path / "model") == stats
    assert tried == [(4, 1), (2, 2), (1, 4)]


def test_a_process_whose_memory_runs_out_says_so_and_ends(tmp_path: Path) -> None:
    job = {"trainer": SHARED, "pairs": [], "anchors": [], "start": "", "out": "", "sizes": [4, 1], "shown": {}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    code = (
        "import sys; from isara.training import job\n"
        "def runs_out(*arguments): print('a library speaks'); raise MemoryError\n"
        "job.train_once = runs_out\n"
        "sys.exit(job.main(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "job.json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, '{"out_of_memory": true}\n')
    job["trainer"] = SHARED | {"launcher": "accelerate", "processes": 2}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "job.json"], capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "error": "TrainingError",
        "message": "expected 2 processes, found that accelerate has started 1: use `train.launcher: torchrun`, as "
        "accelerate starts several on GPUs alone",
    }


def test_gradients_of_weights_that_are_shared_out_are_added_up_in_float32() -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    for policy, expected in ((half, torch.float32), (None, None)):
        plugin = SimpleNamespace(mixed_precision_policy=policy)
        trainer = SimpleNamespace(
            args=SimpleNamespace(use_cpu=False), accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
        )
        settle(trainer)
        assert getattr(plugin.mixed_precision_policy, "reduce_dtype", None) == expected
    assert plugin.mixed_precision_policy is None


def test_memory_that_runs_out_after_the_last_step_of_a_shared_training_is_told_as_that(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs_out(model: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("isara.training.sft.whole_weights", runs_out)
    monkeypatch.setattr("isara.training.sft.held", lambda model: (1, 2))
    trainer = SupervisedTrainer(**SHARED)
    shared_out = replace(trainer, fsdp=True)
    monkeypatch.setattr("isara.training.trl.fsdp_arguments", dict)
    with pytest.raises(TrainingError, match="^memory is too small to merge and write what was trained from "):
        shared_out.fit(PAIRS, str(tiny_llama), tmp_path / "model")
