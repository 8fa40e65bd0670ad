"""Times the novelty filter against a loop over `rouge_score`: python benchmarks/novelty.py [PAIRS …].

Questions are 5 to 22 random words (Zipf); one candidate in ten is a kept question with a few words changed, so that
there are duplicates and ties to decide. Ends with an error where the two disagree.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import mean

import psutil
from rouge_score import rouge_scorer

from isara.filters import Novelty
from isara.pool import Pool
from isara.records import Candidate, Completion, QAPair
from isara.testing import HashEmbedder

WORDS = [f"w{number}" for number in range(20_000)]
WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(WORDS))))


def question(rng: random.Random) -> str:
    """A random question."""
    return " ".join(rng.choices(WORDS, cum_weights=WEIGHTS, k=rng.randint(5, 22))) + "?"


def candidates(kept: Pool, n: int, rng: random.Random) -> list[Candidate]:
    """New questions, one in ten a changed copy of a kept one."""
    texts = [question(rng) if number % 10 else changed(rng.choice(kept.pairs).question, rng) for number in range(n)]
    return [Candidate(QAPair(text, ""), Completion(text, len(text.split()), "stop")) for text in texts]


def changed(text: str, rng: random.Random) -> str:
    """The text with three words in ten replaced: F is about 0.7."""
    return " ".join(rng.choice(WORDS) if rng.random() < 0.3 else word for word in text.split())


def plain(candidate: Candidate, kept: Pool, scorer: rouge_scorer.RougeScorer) -> bool:
    """Whether a kept question has a ROUGE-L F of 0.7 or more, as rouge_score tells it.

    Rounded, because in floating point a tie can come out as 0.6999999999999998 (23 and 37 words).
    """
    scores = (scorer.score(pair.question, candidate.pair.question)["rougeL"].fmeasure for pair in kept.pairs)
    return any(round(score, 9) >= 0.7 for score in scores)


def seconds(decide: Callable[[Candidate], object], rows: Sequence[Candidate]) -> tuple[list[float], list[bool]]:
    """Seconds of processor time that each candidate took, and which ones were dropped."""
    spent, dropped = [], []
    for row in rows:
        start = time.process_time()
        dropped.append(bool(decide(row)))
        spent.append(time.process_time() - start)
    return spent, dropped


def main() -> None:
    """Prints the table."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    print("| pool | rouge_score, ms a candidate | isara, ms | slowest of 200, ms | taking in, s | index, MB |")
    print("|---|---|---|---|---|---|")
    for size in [int(number) for number in sys.argv[1:]] or [1_000, 10_000, 100_000, 1_000_000]:
        rng = random.Random(size)
        kept = Pool(HashEmbedder(), (QAPair(question(rng), f"answer {number}") for number in range(size)))
        rows = candidates(kept, 200, rng)
        novelty = Novelty(0.7)
        before, start = psutil.Process().memory_info().rss, time.process_time()
        novelty(rows[0], kept)  # takes the pool in, which a run does pair by pair
        taking, memory = time.process_time() - start, psutil.Process().memory_info().rss - before
        ours, decisions = seconds(lambda row: novelty(row, kept), rows)  # noqa: B023 - called at once
        theirs, compared = "-", min(40, 100_000 // size)
        if compared:
            slow, expected = seconds(lambda row: plain(row, kept, scorer), rows[:compared])  # noqa: B023
            if expected != decisions[:compared]:
                raise SystemExit(f"decisions differ at a pool of {size}")
            theirs = f"{mean(slow) * 1e3:,.0f}"
        figures = f"{mean(ours) * 1e3:.2f} | {max(ours) * 1e3:.1f} | {taking:.1f} | {memory / 1e6:,.0f}"
        print(f"| {size:,} | {theirs} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
