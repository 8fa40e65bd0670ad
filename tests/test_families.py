"""The same command on every family of models, base and chat, without a change of code."""

import json
from pathlib import Path
from typing import Any

import pytest

from isara.build import build_parts
from isara.config import load_config
from isara.folder import stage_folder
from isara.loop import run
from tests.test_cli import FAST

FAMILIES = ["llama", "opt", "gpt2", "gpt_neox", "qwen2", "gemma", "phi"]
SEEDS = [(f"Where does the number {n} live?", f"It lives in house {n} of this street.") for n in range(6)]


def align(model: Path, out: Path) -> Path:
    seeds = out.parent / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in SEEDS))
    config = load_config(None, FAST, model=str(model), seeds=str(seeds), out=str(out), heldout=0.3)
    return run(build_parts(config)).final


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_model_of_each_family(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = align(tiny_models[family], tmp_path / "run")
    model: Any = AutoModelForCausalLM.from_pretrained(final)
    ids = AutoTokenizer.from_pretrained(final)("Question: Where does it live?\nAnswer:", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] >= ids.shape[1]


@pytest.mark.parametrize("name", ["chatml", "llama2", "gemma"])
def test_a_chat_model_gets_turns_and_no_instruction(name: str, tiny_chats: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    final = align(tiny_chats[name], tmp_path / "run")
    assert AutoTokenizer.from_pretrained(final).chat_template
    lines = (stage_folder(tmp_path / "run", 1, "generate") / "candidates.jsonl").read_text().splitlines()
    draws = [json.loads(line)["question_draw"] for line in lines]
    assert draws
    for draw in draws:
        assert "You are" not in draw["prompt"] and "Question:" not in draw["prompt"]
        assert draw["prompt"].count("house") == len(draw["demo_ids"])
