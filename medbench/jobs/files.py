"""Files that appear whole or not at all, and where downloads lie."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACKED = False  # how a file reaches the disk decides no result
NAME_BYTES, PATH_CHARACTERS = 255, 1000  # of one part; of all of them, below the 4,096 bytes of a whole path
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to: what is there at the end appears under its name in one step, after an error nothing does.

    What processes of this host that were killed left at such a place goes too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    asides = f".{path.name}.{socket.gethostname()}."
    for left in path.parent.glob(f"{asides}*.partial"):
        if not _lives(int(left.name.removeprefix(asides).removesuffix(".partial"))):
            left.unlink(missing_ok=True)
    aside = path.with_name(f"{asides}{os.getpid()}.partial")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def is_name(path: str) -> bool:
    """Whether a file can have this relative path: no NUL, no part longer than disks allow."""
    try:
        longest = max(len(os.fsencode(part)) for part in path.split("/"))
        return "\0" not in path and longest <= NAME_BYTES and len(path) <= PATH_CHARACTERS
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can hold it
        return False


def cache() -> Path:
    """Where downloads that the hub's client does not keep lie: MEDBENCH_CACHE, by default a folder of the user's cache."""
    return Path(os.environ.get("MEDBENCH_CACHE") or Path.home() / ".cache" / "medbench")


def irregular(path: Path) -> str | None:
    """What lies there instead of a file: reading a pipe waits without end, and a device may never end. None for a file, and for nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None
