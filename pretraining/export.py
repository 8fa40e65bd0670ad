"""Export a checkpoint as a folder that transformers loads: bf16 safetensors, tokenizer, generation defaults."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from pretraining.tokenizer import load_tokenizer
from pretraining.train import Size, make_model


def average(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the checkpoints' weights: what a decayed learning rate would give, roughly, before it has decayed."""
    states = [torch.load(path, map_location="cpu", weights_only=True)["model"] for path in checkpoints]
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}


def export(checkpoints: Sequence[Path], rows: Path, out: Path) -> None:
    """Write the model of the checkpoints, which stand beside their `plan.json`, and the tokenizer of `rows`."""
    plan = json.loads((checkpoints[0].parent / "plan.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(rows)
    model = make_model(Size(**plan["size"]), tokenizer, seed=0)
    model.load_state_dict(average(checkpoints))
    tokenizer.model_max_length = model.config.max_position_embeddings
    generation: Any = GenerationConfig  # transformers' constructors are not typed
    model.generation_config = generation(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    _name_portably(out / "tokenizer_config.json")


def _name_portably(path: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it, and leave out how it was loaded here.

    What the model takes is written out: transformers 4 would add `token_type_ids`, which `generate` refuses.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in ("backend", "is_local", "local_files_only")}
    kept |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Export one checkpoint, or the average of several of the same run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--rows", type=Path, required=True, help="the folder with the tokenizer")
    parser.add_argument("--out", type=Path, default=Path("src/isara/embedded/model"))
    args = parser.parse_args(argv)
    export(args.checkpoints, args.rows, args.out)


if __name__ == "__main__":
    main()
