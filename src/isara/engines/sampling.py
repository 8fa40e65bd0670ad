"""Drawing tokens: a row's draws depend on its own logits and its own random numbers, never on its neighbours."""

import torch


def uniforms(seed: int, steps: int) -> torch.Tensor:
    """The random numbers of one row, shape (steps, 2), uniform in [0, 1), from a CPU generator of its own."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.rand(steps, 2, generator=generator)


def draw(logits: torch.Tensor, temperature: float, top_p: float, numbers: torch.Tensor) -> torch.Tensor:
    """One token a row, shape (rows,), from fp32 logits of shape (rows, vocab) and numbers of shape (rows, 2).

    Temperature 0 is greedy. The nucleus is that of transformers (the likeliest tokens until their mass reaches top_p),
    except that tokens of equal probability are in it together. No sorting of the vocabulary: a token is drawn from the
    whole distribution and taken if the mass of the likelier tokens is below `top_p`, which is so with probability
    `top_p` or more; only the other rows are sorted and draw once more, from the nucleus. That is the same distribution:
    p + (1 - M) p / M = p / M for a token of probability p in a nucleus of mass M.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, -1)
    tokens = _pick(probabilities, numbers[:, 0])
    if top_p < 1:
        chosen = probabilities.gather(1, tokens[:, None])
        outside = (probabilities * (probabilities > chosen)).sum(-1) >= top_p
        rows = outside.nonzero()[:, 0]
        if len(rows):
            tokens[rows] = _pick(_nucleus(probabilities[rows], top_p), numbers[rows, 1])
    return tokens


def _pick(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The token in whose share of the cumulated weights each number falls, in vocabulary order."""
    cumulated = weights.cumsum(-1)
    tokens = torch.searchsorted(cumulated, numbers[:, None] * cumulated[:, -1:], right=True)[:, 0]
    tokens.clamp_(max=weights.shape[1] - 1)
    # rounding can point past the last token that has any weight
    weightless = weights.gather(1, tokens[:, None])[:, 0] == 0
    return torch.where(weightless, weights.argmax(-1), tokens)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered = probabilities.sort(-1, descending=True).values
    inside = ordered.cumsum(-1) - ordered < top_p
    smallest = ordered.masked_fill(~inside, 2).amin(-1, keepdim=True)
    return torch.where(probabilities >= smallest, probabilities, 0)
