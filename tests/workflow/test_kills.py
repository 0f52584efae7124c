"""What a killed or second Snakemake leaves and says, on copies of a finished nano run whose LoRA cells are gone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks import campaign
from medbench.jobs import warm
from medbench.stages import STAGES
from tests.conftest import SNAKEMAKE, Clone, Outcome, until

CELL = "nano-radiology/nano-medclip/lora"


def start(clone: Clone, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    """Snakemake in the background, its output in `out.txt`."""
    command = [SNAKEMAKE, *arguments, "--cores", "all", "--configfile", "config/nano.yaml"]
    with (clone.folder / "out.txt").open("wb") as out:
        return subprocess.Popen(command, cwd=clone.folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **variables})


def medbench(clone: Clone, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A verb by hand."""
    return subprocess.run([sys.executable, "-m", "medbench", *arguments], cwd=clone.folder, capture_output=True, text=True, check=False)


def jobs(clone: Clone) -> list[psutil.Process]:
    """Live processes of stages in the clone."""
    found = []
    for process in psutil.process_iter():
        try:
            if "medbench" in process.cmdline() and process.cwd() == str(clone.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def unfinished(clone: Clone) -> Clone:
    """Without one LoRA cell and what was made of it, up to the report: an absent file alone reruns nothing."""
    for stage in ("predictions", "intervals"):
        (clone.folder / f"results/{stage}/{CELL}.parquet").unlink()
    for folder in (f"adapters/{CELL}", "gaps", "report"):
        shutil.rmtree(clone.folder / "results" / folder)
    return clone


def test_two_at_once_and_a_kill(unfinished: Clone, finished: Clone) -> None:
    """A token of the environment stands nowhere in what all of that leaves."""
    clone = unfinished
    first = start(clone, HF_TOKEN=campaign.TOKEN)
    try:
        until(lambda: bool(list((clone.folder / "results/.partial").glob("*/training.pt"))))
        for job in jobs(clone):  # so that the training outlasts what is tried meanwhile, on a busy machine too
            if "adapt" in command_line(job):
                job.suspend()
        assert any(warm.VERB in command_line(job) for job in jobs(clone)), "jobs that import torch are forked"
        second = clone.snakemake()
        assert second.code != 0
        said = [line for line in second.output.splitlines() if "ERROR" in line or "Error" in line]
        assert len(said) == 1 and f"another Snakemake (process {first.pid}) works in this folder" in said[0], second.output
        assert "unlock" not in second.output
        assert clone.snakemake("--dry-run").code == 0, "looking is allowed"
        refused = medbench(clone, "unlock")
        assert refused.returncode == 2 and f"process {first.pid}" in refused.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    until(lambda: not jobs(clone))  # no orphan
    locks = sorted((clone.folder / ".snakemake/locks").glob("*"))
    assert locks, "Snakemake's own locks are left behind"
    kept = {lock: lock.read_bytes() for lock in locks}
    cleared = medbench(clone, "unlock")
    assert cleared.returncode == 0 and all(str(lock.relative_to(clone.folder)) in cleared.stdout for lock in locks)
    assert not list((clone.folder / ".snakemake/locks").glob("*"))
    for lock, text in kept.items():  # as if nobody had called it
        lock.write_bytes(text)
    whole = clone.snakemake()
    assert whole.code == 0, whole.output
    assert {f"predict {CELL}", "report nano"} <= whole.executed
    assert {job for job in whole.executed if job.startswith(("adapt", "predict"))} <= {f"adapt {CELL}", f"predict {CELL}"}
    assert clone.tables() == finished.tables()
    assert not list((clone.folder / "results/.partial").iterdir()) and not campaign.leaks(clone.folder)


@pytest.mark.full  # the next start goes on where this one was; test_generative_lora.py: to equal bytes
def test_a_rerun_after_a_kill_in_training_ends_in_equal_tables_and_leaves_nothing_aside(unfinished: Clone, finished: Clone) -> None:
    first = start(unfinished)
    try:
        until(lambda: bool(list((unfinished.folder / "results/.partial").glob("*/training.pt"))))
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    outcome = unfinished.snakemake()
    assert outcome.code == 0, outcome.output
    assert unfinished.tables() == finished.tables()
    assert not list((unfinished.folder / "results/.partial").iterdir())


def fake_gpus(clone: Clone, n: int) -> str:
    """A PATH with an nvidia-smi that lists n devices."""
    program = clone.folder / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + "".join(f"echo 'GPU {number}: Fake (UUID: GPU-{number})'\n" for number in range(n)))
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def gpu_jobs(clone: Clone) -> list[str]:
    """Live jobs that claim a GPU: those that train or use adapters of a model."""
    return [" ".join(words) for job in jobs(clone) if {"adapt", "predict"} & {*(words := command_line(job))} and "lora" in words]


def command_line(process: psutil.Process) -> list[str]:
    """Empty for one that ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("n", [1, 2])
def test_a_workstation_runs_as_many_gpu_jobs_at_once_as_it_has_gpus(clone: Clone, n: int) -> None:
    """Jobs see the device that they claimed (there is none behind it, so they compute on the CPU)."""
    trained = "results/adapters/nano-radiology/nano-clip/lora"
    predicted = "results/predictions/nano-radiology/nano-medclip/lora.parquet"
    shutil.rmtree(clone.folder / trained)
    (clone.folder / predicted).unlink()
    first, most = start(clone, f"{trained}/certificate.json", predicted, PATH=fake_gpus(clone, n)), 0
    try:
        while first.poll() is None and (most < 2 or n == 1):
            most = max(most, len({*gpu_jobs(clone)}))
            time.sleep(0.02)
        said = (clone.folder / "out.txt").read_text()
        assert re.search(rf"Provided resources: gpu=\D*{n}\b", said)
        assert most == n, said
        assert n == 2 or first.returncode == 0, said
    finally:
        first.kill()
        first.wait()


def test_a_dry_run_for_slurm_shows_what_every_job_asks_for(unfinished: Clone) -> None:
    asked = ("--dry-run", "--profile", "slurm", "--default-resources", "slurm_partition=short", "--forceall")
    outcome: Outcome = unfinished.snakemake(*asked)
    assert outcome.code == 0, outcome.output
    found = {block.split(":")[0]: block for block in re.split(r"\n *rule ", outcome.output)[1:] if not block.startswith("all")}
    assert set(found) == {*STAGES} - {"fetch", "validate", "calibrate", "judge"}, "nano fetches nothing, has no choice and no judge"
    for rule, block in found.items():
        [line] = [line for line in block.splitlines() if line.strip().startswith("resources:")]
        assert "slurm_partition=short" in line and "runtime=" in line and "mem_mb=" in line, rule
        assert ("gpu=" in line) == (rule in ("embed", "adapt", "predict")), rule
