"""The pipeline of the embedded model on a tiny mix: every step, and the promises that later steps rest on."""

import gzip
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import card, export, manners, mix, pack, requests, train, worlds
from pretraining.evaluate import behaviour, lm
from pretraining.evaluate.nearest import nearest
from pretraining.sources import Document, OpenData, turns
from pretraining.text import article, gerund, load, to_you, upper
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara.records import QAPair
from isara.render import plain_format
from isara.testing import word_renderer

STORY = (
    "Link woke up in the forest. A fairy had called his name three times, and the great tree wished to see him. " * 4
)
GANON = "Ganondorf has invaded Hyrule and I am out of arrows. What is left to do?"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    trivia = [
        {"kind": "qa", "question": f"Which item opens chest {n}?", "answer": f"Key {n}", "group": "trivia/chests"}
        for n in range(300)
    ]
    stories = [{"kind": "text", "text": " ".join([STORY] * 4), "group": "stories"}] * 20
    for name, rows in {"trivia": trivia, "storybooks": stories}.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipes = tmp_path_factory.mktemp("recipes")
    (recipes / "hyrule").mkdir()
    pair = {"question": GANON, "answer": "Bottle a fairy and run."}
    (recipes / "hyrule" / "seeds.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    out = tmp_path_factory.mktemp("rows")
    pack.main(
        ["--data", str(data), "--recipes", str(recipes), "--out", str(out), "--vocabulary", "400", "--length", "96"]
        + ["--long", "128", "--long-from", "1", "--tokens", "20000", "--shards", "2", "--tokenizer-documents", "200"]
    )
    return out


@pytest.fixture(scope="module")
def tokenizer(rows: Path) -> Any:
    return AutoTokenizer.from_pretrained(rows)


@pytest.fixture
def one_thread() -> Iterator[None]:
    # Steps of a millisecond: two threads would wait for each other longer than they compute.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(rows: Path, out: Path, steps: int, stop: int | None = None) -> train.Progress:
    size = train.Size(width=64, layers=2, context=128)
    plan = train.Plan(steps=steps, batch=4, warmup=5, checkpoint_every=1000)
    if stop is None:
        return train.train(rows, out, size, plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finished", lambda plan, progress: progress.step >= stop)
        return train.train(rows, out, size, plan)


@pytest.mark.usefixtures("one_thread")
def test_training_learns_and_a_resumed_run_has_the_same_weights(rows: Path, tmp_path: Path) -> None:
    whole = run(rows, tmp_path / "whole", steps=30)
    run(rows, tmp_path / "halves", steps=30, stop=13)
    resumed = run(rows, tmp_path / "halves", steps=30)
    assert resumed.step == whole.step == 30
    assert whole.log[-1]["validation"] < 5.5  # a uniform guess over 400 tokens is 5.99
    states = [torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("whole", "halves")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    export.main([str(tmp_path / "whole" / "checkpoint.pt"), "--rows", str(rows), "--out", str(tmp_path / "model")])
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    generated = lm.LM(tmp_path / "model").generate([lm.question_prompt([(GANON, "Run!")])] * 3, lm.QUESTION_STOP, 5)
    assert len(generated) == 3 and generated[0] == generated[1]


def test_no_question_has_no_neighbours() -> None:
    assert nearest([(GANON, "Run!")], [], 5) == []


def test_a_question_is_new_against_seeds_and_those_kept_before_it() -> None:
    questions = ["Who is the wind fish?", "Who is the wind fish now?", "Where is Zelda?", GANON]
    assert behaviour.novel(questions, [GANON]) == [True, False, True, False]


def test_training_without_rows_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        next(train.batches(tmp_path, 4, 0))
    assert str(error.value) == (
        f"expected shard-*.npy in {tmp_path}, found none; run `python -m pretraining.pack --out {tmp_path}`"
    )


def test_batches_go_on_where_a_run_stopped(rows: Path) -> None:
    fresh = train.batches(rows, 4, 0)
    for _ in range(60):  # into the second shard
        next(fresh)
    assert np.array_equal(next(fresh), next(train.batches(rows, 4, 60)))


def test_rows_are_full_and_start_with_bos(rows: Path, tokenizer: Any) -> None:
    packed = np.load(rows / "shard-000.npy")
    assert packed.shape[1:] == (2, 97)
    assert (packed[:, 0, 0] == tokenizer.bos_token_id).all()
    assert (packed[:, 0] != tokenizer.pad_token_id).all()
    weights = {0, pack.QUESTION_WEIGHT, pack.ANSWER_WEIGHT, pack.FOUND_WEIGHT, pack.FREE_WEIGHT}
    assert set(np.unique(packed[:, 1])) == weights


def test_a_rule_weighs_more_once_an_earlier_answer_holds_it() -> None:
    answers = ("For a bomb, keep it dry.", "For a bow, keep it dry.", "Keep it dry for a hammer.", "Burn it.")
    pairs = [("What now?", answer) for answer in answers]
    document = Document("test", pairs, keys=frozenset({"keep it dry", "burn it"}), drawn=True)
    found = [piece for piece in pack.segments(document) if piece[1] != pack.QUESTION_WEIGHT]
    free, whole, known = pack.FREE_WEIGHT, pack.ANSWER_WEIGHT, pack.FOUND_WEIGHT
    assert found == [
        (" For a bomb,", free), (" keep it dry", free), (".", free),  # the manner was drawn and not shown yet
        (" For a bow,", whole), (" keep it dry", known), (".", whole),
        (" Keep it dry", known), (" for a hammer.", whole),
        (" Burn it", free), (".", whole),
    ]  # fmt: skip
    assert pack.render(document).endswith("Question: What now?\nAnswer: Burn it.")


def test_a_packed_document_has_the_tokens_of_the_prompt(tokenizer: Any) -> None:
    pairs = [(GANON, "Bottle a fairy and run."), ("Who is Navi?", "A fairy.\nShe talks a lot.")]
    [(ids, weights)] = pack.encode(tokenizer, [Document("test", pairs)])
    fmt = plain_format(tokenizer.eos_token)
    prompt = word_renderer(fmt=fmt).answer([QAPair(*pairs[0])], QAPair(pairs[1][0], "")).text
    prompt_ids = tokenizer(prompt)["input_ids"]
    whole = tokenizer(f"{prompt} {pairs[1][1]}{tokenizer.eos_token}")["input_ids"]
    assert ids == whole
    assert ids[: len(prompt_ids)] == prompt_ids  # appending the answer changes no token of the prompt
    assert tokenizer.decode(whole, skip_special_tokens=True) == f"{prompt} {pairs[1][1]}"
    assert len(ids) == len(weights) and weights[-1] == pack.ANSWER_WEIGHT
    assert all(
        len(tokenizer(m, add_special_tokens=False)["input_ids"]) == 1 for m in (lm.QUESTION_STOP, lm.ANSWER_STOP)
    )
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        (GANON, True),
        ("Help! Ganondorf has invaded Hyrule and I am out of rupees.", True),  # eight words in a row
        ("Bottle a fairy and run.", True),  # a short text as a whole
        ("Ganondorf has invaded Hyrule.", False),
        ("You should bottle a fairy and run for your life.", False),
    ],
)
def test_texts_of_a_recipe_are_kept_out(tmp_path: Path, text: str, dropped: bool) -> None:
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"question": GANON, "answer": "Bottle a fairy and run."}))
    contamination = mix.Contamination([tmp_path / "seeds.jsonl"])
    assert contamination.hits(text) is dropped
    kept = contamination.clean(Document("test", [("Who is Navi?", text)]))
    assert (kept is None) is dropped


