"""What lies below a folder of the user's, whose links may lead anywhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from medbench.jobs import files

TRACKED = False  # walks as the standard library does: what it finds reaches jobs by digests and by the times of folders


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot."""
    return name.startswith(".")


def files_below(folder: Path, is_left_out: Callable[[str], bool] = lambda name: False) -> list[Path]:
    """All but folders at any depth, sorted. A folder that is a link is entered, but for one that leads back to a folder above it.

    `is_left_out`: of a name, whether what is called so is passed over with all in it. Where there is no folder, nothing lies below it.
    Raises Interrupted for a folder that cannot be read.
    """
    return sorted(Path(path) for path, is_folder in _below(folder, is_left_out) if not is_folder)


def folders_below(folder: Path, is_left_out: Callable[[str], bool] = lambda name: False) -> list[Path]:
    """The folders, as above."""
    return sorted(Path(path) for path, is_folder in _below(folder, is_left_out) if is_folder)


def _below(folder: Path, is_left_out: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    """Paths, and whether they are folders."""
    if folder.is_dir():
        above = (folder.resolve(), *folder.resolve().parents)
        yield from _inside(str(folder), frozenset(map(_identity, above)), is_left_out)


def _inside(folder: str, above: frozenset[tuple[int, int]], is_left_out: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise files.trouble(error, folder) or error from None
    for entry in entries:
        if is_left_out(entry.name):
            continue
        is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
        yield entry.path, is_folder
        if is_folder and (inner := _identity(entry.path)) not in above:
            yield from _inside(entry.path, above | {inner}, is_left_out)


def _identity(folder: Path | str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
