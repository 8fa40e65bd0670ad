"""Settings and fixtures that all tests share: no network, and tiny random models as local folders."""

import os

# The libraries read these when they are imported, so they are set before anything else is.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import browser as browser

# A shell's background job ignores Ctrl-C, and so would what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_packaged_embedder() -> Iterator[None]:
    """`retrieve.embedder: auto` is the same whether or not the package of all-MiniLM-L6-v2 is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isara.embedders._is_installed", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base models by family: llama, opt, gpt2, gpt_neox, qwen2, gemma, phi. Read only: copy one to change it."""
    from tests.tiny_models import FAMILIES, make_model

    folder = tmp_path_factory.mktemp("models")
    return {family: make_model(family, folder / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny_llama(tiny_models: dict[str, Path]) -> Path:
    """A base model without chat template."""
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def tiny_chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Chat models by template: chatml (Qwen2, with a default system prompt), llama2 and gemma."""
    from tests.tiny_models import CHAT_MODELS, make_chat_model

    folder = tmp_path_factory.mktemp("chat-models")
    return {name: make_chat_model(name, folder / name) for name in CHAT_MODELS}


@pytest.fixture(scope="session")
def tiny_chat(tiny_chats: dict[str, Path]) -> Path:
    """A chat model: Qwen2 with ChatML turns and a default system prompt in its template."""
    return tiny_chats["chatml"]
