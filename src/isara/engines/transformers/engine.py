"""The reference engine: transformers models on CPU, CUDA and MPS, with a decoding loop of our own.

`model.generate` would do, but not for hundreds of short completions: here rows are batched within a token budget,
finished rows make room for waiting ones, equal prompts are read once, and each row has a random stream of its own.
`docs/engine.md` has the reasons and the figures.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from isara.engines.transformers.cache import token_bytes
from isara.engines.transformers.decoding import Row, decode
from isara.engines.transformers.lanes import lanes_for, run_in_lanes, share_out
from isara.engines.transformers.model import LoadedModel, load
from isara.engines.transformers.scoring import ScoredRow, score, scored_at_once
from isara.errors import ModelError
from isara.hardware import device_memory, find_device, find_dtype, free_memory, is_out_of_memory
from isara.records import Completion, Prompt, Sampling

# Raised when products are summed in another way, which moves near ties in 16-bit dtypes: older rows are not mixed in.
ARITHMETIC = 2
_MOST_TOKENS = {"cpu": 2**15, "mps": 2**16, "cuda": 2**19}  # in the cache, even where memory is plentiful


class TransformersEngine:
    """An engine for any causal language model of transformers whose layers keep keys and values.

    Args:
        model: A model folder, "embedded", or a hub name.
        device: "auto" is CUDA, else MPS, else the CPU.
        dtype: "auto" is bfloat16 where that is the faster, else float16 on a GPU and float32 on a CPU.
        tokens_per_batch: Most tokens of cache, prompts and completions together; None takes it from the memory. Halved
            when memory runs out, for the rest of the engine's life.
        trust_remote_code: Runs code that comes with the model.
        on_progress: Called with the tokens generated and the rows done so far in this call, one call at a time but not
            always from the same thread.
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
        self._loaded: LoadedModel | None = None

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
            Row(index, prompt.ids, seed, min(sampling.max_new_tokens, model.context_length - len(prompt.ids)))
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
        waiting: list[Row],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Completes rows, longest prompts first, with the share of memory that one of so many lanes has.

        Where memory runs out, one of several leaves its rows.
        """
        while waiting:
            columns = len(waiting[0].prompt) + max(row.limit for row in waiting)
            most = max(1, min(self._budget() // lanes // columns, len(waiting)))
            work = partial(decode, self._model(), sampling, most, waiting, report, check)
            if not self._attempt(most, columns, work, lanes) and lanes > 1:
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

    def _score_all(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[ScoredRow]:
        if not prompts:
            return []
        model = self._model()
        model.check_prompts(prompts, room=0)
        scored = [
            ScoredRow(index, prompt.ids, tuple(continuation))
            for index, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True))
        ]
        model.check_lengths([len(row.head) + len(row.tail) for row in scored])
        model.check_ids([row.tail for row in scored])
        waiting = sorted((row for row in scored if row.tail), key=lambda row: (-len(row.head), row.head, row.index))
        while waiting:
            count, columns = scored_at_once(waiting, self._budget(), model.vocabulary)
            if self._attempt(count, columns, partial(score, model, waiting[:count])):
                waiting = waiting[count:]
        return scored

    def __enter__(self) -> Self:
        if self._loaded is None:
            self._loaded = load(self.name, self.device, self.dtype, self.trust_remote_code)
            if self.tokens_per_batch is None:
                self.tokens_per_batch = _default_budget(self._loaded, self.shared_by)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded = None
        free_memory()

    def _model(self) -> LoadedModel:
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

    def _report(self, rows: list[Row]) -> Callable[[], None]:
        lock = threading.Lock()

        def report() -> None:
            if self.on_progress is None:
                return
            with lock:
                done = [row.completion for row in rows if row.completion is not None]
                self.on_progress(sum(completion.tokens for completion in done), len(done))

        return report


def _default_budget(model: LoadedModel, shared_by: int) -> int:
    """Tokens of cache that the device's whole memory allows; not the free memory, so that a run can be made again."""
    bytes_per_token = token_bytes(model.model.config.get_text_config(), model.model.dtype.itemsize)
    kind = model.device.partition(":")[0]
    room = (device_memory(model.device) / shared_by - model.weights) / 2  # the other half is for activations and logits
    tokens = room / bytes_per_token
    return int(min(_MOST_TOKENS[kind], max(1, tokens)))
