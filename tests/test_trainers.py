"""Training on tiny real models: what is learnt, what lies in the folder afterwards, and what is refused."""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from isara.child_trainer import ChildTrainer
from isara.data import QAPair
from isara.engines.transformers import TransformersEngine
from isara.errors import ConfigError, IsaraError, ModelError, RunError, TrainingError
from isara.prompts import find_format, plain_format, training_text
from isara.trainers import SupervisedTrainer
from isara.training_rows import TrainingRow, check_labels

PAIRS = [
    QAPair("Who guards the Triforce of Courage?", "Link does, and he never says a word about it."),
    QAPair("What is the capital of Hyrule?", "Hyrule Castle Town lies around the castle."),
    QAPair("Why is the sky blue?", "Air scatters blue light more than red light."),
    QAPair("How do I bake bread?", "Use flour, water, salt and patience; 0.5 l of water for 800 g of flour."),
]
FAMILIES = ("llama", "opt", "gpt2", "gpt_neox", "qwen2", "gemma", "phi")


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
    assert {Path(name).suffix for name in contents(out)} == {".json", ".safetensors"}
    assert (out / "adapter").exists() == (method == "lora")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_adapter_on_the_base_model_is_the_merged_model(
    tiny_models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    from peft import PeftModel

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
    with TransformersEngine(start, device="cpu", dtype="float32") as engine:
        prompts, answers = zip(*(training_text(engine.format, pair) for pair in PAIRS), strict=True)
        total = sum(engine.logprobs(prompts, answers))
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
    start = tmp_path / "run" / "iteration-01" / "model"
    shutil.copytree(tiny_llama, start)
    out = tmp_path / "run" / "iteration-02" / "model"
    trainer(max_steps=1).fit(PAIRS, str(start), out)
    named = json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "../../../iteration-01/model"
    assert (out / "adapter" / named).resolve() == start.resolve()


def test_generation_ends_where_answers_were_trained_to_end(tiny_chats: dict[str, Path], tmp_path: Path) -> None:
    trainer(max_steps=1).fit(PAIRS, str(tiny_chats["gemma"]), tmp_path / "model")
    ends = json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.convert_ids_to_tokens(ends) == ["<eos>", "<end_of_turn>"]
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_chats["gemma"]).chat_template


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
    assert str(caught.value) == (
        f"can't write the model to {out} (Not a directory): free some space or mend the rights"
    )


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
        row = TrainingRow(PAIRS[0], [5, 6, 7], [8, 9, tokenizer.eos_token_id])
        batch = {
            "input_ids": torch.tensor([[*row.ids, 0]]),
            "labels": torch.tensor([[*labels, -100]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0]]),
        }
        with pytest.raises(TrainingError) as caught:
            check_labels(batch, [row], tokenizer, plain_format(tokenizer.eos_token))
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
        assert [message[:41] for message in caplog.messages] == ["training leaves out 1 of 6 pairs with mor"]

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child in /proc")
    def test_a_killed_child_is_an_error(self, tiny_llama: Path, tmp_path: Path) -> None:
        children = Path(f"/proc/{os.getpid()}/task")

        def kill() -> None:
            while not (found := " ".join(path.read_text() for path in children.glob("*/children")).split()):
                time.sleep(0.01)
            os.kill(int(found[-1]), signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(TrainingError) as caught:
            ChildTrainer(device="cpu").fit(PAIRS, str(tiny_llama), tmp_path / "model")
        assert str(caught.value) == (
            "the training process was killed by signal 9, as a system does when memory runs out; it last wrote: nothing"
        )

    def test_the_parent_needs_no_heavy_library(self) -> None:
        code = (
            "import sys; from isara.child_trainer import ChildTrainer; ChildTrainer(); "
            "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_an_answer_ends_with_the_end_of_the_format(tiny_chats: dict[str, Path]) -> None:
    for folder in tiny_chats.values():
        fmt = find_format(AutoTokenizer.from_pretrained(folder))
        assert training_text(fmt, PAIRS[0])[1].endswith(fmt.end)
        assert fmt.end.strip()
