"""What lies below a folder of the user's, whose links may lead anywhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from medbench.jobs import files


def below(folder: Path, is_left_out: Callable[[str], bool] = lambda name: False) -> list[Path]:
    """Files and folders at any depth, sorted. A folder that is a link is entered, but for one that leads back to a folder above it.

    `is_left_out`: of a name, whether what is called so is passed over with all in it. Where there is no folder, nothing lies below it.
    Raises Interrupted for a folder that cannot be read.
    """
    if not folder.is_dir():
        return []
    above = frozenset(_identity(place) for place in (folder.resolve(), *folder.resolve().parents))
    return sorted(Path(path) for path in _below(str(folder), above, is_left_out))


def _below(folder: str, above: frozenset[tuple[int, int]], is_left_out: Callable[[str], bool]) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise files.trouble(error, folder) or error from None
    for entry in entries:
        if is_left_out(entry.name):
            continue
        yield entry.path
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            inner = _identity(entry.path)
            if inner not in above:
                yield from _below(entry.path, above | {inner}, is_left_out)


def _identity(folder: Path | str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
