"""`--profile slurm` on a real SLURM: what jobs are given, and that what they make is the same as on a workstation."""

import re
import shutil
import subprocess
import sys

from tests.cluster.conftest import Slurm
from tests.conftest import SNAKEMAKE, Clone, Outcome, until

CELLS = ("nano-radiology/nano-clip/lora", "nano-radiology/nano-medclip/lora")
ANSWERED = "nano-vqa-radiology/nano-llava/ots"  # its score and interval are one job of the cluster
# What a cluster without accounting needs; a real one keeps accounts.
PROFILE = ("--profile", "slurm", "--slurm-status-command", "squeue", "--slurm-no-account", "--latency-wait", "10")


def seen_through(slurm: Slurm) -> set[str]:
    """Jobs of SLURM that have ended, by its own log."""
    return set(re.findall(r"_job_complete: JobId=(\d+)", (slurm.folder / "slurmctld.log").read_text()))


def test_cells_run_as_jobs_of_slurm_and_end_in_equal_tables(slurm: Slurm, clone: Clone, finished: Clone) -> None:
    for cell in CELLS:
        (clone.folder / f"results/predictions/{cell}.parquet").unlink()
        shutil.rmtree(clone.folder / f"results/adapters/{cell}")
    for stage in ("scores", "intervals"):
        (clone.folder / f"results/{stage}/{ANSWERED}.parquet").unlink()
    before = seen_through(slurm)
    targets = [*(f"results/predictions/{cell}.parquet" for cell in CELLS), f"results/intervals/{ANSWERED}.parquet"]
    done = clone.snakemake(*targets, *PROFILE)
    assert done.code == 0, done.output
    assert clone.tables() == finished.tables()
    assert len(seen_through(slurm) - before) == 2 * len(CELLS) + 1, "two a LoRA cell, one of tables"
    for cell in CELLS:
        for stage in ("adapt", "predict"):
            said = (clone.folder / f"logs/{stage}/{cell}.log").read_text()
            assert "no GPU is visible" not in said and "waiting for" not in said, "a job sees the GPU that SLURM gave it"


def test_now_on_a_cluster_asks_for_the_cells_that_exist(slurm: Slurm, clone: Clone) -> None:
    """A job reads the rules again, with its own target on its command line and not `now`."""
    (clone.folder / f"results/predictions/{CELLS[0]}.parquet").unlink()
    before = seen_through(slurm)
    outcome: Outcome = clone.snakemake("now", *PROFILE)
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"gaps nano", "report nano"}
    assert len(seen_through(slurm) - before) >= 2
    assert "nano-clip/lora" in (clone.folder / "results/report/nano/index.html").read_text()


def test_status_says_which_job_of_slurm_waits(slurm: Slurm, clone: Clone) -> None:
    """Beside a live start: its jobs wait while the partition is down."""
    table = f"results/predictions/{CELLS[0]}.parquet"
    (clone.folder / table).unlink()
    subprocess.run(["scontrol", "update", "PartitionName=gpu", "State=DOWN"], check=True)
    command = [SNAKEMAKE, table, *PROFILE, "--configfile", "config/nano.yaml"]
    start = subprocess.Popen(command, cwd=clone.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def said() -> str:
        status = [sys.executable, "-m", "medbench", "status", "nano", "--all"]
        return subprocess.run(status, cwd=clone.folder, capture_output=True, text=True, check=True).stdout

    try:
        until(lambda: re.search(rf"waiting:\n(  .*\n)*  predict {CELLS[0]}: queued as SLURM job \d+\n", said()) is not None)
        subprocess.run(["scontrol", "update", "PartitionName=gpu", "State=UP"], check=True)
        assert start.wait(timeout=900) == 0
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=gpu", "State=UP"], check=True)
        start.terminate()
        start.wait()
    assert "SLURM job" not in said()
