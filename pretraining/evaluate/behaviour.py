"""Manners, generated questions and answers, and the shop's rules: what the loop needs of the model."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isara.embedders import LexicalEmbedder
from isara.filters.novelty import Novelty
from isara.pool import Pool
from isara.records import Candidate, Draw, QAPair
from pretraining import manners, mix, requests, worlds
from pretraining.evaluate.lm import ANSWER_STOP, LM, QUESTION_STOP, Pair, answer_prompt, question_prompt, sample_demos
from pretraining.evaluate.nearest import nearest
from pretraining.text import load

Row = dict[str, Any]
SHOWN = ("polite", "comply", "curt", "rude", "careful", "lecture")


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def pairs_of(rows: Sequence[Row]) -> list[Pair]:
    """Questions and answers of recipe rows."""
    return [(row["question"], row["answer"]) for row in rows]


def manner_demos(rng: random.Random, manner: str, count: int) -> list[Pair]:
    """Demonstrations of one manner on harmful questions, in one voice."""
    while True:
        voice = manners.draw_voice(rng, 8)
        if voice.harm == manner and not voice.hello:
            asked = [requests.request(rng, rng.choice(requests.topics("harm"))) for _ in range(count)]
            return [(request.question, manners.answer(voice, request)) for request in asked]


def held_out_harm(count: int, seed: int) -> list[str]:
    """Harmful questions of the grammar that training never saw."""
    rng = random.Random(f"held out/{seed}")
    found: list[str] = []
    while len(found) < count:
        question = requests.request(rng, rng.choice(requests.topics("harm"))).question
        if mix.is_held_out(question):
            found.append(question)
    return found


def manner_shares(lm: LM, questions: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    """For zero-shot and for five demonstrations of each manner: the share of greedy answers in each manner."""
    rng = random.Random(seed)
    shares = {}
    for manner in ("zero-shot", *SHOWN):
        prompts = [answer_prompt([] if manner == "zero-shot" else manner_demos(rng, manner, 5), q) for q in questions]
        answers = [text for text, _ in lm.generate(prompts, ANSWER_STOP, 64)]
        counts = Counter(manners.classify(text) or "none" for text in answers)
        shares[manner] = {name: count / len(questions) for name, count in counts.most_common()}
    return shares


def well_formed(question: str) -> bool:
    """Ends as a question or request, 3 to 40 words, one line, no repeated run of three words."""
    words = question.split()
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return (
        3 <= len(words) <= 40
        and question[-1] in ".?!"
        and not re.search(r"\n|Question:|Answer:", question)
        and len(runs) == len(set(runs))
    )


def novel(questions: Sequence[str], seeds: Sequence[str]) -> list[bool]:
    """Whether each question passes the package's novelty filter against all seeds and the questions kept before it."""
    kept, reject = Pool(LexicalEmbedder(), [QAPair(seed, "") for seed in seeds]), Novelty(0.7)
    verdicts = []
    for pair in (QAPair(question, "") for question in questions):
        verdicts.append(reject(Candidate(pair, Draw(pair.question, 0, "stop", "", 0)), kept) is None)
        if verdicts[-1]:
            kept.add([pair])
    return verdicts


def generation(lm: LM, seeds: Sequence[Pair], count: int, seed: int) -> dict[str, Any]:
    """Questions from eight random seeds each, answers with the five nearest: form, novelty, and how many end."""
    rng = random.Random(seed)
    prompts = [question_prompt(sample_demos(rng, seeds, 8)) for _ in range(count)]
    made = lm.generate(prompts, QUESTION_STOP, 64, temperature=1.0, seed=seed)
    good = [text for text, ended in made if ended and well_formed(text)]
    new = [text for text, is_new in zip(good, novel(good, [q for q, _ in seeds]), strict=True) if is_new]
    prompts = [answer_prompt(demos, q) for q, demos in zip(new, nearest(seeds, new, 5), strict=True)]
    answers = lm.generate(prompts, ANSWER_STOP, 96, temperature=0.5, seed=seed)
    return {
        "well_formed": len(good) / count,
        "novel": len(new) / count,
        "answers_end": sum(ended for _, ended in answers) / max(1, len(answers)),
        # The first that came, not the best: well-formed or not.
        "raw": [(text, ended) for text, ended in made[:20]],
        "pairs": [(q, a) for q, (a, _) in zip(new, answers, strict=True)][:20],
    }


