"""Whether a server has the weights that it is to have: it and the run's own go on greedily with a few prompts.

The same weights in other numbers part where two tokens are nearly as likely; other weights part where they are not. So
what counts is by how much, which the server's own log-probabilities say. Where it gives none, it is the share of the
text up to where the two part.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isara.engines.server.client import TopToken, prompt_tokens, read_completion, read_top_tokens
from isara.marks import clean
from isara.protocols import EngineFactory
from isara.records import Completion, Prompt, Sampling

_PROMPTS, TOKENS = 8, 16  # that servers and own weights go on with, and tokens of each
ALTERNATIVES = 5  # of each token, with their log-probabilities
# Nats by which they may part on average, a prompt on which they don't counting 0. Measured on groups of four prompts:
# 0 to 0.06 for bfloat16 beside float32 (three models), 0.33 to 1.34 for the embedded model after an iteration beside
# before it (our choice).
_PARTED = 0.2
_SAME = 0.5  # mean share of the text, up to where they part, that has to be the same; our choice
_COUNTED = 2  # tokens by which the prompt may differ: a server may write its beginning and end in its own way
_SHOWN = 60  # characters of a text in an error message


@dataclass(frozen=True, slots=True)
class OwnWords:
    """What the run's own weights say.

    Attributes:
        prompts: To these prompts.
        sampling: Greedily, and this long.
        said: Their completions.
    """

    prompts: tuple[Prompt, ...]
    sampling: Sampling
    said: tuple[Completion, ...]


def asked_for(prompts: Sequence[Prompt], sampling: Sampling) -> OwnWords:
    """The prompts that are gone on with, before anything is said."""
    few = tuple(dict.fromkeys(prompts))[:_PROMPTS]
    tokens = min(TOKENS, sampling.max_new_tokens)
    return OwnWords(few, replace(sampling, temperature=0.0, top_p=1.0, max_new_tokens=tokens), ())


def answered(words: OwnWords, local: EngineFactory, model: str) -> OwnWords:
    """What the run's own weights say to the prompts."""
    with local(model) as engine:
        said = engine.generate(words.prompts, words.sampling, [0] * len(words.prompts))
    return replace(words, said=tuple(said))


def difference(ours: OwnWords, replies: Sequence[Mapping[str, Any]], ends: Sequence[str]) -> str:
    """What tells a server's replies from the run's own weights, in words; empty where nothing does.

    Args:
        ours: What these say.
        replies: The server's, in the order of the prompts.
        ends: Strings before which a text ends, special tokens among them.

    Raises:
        Unusable: A reply holds no completion.
    """
    theirs = [read_completion(reply, ends) for reply in replies]
    shares = [same_share(one.text, other.text) for one, other in zip(ours.said, theirs, strict=True)]
    gaps = [
        parting_gap(one, other, read_top_tokens(reply), ends) if share < 1 else 0.0
        for one, other, reply, share in zip(ours.said, theirs, replies, shares, strict=True)
    ]
    worst = min(range(len(shares)), key=lambda row: (-(gaps[row] or 0.0), shares[row]))
    counts = [(prompt_tokens(reply), len(prompt.ids)) for prompt, reply in zip(ours.prompts, replies, strict=True)]
    other = next(
        (row for row, (count, wanted) in enumerate(counts) if abs((count or wanted) - wanted) > _COUNTED), None
    )
    row = worst if other is None else other
    count, wanted = counts[row]
    tokens = f", of a prompt of {count} tokens where the run has {wanted}," if count not in (None, wanted) else ""
    found = (
        f"greedily it makes {clean(theirs[row].text, _SHOWN)!r}{tokens} and the run's own weights "
        f"{clean(ours.said[row].text, _SHOWN)!r}"
    )
    if other is not None:
        return found
    known = [gap for gap in gaps if gap is not None]
    # By their beginnings alone, where one can't be told by its tokens; those that don't part are among them.
    alike = (
        [share for share, gap in zip(shares, gaps, strict=True) if gap is None or share == 1] if None in gaps else []
    )
    if known and (parted := sum(known) / len(known)) > _PARTED:
        return f"{found} (on average they part by {parted:.2f} nats, and {_PARTED:g} may be)"
    if alike and sum(alike) / len(alike) < _SAME:
        return found
    return ""


def same_share(one: str, other: str) -> float:
    """Which share of the longer text two texts have in common, from their beginning on, in [0, 1]."""
    one, other = one.strip(), other.strip()
    longest = max(len(one), len(other))
    return len(os.path.commonprefix([one, other])) / longest if longest else 1.0


def parting_gap(
    ours: Completion, theirs: Completion, tokens: Sequence[TopToken] | None, ends: Sequence[str]
) -> float | None:
    """By how many nats a server finds its own token likelier than ours, where the two part.

    Args:
        ours: What the run's own weights say.
        theirs: What the server says.
        tokens: In these tokens.
        ends: Strings that may have ended our text.

    Returns:
        0.0 where they don't part; where ours is not among the alternatives, how far the last of these is behind; None
        where the server gives no log-probabilities, or tokens that don't make up its text (a character of several), or
        ended before ours did.
    """
    if tokens is None or not "".join(each.text for each in tokens).lstrip().startswith(theirs.text.strip()):
        return None
    text = ours.text.lstrip()
    goals = [text + end for end in ends] if ours.finish == "stop" else [text]
    said = ""
    for token in tokens:
        rests = [goal[len(said) :] for goal in goals if goal.startswith(said) and len(goal) > len(said)]
        if not rests:
            return 0.0  # all that is known of ours
        word = token.text if said else token.text.lstrip()
        if any(rest.startswith(word) or word.startswith(rest) for rest in rests):
            said += word
            continue
        alike = [
            logprob
            for other, logprob in token.alternatives.items()
            if (start := other if said else other.lstrip()) and any(rest.startswith(start) for rest in rests)
        ]
        return max(token.alternatives.values()) - max(alike, default=min(token.alternatives.values()))
    return None if theirs.finish == "stop" and len(said) < len(text) else 0.0
