"""Scores of an answer: what each says, where it comes from, and what it costs.

Likelihoods are means over the answer's own tokens, in nats a token (the end of the answer is not one of them), so that
long and short answers can be compared. Every score but `distance` is the better the higher. Forward tokens are given
for a question of Q tokens, its prompt with demonstrations of P, n answers of A tokens, and seeds of S tokens; equal
prompts are read once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

from isara.asking import Asker
from isara.config import Score
from isara.errors import ModelError
from isara.files import value_hash
from isara.pool import Pool
from isara.records import Prompt, QAPair
from isara.render import Renderer
from isara.words import rouge_l, tokenize

OTHER_QUESTIONS = 3  # m, whose likelihoods are averaged in `question`
NEAREST_SEEDS = 3  # r, on which a pair is tried as a demonstration in `seeds`
_DECIMALS = 4  # the last bits of a likelihood depend on what it was batched with

# Demonstrations (nearest last), and the pair whose answer is scored after its question.
Shown: TypeAlias = tuple[Sequence[QAPair], QAPair]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, with what its scores depend on.

    Attributes:
        pair: Question and answer.
        demos: The demonstrations that it was asked with, nearest last.
        others: The other answers to the same question.
    """

    pair: QAPair
    demos: Sequence[QAPair] = ()
    others: Sequence[str] = ()


class Scorer:
    """Scores answers with the model that gave them.

    Args:
        asker: M_{t-1}, which answers.
        base: M_0; the same asker where it is the same model.
        seeds: D_0.
    """

    def __init__(self, asker: Asker, base: Asker, seeds: Pool) -> None:
        self.asker, self.base, self.seeds = asker, base, seeds

    def __call__(
        self, names: Sequence[Score], answers: Sequence[Answered], questions: Sequence[QAPair] = ()
    ) -> list[dict[str, float]]:
        """The scores of each answer by name, rounded to 4 decimals; an empty answer has none.

        Args:
            names: Which ones.
            answers: The answers.
            questions: From these come the other questions of the score `question`, or from the seeds where too few.

        Raises:
            ModelError: The engine gives no likelihoods, or a seed doesn't fit into the context.
        """
        scored = [each for each in answers if each.pair.answer]
        measure = _Measure(self, questions)
        columns: dict[str, list[float]] = {name: measure.column(name, scored) for name in names}
        rows = [
            {name: round(column[place], _DECIMALS) for name, column in columns.items()} for place in range(len(scored))
        ]
        left = iter(rows)
        return [next(left) if each.pair.answer else {} for each in answers]


class Likelihood:
    """Log-probabilities of answers under a model, each worked out once."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, shown: Sequence[Shown]) -> list[float]:
        """Nats a token of log p(answer | demonstrations, question), each in its place.

        Raises:
            ModelError: A question with its answer doesn't fit into the context, or the engine gives no likelihoods.
        """
        rendered = [self._rendered(*each) for each in shown]
        keys = [(prompt.text, pair.answer) for (prompt, _), (_, pair) in zip(rendered, shown, strict=True)]
        new = {key: row for key, row in zip(keys, rendered, strict=True) if key not in self._known}
        sums = self._asker.logprobs([prompt for prompt, _ in new.values()], [ids for _, ids in new.values()])
        for (key, (_, ids)), total in zip(new.items(), sums, strict=True):
            self._known[key] = total / max(1, len(ids))
        return [self._known[key] for key in keys]

    def _rendered(self, demos: Sequence[QAPair], pair: QAPair) -> tuple[Prompt, tuple[int, ...]]:
        """The prompt with as many of the demonstrations as fit, and the answer's ids."""
        renderer = self._asker.renderer
        alone = renderer.answer((), pair)
        ids, length = renderer.answer_ids(alone, pair.answer), renderer.context_length
        found = self._asker.prompt(pair, length - len(ids), [(demo, 0.0) for demo in demos])
        if found is None:
            raise ModelError(
                f"pair {pair.id} has {len(alone.ids)} + {len(ids)} tokens and the model reads at most {length}, so it "
                "can't be scored: shorten the pair or take it out"
            )
        return found[0], ids


