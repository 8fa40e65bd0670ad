"""A shelf of finished stages that sibling runs share, each under the hash of its key."""

import shutil
from pathlib import Path

from isara.files import disk_errors, link_or_copy, make_folder, remove


class Shelf:
    """Finished stages by the hash of their key. Files are hard links where the disk allows them.

    Args:
        path: The folder, made where it is absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def lend(self, key: str, folder: Path) -> bool:
        """Whether there is a stage of this key; if so, it lies in `folder` afterwards."""
        place = self.path / key
        if not (place / "DONE").exists():
            return False
        remove(folder)
        _link_tree(place, folder)
        return True

    def keep(self, key: str, folder: Path) -> None:
        """Puts a finished stage on the shelf, where there is none of its key yet."""
        if not (self.path / key).exists():
            _link_tree(folder, self.path / key)


def _link_tree(source: Path, target: Path) -> None:
    """Links a whole folder, or none of it."""
    aside = target.with_name(target.name + ".partial")
    remove(aside)
    make_folder(aside.parent)
    with disk_errors(target):
        shutil.copytree(source, aside, copy_function=link_or_copy)
        aside.rename(target)
