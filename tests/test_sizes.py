"""The rule by size: which settings a model gets where the config says null, and that a run records them."""

import json
import math
import os
import shutil
import struct
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from isara import build_parts, load_config
from isara.build import settled
from isara.config import sized
from isara.errors import ModelError
from isara.folder import RunFolder
from isara.models import embedded_model
from isara.sizes import RULE, count_weights, folder_size, settings_for, shown_count
from isara.stages import claim

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize(
    ("weights", "method", "expected"),
    [
        (4_260_000, None, ("full", 5e-4, 4.0)),
        (4_260_000, "lora", ("lora", 1e-3, 3.0)),
        (19_999_999, None, ("full", 5e-4, 4.0)),
        (20_000_000, None, ("lora", 1e-3, 6.0)),
        (134_515_008, "full", ("full", 5e-5, 3.0)),
        (1_000_000_000, None, ("lora", 2e-4, 3.0)),
        (8_000_000_000, None, ("lora", 1e-4, 3.0)),
        (70_000_000_000, "full", ("full", 1e-5, 3.0)),
        (None, None, ("lora", 2e-4, 3.0)),
    ],
)
def test_the_rule_by_size_and_method(
    weights: int | None, method: str | None, expected: tuple[str, float, float]
) -> None:
    found = settings_for(weights, method)  # type: ignore[arg-type]
    assert (found.method, found.learning_rate, found.num_train_epochs) == expected


def test_every_size_has_both_methods_and_rates_never_rise_with_the_size() -> None:
    for method in ("lora", "full"):
        rows = [row for row in RULE if row.method == method]
        assert {row.below for row in rows} == {row.below for row in RULE}
        assert [row.learning_rate for row in rows] == sorted((row.learning_rate for row in rows), reverse=True)


def test_a_recipe_means_the_same_for_the_embedded_model_and_no_rate_of_its_for_a_larger_one() -> None:
    """The values with which the results of both recipes were made."""
    model = str(embedded_model())
    expected = {"safety": ("lora", 1e-3, 3.0), "shop": ("full", 5e-4, 6.0)}  # the shop's epochs are its own
    for recipe, values in expected.items():
        config = load_config(RECIPES / recipe)
        train = settled(config, model)[0].train
        assert (train.method, train.learning_rate, train.num_train_epochs) == values
        larger = sized(config, 268_098_176)[0].train
        assert (larger.method, larger.learning_rate, larger.num_train_epochs) == ("lora", 1e-3, 6.0)


def test_what_is_written_counts_and_only_nulls_follow_the_size() -> None:
    config = load_config(None, ["train.learning_rate=1e-4", "answers.temperature=0"])
    found, by_size = sized(config, 135_000_000)
    assert (found.train.learning_rate, found.answers.temperature) == (1e-4, 0.0)
    assert by_size == {
        **{"train.method": "lora", "train.num_train_epochs": 6.0, "questions.temperature": 0.7},
        **{"questions.from": "reader", "answers.from": "reader"},
    }
    assert sized(found, 4_000_000) == (found, {})  # a run's own config follows no later rule


def test_a_run_records_the_values_and_its_log_says_them(tiny_llama: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"question": f"Who guards gate {n}?", "answer": f"Gerudo number {n} does."} for n in range(12)]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["retrieve.embedder=lexical", "heldout=0"]
    parts = build_parts(load_config(None, settings, model=str(tiny_llama), seeds=str(seeds), out=str(tmp_path / "run")))
    with RunFolder(parts.out) as folder:
        claim(folder, parts)
    recorded = yaml.safe_load((tmp_path / "run/isara.yaml").read_text())
    assert (recorded["train"]["method"], recorded["train"]["learning_rate"]) == ("full", 5e-4)
    assert recorded["questions"]["temperature"] == 1.0
    count = shown_count(folder_size(tiny_llama).weights)
    line = (
        f"settings of a model of {count} weights: train.method full, train.learning_rate 0.0005, "
        "train.num_train_epochs 4, questions.temperature 1, questions.from last, "
        "answers.temperature 0.5, answers.from last"
    )
    assert list(parts.notes) == [line]
    assert line in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize(("weights", "warned"), [(4e6, False), (135e6, True), (268e6, True), (1.5e9, False)])
