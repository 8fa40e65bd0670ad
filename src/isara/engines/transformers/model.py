"""A model in memory, read by rows that keep their keys and values in a `RowCache`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isara.engines.transformers.attention import use_products
from isara.engines.transformers.cache import RowCache
from isara.engines.transformers.kernels import pack_linears
from isara.engines.transformers.text import Text
from isara.errors import ModelError
from isara.hardware import is_out_of_memory
from isara.loading import check_finite, load_model
from isara.models import find_model
from isara.records import Prompt
from isara.render import context_length

# Their attention takes the last column that it sees for the newest token's, so none may lie ahead.
_NO_SPARE = {"gpt_neo", "mpt"}
_PREFILL_TOKENS = {"cpu": 512, "mps": 4096, "cuda": 16384}  # prompt tokens of one forward pass


@dataclass
class LoadedModel:
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

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows, those that its tokenizer lacks included."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        """Raises ModelError where a token was added to the tokenizer alone."""
        largest, size = max(max(ids, default=0) for ids in rows), self.vocabulary
        if largest >= size:
            raise ModelError(
                f"the tokenizer makes token {largest}, and the model knows {size}: use the tokenizer that belongs to "
                "the model"
            )

    def not_finite(self) -> ModelError:
        """The error of a model whose logits are NaN or infinite, as sums outgrow float16 in some."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        return ModelError(
            f"expected finite logits of the model in {dtype}, found NaN or infinity: set engine.dtype to "
            f"{'bfloat16 or float32' if dtype == 'float16' else 'float32'}"
        )

    def cache(self, rows: int) -> RowCache:
        """An empty cache for so many rows."""
        config = self.model.config.get_text_config()
        spare = {"spare": 1} if config.model_type in _NO_SPARE else {}
        return RowCache(rows, config.num_hidden_layers, **spare)

    def ends(self, stops: tuple[str, ...]) -> torch.Tensor:
        """For each id whether a row may have ended with it: EOS, a special token, or the last one of a stop string.

        The shape is (vocab,), without the ids that the tokenizer lacks.
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
        self.model.base_model(input_ids=pad(prompts).to(self.device), past_key_values=cache, use_cache=True)
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
        return logits


def load(name: str, device: str, dtype: torch.dtype, trust_remote_code: bool) -> LoadedModel:
    """The model of a folder or a name, on its device.

    Raises:
        ModelError: It can't be read, doesn't fit into memory, or has layers that keep more than keys and values.
    """
    name = find_model(name)
    try:
        model, tokenizer = load_model(name, dtype, trust_remote_code)
        model = model.to(device).eval()
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
    if device == "cpu":
        use_products(model)
        pack_linears(model)
    return LoadedModel(
        model=model,
        weights=weights,
        text=Text(tokenizer),
        context_length=context_length(model.config, tokenizer),
        device=device,
        eos=_eos_ids(model, tokenizer),
    )


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


def pad(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids of shape (rows, longest), zeros on the right."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    stated = model.generation_config.eos_token_id
    ids = {stated} if isinstance(stated, int) else set(stated or ())
    return ids | ({tokenizer.eos_token_id} - {None})
