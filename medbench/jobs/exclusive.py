"""One Snakemake a folder: a lock that a start holds for its life, so what a killed one left is known to be stale.

Snakemake's own locks are files that a kill leaves behind. Here a start holds `.snakemake/medbench.lock` for its life; a later
start that gets it knows that no Snakemake works in the folder, and clears the others' files. What another host left it never clears.
"""

import os
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import psutil

from medbench.errors import MedbenchError
from medbench.jobs import files, warm
from medbench.jobs.locks import Busy, Lock

TRACKED = False  # decides no result

FOLDER = Path(".snakemake")
SECONDS = 2.0
"""What `unlock` by another process, or a job that is being killed, may take."""
_READS_ONLY = frozenset((
    "--lint", "--list", "--list-rules", "-l", "--list-target-rules", "--lt", "--list-changes", "--lc", "--list-input-changes", "--li",
    "--list-params-changes", "--lp", "--list-untracked", "--lu", "--summary", "-S", "--detailed-summary", "-D", "--dag", "--rulegraph",
    "--filegraph", "--d3dag", "--report", "--archive", "--print-compilation",
))  # fmt: skip


def enter(dry_run: bool, stages: Collection[str]) -> None:
    """Called while the Snakefile is read, in the main process: hold the working directory, and clear what a killed start left.

    `stages`: verbs of jobs. A command that executes nothing holds and clears nothing, and may run beside a live one. Raises MedbenchError
    naming the process that works here, and its host where that is another one.
    """
    if "--nolock" in _options() or only_reads(dry_run):
        return
    _acquire().hold()
    _clear(stages)


def only_reads(dry_run: bool) -> bool:
    """Whether this command executes nothing."""
    return dry_run or bool(_options() & _READS_ONLY)


def _options() -> set[str]:
    return {argument.split("=")[0] for argument in sys.argv[1:]}


def unlock(stages: Collection[str]) -> list[Path]:
    """Clear Snakemake's locks where no Snakemake and no job works in this folder; the files removed.

    Raises MedbenchError naming the process that does.
    """
    if not FOLDER.is_dir():
        return []
    lock = _acquire()
    try:
        return _clear(stages)
    finally:
        lock.release()


def _acquire() -> Lock:
    lock = Lock(FOLDER / "medbench.lock", across_hosts=True)
    try:
        with files.written(FOLDER):
            files.make_folder(FOLDER)
            lock.acquire(SECONDS)
    except Busy as busy:
        raise MedbenchError(Path.cwd(), f"another Snakemake ({busy}) works in this folder", busy.remedy) from None
    return lock


def _clear(stages: Collection[str]) -> list[Path]:
    stale = sorted((FOLDER / "locks").glob("*.lock"))
    if stale and (jobs := living_jobs(stages)):
        found = f"no Snakemake works here, but process {jobs[0].pid} of an earlier start does"
        raise MedbenchError(Path.cwd(), found, "wait for it, or end it, and run again")
    for file in stale:
        file.unlink(missing_ok=True)
    return stale


def living_jobs(stages: Collection[str]) -> list[psutil.Process]:
    """Processes of medbench's stages in this working directory, without this one and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    jobs = [process for process in psutil.process_iter() if process.pid not in own and _is_job(process, stages)]
    return psutil.wait_procs(jobs, timeout=SECONDS)[1] if jobs else []  # those of a killed Snakemake are dying


def _is_job(process: psutil.Process, stages: Collection[str]) -> bool:
    try:
        words = process.cmdline()
        named = ("-m", "medbench") in pairwise(words)
        return named and bool({*words} & {*stages, warm.VERB}) and process.cwd() == os.getcwd() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # gone meanwhile, or another user's
        return False