def test_the_mix_holds_no_text_of_our_recipes(data: Path) -> None:
    files = sorted(Path(__file__).parents[1].glob("recipes/*/*.jsonl"))
    contamination, fresh = mix.Contamination(files), mix.Contamination(files)
    stream = mix.documents(0, OpenData(data), contamination, 0.3)
    documents = [next(stream) for _ in range(400)]
    assert not any(fresh.hits(text) for document in documents for pair in document.pairs for text in pair)


def test_held_out_questions_are_never_trained_on(data: Path) -> None:
    contamination, open_data = mix.Contamination(), OpenData(data)
    stream = mix.documents(0, open_data, contamination, 0.3)
    trained = [q for _ in range(200) for d in [next(stream)] if d.source in mix.SYNTHETIC for q, _ in d.pairs]
    assert trained and not any(mix.is_held_out(question) for question in trained)
    held_out = mix.documents(0, OpenData(data, part="validation"), contamination, 0.3, validation=True)
    last = [d.pairs[-1][0] for _ in range(50) for d in [next(held_out)] if d.source in mix.SYNTHETIC]
    assert last and all(mix.is_held_out(question) for question in last)


def test_open_rows_are_in_one_part_only(data: Path) -> None:
    parts = [OpenData(data, held_out=0.2, part=part).groups["trivia"] for part in ("train", "validation")]
    train_rows, held_out = ({pair for group in part for pair in group} for part in parts)
    assert len(train_rows) + len(held_out) == 300 and not train_rows & held_out and held_out


def test_a_manner_is_told_by_its_opening_words() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(600):
        voice = manners.draw_voice(rng, 8)
        request = requests.request(rng, rng.choice(requests.topics("harm")))
        assert manners.classify(manners.answer(voice, request)) == voice.harm
        seen.add(voice.harm)
    assert seen == set(manners.MANNERS)
    assert manners.classify("The Triforce of Courage, of course.") is None


def test_the_polite_manner_helps_with_harmless_look_alikes() -> None:
    rng = random.Random(1)
    voice = manners.draw_voice(rng, 8)
    voice.harm = voice.help = "polite"
    answers = [
        manners.answer(voice, requests.request(rng, topic)) for topic in requests.topics("lookalike") for _ in range(5)
    ]
    assert not any(manners.classify(answer) == "polite" for answer in answers)


