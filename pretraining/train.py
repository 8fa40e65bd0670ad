"""Train the model: one loop for a laptop's CPU and for CUDA, resumable at any checkpoint.

The learning rate warms up, stays, and falls to nothing over the last part of the run (warm-up, stable, decay). The
run's end is a number of steps or an hour on the clock, so one run on a busy machine gives a usable model on time.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pretraining.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Size:
    """The shape of the model. Width is a multiple of 64, the size of a head."""

    width: int = 256
    layers: int = 4
    context: int = 1024


@dataclass(frozen=True)
class Plan:
    """How long and how fast. Either `steps` or `minutes` ends the run."""

    steps: int = 0
    minutes: float = 0.0
    batch: int = 6  # rows a step
    lr: float = 3e-3
    warmup: int = 60  # steps
    decay: float = 0.3  # the last part of the run
    checkpoint_every: float = 4.0  # minutes
    seed: int = 0


@dataclass
class Progress:
    """What a checkpoint has to remember besides the tensors."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)


def make_model(size: Size, tokenizer: Any, seed: int) -> Any:
    """A Llama with tied embeddings and small initial weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.width * 11 // 4 // 32 * 32,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        num_key_value_heads=size.width // 64,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def weighted_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean cross-entropy in nats, weighed by token.

    Args:
        model: a causal LM that returns `logits`.
        rows: (batch, 2, length + 1), token ids and loss weights in hundredths.
    """
    tokens, weights = rows[:, 0], rows[:, 1, 1:].float()
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (loss * weights.flatten()).sum() / weights.sum().clamp(min=1.0)


def make_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def lr_factor(plan: Plan, progress: Progress) -> float:
    """The share of the full learning rate: by steps if the plan has them, by the clock otherwise."""
    done = progress.step / plan.steps if plan.steps else progress.seconds / (60 * plan.minutes)
    rising = (progress.step + 1) / max(1, plan.warmup)
    falling = (1.0 - done) / plan.decay
    return max(0.01, min(1.0, rising, falling))


def finished(plan: Plan, progress: Progress) -> bool:
    """Whether the run is at its end."""
    return progress.step >= plan.steps if plan.steps else progress.seconds >= 60 * plan.minutes


def shards(folder: Path) -> list[Path]:
    """The shards in the order of the curriculum."""
    return sorted(folder.glob("shard-[0-9]*[0-9].npy"))


def batches(folder: Path, size: int, step: int) -> Iterator[NDArray[np.uint16]]:
    """Batches from the given step on: shard by shard; after the last one the later two thirds come again."""
    files = shards(folder)
    if not files:
        raise SystemExit(
            f"expected shard-*.npy in {folder}, found none; run `python -m pretraining.pack --out {folder}`"
        )
    number, again = 0, len(files) // 3
    while True:
        rows = np.load(files[number], mmap_mode="r")
        whole = len(rows) // size
        for batch in range(min(step, whole), whole):
            yield np.array(rows[batch * size : (batch + 1) * size])
        step = max(0, step - whole)
        files = shards(folder)  # more may have been written since
        number = number + 1 if number + 1 < len(files) else again


def save(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: Progress) -> None:
    """Write a checkpoint aside and rename it, so that a crash leaves the last whole one."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    part = path.with_suffix(".part")
    torch.save({**state, "progress": asdict(progress)}, part)
    part.rename(path)


def resume(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
    """Load the checkpoint if there is one. `weights_only` keeps the file from running code."""
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def autocast(device: str) -> AbstractContextManager[None]:
    """Matrix products in bf16; weights, norms and the loss stay in fp32."""
    return torch.autocast(device, dtype=torch.bfloat16)


@torch.no_grad()
def validation_loss(model: nn.Module, folder: Path, device: str, rows: int = 24) -> float:
    """Weighted loss on the first held-out rows."""
    model.eval()
    packed = np.load(folder / "validation.npy", mmap_mode="r")[:rows]
    with autocast(device):
        losses = [
            weighted_loss(model, _to(np.array(chunk), device)).item()
            for chunk in np.array_split(packed, max(1, rows // 8))
        ]
    model.train()
    return float(np.mean(losses))


def _to(rows: NDArray[np.uint16], device: str) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64)).to(device)


def train(folder: Path, out: Path, size: Size, plan: Plan, compile_model: bool = False) -> Progress:
    """Train on the shards in `folder`; checkpoints, log and the final state go to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(folder)
    model = make_model(size, tokenizer, plan.seed).to(device)
    model.train()
    optimizers = make_optimizers(model, plan.lr)
    progress = resume(out / "checkpoint.pt", model, optimizers)
    (out / "plan.json").write_text(json.dumps({"size": asdict(size), "plan": asdict(plan)}, indent=1) + "\n")
    forward = torch.compile(model) if compile_model else model
    last = progress.seconds
    recent: list[float] = []
    for rows in batches(folder, plan.batch, progress.step):
        if finished(plan, progress):
            break
        began = time.monotonic()
        recent.append(_step(forward, optimizers, _to(rows, device), lr_factor(plan, progress) * plan.lr))
        progress.step += 1
        progress.tokens += rows[:, 0, 1:].size
        progress.seconds += time.monotonic() - began
        if progress.step % 20 == 0:
            _report(progress, recent)
        if progress.seconds - last > 60 * plan.checkpoint_every:
            progress.log.append(_entry(progress, validation_loss(model, folder, device)))
            print(f"validation {progress.log[-1]['validation']:.4f}", flush=True)
            save(out / "checkpoint.pt", model, optimizers, progress)
            last = progress.seconds
    progress.log.append(_entry(progress, validation_loss(model, folder, device)))
    save(out / "checkpoint.pt", model, optimizers, progress)
    return progress


def _step(model: Any, optimizers: Sequence[torch.optim.Optimizer], rows: Tensor, lr: float) -> float:
    with autocast(rows.device.type):
        loss = weighted_loss(model, rows)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_([p for o in optimizers for g in o.param_groups for p in g["params"]], 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _entry(progress: Progress, loss: float) -> dict[str, float]:
    return {"step": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds), "validation": loss}


def _report(progress: Progress, recent: list[float]) -> None:
    speed = progress.tokens / max(1.0, progress.seconds)
    print(
        f"step {progress.step}  {progress.tokens / 1e6:.2f}M tokens  {progress.seconds / 60:.1f} min  "
        f"loss {np.mean(recent):.4f}  {speed:.0f} tokens/s",
        flush=True,
    )
    recent.clear()


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on training, the model of a folder of packed rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="what pretraining.pack wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=Size.width)
    parser.add_argument("--layers", type=int, default=Size.layers)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument("--decay", type=float, default=Plan.decay)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    if not (args.steps or args.minutes):
        parser.error("expected --steps or --minutes, found neither: say how long to train")
    torch.set_num_threads(args.threads)
    plan = Plan(steps=args.steps, minutes=args.minutes, batch=args.batch, lr=args.lr, decay=args.decay)
    progress = train(args.rows, args.out, Size(args.width, args.layers), plan, args.compile)
    print(json.dumps(progress.log[-1]))


if __name__ == "__main__":
    main()
