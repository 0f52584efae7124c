"""GPUs of a job: claimed one by one through file locks before torch is imported; the kernel frees them when the job dies in any way.

Who may use which device is the user's word (`CUDA_VISIBLE_DEVICES`) or the scheduler's; among those every job takes one that
no other job of the same user on the same host has. Only this module reads or sets `CUDA_VISIBLE_DEVICES`.
"""

import contextlib
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medbench.errors import MedbenchError

if TYPE_CHECKING:
    import torch


TRACKED = False  # which device is taken decides no result

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.5
_OWN = "set TMPDIR to a folder of your own, and run again"
_LINE = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)|\s+MIG .*\(UUID: (MIG-[^)]+)\)")


class Device(NamedTuple):
    """`token` is what CUDA is told, `name` what all tokens of one device have in common."""

    token: str
    name: str


def found() -> list[Device]:
    """Devices that this process may use, without torch: those of `CUDA_VISIBLE_DEVICES` where it is set, else all of the host."""
    names = _listed()
    if (given := os.environ.get(VISIBLE)) is None:
        return [Device(token, name) for token, name in names.items()]
    tokens = [token.strip() for token in given.split(",")]
    end = next((place for place, token in enumerate(tokens) if token in ("", "-1", "NoDevFiles")), len(tokens))  # as CUDA reads it
    return [Device(token, names.get(token, token)) for token in tokens[:end]]


def _listed() -> dict[str, str]:
    """Token -> name of every device; a GPU that is cut into MIG instances is those."""
    if not shutil.which("nvidia-smi"):
        return {}
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    gpus: dict[str, str] = {}
    last = ""
    for index, uuid, part in _LINE.findall(done.stdout):
        if part:  # stands below its GPU
            gpus = {token: name for token, name in gpus.items() if name != last}
            gpus[part] = part
        else:
            gpus[index] = last = uuid
    return gpus


def memory_mb() -> list[int | None]:
    """Memory of the devices that this process may use, in the order of `found`; None for a part of a GPU."""
    if not (devices := found()):
        return []
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    sizes: dict[str, int] = {}
    for line in done.stdout.splitlines():
        index, uuid, size = (part.strip() for part in (*line.split(","), "", "")[:3])
        if size.isdigit():
            sizes |= {index: int(size), uuid: int(size)}
    return [sizes.get(device.token, sizes.get(device.name)) for device in devices]


def claim(n: int) -> list[Device]:
    """Take `n` free devices for the life of this process and hide all others; waits while too few are free. None at all: the CPU.

    Under SLURM a job that was given no more than it asks for takes them as they are: another job's `0` is another device.
    """
    devices = found() if n else []
    if not devices:
        if n:
            print("no GPU is visible: computing on the CPU", file=sys.stderr)
        os.environ[VISIBLE] = ""
        return []
    assert "torch" not in sys.modules, "what is visible is read once, when torch starts"
    job = os.environ.get("SLURM_JOB_ID", "")
    taken = devices if job and len(devices) <= n else _wait(devices, min(n, len(devices)), job)
    if VISIBLE not in os.environ:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the numbers are nvidia-smi's
    os.environ[VISIBLE] = ",".join(device.token for device in taken)
    return taken


def _wait(devices: list[Device], n: int, job: str) -> list[Device]:
    said = False
    while True:
        taken = _try(devices, n, job)
        if len(taken) == n:
            return taken
        if not said:
            print(f"waiting for {n} of {len(devices)} GPUs: other jobs hold them", file=sys.stderr, flush=True)
            said = True
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # so that two that want several do not block each other for ever


def _try(devices: list[Device], n: int, job: str) -> list[Device]:
    """As many as are wanted, or none."""
    from medbench.jobs.locks import Busy, Lock  # with asyncio, which most jobs need not

    taken: list[Device] = []
    locks: list[Lock] = []
    for device in devices:
        lock = Lock(folder() / f"{job}-{re.sub(r'[^A-Za-z0-9.-]', '_', device.name)}.lock")
        try:
            lock.acquire()
        except Busy:
            continue
        taken.append(device)
        locks.append(lock)
        if len(taken) == n:
            for held in locks:
                held.hold()
            return taken
    for lock in locks:
        lock.release()
    return []


def folder() -> Path:
    """Where the locks of this user on this host lie. Raises MedbenchError where something else has that name."""
    try:
        path = Path(tempfile.gettempdir(), f"medbench-devices-{os.getuid()}")
    except FileNotFoundError as error:  # none that can be written
        raise MedbenchError("GPUs", f"their locks find no place ({error.strerror})", f"make room, or {_OWN}") from None
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    entry = path.lstat()
    if not stat.S_ISDIR(entry.st_mode):
        raise MedbenchError(path, "is no folder", f"remove it, or {_OWN}")
    if entry.st_uid != os.getuid():
        raise MedbenchError(path, f"belongs to another user ({entry.st_uid})", f"have it removed, or {_OWN}")
    if stat.S_IMODE(entry.st_mode) != 0o700:  # not to be written by its owner, or to be locked by others
        path.chmod(0o700)
    return path


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
