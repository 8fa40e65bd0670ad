"""One list of marks: control tokens of many formats, turns, thoughts, and characters that nobody sees."""

import pytest

from isara.marks import (
    broken_characters,
    clean,
    is_visible,
    opening_label,
    special_token,
    thought_mark,
    turn_mark,
    zero_width,
)


@pytest.mark.parametrize(
    "token",
    ["<|im_start|>", "<|eot_id|>", "<｜Assistant｜>", "<start_of_turn>", "<|turn>", "<turn|>", "[INST]", "[/INST]",
     "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "<extra_id_1>", "[gMASK]", "<SPECIAL_10>", "]~b]"],
)  # fmt: skip
def test_control_tokens_of_chat_formats_are_found(token: str) -> None:
    assert special_token(f"It writes {token} there.") == token
    assert turn_mark(f"It writes {token} there.") == token


@pytest.mark.parametrize("text", ["a <b> c", "if a <| b then c |> d", "[inst]", "x < y | z > w", "<s>", "[MASK]", ""])
def test_other_brackets_are_text(text: str) -> None:
    assert special_token(text) is None


def test_a_models_own_tokens_are_found_the_first_one_first() -> None:
    assert special_token("one [MASK] of <s> two", ("<s>", "[MASK]", "")) == "[MASK]"
    assert special_token("<|x|> then <s>", ("<s>",)) == "<|x|>"
    assert special_token("<s><|x|>", ("<s>", "<s><|x|>")) == "<s><|x|>"


def test_labels_stand_at_the_start_and_turns_anywhere() -> None:
    assert opening_label("  q : why?") == "q :"
    assert opening_label("Why? Q: so") is None
    assert turn_mark("Plan A: so") is None
    assert turn_mark("so\n A: what") == "A:"


@pytest.mark.parametrize("mark", ["<think>", "</think>", "<Thinking>", "<seed:think>", "[THINK]", "<scratchpad>"])
def test_thoughts_are_found(mark: str) -> None:
    assert thought_mark(f"{mark} hm") == mark
    assert thought_mark("I think <b>so</b>") is None


def test_characters_that_stand_for_nothing() -> None:
    assert broken_characters("b\x07a\ufffd\x07\ue000\n\t") == ["\x07", "\ue000", "\ufffd"]
    assert broken_characters("a\u202eb\U000e0041") == ["\u202e", "\U000e0041"]
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert broken_characters(f"{flag} שלום 海\u200d👩\u200d🚀") == []


def test_joiners_are_no_characters_of_zero_width() -> None:
    assert zero_width("می\u200cخواهم") is None
    assert zero_width("so\u200b\ufeff") == "\u200b"


@pytest.mark.parametrize(
    ("text", "visible"),
    [("", False), (" \n\u00a0", False), ("\u200b\u2060\ufeff", False), ("\u3164\u2800\ufe0f", False), (".", True),
     ("\u0301", True), ("\ufffd", True), ("海", True)],
)  # fmt: skip
def test_what_can_be_seen(text: str, visible: bool) -> None:
    assert is_visible(text) is visible


def test_text_from_outside_is_one_short_line_without_what_steers_a_terminal() -> None:
    assert clean("\x1b[31mred\u202e \r\n\t evil\u200b\U000e0041\x00!", 40) == "[31mred evil!"
    assert clean("word " * 100, 12) == "word word w…"
    assert clean("\u200b" * 100_000 + "seen", 40) == ""
