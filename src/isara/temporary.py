"""Temporary folders, named after the process: one that is stopped can remove its own without having kept a list."""

import os

TYPE_CHECKING = False  # as of `typing`, which takes longer to import than all else here
if TYPE_CHECKING:
    from tempfile import TemporaryDirectory


def temporary_prefix() -> str:
    """How the names of this process's temporary folders begin."""
    return f"isara-{os.getpid()}-"


def temporary_folder() -> "TemporaryDirectory[str]":
    """A new temporary folder, which goes with its context or with the process."""
    import tempfile  # not on the way to the command line's first line

    return tempfile.TemporaryDirectory(prefix=temporary_prefix())
