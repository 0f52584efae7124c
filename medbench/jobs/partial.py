"""Unfinished work of long jobs: kept aside where a kill cannot make it look finished, and found again by what it follows from.

A job works in `results/.partial/<digest>/`; the digest covers its stage, names, parameters, code, the versions of the libraries that it
uses, and the size and time of change of every input file. Size and time, not content: Snakemake reruns a job by the same signs, and
reading a large table once more before each start would cost more than what is saved. A lock keeps two processes apart
(medbench.jobs.locks). What a job got done stays when it is killed, and goes when it succeeds or fails for good.
"""

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa

from medbench import paths
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import digests, files, locks
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

    def __init__(self, folder: Path, fingerprint: str = "") -> None:
        """`fingerprint`: parameters and code of the job."""
        self.folder, self.fingerprint = folder, fingerprint
        self.found: dict[str, Any] = {}  # more facts for the run record
        self.beside: dict[str, Any] = {}  # what the job is told that changes no result
        self._fits = folder / "fits.json"
        self.microbatching = Microbatching(self._read(), self._record)

    def journal(self, weights: Mapping[str, str]) -> Journal:
        """What was computed so far by these weights, batch by batch. Of a repository that is not pinned, others may have come since."""
        batches, note = self.folder / "batches", self.folder / "loaded"
        began = digests.digest(digests.canonical(weights))
        if not note.exists() or note.read_text(encoding="utf-8") != began:
            batches.unlink(missing_ok=True)
            with files.atomic(note) as aside:
                aside.write_text(began, encoding="utf-8")
        return Journal(batches)

    def facts(self) -> dict[str, Any]:
        """For the run record: what the job found, and how many samples fitted at once, where not a whole batch did."""
        return self.found if self.microbatching.size is None else {**self.found, "samples_at_once": self.microbatching.size}

    def _read(self) -> int | None:
        """What was found to fit; None where nothing was, or nothing that can be read."""
        try:
            size = json.loads(self._fits.read_bytes())
        except (OSError, ValueError):
            return None
        return size if type(size) is int and size > 0 else None

    def _record(self, size: int) -> None:
        with files.atomic(self._fits) as aside:
            aside.write_text(json.dumps(size))


@contextmanager
def work(stage: str, names: tuple[str, ...], fingerprint: str, versions: Mapping[str, str], inputs: Iterable[Path]) -> Iterator[Work]:
    """Begin or continue the work of a job of a stage. `fingerprint`: its parameters and code; `versions`: of its libraries, so that no
    result is of two; `inputs`: every file or folder that it reads.

    Raises MedbenchError when another process is at it.
    """
    key = digests.digest(digests.canonical([FORMAT, stage, names, fingerprint, versions, [_stamp(path) for path in inputs]]))
    with hold(paths.partial(key), f"{stage} {'/'.join(names)}", "finished batches are kept") as folder:
        yield Work(folder, fingerprint)


def _stamp(path: Path) -> list[Any]:
    """Name, size and time of change of a file, or of every file in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] if file.exists() else [str(file)] for file in files]


@contextmanager
def hold(folder: Path, job: str, kept: str = "") -> Iterator[Path]:
    """A folder for this process alone: removed at the end and after an error that another try would meet again, else kept.

    Raises MedbenchError when another process has it, Interrupted for what its disk refuses; `kept`: what of it the next try uses, in words.
    """
    files.make_folder(folder.parent)
    lock, done = locks.Lock(_lock(folder), job), False
    with files.written(folder, kept):
        try:
            lock.acquire()
        except locks.Busy as busy:
            raise MedbenchError(folder, f"{busy} works on {job}", busy.remedy) from None
        try:
            folder.mkdir(exist_ok=True)
            yield folder
            done = True
        except MedbenchError as error:
            done = not isinstance(error, Interrupted)
            raise
        finally:
            if done:
                shutil.rmtree(folder, ignore_errors=True)
            lock.release(remove=done)


@contextmanager
def anew(name: str, job: str) -> Iterator[Path]:
    """An empty folder for this process alone, and nothing of it at the end: for a job that begins anew at every try."""
    with hold(paths.partial(name), job) as held:
        folder = held / "made"
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Removed(NamedTuple):
    """A folder that `clean` removed."""

    folder: Path
    job: str
    size: int  # bytes


def clean() -> list[Removed]:
    """Remove the unfinished work that no live process holds."""
    removed = []
    for name in sorted({path.name.removesuffix(".lock").removesuffix(".owner") for path in paths.partial("").glob("*")}):
        folder = paths.partial(name)
        lock = locks.Lock(_lock(folder), "clean")
        owner = locks.read(lock.note)
        try:
            lock.acquire()
        except locks.Busy:
            continue
        if folder.is_dir():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            removed.append(Removed(folder, str(owner or "unknown"), size))
        shutil.rmtree(folder, ignore_errors=True)
        lock.release(remove=True)
    return removed


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
