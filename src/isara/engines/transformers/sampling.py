"""Drawing tokens: a row's draws depend on its own logits and its own seed, never on its neighbours or the device.

The Gumbel-max trick: the token with the largest sum of log-probability and Gumbel noise is a draw from the distribution
(Maddison et al., 2014, arXiv 1411.0030). Small errors in the logits, which bfloat16 has, then rarely change a draw,
where a walk along the cumulated probabilities would shift at every token. The noise is a hash of token and key in whole
numbers, so it is the same on every device, and the keys come from a CPU generator of each row's own.
"""

import torch


def stream(seed: int, steps: int) -> torch.Tensor:
    """The keys of one row's draws, shape (steps,), int32, from a CPU generator of its own."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.randint(-(2**31), 2**31, (steps,), generator=generator).to(torch.int32)


def draw(logits: torch.Tensor, temperature: float, top_p: float, keys: torch.Tensor) -> torch.Tensor:
    """One token a row, shape (rows,), from fp32 logits of shape (rows, vocab) and keys of shape (rows,).

    Temperature 0 is greedy. The nucleus is that of transformers (the likeliest tokens until their mass reaches top_p),
    except that tokens of equal probability are in it together. The vocabulary is not sorted to find it: most draws are
    in it, which shows in the mass of the likelier tokens being below `top_p`; only the rows of the others are sorted.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    scores = logits + _gumbel(keys, logits.shape[1])
    tokens = scores.argmax(-1)
    if top_p < 1:
        probabilities = torch.softmax(logits, -1)
        chosen = probabilities.gather(1, tokens[:, None])
        rows = ((probabilities * (probabilities > chosen)).sum(-1) >= top_p).nonzero()[:, 0]
        if len(rows):
            outside = probabilities[rows] < _smallest_inside(probabilities[rows], top_p)
            tokens[rows] = scores[rows].masked_fill(outside, -torch.inf).argmax(-1)
    return tokens


def _smallest_inside(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability in each row's nucleus, shape (rows, 1)."""
    ordered = probabilities.sort(-1, descending=True).values
    inside = ordered.cumsum(-1) - ordered < top_p
    return ordered.masked_fill(~inside, 2).amin(-1, keepdim=True)


def _gumbel(keys: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of shape (rows, vocabulary): a function of key and token, 23 random bits each."""
    tokens = _mix(torch.arange(1, vocabulary + 1, dtype=torch.int32, device=keys.device))
    bits = (_mix(tokens ^ keys[:, None]) >> 9) & 0x7FFFFF
    return -torch.log(-torch.log((bits.float() + 0.5) / 2**23))  # 24 bits, so that the float is exact and below 1


def _mix(numbers: torch.Tensor) -> torch.Tensor:
    """A hash of int32 numbers whose upper bits are good (Wellons' lowbias32 less its last step); products wrap."""
    numbers = numbers ^ (numbers >> 16 & 0xFFFF)  # without the mask, shifting would drag the sign along
    numbers = numbers * 0x7FEB352D
    numbers = numbers ^ (numbers >> 15 & 0x1FFFF)
    return numbers * (0x846CA68B - 2**32)
