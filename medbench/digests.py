"""SHA-256 of large files, computed once: a digest is kept until size, times or inode of its file differ.

The time of modification can be set back, and a disk gives a new file the inode of one that was just removed; the time of the last change of
the entry itself (ctime) nobody sets.

Weights of many gigabytes are read once for their digest; a start of the workflow and its jobs then look at the disk's entry alone.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from medbench import runtime

READ = frozenset((".bin", ".jinja", ".json", ".model", ".safetensors", ".txt"))
"""Endings of the files that loaders read of a checkpoint's folder: READMEs and weights for other libraries change nothing."""
_LARGE = 2 * 10**9  # bytes: what takes seconds to read is said
_SETTLED = 2.0  # s: a file that changed a moment ago may change again within the clock's resolution


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes. Raises OSError for a file that cannot be read."""
    before = path.stat()
    stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    note = runtime.cache() / "digests" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"
    try:
        known = json.loads(note.read_bytes())
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if before.st_size >= _LARGE:
        print(f"reading {path} ({before.st_size / 1e9:.1f} GB) for its SHA-256, this once", file=sys.stderr, flush=True)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if time.time() - max(before.st_mtime, before.st_ctime) > _SETTLED:
        try:
            with runtime.whole(note) as aside:
                aside.write_text(json.dumps({"stamp": stamp, "sha256": found}), encoding="utf-8")
        except OSError:  # a cache that cannot be written costs time, nothing else
            pass
    return found


def tree(folder: Path) -> str:
    """One SHA-256 over names and digests of all files below a folder that a loader may read; hidden ones are left out."""
    found = hashlib.sha256()
    for name, path in sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.suffix in READ):
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            found.update(f"{name} {sha256(path)}\n".encode())
    return found.hexdigest()
