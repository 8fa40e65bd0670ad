"""Is an answer an answer? Loops, echoes of the question, and demonstrations that were copied."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isara.pool import Pool
from isara.records import Candidate, Rejection
from isara.words import ngrams, rouge_l, tokenize

_NGRAM = 4
_OWN = 20  # a word is a demonstration's own where at most one kept pair in so many has it


@dataclass(frozen=True, slots=True)
class Repetition:
    """Drops answers of which the share `repetition` or more is a 4-gram that had been said before."""

    repetition: float = 0.3

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the share of repeated words."""
        share = repeated_share(tokenize(candidate.pair.answer), _NGRAM)
        return Rejection("repetition", round(share, 4), self.repetition) if share >= self.repetition else None


def repeated_share(tokens: Sequence[str], n: int) -> float:
    """Share of tokens in n-grams that occurred earlier in the text, in [0, 1).

    The duplicate n-gram fraction of Gopher (Rae et al. 2021, table A1), counted in tokens instead of characters so that
    it means the same in every script. Repeats don't overlap: after one, the search goes on behind it.
    """
    seen: set[str] = set()
    grams = list(ngrams(tokens, n))
    repeated = index = 0
    while index < len(grams):
        if grams[index] in seen:
            repeated += n
            index += n
        else:
            seen.add(grams[index])
            index += 1
    return repeated / len(tokens) if tokens else 0.0


@dataclass(frozen=True, slots=True)
class Echo:
    """Drops answers that say the question again: ROUGE-L F to it is `echo` or more."""

    echo: float = 0.9

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the score."""
        score = rouge_l(tokenize(candidate.pair.answer), tokenize(candidate.pair.question))
        return Rejection("echo", round(score, 4), self.echo) if score >= self.echo else None


class Copied:
    """Drops answers taken over from a demonstration together with what only that demonstration was about.

    Two things are needed: ROUGE-L F of `copied` or more to a demonstration's answer, and in the answer a word of the
    demonstration's question that the new question does not have and few kept pairs do (one in twenty). Likeness alone
    would drop the right answers of a domain with rules: what the shop says of a kettle it says of a toaster, too, once
    the kettle is no longer in it.
    """

    def __init__(self, copied: float = 0.9) -> None:
        self.copied = copied
        self._pool: Pool | None = None
        self._seen = 0
        self._pairs_with: Counter[str] = Counter()

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the score and the demonstration."""
        answer = tokenize(candidate.pair.answer)
        for demo_id in candidate.pair.demo_ids:
            demo = kept.get(demo_id)
            if demo is None:
                continue
            for question, given in demo.turns:
                score = rouge_l(answer, tokenize(given))
                if score >= self.copied and self._speaks_of(question, candidate, kept):
                    return Rejection("copied", round(score, 4), self.copied, demo_id)
        return None

    def _speaks_of(self, question: str, candidate: Candidate, kept: Pool) -> bool:
        self._follow(kept)
        words = set(tokenize(question)) & set(tokenize(candidate.pair.answer))
        words -= set(tokenize(candidate.pair.question))
        return any(self._pairs_with[word] <= max(1, len(kept) // _OWN) for word in words)

    def _follow(self, kept: Pool) -> None:
        if kept is not self._pool:
            self._pool, self._seen, self._pairs_with = kept, 0, Counter()
        for pair in kept.pairs[self._seen :]:
            self._pairs_with.update({word for turn in pair.turns for text in turn for word in tokenize(text)})
        self._seen = len(kept)
