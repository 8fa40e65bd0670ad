"""What a run measures of each of its models, pair by pair: costs of held-out answers, own answers, forgetting."""

import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from isara.asking import Asker, no_demos
from isara.config import Config
from isara.errors import ConfigError
from isara.evaluate.domain import HeldoutEvaluator, HeldoutItem, summarise
from isara.evaluate.items import choose
from isara.evaluate.plain import bits_per_byte_plain, passages, plain_rows
from isara.evaluate.scorers import Scorer, build_scorer, heldout_rows
from isara.files import value_hash
from isara.generate import stream
from isara.keys import part_key
from isara.marks import clean
from isara.pool import Pool, Retrieve
from isara.records import GivenAnswer, HeldoutRow, Prompt, QAPair, Sampling
from isara.statistics import mean_error
from isara.words import rouge_l, tokenize

# A token whose probability the nearest seeds raise by less than this over that after random ones counts for nothing.
LEAST_WEIGHT = 0.1
_LEAST_SPLIT = 4  # answered pairs, below which they are not split into those that choose and those that judge


@dataclass(frozen=True, slots=True)
class Scoring:
    """What answers to the held-out questions are scored by.

    Attributes:
        rows: The held-out rows with all their columns, by the pair's id.
        scorers: By whether a pair belongs to the selection part: a scorer may weigh by what its part holds.
    """

    rows: Mapping[str, Mapping[str, Any]]
    scorers: Mapping[bool, Scorer]

    def key(self) -> dict[str, Any]:
        """What the scores depend on beside the answer."""
        names = {scorer.name for scorer in self.scorers.values()}
        rules = [part_key(scorer.score) for _, scorer in sorted(self.scorers.items())]
        return {"names": sorted(names), "rules": value_hash([rules, list(self.rows.values())])}


