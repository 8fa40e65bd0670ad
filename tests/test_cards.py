"""The hub must be able to read the cards, whatever text users and models put into them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from isara.config import load_config
from isara.records import SEEDS_ONLY, Rejection
from isara.report.cards import data_card, escape, model_card, size_category, training_settings
from isara.report.facts import Run
from tests.test_report import PARTS, made, make_run

FIRST = [
    made("Who sells bombs?", "Beedle does."),
    made("Who sells shields?", "", Rejection("run_on", "Answer:", "")),
    made("Who sells milk?", "Malon, I think.", Rejection("novelty", 0.8, 0.7)),
    made("Who sells masks?", "He who smiles.", Rejection("novelty", 0.9, 0.7)),
]
SECOND = [made("Who sells maps?", "Tingle.", t=2), made("Is it far?", "No.", Rejection("max_answer_tokens", 9, 8), t=2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("cards") / "Hyrule's shop"
    return make_run(path, "licence=CC BY 4.0", batches=(FIRST, SECOND))


def with_parts(run: Run, **parts: Any) -> Run:
    return replace(run, parts={**run.parts, **parts})


def with_settings(run: Run, *settings: str, **values: Any) -> Run:
    return replace(run, config=load_config(None, settings, **{"model": "hyrule/link-1b", **values}))


def front_matter(card: str) -> dict[str, Any]:
    meta: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return meta


def test_the_hub_reads_the_model_card(run: Run) -> None:
    card = model_card(run, 2, "Apache-2.0")
    expected = {
        "base_model": "hyrule/link-1b",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["isara", "self-alignment", "synthetic-data", "sft", "lora"],
    }
    assert front_matter(card) == expected
    assert yaml.safe_load(ModelCard(card).data.to_yaml()) == expected


def test_the_hub_reads_the_data_card(run: Run) -> None:
    card = data_card(with_settings(run, licence="CC0-1.0"), 2, "Apache-2.0")
    expected = {
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "license": "cc0-1.0",
        "size_categories": ["n<1K"],
        "source_datasets": ["extended"],
        "tags": ["isara", "self-alignment", "synthetic"],
        "task_categories": ["text-generation"],
    }
    assert front_matter(card) == expected
    assert yaml.safe_load(DatasetCard(card).data.to_yaml()) == expected


def test_the_model_card_says_how_the_model_was_made(run: Run) -> None:
    card = model_card(run, 2, "Apache-2.0")
    assert "# Hyrule's shop\n" in card
    assert "the model of iteration 2 of 2, trained on 2 generated and 2 seed pairs with loss on the answers" in card
    assert "4 candidates were dropped:\n\n| reason | candidates |\n| --- | --- |\n| novelty | 2 |\n" in card
    assert r"| max\_answer\_tokens | 1 |" in card
    assert (
        "One of them:\n\n```text\nQuestion: Who sells bombs in Hyrule?\nAnswer: Beedle does, from his ship.\n" in card
    )
    assert "moved the logits of one pair by at most 0.0012." in card
    assert "On 2 held-out pairs, ± standard error:" in card
    assert "| 0 (base model) | 1.5 ± 0.062 |\n| 1 | 1.25 ± 0.062 |\n| 2 (this model) | 1.125 ± 0.062 |" in card
    assert "Fewer than 20 held-out pairs can't tell such models apart." in card
    assert "| base model | Apache-2.0 |\n| seed pairs | CC BY 4.0 |" in card


def test_the_model_card_says_what_training_really_went_by(run: Run) -> None:
    card = model_card(run, 2)
    for row in (
        r"| learning\_rate | 0.0002 |",
        r"| num\_train\_epochs | 3.0 |",
        r"| lora\_r | 16 |",
        "| steps | 6 |",
        "| rows of a forward pass at the end | 8 |",
    ):
        assert row in card
    assert "None" not in card and r"max\_steps" not in card
    full = {"trainer": "sft", "method": "full", "max_steps": 9, "num_train_epochs": 3.0, "lora_r": 16}
    assert training_settings(with_parts(run, trainer=full)) == {"trainer": "sft", "method": "full", "max_steps": 9}
    own = {"part": "my_parts.Coach", "with": {"rate": 0.5}}
    assert training_settings(with_parts(run, trainer=own)) == {"part": "my_parts.Coach", "with.rate": 0.5}
    assert training_settings(with_parts(run, trainer="my coach")) == {}


def test_the_model_card_says_how_to_ask(run: Run) -> None:
    card = model_card(run, 2)
    use = card[card.index("## How to use") : card.index("## Evaluation")]
    assert "ask it in the same:\n\n```text\nQuestion: {question}\nAnswer:\n```\n\n" in use
    assert "not even a space; it is tokenised with `add_special_tokens=True`. An answer ends before" in use
    assert r"before `\nQuestion:` or `</s>`." in use
    assert (
        r"ask(messages, max_new_tokens=256, return_full_text=False, stop_strings=['\nQuestion:'], tokenizer=ask" in use
    )
    assert r"print(answer.partition('\nQuestion:')[0].strip())" in use
    assert "It was trained without system messages and tools: leave them out." in use


def test_without_a_template_there_is_the_format_alone(run: Run) -> None:
    training = run.iterations[1].training
    assert training is not None
    bare = replace(run.iterations[1], training=replace(training, has_template=False))
    card = model_card(replace(run, iterations=(run.iterations[0], bare)), 2)
    assert "Question: {question}\nAnswer:\n" in card and "pipeline(" not in card
    own = model_card(with_parts(run, **{"prompt format": {"part": "my_parts.Renderer"}}), 2)
    assert "Ask it in the prompt format that the run was given." in own
    pieces = {**PARTS["prompt format"]["format"], "name": "chat", "start": "<user>", "adds_special_tokens": False}
    chat = model_card(with_parts(run, **{"prompt format": {"format": pieces}}), 2)
    assert "<user> {question}\nAnswer:" in chat and "`add_special_tokens=False`" in chat and "pipeline(" in chat


def test_what_a_model_was_trained_on_depends_on_the_settings(run: Run) -> None:
    newest = with_settings(run, "train.data=newest")
    assert "trained on 1 generated and 2 seed pairs" in model_card(newest, 2)
    assert "| iteration | accepted pairs |\n| --- | --- |\n| 2 | 1 |\n\n1 candidates" in data_card(newest, 2)
    generated = with_settings(run, "train.data=generated", "train.start=last")
    card = model_card(generated, 2)
    assert "trained on 2 generated and 0 seed pairs" in card
    assert "on the answers alone, starting from the model of iteration 1 (" in card


def test_who_wrote_the_pairs_is_who_did(run: Run) -> None:
    assert "The generated pairs were written by the model itself; no human" in model_card(run, 2)
    reads = with_settings(run, "questions.from=reader", "answers.from=reader")
    reader = "the base model tuned on the seed pairs to read demonstrations"
    assert f"The generated pairs were written by {reader}; no human" in model_card(reads, 2)
    mixed = with_settings(run, "questions.from=base", "answers.from=reader")
    told = f"The generated questions were written by the base model, their answers by {reader}; no human"
    assert told in model_card(mixed, 2)


def test_one_iteration_was_not_repeated(run: Run) -> None:
    assert "that passed the filters, and this was repeated." in model_card(run, 2)
    assert "that passed the filters." in model_card(run, 1)


def test_a_seeds_only_model_is_not_said_to_be_better(run: Run) -> None:
    alone = replace(run.iterations[0], number=SEEDS_ONLY)
    card = model_card(replace(run, seeds_only=alone, exported=SEEDS_ONLY), SEEDS_ONLY)
    assert "which makes more pairs from them and shows no iteration to be better (see below)." in card
    assert "did better" not in card
    shown = escape("num_train_epochs")
    assert shown not in card and shown in model_card(run, 1), "its steps are those of an iteration"


def test_a_base_model_that_is_exported_is_called_that(tmp_path: Path) -> None:
    card = model_card(make_run(tmp_path / "run", "iterations=0", batches=()), 0)
    assert "This is `hyrule/link-1b`, unchanged: the run made no iteration." in card
    assert front_matter(card)["tags"] == ["isara"] and "base_model_relation" not in front_matter(card)
    assert "| 0 (base model) (this model) | 1.5 ± 0.062 |" in card
    assert "generated pairs were written" not in card and "Training:" not in card and "pipeline(" not in card


def test_the_data_card_says_how_the_pairs_were_made(run: Run) -> None:
    card = data_card(with_settings(run, "answers.temperature=0.5"), 2)
    assert "2 question-answer pairs that `hyrule/link-1b`" in card
    assert "**All of it is synthetic.**" in card
    assert "| iteration | accepted pairs |\n| --- | --- |\n| 1 | 1 |\n| 2 | 1 |" in card
    assert "| answers.temperature | 0.5 |" in card and "| filters.novelty | 0.7 |" in card
    assert "> **Question:** Who sells bombs?\n>\n> **Answer:** Beedle does." in card


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    run = with_settings(make_run(tmp_path / "run", batches=([FIRST[0]],), bits=(None, None)))
    training = run.iterations[0].training
    assert training is not None
    run = replace(run, iterations=(replace(run.iterations[0], training=replace(training, merge_difference=None)),))
    card = model_card(run, 1)
    assert front_matter(card)["license"] == "unknown"
    unknown = "unknown: ask before you publish"
    assert f"| base model | {unknown} |\n| seed pairs | {unknown} |" in card
    assert "The model was not evaluated: the run had no held-out pairs." in card
    assert "No candidate was dropped." in card
    assert "adapter" not in card


@pytest.mark.parametrize(
    ("license", "identifier"),
    [("MIT", "mit"), ("Our house rules, see LICENSE", "other"), (None, "unknown")],
)
def test_the_licence_is_one_that_the_hub_knows(run: Run, license: str | None, identifier: str) -> None:
    assert front_matter(model_card(run, 2, license))["license"] == identifier


@pytest.mark.parametrize("folder", ["/home/zelda/link-1b", "zelda/models/link-1b", "./link-1b", "zelda/link-1b"])
def test_a_folder_is_shown_without_its_path(
    run: Run, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zelda" / "link-1b").mkdir(parents=True)
    local = replace(run, config=run.config.model_copy(update={"model": folder}))
    for card in (model_card(local, 2), data_card(local, 2)):
        assert "base_model" not in front_matter(card)
        assert "`link-1b`" in card
        assert "zelda" not in card


def test_no_card_holds_a_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "minilm").mkdir()
    (tmp_path / "bench.txt").write_text("")
    settings = {
        "filters": {"contamination": [str(tmp_path / "bench.txt")]},
        "retrieve": {"embedder": str(tmp_path / "minilm")},
    }
    cards = [data_card(with_settings(run, **settings), 2), model_card(run, 2)]
    assert "| retrieve.embedder | minilm |" in cards[0]
    for card in cards:
        assert str(tmp_path) not in card and str(run.path.parent) not in card


def test_the_embedded_model_is_called_by_its_name(run: Run) -> None:
    assert "`the embedded model of ISARA`, aligned to" in model_card(with_settings(run, model="embedded"), 2)


EVIL = "x | y\n---\nlicense: mit\n# <script>alert(1)<script> [a](b) *`$"
PLAIN = r"x \| y --- license: mit \# &lt;script&gt;alert(1)&lt;script&gt; \[a\](b) \*\`\$"


def test_text_cannot_break_out_of_the_card(run: Run, tmp_path: Path) -> None:
    assert escape(EVIL) == PLAIN
    evil = [made(EVIL, EVIL), made("Why?", "So.", Rejection(EVIL, 1, 2))]
    wild = make_run(tmp_path / "run", "licence=MIT", batches=(evil,), trainer={EVIL: EVIL})
    wild = replace(wild, path=Path(EVIL))
    cards = [model_card(wild, 1, "Apache-2.0"), data_card(wild, 1, "Apache-2.0")]
    for card in cards:
        assert front_matter(card)["license"] in ("apache-2.0", "mit")
        assert EVIL not in card
        assert f"{PLAIN}\n" in card and f"| {PLAIN} | 1 |" in card
    assert f"| {PLAIN} | {PLAIN} |" in cards[0]
    assert f"> **Question:** {PLAIN}\n>\n> **Answer:** {PLAIN}\n" in cards[1]


def test_a_prompt_with_a_code_block_stays_inside_its_own(run: Run) -> None:
    pieces = {**PARTS["prompt format"]["format"], "start": "Question: How do I quote code?\nAnswer: ````\ncode\n````\n"}
    card = model_card(with_parts(run, **{"prompt format": {"format": pieces}}), 2)
    assert "`````text\nQuestion: How do I quote code?\nAnswer: ````\ncode\n````\n {question}\nAnswer:\n`````\n" in card


@pytest.mark.parametrize(("rows", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (2_000_000, "n>1M")])
def test_the_size_is_a_category_of_the_hub(rows: int, size: str) -> None:
    assert size_category(rows) == size
