"""Unfinished work of long jobs: kept aside where a kill cannot make it look finished, and found again by what it follows from.

A job works in `results/.partial/<digest>/`; the digest covers its stage, names, parameters, code and the size and time of change
of every input file. Size and time, not content: Snakemake reruns a job by the same signs, and reading a large table once more
before each start would cost more than what is saved. A file lock, which the kernel gives up when its process dies in any way,
keeps two processes apart. What a job got done stays when it is killed, and goes when it succeeds or fails for good.
"""

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout

from medbench import paths
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import digests, files
from medbench.jobs.microbatching import Microbatching

TRACKED = False  # where and how far a job is decides no result

FORMAT = 1
"""Of journals and states: raised when what older code left cannot be read any more."""
SYNC_SECONDS = 10.0
"""A kill loses no whole batch; a power cut loses what was appended in this time."""
_HEADER = struct.Struct("<Q16s")  # length and digest of what follows


class Journal:
    """Tables appended one by one, each whole or not there at all. A tail that is cut off or damaged is dropped on opening."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._ends = [0]
        self._synced = time.monotonic()
        self._file.seek(0)
        while (payload := self._record()) is not None:
            self._ends.append(self._ends[-1] + _HEADER.size + len(payload))
        self._file.truncate(self._ends[-1])

    def __len__(self) -> int:
        """Number of whole tables."""
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[pa.Table]:
        """The tables in order, one in memory at a time."""
        for start in self._ends[:-1]:
            self._file.seek(start)
            payload = self._record()
            assert payload is not None, "it was whole when it was opened or appended"
            yield pa.ipc.open_stream(payload).read_all()

    def append(self, table: pa.Table) -> None:
        """Add one table. It reaches the operating system at once and the disk every few seconds."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        payload = sink.getvalue().to_pybytes()
        self._file.write(_HEADER.pack(len(payload), _digest(payload)) + payload)
        self._file.flush()
        self._ends.append(self._ends[-1] + _HEADER.size + len(payload))
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _record(self) -> bytes | None:
        header = self._file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        length, digest = _HEADER.unpack(header)
        payload = self._file.read(length)
        return payload if len(payload) == length and _digest(payload) == digest else None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


class Work:
    """The folder of one job, and the batch size that was found to fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = {}  # more facts for the run record
        self._fits = folder / "fits.json"
        self.microbatching = Microbatching(json.loads(self._fits.read_text()) if self._fits.exists() else None, self._record)

    def journal(self) -> Journal:
        """What was computed so far, batch by batch."""
        return Journal(self.folder / "batches")

    def facts(self) -> dict[str, Any]:
        """For the run record: what the job found, and how many samples fitted at once, where not a whole batch did."""
        return self.found if self.microbatching.size is None else {**self.found, "samples_at_once": self.microbatching.size}

    def _record(self, size: int) -> None:
        with files.atomic(self._fits) as aside:
            aside.write_text(json.dumps(size))


@contextmanager
def work(stage: str, names: tuple[str, ...], fingerprint: str, inputs: Iterable[Path]) -> Iterator[Work]:
    """Begin or continue the work of a job of a stage. `fingerprint`: its parameters and code; `inputs`: every file or folder that it reads.

    Raises MedbenchError when another process is at it.
    """
    key = digests.digest(digests.canonical([FORMAT, stage, names, fingerprint, [_stamp(path) for path in inputs]]))
    with hold(paths.partial(key), f"{stage} {'/'.join(names)}") as folder:
        yield Work(folder)


def _stamp(path: Path) -> list[Any]:
    """Name, size and time of change of a file, or of every file in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] if file.exists() else [str(file)] for file in files]


@contextmanager
def hold(folder: Path, job: str) -> Iterator[Path]:
    """A folder for this process alone: removed at the end and after an error that another try would meet again, else kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(_lock(folder)), folder / "owner"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        by = owner.read_text() if owner.exists() else "another process"
        raise MedbenchError(folder, f"{by} works on {job}", "wait for it, or end it, and run again") from None
    try:
        folder.mkdir(exist_ok=True)
        owner.write_text(f"process {os.getpid()} ({job})")
        yield folder
        _remove(folder)
    except MedbenchError as error:
        if not isinstance(error, Interrupted):
            _remove(folder)
        raise
    finally:
        lock.release()


class Removed(NamedTuple):
    """A folder that `clean` removed."""

    folder: Path
    job: str
    size: int  # bytes


def clean() -> list[Removed]:
    """Remove the unfinished work that no live process holds."""
    removed = []
    for lock_file in sorted({_lock(folder) for folder in paths.partial("").glob("*")}):
        folder, lock = lock_file.with_suffix(""), FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if folder.is_dir():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            owner = folder / "owner"
            removed.append(Removed(folder, owner.read_text() if owner.exists() else "unknown", size))
        _remove(folder)
        lock.release()
    return removed


def _lock(folder: Path) -> Path:
    return folder if folder.suffix == ".lock" else folder.with_name(f"{folder.name}.lock")


def _remove(folder: Path) -> None:
    """Whoever opened the lock's file meanwhile sees by its link count that it guards nothing any more."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock(folder).unlink(missing_ok=True)
