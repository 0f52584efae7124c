"""`--profile slurm` on a real SLURM: what jobs are given, and that a cell is the same as on a workstation."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.conftest import Slurm
from tests.conftest import Clone

CELLS = ("nano-radiology/nano-clip/lora", "nano-radiology/nano-medclip/lora")
# What a cluster without accounting needs; a real one keeps accounts.
WITHOUT_ACCOUNTING = ("--slurm-status-command", "squeue", "--slurm-no-account")


def test_cells_run_as_jobs_of_slurm_and_end_in_equal_tables(slurm: Slurm, clone: Clone, finished: Clone) -> None:
    for cell in CELLS:
        (clone.folder / f"results/predictions/{cell}.parquet").unlink()
        shutil.rmtree(clone.folder / f"results/adapters/{cell}")
    targets = [f"results/predictions/{cell}.parquet" for cell in CELLS]
    command = [str(Path(sys.executable).with_name("snakemake")), *targets, "--profile", "slurm", *WITHOUT_ACCOUNTING]
    command += ["--configfile", "config/nano.yaml", "--latency-wait", "10"]
    done = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.tables() == finished.tables()
    accounts = (slurm.folder / "slurmctld.log").read_text()
    assert accounts.count("_job_complete: JobId=") >= 2 * len(CELLS), "every job was one of SLURM's"
    for cell in CELLS:
        for stage in ("adapt", "predict"):
            said = (clone.folder / f"logs/{stage}/{cell}.log").read_text()
            assert "no GPU is visible" not in said and "waiting for" not in said, "a job sees the GPU that SLURM gave it"
