"""Held against a second answer, after other demonstrations or by another model: do both say the same?"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from isara.filters.following import SeedsOf
from isara.nearness import stride
from isara.pool import Pool
from isara.records import Candidate, Rejection
from isara.words import tokenize

AUTO = 0.5  # of `agreement: auto` where it is on; measured with it (docs/results.md)
_MOST = 200  # seeds that are looked at


class Agreement:
    """Drops an answer that says something else than a second answer to the same question.

    Self-consistency (arXiv 2203.11171) over demonstrations in the place of samples. What a small model says after
    demonstrations is often one of theirs; where others lead to the same, more than one seed speaks for it. Or the
    second answer is that of the base model fine-tuned on the seeds, asked without demonstrations (`agreement_with:
    seeds`): who reads an answer off a neighbour and who has learnt it err in different places, as the two views of
    co-training do (Blum and Mitchell 1998).

    Args:
        agreement: The least share of content that the two have in common, as `shared_content` counts it.
    """

    def __init__(self, agreement: float) -> None:
        self.agreement = agreement
        self._seeds_of = SeedsOf()
        self._seeds: object = None
        self._weights: dict[str, float] = {}

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the share; without a second answer, since it did not fit, there is none."""
        if candidate.second is None:
            return None
        seeds = self._seeds_of(kept)
        if seeds is not self._seeds:
            self._seeds, self._weights = seeds, content_weights([pair.answer for pair in seeds])
        share = shared_content(candidate.pair.answer, candidate.second.text, candidate.pair.question, self._weights)
        return Rejection("agreement", round(share, 4), self.agreement) if share < self.agreement else None


def repeated_share(answers: Sequence[str], questions: Sequence[str]) -> float:
    """The share of the seeds whose answer says what another seed's answer says, half of its content or more.

    It tells domains of rules and fixed facts (0.81 of the shop's seeds, all of the lending shed's) from prose, where
    two good answers differ in words (0 of the safety recipe's and of two lists of questions about construction, 0.08 of
    64 rows of TruthfulQA). Answers that are all one have no content, and say nothing again. Of many seeds some are
    looked at, each beside all others.

    Args:
        answers: The seeds'.
        questions: Theirs, in the same order.
    """
    weights = content_weights(answers)
    counts = [Counter(tokenize(answer)) for answer in answers]
    holders: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(counts):
        for word in words:
            holders[word].append(number)

    def content(words: Counter[str], asked: set[str]) -> float:
        return sum(count * weights[word] for word, count in words.items() if word not in asked)

    def is_said_again(place: int) -> bool:
        asked, own = set(tokenize(questions[place])), counts[place]
        common: dict[int, float] = defaultdict(float)
        for word, count in own.items():
            if weights[word] and word not in asked:
                for other in holders[word]:
                    common[other] += min(count, counts[other][word]) * weights[word]
        common.pop(place, None)
        whole = content(own, asked)
        return any(2 * share >= AUTO * (whole + content(counts[other], asked)) for other, share in common.items())

    looked_at = range(0, len(answers), stride(len(answers), _MOST))
    return sum(map(is_said_again, looked_at)) / max(1, len(looked_at))


def content_weights(answers: Sequence[str]) -> dict[str, float]:
    """How much of the content a word is: log(n / df) over n answers, 0 for what stands in every one (tone)."""
    found = Counter(word for answer in answers for word in set(tokenize(answer)))
    return {word: math.log(len(answers) / count) for word, count in found.items()}


def shared_content(answer: str, other: str, question: str, weights: Mapping[str, float]) -> float:
    """The weight of the words that two answers to a question have in common, over what both have on average (Dice).

    Words of the question count nothing: whatever is answered has them. A word that is not among the weights weighs as
    much as the heaviest, or 1 where all answers are one. Two answers without content agree.

    Returns:
        A share in [0, 1].
    """
    heaviest = max(weights.values(), default=1.0) or 1.0
    asked = set(tokenize(question))
    ours, theirs = (Counter(word for word in tokenize(text) if word not in asked) for text in (answer, other))

    def weigh(words: Counter[str]) -> float:
        return sum(count * weights.get(word, heaviest) for word, count in words.items())

    whole = weigh(ours) + weigh(theirs)
    return 2 * weigh(ours & theirs) / whole if whole else 1.0