class RunEvaluator:
    """Measures the models of a run on held-out pairs.

    Args:
        heldout: Pairs that no training has seen.
        pool: Where demonstrations are retrieved from.
        demos: Demonstrations a prompt.
        max_new_tokens: Most tokens of a model's own answer.
        answered: Ids of the pairs whose questions the models answer.
        selection: Ids of those whose scores choose the iteration; empty where likelihood does.
        scoring: Scores the answers; None where the recipe names no score.

    Raises:
        SeedError: There are no held-out pairs, or one has no answer.
    """

    def __init__(
        self,
        heldout: Sequence[QAPair],
        pool: Pool,
        demos: int,
        max_new_tokens: int,
        answered: frozenset[str] = frozenset(),
        selection: frozenset[str] = frozenset(),
        scoring: Scoring | None = None,
    ) -> None:
        self.costs = HeldoutEvaluator(heldout, pool, demos)
        self.max_new_tokens = max_new_tokens
        self.answered, self.selection, self.scoring = answered, selection, scoring
        self._columns: dict[str, tuple[str, ...]] = {}

    def key(self) -> dict[str, Any]:
        """What the figures depend on beside the model."""
        return {
            **self.costs.key(),
            "max_new_tokens": self.max_new_tokens,
            "answered": value_hash(sorted(self.answered)),
            "selection": value_hash(sorted(self.selection)),
            "score": self.scoring.key() if self.scoring else None,
            "plain text": value_hash(passages()),
        }

    def __call__(self, asker: Asker) -> dict[str, float]:
        """The figures alone."""
        return self.measure(asker, base=False)[1]

    def measure(self, asker: Asker, base: bool) -> tuple[list[HeldoutRow], dict[str, float]]:
        """What each held-out pair has shown, in the order of the pairs, and the figures.

        Raises:
            ModelError: A question with its answer doesn't fit the model's context.
        """
        pairs = self.costs.heldout
        bits, weights = self._token_bits(asker, base)
        given = self._answers(asker, no_demos, self.answered)
        shown = self._answers(asker, self.costs.retrieve, self._compared(base))
        rows = [
            HeldoutRow(
                item.id,
                item.bytes,
                item.bits,
                item.bits_demos,
                item.demo_ids,
                pair.id in self.selection,
                tokens,
                weight,
                given.get(pair.id),
                shown.get(pair.id),
                self._stratum(pair),
            )
            for pair, (item, tokens), weight in zip(pairs, bits, weights, strict=True)
        ]
        plain = bits_per_byte_plain(asker)
        return rows, {
            **summarise([item for item, _ in bits]),
            **({} if plain is None else {"bits_per_byte_plain": plain}),
            **_answer_figures(rows),
        }

    def measure_shown(self, asker: Asker) -> tuple[list[HeldoutRow], dict[str, float]]:
        """The same of a model that was tuned to read demonstrations, after them alone.

        Raises:
            ModelError: A question with its answer doesn't fit the model's context.
        """
        items = self.costs.items(asker)
        shown = self._answers(asker, self.costs.retrieve, self._compared(True))
        rows = [
            HeldoutRow(
                **asdict(item),
                selects=pair.id in self.selection,
                given_demos=shown.get(pair.id),
                stratum=self._stratum(pair),
            )
            for pair, item in zip(self.costs.heldout, items, strict=True)
        ]
        figures = {name: value for name, value in summarise(items).items() if name == "pairs" or "_demos" in name}
        scored = first_scores(list(shown.values()))
        return rows, figures | ({"score_demos": _mean(scored)} if scored else {})

    def count_shown(self) -> int:
        """How many answers `measure_shown` has a model write."""
        return len(self._compared(True))

    def work_shown(self, asker: Asker) -> tuple[int, list[int]]:
        """As `work`, of `measure_shown`."""
        plain, near, _ = self.costs.prompts(asker)
        compared, read = self._compared(True), 0
        for pair, alone, after in zip(self.costs.heldout, plain, near, strict=True):
            read += sum(
                len(prompt.ids) + len(asker.renderer.answer_ids(prompt, pair.answer)) for prompt in (alone, after)
            )
            read += (pair.id in compared) * len(after.ids)
        return read, [len(compared)] if compared else []

    def count_answers(self, base: bool) -> int:
        """How many answers measuring a model writes; what it reads before takes a while, too."""
        return len(self.answered) + len(self._compared(base))

    def work(self, asker: Asker, base: bool) -> tuple[int, list[int]]:
        """Tokens that measuring a model reads, and how many answers it writes in each call; nothing is asked for it."""
        plain, near, _ = self.costs.prompts(asker)
        compared, weighed = self._compared(base), base and self.scoring is None and self.costs.demos > 0
        read = sum(len(prompt.ids) + len(ids) for prompt, ids, _ in plain_rows(asker.renderer))
        for pair, alone, after in zip(self.costs.heldout, plain, near, strict=True):
            answer, zero, shot = len(asker.renderer.answer_ids(alone, pair.answer)), len(alone.ids), len(after.ids)
            # Random demonstrations, which weigh the tokens, are taken to be as long as the nearest.
            read += zero + answer + (1 + weighed) * (shot + answer)
            read += (pair.id in self.answered) * zero + (pair.id in compared) * shot
        return read, [len(ids) for ids in (self.answered, compared) if ids]

    def _compared(self, base: bool) -> Set[str]:
        """The pairs that the model answers after demonstrations, too.

        What is generated costs most, so only the base model does, and only where that is compared.
        """
        return self.answered - self.selection if base and self.costs.demos and self.scoring else frozenset()

    def _token_bits(
        self, asker: Asker, base: bool
    ) -> tuple[list[tuple[HeldoutItem, tuple[float, ...]]], list[tuple[float, ...]]]:
        """What each answer costs, token by token where the engine can tell; of the base model the tokens' weights."""
        pairs, nothing = self.costs.heldout, [()] * len(self.costs.heldout)
        plain, near, demo_ids = self.costs.prompts(asker)
        # Where answers are scored, nothing is weighed by tokens.
        far = self._far(asker, plain) if base and self.scoring is None else None
        prompts = [*plain, *near, *(far or ())]
        texts = [asker.renderer.answer_ids(prompt, pairs[i % len(pairs)].answer) for i, prompt in enumerate(prompts)]
        logprobs = asker.token_logprobs(prompts, texts)
        if logprobs is None:
            return [(item, ()) for item in self.costs.items(asker)], list(nothing)
        alone, after = logprobs[: len(pairs)], logprobs[len(pairs) : 2 * len(pairs)]
        measured = [
            (
                HeldoutItem(pair.id, len(pair.answer.encode()), _bits(sum(zero)), _bits(sum(shot)), ids),
                tuple(map(_bits, zero)),
            )
            for pair, zero, shot, ids in zip(pairs, alone, after, demo_ids, strict=True)
        ]
        if far is None:
            return measured, list(nothing)
        return measured, list(map(_weights, alone, after, logprobs[2 * len(pairs) :]))

    def _far(self, asker: Asker, plain: Sequence[Prompt]) -> list[Prompt] | None:
        """Each pair's prompt after as many random pairs as are not among its nearest; None where there are too few."""
        k, pool, length = self.costs.demos, self.costs.pool, asker.renderer.context_length
        prompts = []
        for pair, prompt in zip(self.costs.heldout, plain, strict=True):
            others = pool.nearest(pair, len(pool))[:-k] if k else []
            if len(others) < max(1, k):
                return None
            drawn = random.Random(stream(0, "random demonstrations", pair.id)).sample(others, k)
            room = length - len(asker.renderer.answer_ids(prompt, pair.answer))
            found = asker.prompt(pair, room, drawn)
            assert found is not None, "the nearest have been fitted into the same room"
            prompts.append(found[0])
        return prompts

    def _answers(self, asker: Asker, retrieve: Retrieve, ids: Set[str]) -> dict[str, GivenAnswer]:
        """The model's own greedy answers to the pairs of these ids, by id."""
        asked = [pair for pair in self.costs.heldout if pair.id in ids]
        seeds = [stream(0, "answer", pair.question) for pair in asked]
        draws = asker.answers(asked, Sampling(0.0, 1.0, self.max_new_tokens), seeds, retrieve)
        found = {}
        for pair, draw in zip(asked, draws, strict=True):
            text, cut = (draw.text, draw.finish == "length") if draw else ("", False)
            found[pair.id] = GivenAnswer(
                text, cut, rouge_l(tokenize(text), tokenize(pair.answer)), self._score(pair, text)
            )
        return found

    def _stratum(self, pair: QAPair) -> str | None:
        if self.scoring is None or pair.id not in self.scoring.rows:
            return None
        stratum = self.scoring.scorers[pair.id in self.selection].stratum
        return None if stratum is None else str(stratum(self.scoring.rows[pair.id]))

    def _score(self, pair: QAPair, answer: str) -> dict[str, float]:
        if self.scoring is None:
            return {}
        scorer = self.scoring.scorers[pair.id in self.selection]
        values = dict(scorer.score(self.scoring.rows[pair.id], {"answer": answer}))
        first = self._columns.setdefault(pair.id, tuple(values))
        if set(first) != set(values):
            raise ConfigError(
                f"expected {', '.join(first)} from {scorer.name} for every answer to {clean(repr(pair.asked), 60)}, "
                f"found {', '.join(values)}: let columns depend on the question alone"
            )
        # In one order for all models: the first column is what they are compared by.
        return {column: values[column] for column in first}


