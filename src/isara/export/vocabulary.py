"""A tokenizer as a GGUF file holds it, or one line that says why llama.cpp could not cut text into the same tokens."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isara.errors import ModelError

# Token types of llama.cpp.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTES = re.compile(r"<0x[0-9A-F]{2}>")
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# llama.cpp's names for the ways in which a vocabulary cuts text into words.
_SPLITS = {_WORDS.format(digits=r"\p{N}{1,3}"): "llama-bpe", _WORDS.format(digits=r"\p{N}"): "qwen2"}
_INSTEAD = "export it as safetensors"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What of a tokenizer enters a GGUF file.

    Attributes:
        model: "gpt2" for byte-level BPE, "llama" for SentencePiece.
        split: llama.cpp's name for how text is cut into words.
        tokens: The text of each id.
        types: llama.cpp's type of each id.
        merges: Of byte-level BPE, in order.
        scores: Of SentencePiece: what has the higher one is joined first.
        adds_space: Whether a text gets a space in front.
    """

    model: str
    split: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    scores: Sequence[float]
    adds_space: bool


def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, filled up to the rows of the model's embedding.

    Args:
        tokenizer: One of transformers.
        size: Rows of the embedding.

    Raises:
        ModelError: llama.cpp has no way to give the same tokens.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend is not None else {}
    model = state.get("model", {})
    if model.get("type") != "BPE":
        raise _foreign(f"of the kind {model.get('type', type(tokenizer).__name__)}", "BPE")
    known = tokenizer.get_vocab()
    if known and max(known.values()) >= size:
        raise ModelError(
            f"expected an embedding with a row for each of the tokenizer's {max(known.values()) + 1} tokens, found "
            f"{size} rows: {_INSTEAD}"
        )
    tokens = [f"[PAD{number}]" for number in range(size)]
    for token, number in known.items():
        tokens[number] = token
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    bytewise = bool(model.get("byte_fallback"))
    types = _types(state, set(known.values()), tokens, model.get("unk_token") if bytewise else None, bytewise)
    if bytewise:
        _check_scores(pairs, known)
        scores = [-float(number) for number in range(size)]
        return Vocabulary("llama", "default", tokens, types, (), scores, _space_in_front(state))
    return Vocabulary("gpt2", _split(state), tokens, types, [" ".join(pair) for pair in pairs], (), False)


def _types(state: Mapping[str, Any], used: set[int], tokens: Sequence[str], unknown: Any, bytewise: bool) -> list[int]:
    types = [_NORMAL if number in used else _UNUSED for number in range(len(tokens))]
    if bytewise:
        types = [_BYTE if _BYTES.fullmatch(token) else kind for token, kind in zip(tokens, types, strict=True)]
    for added in state.get("added_tokens", ()):
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    return [_UNKNOWN if token == unknown else kind for token, kind in zip(tokens, types, strict=True)]


def _split(state: Mapping[str, Any]) -> str:
    """llama.cpp's name for how byte-level BPE cuts text into words.

    Raises:
        ModelError: It has none for this way.
    """
    if (state.get("normalizer") or {"type": "NFC"})["type"] != "NFC":  # NFC changes next to no text
        raise _foreign(f"with the normaliser {state['normalizer']['type']}", "no normaliser")
    steps = state.get("pre_tokenizer") or {}
    parts = steps.get("pretokenizers", [steps])
    kinds = [part.get("type") for part in parts]
    if kinds and kinds[-1] == "ByteLevel" and not parts[-1].get("add_prefix_space"):
        own = parts[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and own:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and own and parts[0].get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not own and parts[0].get("behavior") == "Isolated":
            if name := _SPLITS.get(str(parts[0].get("pattern", {}).get("Regex"))):
                return name
    raise _foreign("that cuts text into words in a way of its own", "the split of GPT-2, SmolLM, Llama 3 or Qwen2")


def _check_scores(pairs: Sequence[tuple[str, ...]], known: Mapping[str, int]) -> None:
    """Raises ModelError where SentencePiece would join in another order than the merges: it goes by the joined token.

    It joins whatever gives a token, the one with the smallest id first; so there must be a merge for each way to cut
    a token into two, and they must be in the order of the tokens that they give.
    """
    joined = [known.get("".join(pair)) for pair in pairs]
    ids = [number for number in joined if number is not None]
    ways = set(pairs)
    reached = {"".join(pair) for pair in pairs}
    whole = all(
        (token[:cut], token[cut:]) in ways
        for token in reached
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    )
    if len(ids) < len(joined) or ids != sorted(ids) or not whole:
        raise _foreign("whose merges are not those of a SentencePiece vocabulary", "one that is")


def _space_in_front(state: Mapping[str, Any]) -> bool:
    """Whether SentencePiece puts a space before a text.

    Raises:
        ModelError: The tokenizer does something else to a text.
    """
    normalizer, split = state.get("normalizer") or {}, state.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = {step["type"] for step in steps}
    if kinds <= {"Prepend", "Replace"} and split.get("type") in (None, "Split", "Metaspace"):
        return "Prepend" in kinds or (split.get("type") == "Metaspace" and split.get("prepend_scheme") != "never")
    raise _foreign("that changes a text before it cuts it", "SentencePiece's own way")


def _foreign(found: str, wanted: str) -> ModelError:
    return ModelError(
        f"expected a tokenizer that llama.cpp has ({wanted}), found one {found}, so that a GGUF file's tokens would be "
        f"others than in training: {_INSTEAD}"
    )
