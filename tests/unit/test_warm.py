"""The warm process: what is forked from it is the job, and dies with whom it should."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from medbench.jobs import process, warm
from tests.conftest import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are kept warm on Linux alone")
ROOT = Path(__file__).parents[2]
LONG = ("pretrain", "nano-clip", "--configfile", str(ROOT / "config/nano.yaml"), str(ROOT / "tests/unit/seed.yaml"))


@pytest.fixture(scope="module")
def server() -> Iterator[psutil.Process]:
    """A warm process, known by the environment to what is started here. The last test kills it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in warm.THREADS.items():  # as Snakemake sets them for a job
            patch.setenv(name, value)
        patch.setenv(warm.VARIABLE, "")  # is put back at the end
        before = psutil.Process().children()
        warm.start()
        [started] = [child for child in psutil.Process().children() if child not in before]
        yield started
        if started.is_running():
            started.kill()
            started.wait()


def start(folder: Path, *arguments: str, stdin: int | None = None) -> "subprocess.Popen[str]":
    """A job as Snakemake starts it."""
    command = [sys.executable, "-m", "medbench", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, cwd=folder, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_job_ends_as_it_would_alone(server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("predict", "nowhere", "nano-clip", "ots")
    handed = start(tmp_path, *wrong)
    said = handed.communicate(timeout=120)
    monkeypatch.setenv(warm.VARIABLE, "")
    alone = start(tmp_path, *wrong)
    assert said == alone.communicate(timeout=120)
    assert said[1].startswith("ERROR: ") and said[1].count("\n") == 1
    assert handed.returncode == alone.returncode == 2


def test_a_forked_job_writes_what_one_alone_does(server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"family": "clip", "role": "specialist", "architecture": "clip", "pretrained_on": ["everyday"]}
    entry["pretrain"] = {"corpus": ["natural"], "steps": 3, "batch_size": 8, "pool_size": 20}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"small": entry}))
    whole = {"run": "small", "datasets": ["phantom-radiology"]}
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({**whole, "registries": {"models": str(tmp_path / "models.yaml")}, "models": ["small"], "modes": ["ots"]})
    )
    made = {}
    for name in ("handed", "alone"):
        (tmp_path / name).mkdir()
        begun = time.monotonic()
        job = start(tmp_path / name, "pretrain", "small", "--configfile", str(tmp_path / "run.yaml"))
        if name == "handed":
            until(lambda: bool(server.children()))
        _, error = job.communicate(timeout=600)
        assert job.returncode == 0, error
        folder = tmp_path / name / "results/models"
        record = json.loads((folder / "small.run.json").read_text())
        assert record["forked"] == (name == "handed") and 0 < record["seconds"] < time.monotonic() - begun
        made[name] = (record["argv"], record["params"], (folder / "small/model.safetensors").read_bytes())
        monkeypatch.setenv(warm.VARIABLE, "")
    assert made["handed"] == made["alone"]


def test_a_job_dies_with_its_process(server: psutil.Process, tmp_path: Path) -> None:
    job = start(tmp_path, *LONG)
    until(lambda: bool(server.children()))
    job.kill()
    until(lambda: not server.children(), 20)
    assert server.is_running(), "for other jobs"


@pytest.mark.parametrize("warmed", [True, False])
def test_a_job_is_asked_nothing(warmed: bool, server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the standard input of Snakemake, of which the process of a job inherits it."""
    if not warmed:
        monkeypatch.setenv(warm.VARIABLE, "")
    job = start(tmp_path, *LONG, stdin=subprocess.PIPE)
    until(lambda: (tmp_path / "results").exists())
    [does] = server.children() if warmed else [psutil.Process(job.pid)]
    assert os.readlink(f"/proc/{does.pid}/fd/0") == os.devnull
    job.kill()
    job.communicate(timeout=20)
    until(lambda: not server.children(), 20)


def test_a_killed_job_fails(server: psutil.Process, tmp_path: Path) -> None:
    job = start(tmp_path, *LONG)
    until(lambda: bool(server.children()) and (tmp_path / "results").exists())
    for child in server.children():
        child.kill()
    _, error = job.communicate(timeout=20)
    assert job.returncode == 137 and error.count("ERROR: ") == 1 and "was killed" in error


def test_a_bug_is_a_traceback_and_an_interrupt_is_none(server: psutil.Process, tmp_path: Path) -> None:
    in_the_way = tmp_path / "results/.partial/pretrain-nano-clip"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder")
    job = start(tmp_path, *LONG)
    _, error = job.communicate(timeout=120)
    assert job.returncode == 1 and error.startswith("Traceback") and error.count("Traceback (most recent call last)") == 1, error

    in_the_way.unlink()
    job = start(tmp_path, *LONG)
    until(lambda: bool(server.children()) and in_the_way.exists())
    for each in (job, server.children()[0], server):  # as a terminal does
        each.send_signal(signal.SIGINT)
    _, error = job.communicate(timeout=20)
    assert job.returncode == 130 and error == "interrupted: the same command goes on where it was\n"
    assert server.is_running()


def test_a_job_without_a_model_is_handed_over_and_what_comes_first_is_not(
    server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "die_with_parent", lambda: None)  # of this test's process
        for stage, code in (("interval", 2), ("prepare", None), ("fetch", None)):
            patch.setattr(sys, "argv", ["medbench", stage, "nowhere", "nano-clip", "ots"][: 5 if stage == "interval" else 3])
            assert warm.hand_over() == code
    signal.signal(signal.SIGINT, interrupt)  # which a process that has handed its job over ignores
    assert "nowhere" in capfd.readouterr().err
    until(lambda: not server.children())


def test_more_threads_are_not_handed_over(server: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["medbench", "embed", "nowhere", "nano-clip"])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert warm.hand_over() is None
    assert process.threads() == 2


def test_a_job_dies_with_the_warm_process_and_the_next_runs_alone(server: psutil.Process, tmp_path: Path) -> None:
    job = start(tmp_path, *LONG)
    until(lambda: bool(server.children()))
    [fork] = server.children()
    server.kill()
    assert job.wait(timeout=20) == 137
    psutil.wait_procs([fork], timeout=20)
    assert not fork.is_running()
    assert start(tmp_path, "predict", "nowhere", "nano-clip", "ots").wait(timeout=120) == 2