def build_evaluator(config: Config, heldout: Sequence[QAPair], pool: Pool) -> RunEvaluator:
    """What a config measures on its held-out pairs.

    Raises:
        ConfigError: The score misses something, or is to choose and there is none.
    """
    options = config.evaluate
    if options.select == "score" and options.score is None:
        raise ConfigError("evaluate.select is score: expected evaluate.score to name one, found none: name it")
    if options.by_score and options.answers < _LEAST_SPLIT:
        raise ConfigError(
            f"the score chooses the iteration: expected evaluate.answers of at least {_LEAST_SPLIT}, found "
            f"{options.answers}: raise it, or set evaluate.select to likelihood"
        )
    answered, selection = split_answered(config, heldout)
    scoring = _scoring(config, answered, selection) if options.score is not None and answered else None
    ids = frozenset(pair.id for pair in answered)
    return RunEvaluator(heldout, pool, options.demos, config.answers.max_new_tokens, ids, selection, scoring)


def split_answered(config: Config, heldout: Sequence[QAPair]) -> tuple[Sequence[QAPair], frozenset[str]]:
    """The held-out pairs whose questions are answered, and the ids of those whose scores choose the iteration."""
    options = config.evaluate
    answered = choose(heldout, options.answers)
    if not options.by_score or len(answered) < _LEAST_SPLIT:
        return answered, frozenset()
    size = min(max(1, round(options.select_share * len(answered))), len(answered) - 1)
    return answered, frozenset(pair.id for pair in choose(answered, size))


