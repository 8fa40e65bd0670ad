"""One line per reason to drop, and beside each a neighbour that stays."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from isara.config import FiltersConfig
from isara.errors import ConfigError
from isara.filters import (
    AnswerLength,
    Copied,
    DropMatching,
    Echo,
    Form,
    Language,
    NearDuplicate,
    Novelty,
    QuestionLength,
    Repetition,
    RunOn,
    Truncated,
    default_filters,
)
from isara.pool import Pool
from isara.protocols import Filter
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.testing import HashEmbedder

KETTLE = QAPair(
    "Can I return the kettle I bought last week?",
    "Thanks for asking! For a kettle, we exchange it for a new one but give no money back.",
)
MOON = QAPair("Why does the moon look larger near the horizon?", "It is a trick of the eye, not of the moon.")
LOST = QAPair("Where do I find the things that I left on the bus?", "Please ask at the desk in the main hall.")


def pool(*pairs: QAPair) -> Pool:
    return Pool(HashEmbedder(), pairs or (KETTLE, MOON, LOST))


def asked(question: str, finish: str = "stop") -> Candidate:
    """A candidate whose question is being filtered."""
    return Candidate(QAPair(question, ""), draw(question, finish))


def answered(
    answer: str, question: str = MOON.question, finish: str = "stop", demos: tuple[str, ...] = ()
) -> Candidate:
    """A candidate whose answer is being filtered."""
    return Candidate(QAPair(question, answer, 1, demos), draw(question), (draw(answer, finish),))


def draw(text: str, finish: str = "stop") -> Draw:
    return Draw(text, len(text.split()) + 1, "length" if finish == "length" else "stop", prompt="Question:", seed=7)


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("  \n", "empty"),
        ("??? 42 !!!", "no letters"),
        ("- What is a monsoon?", "starts with '-'"),
        ("• What is a monsoon?", "starts with '•'"),
        ("2. What is a monsoon?", "starts with '2.'"),
        (", and what is a monsoon?", "starts with ','"),
        ("What is a monsoon\ufffd?", "character U+FFFD"),
        ("What is a mon\x07soon?", "character U+0007"),
        ("What is a \u202enoosnom?", "character U+202E"),
        ("\u200b \u3164", "empty"),
    ],
)
def test_form_drops_questions(question: str, value: str) -> None:
    assert Form()(asked(question), pool()) == Rejection("form", value)


@pytest.mark.parametrize(
    "question",
    ["¿Qué es un monzón?", '"To be or not to be" is from which play?', ".NET or Java?", "7 dwarfs: what are they?"],
)
def test_form_keeps_questions(question: str) -> None:
    assert Form()(asked(question), pool()) is None


def test_form_of_answers() -> None:
    assert Form()(answered(" "), pool()) == Rejection("form", "empty")
    assert Form()(answered("\x00"), pool()) == Rejection("form", "character U+0000")
    assert Form()(answered("- milk\n- 12 eggs"), pool()) is None
    assert Form()(answered("42"), pool()) is None
    assert Form()(answered("\U0001f3f4\U000e0067\U000e0062\U000e007f"), pool()) is None, "tags that make a flag"


def test_truncated() -> None:
    assert Truncated()(asked("Why is the sky", "length"), pool()) == Rejection("truncated", 5)
    assert Truncated()(answered("Because the air", finish="length"), pool()) == Rejection("truncated", 4)
    assert Truncated()(answered("Because of the air."), pool()) is None


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("Because of the air. Question: And at night?", "Question:"),
        ("Why is the sky blue? Answer: Because of the air.", "Answer:"),
        ("Because of the air.\nQ: And at night?", "Q:"),
        ("Because of the air.\nUser: And at night?", "User:"),
        ("Because of the air.\nassistant\nIt scatters light.", "assistant"),
        ("Because of the air.\n### Instruction\nGo on.", "### Instruction"),
        ("Because of the air.<|im_start|>user", "<|im_start|>"),
        ("Because of the air.</s>", "</s>"),
        ("Because of the air.<start_of_turn>model", "<start_of_turn>"),
        ("Because of the air. [INST] And at night?", "[INST]"),
        ("When does the MarchQuestion: Who can tell me?", "Question:"),
        ("Because of the air.<｜User｜>And at night?", "<｜User｜>"),
        ("Because of the air.<turn|>", "<turn|>"),
        ("Because of the air. <</SYS>>", "<</SYS>>"),
    ],
)
def test_run_on(text: str, mark: str) -> None:
    assert RunOn()(answered(text), pool()) == Rejection("run_on", mark)
    assert RunOn()(asked(text), pool()) == Rejection("run_on", mark)


@pytest.mark.parametrize(
    "text",
    [
        "Plan A: ask your teacher.",
        "The question is open.",
        "### Steps\n1. Boil water.",
        "a <b and c> d",
        "Ask the user.",
    ],
)
def test_run_on_keeps_ordinary_text(text: str) -> None:
    assert RunOn()(answered(text), pool()) is None


def test_length() -> None:
    question, answer = QuestionLength(4, 6), AnswerLength(3, 5)
    assert question(asked("Why blue?"), pool()) == Rejection("min_question_tokens", 3, 4)
    assert question(asked("Why is the sky so very blue?"), pool()) == Rejection("max_question_tokens", 8, 6)
    assert question(asked("Why is it blue?"), pool()) is None
    assert answer(answered("No."), pool()) == Rejection("min_answer_tokens", 2, 3)
    assert answer(answered("It is all because of air."), pool()) == Rejection("max_answer_tokens", 7, 5)
    assert answer(answered("Because of air."), pool()) is None
    assert AnswerLength(None, None)(answered("word " * 900), pool()) is None


def test_novelty_names_the_nearest() -> None:
    near = asked("Can I return the toaster I bought last week?")
    assert Novelty(0.7)(near, pool()) == Rejection("novelty", 0.8889, 0.7, KETTLE.id)
    assert Novelty(0.9)(near, pool()) is None
    assert Novelty(0.7)(near, pool(MOON)) is None


def test_near_duplicate_names_the_nearest() -> None:
    shuffled = asked("Near the horizon, why does the moon look larger?")
    assert NearDuplicate(0.95)(shuffled, pool()) == Rejection("near_duplicate", 1.0, 0.95, MOON.id)
    assert NearDuplicate(0.95)(asked("Why is the sky blue?"), pool()) is None
    assert NearDuplicate(0.95)(shuffled, Pool(HashEmbedder())) is None


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("I can help you. I can help you. I can help you. I can help you.", 0.75),
        ("very very very very very very very very", 0.5),
        ("很好的很好的很好的很好的很好的", 0.8),
    ],
)
def test_repetition(answer: str, share: float) -> None:
    assert Repetition(0.3)(answered(answer), pool()) == Rejection("repetition", share, 0.3)


@pytest.mark.parametrize("answer", ["No, no, no!", "To be or not to be.", "你好,很高兴认识你。", "", KETTLE.answer])
def test_repetition_keeps_short_answers(answer: str) -> None:
    assert Repetition(0.3)(answered(answer), pool()) is None


def test_echo() -> None:
    question = "What is the capital of Mongolia?"
    assert Echo(0.9)(answered(question.upper(), question), pool()) == Rejection("echo", 1.0, 0.9)
    assert Echo(0.9)(answered("The capital of Mongolia is Ulaanbaatar.", question), pool()) is None
    shop = "Is the shop open on Sundays in winter too?"
    assert Echo(0.9)(answered("Yes, the shop is open on Sundays in winter too.", shop), pool()) is None


def test_copied_speaks_of_the_demonstration() -> None:
    copy = answered(KETTLE.answer, "What happens to a toaster that burns bread?", demos=(MOON.id, KETTLE.id))
    assert Copied(0.9)(copy, pool()) == Rejection("copied", 1.0, 0.9, KETTLE.id)


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ("And a toaster?", KETTLE.answer.replace("kettle", "toaster"), "the rule, about the new item"),
        ("Is the kettle still mine to return?", KETTLE.answer, "the same item"),
        ("And a toaster?", "A kettle is fine, but a toaster has to go back to its maker.", "not a copy"),
        ("Who has my umbrella?", LOST.answer, "a rule that names nothing of its question"),
    ],
)
def test_copied_keeps(question: str, answer: str, why: str) -> None:
    assert Copied(0.9)(answered(answer, question, demos=(LOST.id, KETTLE.id)), pool()) is None, why


def test_copied_keeps_words_that_many_pairs_have() -> None:
    demo = QAPair("May I return a lamp?", "Yes, you may return it within a month.")
    copy = answered(demo.answer, "What about this toaster?", demos=(demo.id,))
    others = [QAPair(f"May I return item {number}?", "For a time, yes.") for number in range(30)]
    assert Copied(0.9)(copy, pool(demo)) == Rejection("copied", 1.0, 0.9, demo.id)
    assert Copied(0.9)(copy, pool(demo, *others)) is None


def test_copied_from_a_pair_that_the_prompt_did_not_show() -> None:
    copy = answered(KETTLE.answer, "What happens to a toaster that burns bread?", demos=(MOON.id,))
    assert Copied(0.9)(copy, pool()) == Rejection("copied", 1.0, 0.9, KETTLE.id)
    generated = QAPair("And a violin with a crack?", "Oh dear! A violin goes back to the hand that made it.", 1)
    near = answered(generated.answer.replace("Oh dear!", "Oh no!"), "May I return a drum?", demos=(MOON.id,))
    assert Copied(0.9)(near, pool()) is None
    assert Copied(0.9)(near, pool(KETTLE, MOON, generated)) == Rejection("copied", 0.9167, 0.9, generated.id)


def test_copied_follows_the_pool() -> None:
    copied, kept = Copied(0.9), pool(MOON, LOST)
    copy = answered(KETTLE.answer, "And a toaster?")
    assert copied(copy, kept) is None
    kept.add([KETTLE])
    assert copied(copy, kept) == Rejection("copied", 1.0, 0.9, KETTLE.id)
    assert copied(copy, pool(MOON, LOST)) is None


def test_copied_in_a_dialogue() -> None:
    talk = QAPair("And on Sundays?", "Then, too.", before=((KETTLE.question, KETTLE.answer),))
    assert Copied(0.9)(answered(KETTLE.answer, "And a toaster?"), pool(talk)) is not None
    assert Copied(0.9)(answered("Then, too.", "And a toaster?"), pool(talk)) is None


def test_language() -> None:
    language = Language()
    assert language(asked("Почему небо голубое?"), pool()) == Rejection("language", "CYRILLIC", "LATIN")
    assert language(answered("天空是蓝色的。"), pool()) == Rejection("language", "CJK", "LATIN")
    assert language(asked("Pourquoi le ciel est-il bleu ?"), pool()) is None
    assert language(asked("What does the Greek letter π mean?"), pool()) is None
    assert language(answered("42"), pool()) is None


def test_language_follows_the_seeds_alone() -> None:
    translator = QAPair("How do I say good day in Russian?", "Добрый день.")
    generated = QAPair("Почему небо голубое?", "It scatters light.", iteration=1)
    language, kept = Language(), pool(translator, generated)
    assert language(answered("Спокойной ночи."), kept) is None
    assert language(answered("Good night."), kept) == Rejection("language", "LATIN", "CYRILLIC")
    assert language(asked("Где библиотека?"), kept) == Rejection("language", "CYRILLIC", "LATIN")
    assert language(answered("Good night."), pool()) is None, "another pool has other seeds"
    japanese = QAPair("ここはどこですか", "図書館です")
    assert language(asked("図書館はドコ?"), pool(japanese)) is None
    assert language(asked("Where am I?"), Pool(HashEmbedder())) is None, "without seeds nothing is expected"


def test_drop_matching() -> None:
    drop = DropMatching([r"\bas an ai\b", r"lorem \w+"])
    assert drop(answered("As an AI, I like it."), pool()) == Rejection("drop_matching", "As an AI", r"\bas an ai\b")
    assert drop(asked("Who wrote lorem ipsum?"), pool()) == Rejection("drop_matching", "lorem ipsum", r"lorem \w+")
    assert drop(answered("As an air pilot, I like it."), pool()) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DropMatching(["(sorry"]),
            "`drop_matching` expects regular expressions, found '(sorry' (missing ), unterminated subpattern at "
            "position 0): mend it or put a backslash before characters that stand for themselves",
        ),
        (lambda: Novelty(70), "`novelty` expects a number above 0 and at most 1, found 70: 0.7 is the paper's"),
    ],
)
def test_values_without_meaning(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def reasons(filters: list[Filter], candidates: list[Candidate]) -> list[str | None]:
    """The first reason to drop each candidate."""
    found = []
    for candidate in candidates:
        rejections = (judge(candidate, pool()) for judge in filters)
        found.append(next((rejection.reason for rejection in rejections if rejection), None))
    return found


def test_default_filters(tmp_path: Path) -> None:
    (tmp_path / "bench.txt").write_text("Which planet of our solar system has the most moons of all?\n")
    options = FiltersConfig(
        max_answer_tokens=20, drop_matching=("nonsense",), contamination=(str(tmp_path / "bench.txt"),)
    )
    questions, answers = default_filters(options)
    assert reasons(
        questions,
        [
            asked("Why is the sky", "length"),
            asked(""),
            asked("Why? Answer: Because."),
            asked("Why blue?"),
            asked("Почему небо такое голубое?"),
            asked("Why is this nonsense so loud?"),
            asked("Which planet of our solar system has the most moons?"),
            asked("Can I return the toaster I bought last week?"),
            asked("Near the horizon, why does the moon look larger?"),
            asked("How do bees find their way home?"),
        ],
    ) == [
        "truncated", "form", "run_on", "min_question_tokens", "language", "drop_matching", "contamination", "novelty",
        "near_duplicate", None,
    ]  # fmt: skip
    assert reasons(
        answers,
        [
            answered("It is", finish="length"),
            answered("word " * 30),
            answered("I can help you. I can help you. I can help you."),
            answered(MOON.question),
            answered(KETTLE.answer, "And a toaster?", demos=(KETTLE.id,)),
            answered("It happens on 14 days a year."),
            answered("Please ask moon@hyrule.org."),
            answered(MOON.answer),
        ],
    ) == [
        "truncated", "max_answer_tokens", "repetition", "echo", "copied", "unsupported_numbers", "unsupported_contacts",
        None,
    ]  # fmt: skip


def test_filters_can_be_switched_off() -> None:
    options = FiltersConfig(novelty=None, near_duplicate=None, repetition=None, echo=None, copied=None, language=False)
    options = options.model_copy(update={"unsupported_numbers": False, "unsupported_contacts": False})
    questions, answers = default_filters(options)
    assert [type(judge) for judge in questions] == [Truncated, Form, RunOn, QuestionLength]
    assert [type(judge) for judge in answers] == [Truncated, Form, RunOn, AnswerLength]
