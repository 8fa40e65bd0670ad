"""Numbers and contacts that nobody told the model, and the many ways to write those that somebody did."""

import json
import logging
import time
from pathlib import Path

import pytest

from isara.config import FiltersConfig
from isara.filters import UnsupportedContacts, UnsupportedNumbers, default_filters
from isara.filters.facts import amounts, contacts
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.testing import HashEmbedder

RECIPES = Path(__file__).parents[1] / "recipes"
SEEDS = [
    QAPair("How long may I keep a rented boat?", "For 14 days, at €20 a day, from 9:00 to 5 pm."),
    QAPair("And a rented canoe?", "For fourteen days as well, at 20 euros a day, from 9 am to 17:00."),
    QAPair("When is the lake closed?", "From 1 March 2026 until May 2026; write to help@lake-hylia.com."),
    QAPair("Since when is it closed in March?", "Since 1 March 2026, see https://www.lake-hylia.com/closed."),
    QAPair("Where does it say so?", "At lake-hylia.com/closed, or ask help@lake-hylia.com or +49 30 555 0199."),
    QAPair("May I call you about May 2026?", "Please do: 030 5550199."),
]


def pool(*seeds: QAPair) -> Pool:
    return Pool(HashEmbedder(), seeds or SEEDS)


def answered(answer: str, question: str = "What about a raft?") -> Candidate:
    draw = Draw("", 9, "stop", "", 0)
    return Candidate(QAPair(question, answer, 1), draw, (draw,))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("For 15 days.", "15"),
        ("At €14 a day.", "€14"),
        ("It costs 25.50 euros.", "25.50 euros"),
        ("You get 20% off.", "20%"),
        ("Until 6 pm.", "6 pm"),
        ("Until 18:30.", "18:30"),
        ("Since 2 March 2026.", "2 March 2026"),
        ("From June 2026.", "June 2026"),
        ("On 01/03/2027.", "01/03/2027"),
        ("It holds 1,000 people.", "1,000"),
    ],
)
def test_numbers_that_nobody_told(answer: str, value: str) -> None:
    assert UnsupportedNumbers(True)(answered(answer), pool()) == Rejection("unsupported_numbers", value)


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("For 14 days at 20.00 euros, until 17:00, since March 1, 2026.", "What about a raft?"),
        ("It was 5:00 PM in March 2026.", "What about a raft?"),
        ("No, for two or three days, and one may swim.", "What about a raft?"),
        ("1. Untie it.\n2. Row.\n(3) Tie it. That was step 4.", "What about a raft?"),
        ("COVID-19 and H2O are no trouble.", "What about a raft?"),
        ("Your 30 euros for order 1 000 come back within 12 hours.", "I paid €30 for 1,000 fish twelve hours ago."),
        ("Write to guide17@lake-hylia.com.", "What about a raft?"),  # the other filter's
    ],
)
def test_numbers_that_somebody_told(answer: str, question: str) -> None:
    assert UnsupportedNumbers(True)(answered(answer, question), pool()) is None


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("Write to hello@lake-hylia.com.", "hello@lake-hylia.com"),
        ("See https://www.lake-hylia.com/rafts?x=1.", "https://www.lake-hylia.com/rafts?x=1"),
        ("See rafts.org, please.", "rafts.org"),
        ("Call +49 30 555 0100!", "+49 30 555 0100"),
        ("Call (555) 123-4567.", "(555) 123-4567"),
        ("Call 555-0142.", "555-0142"),
        ("Tell @hylia_guides.", "@hylia_guides"),
        ("We are at 12 Fairy Fountain Road.", "12 Fairy Fountain Road"),
        ("We are in the Hauptstraße 3.", "Hauptstraße 3"),
        ("Write to PO Box 12.", "PO Box 12"),
    ],
)
def test_contacts_that_nobody_told(answer: str, value: str) -> None:
    assert UnsupportedContacts(True)(answered(answer), pool()) == Rejection("unsupported_contacts", value)


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("Write to HELP@lake-hylia.com or call 0049 30 5550199, see lake-hylia.com.", "What about a raft?"),
        ("See http://lake-hylia.com/closed/.", "What about a raft?"),
        ("We write to zelda@hyrule.org.", "My address is zelda@hyrule.org."),
        ("Open it in node.js, e.g. with main.py, between 1990-1995.And so on.", "What about a raft?"),
        ("It holds 1,000,000 or 1 000 000 fish since 2026-03-01.", "What about a raft?"),
    ],
)
def test_contacts_that_somebody_told(answer: str, question: str) -> None:
    assert UnsupportedContacts(True)(answered(answer, question), pool()) is None