def _scoring(config: Config, answered: Sequence[QAPair], selection: frozenset[str]) -> Scoring:
    rows = {pair.id: row for pair, row in zip(answered, heldout_rows(config, answered), strict=True)}
    parts = {part: [row for pair_id, row in rows.items() if (pair_id in selection) is part] for part in (False, True)}
    return Scoring(rows, {part: build_scorer(config, found, part=True) for part, found in parts.items() if found})


def _answer_figures(rows: Sequence[HeldoutRow]) -> dict[str, float]:
    """Means over the answers that the verdict is about, and over those that choose the iteration."""
    told = [(row.given, row.given_demos) for row in rows if row.given and not row.selects]
    if not told:
        return {}
    answers, shown = [given for given, _ in told], [given for _, given in told if given]
    figures = {
        "answered": float(len(answers)),
        "rouge_l": _mean([given.rouge_l for given in answers]),
        "cut": _mean([given.cut for given in answers]),
    }
    scored = first_scores(answers)
    if scored:
        kinds = [row.stratum for row in rows if row.given and not row.selects]
        error = mean_error(scored, kinds if len(kinds) == len(scored) else None)
        figures |= {"score": _mean(scored)} | ({} if math.isnan(error) else {"score_se": error})
        figures |= {"score_demos": _mean(first_scores(shown))} if shown else {}
    choosing = first_scores([row.given for row in rows if row.given and row.selects])
    return figures | ({"score_select": _mean(choosing)} if choosing else {})


def first_scores(answers: Sequence[GivenAnswer]) -> list[float]:
    """The values of the column that models are compared by, of the answers that have one."""
    if (column := first_column(answers)) is None:
        return []
    return [given.scores[column] for given in answers if column in given.scores]


def first_column(answers: Sequence[GivenAnswer]) -> str | None:
    """The column that models are compared by: the first one of the first answer that has any."""
    return next((column for given in answers for column in given.scores), None)


def _weights(alone: Sequence[float], near: Sequence[float], far: Sequence[float]) -> tuple[float, ...]:
    """What each token says of content: how much likelier the nearest seeds make it than random ones, from 0 to 1.

    What every answer of the domain has in common is as likely after either, and what nobody could infer as unlikely.
    Empty where the prompts have split the answer in different ways, which some tokenizers do.
    """
    if not len(alone) == len(near) == len(far):
        return ()
    gains = [math.exp(one) - math.exp(other) for one, other in zip(near, far, strict=True)]
    return tuple(gain if gain >= LEAST_WEIGHT else 0.0 for gain in gains)


def _bits(logprob: float) -> float:
    return max(0.0, -logprob / math.log(2))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
