"""The reference engine: transformers models on CPU, CUDA and MPS, with a decoding loop of our own.

`model.generate` would do, but not for hundreds of short completions: here rows are batched within a token budget,
finished rows make room for waiting ones, equal prompts are read once, and each row has a random stream of its own.
`docs/engine.md` has the reasons and the figures.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from isara.engines.transformers.attention import use_products
from isara.engines.transformers.cache import RowCache, token_bytes
from isara.engines.transformers.kernels import pack_linears
from isara.engines.transformers.lanes import lanes_for, run_in_lanes, share_out
from isara.engines.transformers.sampling import draw, stream
from isara.engines.transformers.text import Text
from isara.errors import ModelError
from isara.hardware import find_device, find_dtype, free_memory, is_out_of_memory
from isara.loading import check_finite, load_model
from isara.models import find_model
from isara.records import Completion, Finish, Prompt, Sampling
from isara.render import context_length

# Raised when products are summed in another way, which moves near ties in 16-bit dtypes: older rows are not mixed in.
ARITHMETIC = 2
_PREFILL_TOKENS = {"cpu": 512, "mps": 4096, "cuda": 16384}  # prompt tokens of one forward pass
_MOST_TOKENS = {"cpu": 2**15, "mps": 2**16, "cuda": 2**19}  # in the cache, even where memory is plentiful
_MOST_LOGITS = 2**26  # logits of one scoring pass; 0.25 GB in fp32


class TransformersEngine:
    """An engine for any causal language model of transformers whose layers keep keys and values.

    Args:
        model: A model folder, "embedded", or a hub name.
        device: "auto" is CUDA, else MPS, else the CPU.
        dtype: "auto" is bfloat16 where that is the faster, else float16 on a GPU and float32 on a CPU.
        tokens_per_batch: Most tokens of cache, prompts and completions together; None takes it from the memory. Halved
            when memory runs out, for the rest of the engine's life.
        trust_remote_code: Runs code that comes with the model.
        on_progress: Called with the tokens generated and the rows done so far in this call.
        shared_by: How many engines take their memory from this device.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
        shared_by: int = 1,
    ) -> None:
        self.name = model
        self.device = find_device(device)
        self.dtype = find_dtype(dtype, self.device)
        self.tokens_per_batch = tokens_per_batch
        self.trust_remote_code = trust_remote_code
        self.on_progress = on_progress
        self.shared_by = shared_by
        self._loaded: _Loaded | None = None

    @property
    def exact(self) -> bool:
        """Whether batching leaves every completion as it is: in fp32, but not in 16-bit dtypes.

        There the last bits of a sum, which depend on the batch's shape, are coarse enough to turn a near tie between
        two tokens.
        """
        return self.dtype == torch.float32

    def key(self) -> dict[str, Any]:
        """What completions depend on beside model, prompt, sampling and seed, JSON-ready.

        How many rows are batched is not part of it, though in 16-bit dtypes it can move a near tie.
        """
        dtype = str(self.dtype).removeprefix("torch.")
        device = self.device.partition(":")[0]
        return {"kind": "transformers", "device": device, "dtype": dtype, "arithmetic": ARITHMETIC}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i depends on prompt i, sampling and seed i alone.

        It ends early where prompt and completion fill the context, and before a special token: what comes after one
        is another text. That is a "stop", as an end-of-sequence token is.

        Raises:
            ModelError: A prompt leaves no room in the context, or memory is too small for one row.
        """
        if not prompts:
            return []
        model = self._model()
        model.check_prompts(prompts, room=1)
        rows = [
            _Row(index, prompt.ids, seed, min(sampling.max_new_tokens, model.context_length - len(prompt.ids)))
            for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        # Longest first: memory runs out at once or never, and neighbours need little padding.
        waiting = sorted(rows, key=lambda row: (-len(row.prompt), row.prompt, row.index))
        held = self._budget() // max(len(row.prompt) + row.limit for row in rows)  # at once, the longest
        lanes = self._lanes(min(held, len({row.prompt for row in rows})))
        complete = partial(self._complete, sampling, self._report(rows))
        if lanes > 1:
            shares = share_out(waiting, lambda row: row.prompt, lanes)
            run_in_lanes([partial(complete, lanes, share) for share in shares])
            waiting = [row for row in waiting if row.completion is None]
        complete(1, waiting)
        return [row.completion for row in rows if row.completion is not None]

    def _complete(
        self,
        sampling: Sampling,
        report: Callable[[], None],
        lanes: int,
        waiting: "list[_Row]",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Completes rows, longest prompts first, with the share of memory that one of so many lanes has.

        Where memory runs out, one of several leaves its rows.
        """
        while waiting:
            columns = len(waiting[0].prompt) + max(row.limit for row in waiting)
            most = max(1, min(self._budget() // lanes // columns, len(waiting)))
            decode = partial(_decode, self._model(), sampling, most, waiting, report, check)
            if not self._attempt(most, columns, decode, lanes) and lanes > 1:
                return
            waiting = [row for row in waiting if row.completion is None]

    def _lanes(self, rows: int) -> int:
        """In how many threads rows are made."""
        if self.device != "cpu" or self.trust_remote_code:  # foreign code may keep anything
            return 1
        model = self._model()
        return lanes_for(model.model.config.get_text_config(), model.weights // self.dtype.itemsize, rows)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens, in fp32.

        An empty continuation has log-probability 0.

        Raises:
            ModelError: A prompt and its continuation don't fit into the context, or memory is too small for one row.
        """
        return [row.total for row in self._score_all(prompts, continuations)]

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation after all that stands before it, in fp32.

        Raises:
            ModelError: As in `logprobs`.
        """
        return [row.scores for row in self._score_all(prompts, continuations)]

    def _score_all(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> "list[_Scored]":
        if not prompts:
            return []
        model = self._model()
        model.check_prompts(prompts, room=0)
        scored = [
            _Scored(index, prompt.ids, tuple(continuation))
            for index, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True))
        ]
        model.check_lengths([len(row.head) + len(row.tail) for row in scored])
        model.check_ids([row.tail for row in scored])
        waiting = sorted((row for row in scored if row.tail), key=lambda row: (-len(row.head), row.head, row.index))
        while waiting:
            count, columns = _scored_at_once(waiting, self._budget(), model.text.size)
            if self._attempt(count, columns, partial(_score, model, waiting[:count])):
                waiting = waiting[count:]
        return scored

    def __enter__(self) -> Self:
        if self._loaded is None:
            self._loaded = _load(self)
            if self.tokens_per_batch is None:
                self.tokens_per_batch = _default_budget(self._loaded, self.shared_by)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded = None
        free_memory()

    def _model(self) -> "_Loaded":
        assert self._loaded is not None, "an engine is used inside its `with` block"
        return self._loaded

    def _budget(self) -> int:
        assert self.tokens_per_batch is not None
        return self.tokens_per_batch

    def _attempt(self, rows: int, columns: int, work: Callable[[], None], lanes: int = 1) -> bool:
        """Whether the work was done in memory; if not, the budget is at most half of what all lanes tried to hold."""
        try:
            with torch.inference_mode():
                work()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1 and lanes == 1:
                raise ModelError(
                    f"the memory of {self.device} is too small for this model and a row of {columns} tokens: "
                    "use a smaller model, shorter prompts or a lower max_new_tokens"
                ) from None
        # Only here, outside the handler, are the tensors of the failed attempt free.
        self.tokens_per_batch = min(self._budget(), lanes * rows * columns // 2)
        free_memory()
        return False

    def _report(self, rows: "list[_Row]") -> Callable[[], None]:
        lock = threading.Lock()

        def report() -> None:
            if self.on_progress is None:
                return
            with lock:
                done = [row.completion for row in rows if row.completion is not None]
                self.on_progress(sum(completion.tokens for completion in done), len(done))

        return report


@dataclass
class _Row:
    """A prompt on its way to its completion."""

    index: int
    prompt: tuple[int, ...]
    seed: int
    limit: int
    completion: Completion | None = None


@dataclass
class _Scored:
    """A prompt with the continuation whose log-probability is asked for."""

    index: int
    head: tuple[int, ...]
    tail: tuple[int, ...]
    scores: list[float] = field(default_factory=list)
    total: float = 0.0


@dataclass
class _Loaded:
    """A model in memory, and what is asked of it at every step."""

    model: Any
    weights: int  # bytes
    text: Text
    context_length: int
    device: str
    eos: set[int]

    def check_prompts(self, prompts: Sequence[Prompt], room: int) -> None:
        """Raises ModelError where a prompt is empty, or leaves no room for so many tokens."""
        if not all(prompt.ids for prompt in prompts):
            raise ModelError(
                "expected prompts of at least one token, found an empty one and no BOS token: give it text"
            )
        self.check_lengths([len(prompt.ids) + room for prompt in prompts])
        self.check_ids([prompt.ids for prompt in prompts])

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raises ModelError where a row would outgrow the context."""
        if max(lengths) > self.context_length:
            raise ModelError(
                f"expected prompt and completion of at most {self.context_length} tokens, the context of this model, "
                f"found {max(lengths)}: use fewer or shorter demonstrations, or a model with a longer context"
            )

    def check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        """Raises ModelError where a token was added to the tokenizer alone."""
        largest, size = max(max(ids, default=0) for ids in rows), self.model.get_input_embeddings().weight.shape[0]
        if largest >= size:
            raise ModelError(
                f"the tokenizer makes token {largest}, and the model knows {size}: use the tokenizer that belongs to "
                "the model"
            )

    def cache(self, rows: int) -> RowCache:
        """An empty cache for so many rows."""
        return RowCache(rows, self.model.config.get_text_config().num_hidden_layers)

    def ends(self, stops: tuple[str, ...]) -> torch.Tensor:
        """For each id whether a row may have ended with it: EOS, a special token, or the last one of a stop string.

        The shape is (vocab,).
        """
        ends = torch.zeros(self.text.size, dtype=torch.bool)
        ends[[index for index in self.eos | self.text.special_ids if index < self.text.size]] = True
        if stops:
            ends |= torch.from_numpy(self.text.stop_table(stops))
        return ends.to(self.device)

    def read(
        self,
        prompts: Sequence[tuple[int, ...]],
        first: int,
        cache: RowCache,
        starts: Sequence[int],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Fills the cache with the prompts from row `first` on, all but their last tokens, up to the column `end`.

        Each different prompt is read once; where an earlier row has the same, its keys and values are copied. Before
        each forward pass `check` may raise.
        """
        seen = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
        new = [row for prompt, row in seen.items() if row >= first and len(prompt) > 1]
        for part in _parts(sorted(new), prompts, _PREFILL_TOKENS[self.device.partition(":")[0]]):
            check()
            heads = [prompts[row][:-1] for row in part]
            filled = self._prefill(heads)
            for source, row in enumerate(part):
                cache.insert(row, filled, source, len(heads[source]))
        for row in range(first, len(prompts)):
            source, length = seen[prompts[row]], len(prompts[row]) - 1
            if source != row and length:
                cache.copy_prompt(source, row, starts[source], length)
        cache.rows = len(prompts)

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Any:
        """A cache of keys and values for each prompt, padded on the right, where causal attention never looks."""
        from transformers import DynamicCache

        cache = DynamicCache()
        self.model.base_model(input_ids=_pad(prompts).to(self.device), past_key_values=cache, use_cache=True)
        return cache

    def forward(self, cache: RowCache, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens that follow `ids` (rows, new), shape (rows, new, vocab); the cache grows by `new`."""
        new = ids.shape[1]
        columns = torch.arange(cache.columns, device=ids.device)
        positions = cache.end - starts[:, None] + torch.arange(new, device=ids.device)
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=((columns >= starts[:, None]) & (columns < cache.end + new)).long(),
            position_ids=positions.clamp(max=self.context_length - 1),
            past_key_values=cache.cache,
            use_cache=True,
        ).logits
        cache.end += new
        return logits[..., : self.text.size]


def _decode(
    model: _Loaded,
    sampling: Sampling,
    most: int,
    waiting: Sequence[_Row],
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
        model: _Loaded,
        sampling: Sampling,
        cache: RowCache,
        report: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        self.model, self.sampling, self.cache, self.report, self.check = model, sampling, cache, report, check
        self.active: list[_Row] = []
        self.stops = tuple(stop for stop in sampling.stop if stop)
        self.ends = model.ends(self.stops)
        size, device = (cache.max_rows, sampling.max_new_tokens), model.device
        self.starts, self.made, self.limits, self.tokens = torch.zeros(4, size[0], dtype=torch.long, device=device)
        self.output = torch.zeros(size, dtype=torch.long, device=device)
        self.keys = torch.zeros(size, dtype=torch.int32, device=device)

    def admit(self, rows: Sequence[_Row]) -> None:
        """Gives rows their places and reads their prompts, all but the last token, which is the first step's input."""
        cache, first = self.cache, len(self.active)
        if first == 0:
            cache.restart(len(rows[0].prompt) - 1)
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
        logits = self.model.forward(self.cache, self.tokens[:rows, None], self.starts[:rows])[:, -1]
        made = self.made[:rows]
        keys = self.keys[:rows].gather(1, made[:, None])[:, 0]
        tokens = draw(logits, self.sampling.temperature, self.sampling.top_p, keys)
        self.tokens[:rows] = tokens
        self.output[:rows].scatter_(1, made[:, None], tokens[:, None])
        made += 1
        flagged = self.ends[tokens] | (made >= self.limits[:rows])
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


def _parts(rows: Sequence[int], prompts: Sequence[Sequence[int]], most_tokens: int) -> Iterator[list[int]]:
    """The rows in groups whose prompts, padded to the longest, have at most so many tokens (or one prompt)."""
    part: list[int] = []
    longest = 0
    for row in rows:
        longer = max(longest, len(prompts[row]))
        if part and longer * (len(part) + 1) > most_tokens:
            yield part
            part, longer = [], len(prompts[row])
        part, longest = [*part, row], longer
    if part:
        yield part


def _score(model: _Loaded, rows: Sequence[_Scored]) -> None:
    """Gives each row the log-probabilities of its continuation's tokens and their sum, all rows in one pass."""
    cache = model.cache(len(rows))
    cache.restart(len(rows[0].head) - 1, room=max(len(row.tail) for row in rows))
    starts = [cache.end - len(row.head) + 1 for row in rows]
    model.read([row.head for row in rows], 0, cache, starts)
    inputs = _pad([[row.head[-1], *row.tail[:-1]] for row in rows]).to(model.device)
    logits = model.forward(cache, inputs, torch.tensor(starts, device=model.device))
    for index, row in enumerate(rows):
        ids = torch.tensor(row.tail, device=model.device)
        scores = torch.log_softmax(logits[index, : len(ids)].float(), -1).gather(1, ids[:, None])
        row.scores, row.total = scores[:, 0].tolist(), float(scores.sum())


def _scored_at_once(rows: Sequence[_Scored], budget: int, vocabulary: int) -> tuple[int, int]:
    """How many of the rows, longest prompt first, fit into one pass (at least one), and how many columns they take."""
    head, widest, count = len(rows[0].head), 0, 0
    for row in rows:
        tail = max(widest, len(row.tail))
        if count and ((count + 1) * (head + tail) > budget or (count + 1) * tail * vocabulary > _MOST_LOGITS):
            break
        widest, count = tail, count + 1
    return count, head + widest


def _pad(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids of shape (rows, longest), zeros on the right."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids


def _load(engine: TransformersEngine) -> _Loaded:
    name = find_model(engine.name)
    try:
        model, tokenizer = load_model(name, engine.dtype, engine.trust_remote_code)
        model = model.to(engine.device).eval()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"the model {name!r} doesn't fit into memory: use a smaller one or a lower dtype") from None
    check_finite(model, name)
    if model._is_stateful:
        raise ModelError(
            f"expected a model whose layers all keep keys and values, found {type(model).__name__}, which has "
            "recurrent layers: use an attention model"
        )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if engine.device == "cpu":
        use_products(model)
        pack_linears(model)
    return _Loaded(
        model=model,
        weights=weights,
        text=Text(tokenizer),
        context_length=context_length(model.config, tokenizer),
        device=engine.device,
        eos=_eos_ids(model, tokenizer),
    )


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    stated = model.generation_config.eos_token_id
    ids = {stated} if isinstance(stated, int) else set(stated or ())
    return ids | ({tokenizer.eos_token_id} - {None})


def _default_budget(model: _Loaded, shared_by: int) -> int:
    """Tokens of cache that the device's whole memory allows; not the free memory, so that a run can be made again."""
    bytes_per_token = token_bytes(model.model.config.get_text_config(), model.model.dtype.itemsize)
    kind = model.device.partition(":")[0]
    tokens = (
        (_memory(model.device) / shared_by - model.weights) / 2 / bytes_per_token
    )  # the other half is for activations and logits
    return int(min(_MOST_TOKENS[kind], max(1, tokens)))


def _memory(device: str) -> float:
    """Bytes that this process may take."""
    import psutil  # type: ignore[import-untyped]  # it has no types of its own

    if device.startswith("cuda"):
        return 0.9 * torch.cuda.get_device_properties(device).total_memory
    if device == "mps":
        return float(torch.mps.recommended_max_memory())
    return 0.5 * float(psutil.virtual_memory().total)
