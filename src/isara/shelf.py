"""A shelf of finished stages that sibling runs share, each under the hash of its key."""

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from isara.files import disk_errors, link_or_copy, make_folder, remove

log = logging.getLogger("isara")


class Shelf:
    """Finished stages by the hash of their key. Files are hard links where the disk allows them.

    Args:
        path: The folder, made where it is absent.
        is_whole: Whether a stage's folder is what its DONE says.
    """

    def __init__(self, path: Path, is_whole: Callable[[Path], bool]) -> None:
        self.path = path
        self._is_whole = is_whole

    def lend(self, key: str, folder: Path) -> bool:
        """Whether there is a whole stage of this key, which then lies in `folder`; a spoilt one is dropped."""
        place = self.path / key
        if not place.exists():
            return False
        if not self._is_whole(place):
            log.warning("%s was spoilt, and is made anew", place)
            remove(place)
            return False
        remove(folder)
        _link_tree(place, folder)
        return True

    def keep(self, key: str, folder: Path) -> None:
        """Puts a finished stage on the shelf, where there is none of its key yet."""
        if not (self.path / key).exists():
            _link_tree(folder, self.path / key)


def _link_tree(source: Path, target: Path) -> None:
    """Links a whole folder, or none of it; where another process was quicker, its folder stays."""
    aside = target.with_name(f"{target.name}.{uuid4().hex}.partial")
    make_folder(aside.parent)
    try:
        with disk_errors(target):
            try:
                shutil.copytree(source, aside, copy_function=link_or_copy)
            except shutil.Error as error:  # a list of what failed, each with its reason
                raise OSError(f"{error.args[0][0][2]}") from error
            if not target.exists():
                with contextlib.suppress(FileExistsError):
                    aside.rename(target)
    finally:
        remove(aside)
