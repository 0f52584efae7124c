"""What surrounds every job: the device it computes on, seeds, death with its parent, files that appear whole."""

import ctypes
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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


@contextmanager
def whole(path: Path) -> Iterator[Path]:
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


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and have torch refuse kernels that are not deterministic on a CPU."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if not torch.cuda.is_available():
        _refuse_undetermined()


def deterministic_kernels() -> None:
    """Have torch compute by kernels alone that sum in a fixed order, on a GPU too; call it before the first of them."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs for it
    torch.backends.cudnn.benchmark = False
    _refuse_undetermined()


def _refuse_undetermined() -> None:
    """As `torch.use_deterministic_algorithms(True)`, which sets the compiler too, and imports it for that: longer than torch itself."""
    import torch

    torch.set_deterministic_debug_mode("error")


def device() -> "torch.device":
    """The device of this job: the first visible GPU, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def overlaps() -> bool:
    """Whether the device computes beside the CPU."""
    return device().type != "cpu"


def free_memory() -> None:
    """Give back what is no longer used, so that something as large has room."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def n_gpus() -> int:
    """GPUs that this job sees: as many as it claimed."""
    import torch

    return torch.cuda.device_count()


def gpu_facts() -> dict[str, int]:
    """Peak memory of this job's GPUs together in MB, where it used any."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"peak_gpu_mb": round(sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())) / 2**20)}


def threads() -> int:
    """Cores this job may use: Snakemake sets OMP_NUM_THREADS to the job's threads; by hand, all that this process may run on."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else len(os.sched_getaffinity(0))
