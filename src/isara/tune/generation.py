"""A few generated rows for each temperature: how many pass the filters, and how near answers come to the seeds' own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from isara.asking import Asker
from isara.generate import filter_questions, first_rejection, stream
from isara.parts import Parts
from isara.pool import Pool, retriever
from isara.records import Candidate, QAPair, Sampling
from isara.statistics import Interval, wilson
from isara.words import rouge_l, tokenize


@dataclass(frozen=True, slots=True)
class Sampled:
    """Texts that were drawn at one temperature.

    Attributes:
        setting: "questions.temperature" or "answers.temperature".
        value: The temperature.
        passed: Whether each text passed the filters.
        scores: Of questions the cosine with the nearest seed's, of answers ROUGE-L with the seed's own answer.
    """

    setting: str
    value: float
    passed: tuple[bool, ...]
    scores: tuple[float, ...]

    @property
    def share(self) -> float:
        """The share that passed."""
        return sum(self.passed) / len(self.passed)

    @property
    def interval(self) -> Interval:
        """Of that share."""
        return wilson(sum(self.passed), len(self.passed))


def questions(parts: Parts, asker: Asker, temperature: float, count: int) -> Sampled:
    """New questions, each after demonstrations of its own, and what the question filters say of them."""
    config, pool = parts.config, Pool(parts.embedder, parts.seeds)
    sampling = replace(config.questions.sampling, temperature=temperature)
    seeds = [stream(config.seed, "tune", "question", index) for index in range(count)]
    demos = [
        pool.sample(config.questions.demos, Random(stream(config.seed, "tune", "demonstrations", index)))
        for index in range(count)
    ]
    draws = asker.questions(demos, sampling, seeds, asker.room(sampling, "questions"))
    candidates = [Candidate(QAPair(draw.text, "", 1), draw) for draw in draws]
    filter_questions(candidates, pool, parts.question_filters)
    near = tuple(found[1] for draw in draws if (found := pool.closest(draw.text)))
    passed = tuple(each.rejection is None for each in candidates)
    return Sampled("questions.temperature", temperature, passed, near)


def answers(parts: Parts, asker: Asker, temperature: float, demos: int, asked: Sequence[QAPair]) -> Sampled:
    """Answers to seeds' own questions after the nearest other seeds, beside the answers that the seeds have."""
    config, pool = parts.config, Pool(parts.embedder, parts.seeds)
    sampling: Sampling = replace(config.answers.sampling, temperature=temperature)
    retrieve = retriever(pool, config.answers.retrieve if demos else "none", demos, config.seed)
    seeds = [stream(config.seed, "tune", "answer", pair.question) for pair in asked]
    open_pairs = [replace(pair, answer="") for pair in asked]
    draws = asker.answers(open_pairs, sampling, seeds, retrieve)
    passed, scores = [], []
    for pair, draw in zip(asked, draws, strict=True):
        text = draw.text if draw else ""
        scores.append(rouge_l(tokenize(text), tokenize(pair.answer)))
        passed.append(draw is not None and _passes(parts, pair, Candidate(replace(pair, answer=text), draw, (draw,))))
    return Sampled("answers.temperature", temperature, tuple(passed), tuple(scores))


def _passes(parts: Parts, pair: QAPair, candidate: Candidate) -> bool:
    """Whether the pair filters keep an answer; the seed that asked it does not stand among the kept pairs."""
    assert candidate.answer is not None
    candidate.pair = replace(candidate.pair, demo_ids=candidate.answer.demo_ids, iteration=1)
    kept = Pool(parts.embedder, [other for other in parts.seeds if other.id != pair.id])
    return first_rejection(candidate, kept, parts.pair_filters) is None
