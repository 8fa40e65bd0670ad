"""Between text and tokens: prompts to ids, ids to the text that stands after the prompt, and where a row stops."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isara.prompts import PromptFormat


class Text:
    """A tokenizer, used as one prompt format needs it.

    Args:
        tokenizer: A fast transformers tokenizer.
        fmt: The prompt format; says whether the tokenizer adds its special tokens to prompts.
    """

    def __init__(self, tokenizer: Any, fmt: PromptFormat) -> None:
        self.tokenizer = tokenizer
        self.size = max(tokenizer.get_vocab().values()) + 1
        self.prefix = self._bos() if fmt.adds_special_tokens else []
        self.stop_table = lru_cache(self._stop_table)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as a prompt: a BOS that the tokenizer adds by itself, and never a closing EOS."""
        return [self.prefix + ids for ids in self._plain(texts)]

    def continuations(
        self, prompts: Sequence[str], texts: Sequence[str], heads: Sequence[list[int]]
    ) -> list[list[int]]:
        """Ids of each text after its prompt, whose ids are in `heads`, with the split where generation would have it.

        Prompt and text are tokenised in one piece where that leaves the prompt's ids as they are. Where a token would
        reach over the border, the text is tokenised by itself, as the model could only have generated it.
        """
        whole = self.encode([prompt + text for prompt, text in zip(prompts, texts, strict=True)])
        return [
            ids[len(head) :] if ids[: len(head)] == head else self._alone(text)
            for ids, head, text in zip(whole, heads, texts, strict=True)
        ]

    def after(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens included, with the space that decoding alone would strip."""
        tail = list(prompt[-4:])
        before, both = self._decode(tail), self._decode([*tail, *ids])
        return both[len(before) :] if both.startswith(before) else self._decode(ids)

    def clean(self, text: str) -> str:
        """The text without special tokens."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _alone(self, text: str) -> list[int]:
        # A character in front keeps tokenizers that begin every text with a space from doing so here.
        for anchor in ("\n", ":", "a"):
            [alone], [both] = self._plain([anchor]), self._plain([anchor + text])
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return self._plain([text])[0]

    def _bos(self) -> list[int]:
        ids: list[int] = self.tokenizer("a")["input_ids"]
        return ids[: ids.index(self._plain(["a"])[0][0])]

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


def cut(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop string in it, or None where there is none."""
    found = [index for stop in stops if (index := text.find(stop)) >= 0]
    return text[: min(found)] if found else None
