"""Numbers and contacts that nobody told the model, and the many ways to write those that somebody did."""

import json
import logging
import time
from pathlib import Path

import pytest

from isara.config import FiltersConfig
from isara.filters import UnsupportedContacts, UnsupportedNumbers, default_filters
from isara.filters.facts import Fact, amounts, contacts, known_amounts, known_contacts
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
        ("请在15天内退货", "15"),
        ("电话费30元", "30元"),
        ("15일 이내", "15"),
        ("ภายใน15วัน", "15"),
        ("أعده خلال ١٥ يوما", "١٥"),
        ("१५ दिन", "१५"),
        ("２０，０００円です", "２０，０００円"),
        ("ลด๒๑％", "๒๑％"),
        ("Back in 2 weeks, or 0.125.", "2"),
        ("It weighs 1.5 million tons.", "1.5 million"),
        ("It costs EUR 25.", "EUR 25"),
        ("Ask 192.168.0.1.", "192.168.0.1"),
        ("Since 03/04/2026.", "03/04/2026"),
        ("Since 2026年3月2日.", "2026年3月2日"),
        ("Until 9.45 Uhr.", "9.45 Uhr"),
        ("15. That is all.", "15"),
        ("You have (15) days.", "15"),
        ("It takes 100-2000 words.", "100"),
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
        ("请在14天内，付20元，2026年3月1日。", "What about a raft?"),
        ("خلال ١٤ يوما، ２０ euros.", "What about a raft?"),
        ("Since 2026-03-01, 01/03/2026, 3/1/26, 01.03.2026 and 1 March.", "What about a raft?"),
        ("１．打开\n２．关", "What about a raft?"),
        ("(1) Untie it, (2) row.", "What about a raft?"),
        ("EUR 20 or €20 or 20 EUR, and USD 20.00.", "What about a raft?"),
        (
            "30天, 20%, 200, 150, 2000, 24, 3 and 21.",
            "三十天, twenty percent, two hundred fish, one hundred and fifty, "
            "two thousand and twenty-four, on the third floor or the twenty-first? Or two thousand, or twenty-four?",
        ),
        (
            "14, 24, 15, 35, 99 and 20 Euro.",
            "vierzehn, vierundzwanzig, femton, trettiofem, neunundneunzig, zwanzig Euro",
        ),
        ("$10, and at 10:00.", "I paid ten dollars at ten o'clock."),
        ("From 9 am to 5 pm, 9:00-17:00, 9–17 Uhr.", "Is it 9 to 5?"),
        ("From 9:00 until 17:00, at 9 and 17 and 5.", "Is it 9–17 Uhr?"),
        ("From 9 to 5, or 17.", "Is it 9:00 to 17:00?"),
        ("1,00,000 and 0.125 and 20 thousand at 192.168.0.1.", "Is it 100000, 0,125, 20,000 or 192.168.0.1?"),
        ("It was 3 May 2026, May 3, 3 May 2026 or 2026.", "On 2026-05-03?"),
        ("It was 05/03/2026 or 2026-03-05.", "On 03/05/2026?"),
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
        ("请写信到info@shop.cn谢谢", "info@shop.cn"),
        ("请看https://shop.cn/a，谢谢", "https://shop.cn/a"),
        ("请致电010-12345678或", "010-12345678"),
        ("请致电13812345678。", "13812345678"),
        ("電話：０３－１２３４－５６７８", "０３－１２３４－５６７８"),
        ("Écris à élodie@web.fr.", "élodie@web.fr"),
        ("Call 98765 43210.", "98765 43210"),
        ("See rafts.ru or rafts.com.tr.", "rafts.ru"),
        ("See rafts.it.", "rafts.it"),
        ("See rafts.co.in/x.", "rafts.co.in/x"),
        ("We are at 10, rue de Rivoli.", "10, rue de Rivoli"),
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
        ("From 100-2000 to 300-4000 words, since 03/05/2026 10:00 or 03/05/2026 13/05/2026.", "What about a raft?"),
        ("Do it now.It works. Open it.Be quick, now.In a day.", "What about a raft?"),
        ("请写信到help@lake-hylia.com或请看lake-hylia.com/closed吧", "What about a raft?"),
        ("Come to 10 rue de Rivoli.", "Is it 10, rue de Rivoli?"),
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


@pytest.mark.parametrize(
    ("text", "unsupported"),
    [
        ("two three", ["number 5", "number 23"]),
        ("two hundred", ["number 2", "number 100"]),
        ("twenty-four", ["number 20", "number 4"]),
        ("3 to 5 days, 3-5 Wochen, three to five people", ["time 3:00", "time 5:00"]),
        ("1. Untie it.\n2. Row.", ["number 1", "number 2"]),
        ("H2O, COVID-19, écran14", ["number 2", "number 14", "number 19"]),
    ],
)
def test_what_a_text_supports_not(text: str, unsupported: list[str]) -> None:
    assert known_amounts(text).isdisjoint(unsupported)


def test_number_words_state_nothing() -> None:
    text = "Two hundred and one fish, vierzehn Tage, fjorton dagar, 三十天, the third floor, twenty percent"
    assert amounts(text) == ()


def test_every_text_has_its_place() -> None:
    text = "请在１４天内，付€２０，或写信到ｉｎｆｏ＠ｓｈｏｐ．ｃｎ。"
    assert [fact.text for fact in amounts(text)] == ["１４", "€２０"]
    assert contacts(text) == (Fact("email info@shop.cn", "ｉｎｆｏ＠ｓｈｏｐ．ｃｎ"),)


@pytest.mark.parametrize("part", "1|one |1,|1.|11,|1,11,|1 |0.0.0.|\n|9-|9 to |三|万|A-|1/1/|10 rue de |٣".split("|"))
def test_long_texts_take_no_time(part: str) -> None:
    text = (part * 20_000)[:20_000] + "x"
    started = time.process_time()
    for facts in (amounts, known_amounts, contacts, known_contacts):
        facts(text)
    assert time.process_time() - started < 1


def test_hostile_texts_take_no_time() -> None:
    texts = ["a" * 50_000, "a." * 25_000, "1" * 50_000, "1 " * 25_000, "@a." * 15_000, "(0 " * 15_000, "1,111" * 9_000]
    started = time.process_time()
    for text in texts:
        amounts(text), contacts(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3万", "30000"),
        ("5百", "500"),
        ("3千", "3000"),
        ("2千5百", "2500"),
        ("1万2千", "12000"),
        ("2亿3千万", "230000000"),
        ("2百50", "250"),
    ],
)
def test_digits_and_han_scales_are_one_number(text: str, number: str) -> None:
    assert [fact.key for fact in amounts(text)] == [f"number {number}"]
    assert known_amounts(text) == known_amounts(number) == {f"number {number}"}
    assert known_amounts("一亿二千万") == {"number 120000000"}
