"""`--profile slurm` on a real SLURM: what jobs are given, and that what they make is the same as on a workstation."""

import re
import shutil
import subprocess
import sys

from tests.cluster.conftest import Slurm
from tests.conftest import SNAKEMAKE, Clone, Outcome, until
from tests.unit.stub import Said, completion, serving

CELLS = ("nano-radiology/nano-clip/lora", "nano-radiology/nano-medclip/lora")
ANSWERED = "nano-vqa-radiology/nano-llava/ots"  # its score and interval are one job of the cluster
# What a cluster without accounting needs; a real one keeps accounts.
PROFILE = ("--profile", "slurm", "--slurm-status-command", "squeue", "--slurm-no-account", "--latency-wait", "10",
           "--slurm-init-seconds-before-status-checks", "2")  # fmt: skip


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


SERVED = """
asked-{0}:
  family: f
  role: generalist
  architecture: openai
  checkpoint: {0}
  pretrained_on: [everyday]
  modes: [ots]
  endpoint: {{url: "{1}", concurrency: 2}}
"""


def test_remote_cells_ask_for_no_gpu_run_where_the_profile_says_and_share_one_limit(slurm: Slurm, clone: Clone) -> None:
    with serving(lambda body: Said(completion(model=body["model"]), seconds=0.05)) as server:
        clone.append("config/models.yaml", "".join(SERVED.format(name, server.url) for name in "abc"))
        run = "run: asked\nmodels: [asked-a, asked-b, asked-c]\ndatasets: [nano-vqa-radiology]\nmodes: [ots]\nwarm: false\n"
        (clone.folder / "config/asked.yaml").write_text(run)
        here, *there = (f"results/predictions/nano-vqa-radiology/asked-{name}/ots.parquet" for name in "abc")
        before = seen_through(slurm)
        done = clone.snakemake(here, *PROFILE, configfile="config/asked.yaml")
        assert done.code == 0 and seen_through(slurm) == before, f"asked from where Snakemake runs: {done.output}"
        server.most = 0
        done = clone.snakemake(*there, *PROFILE, "--config", "remote_jobs=cluster", configfile="config/asked.yaml")
    jobs = seen_through(slurm) - before
    assert done.code == 0 and len(jobs) == 2, done.output
    for job in jobs:
        said = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
        assert "TRES=cpu=" in said and "gres/gpu" not in said, said
    order = "".join(body["model"] for body in server.asked)
    assert order.count("a") == order.count("b") == order.count("c") and "bc" in order and "cb" in order, "both cells at once"
    assert server.most == 2


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
