"""The novelty filter decides as a plain loop over rouge_score does, in every script, on a pool that grows."""

import random
from fractions import Fraction

import pytest
from rouge_score import rouge_scorer

from isara.filters import Novelty
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.testing import HashEmbedder
from isara.words import main_script, rouge_l, tokenize

WORDS = "why does a bee dance when it comes home from the red clover 2 fields away and who taught them how".split()


def asked(question: str) -> Candidate:
    return Candidate(QAPair(question, ""), Draw(question, 9, "stop", "", 0))


def changed(question: str, rng: random.Random) -> str:
    """The question with about three words in ten replaced and perhaps one left out: F falls around 0.7."""
    words = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in question.split()]
    return " ".join(words[rng.choice([0, 0, 0, 1]) :])


def test_same_decisions_as_rouge_score() -> None:
    rng = random.Random(7)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    first = [" ".join(rng.choices(WORDS, k=rng.choice([4, 7, 10, 10, 10, 13]))) for _ in range(20)]
    kept = Pool(HashEmbedder(), [QAPair(question, "") for question in first])
    novelty, dropped, ties = Novelty(0.7), 0, 0
    for number in range(2000):
        question = changed(rng.choice(kept.pairs).question, rng)
        # In floating point a tie can come out as 0.6999999999999998 (23 and 37 words); rounding mends that.
        scores = [round(scorer.score(pair.question, question)["rougeL"].fmeasure, 9) for pair in kept.pairs]
        rejection = novelty(asked(question), kept)
        assert (rejection is not None) == (max(scores) >= 0.7), question
        if rejection:
            assert rejection.value == round(max(scores), 4)
            assert rejection.near_id == kept.pairs[scores.index(max(scores))].id
            dropped, ties = dropped + 1, ties + (max(scores) == 0.7)
        elif number % 25 == 0:
            kept.add([QAPair(question, "")])
    assert ties > 50
    assert 500 < dropped < 1950
    assert len(kept) > 25


@pytest.mark.parametrize(("m", "n", "common"), [(10, 10, 7), (9, 11, 7), (5, 5, 4), (13, 7, 7), (17, 3, 3)])
def test_a_tie_is_a_duplicate(m: int, n: int, common: int) -> None:
    shared = [f"shared{number}" for number in range(common)]
    kept = Pool(HashEmbedder(), [QAPair(" ".join([*shared, *(f"old{number}" for number in range(m - common))]), "")])
    question = " ".join([*shared, *(f"new{number}" for number in range(n - common))])
    exact = Fraction(2 * common, m + n)
    assert Novelty(float(exact))(asked(question), kept) is not None
    assert Novelty(float(exact) + 1e-9)(asked(question), kept) is None


def test_a_threshold_with_many_decimals() -> None:
    long = [f"word{number}" for number in range(200)]
    kept = Pool(HashEmbedder(), [QAPair(" ".join(long), "")])
    novelty = Novelty(0.1 + 0.2 + 0.4)  # 0.7000000000000001
    assert novelty(asked(" ".join(long[:140] + ["new"] * 60)), kept) is not None
    assert novelty(asked(" ".join(long[:139] + ["new"] * 61)), kept) is None


@pytest.mark.parametrize(
    ("kept", "copy", "new"),
    [
        ("为什么天空是蓝色的?", "天空为什么是蓝色的?", "怎样给孩子做一顿健康的早餐?"),
        ("Почему небо днём голубое?", "почему небо днем голубое", "Как приготовить борщ без мяса?"),
        ("आसमान नीला क्यों होता है?", "आसमान नीला क्यों होता है", "चाय कैसे बनाते हैं?"),
        ("ทำไมท้องฟ้าเป็นสีฟ้า", "ทำไมท้องฟ้าจึงเป็นสีฟ้า", "ร้านปิดกี่โมง"),
        ("なぜ空は青いのですか。", "空はなぜ青いのですか?", "東京まで電車で何分かかりますか。"),
        ("لماذا السماء زرقاء اللون؟", "لماذا السماء زرقاء", "كيف أطبخ الأرز؟"),
    ],
)
def test_every_script(kept: str, copy: str, new: str) -> None:
    novelty, pool = Novelty(0.7), Pool(HashEmbedder(), [QAPair(kept, "")])
    rejection = novelty(asked(copy), pool)
    assert rejection is not None and rejection.near_id == pool.pairs[0].id
    assert novelty(asked(new), pool) is None


def test_empty_pools_and_empty_questions() -> None:
    assert Novelty(0.7)(asked("Why is the sky blue?"), Pool(HashEmbedder())) is None
    assert Novelty(0.7)(asked("?!"), Pool(HashEmbedder(), [QAPair("!?", ""), QAPair("Why?", "")])) is None