def test_a_run_of_a_size_that_seldom_gained_says_so(
    weights: float, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isara.build.defaults.count_weights", lambda model: int(weights))
    _, notes = settled(load_config(None, ["iterations=1"]), "any")
    assert [("in some domains and lost in others" in note) for note in notes] == [False, *([True] if warned else [])]
    _, notes = settled(load_config(None, ["iterations=0"]), "any")
    assert len(notes) == 1


def test_weights_are_counted_without_loading_them(tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert count_weights(str(tiny_llama)) == sum(weight.numel() for weight in model.parameters())


def test_what_is_no_model_has_no_count(tmp_path: Path) -> None:
    assert count_weights("zelda/link-1b") is None  # not in the cache, and the hub is not asked
    assert count_weights(str(tmp_path)) is None


def test_a_torn_file_of_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 400) + b'{"weight": {"sha')
    with pytest.raises(ModelError) as failed:
        count_weights(str(tmp_path))
    assert str(failed.value) == (
        f"expected weights in safetensors, found a file that is torn or none at {tmp_path / 'model.safetensors'}: copy "
        "or download it again"
    )


def test_weights_that_end_early_are_torn(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path))
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "models/0123-v3"))
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(ModelError) as failed:
        count_weights(str(folder))
    assert str(failed.value) == (
        f"expected weights in safetensors, found a file that is torn or none at {weights}: remove the folder {folder}, "
        "and it is made again"
    )


def test_the_files_that_are_loaded_are_counted(tiny_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    weights, whole = folder / "model.safetensors", folder_size(tiny_llama)
    shutil.copy(weights, folder / "consolidated.safetensors")  # the same in another form, as Mistral publishes it
    assert folder_size(folder).weights == whole.weights
    (folder / "old.safetensors.bak").symlink_to("gone")  # what leads nowhere has no size
    assert folder_size(folder).weights == whole.weights
    (folder / "shards").mkdir()
    weights.rename(folder / "shards/one.safetensors")
    names = load_file(folder / "shards/one.safetensors")
    index = {"weight_map": dict.fromkeys(names, "shards/one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = folder_size(folder)
    assert (found.weights, found.linear) == (whole.weights, whole.linear)


@pytest.mark.parametrize(("count", "said"), [(4_260_000, "4.26 M"), (134_515_008, "135 M"), (1_540_000_000, "1.5 B")])
def test_counts_are_said_in_few_digits(count: int, said: str) -> None:
    assert shown_count(count) == said


def test_the_table_of_the_docs_is_the_rule() -> None:
    page = (Path(__file__).parents[1] / "docs/look.md").read_text()
    for row in RULE:
        rate = f"{row.learning_rate:.0e}".replace("e-0", "e-")
        values = f"{row.num_train_epochs:g} | {row.question_temperature:g} | {row.answer_temperature:g}"
        values += f" | {row.asks_and_answers}"
        weights = 10**12 if math.isinf(row.below) else int(row.below) - 1
        first = settings_for(weights) is row
        assert (f"| {row.method} | {rate} | {values} |" if first else f"{rate} ({row.method}, ") in page


@pytest.mark.parametrize(
    ("settings", "who"),
    [
        ([], ("reader", "reader")),
        (["answers.demos=0"], ("last", "last")),
        (["answers.retrieve=none"], ("last", "last")),
        (["answers.from=last"], ("last", "last")),
        (["questions.from=base"], ("base", "reader")),
        (["questions.from=base", "answers.from=last"], ("base", "last")),
    ],
)
def test_a_reader_has_something_to_read_and_asks_only_where_it_answers(
    settings: list[str], who: tuple[str, str]
) -> None:
    config, _ = sized(load_config(None, settings), 135_000_000)
    assert (config.questions.from_, config.answers.from_) == who


def test_a_reader_that_is_to_ask_answers_in_any_size() -> None:
    config, _ = sized(load_config(None, ["questions.from=reader"]), 4_000_000)
    assert config.answers.from_ == "reader"