def refusals(lm: LM, recipe: Path, seed: int) -> dict[str, dict[str, float]]:
    """The recipe's own exact rule on its held-out questions, zero-shot and with the five nearest seeds."""
    rule = re.compile("|".join(json.loads((recipe / "manner.json").read_text(encoding="utf-8"))["refusal"]))
    seeds, rows = pairs_of(read_rows(recipe / "seeds.jsonl")), read_rows(recipe / "heldout.jsonl")
    rng, questions = random.Random(seed), [row["question"] for row in rows]
    arms: dict[str, list[list[Pair]]] = {
        "zero-shot": [[] for _ in rows],
        "5 random": [sample_demos(rng, seeds, 5) for _ in rows],
        "5 nearest": nearest(seeds, questions, 5),
    }
    result = {}
    for arm, demos in arms.items():
        made = lm.generate([answer_prompt(d, q) for d, q in zip(demos, questions, strict=True)], ANSWER_STOP, 96)
        hits = [bool(rule.fullmatch(text)) for text, _ in made]
        groups = {"harmful": True, "harmless": False}
        result[arm] = {
            name: _share([hit for hit, row in zip(hits, rows, strict=True) if row["harmful"] is flag])
            for name, flag in groups.items()
        }
    return result


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def shop_accuracy(lm: LM, recipe: Path, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Right rules on the recipe's held-out items, with the share of prompts in which the right rule stood.

    Right is the recipe's own exact test: the row's rule letter for letter, and none of the other rules.
    """
    rows, held_out = read_rows(recipe / "seeds.jsonl"), read_rows(recipe / "heldout.jsonl")
    seeds, rng = pairs_of(rows), random.Random(seed)
    rule, family = ({row["question"]: row[key] for row in rows} for key in ("rule", "family"))
    own = [[pair for pair in seeds if family[pair[0]] == row["family"]] for row in held_out]
    arms: dict[str, list[list[Pair]]] = {
        "zero-shot": [[] for _ in held_out],
        f"{count} random": [sample_demos(rng, seeds, count) for _ in held_out],
        f"{count} nearest": nearest(seeds, [row["question"] for row in held_out], count),
        "2 of the family among 6": [_mixed(rng, seeds, pairs) for pairs in own],
    }
    result = {}
    for arm, demos in arms.items():
        prompts = [answer_prompt(d, row["question"]) for d, row in zip(demos, held_out, strict=True)]
        made = lm.generate(prompts, ANSWER_STOP, 96)
        said = [{text for text in rule.values() if text in answer} for answer, _ in made]
        shown = [row["rule"] in {rule[q] for q, _ in d} for row, d in zip(held_out, demos, strict=True)]
        right = [found == {row["rule"]} for row, found in zip(held_out, said, strict=True)]
        result[arm] = {"right": _share(right), "rule_in_prompt": _share(shown)}
    return result


def _mixed(rng: random.Random, seeds: Sequence[Pair], own: Sequence[Pair]) -> list[Pair]:
    others = [pair for pair in seeds if pair not in own]
    demos = sample_demos(rng, others, 4) + sample_demos(rng, own, 2)
    rng.shuffle(demos)
    return demos


def grammar_shop_accuracy(lm: LM, families: int, count: int, seed: int) -> float:
    """New shops of the grammar: twelve pairs of `families` families, then a new item of a family that was shown."""
    rng = random.Random(f"shops/{seed}")
    prompts, rules = [], []
    for _ in range(count):
        shop = worlds.draw_shop(rng, families)
        goods = {f: rng.sample(load("shop")["goods"][f], 8) for f in shop.families}
        shown = [rng.choice(shop.families) for _ in range(12)]
        demos = [_shop_pair(rng, shop, f, rng.choice(goods[f][:-1])) for f in shown]
        asked = rng.choice(shown)
        prompts.append(answer_prompt(demos, worlds.shop_question(rng, goods[asked][-1])))
        rules.append(shop.rules[asked])
    made = lm.generate(prompts, ANSWER_STOP, 64)
    return _share([rule in text for rule, (text, _) in zip(rules, made, strict=True)])


def _shop_pair(rng: random.Random, shop: worlds.Shop, family: str, item: str) -> Pair:
    return worlds.shop_question(rng, item), worlds.shop_answer(rng, shop, family, item)
