"""Devices, on fake lists: who sees what, that no two live jobs share one, and that the dead hold none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbench.errors import MedbenchError
from medbench.jobs import devices

ROOT = Path(__file__).parents[2]
LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-cccc)
  MIG 1g.5gb      Device  0: (UUID: MIG-1111)
  MIG 1g.5gb      Device  1: (UUID: MIG-2222)
"""
CLAIM = """import os, sys, time
from medbench.errors import MedbenchError
from medbench.jobs import devices
devices.claim(int(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a fake nvidia-smi and lock files of its own."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(devices.tempfile, "tempdir", None)
    for name in (devices.VISIBLE, "SLURM_JOB_ID", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


def job(n: int, seconds: float, visible: str | None = None, slurm: str | None = None) -> "subprocess.Popen[str]":
    """A process that claims n devices, says which and stays."""
    found = {**os.environ, **({devices.VISIBLE: visible} if visible is not None else {}), **({"SLURM_JOB_ID": slurm} if slurm else {})}
    command = [sys.executable, "-c", CLAIM, str(n), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=found)


def seen(process: "subprocess.Popen[str]") -> str:
    """What the process said that it sees."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("visible", "tokens", "names"),
    [
        (None, ["0", "1", "MIG-1111", "MIG-2222"], ["GPU-aaaa", "GPU-bbbb", "MIG-1111", "MIG-2222"]),
        ("1,GPU-aaaa", ["1", "GPU-aaaa"], ["GPU-bbbb", "GPU-aaaa"]),
        ("0,-1,1", ["0"], ["GPU-aaaa"]),
        ("", [], []),
        ("7", ["7"], ["7"]),
    ],
)
def test_what_is_visible_is_found(monkeypatch: pytest.MonkeyPatch, visible: str | None, tokens: list[str], names: list[str]) -> None:
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert devices.found() == [devices.Device(*pair) for pair in zip(tokens, names, strict=True)]


def test_a_host_without_gpus_computes_on_the_cpu_and_says_so_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = job(1, 0).communicate()
    assert done == ("\n", "no GPU is visible: computing on the CPU\n")


def test_a_job_that_asks_for_none_sees_none_and_says_nothing() -> None:
    assert job(0, 0, visible="0,1").communicate() == ("\n", "")


def test_live_jobs_share_no_device_whatever_names_they_use_and_the_next_waits() -> None:
    jobs = [job(1, 600, visible=visible) for visible in ("0,1", "GPU-aaaa,GPU-bbbb")]
    try:
        first, second = (seen(one) for one in jobs)
        assert {first, second} in ({"0", "GPU-bbbb"}, {"1", "GPU-aaaa"})
        third = job(1, 0, visible="0,1")
        jobs.append(third)
        assert third.stderr is not None and "waiting for 1 of 2 GPUs" in third.stderr.readline()
        jobs[1].send_signal(signal.SIGKILL)
        assert seen(third) == second.replace("GPU-aaaa", "0").replace("GPU-bbbb", "1")
    finally:
        for one in jobs:
            one.kill()
            one.wait()


def test_many_jobs_and_kills_never_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve jobs on four devices; every holder is killed, none of them lets go by itself."""
    waiting, holders, turns = [job(1, 600) for _ in range(12)], dict[str, "subprocess.Popen[str]"](), 0
    for one in waiting:
        assert one.stdout is not None
        os.set_blocking(one.stdout.fileno(), False)
    try:
        end = time.monotonic() + 300
        while waiting and time.monotonic() < end:
            for one in list(waiting):
                if token := seen(one):
                    assert token not in holders, "two live jobs were given one device"
                    holders[token] = one
                    waiting.remove(one)
                    turns += 1
            if len(holders) == 4 or (holders and not waiting):
                token, holder = holders.popitem()
                holder.kill()
                holder.wait()
            time.sleep(0.05)
        assert turns == 12
    finally:
        for one in [*waiting, *holders.values()]:
            one.kill()
            one.wait()


def test_a_job_gets_as_many_as_it_asks_for_or_waits_with_none() -> None:
    pair, single = job(2, 600, visible="0,1"), None
    try:
        assert seen(pair) == "0,1"
        single = job(1, 0, visible="0,1,MIG-1111")
        assert seen(single) == "MIG-1111"
    finally:
        pair.kill()
        pair.wait()
        if single:
            single.wait()


def test_under_slurm_the_scheduler_decides() -> None:
    """Two jobs of one host may both be given a device that is called 0; jobs inside one allocation of several share none."""
    jobs = [job(1, 600, visible="0", slurm="11"), job(1, 600, visible="0", slurm="12")]
    jobs += [job(1, 600, visible="0,1", slurm="13") for _ in range(2)]
    try:
        assert [seen(one) for one in jobs[:2]] == ["0", "0"]
        assert {seen(one) for one in jobs[2:]} == {"0", "1"}
    finally:
        for one in jobs:
            one.kill()
            one.wait()


def test_devices_are_claimed_before_torch() -> None:
    code = "import torch\nfrom medbench.jobs import devices\ndevices.claim(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "AssertionError: what is visible is read once" in done.stderr


@pytest.mark.parametrize(
    ("made", "words"),
    [("foreign", "belongs to another user (4711); have it removed, or set TMPDIR"), ("file", "is no folder"), ("link", "is no folder")],
)
def test_what_somebody_else_made_in_the_place_of_the_locks_is_one_line(tmp_path: Path, made: str, words: str) -> None:
    place = tmp_path / f"medbench-devices-{os.getuid()}"
    if made == "file":
        place.write_text("")
    elif made == "link":
        place.symlink_to(tmp_path / "nowhere")
    elif os.getuid():
        pytest.skip("only root can give a folder away")
    else:
        place.mkdir(mode=0o700)
        os.chown(place, 4711, 4711)
    with pytest.raises(MedbenchError) as error:
        devices.folder()
    assert str(error.value).startswith(f"{place}: {words}") and "\n" not in str(error.value)


def test_a_folder_of_locks_that_others_may_open_is_closed_to_them(tmp_path: Path) -> None:
    """Whoever can read a file can lock it, and a job would wait without end."""
    place = tmp_path / f"medbench-devices-{os.getuid()}"
    for mode in (0o777, 0o500):
        place.mkdir(mode=mode, exist_ok=True)
        place.chmod(mode)
        assert devices.folder() == place and place.stat().st_mode & 0o777 == 0o700


def test_no_temporary_folder_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(devices.tempfile, "gettempdir", none)
    with pytest.raises(MedbenchError, match=r"GPUs: their locks find no place .*; make room, or set TMPDIR"):
        devices.folder()