def test_what_was_accepted_supports_nothing() -> None:
    rumour = QAPair("How long may I keep a raft?", "For 99 days.", iteration=1)
    assert UnsupportedNumbers("auto")(answered("For 99 days."), pool(*SEEDS, rumour)) == Rejection(
        "unsupported_numbers", "99"
    )


def test_earlier_turns_support_what_follows() -> None:
    talk = QAPair("And for two of them?", "For 40 days.", before=(("I have 40 rafts.", "How nice."),))
    draw = Draw("", 9, "stop", "", 0)
    assert UnsupportedNumbers(True)(Candidate(talk, draw, (draw,)), pool()) is None


def test_auto_is_off_where_a_seed_does_it_alone_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    alone = QAPair("What does a raft cost?", "It costs €75.")
    numbers = UnsupportedNumbers("auto")
    with caplog.at_level(logging.INFO, "isara"):
        assert numbers(answered("For 99 days."), pool(*SEEDS, alone)) is None
        assert numbers(answered("For 98 days."), pool(*SEEDS, alone)) is None
    assert caplog.messages == [
        "filters.unsupported_numbers is off: '€75' stands in no seed but in 1 of 7 "
        f"({alone.id}: What does a raft cost?); true drops such answers all the same"
    ]
    assert UnsupportedNumbers(True)(answered("For 99 days."), pool(*SEEDS, alone)) is not None
    assert numbers(answered("For 99 days."), pool()) is not None, "another pool has other seeds"
    assert numbers(answered("For 99 days."), Pool(HashEmbedder())) is None, "without seeds nothing is known"


def recipe(name: str, file: str, iteration: int) -> list[QAPair]:
    rows = map(json.loads, (RECIPES / name / f"{file}.jsonl").read_text().splitlines())
    return [QAPair(row["question"], row["answer"], iteration) for row in rows]


@pytest.mark.parametrize(("name", "on"), [("shop", True), ("safety", False)])
def test_auto_on_the_recipes(name: str, on: bool) -> None:
    kept = pool(*recipe(name, "seeds", 0))
    assert (UnsupportedNumbers("auto")(answered("Within 31 days."), kept) is not None) is on
    assert UnsupportedContacts("auto")(answered("Write to me@shop.com."), kept) is not None


@pytest.mark.parametrize("name", ["shop", "safety"])
def test_every_heldout_pair_passes_the_default_filters(name: str) -> None:
    kept = pool(*recipe(name, "seeds", 0))
    questions, pairs = default_filters(FiltersConfig())
    for pair in recipe(name, "heldout", 1):
        demos = tuple(near.id for near, _ in kept.nearest(pair, 5))
        draws = [Draw(text, len(text.split()) + 2, "stop", "", 0, demos) for text in (pair.question, pair.answer)]
        asked = Candidate(QAPair(pair.question, "", 1), draws[0])
        whole = Candidate(QAPair(pair.question, pair.answer, 1, demos), draws[0], (draws[1],))
        said = [check(asked, kept) for check in questions] + [check(whole, kept) for check in pairs]
        assert not any(said), (pair, said)


def test_hostile_texts_take_no_time() -> None:
    texts = ["a" * 50_000, "a." * 25_000, "1" * 50_000, "1 " * 25_000, "@a." * 15_000, "(0 " * 15_000, "1,111" * 9_000]
    started = time.process_time()
    for text in texts:
        amounts(text), contacts(text)
    assert time.process_time() - started < 5
