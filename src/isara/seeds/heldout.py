"""Held-out pairs: which they are, and whether they can be a test of anything."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from isara.data import SourceRow
from isara.errors import SeedError
from isara.records import QAPair
from isara.rouge import RougeIndex
from isara.seeds.checks import NEAR, Problem, heldout_size, place
from isara.words import main_script, tokenize

FEW_HELDOUT = 20
_NAMED = 5  # words in a message
_CONTENT = 4  # letters of a word that says something, at least
_CHARACTERS = 2  # of Chinese and Japanese in a row that say something
_COMMON = 0.2  # share of the seed answers in which a word stands that says nothing of its own question
# English words that say nothing by themselves, as far as they are long enough to be taken for content.
_FUNCTION = frozenset(
    "about above after again against almost along already also although always among another anything around away "
    "back because been before being below between both cannot could does doing done down during each either else "
    "enough even ever every everything from further have having here hers himself however indeed instead into "
    "itself just least less like many might more most much must myself near neither never next nobody none "
    "nothing often once only other others otherwise ours over perhaps please quite rather really same shall "
    "should since some somebody something soon still such than that their theirs them then there therefore these "
    "they this those though through thus till together too toward under until upon usually very well were what "
    "whatever when where whether which while whole whom whose will with "
    "within without would your yours yourself".split()
)


def split_heldout(pairs: Sequence[QAPair], share: float, seed: int) -> tuple[list[QAPair], list[QAPair]]:
    """Seed pairs and held-out pairs, each in the order of `pairs`; at least one of each unless the share is 0.

    Each pair is given a place by the hash of its content and the seed, and the first places are held out. So the split
    does not depend on the order of the rows, and a new row moves at most itself and one other to the other side. Pairs
    that ask the same, and dialogues that begin alike, stay together.

    Raises:
        SeedError: One pair alone, or one group of such pairs, can't be split.
    """
    if share and len(pairs) < 2:
        raise SeedError(f"expected at least 2 pairs to hold some out, found {len(pairs)}: add pairs or set heldout=0")
    groups = _groups(pairs)
    if share and len(groups) < 2:
        raise SeedError(
            f"expected at least 2 different questions to hold some out, found 1 in {len(pairs)} pairs: "
            "add pairs or set heldout=0"
        )
    size = heldout_size(len(pairs), share)
    places = sorted(groups, key=lambda ids: hashlib.sha256(f"{seed} {min(ids)}".encode()).digest())
    aside: set[str] = set()
    for ids in places:
        if len(aside) + len(ids) <= size:
            aside |= ids
    if size and not aside:
        aside = min(places, key=len)
    return [pair for pair in pairs if pair.id not in aside], [pair for pair in pairs if pair.id in aside]


def _groups(pairs: Sequence[QAPair]) -> list[set[str]]:
    """The ids of pairs that belong together: the same questions, or the same first exchange."""
    above = {pair.id: pair.id for pair in pairs}

    def top(pair_id: str) -> str:
        while above[pair_id] != pair_id:
            above[pair_id] = pair_id = above[above[pair_id]]
        return pair_id

    first: dict[tuple[str, ...], str] = {}
    for pair in pairs:
        for key in (("asks", " ".join(pair.asked.lower().split())), ("begins", *pair.turns[0])):
            above[top(pair.id)] = top(first.setdefault(key, pair.id))
    groups: dict[str, set[str]] = {}
    for pair_id in above:
        groups.setdefault(top(pair_id), set()).add(pair_id)
    return list(groups.values())


def check_overlap(seeds: Sequence[SourceRow], heldout: Sequence[SourceRow]) -> list[Problem]:
    """Held-out pairs that a seed pair gives away: the same pair (an error), or a near duplicate of its question.

    Where many are near, as in a domain of few set questions, the figures on the held-out pairs say little of new ones.
    """
    known = {row.pair.id: row for row in seeds}
    index = RougeIndex()
    for seed in seeds:
        index.add(tokenize(seed.pair.asked))
    problems = []
    for row in heldout:
        if twin := known.get(row.pair.id):
            message = f"this held-out pair is the seed pair of {place(twin, row)}: take it out of one of them"
            problems.append(Problem(row.file, row.line, "error", message))
        elif near := index.nearest(tokenize(row.pair.asked), NEAR):
            message = (
                f"the question of this held-out pair is near the seed question of {place(seeds[near[0]], row)} "
                f"(ROUGE-L {near[1]:.2f}): hold out another pair for a stricter test"
            )
            problems.append(Problem(row.file, row.line, "warning", message, minor=True))
    return problems


def check_heldout(seeds: Sequence[SourceRow], heldout: Sequence[SourceRow]) -> list[Problem]:
    """Whether the held-out pairs can tell models apart: there are enough, and their answers follow from the seeds."""
    if not heldout:
        return []
    problems, file = [], heldout[0].file
    if len(heldout) < FEW_HELDOUT:
        message = (
            f"only {len(heldout)} held-out pairs: with fewer than {FEW_HELDOUT}, much of what differs between "
            "iterations is chance; hold out more, or name a file of them"
        )
        problems.append(Problem(file, None, "warning", message))
    if strange := [row for row, words in content_words(seeds, heldout) if words]:
        message = (
            f"{len(strange)} of {len(heldout)} held-out answers say nothing that stands in the seeds (the first is in "
            f"line {strange[0].line}): nobody could infer them; hold out pairs whose answers follow from the seeds"
        )
        problems.append(Problem(file, None, "warning", message))
    return problems


def name_strange(seeds: Sequence[SourceRow], heldout: Sequence[SourceRow]) -> list[Problem]:
    """Each held-out pair whose answer nobody could infer from the seeds, with the words that stand in none of them."""
    return [
        Problem(
            row.file,
            row.line,
            "warning",
            f"nobody could infer this held-out answer, so it measures tone alone: none of {', '.join(words[:_NAMED])} "
            f"{'and others ' if len(words) > _NAMED else ''}stands in the seeds",
        )
        for row, words in content_words(seeds, heldout)
        if words
    ]


def content_words(seeds: Sequence[SourceRow], heldout: Sequence[SourceRow]) -> list[tuple[SourceRow, list[str]]]:
    """Each held-out row with its answer's words of content where none of them stands in a seed, else with none.

    Words of content are numbers and words of 4 letters and more that are not the question's own, no function words, and
    not among those that a fifth of the seed answers share. In a script without spaces they are any two characters in a
    row (Chinese, Japanese) or any four (Thai and others): more of these stand in some seed by chance, so fewer rows are
    found. Function words are known of English alone; another language's hide a row where they are long and not shared.
    """
    answers = [{word for _, answer in row.pair.turns for word in _words(answer)} for row in seeds]
    times = Counter(word for words in answers for word in words)
    common = {word for word, count in times.items() if count > max(1, _COMMON * len(seeds))} | _FUNCTION
    known = {word for row in seeds for turn in row.pair.turns for text in turn for word in _words(text)}
    found = []
    for row in heldout:
        asked = set(_words(row.pair.asked)) | common
        said = [word for word in dict.fromkeys(_words(row.pair.answer)) if word not in asked]
        found.append((row, said if known.isdisjoint(said) else []))
    return found


def _words(text: str) -> Iterator[str]:
    """What may say something in a text: long words and numbers, and of scripts without spaces characters in a row."""
    row: list[str] = []
    for token in tokenize(text):
        if not _stands_alone(token):
            row.clear()
            if len(token) >= _CONTENT or any(map(str.isdigit, token)):
                yield token
            continue
        row.append(token)
        size = _CHARACTERS if main_script(token) == "CJK" else _CONTENT
        if len(row) >= size:
            yield "".join(row[-size:])


@cache
def _stands_alone(token: str) -> bool:
    """Whether it is a character of a script without spaces, which doubled is two tokens."""
    return not token.isascii() and len(tokenize(token * 2)) > 1
