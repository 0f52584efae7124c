"""Files that appear whole or not at all and stay through a power cut, what a disk refuses in one line, and where downloads lie."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medbench.errors import Interrupted, MedbenchError

TRACKED = False  # how a file reaches the disk decides no result
KEPT_SECONDS = 90 * 24 * 3600.0
NAME_BYTES, PATH_CHARACTERS = 255, 1000  # of one part; of all of them, below the 4,096 bytes of a whole path
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room and run again"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let this user read and write it, and run again"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV), "check its disk, and run again"),
    **dict.fromkeys((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP), "put it on a disk that has this, and run again"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR), "give it another name, and run again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (`ulimit -n`), and run again"),
    errno.EFBIG: "allow larger files (`ulimit -f`), or take another disk, and run again",
}
_NUMBER = re.compile(r"(?:os error|\[Errno) (\d+)[)\]]")  # as polars and safetensors have it, and a folder's copy
_TORCH = "inline_container.cc"  # where torch writes: it says that it failed, not why


def trouble(error: BaseException, path: object, kept: str = "") -> Interrupted | None:
    """What a disk refused, raised by whatever library, as one line; None for any other error.

    `path`: the file, where the error names none. `kept`: what the next try need not do again.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1])
    if number not in _REMEDIES:
        return None
    named = error.filename if isinstance(error, OSError) else None
    return Interrupted(named or path, os.strerror(number), _REMEDIES[number] + (f": {kept}" if kept else ""))


@contextmanager
def written(path: Path, kept: str = "") -> Iterator[None]:
    """Around whatever writes to `path`, a file or folder. Raises Interrupted for what its disk refuses."""
    try:
        yield
    except Exception as error:
        if line := trouble(error, path, kept) or (_torch_trouble(error, path, kept) if _TORCH in str(error) else None):
            raise line from None
        raise


def _torch_trouble(error: Exception, path: Path, kept: str) -> Interrupted | None:
    """Why torch could not write, by writing one block more."""
    try:
        with path.with_name(f".{path.name}.{os.getpid()}.probe").open("wb") as probe:
            try:
                probe.write(bytes(2**20))
                probe.flush()
            finally:
                Path(probe.name).unlink()
    except OSError as found:
        return trouble(found, path, kept)
    return None


def make_folder(path: Path) -> None:
    """A folder with those above it. Raises MedbenchError where a file, or a link to what is not there, has its name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        place = next(one for one in (path, *path.parents) if os.path.lexists(one))
        found = f"is a link to {os.readlink(place)}, which is not there" if place.is_symlink() else "is in the place of a folder"
        raise MedbenchError(place, found, "mount its disk, or remove it, and run again") from None


@contextmanager
def atomic(path: Path, private: bool = False) -> Iterator[Path]:
    """A place beside `path` to write a file or a folder to: what is there at the end appears under its name in one step, after an error
    nothing does. What killed processes left there goes at the next try.

    It is on the disk before it has the name, so that a power cut leaves no empty file. `private`: a file is there already, empty and for
    its owner alone, so that nobody else can read it at any moment. Raises Interrupted for what the disk refuses.
    """
    with written(path):
        aside = _aside(path)
        try:
            if private:
                aside.touch(mode=0o600)
            yield aside
            _sync_all(aside)
            aside.replace(path)
            _sync(path.parent)
        finally:
            _remove(aside)


def publish(folder: Path, targets: Sequence[Path]) -> None:
    """Move files and folders that lie finished in `folder` under their final names, on whatever disk these are.

    Nothing old goes before all of the new is on the disk of its target. The last target stands for all: its old one goes first, and the
    new one comes last. Raises Interrupted for what a disk refuses.
    """
    asides = dict[Path, Path]()
    try:
        for target in targets:
            with written(target):
                asides[target] = _aside(target)
                _bring(folder / target.name, asides[target])
        _remove(targets[-1])
        for target, aside in asides.items():
            with written(target):
                _remove(target)
                aside.rename(target)
        for parent in {target.parent for target in targets}:
            _sync(parent)
    finally:
        for aside in asides.values():
            _remove(aside)


def _sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a disk that has nothing to do for it
            raise
    finally:
        os.close(handle)


def _sync_all(path: Path) -> None:
    """The same for a file, or for a folder with all below it."""
    for one in (*path.rglob("*"), path):
        _sync(one)


def _bring(source: Path, aside: Path) -> None:
    """Move to where the target's disk is, by a copy where that is another one."""
    _sync_all(source)
    try:
        source.rename(aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, aside) if source.is_dir() else shutil.copy2(source, aside)
        _sync_all(aside)


def _aside(path: Path) -> Path:
    """A free name beside `path`, in a folder that is there. What processes of this host that were killed left at such a place goes."""
    make_folder(path.parent)
    begin = f".{path.name}.{socket.gethostname()}."
    for left in path.parent.glob(f"{glob.escape(begin)}*.partial"):
        process = left.name.removeprefix(begin).removesuffix(".partial")
        if process.isdigit() and not lives(int(process)):
            _remove(left)
    aside = path.with_name(f"{begin}{os.getpid()}.partial")
    _remove(aside)
    return aside


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is a process of that number on this host."""
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


def forget_unused(folder: Path) -> None:
    """Remove the JSON files of a folder that nothing has written or touched for a quarter of a year: a queue may hold a job for weeks."""
    for left in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # another start was faster
            if time.time() - left.stat().st_mtime > KEPT_SECONDS:
                left.unlink()


def write_private(path: Path, text: str) -> None:
    """Write what is about patients, whole and readable by its owner alone. Raises Interrupted for what the disk refuses."""
    with written(path.parent), atomic(path, private=True) as aside:
        aside.write_text(text, encoding="utf-8")


def cache() -> Path:
    """Where downloads that the hub's client does not keep lie: MEDBENCH_CACHE, by default a folder of the user's cache."""
    return Path(os.environ.get("MEDBENCH_CACHE") or Path.home() / ".cache" / "medbench")


def irregular(path: Path) -> str | None:
    """What lies there instead of a file: reading a pipe waits without end, and a device may never end. None for a file, and for nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """An object that a job wrote. Raises MedbenchError where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedbenchError(path, f"not readable as JSON ({error})", "delete it and run again") from None
    if not isinstance(value, dict):
        raise MedbenchError(path, f"holds {type(value).__name__}, not an object", "delete it and run again")
    return value
