"""Drawing tokens: a row's draws depend on its own logits and its own seed, never on its neighbours or the device.

The Gumbel-max trick: the token with the largest sum of log-probability and Gumbel noise is a draw from the distribution
(Maddison et al., 2014, arXiv 1411.0030). Small errors in the logits, which bfloat16 has, then rarely change a draw,
where a walk along the cumulated probabilities would shift at every token. The noise is a hash of token and key in whole
numbers, so it is the same on every device, and the keys come from a CPU generator of each row's own.
"""

import torch

_LIKELIEST = 256  # tokens among which a nucleus is looked for first
_BLOCK = 128  # tokens of a block, of which the largest is found before any are ordered
_IN_CACHE = 2**18  # fp32 numbers that a CPU's core has in its cache


def stream(seed: int, steps: int) -> torch.Tensor:
    """The keys of one row's draws, shape (steps,), int32, from a CPU generator of its own."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.randint(-(2**31), 2**31, (steps,), generator=generator).to(torch.int32)


def draw(logits: torch.Tensor, temperature: float, top_p: float, keys: torch.Tensor) -> torch.Tensor:
    """One token a row, shape (rows,), from logits of shape (rows, vocab) and keys of shape (rows,).

    Temperature 0 is greedy. The nucleus is that of transformers (the likeliest tokens until their mass reaches top_p),
    except that tokens of equal probability are in it together. On a CPU a few rows are drawn at a time: a vocabulary
    in fp32 is as large as the cache, and every pass over more than that would go to memory.
    """
    if temperature == 0:
        return logits.argmax(-1)
    rows = len(logits) if logits.device.type != "cpu" else max(1, _IN_CACHE // logits.shape[1])
    parts = zip(torch.split(logits, rows), torch.split(keys, rows), strict=True)
    return torch.cat([_draw(part.float() / temperature, top_p, own) for part, own in parts])


def _draw(logits: torch.Tensor, top_p: float, keys: torch.Tensor) -> torch.Tensor:
    """One token a row from fp32 logits that the temperature has divided.

    A nucleus of few tokens is found without ordering the others, and noise is made for its tokens alone. Which rows
    have one, each row's own logits say.
    """
    if top_p >= 1:
        return _draw_of_all(logits, top_p, keys)
    values, ids = _largest(logits, min(_LIKELIEST, logits.shape[1]))
    peak = values[:, :1]
    probabilities = (values - peak).exp() / (logits - peak).exp_().sum(-1, keepdim=True)
    outside = probabilities < _smallest_inside(probabilities, top_p)
    best = (values + _gumbel(keys, ids)).masked_fill_(outside, -torch.inf).argmax(-1, keepdim=True)
    tokens = ids.gather(1, best)[:, 0]
    # Where the least likely of them is inside, there may be more.
    larger = (~outside[:, -1]).nonzero()[:, 0]
    if len(larger):
        tokens[larger] = _draw_of_all(logits[larger], top_p, keys[larger])
    return tokens


def _draw_of_all(logits: torch.Tensor, top_p: float, keys: torch.Tensor) -> torch.Tensor:
    """The same, whatever the nucleus.

    Most draws are in it, which shows in the mass of the likelier tokens being below `top_p`; only the rows of the
    others are sorted.
    """
    scores = logits + _gumbel(keys, torch.arange(logits.shape[1], device=keys.device)[None])
    tokens = scores.argmax(-1)
    if top_p < 1:
        probabilities = torch.softmax(logits, -1)
        chosen = probabilities.gather(1, tokens[:, None])
        rows = ((probabilities * (probabilities > chosen)).sum(-1) >= top_p).nonzero()[:, 0]
        if len(rows):
            outside = probabilities[rows] < _smallest_inside(probabilities[rows], top_p)
            tokens[rows] = scores[rows].masked_fill(outside, -torch.inf).argmax(-1)
    return tokens


def _largest(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest logits of each row and their ids, largest first, both of shape (rows, count).

    They lie in the `count` blocks with the largest maxima: a token elsewhere has one that is no smaller in each.
    """
    rows, vocabulary = logits.shape
    blocks = vocabulary // _BLOCK
    if blocks < 2 * count:
        values, ids = logits.topk(count)
        return values, ids
    grid = logits[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    chosen = grid.amax(-1).topk(count, sorted=False).indices
    rest = torch.arange(blocks * _BLOCK, vocabulary, device=logits.device).expand(rows, -1)
    within = torch.arange(_BLOCK, device=logits.device)
    ids = torch.cat([(chosen[:, :, None] * _BLOCK + within).flatten(1), rest], 1)
    values, places = logits.gather(1, ids).topk(count)
    return values, ids.gather(1, places)


def _smallest_inside(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability in each row's nucleus, shape (rows, 1)."""
    ordered = probabilities.sort(-1, descending=True).values
    inside = ordered.cumsum(-1) - ordered < top_p
    return ordered.masked_fill(~inside, 2).amin(-1, keepdim=True)


def _gumbel(keys: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise for ids of shape (rows or 1, n), shape (rows, n): of key and token, 23 random bits each."""
    tokens = _mix((ids + 1).to(torch.int32))
    bits = (_mix(tokens ^ keys[:, None]) >> 9) & 0x7FFFFF
    return -torch.log(-torch.log((bits.float() + 0.5) / 2**23))  # 24 bits, so that the float is exact and below 1


def _mix(numbers: torch.Tensor) -> torch.Tensor:
    """A hash of int32 numbers whose upper bits are good (Wellons' lowbias32 less its last step); products wrap."""
    numbers = numbers ^ (numbers >> 16 & 0xFFFF)  # without the mask, shifting would drag the sign along
    numbers = numbers * 0x7FEB352D
    numbers = numbers ^ (numbers >> 15 & 0x1FFFF)
    return numbers * (0x846CA68B - 2**32)
