"""What surrounds a job's process: its death with its parent, its standard input, the cores that it may use, what it does apart.

Every job imports it first (medbench.jobs.warm), so what one function needs is imported there.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

TYPE_CHECKING = False  # as of `typing`, which takes as long to import as the rest
if TYPE_CHECKING:
    from multiprocessing.connection import Connection

TRACKED = False  # decides no result

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def die_with_parent(parent: int | None = None) -> None:
    """On Linux, have the kernel kill this process when its parent dies, so that no orphan writes into a rerun.

    `parent` is the process that started this one, for where it may have died already.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the signal was set
        os.kill(os.getpid(), signal.SIGKILL)


def keep_memory() -> None:
    """With glibc, what torch frees after one step is there for the next: given back to the system, it would be cleared page by page."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def close_input() -> None:
    """Standard input is the null device from now on: a job is asked nothing, and no library gets a "y" from there."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null:
        os.dup2(null, 0)
        os.close(null)


def open_outputs() -> None:
    """Standard output and error are the null device where whoever started this process has closed them (`>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)


def apart(make: Callable[[], str], seconds: float, memory: int) -> str:
    """What `make` returns, made in a fork of this process, which is ended after this time; `memory` [bytes] is what it may take more.

    For what cannot be interrupted here. Raises TimeoutError, MemoryError, or ValueError with the words of any other error.
    """
    import multiprocessing

    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_tell, args=(theirs, make, seconds, memory), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise TimeoutError(f"takes more than {seconds:.0f} s")
        kind, _, said = ours.recv_bytes().decode().partition(" ")
    except EOFError:  # it was killed
        kind, said = "MemoryError", ""
    finally:
        child.kill()
        child.join()
    if kind == "MemoryError":
        raise MemoryError(f"takes more than {memory / 1e6:.0f} MB")
    if kind:
        raise ValueError(f"{kind}: {said}")
    return said


def _tell(parent: "Connection", make: Callable[[], str], seconds: float, memory: int) -> None:
    """In the fork."""
    import resource
    from pathlib import Path

    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))  # also where the parent is gone
    try:
        said = f" {make()}"
    except BaseException as error:
        said = f"{type(error).__name__} {error}"[:1000]
    parent.send_bytes(said.encode(errors="replace"))


def threads() -> int:
    """Cores this job may use: Snakemake sets OMP_NUM_THREADS to the job's threads; by hand, all that this process may run on."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else len(os.sched_getaffinity(0))