def test_another_pool_is_another_matter() -> None:
    novelty = Novelty(0.7)
    bees, moons = (
        Pool(HashEmbedder(), [QAPair(q, "")]) for q in ("How do bees find home?", "How many moons has Mars?")
    )
    assert novelty(asked("How do bees find home?"), bees) is not None
    assert novelty(asked("How do bees find home?"), moons) is None
    assert novelty(asked("How many moons has Mars?"), moons) is not None


def test_going_to_and_fro_between_a_pool_and_its_copies() -> None:
    rng = random.Random(5)
    made = [QAPair(" ".join(rng.choices(WORDS, k=rng.randint(5, 9))), "") for _ in range(60)]
    kept, novelty = Pool(HashEmbedder(), made[:20]), Novelty(0.7)
    for number in range(20, 60):
        copy = Pool(HashEmbedder(), kept.pairs)
        copy.add(rng.sample(made, 3))
        for pool in (copy, kept):
            question = asked(changed(rng.choice(made).question, rng))
            assert novelty(question, pool) == Novelty(0.7)(question, pool)
        kept.add([made[number]])


def words(rng: random.Random, vocabulary: list[str]) -> str:
    """Short and long questions; of the words some are frequent and some repeat, so that signatures fill up."""
    n = rng.choice([0, 1, 2, 5, 8, 10, 20, 90])
    return " ".join(rng.choices(vocabulary, weights=[1 / rank for rank in range(1, len(vocabulary) + 1)], k=n))


@pytest.mark.parametrize("novelty", [0.05, 0.3, 0.5, 0.7, 0.85, 1.0])
def test_value_and_nearest_row_are_those_of_comparing_each_with_each(novelty: float) -> None:
    vocabulary = [f"w{number}" for number in range(200)]
    filters, dropped, repeated = Novelty(novelty), 0, 0
    for seed in range(2):
        rng = random.Random(seed)
        kept = Pool(HashEmbedder(), [QAPair(words(rng, vocabulary), str(number)) for number in range(120)])
        for number in range(120):
            old = rng.choice(kept.pairs).question.split()
            new = [word if rng.random() < 0.75 else rng.choice([*vocabulary, f"new{number}"]) for word in old]
            question = " ".join(new[rng.choice([0, 0, 1]) :] * rng.choice([1, 1, 1, 2]))
            scores = [max(rouge_l(tokenize(question), tokenize(each)) for each, _ in pair.turns) for pair in kept.pairs]
            said, most = filters(asked(question), kept), max(scores)
            if Fraction(most).limit_denominator(1000) < Fraction(str(novelty)):
                assert said is None
            else:
                first = kept.pairs[scores.index(most)]
                assert said == Rejection("novelty", round(most, 4), novelty, first.id)
                dropped, repeated = dropped + 1, repeated + (scores.count(most) > 1)
            if number % 3 == 0:
                talk = ((words(rng, vocabulary), "Hm."),) if number % 2 else ()
                kept.add([QAPair(question, str(number), before=talk)])
            elif number % 20 == 1:
                kept = kept.copy()
    assert dropped > 20 and repeated > 2


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't panic_now, 42!", ["don", "t", "panic", "now", "42"]),
        ("Größe & CAFÉ", ["grösse", "café"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("买iPhone吗", ["买", "iphone", "吗"]),
        ("naïve\u00adly", ["naïvely"]),
        ("☂ …", []),
    ],
)
def test_tokenize(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_rouge_l_of_nothing_is_zero() -> None:
    assert rouge_l([], []) == 0.0
    assert rouge_l(["why", "not"], ["not", "why"]) == 0.5


@pytest.mark.parametrize(
    ("text", "script"), [("Why π?", "LATIN"), ("なぜ空は", "CJK"), ("ABC как дела", "CYRILLIC"), ("1 + 1 = 2", "")]
)
def test_main_script(text: str, script: str) -> None:
    assert main_script(text) == script


def test_every_question_of_a_dialogue_is_known() -> None:
    talk = QAPair("And by boat?", "An hour.", before=(("How far is it to Lake Hylia on foot?", "Half a day."),))
    pool = Pool(HashEmbedder(), [QAPair("Who is Impa?", "A sage."), talk, QAPair("Who is Navi?", "A fairy.")])
    novelty = Novelty(0.7)
    drop = novelty(asked("How far is it to Lake Hylia on foot?"), pool)
    assert drop is not None and (drop.value, drop.near_id) == (1.0, talk.id)
    fewer = Pool(HashEmbedder(), pool.pairs[:1])
    assert novelty(asked("How far is it to Lake Hylia on foot?"), fewer) is None
    last = novelty(asked("Who is Navi?"), pool)
    assert last is not None and last.near_id == pool.pairs[2].id
    assert talk not in [pair for pair, _ in pool.nearest("how far is it to Lake Hylia on foot?", 3)]