class _Measure:
    """The scores of one batch: a likelihood that several of them need is asked for once."""

    def __init__(self, scorer: Scorer, questions: Sequence[QAPair]) -> None:
        self._seeds, self._questions = scorer.seeds, questions
        self._model, self._renderer = Likelihood(scorer.asker), scorer.asker.renderer
        self._base = self._model if scorer.base is scorer.asker else Likelihood(scorer.base)

    def column(self, name: Score, answers: Sequence[Answered]) -> list[float]:
        """The score of each answer."""
        match name:
            case "natural":
                return self.natural(answers)
            case "icl_gain":
                return self.icl_gain(answers)
            case "question":
                return self.question(answers)
            case "agree":
                return [agreement(each) for each in answers]
            case "seeds":
                return self.on_seeds(answers)
            case "distance":
                return [distance(each.pair, self._seeds) for each in answers]

    def natural(self, answers: Sequence[Answered]) -> list[float]:
        """How natural the answer is to the untuned model: log p_0(a | q).

        GRAPE (arXiv 2502.04194) keeps, of several answers, the one with the highest. Q + n·A tokens a question.
        """
        return self._base([((), each.pair) for each in answers])

    def icl_gain(self, answers: Sequence[Answered]) -> list[float]:
        """What the demonstrations add: log p(a | demos, q) - log p(a | q).

        A copied answer gains most, so a high value alone says little. P + Q + 2n·A tokens a question.
        """
        with_demos = self._model([(each.demos, each.pair) for each in answers])
        without = self._model([((), each.pair) for each in answers])
        return [shown - alone for shown, alone in zip(with_demos, without, strict=True)]

    def question(self, answers: Sequence[Answered]) -> list[float]:
        """What the question adds: log p(a | demos, q) - mean of log p(a | demos, q') over m other questions q'.

        An answer that fits every question, such as a bare refusal, has about 0. It is the forward score of ReFeri
        (arXiv 2506.17251) less its mean over questions (our choice). (1 + m)·(P + n·A) tokens a question.
        """
        own = self._model([(each.demos, each.pair) for each in answers])
        others = [self._others(each) for each in answers]
        swapped = self._model(
            [(each.demos, other) for each, found in zip(answers, others, strict=True) for other in found]
        )
        means = _means(swapped, [len(found) for found in others])
        # Without any other question nothing is known of this one's part.
        return [mine - mean if found else 0.0 for mine, mean, found in zip(own, means, others, strict=True)]

    def on_seeds(self, answers: Sequence[Answered]) -> list[float]:
        """What the pair teaches: mean over the r nearest seeds s of log p(a_s | (q, a), q_s) - log p(a_s | q_s).

        The backward score of ReFeri (arXiv 2506.17251), with the nearest seeds in the place of all. About
        r·n·(Q + A + S) tokens a question.
        """
        near = [[seed for seed, _ in self._seeds.nearest(each.pair, NEAREST_SEEDS)] for each in answers]
        pairs = [(each.pair, seed) for each, seeds in zip(answers, near, strict=True) for seed in seeds]
        taught = self._model([((pair,), seed) for pair, seed in pairs])
        alone = self._model([((), seed) for _, seed in pairs])
        gains = [after - before for after, before in zip(taught, alone, strict=True)]
        return list(_means(gains, [len(seeds) for seeds in near]))

    def _others(self, answered: Answered) -> list[QAPair]:
        """The answer beside other questions, those that leave it no room aside."""
        found = other_questions(answered, self._questions)
        found = (found + other_questions(answered, self._seeds.pairs))[:OTHER_QUESTIONS]
        swapped = [replace(answered.pair, question=other.question, before=other.before) for other in found]
        return [pair for pair in swapped if has_room(self._renderer, pair)]


def other_questions(answered: Answered, pairs: Sequence[QAPair]) -> list[QAPair]:
    """At most m pairs with other questions than the answered one, in an order that the texts alone decide.

    The demonstrations' own questions are passed over: after them the model would only copy the demonstration.
    """
    own = answered.pair.asked
    taken = {own, *(demo.asked for demo in answered.demos)}
    others = {pair.asked: pair for pair in pairs if pair.asked not in taken}
    return [others[asked] for asked in sorted(others, key=lambda asked: value_hash([own, asked]))[:OTHER_QUESTIONS]]


def has_room(renderer: Renderer, pair: QAPair) -> bool:
    """Whether question and answer fit into the context, as they have to for a likelihood."""
    alone = renderer.answer((), pair)
    return len(alone.ids) + len(renderer.answer_ids(alone, pair.answer)) <= renderer.context_length


def agreement(answered: Answered) -> float:
    """Mean ROUGE-L F of the answer with the other answers to its question, in [0, 1]; nothing is read for it."""
    words = tokenize(answered.pair.answer)
    return _mean([rouge_l(words, tokenize(other)) for other in answered.others])


def distance(pair: QAPair, seeds: Pool) -> float:
    """1 - the highest cosine of the question with another seed's; in [0, 2], and the lower the nearer."""
    nearest = seeds.nearest(pair, 1)
    return 1 - nearest[0][1] if nearest else 1.0


def _means(values: Sequence[float], sizes: Sequence[int]) -> Iterator[float]:
    """The mean of each run of so many values."""
    rest = iter(values)
    return (_mean(list(islice(rest, size))) for size in sizes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
