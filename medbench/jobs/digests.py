"""Digests of texts and files. Those of large files are computed once: a digest is kept until size, times or inode of its file differ.

The time of modification can be set back, and a disk gives a new file the inode of one that was just removed; the time of the last change of
the entry itself (ctime) nobody sets.

Weights of many gigabytes are read once for their digest; a start of the workflow and its jobs then look at the disk's entry alone.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from medbench.jobs import files
from medbench.jobs.tree import files_below, is_hidden

TRACKED = False  # parameters hold the digests themselves
READ = frozenset((".bin", ".jinja", ".json", ".model", ".safetensors", ".txt"))
"""Endings of the files that loaders read of a checkpoint's folder: READMEs and weights for other libraries change nothing."""
_LARGE = 2 * 10**9  # bytes: what takes seconds to read is said
_SETTLED = 2.0  # s: a file that changed a moment ago may change again within the clock's resolution


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NamedTuples become lists, so name them in the caller."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str | bytes) -> str:
    """SHA-256, the first 16 hexadecimal digits."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp(path: Path | str) -> list[int]:
    """What the disk says of a file: size, times, inode. A file whose stamp is the same has the same bytes."""
    return _stamp(os.stat(path))


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes. Raises OSError for a file that cannot be read."""
    before = path.stat()
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    note = files.cache() / "digests" / name[:2] / f"{name}.json"  # a folder of all would be long, and is looked through at each write
    try:
        known = json.loads(note.read_bytes())
        if known["stamp"] == _stamp(before):
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if before.st_size >= _LARGE:
        print(f"reading {path} ({before.st_size / 1e9:.1f} GB) for its SHA-256, this once", file=sys.stderr, flush=True)
    found = file_digest(path)
    if time.time() - max(before.st_mtime, before.st_ctime) > _SETTLED:
        try:
            with files.atomic(note) as aside:
                aside.write_text(json.dumps({"stamp": _stamp(before), "sha256": found}), encoding="utf-8")
        except OSError:  # a cache that cannot be written costs time, nothing else
            pass
    return found


def tree(folder: Path) -> str:
    """One SHA-256 over names and digests of all files below a folder that a loader may read; hidden ones are left out."""
    found = hashlib.sha256()
    there = (file for file in files_below(folder, is_hidden) if file.suffix in READ and file.is_file())
    for name, path in sorted((file.relative_to(folder).as_posix(), file) for file in there):
        found.update(f"{name} {sha256(path)}\n".encode())
    return found.hexdigest()
