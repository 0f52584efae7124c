"""Files that appear whole or not at all, and where downloads lie."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACKED = False  # how a file reaches the disk decides no result


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


def cache() -> Path:
    """Where downloads that the hub's client does not keep lie: MEDBENCH_CACHE, by default a folder of the user's cache."""
    return Path(os.environ.get("MEDBENCH_CACHE") or Path.home() / ".cache" / "medbench")
