"""Drops answers that state what nobody told the model: numbers and contacts that no seed has and nobody asked about."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from isara.filters.facts import Fact, amounts, contacts, known_amounts, known_contacts
from isara.filters.following import SeedsOf
from isara.marks import clean
from isara.pool import Pool
from isara.records import Candidate, QAPair, Rejection

_log = logging.getLogger("isara")
_SHOWN = 60


class UnsupportedNumbers:
    """Drops answers with a number, money amount, percentage, date or time that no seed has and that was not asked.

    Args:
        unsupported_numbers: Whether to; "auto" does where no seed itself does it, held against the other seeds.
    """

    def __init__(self, unsupported_numbers: Literal["auto"] | bool) -> None:
        self.unsupported_numbers = unsupported_numbers
        self._known = _Known("unsupported_numbers", unsupported_numbers == "auto", amounts, known_amounts)

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the text of the first such number."""
        fact = self._known.unsupported(candidate.pair, kept)
        return Rejection("unsupported_numbers", fact.text) if fact else None


class UnsupportedContacts:
    """Drops answers with an e-mail or postal address, URL, telephone number or handle of no seed, not asked either.

    Args:
        unsupported_contacts: Whether to; "auto" does where no seed itself does it, held against the other seeds.
    """

    def __init__(self, unsupported_contacts: Literal["auto"] | bool) -> None:
        self.unsupported_contacts = unsupported_contacts
        self._known = _Known("unsupported_contacts", unsupported_contacts == "auto", contacts, known_contacts)

    def __call__(self, candidate: Candidate, kept: Pool) -> Rejection | None:
        """A rejection whose value is the text of the first such contact."""
        fact = self._known.unsupported(candidate.pair, kept)
        return Rejection("unsupported_contacts", fact.text) if fact else None


class _Known:
    """What the seeds support, and whether they support one another."""

    def __init__(
        self,
        name: str,
        auto: bool,
        stated: Callable[[str], Sequence[Fact]],
        supported: Callable[[str], Collection[str]],
    ) -> None:
        self._name, self._auto = name, auto
        self._stated, self._supported = stated, supported
        self._seeds_of = SeedsOf()
        self._seeds: tuple[QAPair, ...] = ()
        self._seeds_with: Counter[str] = Counter()
        self._on = not auto  # without seeds nothing is known

    def unsupported(self, pair: QAPair, kept: Pool) -> Fact | None:
        """The first fact of the pair's answer that stands in no seed and in nothing that was said before it."""
        self._follow(self._seeds_of(kept))
        return next(self._missing(pair, []), None) if self._on else None

    def _follow(self, seeds: tuple[QAPair, ...]) -> None:
        if seeds is self._seeds:
            return
        self._seeds = seeds
        self._seeds_with = Counter(key for seed in seeds for key in self._said(_texts(seed)))
        alone = ((seed, fact) for seed in seeds for fact in self._missing(seed, _texts(seed)))
        first = next(alone, None) if self._auto else None
        self._on = not self._auto or (bool(seeds) and first is None)
        if first is not None:
            seed, fact = first
            _log.info(
                "filters.%s is off: %r stands in no seed but in 1 of %d (%s: %s); true drops such answers all the same",
                self._name,
                clean(fact.text, _SHOWN),
                len(seeds),
                seed.id,
                clean(seed.question, _SHOWN),
            )

    def _missing(self, pair: QAPair, own: Sequence[str]) -> Iterator[Fact]:
        """Facts of the pair's answers that no seed supports but one that says `own`, nor what was said before."""
        mine = self._said(own)
        said: list[str] = []
        for question, answer in pair.turns:
            said.append(question)
            asked = self._said(said)
            for fact in self._stated(answer):
                # "I paid 20" asks about €20, too.
                plain = f"number {fact.key.partition(' ')[2]}"
                if not (asked & {fact.key, plain}) and self._seeds_with[fact.key] <= (fact.key in mine):
                    yield fact
            said.append(answer)

    def _said(self, texts: Sequence[str]) -> set[str]:
        return {key for text in texts for key in self._supported(text)}


def _texts(pair: QAPair) -> list[str]:
    return [text for turn in pair.turns for text in turn]
