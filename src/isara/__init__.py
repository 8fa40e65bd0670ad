"""ISARA aligns a language model to a new domain from fewer than a hundred question-answer pairs."""

from importlib.metadata import version

from isara.data import QAPair, read_pairs
from isara.errors import IsaraError
from isara.loop import self_align
from isara.models import embedded_model

__version__ = version("isara")
__all__ = ["IsaraError", "QAPair", "embedded_model", "read_pairs", "self_align"]
