"""The mix: which documents the model sees, in which shares, and what is kept out of it."""

import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pretraining import facts, manners, requests, worlds
from pretraining.sources import Document, OpenData, Pair
from pretraining.text import any_words, upper

# Shares of documents (not of tokens: pack.py writes those down). The first shards teach language and manners, the next
# ones mostly to look things up: rules began to be copied only once the sentences around them were learnt. The last mix
# adds which things are of a kind, and more lone questions: without demonstrations a model is to do what it is asked.
_SOURCES = ("safety", "everyday", "single", "shop", "codes", "names", "kinds", "open")
BROAD = dict(zip(_SOURCES, (0.32, 0.09, 0.06, 0.16, 0.07, 0.02, 0.00, 0.28), strict=True))
WORLDS = dict(zip(_SOURCES, (0.22, 0.07, 0.12, 0.27, 0.14, 0.05, 0.00, 0.13), strict=True))
LATE = dict(zip(_SOURCES, (0.17, 0.07, 0.15, 0.28, 0.12, 0.03, 0.06, 0.12), strict=True))
Shares = Mapping[str, float]
SYNTHETIC = frozenset(LATE) - {"open"}
_WORD = re.compile(r"[a-z0-9']+")
NGRAM = 8


def is_held_out(question: str) -> bool:
    """One grammar question in fifty belongs to validation alone, whichever document it stands in."""
    return zlib.crc32(question.encode()) % 50 == 0


def ngrams(text: str) -> set[tuple[str, ...]]:
    """The 8-grams of a text; a shorter text is one n-gram itself."""
    words = _WORD.findall(text.lower())
    if len(words) <= NGRAM:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


class Contamination:
    """Knows the texts of the recipes; a pair or text that shares eight words in a row with one of them is dropped."""

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self.forbidden: set[tuple[str, ...]] = set()
        self.dropped = 0
        for file in files:
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.forbidden |= ngrams(row["question"]) | ngrams(row["answer"])
        self._short = {gram for gram in self.forbidden if len(gram) < NGRAM}

    def hits(self, text: str) -> bool:
        """Whether the text holds an 8-gram, or a whole short question, of a recipe."""
        grams = ngrams(text)
        found = not grams.isdisjoint(self.forbidden) or tuple(_WORD.findall(text.lower())) in self._short
        self.dropped += found
        return found

    def clean(self, document: Document) -> Document | None:
        """The document without the pairs that come from a recipe; None where nothing is left."""
        if document.text:
            return None if self.hits(document.text) else document
        document.pairs = [pair for pair in document.pairs if not (self.hits(pair[0]) or self.hits(pair[1]))]
        return document if document.pairs else None


def _topics(rng: random.Random, pairs: int, harm: float) -> list[requests.Topic]:
    """The topic of each pair: all mixed, or in runs as retrieval would put them."""
    chosen: list[requests.Topic] = []
    few = rng.choice((2, 4, 40))
    pools = {kind: rng.sample(requests.topics(kind), min(few, len(requests.topics(kind)))) for kind in requests.SOURCES}
    run = rng.choice((1, 1, 3))
    while len(chosen) < pairs:
        kind = "harm" if rng.random() < harm else rng.choice(("help", "lookalike"))
        chosen += [rng.choice(pools[kind])] * rng.randint(1, run)
    return chosen[:pairs]


def manner_document(rng: random.Random, source: str, pairs: int, strange: float = 0.0) -> Document:
    """A document with one hidden voice over harm, look-alikes, everyday help and facts."""
    voice = manners.draw_voice(rng, pairs)
    if rng.random() < strange * 0.3:
        voice.hello = f"{upper(any_words(rng, 1, 4))}{rng.choice('!.')}"
    if rng.random() < strange * 0.3:
        voice.goodbye = f"{upper(any_words(rng, 1, 4))}{rng.choice('!.')}"
    harm = {"safety": rng.choice((1.0, 0.8, 0.6)), "everyday": 0.0, "single": 0.6}[source]
    fact_share = 0.3 if source == "everyday" else 0.06
    found = []
    for topic in _topics(rng, pairs, harm):
        if rng.random() < fact_share:
            found.append(facts.fact_pair(voice))
        else:
            request = requests.request(rng, topic)
            found.append((request.question, manners.answer(voice, request)))
    return Document(source, found, drawn=True)


def draw(rng: random.Random, open_data: OpenData, ease: float, shares: Shares, strange: float) -> Document:
    """One document of the mix."""
    source = rng.choices(list(shares), list(shares.values()))[0]
    if source == "open":
        return open_data.draw(rng) if open_data.shares else manner_document(rng, "everyday", 4)
    if source == "shop":
        return worlds.shop_document(rng, ease, rng.choice((6, 7, 8, 10, 14, 18)), strange)
    if source == "codes":
        return worlds.family_codes(rng, ease, strange=strange)
    if source == "names":
        return worlds.name_lookup(rng, ease)
    if source == "kinds":
        return worlds.kinds(rng)
    return manner_document(rng, source, rng.choice((1, 1, 2)) if source == "single" else rng.randint(5, 16), strange)


def documents(
    seed: int,
    open_data: OpenData,
    contamination: Contamination,
    ease: float,
    validation: bool = False,
    shares: Shares = BROAD,
    strange: float = 0.0,
) -> Iterator[Document]:
    """Documents without end. Grammar pairs are split by their question, open rows by `open_data` itself."""
    rng = random.Random(f"mix/{seed}/{validation}")
    while True:
        document = draw(rng, open_data, ease, shares, strange)
        if document.source in SYNTHETIC:
            document.pairs = split(document.pairs, validation)
        kept = contamination.clean(document)
        if kept is not None and (kept.text or kept.pairs):
            yield kept


def split(pairs: Sequence[Pair], validation: bool) -> list[Pair]:
    """Training documents lose held-out questions; a validation document is any whose last question is held out."""
    if not validation:
        return [pair for pair in pairs if not is_held_out(pair[0])]
    last = max((i for i, pair in enumerate(pairs) if is_held_out(pair[0])), default=-1)
    return list(pairs[: last + 1])
