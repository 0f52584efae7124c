"""Locks on disks without locks, on disks whose locks end at the host, and what two hosts of one folder leave each other."""

import errno
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medbench.jobs import locks
from tests.unit import refusing

pytestmark = pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in refusing.CALLS, reason="refusals are Linux's")
ABSENT = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK]
ENTER = """import sys, time
from medbench.errors import MedbenchError
from medbench.jobs import exclusive
try:
    {call}
except MedbenchError as error:
    print(error, flush=True)
else:
    print("in", flush=True)
    time.sleep({seconds})
"""
HOLD = """import time
from pathlib import Path
from medbench.errors import MedbenchError
from medbench.jobs import partial
try:
    with partial.hold(Path("held"), "embed d/m"):
        print("in", flush=True)
        time.sleep({seconds})
except MedbenchError as error:
    print(error, flush=True)
"""
CLAIM = """import os, time
from medbench.jobs import devices
devices.claim(1)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep({seconds})
"""


@contextmanager
def running(program: str, folder: Path, number: int | None, host: str = "", expected: str = "in") -> Iterator[int]:
    """A process that has taken its lock and stays; its number. It is killed at the end."""
    process = refusing.start(program.format(call="exclusive.enter(False, ['predict'])", seconds=600), folder, number, host)
    try:
        assert refusing.said(process) == expected
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def tries(program: str, folder: Path, number: int | None, host: str = "", call: str = "exclusive.enter(False, ['predict'])") -> str:
    """What a process says that ends at once; no traceback is."""
    process = refusing.start(program.format(call=call, seconds=0), folder, number, host)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in error, error
    return out.strip()


@pytest.mark.parametrize("number", ABSENT)
def test_a_disk_without_locks_keeps_two_starts_apart_and_a_killed_one_holds_nothing(tmp_path: Path, number: int) -> None:
    assert tries(ENTER, tmp_path, None) == "in", "while the disk had locks: the file stays"
    with running(ENTER, tmp_path, number) as first:
        assert f"another Snakemake (process {first}) works in this folder; wait for it" in tries(ENTER, tmp_path, number)
    assert tries(ENTER, tmp_path, number) == "in"
    assert tries(ENTER, tmp_path, None) == "in", "once the disk has locks"


@pytest.mark.parametrize("number", ABSENT)
def test_a_disk_without_locks_keeps_two_jobs_apart_and_a_killed_one_holds_nothing(tmp_path: Path, number: int) -> None:
    (tmp_path / "held.lock").touch()  # as a killed one leaves it
    with running(HOLD, tmp_path, number) as first:
        assert tries(HOLD, tmp_path, number).startswith(f"held: process {first} (embed d/m) works on embed d/m; wait for it")
    assert tries(HOLD, tmp_path, number) == "in"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ABSENT)
def test_devices_are_shared_without_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for name, value in {"CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path), "SLURM_JOB_ID": ""}.items():
        monkeypatch.setenv(name, value)
    with running(CLAIM, tmp_path, number, expected="0"):
        assert tries(CLAIM, tmp_path, number) == "1"
    assert tries(CLAIM, tmp_path, number) == "0"


def test_the_note_is_said_once(tmp_path: Path) -> None:
    program = "from medbench.jobs import locks\nfrom pathlib import Path\nfor n in 'ab': locks.Lock(Path(n + '.lock')).acquire()"
    process = refusing.start(program, tmp_path, errno.ENOLCK)
    assert process.communicate(timeout=60)[1].count("this disk has no locks") == 1


@pytest.mark.parametrize("left", ["", "{", "[]", "null", '{"host": 1}'])
def test_a_note_that_a_power_cut_left_holds_nothing(tmp_path: Path, left: str) -> None:
    lock = locks.Lock(tmp_path / "x.lock")
    lock.note.write_text(left)
    lock.acquire()
    lock.release()
    assert not lock.note.exists()


def test_the_number_of_a_process_that_is_gone_may_be_given_again(tmp_path: Path) -> None:
    lock = locks.Lock(tmp_path / "x.lock", across_hosts=True)
    lock.acquire()
    mine = json.loads(lock.note.read_text())
    lock.release()
    lock.note.write_text(json.dumps({**mine, "began": mine["began"] - 1}))
    lock.acquire()
    lock.release()


needs_hosts = pytest.mark.skipif(not refusing.can_be_elsewhere(), reason="namespaces are not allowed here")


@needs_hosts
def test_two_hosts_whose_locks_are_their_own_keep_apart(tmp_path: Path) -> None:
    lock = tmp_path / ".snakemake/locks/0.output.lock"
    with running(ENTER, tmp_path, 0, "first"):
        lock.parent.mkdir()
        lock.write_text("results/x\n")
        refused = tries(ENTER, tmp_path, 0, "second")
        assert "of host first since 20" in refused and refused.endswith("remove .snakemake/medbench.owner and run again")
        assert "\n" not in refused
        assert "of host first" in tries(ENTER, tmp_path, 0, "second", "exclusive.unlock(['predict'])")
        assert tries(ENTER, tmp_path, 0, "second", "exclusive.enter(True, ['predict'])") == "in"
        assert lock.exists(), "nothing of a live start is cleared"
    assert "of host first" in tries(ENTER, tmp_path, 0, "second"), "it may live, for all that can be seen there"
    assert lock.exists()
    (tmp_path / ".snakemake/medbench.owner").unlink()
    assert tries(ENTER, tmp_path, 0, "second") == "in"
    assert not lock.exists()


def test_a_dry_run_clears_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/x\n")
    assert tries(ENTER, tmp_path, None, call="exclusive.enter(True, ['predict'])") == "in"
    assert lock.exists() and sorted(path.name for path in (tmp_path / ".snakemake").iterdir()) == ["locks"]


def test_a_start_that_ends_leaves_no_note(tmp_path: Path) -> None:
    assert tries(ENTER, tmp_path, None) == "in"
    assert not (tmp_path / ".snakemake/medbench.owner").exists()


@needs_hosts
def test_jobs_of_another_host_give_way_to_the_kernels_word_alone(tmp_path: Path) -> None:
    """A node that went down lets go of the locks of a disk that has them, and the job runs on another one."""
    with running(HOLD, tmp_path, errno.ENOLCK, "first"):
        pass
    refused = tries(HOLD, tmp_path, errno.ENOLCK, "second")
    assert "of host first since" in refused and refused.endswith("remove held.owner and run again")
    assert tries(HOLD, tmp_path, None, "second") == "in"