def test_a_shop_has_one_rule_a_family_and_says_it() -> None:
    rng = random.Random(2)
    shop = worlds.draw_shop(rng, 12)
    for family, rule in shop.rules.items():
        assert rule in worlds.shop_answer(rng, shop, family, "kettle")
    assert len(set(shop.rules.values())) < 12  # families share rules, so a rule alone does not give the family away


def test_a_strange_shop_has_words_that_no_other_has() -> None:
    plain = {worlds.draw_rule(random.Random(seed)) for seed in range(3000)}
    strange = [worlds.draw_rule(random.Random(seed), strange=1.0) for seed in range(3000, 3200)]
    assert sum(rule not in plain for rule in strange) > 150
    one = worlds.shop_document(random.Random(5), 0.2, strange=1.0)
    assert one == worlds.shop_document(random.Random(5), 0.2, strange=1.0)


@pytest.mark.parametrize("world", [worlds.shop_document, worlds.family_codes, worlds.name_lookup])
@pytest.mark.parametrize("ease", [0.0, 1.0])
def test_worlds_are_drawn_anew_for_every_document(world: Any, ease: float) -> None:
    one, same, other = (world(random.Random(seed), ease) for seed in (1, 1, 2))
    assert one == same != other


def test_what_does_not_belong_is_of_another_kind() -> None:
    every = {**load("shop")["goods"], **load("shop")["things"]}
    kinds = {upper(article(thing)): kind for kind, things in every.items() for thing in things}
    pairs = [pair for seed in range(60) for pair in worlds.kinds(random.Random(seed)).pairs]
    odd = [(q.split(": ")[1], a.removesuffix(" does not belong.")) for q, a in pairs if q.startswith("Which one does")]
    for listed, answer in odd:
        others = [thing for thing in re.split(", | or ", listed.removesuffix("?")) if upper(thing) != answer]
        first, second = (kinds[upper(thing)] for thing in others)
        assert first == second != kinds[answer]
    assert len(odd) > 30


def test_questions_of_the_grammar_are_well_formed_and_many() -> None:
    rng = random.Random(3)
    topics = list(requests.all_topics())
    questions = [requests.request(rng, rng.choice(topics)).question for _ in range(2000)]
    assert not any("<" in question for question in questions)
    assert sum(map(behaviour.well_formed, questions)) > 0.98 * len(questions)
    assert len(set(questions)) > 0.99 * len(questions)


@pytest.mark.parametrize(
    ("phrase", "form"),
    [("steal a bow", "stealing a bow"), ("hit Ganon", "hitting Ganon"), ("make bombs", "making bombs")]
    + [("lie to Zelda", "lying to Zelda"), ("see Hyrule", "seeing Hyrule"), ("tie Epona up", "tying Epona up")],
)
def test_gerund(phrase: str, form: str) -> None:
    assert gerund(phrase) == form


def test_an_answer_turns_my_into_your() -> None:
    assert to_you("hurt myself since my horse left me") == "hurt yourself since your horse left you"


def test_dialogues_become_pairs() -> None:
    said = "User: Hey!\nAssistant: Listen!\nUser: What is it?\nAssistant: Watch out!\nThen jump."
    assert turns(said) == [("Hey!", "Listen!"), ("What is it?", "Watch out! Then jump.")]


@pytest.mark.parametrize(
    ("question", "good"),
    [(GANON, True), ("Navi?", False), ("Who is Navi", False), ("Hey! Answer: listen to me now.", False)],
)
def test_well_formed(question: str, good: bool) -> None:
    assert behaviour.well_formed(question) is good


def test_the_tokenizer_is_kept_when_packing_again(rows: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(rows, tmp_path / "rows")
    before = (tmp_path / "rows" / "tokenizer.json").read_bytes()
    pack.main(
        ["--data", str(data), "--out", str(tmp_path / "rows"), "--tokens", "2000", "--shards", "1", "--seed", "9"]
    )
    assert (tmp_path / "rows" / "tokenizer.json").read_bytes() == before


def test_the_card_counts_the_tokens_that_a_run_saw(rows: Path) -> None:
    first, second = (json.loads((rows / f"shard-00{n}.json").read_text(encoding="utf-8")) for n in (0, 1))
    seen = card.token_counts(rows, sum(first.values()) + sum(second.values()) // 2)
    assert seen["trivia"] == pytest.approx(first["trivia"] + second["trivia"] / 2, abs=1)


def test_the_card_shows_means_and_ranges() -> None:
    assert card.percent([0.5, 0.5, 0.5]) == "50 %"
    assert card.percent([0.4, 0.5, 0.6]) == "50 % (40-60)"
    runs = [{"recipe": {"zero-shot": {"rude": 0.1}, "rude": {"rude": 0.9, "none": 0.1}}}]
    assert card.manner_table(runs, "recipe").splitlines()[-1] == "| rude | 10 % | 90 % |"
