"""What makes a training fast leaves it the same training: losses and gradients beside the plain path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, MixtralConfig, MixtralForCausalLM
from trl.trainer.sft_trainer import SFTTrainer

from isara.records import QAPair
from isara.training import compute, sft, trl
from isara.training.compute import LARGE, compute_dtype
from isara.training.loss import labelled_logits, token_logprobs
from isara.training.products import multiply_in_bfloat16
from isara.training.sft import SupervisedTrainer

PAIRS = [
    QAPair("Who guards the Triforce of Courage?", "Link does, and he never says a word about it."),
    QAPair("What is the capital of Hyrule?", "Hyrule Castle Town lies around the castle."),
    QAPair("Why is the sky blue?", "Air scatters blue light more than red light."),
    QAPair("How do I bake bread?", "Use flour, water, salt and patience; 0.5 l of water for 800 g of flour."),
]


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Two padded rows and their labels."""
    ids = torch.arange(5, 45).reshape(2, 20)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    labels = torch.full_like(ids, -100)
    labels[0, 12:], labels[1, 7:15] = ids[0, 12:], ids[1, 7:15]
    return {"input_ids": ids, "attention_mask": mask}, labels


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}
    model.zero_grad()
    return found


def labelled_loss(model: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> Any:
    logits, _ = labelled_logits(model, inputs, labels)
    wanted = labels[:, 1:][labels[:, 1:] != -100]
    assert logits.shape[0] == len(wanted)
    return -token_logprobs(logits, wanted[:, None]).mean()


def capped() -> Any:
    """A model that scales its logits after the head."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = Gemma2Config(
        vocab_size=99, head_dim=16, num_key_value_heads=1, final_logit_softcapping=2.0, initializer_range=0.5, **sizes
    )
    return Gemma2ForCausalLM(config)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gpt_neox", "qwen2", "gemma", "phi", "capped"])
def test_loss_and_gradients_of_labelled_tokens_are_those_of_all(tiny_models: dict[str, Path], family: str) -> None:
    torch.manual_seed(0)
    model = capped() if family == "capped" else AutoModelForCausalLM.from_pretrained(tiny_models[family])
    model.eval()  # without dropout
    inputs, labels = batch()
    plain = model(**inputs, labels=labels).loss
    plain.backward()
    wanted = gradients(model)
    loss = labelled_loss(model, inputs, labels)
    loss.backward()
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    found = gradients(model)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4)
    assert model(**inputs).logits.shape[:2] == labels.shape, "the model is as it was"


def test_several_tokens_a_position_have_the_gradients_of_a_log_softmax() -> None:
    torch.manual_seed(0)
    logits, index = torch.randn(150, 40), torch.randint(0, 40, (150, 3))
    weights = torch.randn(150, 3)
    found = []
    for logprobs in (token_logprobs, lambda logits, index: logits.log_softmax(-1).gather(-1, index)):
        leaf = logits.clone().requires_grad_()
        total: Any = (logprobs(leaf * 1.0, index) * weights).sum()
        total.backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found)


def test_a_model_that_is_sure_has_no_gradients_that_are_nearly_nothing() -> None:
    torch.manual_seed(0)
    logits, index = 60 * torch.randn(100, 500), torch.randint(0, 500, (100, 1))
    found: list[torch.Tensor] = []
    for logprobs in (token_logprobs, lambda logits, index: logits.log_softmax(-1).gather(-1, index)):
        leaf = logits.clone().requires_grad_()
        (1e-3 * logprobs(leaf * 1.0, index)).sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    ours, plain = found
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-20)
    tiny = torch.finfo(torch.float32).tiny
    assert bool(((plain != 0) & (plain.abs() < tiny)).any())
    assert not bool(((ours != 0) & (ours.abs() < tiny)).any()), "products with such numbers are slow"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, float]]]:
    """What each step of a training logs."""
    seen: list[dict[str, float]] = []
    watch = sft._Training._watch

    def see(self: Any, step: int, steps: int, logged: dict[str, float]) -> None:
        seen.append(logged)
        watch(self, step, steps, logged)

    monkeypatch.setattr(sft._Training, "_watch", see)
    yield seen


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"packing": True}, {"method": "full"}])
def test_a_training_has_the_losses_and_gradient_norms_of_trls_own(
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: list[dict[str, float]],
    options: dict[str, Any],
) -> None:
    arguments: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-2} | options
    for name in ("ours", "theirs"):
        SupervisedTrainer(device="cpu", **arguments).fit(PAIRS, str(tiny_llama), tmp_path / name)
        monkeypatch.setattr(trl, "_trainer_class", lambda: SFTTrainer)
    ours, theirs = figures[:3], figures[3:]
    assert len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-3)
    assert ours[0]["loss"] != ours[2]["loss"]


def test_a_mixture_of_experts_keeps_the_loss_of_its_router(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[dict[str, float]]
) -> None:
    start = tmp_path / "start"
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_local_experts": 4}
    config = MixtralConfig(
        vocab_size=519, num_attention_heads=2, num_key_value_heads=1, router_aux_loss_coef=0.5, **sizes
    )
    MixtralForCausalLM(config).save_pretrained(start)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (start / name).write_bytes((tiny_llama / name).read_bytes())
    options: dict[str, Any] = {"method": "full", "max_steps": 2, "gradient_accumulation_steps": 2}
    for name in ("ours", "theirs"):
        SupervisedTrainer(device="cpu", per_device_train_batch_size=2, **options).fit(
            PAIRS, str(start), tmp_path / name
        )
        monkeypatch.setattr(trl, "_trainer_class", lambda: SFTTrainer)
    assert figures[0] == pytest.approx(figures[2], rel=1e-3)
    assert figures[1] == pytest.approx(figures[3], rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma", "phi"])
def test_products_in_bf16_move_the_loss_by_their_rounding_alone(tiny_models: dict[str, Path], family: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_models[family]).bfloat16()
    model.float()  # weights that bf16 holds exactly
    inputs, labels = batch()
    plain = labelled_loss(model, inputs, labels)
    plain.backward()
    wanted = gradients(model)
    undo = multiply_in_bfloat16(model)
    rounded = labelled_loss(model, inputs, labels)
    rounded.backward()
    assert rounded != plain
    torch.testing.assert_close(rounded, plain, atol=0.0, rtol=2e-2)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        assert (gradient - wanted[name]).norm() < 0.1 * wanted[name].norm() + 1e-6, name
    undo()
    torch.testing.assert_close(labelled_loss(model, inputs, labels), plain)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_in_bf16_learns_and_leaves_the_checkpoints_dtype(
    tiny_llama: Path, tmp_path: Path, method: str
) -> None:
    start = tmp_path / "start"
    AutoModelForCausalLM.from_pretrained(tiny_llama).bfloat16().save_pretrained(start)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (start / name).write_bytes((tiny_llama / name).read_bytes())
    losses = {}
    options: dict[str, Any] = {"method": method, "learning_rate": 1e-2, "max_steps": 8}
    for dtype in ("float32", "bfloat16"):
        trainer = SupervisedTrainer(device="cpu", dtype=dtype, per_device_train_batch_size=4, **options)
        losses[dtype] = trainer.fit(PAIRS, str(start), tmp_path / dtype).last_loss
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16", dtype="auto")
    assert exported.dtype == torch.bfloat16


def test_bf16_is_taken_for_large_models_where_the_processor_multiplies_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, large in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(compute, "multiplies_in_bfloat16", lambda able=able: able)
        assert compute_dtype("auto", "cpu", LARGE) == large
        assert compute_dtype("auto", "cpu", LARGE - 1) == "float32"
        assert compute_dtype("float32", "cpu", LARGE) == "float32"
        assert compute_dtype("auto", "mps", LARGE) == "float32"
        key = SupervisedTrainer(device="cpu").key()
        assert (key["device"], key["dtype"]) == ("cpu", large), "a shelf lends to the same arithmetic alone"
