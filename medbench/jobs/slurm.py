"""Jobs of a workflow that SLURM holds, by what Snakemake's plugin says of them in their comments."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TRACKED = False  # who works where decides no result

SECONDS = 10
"""That a busy controller may take to answer."""
_WAITS = ("PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD")


class Queued(NamedTuple):
    """A job of SLURM: its number, whether it still waits, and the plugin's comment."""

    number: str
    waits: bool
    comment: str

    def __str__(self) -> str:
        return f"{'queued as ' if self.waits else ''}SLURM job {self.number}"


def comment(stage: str, names: Iterable[str]) -> str:
    """What the plugin writes for a job that is no group."""
    return f"rule_{stage}_wildcards_{'_'.join(names)}"


def queued() -> dict[str, Queued]:
    """Comment -> job of this user that was submitted in this folder; none where there is no SLURM, or it does not answer."""
    if not shutil.which("squeue"):
        return {}
    command = ["squeue", "--me", "--noheader", "--format=%i|%T|%Z|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = {}
    for line in done.stdout.splitlines():
        number, state, folder, said = (*line.split("|", 3), "", "", "")[:4]
        if folder and Path(folder).resolve() == Path.cwd().resolve():
            found[said] = Queued(number, state in _WAITS, said)
    return found
