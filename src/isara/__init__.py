"""ISARA aligns a language model to a new domain from fewer than a hundred question-answer pairs."""

from isara.data import QAPair
from isara.errors import IsaraError

__version__ = "0.1.0"
__all__ = ["IsaraError", "QAPair"]
