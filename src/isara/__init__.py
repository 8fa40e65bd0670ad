"""ISARA aligns a language model to a new domain from fewer than a hundred question-answer pairs.

What a user imports stands here; each name is loaded when it is first asked for, so that `import isara` is instant.
"""

TYPE_CHECKING = False  # as of `typing`, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from isara.build import assemble as assemble
    from isara.build import build_parts as build_parts
    from isara.build import build_run as build_run
    from isara.config import load_config as load_config
    from isara.data import read_pairs as read_pairs
    from isara.errors import IsaraError as IsaraError
    from isara.loop import generate_pairs as generate_pairs
    from isara.loop import run as run
    from isara.models import embedded_model as embedded_model
    from isara.parts import Parts as Parts
    from isara.pool import Pool as Pool
    from isara.records import Candidate as Candidate
    from isara.records import Draw as Draw
    from isara.records import QAPair as QAPair
    from isara.records import Rejection as Rejection
    from isara.render import Renderer as Renderer
    from isara.render import open_renderer as open_renderer
    from isara.verbs import answer as answer
    from isara.verbs import train as train

_WHERE = {
    "Candidate": "isara.records",
    "Draw": "isara.records",
    "IsaraError": "isara.errors",
    "Parts": "isara.parts",
    "Pool": "isara.pool",
    "QAPair": "isara.records",
    "Rejection": "isara.records",
    "Renderer": "isara.render",
    "answer": "isara.verbs",
    "assemble": "isara.build",
    "build_parts": "isara.build",
    "build_run": "isara.build",
    "embedded_model": "isara.models",
    "generate_pairs": "isara.loop",
    "load_config": "isara.config",
    "open_renderer": "isara.render",
    "read_pairs": "isara.data",
    "run": "isara.loop",
    "train": "isara.verbs",
}
__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> "Any":
    if name == "__version__":  # reading the package's metadata takes as long as all else here
        from importlib.metadata import version

        return version("isara")
    if name not in _WHERE:
        raise AttributeError(f"module 'isara' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
