"""Zip and tar archives, unpacked member by member and only inside their folder."""

import errno
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.jobs.limits import ARCHIVE_BLOCK as BLOCK
from medbench.jobs.limits import ARCHIVE_NAME_BYTES
from medbench.jobs.limits import ARCHIVE_RATIO as RATIO
from medbench.jobs.limits import ARCHIVE_SMALL as SMALL
from medbench.jobs.progress import track

CHUNK = 2**20
ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""How a zip begins. How it ends proves nothing: a tar whose last member is a zip ends so too."""
OUT = "leads out of its folder"


def marker(path: Path) -> Path:
    """A file that says that an archive was unpacked whole."""
    return path.with_name(f".{path.name}.unpacked")


def _aside(path: Path) -> Path:
    """Where a member is written before it gets its name: no name that a member may have."""
    return path.with_name(f".{path.name}.unpacking")


def unpack(path: Path, folder: Path, where: str, keep: bool = False) -> None:
    """A zip or tar into its folder, member by member; the archive goes when all of it is there, unless it is to be kept.

    Raises MedbenchError, before anything is written, for members that are no files, would lie outside, or would overwrite each other, and
    for archives that claim to be huge.
    """
    done = marker(path)
    if done.exists() and (not path.exists() or done.read_text() == str(path.stat().st_size)):  # of this archive, or of one that is gone
        return
    if kind := files.irregular(path):
        raise MedbenchError(where, f"{path} is {kind}, not an archive", "put the official file there")
    aside = _aside(path)
    try:
        with _Archive(path) as archive:
            members = _checked(archive.members(), path, folder, where)
            for member in track(iter(members), f"unpack {path.name}, files", len(members), 0, lambda _: 1):
                _write(archive, member, folder / member.name, aside, path, where)
    except OSError as error:
        if error.errno is None:  # of a decoder
            raise _damaged(path, error, where) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # worded once for all stages
            raise
        found = f"{path.name} cannot be unpacked into {folder} ({error.strerror}: {error.filename})"
        raise MedbenchError(where, found, "make room for it there and run again") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, struct.error) as error:
        raise _damaged(path, error, where) from None
    except NotImplementedError as error:  # another compression, a password
        raise MedbenchError(where, f"{path.name} cannot be unpacked here ({error})", "unpack it by hand, and set raw_dir") from None
    finally:
        aside.unlink(missing_ok=True)
    _check_twins(members, path, folder, where)
    done.write_text(str(path.stat().st_size))
    if not keep:
        path.unlink()


def _damaged(path: Path, error: Exception, where: str) -> MedbenchError:
    path.unlink(missing_ok=True)
    return MedbenchError(where, f"{path.name} is no whole archive ({' '.join(str(error).split())[:120]}), and is removed", "run again")


class _Member(NamedTuple):
    name: str
    size: int
    fault: str  # why it is no file, if it is none
    raw: Any


class _Header(tarfile.TarInfo):
    """Refuses what tarfile takes for the end of the archive (a damaged header, an end without its mark), and huge names."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the mark of the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged header: {error}") from None
        is_attribute = not found.isfile() and found.type in b"xgXLK"
        if is_attribute and found.size > ARCHIVE_NAME_BYTES:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


class _Archive:
    """A zip, or a tar of any compression."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            begin = stream.read(4)
        opener: Any = zipfile.ZipFile if begin in ZIPS else partial(tarfile.open, tarinfo=_Header)
        self._file: zipfile.ZipFile | tarfile.TarFile = opener(path)

    def members(self) -> Iterator[_Member]:
        """All but folders, which follow from the files."""
        if isinstance(self._file, zipfile.ZipFile):
            for info in self._file.infolist():
                name = info.filename.replace("\\", "/")  # as some programs on Windows write it
                if not name.endswith("/"):
                    is_link = stat.S_ISLNK(info.external_attr >> 16)
                    yield _Member(name, info.file_size, OUT if is_link else "", info)
        else:
            for member in self._file:
                if not member.isdir():
                    is_link = member.issym() or member.islnk()
                    yield _Member(member.name, member.size, OUT if is_link else "" if member.isfile() else "is no file", member)
            self._drain(self._file.fileobj)

    @staticmethod
    def _drain(stream: Any) -> None:
        """Read what follows the last member: the checksum of a compressed stream stands at its end."""
        for _ in range(SMALL // CHUNK + 1):
            if not stream.read(CHUNK):
                return
        raise tarfile.ReadError("it goes on behind its end")

    def open(self, member: _Member) -> IO[bytes]:
        """Its bytes. Raises NotImplementedError for what Python cannot unpack."""
        if isinstance(self._file, zipfile.ZipFile) and member.raw.flag_bits & 1:
            raise NotImplementedError(f"{member.name} is encrypted")
        stream = self._file.open(member.raw) if isinstance(self._file, zipfile.ZipFile) else self._file.extractfile(member.raw)
        assert stream is not None, "links are refused before"
        return stream

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _checked(members: Iterator[_Member], path: Path, folder: Path, where: str) -> list[_Member]:
    """All members. Raises MedbenchError for the first that cannot be unpacked as a file of its own, and for what claims to be huge."""
    own, total, found = path.stat().st_size, 0, dict[PurePosixPath, _Member]()
    reserved = {os.path.normpath(used) for used in (path, marker(path), _aside(path))}
    for member in members:
        name = PurePosixPath(member.name)
        fault = member.fault
        if name.is_absolute() or ".." in PurePosixPath(member.name.replace("\\", "/")).parts or ":" in member.name:
            fault = OUT
        elif not name.parts or not files.is_name(member.name):
            fault = "no file can be called"
        elif os.path.normpath(folder / name) in reserved:
            fault = "would overwrite the archive"
        elif name in found:
            fault = f"stands there twice, also as {found[name].name!r}"
        if fault:
            raise _refused(path, member.name, fault, where)
        found[name] = member
        total += max(member.size, BLOCK)
        if total > max(SMALL, RATIO * own):
            claimed = f"{path.name} of {own} bytes claims to unpack to {total}"
            raise MedbenchError(where, claimed, "take the official file, or unpack it by hand")
    for name in found:
        if above := next((parent for parent in name.parents if parent in found), None):
            raise _refused(path, str(above), "is a file and a folder there", where)
    return list(found.values())


def _refused(path: Path, name: str, fault: str, where: str) -> MedbenchError:
    return MedbenchError(where, f"{path.name} holds {name!r}, which {fault}", "take the official file")


def _write(archive: _Archive, member: _Member, target: Path, aside: Path, path: Path, where: str) -> None:
    """Whole or not at all, and no byte more or less than announced; not again what is there."""
    if target.is_file() and target.stat().st_size == member.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as stream, aside.open("wb") as out:
        left = member.size
        while chunk := stream.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise MedbenchError(where, f"{path.name}: {member.name} is larger than it claims", "take the official file")
            out.write(chunk)
    if left:
        raise EOFError(f"{member.name} ends {left} bytes early")
    os.replace(aside, target)


def _check_twins(members: list[_Member], path: Path, folder: Path, where: str) -> None:
    """Raise MedbenchError where a disk takes two names for one (`a` and `A`, two forms of `é`): the second file has replaced the first."""
    twins = defaultdict[str, list[str]](list)
    for member in members:
        twins[unicodedata.normalize("NFC", member.name).casefold()].append(member.name)
    for first, *others in twins.values():
        for other in others:
            if os.path.samefile(folder / first, folder / other):
                found = f"{path.name} holds {first!r} and {other!r}, which are one file in {folder}"
                raise MedbenchError(where, found, "put the data on a disk that tells them apart")
