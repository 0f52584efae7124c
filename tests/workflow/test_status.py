"""`status` and `why` of a finished nano run that is then edited, robbed, killed and worked on: what they say is what Snakemake would do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from medbench.jobs import locks
from tests.conftest import Clone

CELL = "nano-radiology/nano-clip/ots"
PROMPT = '{clear: ["chest radiograph with clear lungs"]'


def ask(clone: Clone, verb: str, *words: str, configfile: str = "config/nano.yaml") -> str:
    command = [sys.executable, "-m", "medbench", verb, *words, "--configfile", configfile]
    done = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def states(clone: Clone, configfile: str = "config/nano.yaml") -> dict[str, tuple[str, str]]:
    """Job -> its state and why."""
    rows = [json.loads(line) for line in ask(clone, "status", "--json", configfile=configfile).splitlines()]
    return {f"{row['stage']} {'/'.join(row['names'])}": (row["state"], row["why"]) for row in rows}


def planned(clone: Clone) -> set[str]:
    """What Snakemake would run, without its target."""
    return {job.strip() for job in clone.plan()} - {"all"}


def test_of_a_finished_run_everything_is_finished(clone: Clone) -> None:
    found = states(clone)
    assert {state for state, _ in found.values()} == {"finished"} and planned(clone) == set()
    assert set(found) == {job for job in clone.records() if not job.startswith("validate")}
    assert ask(clone, "status").startswith(f"run nano: {len(found)} jobs: {len(found)} finished\n")
    assert f"{CELL}: finished; nothing would run" in ask(clone, "why", CELL)


def test_a_changed_prompt_is_named_and_all_that_follows_is_what_snakemake_runs(clone: Clone) -> None:
    registry = clone.folder / "config/datasets.yaml"
    others, entry = registry.read_text().split("\nnano-radiology:")
    registry.write_text("\nnano-radiology:".join((others, entry.replace(PROMPT, PROMPT.replace("clear lungs", "free lungs"), 1))))
    found = states(clone)
    assert {job for job, (state, _) in found.items() if state == "stale"} == planned(clone)
    said = 'prompt of class clear (set main): ["chest radiograph with clear lungs"] -> ["chest radiograph with free lungs"]'
    assert said in found["prompts nano-radiology/nano-clip"][1]
    assert found[f"interval {CELL}"] == ("stale", f"follows predict {CELL}")
    assert said in ask(clone, "why", f"results/predictions/{CELL}.parquet") and "3 of 7 jobs" in ask(clone, "why", CELL)
    assert "of work is left" in ask(clone, "status")


def test_a_deleted_table_that_nothing_needs_is_named(clone: Clone) -> None:
    table = clone.folder / "results/embeddings/nano-radiology/nano-clip.parquet"
    table.unlink()
    job = "embed nano-radiology/nano-clip"
    found = states(clone)
    assert found[job][0] == "deleted" and f"snakemake --cores all {table.relative_to(clone.folder)}" in found[job][1]
    assert {state for name, (state, _) in found.items() if name != job} == {"finished"} and planned(clone) == set()
    (clone.folder / f"results/predictions/{CELL}.parquet").unlink()
    (clone.folder / f"results/predictions/{CELL}.run.json").unlink()
    (clone.folder / f"logs/predict/{CELL}.log").unlink()
    found = states(clone)
    assert found[job] == ("waiting", "its output is gone, and a job needs it") and found[f"predict {CELL}"] == ("waiting", f"after {job}")


def test_a_failed_job_has_its_last_error_and_what_waits_for_it_says_so(clone: Clone) -> None:
    for path in clone.folder.glob("results/embeddings/nano-radiology/nano-clip.*"):
        path.unlink()
    for stage in ("predictions", "intervals"):
        for path in clone.folder.glob(f"results/{stage}/nano-radiology/nano-clip/*"):
            path.unlink()
    for log in clone.folder.glob("logs/predict/nano-radiology/nano-clip/*"):
        log.unlink()
    (clone.folder / "logs/embed/nano-radiology/nano-clip.log").write_text("reading\nERROR: embeddings: no memory; take a smaller batch\n")
    found = states(clone)
    assert found["embed nano-radiology/nano-clip"] == ("failed", "embeddings: no memory; take a smaller batch")
    assert found[f"predict {CELL}"] == ("waiting", "behind a failed job: embed nano-radiology/nano-clip")
    assert "(log: logs/embed/nano-radiology/nano-clip.log)" in ask(clone, "status")


@pytest.mark.parametrize("host", [None, "node17"])
def test_a_running_job_is_known_by_who_holds_its_work(clone: Clone, host: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this host, and on another one as on a cluster; how far it is stands in its log."""
    job = "adapt nano-radiology/nano-clip/lora"
    for path in clone.folder.glob("results/adapters/nano-radiology/nano-clip/lora/certificate*"):
        path.unlink()
    log = clone.folder / "logs/adapt/nano-radiology/nano-clip/lora.log"
    log.write_text("adapt nano-radiology/nano-clip/lora, epoch 2 of 3, steps: 5 of 20 (25%), 3/s, 8 s left\n")
    (clone.folder / "results/.partial").mkdir(exist_ok=True)
    held = locks.Lock(clone.folder / "results/.partial/key.lock", job)
    held.acquire()
    if host:
        note = clone.folder / "results/.partial/key.owner"
        note.write_text(note.read_text().replace(socket.gethostname(), host))
    state, why = states(clone)[job]
    held.release()
    assert state == "running" and why.startswith("epoch 2 of 3, steps: 5 of 20 (25%)") and (f"on host {host} since" in why) == bool(host)


def test_a_job_that_writes_its_log_under_a_live_start_runs_and_else_was_killed(clone: Clone) -> None:
    (clone.folder / "results/report/nano/index.html").unlink()
    for path in clone.folder.glob("results/report/nano.run.json"), clone.folder.glob("results/report/nano/*.run.json"):
        for record in path:
            record.unlink()
    log = clone.folder / "logs/report/nano.log"
    log.write_text("")
    assert states(clone)["report nano"][0] == "failed"
    (clone.folder / ".snakemake").mkdir(exist_ok=True)
    start = locks.Lock(clone.folder / ".snakemake/medbench.lock", across_hosts=True)
    start.acquire()
    os.utime(log)
    assert states(clone)["report nano"][0] == "running"
    start.release()


def test_a_cell_of_another_run_is_refused_with_the_likely_ones(clone: Clone) -> None:
    command = [sys.executable, "-m", "medbench", "why", "nano-radiology/nano-clip/lp-16", "--configfile", "config/nano.yaml"]
    done = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is not of run nano; choose from nano-radiology/nano-clip/ots, " in done.stderr


def test_status_writes_nothing(clone: Clone) -> None:
    def there() -> set[Path]:
        return {path.relative_to(clone.folder) for path in clone.folder.rglob("*") if "__pycache__" not in path.parts}

    before = there()
    ask(clone, "status")
    assert there() == before
