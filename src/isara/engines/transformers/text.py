"""From ids to text: what stands after a prompt, and where a row stops."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isara.render import special_tokens


class Text:
    """Decodes what a model generates.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.size = max(tokenizer.get_vocab().values()) + 1
        # The tokenizer's list names its own (BOS, EOS …); the others, such as Llama 3's headers, are only marked.
        marked = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = marked | set(tokenizer.all_special_ids)
        self._special = re.compile(
            "|".join(map(re.escape, special_tokens(tokenizer))) or "(?!)"
        )  # without names nothing is to match
        self.stop_table = lru_cache(self._stop_table)

    def after(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens included, with the space that decoding alone would strip."""
        tail = list(prompt[-4:])
        before, both = self._decode(tail), self._decode([*tail, *ids])
        return both[len(before) :] if both.startswith(before) else self._decode(ids)

    def cut(self, text: str, stops: Sequence[str]) -> str | None:
        """The text before the first stop string or special token in it, or None where there is none.

        A special token also counts where it was spelled out letter by letter: a later prompt would read it as one.
        """
        found = [index for stop in stops if (index := text.find(stop)) >= 0]
        if special := self._special.search(text):
            found.append(special.start())
        return text[: min(found)] if found else None

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _stop_table(self, stops: tuple[str, ...]) -> NDArray[np.bool_]:
        """For each id, whether its token can complete a stop string: shape (size,).

        Only after such a token is a row's text looked at, which spares decoding every row at every step.
        """
        last = {stop[-1] for stop in stops}
        if any(char.isspace() for char in last - {"\n"}):  # decoding one token alone may strip its spaces
            return np.ones(self.size, dtype=bool)
        if any(not char.isascii() for char in last):
            last.add("�")  # a token that holds a part of such a character's bytes
        pieces = [self._decode([index]) for index in range(self.size)]
        return np.array([any(char in piece for char in last) for piece in pieces])
