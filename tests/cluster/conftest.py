"""A real SLURM of one node, started for the tests where Debian's slurm-wlm and munge are installed and the user is root."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from medbench.jobs import process

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue")
CONF = """ClusterName=medbench-test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=14000 Gres=gpu:2
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GRES = """Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""


CONFIGURATION = Path("/etc/slurm")  # the plugin takes SLURM's variables out of a job, so that they cannot name another place


class Slurm(NamedTuple):
    """A running cluster."""

    folder: Path


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """One node with two GPUs that are none."""
    if missing := [name for name in PROGRAMS if not find(name)]:
        pytest.skip(f"no SLURM here: {', '.join(missing)} is not installed (Debian: slurm-wlm, munge)")
    if os.getuid():
        pytest.skip("starting a SLURM of one's own needs root")
    with FileLock(CONFIGURATION / "medbench-test.lock"):  # its place and ports are the machine's: another suite waits
        yield from _started(tmp_path_factory)


def _started(factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    written = CONFIGURATION / "slurm.conf"
    if written.exists() and "ClusterName=medbench-test" not in written.read_text():  # ours is what a killed test left
        pytest.skip("this machine has a SLURM of its own, which tests leave alone")
    folder = factory.mktemp("slurm")
    os.chmod(folder, 0o755)
    host = socket.gethostname()
    for name, text in (("slurm.conf", CONF.format(host=host, folder=folder, cpus=os.cpu_count())), ("gres.conf", GRES)):
        (CONFIGURATION / name).write_text(text)
    key = folder / "munge.key"
    subprocess.run([find("mungekey"), "--create", f"--keyfile={key}"], check=True)
    daemons = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=process.die_with_parent)
        for command in (
            [find("munged"), "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
             f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
            [find("slurmctld"), "-D"],
            [find("slurmd"), "-D"],
        )
    ]  # fmt: skip
    try:
        _until_idle(folder)
        yield Slurm(folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            daemon.wait(timeout=30)
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink()


def find(program: str) -> str:
    """Daemons lie where a user's PATH need not look; empty where there is none."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


def _until_idle(folder: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(folder.glob("*.log")))
    pytest.fail(f"SLURM did not become ready: {done.stdout}{done.stderr}\n{logs}")
