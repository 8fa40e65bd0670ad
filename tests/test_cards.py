"""The hub must be able to read the cards, whatever text users and models put into them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from isara.records import QAPair
from isara.report.cards import data_card, escape, model_card

MODEL: dict[str, Any] = {
    "name": "Hyrule's shop",
    "base_model": "hyrule/link-1b",
    "iterations": 3,
    "best": 2,
    "seeds": 48,
    "accepted": 512,
    "dropped": {"run_on": 7, "novelty": 100, "max_answer_tokens": 7},
    "prompt": "Question: Who sells bombs?\nAnswer: Beedle.\n\nQuestion:",
    "training": {"method": "lora", "learning_rate": 2e-4, "num_train_epochs": 3.0},
    "evaluation": {0: {"bits_per_byte": 1.5}, 1: {"bits_per_byte": 1.25}, 2: {"bits_per_byte": 1.125, "with demos": 1}},
    "heldout": 12,
    "merge_difference": 0.00123,
    "model_license": "Apache-2.0",
    "seeds_license": "CC BY 4.0",
    "language": "en",
}
DATA: dict[str, Any] = {
    "name": "Hyrule's pairs",
    "base_model": "hyrule/link-1b",
    "seeds": 48,
    "accepted": [200, 312],
    "dropped": {"novelty": 100},
    "sampling": {"temperature": 0.5, "top_p": 0.95},
    "examples": [QAPair("Who sells bombs?", "Beedle does.")],
    "model_license": "Apache-2.0",
    "seeds_license": "CC0-1.0",
    "language": "en",
}


def front_matter(card: str) -> dict[str, Any]:
    meta: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return meta


def test_the_hub_reads_the_model_card() -> None:
    card = model_card(**MODEL)
    expected = {
        "base_model": "hyrule/link-1b",
        "base_model_relation": "finetune",
        "language": "en",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["isara", "self-alignment", "synthetic-data", "sft", "lora"],
    }
    assert front_matter(card) == expected
    assert yaml.safe_load(ModelCard(card).data.to_yaml()) == expected


def test_the_hub_reads_the_data_card() -> None:
    card = data_card(**DATA)
    expected = {
        "annotations_creators": ["machine-generated"],
        "language": "en",
        "language_creators": ["machine-generated"],
        "license": "cc0-1.0",
        "size_categories": ["n<1K"],
        "source_datasets": ["extended"],
        "tags": ["isara", "self-alignment", "synthetic"],
        "task_categories": ["text-generation"],
    }
    assert front_matter(card) == expected
    assert yaml.safe_load(DatasetCard(card).data.to_yaml()) == expected


def test_the_model_card_says_how_the_model_was_made() -> None:
    card = model_card(**MODEL)
    assert "# Hyrule's shop\n" in card
    assert "the model of iteration 2 of 3, trained on 512 generated and 48 seed pairs" in card
    assert "114 candidates were dropped:\n\n| reason | candidates |\n| --- | --- |\n| novelty | 100 |\n" in card
    assert r"| max\_answer\_tokens | 7 |" in card
    assert "```text\nQuestion: Who sells bombs?\nAnswer: Beedle.\n\nQuestion:\n```" in card
    assert r"| learning\_rate | 0.0002 |" in card
    assert "moved the logits of one pair by at most 0.0012." in card
    assert r"On 12 held-out pairs:" in card
    assert "| 0 (base model) | 1.5 |  |\n| 1 | 1.25 |  |\n| 2 (this model) | 1.125 | 1 |" in card
    assert "| base model | Apache-2.0 |\n| seed pairs | CC BY 4.0 |" in card


def test_the_data_card_says_how_the_pairs_were_made() -> None:
    card = data_card(**DATA)
    assert "512 question-answer pairs that `hyrule/link-1b`" in card
    assert "**All of it is synthetic.**" in card
    assert "| iteration | accepted pairs |\n| --- | --- |\n| 1 | 200 |\n| 2 | 312 |" in card
    assert "> **Question:** Who sells bombs?\n>\n> **Answer:** Beedle does." in card


def test_what_is_not_known_is_not_claimed() -> None:
    card = model_card(
        **MODEL
        | {"model_license": None, "seeds_license": None, "language": None, "merge_difference": None}
        | {"evaluation": {}, "dropped": {}}
    )
    assert front_matter(card)["license"] == "unknown"
    assert "language" not in front_matter(card)
    unknown = "unknown: ask before you publish"
    assert f"| base model | {unknown} |\n| seed pairs | {unknown} |" in card
    assert "The model was not evaluated: the run had no held-out pairs." in card
    assert "No candidate was dropped." in card
    assert "adapter" not in card


@pytest.mark.parametrize(
    ("license", "identifier"),
    [("MIT", "mit"), ("Our house rules, see LICENSE", "other"), (None, "unknown")],
)
def test_the_licence_is_one_that_the_hub_knows(license: str | None, identifier: str) -> None:
    assert front_matter(model_card(**MODEL | {"model_license": license}))["license"] == identifier


@pytest.mark.parametrize("folder", ["/home/zelda/link-1b", "zelda/models/link-1b", "./link-1b", "zelda/link-1b"])
def test_a_folder_is_shown_without_its_path(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zelda" / "link-1b").mkdir(parents=True)
    for card in (model_card(**MODEL | {"base_model": folder}), data_card(**DATA | {"base_model": folder})):
        assert "base_model" not in front_matter(card)
        assert "`link-1b`" in card
        assert "zelda" not in card


def test_text_cannot_break_out_of_the_card() -> None:
    evil = "x | y\n---\nlicense: mit\n# <script>alert(1)</script> [a](b) *`$"
    plain = r"x \| y --- license: mit \# &lt;script&gt;alert(1)&lt;/script&gt; \[a\](b) \*\`\$"
    assert escape(evil) == plain
    cards = [
        model_card(**MODEL | {"name": evil, "training": {"lora_target_modules": evil}, "dropped": {evil: 3}}),
        data_card(**DATA | {"name": evil, "examples": [QAPair(evil, evil)], "sampling": {evil: evil}}),
    ]
    for card in cards:
        assert front_matter(card)["license"] in ("apache-2.0", "cc0-1.0")
        assert evil not in card
        assert f"# {plain}\n" in card
    assert f"> **Question:** {plain}\n>\n> **Answer:** {plain}\n" in cards[1]


def test_a_prompt_with_a_code_block_stays_inside_its_own() -> None:
    prompt = "Question: How do I quote code?\nAnswer: ````\ncode\n````\n"
    assert f"`````text\n{prompt}\n`````\n" in model_card(**MODEL | {"prompt": prompt})


def test_yaml_in_a_language_is_data() -> None:
    assert front_matter(model_card(**MODEL | {"language": "no"}))["language"] == "no"


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (2_000_000, "n>1M")])
def test_the_size_is_a_category_of_the_hub(rows: int, size: str) -> None:
    assert front_matter(data_card(**DATA | {"accepted": [rows]}))["size_categories"] == [size]
