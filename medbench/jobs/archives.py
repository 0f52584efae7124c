"""Zip and tar archives, unpacked member by member and only inside their folder."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs.progress import track

CHUNK = 2**20
RATIO, SMALL = 200, 2**30
"""An archive that claims to unpack to more than `SMALL` bytes and `RATIO` times its own size is taken for a bomb."""


def marker(path: Path) -> Path:
    """A file that says that an archive was unpacked whole."""
    return path.with_name(f".{path.name}.unpacked")


def unpack(path: Path, folder: Path, where: str, keep: bool = False) -> None:
    """A zip or tar into its folder, member by member; the archive goes when all of it is there, unless it is to be kept.

    Raises MedbenchError, before anything is written, for members that would lie outside, links, and archives that claim to be huge.
    """
    done = marker(path)
    if done.exists() and (not path.exists() or done.read_text() == str(path.stat().st_size)):  # of this archive, or of one that is gone
        return
    try:
        with _Archive(path) as archive:
            members = list(archive.members())
            _check(members, path, where)
            for member in track(iter(members), f"unpack {path.name}, files", len(members), 0, lambda _: 1):
                target = folder / member.name
                if not (target.is_file() and target.stat().st_size == member.size):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _write(archive.open(member), target, member, path, where)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        path.unlink(missing_ok=True)
        found = f"{path.name} is no whole archive ({' '.join(str(error).split())[:120]}), and is removed"
        raise MedbenchError(where, found, "run again") from None
    done.write_text(str(path.stat().st_size))
    if not keep:
        path.unlink()


class _Member(NamedTuple):
    name: str
    size: int
    is_link: bool
    raw: Any


class _Archive:
    """A zip, or a tar of any compression."""

    def __init__(self, path: Path) -> None:
        opener: Any = zipfile.ZipFile if zipfile.is_zipfile(path) else tarfile.open
        self._file: zipfile.ZipFile | tarfile.TarFile = opener(path)

    def members(self) -> Iterator[_Member]:
        """Files and links; folders follow from the files."""
        if isinstance(self._file, zipfile.ZipFile):
            for info in self._file.infolist():
                if not info.is_dir():
                    is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
                    yield _Member(info.filename, info.file_size, is_link, info)
        else:
            for member in self._file:
                if not member.isdir():
                    yield _Member(member.name, member.size, not member.isfile(), member)

    def open(self, member: _Member) -> IO[bytes]:
        """Its bytes."""
        stream = self._file.open(member.raw) if isinstance(self._file, zipfile.ZipFile) else self._file.extractfile(member.raw)
        assert stream is not None, "links are refused before"
        return stream

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _check(members: list[_Member], path: Path, where: str) -> None:
    for member in members:
        name = PurePosixPath(member.name.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in member.name or member.is_link:
            raise MedbenchError(where, f"{path.name} holds {member.name!r}, which leads out of its folder", "take the official file")
    total, own = sum(member.size for member in members), path.stat().st_size
    if total > max(SMALL, RATIO * own):
        raise MedbenchError(
            where, f"{path.name} of {own} bytes claims to unpack to {total}", "take the official file, or unpack it by hand"
        )


def _write(stream: IO[bytes], target: Path, member: _Member, path: Path, where: str) -> None:
    """Whole or not at all, and no byte more than announced."""
    aside = target.with_name(f"{target.name}.part")
    try:
        with stream, aside.open("wb") as out:
            left = member.size
            while chunk := stream.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise MedbenchError(where, f"{path.name}: {member.name} is larger than it claims", "take the official file")
                out.write(chunk)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
