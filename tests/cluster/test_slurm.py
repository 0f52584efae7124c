"""`--profile slurm` on a real SLURM: what jobs are given, and that a cell is the same as on a workstation."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.conftest import Slurm
from tests.conftest import Clone

CELLS = ("nano-radiology/nano-clip/lora", "nano-radiology/nano-medclip/lora")
ANSWERED = "nano-vqa-radiology/nano-llava/ots"  # its score and interval are one job of the cluster
# What a cluster without accounting needs; a real one keeps accounts.
WITHOUT_ACCOUNTING = ("--slurm-status-command", "squeue", "--slurm-no-account")


def test_cells_run_as_jobs_of_slurm_and_end_in_equal_tables(slurm: Slurm, clone: Clone, finished: Clone) -> None:
    for cell in CELLS:
        (clone.folder / f"results/predictions/{cell}.parquet").unlink()
        shutil.rmtree(clone.folder / f"results/adapters/{cell}")
    for stage in ("scores", "intervals"):
        (clone.folder / f"results/{stage}/{ANSWERED}.parquet").unlink()
    targets = [*(f"results/predictions/{cell}.parquet" for cell in CELLS), f"results/intervals/{ANSWERED}.parquet"]
    command = [str(Path(sys.executable).with_name("snakemake")), *targets, "--profile", "slurm", *WITHOUT_ACCOUNTING]
    command += ["--configfile", "config/nano.yaml", "--latency-wait", "10"]
    done = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.tables() == finished.tables()
    accounts = (slurm.folder / "slurmctld.log").read_text()
    assert len(set(re.findall(r"_job_complete: JobId=(\d+)", accounts))) == 2 * len(CELLS) + 1, "two a LoRA cell, one of tables"
    for cell in CELLS:
        for stage in ("adapt", "predict"):
            said = (clone.folder / f"logs/{stage}/{cell}.log").read_text()
            assert "no GPU is visible" not in said and "waiting for" not in said, "a job sees the GPU that SLURM gave it"
