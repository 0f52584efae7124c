"""The image files that a data set was prepared from: noted beside its tables, so that a start sees which were replaced or are gone."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medbench import paths
from medbench.jobs import digests, files

TRACKED = False  # what was read is compared with what is there, and no part of a result


class Noted(NamedTuple):
    """A file as it was when it was read. `image_id`: the SHA-256 of its bytes; None where it could not be used."""

    stamp: list[int]
    image_id: str | None


def write(dataset: str, noted: Mapping[str, Noted], folder: Path | None) -> None:
    """Note files (by their paths), relative to the folder of the data set, which may be moved."""
    text = json.dumps({_relative(path, folder): found for path, found in noted.items()}, ensure_ascii=False)
    with files.atomic(paths.sources(dataset)) as aside:
        aside.write_text(text, encoding="utf-8")


def read(dataset: str, folder: Path | None) -> dict[str, Noted]:
    """Path -> what is noted; nothing where no image is a file of its own."""
    try:
        found = json.loads(paths.sources(dataset).read_bytes())
        return {os.path.join(folder or "", name): Noted(*values) for name, values in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def changed(noted: Mapping[str, Noted]) -> list[str]:
    """Paths of files that have other bytes than were read, or are gone. A file that was only touched or copied is the same."""
    return [path for path, then in noted.items() if not _is_same(path, then)]


def _is_same(path: str, then: Noted) -> bool:
    try:
        return digests.stamp(path) == then.stamp or (then.image_id is not None and digests.sha256(Path(path)) == then.image_id)
    except OSError:
        return False


def _relative(path: str, folder: Path | None) -> str:
    return str(Path(path).relative_to(folder)) if folder and Path(path).is_relative_to(folder) else os.path.abspath(path)
