"""What surrounds a job's process: its death with its parent, and the cores that it may use."""

import ctypes
import os
import signal
import sys

TRACKED = False  # decides no result

_PR_SET_PDEATHSIG = 1


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


def threads() -> int:
    """Cores this job may use: Snakemake sets OMP_NUM_THREADS to the job's threads; by hand, all that this process may run on."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else len(os.sched_getaffinity(0))
