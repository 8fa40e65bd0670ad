"""Steps a second and peak memory of a LoRA training: TRL's defaults against ours, each run in a process of its own.

python benchmarks/training.py smollm2-135m --pairs recipes/safety/seeds.jsonl --steps 10 --repeats 3

Both train the same pairs with the same adapter, rate, batch size and seed. Seconds are the processor's, of one thread:
a machine that does other work beside moves them little. The first step is left out.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ADAPTER = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}


def _ours(model: str, pairs: str, steps: int, marks: list[tuple[float, float]]) -> None:
    from isara import read_pairs
    from isara.training.sft import SupervisedTrainer

    def on_step(step: int, total: int, loss: float) -> None:
        marks.append((time.process_time(), loss))

    trainer = SupervisedTrainer(max_steps=steps, device="cpu", on_step=on_step)
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(read_pairs(pairs), model, Path(folder) / "model")


def _plain(model: str, pairs: str, steps: int, marks: list[tuple[float, float]]) -> None:
    """What TRL does by itself, on the same rows."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from isara import open_renderer, read_pairs
    from isara.models import find_model

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if "loss" in logs:
                marks.append((time.process_time(), logs["loss"]))

    folder = find_model(model)
    renderer = open_renderer(folder)
    rows = [row for pair in read_pairs(pairs) for row in renderer.training_rows(pair)]
    data = [
        {
            "input_ids": list(row.ids),
            "labels": [-100] * len(row.prompt) + list(row.answer),
            "completion_mask": [0] * len(row.prompt) + [1] * len(row.answer),
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            use_cpu=True,
            max_steps=steps,
            learning_rate=2e-4,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            seed=0,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
            args=config,
            train_dataset=Dataset.from_list(data),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **ADAPTER),
            callbacks=[Watch()],
        ).train()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--pairs", default="recipes/safety/seeds.jsonl")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "plain"])
    options = parser.parse_args()
    if options.only:
        marks: list[tuple[float, float]] = []
        {"ours": _ours, "plain": _plain}[options.only](options.model, options.pairs, options.steps, marks)
        seconds = (marks[-1][0] - marks[0][0]) / (len(marks) - 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "gigabytes": peak, "losses": [loss for _, loss in marks]}))
        return
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for repeat in range(options.repeats):
        for kind in sorted(found, reverse=bool(repeat % 2)):  # the order alternates
            command = [sys.executable, __file__, options.model, "--only", kind, "--pairs", options.pairs]
            command += ["--steps", str(options.steps)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
            found[kind].append(json.loads(said.splitlines()[-1]))
            print(kind, found[kind][-1], flush=True)
    median = {kind: statistics.median(run["seconds"] for run in runs) for kind, runs in found.items()}
    print(json.dumps({"model": options.model, "ratio": median["plain"] / median["ours"], "seconds": median}))


if __name__ == "__main__":
    _main()
