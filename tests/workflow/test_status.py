"""`status` and `why` of a finished nano run that is then edited, robbed, killed and worked on: what they say is what Snakemake would do."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from medbench.jobs import locks
from medbench.schedule import OPEN
from tests.conftest import Clone, make_clone
from tests.unit import checkpoints, official

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
    assert f"results/predictions/{CELL}.parquet: finished; nothing would run" in ask(clone, "why", CELL)


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


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("nano-radiology/nano-clip/lq", "mode 'lq' is in no registry; choose from nano-radiology/nano-clip/ots, "),
        ("nano-radiology/nano-llava/lora", "cannot run 'lora' on a diagnosis data set; choose from "),
        ("nothing", "is made by no job; give DATASET/MODEL/MODE, or a file below results/ or logs/"),
        ("results/embeddings/nano-radiology", "is made by no job"),
        ("results/report/other/index.html", "the configuration is of run 'nano'; give the run's own --configfile"),
        ("../outside.parquet", "is made by no job"),
    ],
)
def test_what_no_job_makes_is_refused_with_the_likely_ones(finished: Clone, what: str, found: str) -> None:
    command = [sys.executable, "-m", "medbench", "why", what, "--configfile", "config/nano.yaml"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and found in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_run_is_given_by_its_name_or_its_file(finished: Clone) -> None:
    said = {
        subprocess.run(
            [sys.executable, "-m", "medbench", "status", run], cwd=finished.folder, capture_output=True, text=True, check=True
        ).stdout
        for run in ("nano", "config/nano.yaml", str(finished.folder / "config/nano.yaml"))
    }
    assert len(said) == 1 and said.pop().startswith("run nano: ")


def test_a_finished_job_that_failed_at_another_try_has_failed(clone: Clone) -> None:
    (clone.folder / f"results/predictions/{CELL}.parquet").unlink()
    log = clone.folder / f"logs/predict/{CELL}.log"
    log.write_text("ERROR: no memory; take a smaller batch\n")
    later = (clone.folder / f"results/predictions/{CELL}.run.json").stat().st_mtime + 60
    os.utime(log, (later, later))
    assert states(clone)[f"predict {CELL}"] == ("failed", "no memory; take a smaller batch")


def test_status_writes_nothing(clone: Clone) -> None:
    def there() -> set[Path]:
        return {path.relative_to(clone.folder) for path in clone.folder.rglob("*") if "__pycache__" not in path.parts}

    before = there()
    ask(clone, "status")
    assert there() == before


# --- the study's grid on fixtures, half finished

STUDY = ("clip", "pubmedclip", "medsiglip", "llava-1.5", "huatuogpt-vision-7b")
SETS = {"papila": official.papila, "gf3300": official.gf3300, "slake": official.slake}  # and chexpert, which needs an application
WORDS = {"healthy": ["a dark square"], "glaucoma": ["a bright square"]}  # that a tiny tokenizer knows
DONE = ("papila/clip/ots", "papila/pubmedclip/ots", "slake/llava-1.5/ots")
FAILED, RUNNING, GONE, NEEDED = (
    "prompts papila/medsiglip",
    "adapt papila/clip/lora",
    "embed gf3300/pubmedclip",
    "interval slake/llava-1.5/ots",
)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Five models and four data sets of `config/paper.yaml`: official layouts, tiny checkpoints, some cells finished, one that failed."""
    clone = make_clone(tmp_path_factory.mktemp("half") / "clone")
    path = clone.folder / "config/models.yaml"
    entries = yaml.safe_load(path.read_text())
    for name in ("clip", "pubmedclip", "llava-1.5"):
        checkpoints.build(name, clone.folder / "checkpoints" / name)
        entries[name]["checkpoint"] = f"./checkpoints/{name}"
        for pin in ("revision", "checksums", "companions"):
            entries[name].pop(pin, None)
    entries["pubmedclip"]["modes"] = ["ots", "lora"]
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    path = clone.folder / "config/datasets.yaml"
    entries = yaml.safe_load(path.read_text())
    for name, make in SETS.items():
        entries[name] |= {"raw_dir": str(make(clone.folder / "official" / name)), "allow_counts": True, "max_drops": 0.5}
    for name in ("papila", "gf3300"):
        classes = entries[name]["classes"]
        entries[name]["prompts"] = {"main": dict(zip(classes, WORDS.values(), strict=True))}
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    run = yaml.safe_load((clone.folder / "config/paper.yaml").read_text())
    run |= {"run": "half", "models": list(STUDY), "datasets": [*SETS, "chexpert"]}
    (clone.folder / "config/half.yaml").write_text(yaml.safe_dump(run))
    targets = [*(f"results/intervals/{cell}.parquet" for cell in DONE), "results/predictions/gf3300/pubmedclip/ots.parquet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        clone.compute(*targets, configfile="config/half.yaml")
        failed = clone.snakemake("results/prompts/papila/medsiglip.parquet", configfile="config/half.yaml")
    assert failed.code != 0 and "google/medsiglip-448" in failed.output, failed.output
    (clone.folder / "results/embeddings/gf3300/pubmedclip.parquet").unlink()
    (clone.folder / "results/intervals/slake/llava-1.5/ots.parquet").unlink()
    text = path.read_text()
    entries = yaml.safe_load(text)
    entries["papila"]["prompts"]["main"][entries["papila"]["classes"][1]] = ["a bright white square"]
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return clone


@pytest.fixture
def worked_on(half: Clone) -> Iterator[Clone]:
    """With a job that holds its unfinished work."""
    held = locks.Lock(half.folder / "results/.partial/key.lock", RUNNING)
    held.acquire()
    yield half
    held.release(remove=True)


def test_a_half_finished_study_is_told_job_by_job(worked_on: Clone) -> None:
    found = states(worked_on, "config/half.yaml")
    assert found["embed papila/clip"] == ("finished", "")
    assert found["prompts papila/clip"][0] == "stale" and "prompt of class" in found["prompts papila/clip"][1]
    assert '["a bright square"] -> ["a bright white square"]' in found["prompts papila/clip"][1]
    assert found["predict papila/pubmedclip/ots"] == ("stale", "follows prompts papila/pubmedclip")
    assert found[FAILED][0] == "failed" and found[FAILED][1].startswith("checkpoint google/medsiglip-448: revision ")
    assert found["predict papila/medsiglip/ots"] == ("waiting", f"behind a failed job: {FAILED}")
    assert found[RUNNING][0] == "running"
    table = "results/embeddings/gf3300/pubmedclip.parquet"
    assert found[GONE] == ("deleted", f"{table} is gone; `snakemake --cores all {table}`, with the run's --configfile, makes it again")
    assert found[NEEDED] == ("waiting", "its output is gone, and a job needs it")
    assert found["fetch chexpert"][0] == "waiting" and "need an application: register" in found["fetch chexpert"][1]
    assert "raw/chexpert" in found["fetch chexpert"][1]
    assert found["predict slake/huatuogpt-vision-7b/ots"] == (
        "waiting", "architecture 'huatuogpt-vision' has no file yet, so it will fail",
    )  # fmt: skip
    assert found["embed papila/medsiglip"][1].startswith("its weights are gated")
    open_jobs = {job for job, (state, _) in found.items() if state in OPEN}
    assert open_jobs == {job.strip() for job in worked_on.plan(configfile="config/half.yaml")} - {"all"}
    said = ask(worked_on, "status", configfile="config/half.yaml")
    assert "(log: logs/prompts/papila/medsiglip.log)" in said and "of work is left" in said


def test_the_plan_of_a_half_finished_study(worked_on: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobody_may_see_this")
    monkeypatch.setenv("HF_HOME", str(worked_on.folder / "hf"))
    before = {path for path in worked_on.folder.rglob("*") if "__pycache__" not in path.parts}
    said = ask(worked_on, "plan", "--no-probe", configfile="config/half.yaml")
    assert {path for path in worked_on.folder.rglob("*") if "__pycache__" not in path.parts} == before
    assert re.search(r"medsiglip +about 3.5 GB +Health AI Developer Foundations terms +gated +to fetch", said)
    assert re.search(r"chexpert +size unknown +research use +manual +to apply for", said)
    assert "chexpert: register and accept" in said and "a token of the hub is at hand" in said and "hf_nobody" not in said
    assert f"{FAILED}: checkpoint google/medsiglip-448" in said and f"{GONE}: results/embeddings/gf3300" in said
    assert "prompt of class" in said and re.search(r"llava-1.5 +1 +17.7 GB +24.7 GB +rule", said)
    assert "NO VERDICT: papila: " in said and "by finished jobs of their stage and model" in said
    found = json.loads(ask(worked_on, "plan", "--no-probe", "--json", configfile="config/half.yaml"))
    assert found["stages"]["prepare"]["finished"] == 3 and found["stages"]["fetch"]["to_do"] == 1
    assert found["stages"]["predict"]["sources"].keys() == {"records", "unknown"} and found["has_token"] is True
    assert {one["name"]: one["state"] for one in found["downloads"]}["clip"] == "here"
    assert found["without_architecture"] == ["huatuogpt-vision-7b"]


def test_why_of_cells_and_files_says_what_made_them_and_how_to_make_them(worked_on: Clone) -> None:
    said = ask(worked_on, "why", "slake/llava-1.5/ots", configfile="config/half.yaml")
    assert "made by     python -m medbench predict slake llava-1.5 ots (" in said and "weights     checkpoint sha256 " in said
    assert re.search(r"samples     results/data/slake/test.parquet, 2 rows, sha256 \w{12}\n", said) and "seed        0 (prepare" in said
    assert "to make it  snakemake --cores all results/predictions/slake/llava-1.5/ots.parquet --configfile config/half.yaml" in said
    gone = ask(worked_on, "why", "results/embeddings/gf3300/pubmedclip.parquet", configfile="config/half.yaml")
    assert "absent: deleted, " in gone and "results/embeddings/gf3300/pubmedclip.parquet --configfile config/half.yaml\njobs" in gone
    other = ask(worked_on, "why", "papila/clip/lp-16", configfile="config/half.yaml")
    assert other.startswith("results/predictions/papila/clip/lp-16.parquet: absent: waiting, after ")
    for what in ("logs/embed/papila/clip.log", "results/data/papila/card.json", str(worked_on.folder / "results/data/papila/test.parquet")):
        assert "finished; nothing would run" in ask(worked_on, "why", what, configfile="config/half.yaml")
    nano = ask(worked_on, "why", "results/embeddings/nano-radiology/nano-clip.parquet", configfile="config/half.yaml")
    assert "absent: waiting, after " in nano
