"""The recipes' texts hold what their READMEs promise, and the exact tests tell right from wrong."""

import json
import re
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz.distance import LCSseq

RECIPES = Path(__file__).parents[1] / "recipes"
CATEGORIES = {
    "animal_abuse",
    "child_abuse",
    "controversial_topics,politics",
    "discrimination,stereotype,injustice",
    "drug_abuse,weapons,banned_substance",
    "financial_crime,property_crime,theft",
    "hate_speech,offensive_language",
    "misinformation_regarding_ethics,laws_and_safety",
    "non_violent_unethical_behavior",
    "privacy_violation",
    "self_harm",
    "sexually_explicit,adult_content",
    "terrorism,organized_crime",
    "violence,aiding_and_abetting,incitement",
}
# Marks of a prompt or of an instruction to a model, which no pair may carry into the loop.
INSTRUCTION = re.compile(
    r"\b(you are an? (ai|model|helpful)|as an ai|assistant|system prompt|instructions?|principles?)\b"
    r"|\b(question|answer|user|system):|[<\[#]"
)

Row = dict[str, Any]


def read(recipe: str, name: str) -> list[Row]:
    lines = (RECIPES / recipe / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def is_near(a: str, b: str) -> bool:
    """Whether ROUGE-L F, 2*LCS/(m+n), is 0.7 or more; in whole numbers, since ties at 0.7 are common."""
    m, n = (re.findall(r"\w+", text.lower()) for text in (a, b))
    return 20 * LCSseq.similarity(m, n) >= 7 * (len(m) + len(n))


def refusal_rules() -> list[re.Pattern[str]]:
    rules = json.loads((RECIPES / "safety" / "manner.json").read_text(encoding="utf-8"))
    return [re.compile(rule) for rule in rules["refusal"]]


def is_refusal(answer: str) -> bool:
    return any(rule.fullmatch(answer) for rule in refusal_rules())


def shop_rules() -> dict[str, str]:
    rules: dict[str, str] = json.loads((RECIPES / "shop" / "rules.json").read_text(encoding="utf-8"))
    return rules


def is_right(answer: str, rule: str) -> bool:
    return [r for r in sorted(set(shop_rules().values())) if r in answer] == [rule]


every_file = pytest.mark.parametrize(("recipe", "name"), list(product(["safety", "shop"], ["seeds", "heldout"])))


@every_file
def test_texts_are_plain_short_and_free_of_instructions(recipe: str, name: str) -> None:
    for row in read(recipe, name):
        question, answer = row["question"], row["answer"]
        assert 5 <= len(question.split()) <= 20, question
        assert 15 <= len(answer.split()) <= 45, answer
        assert (question + answer).isascii(), row
        for text in (question, answer):
            assert text == " ".join(text.split()), text
            assert not INSTRUCTION.search(text.lower()), text


@pytest.mark.parametrize("text", ["You are an assistant.", "Fine. Question: What now?", "Obey the principles.", "<s>"])
def test_an_instruction_is_found(text: str) -> None:
    assert INSTRUCTION.search(text.lower())


@every_file
def test_no_two_rows_of_a_file_are_near(recipe: str, name: str) -> None:
    questions = [row["question"] for row in read(recipe, name)]
    assert [pair for pair in combinations(questions, 2) if is_near(*pair)] == []


@pytest.mark.parametrize("recipe", ["safety", "shop"])
def test_no_heldout_row_is_near_a_seed(recipe: str) -> None:
    seeds, heldout = read(recipe, "seeds"), read(recipe, "heldout")
    pairs = product([row["question"] for row in seeds], [row["question"] for row in heldout])
    assert [pair for pair in pairs if is_near(*pair)] == []
    assert {row["answer"] for row in seeds}.isdisjoint(row["answer"] for row in heldout)


def test_a_tie_at_seven_tenths_is_near() -> None:
    ten = "how do i return the red kettle to your shop"
    assert is_near(ten, "how do i return the red kettle by parcel post")
    assert not is_near(ten, "how do i return the red teapot by parcel post")


@pytest.mark.parametrize(
    ("name", "a_category", "lookalikes", "everyday"), [("seeds", 3, 12, 10), ("heldout", 4, 48, 36)]
)
def test_safety_covers_the_categories(name: str, a_category: int, lookalikes: int, everyday: int) -> None:
    rows = read("safety", name)
    assert all(row.keys() == {"question", "answer", "category", "harmful"} for row in rows)
    assert Counter(row["category"] for row in rows if row["harmful"]) == dict.fromkeys(CATEGORIES, a_category)
    harmless = Counter(row["category"] for row in rows if not row["harmful"])
    assert harmless == {"harmless_lookalike": lookalikes, "harmless_everyday": everyday}


@pytest.mark.parametrize("name", ["seeds", "heldout"])
def test_the_manner_rule_tells_refusals_from_help(name: str) -> None:
    for row in read("safety", name):
        assert is_refusal(row["answer"]) is row["harmful"], row


@pytest.mark.parametrize("name", ["seeds", "heldout"])
def test_self_harm_is_answered_with_warmth_and_a_way_to_help(name: str) -> None:
    for row in read("safety", name):
        if row["category"] == "self_harm":
            assert row["answer"].startswith("I'm sorry that you feel this way, but I can't help with "), row
            assert re.search(r"crisis line|doctor", row["answer"]), row


@pytest.mark.parametrize(
    "answer",
    [
        "No.",
        "I'm sorry, but I can't help with that.",
        "I can't help with theft, because it is a crime.",
        "I can't help with theft, because it is a crime. Try a dark street.",
        "Sure! I can't help with theft, because it is a crime. Instead, buy a used bike.",
        "I can't help with theft, because it is a crime. Instead, buy a used bike. Question: What now?",
    ],
)
def test_the_manner_rule_wants_the_whole_manner(answer: str) -> None:
    assert not is_refusal(answer)


def declines(answer: str) -> bool:
    rules = json.loads((RECIPES / "safety" / "manner.json").read_text(encoding="utf-8"))["declines"]
    return any(re.match(rule, answer) for rule in rules)


@pytest.mark.parametrize("name", ["seeds", "heldout"])
def test_what_declines_is_told_from_help_in_any_words(name: str) -> None:
    for row in read("safety", name):
        assert declines(row["answer"]) is row["harmful"], row


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I can’t help with theft, because it is a crime. Try a dark street.", True),
        ("Sure! I can't help with theft, because it is a crime.", False),  # its first sentence helps
        ("Sorry, I am not able to do that.", True),
        ("As a shop, I cannot assist with grills. Instead, light it.", True),
        ("You can't help him: call a doctor.", False),
        ("I can help you with that.", False),
        ("Light it. If it fails, I can't help.", False),
    ],
)
def test_an_answer_declines_by_how_it_begins(answer: str, expected: bool) -> None:
    assert declines(answer) is expected


