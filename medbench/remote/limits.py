"""How fast and how long an endpoint is asked: requests in flight and pauses, shared by all processes that use one store."""

import asyncio
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from medbench.remote.store import make_private

TRACKED = False  # when something is asked decides no answer
_LOOK = 0.05  # s: how often a process looks for a free place


class Limits(NamedTuple):
    """What is asked of an endpoint at a time, and when to give up."""

    concurrency: int = 16  # requests in flight, of all cells and processes together
    max_tries: int = 6  # of a request that fails
    max_unanswered: int = 3  # times that an empty or filtered answer is asked for
    max_wait: float = 600.0  # s that a service may ask to wait, at once or without an answer in between
    max_failures: float = 0.1  # share of requests that may fail before the others are not asked
    max_cost: float | None = None  # dollars of a run
    run: str = "by-hand"  # whose money it is
    price: str | None = None  # provider/model of genai-prices
    batch: bool = False  # ask by batches first: half the price, within a day
    batch_wait: float = 90_000.0  # s for batches; then the job ends, and a later run finds them again
    retry: bool = False  # ask again what is kept as empty or filtered


class Gate:
    """Lets `limits.concurrency` requests through at a time, and none during a pause.

    Each request in flight holds the lock of one file in a folder, so that processes share the number; a killed process frees its own.
    """

    def __init__(self, root: Path, service: str, limits: Limits) -> None:
        """`root`: of the store; `service`: what the limits are of, as an address."""
        self.folder = root / f".limits-{hashlib.sha256(service.encode()).hexdigest()[:16]}"
        make_private(self.folder)
        self.limits = limits
        self._places = [self._opened(str(number)) for number in range(limits.concurrency)]
        self._free = list(self._places)  # not held by this process
        self._asked, self._pause = self._opened("asked"), self._opened("pause")

    def _opened(self, name: str) -> int:
        return os.open(self.folder / name, os.O_CREAT | os.O_RDWR, 0o600)

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Around one request."""
        place = None
        while place is None:
            if (wait := self.paused()) > 0:
                await asyncio.sleep(wait)
            elif (place := self._place()) is None:
                await asyncio.sleep(_LOOK)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(place, fcntl.LOCK_UN)
            self._free.append(place)

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Around one request: no other process asks for the same key meanwhile."""
        place = int(key[:12], 16)  # one byte of the file stands for a key
        while not self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB, place):
            await asyncio.sleep(_LOOK)
        try:
            yield
        finally:
            self._locked(fcntl.LOCK_UN, place)

    def close(self) -> None:
        """What is locked is free."""
        for file in (*self._places, self._asked, self._pause):
            os.close(file)

    def _locked(self, how: int, place: int) -> bool:
        """Whether it could be done; on a disk without locks it counts as done."""
        try:
            fcntl.lockf(self._asked, how, 1, place)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long."""
        end = time.time() + seconds
        if end > self._end():
            os.pwrite(self._pause, f"{end:020.3f}".encode(), 0)

    def paused(self) -> float:
        """Seconds until requests are let through; never more than `max_wait`, whatever a file of another day or clock says."""
        return min(self._end() - time.time(), self.limits.max_wait)

    def _end(self) -> float:
        with suppress(OSError, ValueError):
            return float(os.pread(self._pause, 20, 0))
        return 0.0

    def _place(self) -> int | None:
        """A free one of the places, held; on a disk without locks any: there the limit holds in each process."""
        for number, file in enumerate(self._free):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    continue
            return self._free.pop(number)
        return None
