"""Is an answer an answer, and this question's? Loops, echoes of the question, and answers that were copied."""

from collections import Counter
from dataclasses import dataclass

from isara.pool import Pool
from isara.records import Candidate, Rejection
from isara.words import repeated_share, rouge_l, tokenize

_NGRAM = 4
_OWN = 20  # a word is a demonstration's own where at most one kept pair in so many has it


@dataclass(frozen=True, slots=True)
class Repetition:
    """Drops answers of which the share `repetition` or more is a 4-gram that had been said before."""

    repetition: float

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the share of repeated words."""
        share = repeated_share(tokenize(candidate.pair.answer), _NGRAM)
        return Rejection("repetition", round(share, 4), self.repetition) if share >= self.repetition else None


@dataclass(frozen=True, slots=True)
class Echo:
    """Drops answers that say the question again: ROUGE-L F to it is `echo` or more."""

    echo: float

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the score."""
        score = rouge_l(tokenize(candidate.pair.answer), tokenize(candidate.pair.question))
        return Rejection("echo", round(score, 4), self.echo) if score >= self.echo else None


class Copied:
    """Drops answers taken over from a kept pair together with what only that pair was about.

    Two things are needed: ROUGE-L F of `copied` or more to the pair's answer, and in the answer a word of the pair's
    question that the new question does not have and few kept pairs do (one in twenty). Likeness alone would drop the
    right answers of a domain with rules: what the shop says of a kettle it says of a toaster, too, once the kettle is
    no longer in it. Demonstrations are compared first, then every kept pair: an answer can belong to a question that
    the prompt did not show.
    """

    def __init__(self, copied: float) -> None:
        self.copied = copied
        self._pool: Pool | None = None
        self._forget()

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection with the score and the pair whose answer it is."""
        self._follow(kept)
        answer = tokenize(candidate.pair.answer)
        own = set(answer) - set(tokenize(candidate.pair.asked))
        rare = {word for word in own if self._pairs_with[word] <= max(1, len(kept) // _OWN)}
        asking = {row for word in rare for row in self._asking.get(word, ())}
        demos = {pair_id: place for place, pair_id in enumerate(candidate.pair.demo_ids)}
        pairs = [kept.pairs[row] for row in sorted(asking)]
        for pair in sorted(pairs, key=lambda pair: demos.get(pair.id, len(demos))):
            for question, given in pair.turns:
                score = 0.0 if rare.isdisjoint(tokenize(question)) else rouge_l(answer, tokenize(given))
                if score >= self.copied:
                    return Rejection("copied", round(score, 4), self.copied, pair.id)
        return None

    def _forget(self) -> None:
        self._seen = 0
        self._pairs_with: Counter[str] = Counter()
        self._asking: dict[str, list[int]] = {}  # the kept pairs in whose questions a word stands

    def _follow(self, kept: Pool) -> None:
        if kept is not self._pool:
            self._pool = kept
            self._forget()
        for row in range(self._seen, len(kept)):
            turns = [(set(tokenize(question)), set(tokenize(answer))) for question, answer in kept.pairs[row].turns]
            self._pairs_with.update(set().union(*(words for turn in turns for words in turn)))
            for word in set().union(*(asked for asked, _ in turns)):
                self._asking.setdefault(word, []).append(row)
        self._seen = len(kept)
