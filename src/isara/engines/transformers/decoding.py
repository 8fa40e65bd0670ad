"""The decoding loop: rows are completed side by side, and who is done makes room for the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from isara.engines.transformers.cache import RowCache
from isara.engines.transformers.model import LoadedModel
from isara.engines.transformers.sampling import draw, stream
from isara.records import Completion, Finish, Sampling


@dataclass
class Row:
    """A prompt on its way to its completion."""

    index: int
    prompt: tuple[int, ...]
    seed: int
    limit: int
    completion: Completion | None = None


def decode(
    model: LoadedModel,
    sampling: Sampling,
    most: int,
    waiting: Sequence[Row],
    report: Callable[[], None],
    check: Callable[[], None],
) -> None:
    """Completes every waiting row, longest first and at most so many at once; who is done makes room for the next.

    `check` is called before each forward pass, and may raise.
    """
    decoding = _Decoding(model, sampling, model.cache(most), report, check)
    queue = list(waiting)
    while queue or decoding.active:
        free = most - len(decoding.active)
        # Prompts are read several at a time, since a short batch fills the processor badly.
        if queue and (free >= max(1, most // 8) or not decoding.active):
            decoding.admit(queue[:free])
            del queue[:free]
        decoding.step()


class _Decoding:
    """The rows that are being decoded: rows 0 to `cache.rows` - 1 of the cache and of every tensor here."""

    def __init__(
        self,
        model: LoadedModel,
        sampling: Sampling,
        cache: RowCache,
        report: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        self.model, self.sampling, self.cache, self.report, self.check = model, sampling, cache, report, check
        self.active: list[Row] = []
        self.stops = tuple(stop for stop in sampling.stop if stop)
        self.ends = model.ends(self.stops)
        size, device = (cache.max_rows, sampling.max_new_tokens), model.device
        self.starts, self.made, self.limits, self.tokens = torch.zeros(4, size[0], dtype=torch.long, device=device)
        self.output = torch.zeros(size, dtype=torch.long, device=device)
        self.keys = torch.zeros(size, dtype=torch.int32, device=device)

    def admit(self, rows: Sequence[Row]) -> None:
        """Gives rows their places and reads their prompts, all but the last token, which is the first step's input."""
        cache, first = self.cache, len(self.active)
        if first == 0:
            # In an empty cache transformers drops the mask, and columns yet to be written would be attended to: so
            # prompts of one token have a column before them, too.
            cache.restart(max(1, len(rows[0].prompt) - 1))
        starts = self.starts.tolist()
        self.active += rows
        for slot, row in enumerate(rows, first):
            starts[slot] = cache.end - len(row.prompt) + 1
            self.tokens[slot], self.limits[slot], self.made[slot] = row.prompt[-1], row.limit, 0
            if self.sampling.temperature > 0:
                self.keys[slot] = stream(row.seed, self.sampling.max_new_tokens).to(self.model.device)
        self.starts.copy_(torch.tensor(starts))
        self.model.read([row.prompt for row in self.active], first, cache, starts, self.check)

    def step(self) -> None:
        """Generates one token in every active row."""
        self.check()
        rows = len(self.active)
        if self.cache.is_full:
            unused = int(self.starts[:rows].min())
            self.cache.move_left(unused)
            self.starts[:rows] -= unused
        logits = self.model.forward(self.cache, self.tokens[:rows, None], self.starts[:rows])
        logits = logits[:, -1, : self.model.text.size]  # rows of the vocabulary without a token are never drawn
        made = self.made[:rows]
        keys = self.keys[:rows].gather(1, made[:, None])[:, 0]
        tokens = draw(logits, self.sampling.temperature, self.sampling.top_p, keys)
        # NaN wins every draw, and would be read as an empty answer.
        finite = logits.gather(1, tokens[:, None]).isfinite().all()
        self.tokens[:rows] = tokens
        self.output[:rows].scatter_(1, made[:, None], tokens[:, None])
        made += 1
        flagged = self.ends[tokens] | (made >= self.limits[:rows])
        if not bool(finite):
            raise self.model.not_finite()
        self._finish(flagged.nonzero()[:, 0].tolist())

    def _finish(self, flagged: Sequence[int]) -> None:
        """Completes the flagged rows that have ended, and closes the gaps they leave with the last rows."""
        done = [slot for slot in flagged if self._complete(slot)]
        if not done:
            return
        left = len(self.active) - len(done)
        gaps = [slot for slot in done if slot < left]
        movers = [slot for slot in range(left, len(self.active)) if slot not in set(done)]
        if gaps:
            self.cache.copy_rows(movers, gaps)
            for state in (self.starts, self.made, self.limits, self.tokens, self.output, self.keys):
                state[gaps] = state[movers]
            for gap, mover in zip(gaps, movers, strict=True):
                self.active[gap] = self.active[mover]
        del self.active[left:]
        self.cache.rows = left
        self.report()

    def _complete(self, slot: int) -> bool:
        """Whether the row has ended; if so, it has its completion."""
        row, made = self.active[slot], int(self.made[slot])
        ids = self.output[slot, :made].tolist()
        ended = ids[-1] in self.model.eos
        text = self.model.text.after(row.prompt, ids[:-1] if ended else ids)
        before_stop = self.model.text.cut(text, self.stops)
        if not ended and before_stop is None and made < row.limit:
            return False
        finish: Finish = "stop" if ended or before_stop is not None else "length"
        row.completion = Completion(text if before_stop is None else before_stop, made, finish)
        return True