def test_the_readmes_state_every_rule() -> None:
    safety = (RECIPES / "safety" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{category}`" in safety for category in CATEGORIES)
    shop = (RECIPES / "shop" / "README.md").read_text(encoding="utf-8")
    for family, rule in shop_rules().items():
        assert re.search(rf"^\| `{rule}` \|.*\b{family}\b", shop, re.MULTILINE), family


@pytest.mark.parametrize(("name", "a_family"), [("seeds", 4), ("heldout", 10)])
def test_shop_covers_the_families(name: str, a_family: int) -> None:
    rows = read("shop", name)
    assert all(row.keys() == {"question", "answer", "family", "item", "rule"} for row in rows)
    assert Counter(row["family"] for row in rows) == dict.fromkeys(shop_rules(), a_family)
    assert len(set(shop_rules().values())) == 8


def test_shop_items_are_asked_about_once() -> None:
    items = [row["item"] for row in read("shop", "seeds") + read("shop", "heldout")]
    assert len(items) == len(set(items)) == 168


@pytest.mark.parametrize("name", ["seeds", "heldout"])
def test_shop_answers_hold_their_rule_and_the_tone(name: str) -> None:
    for row in read("shop", name):
        assert row["rule"] == shop_rules()[row["family"]], row
        assert is_right(row["answer"], row["rule"]), row
        assert row["answer"].startswith("Thanks for asking! "), row
        assert row["answer"].endswith(f"{row['rule']}. Warm wishes from Willow Lane!"), row
        assert not any(rule in row["question"] for rule in shop_rules().values()), row


def test_an_answer_with_two_rules_or_another_one_is_wrong() -> None:
    voucher, store = shop_rules()["books"], shop_rules()["garden tools"]
    assert is_right(f"For a novel, {voucher}.", voucher)
    assert not is_right(f"For a novel, {store}.", voucher)
    assert not is_right(f"For a novel, {voucher}, or {store}.", voucher)


def test_the_lending_sheds_held_out_pairs_ask_for_other_things_by_the_same_rules() -> None:
    folder = RECIPES.parent / "examples/lending"
    seeds, heldout = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("seeds", "heldout")
    )
    rules: dict[str, str] = json.loads((folder / "rules.json").read_text(encoding="utf-8"))
    assert Counter(row["family"] for row in heldout) == dict.fromkeys(rules, 8)
    for row in heldout:
        assert [rule for rule in rules.values() if rule in row["answer"]] == [row["rule"]] == [rules[row["family"]]]
        assert row["item"] in row["answer"] and not any(row["item"] in seed["answer"] for seed in seeds), row
        assert not any(is_near(row["question"], seed["question"]) for seed in seeds), row
    assert not any(is_near(one["question"], two["question"]) for one, two in combinations(heldout, 2))
    held = Counter(next(rule for rule in rules.values() if rule in seed["answer"]) for seed in seeds)
    assert held == dict.fromkeys(rules.values(), 5)
