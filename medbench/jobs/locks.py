"""Locks: the kernel's, which a process loses when it dies in any way, and beside it a note of who holds it.

Some network disks keep the kernel's locks to one host, and some have none. Every disk can create a file for one process alone: that is
the note, and it names host and process. The note of a process of this host that is gone is void. Whether a process of another host lives
nobody can tell from here, so its note is void only where the kernel's lock says so and may be believed.
"""

import atexit
import contextlib
import errno
import json
import os
import socket
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

TRACKED = False  # who works where decides no result

_ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of a disk without locks
_POLL = 0.05  # s
_WRITING = 1.0  # s: a note without content is being written, unless its writer died at that moment


class Owner(NamedTuple):
    """Who holds a lock. A process is known by its number and by when it began [clock ticks since the start of its host]."""

    host: str
    space: str  # of process numbers: a container has its own
    process: int
    began: float
    since: str
    job: str

    def __str__(self) -> str:
        elsewhere = f" of host {self.host} since {self.since}" if self.lives() is None else ""
        return f"process {self.process}{elsewhere}" + (f" ({self.job})" if self.job else "")

    def lives(self) -> bool | None:
        """Whether it does; None for one of another host."""
        return _began(self.process) == self.began if (self.host, self.space) == _here() else None


class Busy(Exception):
    """Somebody holds the lock. `owner`: who, where a note says it."""

    def __init__(self, owner: Owner | None, note: Path) -> None:
        super().__init__(str(owner or "another process"))
        self.remedy = "wait for it, or end it, and run again"
        if owner is not None and owner.lives() is None:
            self.remedy = f"wait for it; if it was killed there, remove {note} and run again"


class Lock:
    """A lock by the name of its file. `across_hosts`: not to be believed of the kernel alone, whose lock the disk may keep to one host."""

    def __init__(self, path: Path, job: str = "", across_hosts: bool = False) -> None:
        self.path, self.note = path, path.with_suffix(".owner")
        self._job, self._across_hosts, self._process = job, across_hosts, os.getpid()
        self._kernel: FileLock | None = None

    def acquire(self, seconds: float = 0) -> None:
        """Take it; a process that holds it may take so long to end. Raises Busy."""
        end = time.monotonic() + seconds
        self._lock(seconds)
        try:
            while True:
                try:
                    return self._claim()
                except Busy:
                    if time.monotonic() >= end:
                        raise
                time.sleep(_POLL)
        except BaseException:
            self._unlock()
            raise

    def hold(self) -> None:
        """Keep it until this process ends."""
        atexit.register(self.release)

    def release(self, remove: bool = False) -> None:
        """Let go; `remove`: its file goes, too. Whoever has opened that meanwhile sees by its link count that it guards nothing."""
        if self._process != os.getpid():  # a fork's
            return
        with contextlib.suppress(OSError):  # of a disk that is gone: the note is void without its process
            self.note.unlink(missing_ok=True)
            if remove:
                self.path.unlink(missing_ok=True)
        self._unlock()

    def _lock(self, seconds: float) -> None:
        """The kernel's lock, where the disk has one."""
        lock = FileLock(self.path, fallback_to_soft=False, thread_local=False)
        try:
            lock.acquire(timeout=seconds, poll_interval=_POLL)
        except Timeout:
            raise Busy(read(self.note), self.note) from None
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            _say_absent(self.path.parent)
        else:
            self._kernel = lock

    def _unlock(self) -> None:
        if self._kernel is not None:
            self._kernel.release()
            self._kernel = None

    def _claim(self) -> None:
        """Write the note. Raises Busy where another one is not void."""
        own = Owner(*_here(), os.getpid(), _began(os.getpid()) or 0, time.strftime("%Y-%m-%d %H:%M:%S"), self._job)
        while True:
            try:
                with self.note.open("x", encoding="utf-8") as stream:
                    json.dump(own._asdict(), stream)
                return
            except FileExistsError:
                self._require_void()
            except OSError:  # the disk is full
                self.note.unlink(missing_ok=True)
                raise

    def _require_void(self) -> None:
        end = time.monotonic() + _WRITING
        while (owner := read(self.note)) is None and self._kernel is None and self.note.exists() and time.monotonic() < end:
            time.sleep(_POLL)
        lives = owner is not None and owner.lives()
        if lives or (lives is None and (self._across_hosts or self._kernel is None)):
            raise Busy(owner, self.note)
        self.note.unlink(missing_ok=True)


def read(note: Path) -> Owner | None:
    """Who wrote a note; None where it is absent, empty or no note."""
    try:
        return Owner(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@cache
def _here() -> tuple[str, str]:
    """This host, and the processes that can be seen on it."""
    try:
        return socket.gethostname(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname(), ""


def _began(process: int) -> float | None:
    """When a process began; None for one that is gone."""
    if sys.platform != "linux":
        import psutil

        try:
            return psutil.Process(process).create_time()
        except psutil.Error:
            return None
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])  # state and field 22, proc(5)


@cache
def _say_absent(folder: Path) -> None:
    print(f"{folder}: this disk has no locks; notes of host and process ({folder}/*.owner) stand for them", file=sys.stderr, flush=True)
